"""Scopes that mark operators for the compiler."""

import contextlib
from typing import Iterator

import tensorflow as tf
from npu_bridge.facts import FACTS, RELEASE, released

NAME = "npu_bridge.estimator.npu.npu_scope.keep_dtype_scope"

if RELEASE in FACTS["signatures"][NAME][""]:

    @released(NAME)
    @contextlib.contextmanager
    def keep_dtype_scope() -> Iterator[None]:
        """Mark the operators of the scope, whose dtypes the compiler must keep."""
        mark = tf.AttrValue(i=1)
        with tf.get_default_graph()._attr_scope({"_keep_dtype": mark}):
            yield
