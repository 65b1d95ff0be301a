"""Operators of the device."""

from typing import Any, Callable

import tensorflow as tf
from npu_bridge import device
from npu_bridge.facts import released


@released("npu_bridge.estimator.npu_ops.initialize_system")
def initialize_system(name: str) -> tf.Operation:
    """Return an operator that starts the device and HCCL."""
    return _call(device.initialise, "NpuInit")


@released("npu_bridge.estimator.npu_ops.shutdown_system")
def shutdown_system(name: str) -> tf.Operation:
    """Return an operator that stops them."""
    return _call(device.shut_down, "NpuShutdown")


@released("npu_bridge.estimator.npu_ops.dropout")
def dropout(
    x: tf.Tensor, keep_prob: Any, noise_shape: Any, seed: Any, name: str
) -> tf.Tensor:
    """Apply dropout with the random number generator of the device."""
    x = tf.convert_to_tensor(x)
    if not x.dtype.is_floating:
        raise ValueError(f"dropout of {x.dtype.name}")
    if isinstance(keep_prob, (int, float)) and not 0 < keep_prob <= 1:
        raise ValueError(f"keep_prob is {keep_prob}: must be in (0, 1]")
    if isinstance(keep_prob, int):
        raise TypeError(f"keep_prob is {keep_prob}: must be a float")
    if isinstance(keep_prob, float) and keep_prob == 1:
        return x
    if not isinstance(seed, (int, type(None))):
        raise TypeError(f"seed is {seed}: an attribute must be a Python number")
    return tf.nn.dropout(x, rate=1 - keep_prob, noise_shape=noise_shape, seed=seed)


def _call(function: Callable[[], None], name: str) -> tf.Operation:
    def run() -> bool:
        function()
        return True

    return tf.py_func(run, [], tf.bool, name=name).op
