"""Functions that mark operators of a finished graph for the compiler."""

from typing import Any, Sequence

import tensorflow as tf
from npu_bridge.facts import FACTS, RELEASE, released

NAME = "npu_bridge.estimator.npu.util.keep_tensors_dtypes"

if RELEASE in FACTS["signatures"][NAME]["graph, input_tensors"]:

    @released(NAME)
    def keep_tensors_dtypes(graph: Any, input_tensors: Sequence[str]) -> None:
        """Mark the operators of some tensors, whose dtypes the compiler must keep."""
        if not isinstance(graph, tf.Graph):
            raise ValueError("graph param must be ops.Graph class.")
        if not isinstance(input_tensors, (tuple, list)):
            raise ValueError("input_tensors must be list or tuple.")
        for name in input_tensors:
            operation = graph.get_tensor_by_name(name).op
            operation._set_attr("_keep_dtype", tf.AttrValue(i=1))
