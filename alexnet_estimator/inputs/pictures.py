"""Decoding and cropping of one picture in the TensorFlow graph."""

from typing import Callable, List, Union

import numpy as np

from alexnet_estimator.config import Config
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.records.pictures import MAX_PIXELS
from alexnet_estimator.schema import CROP_FRACTION

# Function from the sides of a picture to the sides of its crop, both int32 [2].
SidesOf = Callable[[tf.Tensor], Union[np.ndarray, tf.Tensor]]
# Relative positions (y, x) of the corners and of the centre.
_CROP_POSITIONS = ((0, 0), (0, 0.9999), (0.9999, 0), (0.9999, 0.9999), (0.5, 0.5))
_NUM_VIEWS = 10


def decode_for_eval(encoded: tf.Tensor, size: int, short_side: int = 0) -> tf.Tensor:
    """Decode the central crop of a picture.

    Args:
        encoded: Content of a picture file, string scalar.
        size: Side of the result in pixels.
        short_side: Short side of the picture in pixels; 0 if it is unknown.

    Returns:
        uint8 [size, size, 3], see ``crop``.
    """
    return crop(encoded, tf.constant([0.5, 0.5]), size, short_side=short_side)


def decode_views(encoded: tf.Tensor, data: Config, short_side: int = 0) -> tf.Tensor:
    """Decode the views of a picture for evaluation or prediction.

    Args:
        encoded: Content of a picture file, string scalar.
        data: Section ``data`` of the configuration.
        short_side: Short side of the picture in pixels; 0 if it is unknown.

    Returns:
        uint8 [size, size, 3], the central crop.  With ``use_ten_crop``, uint8
        [10, size, size, 3]: the crops of the four corners and of the centre, then their
        mirror images (Krizhevsky et al., 2012, section 4.1).
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
    # 10 crops of [size, size, 3] -> [10, size, size, 3]; axis 1 of a crop is its width.
    return tf.stack(crops + [tf.reverse(crop, [1]) for crop in crops])


def views_shape(data: Config) -> List[int]:
    """Return the shape of the result of ``decode_views``."""
    views = [_NUM_VIEWS] if data.use_ten_crop else []
    return [*views, data.image_size, data.image_size, 3]


def eval_batch_size(data: Config, batch_size: int) -> int:
    """Return the number of pictures in a batch that has ``batch_size`` views."""
    return max(1, batch_size // _NUM_VIEWS) if data.use_ten_crop else batch_size


def crop(
    encoded: tf.Tensor,
    position: tf.Tensor,
    size: int,
    fraction: Union[float, tf.Tensor] = CROP_FRACTION,
    short_side: int = 0,
    aspect: Union[float, tf.Tensor] = 1.0,
) -> tf.Tensor:
    """Decode a crop of a picture; of a JPEG, only the crop is decoded.

    Args:
        encoded: Content of a JPEG file (or of a PNG, GIF or BMP file in records from
            other programs), string scalar.
        position: Relative position (y, x) of the crop, float32 [2] in [0, 1).
        size: Side of the result in pixels.
        fraction: Side of the crop / short side of the picture.  If the crop is not
            square, this is the side of a square of the same area.
        short_side: Short side in pixels of a JPEG from ``convert``; 0 if it is unknown.
        aspect: Width / height of the crop, whose sides are limited to the picture's.

    Returns:
        uint8 [size, size, 3].  The crop is resized if its sides are not ``size``.
    """
    is_square = not tf.is_tensor(aspect) and aspect == 1.0
    is_known = short_side > 0 and not tf.is_tensor(fraction) and is_square
    if is_known and round(short_side * fraction) == size:
        # The crop has the right size already.  Without branches and resizing in the
        # graph, this takes a tenth of the time.
        image = _cut_jpeg(encoded, position, lambda sides: np.int32([size, size]))
    else:

        def sides_of(sides: tf.Tensor) -> tf.Tensor:
            side = tf.cast(tf.reduce_min(sides), tf.float32) * fraction
            if is_square:
                return tf.cast(tf.round(tf.stack([side, side])), tf.int32)
            crop_sides = side * tf.sqrt(tf.stack([1.0 / aspect, aspect]))
            return tf.minimum(tf.cast(tf.round(crop_sides), tf.int32), sides)

        image = tf.cond(
            tf.io.is_jpeg(encoded),
            lambda: _cut_jpeg(encoded, position, sides_of),
            lambda: _cut_other(encoded, position, sides_of),
        )
        fits = tf.reduce_all(tf.equal(tf.shape(image)[:2], size))
        image = tf.cond(fits, lambda: image, lambda: _resize(image, size))
    image.set_shape([size, size, 3])
    return image


def _cut_jpeg(encoded: tf.Tensor, position: tf.Tensor, sides_of: SidesOf) -> tf.Tensor:
    """Decode a crop of a JPEG, uint8 [height, width, 3]."""
    sides = _bounded(tf.io.extract_jpeg_shape(encoded)[:2])
    window = _window(sides, position, sides_of(sides))
    # The fast inverse DCT differs from the exact one by one or two grey levels only.
    return tf.io.decode_and_crop_jpeg(
        encoded, window, channels=3, dct_method="INTEGER_FAST"
    )


def _cut_other(encoded: tf.Tensor, position: tf.Tensor, sides_of: SidesOf) -> tf.Tensor:
    """Decode a crop of a PNG, a BMP or the first frame of a GIF.

    The result is uint8 [height, width, 3].
    """
    # The size is checked before decoding, which would allocate the memory.
    with tf.control_dependencies([_bounded(_declared_sides(encoded))]):
        encoded = tf.identity(encoded)
    # tf.io.decode_image is not used: that of TF 2.15 creates an operation that TF 1.15
    # cannot load, so that an exported model would not run there.
    start = tf.strings.substr(encoded, 0, 2)
    picture = tf.case(
        [
            # [frames, height, width, 3] -> [height, width, 3]
            (tf.equal(start, "GI"), lambda: tf.io.decode_gif(encoded)[0]),
            (tf.equal(start, "BM"), lambda: tf.io.decode_bmp(encoded, channels=3)),
        ],
        default=lambda: tf.io.decode_png(encoded, channels=3),
    )
    sides = tf.shape(picture)[:2]
    window = tf.unstack(_window(sides, position, sides_of(sides)))
    top, left, height, width = window
    return picture[top : top + height, left : left + width]


def _declared_sides(encoded: tf.Tensor) -> tf.Tensor:
    """Return the sides in the header of a PNG or GIF, int64 [2].

    The result is meaningless for a BMP, which is not compressed and therefore cannot be
    larger than its file.
    """
    # tf.strings.substr is not used, because that of TF 1.15 crashes on short strings.
    content = tf.io.decode_raw(encoded, tf.uint8)
    header = tf.concat([content, tf.zeros([24], tf.uint8)], axis=0)[:24]
    header = tf.cast(header, tf.int64)
    is_png = tf.reduce_all(tf.equal(header[:4], np.array(list(b"\x89PNG"))))
    # Two numbers of 4 bytes in a PNG, of 2 bytes in a GIF: [8] -> [2, 4], [4] -> [2, 2]
    big_endian = tf.reshape(header[16:24], [2, 4]) * [1 << 24, 1 << 16, 1 << 8, 1]
    little_endian = tf.reshape(header[6:10], [2, 2]) * [1, 1 << 8]
    return tf.cond(
        is_png,
        lambda: tf.reduce_sum(big_endian, axis=1),
        lambda: tf.reduce_sum(little_endian, axis=1),
    )


def _bounded(sides: tf.Tensor) -> tf.Tensor:
    """Return the sides of a picture, [2]; fail if the picture has too many pixels."""
    num_pixels = tf.reduce_prod(tf.cast(sides, tf.int64))
    # tf.debugging.assert_* would add a branch, which takes longer than the decoding.
    check = tf.raw_ops.Assert(
        condition=num_pixels <= MAX_PIXELS, data=["too many pixels", num_pixels]
    )
    with tf.control_dependencies([check]):
        return tf.identity(sides)


def _window(
    sides: tf.Tensor, position: tf.Tensor, crop_sides: Union[np.ndarray, tf.Tensor]
) -> tf.Tensor:
    """Return the crop window (top, left, height, width), int32 [4]."""
    num_positions = tf.cast(sides - (crop_sides - 1), tf.float32)
    # The cast rounds down, and position is below 1, so that the window is inside.
    top_left = tf.cast(position * num_positions, tf.int32)
    return tf.concat([top_left, crop_sides], axis=0)


def _resize(image: tf.Tensor, size: int) -> tf.Tensor:
    """Resize a crop to uint8 [size, size, 3]."""
    # Averaging areas avoids aliasing.  It needs a batch: [1, side, side, 3].
    resized = tf.image.resize_area(image[tf.newaxis], [size, size])[0]
    # tf.math.rint gives the same numbers as tf.round, which takes six times as long on
    # TensorFlow 1.15: 1.2 ms for 227 x 227 pixels, more than the rest of the crop.
    return tf.cast(tf.math.rint(resized), tf.uint8)
