"""AlexNet for the job: its settings, its layers and what Caffe's weights expect."""

from typing import Any, List

from ml_collections import ConfigDict

from alexnet_estimator.networks.network import Network
from alexnet_estimator.schema import Field, Rule, above, at_least, between, one_of

# Smaller pictures leave nothing for the last pooling.
MIN_IMAGE_SIZE = 63


def _channels() -> Rule:
    return Rule(
        "five positive even numbers, e.g. (64, 192, 384, 384, 256)",
        lambda v: len(v) == 5
        and all(isinstance(x, int) and x > 0 and x % 2 == 0 for x in v),
    )


def _build(*arguments: Any) -> Any:
    # Only here: --help and mistakes are answered without waiting for TensorFlow.
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
            (96, 256, 384, 384, 256), _channels(), "of conv1 to conv5", is_fixed=True
        ),
        "groups": Field(
            2, one_of(1, 2), "towers of conv2, conv4, conv5 (paper: 2)", is_fixed=True
        ),
        "width_multiplier": Field(
            1.0, above(0), "scales all channels; 1.0: AlexNet", is_fixed=True
        ),
        "fc6_units": Field(4096, at_least(1), "before the multiplier", is_fixed=True),
        "fc7_units": Field(4096, at_least(1), "before the multiplier", is_fixed=True),
        "keep_prob": Field(0.5, between(0.01, 1), "kept by dropout after fc6, fc7"),
        "lrn_radius": Field(2, at_least(0), "n = 2 radius + 1 (paper 3.3: n = 5)"),
        "lrn_bias": Field(2.0, above(0), "k of the paper"),
        "lrn_alpha": Field(1e-4, at_least(0), "alpha of the paper; 0: no LRN"),
        "lrn_beta": Field(0.75, above(0), "beta of the paper"),
        "initializer": Field("he_normal", one_of("he_normal", "paper"), "of weights"),
    },
    check=_check,
    drawn_kernels="conv1",  # As figure 3 of the paper does.
    pixel_layer="conv1",
    # Caffe's bvlc_alexnet sees pixels from 0 to 255 minus these, blue first.  Its alpha
    # of 1e-4 is divided by the 5 channels of a sum; TensorFlow's is not.
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
