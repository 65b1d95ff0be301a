"""Collective operators between the processes of a test."""

from typing import Any, List

import numpy as np
import tensorflow as tf
from npu_bridge import device
from npu_bridge.facts import FACTS, released

REDUCTIONS = ("sum", "max", "min", "prod")


@released("npu_bridge.hccl.hccl_ops.allreduce")
def allreduce(tensor: Any, reduction: str, fusion: int, **_: Any) -> tf.Tensor:
    """Return the reduction over all ranks."""
    if reduction not in REDUCTIONS or fusion not in (0, 1, 2):
        raise ValueError(f"allreduce with reduction {reduction!r}, fusion {fusion}")
    tensor = tf.convert_to_tensor(tensor)
    return _collective("HcomAllReduce", reduction, tensor, tensor.shape)


@released("npu_bridge.hccl.hccl_ops.allgather")
def allgather(tensor: Any, rank_size: int, **_: Any) -> tf.Tensor:
    """Return the tensors of all ranks, concatenated along axis 0."""
    if rank_size != device.rank_size():
        raise ValueError(f"allgather with rank_size {rank_size}")
    tensor = tf.convert_to_tensor(tensor)
    shape = tensor.shape.as_list()
    return _collective(
        "HcomAllGather", "gather", tensor, [shape[0] * rank_size] + shape[1:]
    )


@released("npu_bridge.hccl.hccl_ops.broadcast")
def broadcast(tensor: List[tf.Tensor], root_rank: int, **_: Any) -> List[tf.Tensor]:
    """Return the tensors of one rank."""
    return [
        _collective("HcomBroadcast", str(root_rank), tf.convert_to_tensor(x), x.shape)
        for x in tensor
    ]


def _collective(kind: str, how: str, tensor: tf.Tensor, shape: Any) -> tf.Tensor:
    if tensor.dtype.name not in FACTS["allreduce_dtypes"]:
        raise TypeError(f"{kind} of {tensor.dtype.name}: {FACTS['allreduce_dtypes']}")
    if not tensor.shape.is_fully_defined():
        raise device.Refused(f"{kind} of dynamic shape {tensor.shape}")
    names: List[str] = []

    def run(value: np.ndarray) -> np.ndarray:
        return device.spoil(device.group().combine(names[0], how, value))

    result = tf.py_func(run, [tensor], tensor.dtype, name=kind)
    names.append(result.op.name)
    result.set_shape(shape)
    return result
