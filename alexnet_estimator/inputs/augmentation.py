"""Augmentation beyond the paper's: turns, colours, erasing, mixup and cutmix.

The host turns each image, from (seed, rank, position of the image in the stream).  It
draws the other random numbers for a whole batch, from (seed, rank, step), because
drawing them image by image takes a fifth of the input's time.  A resumed run therefore
sees the same images.  The device changes the pixels in the model function: batches stay
uint8 until then, which takes a quarter of the transfer.

A mixed image is combined with its partner, the image at the same position in the
reversed batch.  The targets are combined in the same shares, see ``mix_targets``.
"""

import math
from typing import Dict, Tuple

import numpy as np

from alexnet_estimator.config import Config
from alexnet_estimator.engine.graph_mode import tf

Features = Dict[str, tf.Tensor]
_NUM_QUANTILES = 1000
# ITU-R BT.601: the weights of red, green and blue in the brightness that eyes see.
_LUMA = (0.299, 0.587, 0.114)
# Zhong et al., 2017, section 3.2: ranges of the area and aspect ratio of erased boxes.
_ERASED_AREAS = (0.02, 0.4)
_ERASED_ASPECTS = (0.3, 1 / 0.3)


def is_drawn(data: Config) -> bool:
    """Return whether ``add_draws`` has anything to draw for this configuration."""
    amplitudes = (data.brightness, data.contrast, data.saturation)
    mixing = (data.mixup_alpha, data.cutmix_alpha)
    return any([*amplitudes, data.erasing_probability, *mixing])


def add_draws(
    batch: Tuple[Features, tf.Tensor], seed: list, data: Config
) -> Tuple[Features, tf.Tensor]:
    """Return a training batch with the random numbers of its augmentation.

    Args:
        batch: Features and labels, int32 [batch].
        seed: Two integers that belong to this batch.
        data: Section ``data`` of the configuration.

    Returns:
        The batch with the features that are switched on: ``colour_factors``, float32
        [batch, 3] (brightness, contrast, saturation); ``erased_box`` and
        ``cutmix_box``, float32 [batch, 4] (top, left, bottom, right in pixels; all 0
        for no box); ``mixup_share``, float32 [batch], the share of the image itself in
        the mixed image.
    """
    given, labels = batch
    batch_size = labels.shape[0].value
    amplitudes = [data.brightness, data.contrast, data.saturation]
    # Crop, flip and colour noise have other seeds: equal seeds give related numbers.
    random = tf.random.stateless_uniform(
        [12, batch_size], [seed[0] + (1 << 32), seed[1]]
    )
    size, features = data.image_size, {}
    if any(amplitudes):
        # [3, batch] -> [batch, 3]
        features["colour_factors"] = (
            1.0 + (2.0 * tf.transpose(random[:3]) - 1.0) * amplitudes
        )
    if data.erasing_probability > 0:
        area = _between(_ERASED_AREAS, random[3])
        aspect = draw_aspect(_ERASED_ASPECTS, random[4])
        box = _boxes(size, area, aspect, random[5:7], is_whole=True)
        features["erased_box"] = _keep(random[7] < data.erasing_probability, box)
    has_both = data.mixup_alpha > 0 and data.cutmix_alpha > 0
    # With both, an image is mixed in one way or in the other.
    is_mixup = random[8] < (0.5 if has_both else 1.0)
    if data.mixup_alpha > 0:
        share = _draw_beta(data.mixup_alpha, random[9])
        features["mixup_share"] = tf.where(is_mixup, share, tf.ones_like(share))
    if data.cutmix_alpha > 0:
        area = 1.0 - _draw_beta(data.cutmix_alpha, random[9])
        box = _boxes(size, area, tf.ones_like(area), random[10:12], is_whole=False)
        is_cutmix = tf.logical_not(is_mixup) if has_both else is_mixup
        features["cutmix_box"] = _keep(is_cutmix, box)
    return {**given, **features}, labels


def turn(image: tf.Tensor, seed: list) -> tf.Tensor:
    """Turn an image upside down and transpose it, each with a probability of 1/2.

    Together with the random mirror image of the paper, all eight orientations (four
    quarter turns and their mirror images) are equally likely.

    Args:
        image: uint8 [size, size, 3].
        seed: Two integers that belong to this image.
    """
    random = tf.random.stateless_uniform([2], [seed[0] + (3 << 32), seed[1]])
    # In the other order, a transposed image would have only two orientations, because
    # turning it upside down would equal mirroring it before.
    turned = tf.cond(random[0] < 0.5, lambda: tf.reverse(image, [0]), lambda: image)
    return tf.cond(
        random[1] < 0.5, lambda: tf.transpose(turned, [1, 0, 2]), lambda: turned
    )


def draw_aspect(aspects: Tuple[float, float], uniform: tf.Tensor) -> tf.Tensor:
    """Return ratios of width to height, which are as often below 1 as above.

    Args:
        aspects: Least and largest ratio.
        uniform: Random numbers in [0, 1), float32 of any shape.
    """
    return tf.exp(_between((math.log(aspects[0]), math.log(aspects[1])), uniform))


def change_colours(pixels: tf.Tensor, features: Features) -> tf.Tensor:
    """Multiply brightness, contrast and saturation by the factors of each image.

    Args:
        pixels: float32 [batch, size, size, 3], RGB, 0 to 255.
        features: Features of the batch.
    """
    if "colour_factors" not in features:
        return pixels
    # [batch, 3] -> 3 x [batch, 1, 1, 1]
    factors = features["colour_factors"][:, tf.newaxis, tf.newaxis, :, tf.newaxis]
    brightness, contrast, saturation = (factors[:, :, :, i] for i in range(3))
    pixels = pixels * brightness
    grey = tf.reduce_sum(pixels * _LUMA, axis=3, keepdims=True)
    mean = tf.reduce_mean(grey, axis=[1, 2], keepdims=True)
    # Contrast scales the distance of all pixels, and of their grey, from the mean.
    pixels = mean + contrast * (pixels - mean)
    grey = mean + contrast * (grey - mean)
    return tf.clip_by_value(grey + saturation * (pixels - grey), 0.0, 255.0)


def erase_and_mix(images: tf.Tensor, features: Features) -> tf.Tensor:
    """Erase boxes, and mix images with their partners.

    Args:
        images: float32 [batch, size, size, 3], normalised: 0 is the mean colour.
        features: Features of the batch.
    """
    size = images.shape[1].value
    if "erased_box" in features:
        images = images * (1.0 - _mask(features["erased_box"], size))
    if "mixup_share" in features or "cutmix_box" in features:
        own = _own_pixels(features, size)
        images = images * own + tf.reverse(images, [0]) * (1.0 - own)
    return images


def mix_targets(targets: tf.Tensor, features: Features) -> tf.Tensor:
    """Mix the targets in the same shares as the pixels of the images.

    Args:
        targets: float32 [batch, num_classes], the sum of each row is 1.
        features: Features of the batch, including the images.
    """
    if "mixup_share" not in features and "cutmix_box" not in features:
        return targets
    own = tf.ones([1])
    if "mixup_share" in features:
        own = features["mixup_share"]
    if "cutmix_box" in features:
        # A box contains whole pixels, so its area is the number of the replaced pixels.
        sides = features["cutmix_box"][:, 2:] - features["cutmix_box"][:, :2]
        num_pixels = features["image"].shape[1].value ** 2
        own = own * (1.0 - tf.reduce_prod(sides, axis=1) / num_pixels)
    own = own[:, tf.newaxis]  # [batch] -> [batch, 1]
    return targets * own + tf.reverse(targets, [0]) * (1.0 - own)


def _own_pixels(features: Features, size: int) -> tf.Tensor:
    """Return the share of the image itself in every pixel of the mixed image.

    The result is float32 [batch, size or 1, size or 1, 1].
    """
    own = tf.ones([1, 1, 1, 1])
    if "mixup_share" in features:
        # [batch] -> [batch, 1, 1, 1]
        own = features["mixup_share"][:, tf.newaxis, tf.newaxis, tf.newaxis]
    if "cutmix_box" in features:
        own = own * (1.0 - _mask(features["cutmix_box"], size))
    return own


def _mask(boxes: tf.Tensor, size: int) -> tf.Tensor:
    """Return float32 [batch, size, size, 1], which is 1 within the boxes."""
    centres = tf.range(size, dtype=tf.float32) + 0.5  # Centres of the pixels.
    # [batch, 4] -> 4 x [batch, 1]
    top, left, bottom, right = (boxes[:, i, tf.newaxis] for i in range(4))
    rows = tf.logical_and(centres >= top, centres < bottom)  # [batch, size]
    columns = tf.logical_and(centres >= left, centres < right)
    # [batch, size, 1] and [batch, 1, size] -> [batch, size, size]
    inside = tf.logical_and(rows[:, :, tf.newaxis], columns[:, tf.newaxis, :])
    return tf.cast(inside, tf.float32)[:, :, :, tf.newaxis]


def _boxes(
    size: int, area: tf.Tensor, aspect: tf.Tensor, place: tf.Tensor, is_whole: bool
) -> tf.Tensor:
    """Return boxes, float32 [batch, 4]: top, left, bottom, right in pixels.

    Args:
        size: Side of the images in pixels.
        area: Area of the box / area of the image, float32 [batch].
        aspect: Width divided by height, float32 [batch].
        place: Place of the box, float32 [2, batch] in [0, 1).
        is_whole: Whether the whole box is inside of the image.  Otherwise only its
            centre is, and the box is cut at the edges of the image (Yun et al., 2019,
            section 3.1).
    """
    # Height and width, [2, batch].
    sides = size * tf.sqrt(tf.stack([area / aspect, area * aspect]))
    sides = tf.minimum(sides, float(size))
    start = place * (size - sides) if is_whole else place * size - sides / 2.0
    boxes = tf.transpose(tf.concat([start, start + sides], axis=0))
    return tf.clip_by_value(tf.round(boxes), 0.0, float(size))


def _keep(condition: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
    """Return the boxes, and zeros where the condition, bool [batch], is false."""
    return boxes * tf.cast(condition, tf.float32)[:, tf.newaxis]


def _between(limits: Tuple[float, float], uniform: tf.Tensor) -> tf.Tensor:
    return limits[0] + (limits[1] - limits[0]) * uniform


def _draw_beta(alpha: float, uniform: tf.Tensor) -> tf.Tensor:
    """Return numbers of the distribution Beta(alpha, alpha), float32 [batch].

    TensorFlow 1.15 has no stateless Beta or Gamma distribution.  The quantiles of a
    large sample are used instead, with linear interpolation between them.
    """
    sample = np.random.RandomState(0).beta(alpha, alpha, 100 * _NUM_QUANTILES + 1)
    quantiles = tf.constant(np.sort(sample)[::100].astype(np.float32))
    place = uniform * _NUM_QUANTILES
    lower = tf.cast(place, tf.int32)  # The cast rounds down.
    start, end = tf.gather(quantiles, lower), tf.gather(quantiles, lower + 1)
    return start + (end - start) * (place - tf.cast(lower, tf.float32))
