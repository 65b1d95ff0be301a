"""Decoding and cropping of one picture, in the graph."""

from typing import Callable, List, Union

import numpy as np

from alexnet_estimator.config import Config
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.records.pictures import MAX_PIXELS
from alexnet_estimator.schema import CROP_FRACTION

# Function from the height and width of a picture, int32 [2], to the side of a square.
SideOf = Callable[[tf.Tensor], Union[int, tf.Tensor]]
# Places of the corners and the centre between top and bottom, left and right.
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
        uint8 of ``views_shape``: the central crop, or with ``use_ten_crop`` the crops
        of the corners and the centre and their mirror images (Krizhevsky et al., 2012,
        section 4.1).
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
    """Return the number of pictures whose views make a batch of this size."""
    return max(1, batch_size // _NUM_VIEWS) if data.use_ten_crop else batch_size


def crop(
    encoded: tf.Tensor,
    position: tf.Tensor,
    size: int,
    fraction: Union[float, tf.Tensor] = CROP_FRACTION,
    short_side: int = 0,
) -> tf.Tensor:
    """Cut a square out of an encoded picture, decoding no more than needed.

    Args:
        encoded: File content of a JPEG (or of a PNG, GIF, BMP in records from other
            programs), string scalar.
        position: Place between top and bottom, left and right, float32 [2] in [0, 1).
        size: Side of the result, in pixels.
        fraction: Side of the square as a fraction of the picture's short side.
        short_side: Short side of the picture if it is a JPEG that ``convert`` made;
            0 if nothing is known.

    Returns:
        uint8 [size, size, 3], resized only where the square has another side.
    """
    is_known = short_side > 0 and not tf.is_tensor(fraction)
    if is_known and round(short_side * fraction) == size:
        # Nothing to find out and to resize: this takes a tenth of the time.
        image = _cut_jpeg(encoded, position, lambda sides: size)
    else:

        def side_of(sides: tf.Tensor) -> tf.Tensor:
            side = tf.cast(tf.reduce_min(sides), tf.float32) * fraction
            return tf.cast(tf.round(side), tf.int32)

        image = tf.cond(
            tf.io.is_jpeg(encoded),
            lambda: _cut_jpeg(encoded, position, side_of),
            lambda: _cut_other(encoded, position, side_of),
        )
        fits = tf.equal(tf.shape(image)[0], size)
        image = tf.cond(fits, lambda: image, lambda: _resize(image, size))
    image.set_shape([size, size, 3])
    return image


def _cut_jpeg(encoded: tf.Tensor, position: tf.Tensor, side_of: SideOf) -> tf.Tensor:
    """Cut a square out of a JPEG; ``side_of`` returns its side."""
    sides = _bounded(tf.io.extract_jpeg_shape(encoded)[:2])
    window = _window(sides, position, side_of(sides))
    # The fast inverse DCT differs from the exact one by one or two grey levels.
    return tf.io.decode_and_crop_jpeg(
        encoded, window, channels=3, dct_method="INTEGER_FAST"
    )


def _cut_other(encoded: tf.Tensor, position: tf.Tensor, side_of: SideOf) -> tf.Tensor:
    """Cut a square out of a PNG, the first picture of a GIF, or a BMP."""
    with tf.control_dependencies([_bounded(_declared_sides(encoded))]):
        encoded = tf.identity(encoded)
    # tf.io.decode_image of TF 2.15 makes an operation that 1.15 cannot load.
    start = tf.strings.substr(encoded, 0, 2)
    picture = tf.case(
        [
            (tf.equal(start, "GI"), lambda: tf.io.decode_gif(encoded)[0]),
            (tf.equal(start, "BM"), lambda: tf.io.decode_bmp(encoded, channels=3)),
        ],
        default=lambda: tf.io.decode_png(encoded, channels=3),
    )
    sides = tf.shape(picture)[:2]
    top, left, side, _ = tf.unstack(_window(sides, position, side_of(sides)))
    return picture[top : top + side, left : left + side]


def _declared_sides(encoded: tf.Tensor) -> tf.Tensor:
    """Return the sides, int64 [2], that the header of a PNG or GIF declares.

    For a BMP the result means nothing, but a BMP cannot be larger than its file.
    """
    # tf.strings.substr of TF 1.15 crashes when it reports that a string is too short.
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
    """Return the sides of a picture; fail if it does not fit into memory."""
    num_pixels = tf.reduce_prod(tf.cast(sides, tf.int64))
    # tf.debugging.assert_* would add a branch, which takes as long as all the rest.
    check = tf.raw_ops.Assert(
        condition=num_pixels <= MAX_PIXELS, data=["too many pixels", num_pixels]
    )
    with tf.control_dependencies([check]):
        return tf.identity(sides)


def _window(
    sides: tf.Tensor, position: tf.Tensor, side: Union[int, tf.Tensor]
) -> tf.Tensor:
    """Return the crop window (top, left, side, side), int32 [4]."""
    room = tf.cast(sides - (side - 1), tf.float32)
    # The cast rounds down.
    top_left = tf.cast(position * room, tf.int32)
    return tf.concat([top_left, [side, side]], axis=0)


def _resize(image: tf.Tensor, size: int) -> tf.Tensor:
    """Resize to ``size`` by averaging areas, so that shrinking makes no aliases."""
    resized = tf.image.resize_area(image[tf.newaxis], [size, size])[0]
    return tf.cast(tf.round(resized), tf.uint8)
