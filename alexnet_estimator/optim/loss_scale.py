"""Loss scaling for CPUs and GPUs.

Micikevicius et al., "Mixed Precision Training", ICLR 2018, section 3.2: the loss is
multiplied by a scale, so that small float16 gradients do not underflow to zero, and a
step whose gradients overflow is skipped.  On an NPU the vendor's loss scale managers
follow the same rule (``runtime/npu_loss_scale``).
"""

from typing import Any, NamedTuple, Optional, Tuple

from alexnet_estimator.config import Config
from alexnet_estimator.engine.graph_mode import tf

# All other modes compute in float16, in which small gradients underflow.
FLOAT32_MODES = ("must_keep_origin_dtype", "force_fp32")


class ScaledOptimizer(NamedTuple):
    """An optimizer that scales the loss.

    Attributes:
        optimizer: Optimizer whose ``compute_gradients`` returns unscaled gradients.
            After an overflow, ``apply_gradients`` changes neither weights nor slots nor
            the global step.
        scale: Loss scale, float32 scalar; 1 without loss scaling.
        num_skipped: Number of skipped steps of the run so far, int64 scalar.
    """

    optimizer: tf.train.Optimizer
    scale: tf.Tensor
    num_skipped: tf.Tensor


def resolve_loss_scale(precision: Config) -> str:
    """Return ``dynamic``, ``none`` or a number as text, in place of ``auto``."""
    if precision.loss_scale != "auto":
        return precision.loss_scale
    return "none" if precision.mode in FLOAT32_MODES else "dynamic"


def scale_loss(optimizer: tf.train.Optimizer, precision: Config) -> ScaledOptimizer:
    """Wrap an optimizer with the configured loss scaling.

    Overflow is tested on the averaged gradients, so that every rank makes the same
    decision.  Otherwise the weights of the ranks would differ.

    Args:
        optimizer: Optimizer that averages gradients over the ranks.
        precision: Section ``precision`` of the configuration.
    """
    kind = resolve_loss_scale(precision)
    if kind == "none":
        return ScaledOptimizer(optimizer, tf.constant(1.0), tf.zeros([], tf.int64))
    scaling = SkippingLossScale(
        initial_scale=(
            precision.initial_loss_scale if kind == "dynamic" else float(kind)
        ),
        settings=precision if kind == "dynamic" else None,
    )
    scaled = tf.train.experimental.MixedPrecisionLossScaleOptimizer(optimizer, scaling)
    return ScaledOptimizer(scaled, scaling(), scaling.num_skipped)


class SkippingLossScale(tf.train.experimental.DynamicLossScale):
    """A dynamic or fixed loss scale that skips and counts overflowed steps.

    The rule is that of ``ExponentialUpdateLossScaleManager`` on an NPU.  After
    ``growth_steps`` finite steps in a row, the scale is multiplied by
    ``growth_factor``.  After ``decrease_after_overflows`` overflows, it is multiplied
    by ``decrease_factor``.  Each change resets both counters, and an overflow resets
    the counter of finite steps.  The state is kept in variables, so that a resumed run
    continues it.
    """

    def __init__(self, initial_scale: float, settings: Optional[Config] = None):
        """Create the variables.

        Args:
            initial_scale: Initial scale.
            settings: Section ``precision`` of the configuration; None for a fixed
                scale.
        """
        # MixedPrecisionLossScaleOptimizer skips steps only if the scale is an instance
        # of DynamicLossScale, whose constructor would create other variables.
        super(tf.train.experimental.DynamicLossScale, self).__init__()
        self._settings = settings
        with tf.variable_scope("loss_scale"):
            self._scale = _state("scale", initial_scale, tf.float32)
            self._good_steps = _state("good_steps", 0, tf.int64)
            self._bad_steps = _state("bad_steps", 0, tf.int64)
            self.num_skipped = _state("num_skipped", 0, tf.int64)

    def __call__(self) -> tf.Tensor:
        """Return the current scale, float32 scalar."""
        return tf.convert_to_tensor(self._scale)

    def update(self, grads: Any) -> Tuple[tf.Operation, tf.Tensor]:
        """Return the update of the state and whether to apply the step, bool scalar."""
        is_finite = tf.reduce_all(
            [tf.reduce_all(tf.math.is_finite(g)) for g in grads if g is not None]
        )
        good, bad, scale = self._after_step(is_finite)
        skipped = self.num_skipped + tf.cast(tf.logical_not(is_finite), tf.int64)
        # All new values must be computed before the first one is assigned: reference
        # variables would otherwise be read after their change.
        with tf.control_dependencies([good, bad, scale, skipped]):
            update = tf.group(
                tf.assign(self._good_steps, good),
                tf.assign(self._bad_steps, bad),
                tf.assign(self._scale, scale),
                tf.assign(self.num_skipped, skipped),
            )
        return update, is_finite

    def _after_step(self, is_finite: tf.Tensor) -> Tuple[tf.Tensor, ...]:
        """Return the updated counters of finite and overflowed steps, and the scale."""
        zero = tf.zeros([], tf.int64)
        good = tf.where(is_finite, self._good_steps + 1, zero)
        bad = tf.where(is_finite, tf.identity(self._bad_steps), self._bad_steps + 1)
        scale = tf.identity(self._scale)
        if self._settings is None:
            return good, bad, scale
        grows = good >= self._settings.growth_steps
        falls = bad >= self._settings.decrease_after_overflows
        grown = tf.minimum(
            scale * self._settings.growth_factor, self._settings.max_loss_scale
        )
        fallen = tf.maximum(
            scale * self._settings.decrease_factor, self._settings.min_loss_scale
        )
        scale = tf.where(grows, grown, tf.where(falls, fallen, scale))
        restart = tf.logical_or(grows, falls)
        return tf.where(restart, zero, good), tf.where(restart, zero, bad), scale


def _state(name: str, value: float, dtype: tf.DType) -> tf.Variable:
    return tf.get_variable(
        name, [], dtype, tf.constant_initializer(value), trainable=False
    )
