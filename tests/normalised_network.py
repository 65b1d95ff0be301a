"""A network with features that AlexNet does not have, for tests/test_networks.py.

It has batch normalisation, variables with other names in separate scopes, and a layer
without variables.
"""

from typing import Any

from alexnet_estimator import tf
from alexnet_estimator.networks import Network


def build(
    images: Any, num_classes: int, settings: Any, dropout: Any, compute_dtype: Any
) -> Any:
    """Build the network; see ``Network.build``."""
    x = tf.cast(images, compute_dtype)
    for block in ("block1", "block2"):
        with tf.variable_scope(block):
            with tf.variable_scope("conv"):
                weights = tf.get_variable("weights", [3, 3, int(x.shape[3]), 4])
            weights = tf.cast(weights, compute_dtype)
            x = tf.nn.conv2d(x, weights, [1, 2, 2, 1], "SAME")
            is_training = dropout is not None
            x = tf.layers.batch_normalization(x, training=is_training, momentum=0.5)
            x = tf.nn.relu(x)
    x = tf.reduce_mean(x, axis=[1, 2])  # [batch, height, width, 4] -> [batch, 4]
    if dropout is not None:
        x = dropout(x, 0.9, "pool")
    return tf.layers.dense(x, num_classes, name="logits")


network = Network("normalised", build, ("block1", "block2", "pool", "logits"))
