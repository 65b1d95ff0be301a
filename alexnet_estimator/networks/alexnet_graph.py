"""The graph of AlexNet.

Source: Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep
Convolutional Neural Networks", NIPS 2012; the section numbers below are the paper's.
"""

import zlib
from typing import List, NamedTuple, Optional, Tuple

from ml_collections import ConfigDict

from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.networks.graphs import Dropout

_FUSED_WIDTH = 16  # Number of channels in a block of MKL's layout.


class Conv(NamedTuple):
    """A convolution layer, with the LRN and the pooling that follow it.

    Its ``paper_bias`` is the initial bias of the paper (section 5).
    """

    name: str
    kernel_size: int
    stride: int
    padding: str
    is_grouped: bool
    has_lrn: bool
    has_pool: bool
    paper_bias: float


CONV_LAYERS: Tuple[Conv, ...] = (
    Conv("conv1", 11, 4, "VALID", False, True, True, 0.0),
    Conv("conv2", 5, 1, "SAME", True, True, True, 1.0),
    Conv("conv3", 3, 1, "SAME", False, False, False, 0.0),
    Conv("conv4", 3, 1, "SAME", True, False, False, 1.0),
    Conv("conv5", 3, 1, "SAME", True, False, True, 1.0),
)


def alexnet(
    images: tf.Tensor,
    num_classes: int,
    settings: ConfigDict,
    dropout: Optional[Dropout] = None,
    compute_dtype: tf.DType = tf.float32,
) -> tf.Tensor:
    """Build AlexNet in the variable scope ``alexnet``; see ``build``."""
    with tf.variable_scope("alexnet"):
        return build(images, num_classes, settings, dropout, compute_dtype)


def build(
    images: tf.Tensor,
    num_classes: int,
    settings: ConfigDict,
    dropout: Optional[Dropout],
    compute_dtype: tf.DType,
) -> tf.Tensor:
    """Build AlexNet in the current variable scope.

    Args:
        images: float32 [batch, size, size, 3], normalised; ``size`` is at least 63.
        num_classes: Number of outputs of the last layer.
        settings: Section ``model`` of the configuration.
        dropout: Function called as ``dropout(x, keep_prob, layer_name)`` after fc6 and
            fc7 (section 4.2) in training; None in the other modes.
        compute_dtype: Dtype of convolutions and matrix products.  Variables, local
            response normalisation and logits are always float32.

    Returns:
        float32 [batch, num_classes], logits.
    """
    x = tf.cast(images, compute_dtype)
    for conv, channels in zip(CONV_LAYERS, settings.conv_channels):
        x = _convolution(x, conv, scaled_width(channels, settings), settings)
    # [batch, height, width, channels] -> [batch, height * width * channels]; for images
    # of 227 pixels: [batch, 6, 6, 256] -> [batch, 9216]
    x = tf.reshape(x, [-1, x.shape[1] * x.shape[2] * x.shape[3]])
    for name, units in (("fc6", settings.fc6_units), ("fc7", settings.fc7_units)):
        width = scaled_width(units, settings)
        x = tf.nn.relu(_dense(x, width, name, 1.0, settings))
        if dropout is not None:
            x = dropout(x, settings.keep_prob, name)
    logits = _dense(x, num_classes, "fc8", 0.0, settings)
    return tf.cast(logits, tf.float32)


def scaled_width(units: int, settings: ConfigDict) -> int:
    """Apply the width multiplier; unless it is 1, the result is a multiple of 8."""
    if settings.width_multiplier == 1.0:
        return units
    return max(8, 8 * round(units * settings.width_multiplier / 8))


def _convolution(
    x: tf.Tensor, conv: Conv, channels: int, settings: ConfigDict
) -> tf.Tensor:
    """Apply a convolution layer: [batch, height, width, in] to [..., channels]."""
    groups = settings.groups if conv.is_grouped else 1
    with tf.variable_scope(conv.name):
        shape = [conv.kernel_size, conv.kernel_size, int(x.shape[3]) // groups]
        kernel, bias = _weights(shape + [channels], conv.paper_bias, settings, x.dtype)
        strides = [1, conv.stride, conv.stride, 1]
        # Each group convolves its own input channels: the paper's two towers (3.5).
        # x: [batch, height, width, in] -> groups of [batch, height, width, in / groups]
        # kernel: [size, size, in / groups, channels] -> [..., channels / groups]
        parts = [
            tf.nn.conv2d(part, weights, strides, conv.padding)
            for part, weights in zip(
                tf.split(x, groups, axis=3), tf.split(kernel, groups, axis=3)
            )
        ]
        x = _join(parts, bias)
        if conv.has_lrn and settings.lrn_alpha > 0:
            x = local_response_normalization(x, settings)
        return _overlapping_max_pool(x) if conv.has_pool else x


def _join(parts: List[tf.Tensor], bias: tf.Tensor) -> tf.Tensor:
    """Add the bias to the outputs of the groups, rectify and concatenate them.

    Args:
        parts: float [batch, height, width, channels / groups], one for each group.
        bias: float [channels].

    Returns:
        float [batch, height, width, channels].
    """
    # TensorFlow fuses bias and ReLU with the convolution if they follow it directly,
    # which is faster.  For widths that are not a multiple of MKL's block, the groups
    # must be concatenated first: otherwise Intel's build of TensorFlow 1.15 computes
    # wrong gradients for the max pooling that follows.
    is_fused = int(parts[0].shape[3]) % _FUSED_WIDTH == 0
    if not is_fused:
        parts = [tf.concat(parts, axis=3)]
    biases = tf.split(bias, len(parts))
    parts = [tf.nn.relu(tf.nn.bias_add(part, own)) for part, own in zip(parts, biases)]
    return tf.concat(parts, axis=3)


def local_response_normalization(x: tf.Tensor, settings: ConfigDict) -> tf.Tensor:
    """Apply local response normalisation across channels (section 3.3).

    ``y_i = x_i / (bias + alpha * sum(x_j ** 2, |j - i| <= radius)) ** beta``; the
    paper's n = 5 is radius 2.

    Args:
        x: float [batch, height, width, channels].
        settings: Section ``model`` of the configuration.

    Returns:
        The same shape and dtype; computed in float32.
    """
    normalised = tf.nn.lrn(
        tf.cast(x, tf.float32),
        depth_radius=settings.lrn_radius,
        bias=settings.lrn_bias,
        alpha=settings.lrn_alpha,
        beta=settings.lrn_beta,
    )
    return tf.cast(normalised, x.dtype)


def _overlapping_max_pool(x: tf.Tensor) -> tf.Tensor:
    """Apply max pooling over 3x3 windows with stride 2 (section 3.4).

    [batch, size, size, channels] -> [batch, size // 2, size // 2, channels]

    For an even size the last window extends beyond the edge, as in Caffe ("ceil mode").
    This never happens for images of 227 pixels, and it makes small images possible.
    """
    padding = ["VALID" if size % 2 else "SAME" for size in x.shape.as_list()[1:3]]
    if padding[0] != padding[1]:
        raise ValueError(f"images must be square, not of shape {x.shape}")
    return tf.nn.max_pool(x, [1, 3, 3, 1], [1, 2, 2, 1], padding[0])


def _dense(
    x: tf.Tensor, units: int, name: str, paper_bias: float, settings: ConfigDict
) -> tf.Tensor:
    """Apply a dense layer: [batch, inputs] to [batch, units]."""
    with tf.variable_scope(name):
        shape = [int(x.shape[1]), units]
        kernel, bias = _weights(shape, paper_bias, settings, x.dtype)
        return tf.nn.bias_add(tf.matmul(x, kernel), bias)


def _weights(
    shape: list, paper_bias: float, settings: ConfigDict, dtype: tf.DType
) -> Tuple[tf.Tensor, tf.Tensor]:
    """Create the float32 kernel and bias of a layer; return them cast to ``dtype``."""
    is_paper = settings.initializer == "paper"  # Section 5.
    # The seed depends on the name of the layer.  By default it would depend on the
    # number of operations in the graph, and any new one would change all weights.
    seed = zlib.crc32(tf.get_variable_scope().name.encode()) % 2**31
    initializer = tf.variance_scaling_initializer(scale=2.0, mode="fan_in", seed=seed)
    if is_paper:
        initializer = tf.random_normal_initializer(stddev=0.01, seed=seed)
    kernel = tf.get_variable("kernel", shape, initializer=initializer)
    bias = tf.get_variable(
        "bias",
        shape[-1:],
        initializer=tf.constant_initializer(paper_bias if is_paper else 0.0),
    )
    return tf.cast(kernel, dtype), tf.cast(bias, dtype)
