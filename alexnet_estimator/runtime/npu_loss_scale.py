"""The vendor's loss scale managers, extended to count skipped steps."""

from typing import Any, Optional

from alexnet_estimator.config import Config
from alexnet_estimator.engine.graph_mode import tf


def make_manager(kind: str, precision: Config) -> Any:
    """Return the vendor's loss scale manager with a ``num_skipped`` variable.

    Args:
        kind: Kind of loss scale, ``dynamic`` or a number as text.
        precision: Section ``precision`` of the configuration.
    """
    from npu_bridge.estimator.npu import npu_loss_scale_manager

    if kind != "dynamic":
        fixed = _counting(npu_loss_scale_manager.FixedLossScaleManager, None)
        return fixed(loss_scale=float(kind))
    dynamic = _counting(
        npu_loss_scale_manager.ExponentialUpdateLossScaleManager, precision
    )
    return dynamic(
        init_loss_scale=precision.initial_loss_scale,
        incr_every_n_steps=precision.growth_steps,
        decr_every_n_nan_or_inf=precision.decrease_after_overflows,
        incr_ratio=precision.growth_factor,
        decr_ratio=precision.decrease_factor,
    )


def _counting(manager_class: Any, limits: Optional[Config]) -> Any:
    """Return a subclass of a manager that counts skipped steps and respects limits.

    Only ``update_loss_scale`` is told whether a step was skipped.  All ranks are told
    the same, because npu_bridge sums the flag over them.

    Args:
        manager_class: Manager class of npu_bridge.
        limits: Section ``precision`` for a dynamic scale; None for a fixed scale.
    """

    class CountingManager(manager_class):
        def __init__(self, **settings: Any):
            super().__init__(**settings)
            self.num_skipped = tf.get_variable(
                "num_skipped", [], tf.int64, tf.zeros_initializer(), trainable=False
            )

        def update_loss_scale(self, finite_grads: tf.Tensor) -> tf.Operation:
            is_skipped = tf.cast(tf.logical_not(finite_grads), tf.int64)
            count = tf.assign_add(self.num_skipped, is_skipped)
            update = super().update_loss_scale
            if limits is None:
                return tf.group(count, update(finite_grads))
            scale = tf.convert_to_tensor(self.get_loss_scale())
            next_scale = scale * tf.where(
                finite_grads, limits.growth_factor, limits.decrease_factor
            )
            # The vendor's rule has no upper limit, and its lower limit is always 1.
            is_allowed = tf.logical_and(
                next_scale >= limits.min_loss_scale,
                next_scale <= limits.max_loss_scale,
            )
            return tf.group(
                count, tf.cond(is_allowed, lambda: update(finite_grads), tf.no_op)
            )

    return CountingManager
