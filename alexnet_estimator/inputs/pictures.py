"""Decoding and cropping of one picture, in the graph."""

import functools
from typing import Callable, List, Union

import numpy as np

from alexnet_estimator.config import Config
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.records.pictures import MAX_PIXELS
from alexnet_estimator.schema import CROP_FRACTION

# From a picture's height and width, int32 [2], to the side of a square.
SideOf = Callable[[tf.Tensor], Union[int, tf.Tensor]]
# Of crops between top and bottom, left and right: the corners and the centre.
_CROP_POSITIONS = ((0, 0), (0, 0.9999), (0.9999, 0), (0.9999, 0.9999), (0.5, 0.5))
_NUM_VIEWS = 10


def decode_for_eval(encoded: tf.Tensor, size: int, short_side: int = 0) -> tf.Tensor:
    """Decode one picture's bytes (string scalar) as evaluation does.

    Returns:
        uint8 [size, size, 3], the central crop; see ``crop``.
    """
    return crop(encoded, tf.constant([0.5, 0.5]), size, short_side=short_side)


def decode_views(encoded: tf.Tensor, data: Config, short_side: int = 0) -> tf.Tensor:
    """Decode one picture's bytes for evaluation or prediction; see ``crop``.

    Returns:
        uint8 of ``views_shape``: the central crop, or with ``use_ten_crop`` those of
        the corners and the centre, and their mirror images (section 4.1).
    """
    if not data.use_ten_crop:
        return decode_for_eval(encoded, data.image_size, short_side)
    crops = [
        crop(
            encoded,
            tf.constant(position, tf.float32),
            data.image_size,
            short_side=short_side,
        )
        for position in _CROP_POSITIONS
    ]
    return tf.stack(crops + [tf.reverse(crop, [1]) for crop in crops])


def views_shape(data: Config) -> List[int]:
    """Return the shape of what ``decode_views`` returns."""
    views = [_NUM_VIEWS] if data.use_ten_crop else []
    return [*views, data.image_size, data.image_size, 3]


def eval_batch_size(data: Config, batch_size: int) -> int:
    """Return the pictures in a batch that has ``batch_size`` images, views included."""
    if not data.use_ten_crop:
        return batch_size
    return max(1, batch_size // _NUM_VIEWS)


def crop(
    encoded: tf.Tensor,
    position: tf.Tensor,
    size: int,
    fraction: Union[float, tf.Tensor] = CROP_FRACTION,
    short_side: int = 0,
) -> tf.Tensor:
    """Cut a square out of an encoded picture, decoding no more than needed.

    Args:
        encoded: string scalar, JPEG (or PNG, GIF, BMP in records from elsewhere).
        position: float32 [2] in [0, 1): where between top and bottom, left and right.
        size: of the result.
        fraction: the square's side, of the picture's short side.
        short_side: of the picture, where it is known to be a JPEG that ``convert`` has
            made; 0: nothing is known.

    Returns:
        uint8 [size, size, 3], resized only where the square has another side.
    """
    if _is_side(size, short_side, fraction):
        # Neither kind nor size to find out: a tenth of the time.
        image = _cut_jpeg(encoded, position, lambda sides: size)
    else:
        square = functools.partial(_square, fraction=fraction)
        image = tf.cond(
            tf.io.is_jpeg(encoded),
            lambda: _cut_jpeg(encoded, position, square),
            lambda: _cut_other(encoded, position, square),
        )
        fits = tf.equal(tf.shape(image)[0], size)
        image = tf.cond(fits, lambda: image, lambda: _resize(image, size))
    image.set_shape([size, size, 3])
    return image


def _is_side(size: int, short_side: int, fraction: Union[float, tf.Tensor]) -> bool:
    """Return whether squares are known to have this side without resizing."""
    is_known = short_side > 0 and not tf.is_tensor(fraction)
    return bool(is_known and round(short_side * fraction) == size)


def _cut_jpeg(encoded: tf.Tensor, position: tf.Tensor, side_of: SideOf) -> tf.Tensor:
    """Cut a square out of a JPEG; ``side_of`` returns its side."""
    sides = _bounded(tf.io.extract_jpeg_shape(encoded)[:2])
    window = _window(sides, position, side_of(sides))
    # The fast DCT differs from the exact one by a grey level or two.
    return tf.io.decode_and_crop_jpeg(
        encoded, window, channels=3, dct_method="INTEGER_FAST"
    )


def _cut_other(encoded: tf.Tensor, position: tf.Tensor, side_of: SideOf) -> tf.Tensor:
    """Decode another picture, and cut a square out of it."""
    with tf.control_dependencies([_bounded(_declared_sides(encoded))]):
        picture = _decode_other(tf.identity(encoded))
    sides = tf.shape(picture)[:2]
    window = _window(sides, position, side_of(sides))
    top, left, side, _ = tf.unstack(window)
    return picture[top : top + side, left : left + side]


def _decode_other(encoded: tf.Tensor) -> tf.Tensor:
    """Decode a PNG, the first picture of a GIF, or a BMP; uint8 [height, width, 3]."""
    # Not tf.io.decode_image: TF 2.15 makes an operator of it that 1.15 cannot load.
    start = tf.strings.substr(encoded, 0, 2)
    return tf.case(
        [
            (tf.equal(start, "GI"), lambda: tf.io.decode_gif(encoded)[0]),
            (tf.equal(start, "BM"), lambda: tf.io.decode_bmp(encoded, channels=3)),
        ],
        default=lambda: tf.io.decode_png(encoded, channels=3),
    )


def _declared_sides(encoded: tf.Tensor) -> tf.Tensor:
    """Return the sides, int64 [2], that the header of a PNG or GIF declares.

    A BMP has zeros there: it cannot be larger than its file.
    """
    # Not tf.strings.substr: TF 1.15 crashes where it reports that a string is short.
    content = tf.io.decode_raw(encoded, tf.uint8)
    header = tf.concat([content, tf.zeros([24], tf.uint8)], axis=0)[:24]
    header = tf.cast(header, tf.int64)
    is_png = tf.reduce_all(tf.equal(header[:4], np.array(list(b"\x89PNG"))))
    big_endian = tf.reshape(header[16:24], [2, 4]) * [1 << 24, 1 << 16, 1 << 8, 1]
    little_endian = tf.reshape(header[6:10], [2, 2]) * [1, 1 << 8]
    return tf.cond(
        is_png,
        lambda: tf.reduce_sum(big_endian, axis=1),
        lambda: tf.reduce_sum(little_endian, axis=1),
    )


def _bounded(sides: tf.Tensor) -> tf.Tensor:
    """Return a picture's sides; fail where it would not fit into memory."""
    num_pixels = tf.reduce_prod(tf.cast(sides, tf.int64))
    # Not tf.debugging: it would add a branch, as slow as all else here.
    check = tf.raw_ops.Assert(
        condition=num_pixels <= MAX_PIXELS, data=["too many pixels", num_pixels]
    )
    with tf.control_dependencies([check]):
        return tf.identity(sides)


def _square(sides: tf.Tensor, fraction: Union[float, tf.Tensor]) -> tf.Tensor:
    """Return the side, int32 scalar, of a square of a picture with these sides."""
    side = tf.cast(tf.reduce_min(sides), tf.float32) * fraction
    return tf.cast(tf.round(side), tf.int32)


def _window(
    sides: tf.Tensor, position: tf.Tensor, side: Union[int, tf.Tensor]
) -> tf.Tensor:
    """Return the crop window (top, left, side, side), int32 [4]."""
    room = tf.cast(sides - (side - 1), tf.float32)
    # Casting rounds down.
    top_left = tf.cast(position * room, tf.int32)
    return tf.concat([top_left, [side, side]], axis=0)


def _resize(image: tf.Tensor, size: int) -> tf.Tensor:
    """Resize to ``size``; averaging areas, which leaves no aliases when shrinking."""
    resized = tf.image.resize_area(image[tf.newaxis], [size, size])[0]
    return tf.cast(tf.round(resized), tf.uint8)
