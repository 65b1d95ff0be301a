"""The optimizer that averages gradients over the ranks."""

from typing import Any, List

import tensorflow as tf
from npu_bridge import device
from npu_bridge.facts import released
from npu_bridge.hccl import hccl_ops


class NPUDistributedOptimizer(tf.train.Optimizer):
    """Wraps an optimizer, which applies the averaged gradients."""

    @released("npu_bridge.estimator.npu.npu_optimizer.NPUDistributedOptimizer")
    def __init__(self, optimizer: tf.train.Optimizer, name: Any, **_: Any):
        super().__init__(
            name=name or "Distributed" + type(optimizer).__name__, use_locking=False
        )
        self._optimizer = optimizer

    def compute_gradients(self, *args: Any, **kwargs: Any) -> List[tuple]:
        """Return averaged gradients."""
        pairs = self._optimizer.compute_gradients(*args, **kwargs)
        size = device.rank_size()
        if size <= 1:
            return pairs
        with tf.name_scope(self.get_name() + "_Allreduce"):
            return [
                (gradient if gradient is None else _average(gradient, size), variable)
                for gradient, variable in pairs
            ]

    def apply_gradients(self, *args: Any, **kwargs: Any) -> tf.Operation:
        """Apply gradients as the wrapped optimizer does."""
        return self._optimizer.apply_gradients(*args, **kwargs)


def _average(gradient: tf.Tensor, size: int) -> tf.Tensor:
    return hccl_ops.allreduce(gradient, "sum") / tf.cast(size, gradient.dtype)
