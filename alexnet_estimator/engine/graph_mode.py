"""TensorFlow as 1.15 has it: graphs, sessions, variables by reference.

``from alexnet_estimator.engine.graph_mode import tf`` is the only way by which rooms
import TensorFlow, so that none of them can make a graph or a tensor before this.
"""

import tensorflow.compat.v1 as tf

__all__ = ["tf"]

tf.disable_v2_behavior()
