"""The vendor's loss-scale managers, which here count the steps that they skip."""

from typing import Any, Optional

from alexnet_estimator.config import Config
from alexnet_estimator.engine.graph_mode import tf


def make_manager(kind: str, precision: Config) -> Any:
    """Return the vendor's loss-scale manager with a ``num_skipped`` variable.

    Args:
        kind: ``dynamic``, or the text of a fixed scale.
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
    """Return a manager class that counts skipped steps and keeps to limits.

    ``update_loss_scale`` is the one place that learns whether a step was skipped; on
    all ranks alike, as the flag is summed over them.

    Args:
        manager_class: Class of npu_bridge.
        limits: Section ``precision`` for a dynamic scale; None: the scale is fixed.
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
            # The vendor's rule knows no upper limit, and 1 as the lower one.
            is_allowed = tf.logical_and(
                next_scale >= limits.min_loss_scale,
                next_scale <= limits.max_loss_scale,
            )
            return tf.group(
                count, tf.cond(is_allowed, lambda: update(finite_grads), tf.no_op)
            )

    return CountingManager
