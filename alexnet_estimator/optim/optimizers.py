"""Optimizers, weight decay and clipping of gradients."""

from typing import Any, Callable, List, Optional, Sequence, Tuple

import numpy as np

from alexnet_estimator.config import Config
from alexnet_estimator.engine.graph_mode import tf

GradientsAndVariables = Sequence[Tuple[tf.Tensor, tf.Variable]]


def make_optimizer(
    optim: Config,
    learning_rate: tf.Tensor,
    decays_slots: bool = False,
    is_warm: Optional[Callable[[tf.Variable], bool]] = None,
    warm_factor: float = 1.0,
) -> tf.train.Optimizer:
    """Return the configured optimizer.

    Args:
        optim: Section ``optim`` of the configuration.
        learning_rate: Learning rate, float32 scalar.
        decays_slots: Whether the optimizer applies the weight decay, see
            ``can_decay_slots``; the caller must then not call ``decay_weights``.
        is_warm: Function that returns whether a variable is restored and has the
            learning rate ``warm_factor * learning_rate``; None for no such variables.
        warm_factor: Factor of the learning rate of restored variables.
    """
    optimizer = _bare_optimizer(optim, learning_rate, decays_slots)
    if is_warm is not None:
        warm = _bare_optimizer(optim, warm_factor * learning_rate, decays_slots)
        optimizer = TwoRateOptimizer(optimizer, warm, is_warm)
    if optim.ema_decay == 0:
        return optimizer
    return AveragingOptimizer(optimizer, optim.ema_decay)


class _WrappingOptimizer(tf.train.Optimizer):
    """Wraps another optimizer, which computes the gradients."""

    def __init__(self, kind: str, optimizer: tf.train.Optimizer):
        super().__init__(use_locking=False, name=kind + optimizer.get_name())
        self._optimizer = optimizer

    def compute_gradients(self, *args: Any, **kwargs: Any) -> List[tuple]:
        """Compute gradients with the inner optimizer."""
        return self._optimizer.compute_gradients(*args, **kwargs)


class TwoRateOptimizer(_WrappingOptimizer):
    """Trains some variables with one optimizer and the others with another.

    Scaling the gradients instead would have no effect with Adam and LARS, which divide
    by the size of the gradients.
    """

    def __init__(
        self,
        optimizer: tf.train.Optimizer,
        warm: tf.train.Optimizer,
        is_warm: Callable[[tf.Variable], bool],
    ):
        super().__init__("TwoRate", optimizer)
        self._warm, self._is_warm = warm, is_warm

    def apply_gradients(
        self,
        grads_and_vars: GradientsAndVariables,
        global_step: tf.Variable,
        name: Optional[str] = None,
    ) -> tf.Operation:
        """Apply the gradients with both optimizers, then increment the global step."""
        pairs = list(grads_and_vars)
        warm = [pair for pair in pairs if self._is_warm(pair[1])]
        cold = [pair for pair in pairs if not self._is_warm(pair[1])]
        parts = [(self._optimizer, cold), (self._warm, warm)]
        updates = [optimizer.apply_gradients(part) for optimizer, part in parts if part]
        with tf.control_dependencies(updates):
            return tf.assign_add(global_step, 1, name=name).op


class AveragingOptimizer(_WrappingOptimizer):
    """Adds an exponential moving average of the weights to another optimizer.

    Evaluation restores the averages in place of the weights.  Loss scaling wraps this
    class, so that a skipped step does not change the averages.
    """

    def __init__(self, optimizer: tf.train.Optimizer, decay: float):
        super().__init__("Averaging", optimizer)
        self._decay = decay

    def apply_gradients(
        self,
        grads_and_vars: GradientsAndVariables,
        global_step: Optional[tf.Variable] = None,
        name: Optional[str] = None,
    ) -> tf.Operation:
        """Apply the gradients, then update the averages."""
        pairs = list(grads_and_vars)
        update = self._optimizer.apply_gradients(pairs, global_step, name)
        averages = tf.train.ExponentialMovingAverage(self._decay, global_step)
        with tf.control_dependencies([update]):
            return averages.apply([variable for _, variable in pairs])


class DecayingMomentumOptimizer(tf.train.MomentumOptimizer):
    """A momentum optimizer that adds the weight decay to its slots in place.

    ``m = momentum * (m + decay / momentum * w) + gradient`` equals
    ``m = momentum * m + gradient + decay * w``, but needs no temporary tensors of the
    size of the weights, which take a tenth of the memory of a rank.
    """

    def __init__(self, learning_rate: tf.Tensor, momentum: float, decay: float):
        """Create the optimizer; ``momentum`` must be above 0."""
        super().__init__(learning_rate, momentum, name="Momentum")
        self._adder = tf.train.GradientDescentOptimizer(-decay / momentum)

    def _apply_dense(self, grad: tf.Tensor, var: tf.Variable) -> tf.Operation:
        if not _is_kernel(var):
            return super()._apply_dense(grad, var)
        slot = self.get_slot(var, "momentum")
        decay = self._adder.apply_gradients([(var, slot)])
        with tf.control_dependencies([decay]):
            return super()._apply_dense(grad, var)


def _bare_optimizer(
    optim: Config, learning_rate: tf.Tensor, decays_slots: bool
) -> tf.train.Optimizer:
    if decays_slots:
        return DecayingMomentumOptimizer(
            learning_rate, optim.momentum, optim.weight_decay
        )
    if optim.optimizer == "momentum":
        return tf.train.MomentumOptimizer(
            learning_rate, optim.momentum, use_nesterov=optim.use_nesterov
        )
    if optim.optimizer == "adam":
        return tf.train.AdamOptimizer(learning_rate, beta1=optim.momentum)
    # Only TensorFlow 1.15 has LARS; config.validate refuses it with TensorFlow 2.15.
    from tensorflow.contrib.opt import LARSOptimizer

    # You et al., "Large Batch Training of Convolutional Networks", 2017.  The gradients
    # already contain the weight decay, see decay_weights.
    return LARSOptimizer(
        learning_rate, momentum=optim.momentum, weight_decay=0.0, skip_list=["bias"]
    )


def decay_weights(gradients: GradientsAndVariables, weight_decay: float) -> List[tuple]:
    """Add the gradient of ``weight_decay / 2 * sum(w ** 2)`` to that of every kernel.

    Biases do not decay.  Adding this term to the averaged gradients has the same effect
    as an L2 term in the loss, which would have to be computed.
    """
    if weight_decay == 0:
        return list(gradients)
    return [
        (gradient + weight_decay * variable, variable)
        if _is_kernel(variable)
        else (gradient, variable)
        for gradient, variable in gradients
    ]


def clip_gradients(
    gradients: GradientsAndVariables, max_norm: float
) -> Tuple[List[tuple], tf.Tensor]:
    """Clip the gradients by their global norm.

    Args:
        gradients: Pairs of a gradient and its variable.
        max_norm: Largest global norm; 0 for no clipping.

    Returns:
        The pairs with the clipped gradients, and the global norm before clipping, a
        float32 scalar, which is Inf or NaN if any gradient is.
    """
    values = [gradient for gradient, _ in gradients]
    norm = tf.global_norm(values)
    if max_norm > 0:
        # This is tf.clip_by_global_norm without tf.is_finite, which the vendor lists as
        # unsupported on NPUs.  The comparison works, as Inf and NaN are not below Inf.
        scale = max_norm * tf.minimum(1.0 / norm, 1.0 / max_norm)
        scale = tf.where(norm < np.inf, scale, tf.constant(np.nan))
        values = [value * scale for value in values]
    return list(zip(values, [variable for _, variable in gradients])), norm


def can_decay_slots(optim: Config) -> bool:
    """Return whether ``DecayingMomentumOptimizer`` can apply the weight decay."""
    has_plain_momentum = optim.optimizer == "momentum" and not optim.use_nesterov
    return has_plain_momentum and optim.momentum > 0 and optim.weight_decay > 0


def _is_kernel(variable: tf.Variable) -> bool:
    """Return whether a variable is a kernel; biases and scales have one dimension."""
    return variable.shape.ndims > 1
