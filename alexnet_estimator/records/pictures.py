"""From picture files of any kind to JPEGs that every reader can decode."""

import functools
import io
from typing import NamedTuple, Sequence, Tuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from alexnet_estimator.records import kinds
from alexnet_estimator.records.dataset import Rgb, as_tuples

_TENSORFLOW_FORMATS = ("JPEG", "PNG", "GIF", "BMP")
# A small file can declare a picture of any size.  This many pixels are decoded at most,
# also in training: 270 MB.  It is the limit that Pillow has by itself.
MAX_PIXELS = 89_478_485
# A JPEG may have more if it is decoded at a half, a quarter or an eighth of its size.
# Only a baseline one, of which a few rows are in memory at a time: a progressive one
# needs 6 bytes for each pixel whatever the scale.
_MAX_JPEG_PIXELS = 1 << 28
# Else Pillow would warn, or refuse before anything can be scaled.
Image.MAX_IMAGE_PIXELS = _MAX_JPEG_PIXELS
# Each scan goes over all pixels, and a small file can hold thousands; 12 are usual.
_MAX_SCANNED_PIXELS = 12 * MAX_PIXELS
_MAX_JPEG_SIDE = 65500
_ORIENTATION_TAG = 0x0112
_START_OF_SCAN, _END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"
# JFIF header, quantization tables, baseline frame, Huffman tables, restart interval.
_PLAIN_SEGMENTS = (b"\xff\xe0", b"\xff\xdb", b"\xff\xc0", b"\xff\xc4", b"\xff\xdd")
# What undoes each EXIF orientation.
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
    """A JPEG file, and the RGB picture that was encoded or decoded for it."""

    data: bytes
    image: Image.Image


def transcode(data: bytes, short_side: int, quality: int) -> Jpeg:
    """Decode a picture of any kind, turn it upright, resize it, encode it as JPEG.

    A JPEG of that size that has no metadata and is of no better quality stays as it is.

    Args:
        data: Content of the file, whatever its name says.
        short_side: Short side in pixels; smaller pictures are enlarged; 0: as it is.
        quality: Quality of the JPEG, to 100.

    Raises:
        Exception: Pillow's, of any type, where the picture cannot be decoded.
        ValueError: It is larger than is sensible, or its colours are unknown.
    """
    image = _open(data, kinds.DECODED)
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # Damaged EXIF data, in many ways; the picture may be whole.
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
    """Decode a picture of a record as it is; return it as RGB.

    Args:
        data: Content of the picture's file.
        short_side: Short side that the picture, a JPEG, must have; 0: anything.

    Raises:
        Exception: As ``transcode``; also where training could not decode it.
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
    """Read the header, and refuse what could not be decoded in sensible time."""
    try:
        image = Image.open(io.BytesIO(data), formats=formats)
    except UnidentifiedImageError:  # Its message names a place in memory.
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
    """Say whether a JPEG is baseline, whole and without metadata such as EXIF.

    Others may be turned, slow to decode, or unknown to some reader.
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
    if image.mode.startswith("I"):  # 16 bits; Pillow would cut instead of scale.
        values = np.asarray(image).clip(0, 65535) // 257
        return Image.fromarray(values.astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("pixels are floating-point numbers of unknown range")
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def describe_error(error: Exception) -> str:
    """Say in one line what is wrong with a picture."""
    text = " ".join(str(error).split())[:200]
    if text and isinstance(error, (ValueError, OSError)):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def colour_moments(image: Image.Image) -> np.ndarray:
    """Sum up a picture's colours; sums of several pictures can be added.

    Every fourth row and column is used: as exact as needed, at a sixteenth of the time.

    Args:
        image: RGB.

    Returns:
        float64 ``[4, 4]``: sums of the products of 1, red, green and blue.
    """
    size = tuple(-(-side // 4) for side in image.size)
    # Pixel x of the sample is pixel floor(4 * (x + 0.5) - 2) of the picture.
    sample = image.transform(size, Image.AFFINE, (4, 0, -2, 0, 4, -2), Image.NEAREST)
    colours = np.asarray(sample).reshape(-1, 3)
    terms = np.ones([4, len(colours)])  # Rows: whole lines of memory to write.
    terms[1:] = colours.T
    return terms @ terms.T


def mean_and_covariance(moments: np.ndarray) -> Tuple[Rgb, Tuple[Rgb, Rgb, Rgb]]:
    """Return mean and covariance of red, green and blue from ``colour_moments``."""
    products = moments / moments[0, 0]
    mean = products[0, 1:]
    covariance = products[1:, 1:] - np.outer(mean, mean)
    rows = [[round(float(x), 4) for x in row] for row in (mean, *covariance)]
    red, green, blue = map(as_tuples, rows[1:])
    return as_tuples(rows[0]), (red, green, blue)
