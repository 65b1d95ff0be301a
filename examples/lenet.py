"""LeNet-5 with ReLU and dropout: an example of another network in one file.

    bash launch/run_1p.sh --data_path=FOLDER --config.data.image_size=32 \
        --config.model.network=examples/lenet.py --config.model.hidden_units=84

Source: LeCun, Bottou, Bengio and Haffner, "Gradient-Based Learning Applied to Document
Recognition", Proceedings of the IEEE 86 (11), 1998.
"""

import zlib
from typing import Any, List

from alexnet_estimator import tf
from alexnet_estimator.networks import Network
from alexnet_estimator.schema import Field, at_least, between

MIN_IMAGE_SIZE = 16


def build(
    images: Any, num_classes: int, settings: Any, dropout: Any, compute_dtype: Any
) -> Any:
    """Build LeNet; ``Network`` documents the arguments and the result."""
    x = tf.cast(images, compute_dtype)
    for name, channels in (("conv1", settings.channels), ("conv2", 16)):
        kernel, bias = weights(name, [5, 5, int(x.shape[3]), channels], compute_dtype)
        x = tf.nn.relu(tf.nn.conv2d(x, kernel, [1, 1, 1, 1], "VALID") + bias)
        x = tf.nn.max_pool(x, [1, 2, 2, 1], [1, 2, 2, 1], "VALID")
    # [batch, height, width, channels] -> [batch, height * width * channels]; for images
    # of 32 pixels: [batch, 5, 5, 16] -> [batch, 400]
    x = tf.reshape(x, [-1, int(x.shape[1] * x.shape[2] * x.shape[3])])
    for name, units in (("fc3", 120), ("fc4", settings.hidden_units)):
        kernel, bias = weights(name, [int(x.shape[1]), units], compute_dtype)
        x = tf.nn.relu(tf.matmul(x, kernel) + bias)
        if dropout is not None:  # It is None outside of training.
            x = dropout(x, settings.keep_prob, name)
    kernel, bias = weights("head", [int(x.shape[1]), num_classes], compute_dtype)
    return tf.matmul(x, kernel) + bias


def weights(layer: str, shape: List[int], dtype: Any) -> Any:
    """Create the float32 kernel and bias of a layer; return them cast to ``dtype``."""
    # The seed depends on the name of the layer, so that changes of the graph do not
    # change the initial weights.
    seed = zlib.crc32(layer.encode()) % 2**31
    he_normal = tf.variance_scaling_initializer(2.0, "fan_in", seed=seed)
    with tf.variable_scope(layer):
        kernel = tf.get_variable("kernel", shape, initializer=he_normal)
        zeros = tf.zeros_initializer()
        bias = tf.get_variable("bias", shape[-1:], initializer=zeros)
    return tf.cast(kernel, dtype), tf.cast(bias, dtype)


def check(settings: Any, image_size: int) -> List[str]:
    """Return a list of problems of the settings for images of this size in pixels."""
    if image_size >= MIN_IMAGE_SIZE:
        return []
    return [f"data.image_size is {image_size}: must be at least {MIN_IMAGE_SIZE}"]


network = Network(
    name="lenet",
    title="LeNet-5",
    build=build,
    layer_names=("conv1", "conv2", "fc3", "fc4", "head"),
    settings={
        "channels": Field(6, at_least(1), "Channels of conv1", is_fixed=True),
        "hidden_units": Field(84, at_least(1), "Units of fc4", is_fixed=True),
        "keep_prob": Field(
            0.5, between(0.01, 1), "Probability that dropout keeps a unit of fc3, fc4"
        ),
    },
    check=check,
    drawn_kernels="conv1",
    pixel_layer="conv1",
)
