"""A network of one layer, so that a job spends little time on training it."""

from typing import Any

from alexnet_estimator import tf
from alexnet_estimator.networks import Network


def build(
    images: Any, num_classes: int, settings: Any, dropout: Any, compute_dtype: Any
) -> Any:
    """Build the network; see ``Network.build``."""
    colour = tf.reduce_mean(tf.cast(images, compute_dtype), axis=[1, 2])  # [batch, 3]
    with tf.variable_scope("head"):
        kernel = tf.get_variable("kernel", [3, num_classes])
    return tf.matmul(colour, tf.cast(kernel, compute_dtype))


network = Network("one_layer", build, ("head",))
