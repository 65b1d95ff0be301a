"""TensorFlow with the behaviour of 1.x: graphs, sessions and reference variables.

All modules import it with ``from alexnet_estimator.engine.graph_mode import tf``, so
that none of them can create a graph or a tensor before this behaviour is set.
"""

import logging

import tensorflow.compat.v1 as tf

__all__ = ["tf"]

_logger = logging.getLogger("tensorflow")
_level = _logger.level
_logger.setLevel(logging.ERROR)  # TF 2.15 warns about the next line.
tf.disable_v2_behavior()
_logger.setLevel(_level)
