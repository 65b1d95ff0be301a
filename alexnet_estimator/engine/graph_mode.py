"""TensorFlow as 1.15 has it: graphs, sessions, variables by reference.

``from alexnet_estimator.engine.graph_mode import tf`` is the only way by which rooms
import TensorFlow, so that none of them can make a graph or a tensor before this.
"""

import logging

import tensorflow.compat.v1 as tf

__all__ = ["tf"]

_logger = logging.getLogger("tensorflow")
_level = _logger.level
_logger.setLevel(logging.ERROR)  # TF 2.15 complains of its own doing here.
tf.disable_v2_behavior()
_logger.setLevel(_level)
