"""The optimizer that scales the loss and skips the steps with an overflow."""

from typing import Any, List

import tensorflow as tf
from npu_bridge import device
from npu_bridge.facts import released
from npu_bridge.hccl import hccl_ops


class NPULossScaleOptimizer(tf.train.Optimizer):
    """Wraps an optimizer, and skips a step if the device's overflow flag is set."""

    @released("npu_bridge.estimator.npu.npu_loss_scale_optimizer.NPULossScaleOptimizer")
    def __init__(self, opt: Any, loss_scale_manager: Any, is_distributed: bool):
        super().__init__(name="NPULossScaleOptimizer", use_locking=False)
        self._opt, self._manager = opt, loss_scale_manager
        self._is_distributed = is_distributed

    def compute_gradients(
        self, loss: tf.Tensor, *args: Any, **kwargs: Any
    ) -> List[Any]:
        """Return the unscaled gradients, computed from the scaled loss."""
        scale = tf.convert_to_tensor(self._manager.get_loss_scale())
        pairs = self._opt.compute_gradients(loss * scale, *args, **kwargs)
        return [(g if g is None else g / scale, variable) for g, variable in pairs]

    def apply_gradients(
        self, grads_and_vars: Any, global_step: Any = None, name: Any = None
    ) -> tf.Operation:
        """Apply gradients, unless one of the ranks that are asked has overflowed."""
        pairs = list(grads_and_vars)
        gradients = [gradient for gradient, _ in pairs if gradient is not None]
        flag = tf.py_func(device.read_overflow, gradients, tf.float32, name="NpuFlag")
        flag.set_shape([1])
        if self._is_distributed:
            flag = hccl_ops.allreduce(flag, "sum", fusion=0)
        is_good = tf.reduce_all(tf.equal(flag, 0.0))
        update = tf.cond(
            is_good,
            lambda: self._opt.apply_gradients(pairs, global_step, name),
            tf.no_op,
        )
        return tf.group(update, self._manager.update_loss_scale(is_good))
