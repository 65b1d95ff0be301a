"""The description of AlexNet: layers, settings, and the settings of Caffe's weights."""

from typing import Any, List

from ml_collections import ConfigDict

from alexnet_estimator.networks.network import Network
from alexnet_estimator.rules import Rule, above, at_least, between, one_of
from alexnet_estimator.schema import Field

# With smaller images, the input of the last pooling layer would be empty.
MIN_IMAGE_SIZE = 63


def _channels() -> Rule:
    return Rule(
        "five positive even numbers, e.g. (64, 192, 384, 384, 256)",
        lambda v: len(v) == 5
        and all(isinstance(x, int) and x > 0 and x % 2 == 0 for x in v),
    )


def _build(*arguments: Any) -> Any:
    # The import is delayed because --help and wrong flags must not wait for TensorFlow.
    from alexnet_estimator.networks.alexnet_graph import build

    return build(*arguments)


def _check(settings: ConfigDict, image_size: int) -> List[str]:
    if image_size >= MIN_IMAGE_SIZE:
        return []
    return [f"data.image_size is {image_size}: must be at least {MIN_IMAGE_SIZE}"]


network = Network(
    name="alexnet",
    title="AlexNet",
    build=_build,
    layer_names=("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"),
    settings={
        "conv_channels": Field(
            (96, 256, 384, 384, 256),
            _channels(),
            "Channels of conv1 to conv5, before the width multiplier",
            is_fixed=True,
        ),
        "groups": Field(
            2, one_of(1, 2), "Towers of conv2, conv4, conv5 (paper: 2)", is_fixed=True
        ),
        "width_multiplier": Field(
            1.0, above(0), "Factor of all channels; AlexNet: 1.0", is_fixed=True
        ),
        "fc6_units": Field(
            4096,
            at_least(1),
            "Units of fc6, before the width multiplier",
            is_fixed=True,
        ),
        "fc7_units": Field(
            4096,
            at_least(1),
            "Units of fc7, before the width multiplier",
            is_fixed=True,
        ),
        "keep_prob": Field(
            0.5, between(0.01, 1), "Probability that dropout keeps a unit of fc6, fc7"
        ),
        "lrn_radius": Field(2, at_least(0), "LRN radius; n = 5 of the paper is 2"),
        "lrn_bias": Field(2.0, above(0), "LRN bias, k of the paper"),
        "lrn_alpha": Field(1e-4, at_least(0), "LRN alpha of the paper; 0: no LRN"),
        "lrn_beta": Field(0.75, above(0), "LRN beta of the paper"),
        "initializer": Field(
            "he_normal", one_of("he_normal", "paper"), "Initializer of the weights"
        ),
    },
    check=_check,
    drawn_kernels="conv1",  # Figure 3 of the paper shows them.
    pixel_layer="conv1",
    # Caffe's bvlc_alexnet takes pixels from 0 to 255 minus this mean, in BGR order.
    # Caffe divides alpha = 1e-4 by the 5 channels of the sum; TensorFlow does not.
    caffe_settings={
        "data": {
            "mean_rgb": (123.0, 117.0, 104.0),
            "pixel_scale": 1.0,
            "channel_order": "bgr",
        },
        "model": {
            "lrn_radius": 2,
            "lrn_bias": 1.0,
            "lrn_alpha": 2e-5,
            "lrn_beta": 0.75,
        },
    },
)
