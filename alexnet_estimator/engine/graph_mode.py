"""TensorFlow in the mode of 1.15: graphs, sessions, reference variables.

All modules import it with ``from alexnet_estimator.engine.graph_mode import tf``, so
that none of them can make a graph or a tensor before the mode is set.
"""

import logging

import tensorflow.compat.v1 as tf

__all__ = ["tf"]

_logger = logging.getLogger("tensorflow")
_level = _logger.level
_logger.setLevel(logging.ERROR)  # TF 2.15 warns of its own call here.
tf.disable_v2_behavior()
_logger.setLevel(_level)
