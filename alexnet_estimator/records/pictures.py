"""Converts picture files of any kind to JPEGs that every reader can decode."""

import functools
import io
from typing import NamedTuple, Sequence, Tuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from alexnet_estimator.records import kinds
from alexnet_estimator.records.dataset import Rgb, as_tuples

_TENSORFLOW_FORMATS = ("JPEG", "PNG", "GIF", "BMP")
# A small file can declare a picture of any size, so that the number of decoded pixels
# is limited, also in training.  This many pixels take 270 MB.  Pillow's default limit
# is the same.
MAX_PIXELS = 89_478_485
# A larger JPEG is allowed if it can be decoded at a half, a quarter or an eighth of its
# size.  It has to be a baseline JPEG, of which only a few rows are in memory at a time.
# A progressive JPEG needs 6 bytes for each pixel at any scale.
_MAX_JPEG_PIXELS = 1 << 28
# With its default limit, Pillow would warn about a larger picture, or refuse it before
# it can be decoded at a smaller scale.
Image.MAX_IMAGE_PIXELS = _MAX_JPEG_PIXELS
# Every scan of a JPEG decodes all pixels, and a small file can contain thousands of
# scans.  Up to 12 are usual.
_MAX_SCANNED_PIXELS = 12 * MAX_PIXELS
_MAX_JPEG_SIDE = 65500
_ORIENTATION_TAG = 0x0112
_START_OF_SCAN, _END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"
# Markers of the JFIF header, the quantization tables, the baseline frame, the Huffman
# tables and the restart interval.
_PLAIN_SEGMENTS = (b"\xff\xe0", b"\xff\xdb", b"\xff\xc0", b"\xff\xc4", b"\xff\xdd")
# Operations that turn pictures upright, by EXIF orientation.
_UPRIGHT = {
    2: Image.FLIP_LEFT_RIGHT,
    3: Image.ROTATE_180,
    4: Image.FLIP_TOP_BOTTOM,
    5: Image.TRANSPOSE,
    6: Image.ROTATE_270,
    7: Image.TRANSVERSE,
    8: Image.ROTATE_90,
}


class Jpeg(NamedTuple):
    """A JPEG file.

    Attributes:
        data: Content of the file.
        image: RGB picture that was encoded to the file or decoded from it.
    """

    data: bytes
    image: Image.Image


def transcode(data: bytes, short_side: int, quality: int) -> Jpeg:
    """Decode a picture of any kind, turn it upright, resize it and encode it as JPEG.

    A baseline JPEG without metadata is not encoded again if it has the right size, and
    its quality is not higher than ``quality``.

    Args:
        data: Content of the file.
        short_side: Short side of the result in pixels; 0 to keep the size.  Smaller
            pictures are enlarged.
        quality: Quality of the JPEG, up to 100.

    Raises:
        Exception: The picture cannot be decoded.  Pillow raises errors of many types.
        ValueError: The picture is too large or too narrow, or the range of its colours
            is unknown.
    """
    image = _open(data, kinds.DECODED)
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # The EXIF data are damaged, but the picture may be whole.
        orientation = 1
    size = _target_size(image.size, short_side)
    is_kept = (
        (image.format, image.mode, image.size) == ("JPEG", "RGB", size)
        and _is_plain(data)
        and _coarseness(image) >= _coarseness_of(quality)
    )
    image.draft(image.mode, size)  # A large JPEG is decoded at a smaller scale.
    _check_num_pixels(image, MAX_PIXELS)
    image = _to_rgb(image)
    if is_kept:
        return Jpeg(data, image)
    if image.size != size:
        image = image.resize(size, Image.BICUBIC)
    if orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=quality)
    return Jpeg(encoded.getvalue(), image)


def decode(data: bytes, short_side: int = 0) -> Image.Image:
    """Decode a picture of a record to RGB, without resizing it.

    Args:
        data: Content of the picture file.
        short_side: Short side in pixels that the picture must have; it must then be a
            JPEG.  With 0, any size and format is accepted.

    Raises:
        Exception: The picture cannot be decoded.  Pillow raises errors of many types.
        ValueError: The picture is too large or of another size, or TensorFlow cannot
            decode its format.
    """
    image = _open(data, _TENSORFLOW_FORMATS)
    _check_num_pixels(image, MAX_PIXELS)
    if short_side and (image.format, min(image.size)) != ("JPEG", short_side):
        raise ValueError(
            f"{image.format} with a short side of {min(image.size)} pixels: the "
            f"manifest says JPEG, {short_side}"
        )
    return _to_rgb(image)


def _open(data: bytes, formats: Sequence[str]) -> Image.Image:
    """Read the header; refuse a picture that would take too much time or memory."""
    try:
        image = Image.open(io.BytesIO(data), formats=formats)
    except UnidentifiedImageError:  # Its message only contains an address in memory.
        kind = kinds.kind_of(data[: kinds.HEAD_BYTES])
        reason = kinds.explain_undecodable(kind)
        raise ValueError(reason or f"not one of {', '.join(formats)}") from None
    is_baseline = image.format == "JPEG" and "progressive" not in image.info
    _check_num_pixels(image, _MAX_JPEG_PIXELS if is_baseline else MAX_PIXELS)
    num_scans = data.count(_START_OF_SCAN) if image.format == "JPEG" else 1
    width, height = image.size
    if num_scans * width * height > _MAX_SCANNED_PIXELS:
        raise ValueError(f"{width} x {height} pixels in {num_scans} scans: too many")
    return image


def _check_num_pixels(image: Image.Image, limit: int) -> None:
    width, height = image.size
    if width * height > limit:
        raise ValueError(f"{width} x {height} pixels, more than {limit}")


def _target_size(size: Tuple[int, int], short_side: int) -> Tuple[int, int]:
    if short_side == 0:
        return size
    scale = short_side / min(size)
    width, height = (max(short_side, round(side * scale)) for side in size)
    if max(width, height) > _MAX_JPEG_SIDE:
        raise ValueError(f"{size[0]} x {size[1]} pixels: too narrow to be enlarged")
    return width, height


def _is_plain(data: bytes) -> bool:
    """Return whether a JPEG is baseline, complete and without metadata such as EXIF.

    Other JPEGs may be rotated or slow to decode, or some readers cannot decode them.
    """
    at = 2
    while data[at : at + 2] in _PLAIN_SEGMENTS:
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return data[at : at + 2] == _START_OF_SCAN and data.endswith(_END_OF_IMAGE)


def _coarseness(image: Image.Image) -> int:
    """Return the sum of the finest quantization table of a JPEG."""
    return min(map(sum, image.quantization.values()))


@functools.lru_cache(maxsize=None)
def _coarseness_of(quality: int) -> int:
    encoded = io.BytesIO()
    Image.new("RGB", (8, 8)).save(encoded, "JPEG", quality=quality)
    return _coarseness(Image.open(encoded))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        image.load()
        return image
    # The values have 16 bits.  Pillow would clip them instead of scaling them.
    if image.mode.startswith("I"):
        values = np.asarray(image).clip(0, 65535) // 257
        return Image.fromarray(values.astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("pixels are floating-point numbers of unknown range")
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def describe_error(error: Exception) -> str:
    """Return a one-line description of an error about a picture."""
    text = " ".join(str(error).split())[:200]
    if text and isinstance(error, (ValueError, OSError)):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def colour_moments(image: Image.Image) -> np.ndarray:
    """Return the sums from which the mean and covariance of colours are computed.

    The sums of several pictures can be added.  Only every fourth row and column is
    used, which is exact enough and takes a sixteenth of the time.

    Args:
        image: RGB picture.

    Returns:
        float64 [4, 4], the sums over pixels of the products of 1, red, green and blue.
    """
    size = tuple(-(-side // 4) for side in image.size)
    # Pixel x of the sample is pixel floor(4 * (x + 0.5) - 2) of the picture.
    sample = image.transform(size, Image.AFFINE, (4, 0, -2, 0, 4, -2), Image.NEAREST)
    # [height, width, 3] -> [pixels, 3]
    colours = np.asarray(sample).reshape(-1, 3)
    # float64 [4, pixels].  Each colour is a row, because contiguous writes are faster.
    terms = np.ones([4, len(colours)])
    terms[1:] = colours.T
    return terms @ terms.T


def mean_and_covariance(moments: np.ndarray) -> Tuple[Rgb, Tuple[Rgb, Rgb, Rgb]]:
    """Return the mean and covariance of red, green and blue.

    Args:
        moments: float64 [4, 4], sum of the results of ``colour_moments``.
    """
    products = moments / moments[0, 0]
    mean = products[0, 1:]
    covariance = products[1:, 1:] - np.outer(mean, mean)
    rows = [[round(float(x), 4) for x in row] for row in (mean, *covariance)]
    red, green, blue = map(as_tuples, rows[1:])
    return as_tuples(rows[0]), (red, green, blue)
