"""Pictures of every kind become upright RGB JPEGs of the right size and colours."""

import io
import struct
import zlib
from typing import Any, Dict, Optional, Tuple

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from PIL import Image

from alexnet_estimator.records import pictures
from tests.pictures import draw


def encode(image: Image.Image, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def transcode(data: bytes, short_side: int = 0) -> np.ndarray:
    """Return the pixels that a reader of the stored JPEG sees."""
    jpeg = pictures.transcode(data, short_side, quality=95)
    stored = Image.open(io.BytesIO(jpeg.data))
    assert (stored.format, stored.mode) == ("JPEG", "RGB")
    assert jpeg.image.size == stored.size
    return np.asarray(stored)


def mean_of(pixels: np.ndarray) -> Tuple[float, ...]:
    return tuple(pixels.reshape(-1, 3).mean(axis=0))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
def test_formats(file_format: str) -> None:
    image = Image.new("RGB", (20, 10), (200, 100, 50))
    found = transcode(encode(image, file_format))
    assert found.shape == (10, 20, 3)
    assert mean_of(found) == pytest.approx((200, 100, 50), abs=3)


GREEN = Image.new("RGB", (16, 16), (10, 200, 30))
PALETTE = GREEN.quantize()


@pytest.mark.parametrize(
    "image, file_format, options, expected",
    [
        (Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", {}, (255, 0, 0)),
        (Image.new("L", (16, 16), 90), "JPEG", {}, (90, 90, 90)),
        (Image.new("1", (16, 16), 1), "PNG", {}, (255, 255, 255)),
        (Image.new("RGBA", (16, 16), (0, 0, 0, 0)), "PNG", {}, (255, 255, 255)),
        (Image.new("RGBA", (16, 16), (200, 0, 0, 128)), "WEBP", {}, (227, 127, 127)),
        (Image.new("LA", (16, 16), (0, 0)), "PNG", {}, (255, 255, 255)),
        (Image.new("I;16", (16, 16), 25700), "PNG", {}, (100, 100, 100)),
        (Image.new("I;16", (16, 16), 25700), "TIFF", {}, (100, 100, 100)),
        (GREEN, "PNG", {"transparency": (10, 200, 30)}, (255, 255, 255)),
        (PALETTE, "PNG", {}, (10, 200, 30)),
        (
            PALETTE,
            "PNG",
            {"transparency": PALETTE.getpixel((0, 0))},
            (255, 255, 255),
        ),
    ],
)
def test_modes(
    image: Image.Image, file_format: str, options: Any, expected: Any
) -> None:
    data = encode(image, file_format, **options)
    assert mean_of(transcode(data)) == pytest.approx(expected, abs=3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(orientation: int) -> None:
    upright = Image.new("RGB", (64, 32), "white")
    upright.paste((255, 0, 0), (0, 0, 32, 16))  # Red above left,
    upright.paste((0, 0, 255), (32, 16, 64, 32))  # blue below right.
    turned = {
        1: lambda x: x,
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        4: lambda x: x[::-1],
        5: lambda x: x.swapaxes(0, 1),
        6: lambda x: np.rot90(x, 1),
        7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
        8: lambda x: np.rot90(x, -1),
    }[orientation](np.asarray(upright))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(np.ascontiguousarray(turned)), "JPEG", exif=exif)
    found = transcode(data, short_side=32)
    assert found.shape == (32, 64, 3)
    assert np.abs(found[8, 16].astype(int) - (255, 0, 0)).max() < 20
    assert np.abs(found[24, 48].astype(int) - (0, 0, 255)).max() < 20


@pytest.mark.parametrize("exif", [b"MM\0*\xff\xff\xff\xffgarbage", b"garbage", b"II"])
def test_damaged_exif_does_not_cost_the_picture(exif: bytes) -> None:
    data = encode(draw(0, 0), "JPEG", exif=b"Exif\0\0" + exif)
    assert transcode(data).shape == (40, 48, 3)


@pytest.mark.parametrize(
    "size, expected",
    [((300, 200), (96, 64)), ((200, 300), (64, 96)), ((20, 10), (128, 64))],
)
def test_the_short_side_is_exact(size: Tuple[int, int], expected: Any) -> None:
    found = transcode(encode(Image.new("RGB", size), "PNG"), short_side=64)
    assert found.shape[1::-1] == expected


def test_large_jpegs_keep_their_look_when_decoded_at_a_smaller_scale() -> None:
    image = draw(0, 0, (400, 300))
    large = image.resize((1600, 1200), Image.NEAREST)
    found = transcode(encode(large, "JPEG", subsampling=0), short_side=300)
    brightness = np.asarray(image).mean(axis=2)
    assert np.abs(found.mean(axis=2) - brightness).mean() < 5


def test_a_jpeg_that_needs_nothing_keeps_its_bytes() -> None:
    data = encode(draw(0, 0, (64, 48)), "JPEG", quality=80)
    for short_side in (0, 48):
        jpeg = pictures.transcode(data, short_side, quality=80)
        assert jpeg.data == data
        np.testing.assert_array_equal(
            np.asarray(jpeg.image), np.asarray(Image.open(io.BytesIO(data)))
        )


@pytest.mark.parametrize("orientation", [None, 1, 6])
@pytest.mark.parametrize(
    "options, tail, is_kept",
    [
        ({"mode": "L"}, b"", False),
        ({"mode": "CMYK"}, b"", False),
        ({}, b"", True),
        ({"restart_marker_rows": 1}, b"", True),
        ({"subsampling": 0}, b"", True),
        ({"quality": 81}, b"", False),
        ({"progressive": True}, b"", False),
        ({"icc_profile": b"profile"}, b"", False),
        ({}, b"garbage", False),
    ],
)
def test_only_plain_jpegs_keep_their_bytes(
    options: Dict[str, Any], tail: bytes, is_kept: bool, orientation: Optional[int]
) -> None:
    exif = Image.Exif()
    if orientation:
        options = {**options, "exif": exif}
        exif[0x0112] = orientation
    options = {"quality": 80, **options}
    image = draw(0, 0, (64, 64)).convert(options.pop("mode", "RGB"))
    data = encode(image, "JPEG", **options) + tail
    found = pictures.transcode(data, 64, quality=80).data
    assert (found == data) == (is_kept and not orientation)


def test_a_jpeg_that_is_cut_off_but_ends_properly_is_readable_everywhere() -> None:
    whole = encode(draw(0, 0, (64, 64)), "JPEG", quality=80)
    cut = whole[: len(whole) // 2] + whole[-2:]
    jpeg = pictures.transcode(cut, 0, quality=80)
    with tf.Graph().as_default(), tf.Session() as session:
        pixels = session.run(tf.image.decode_jpeg(jpeg.data, channels=3))
    assert pixels.shape == (*jpeg.image.size[::-1], 3)


def declare(data: bytes, width: int, height: int) -> bytes:
    """Change the size in a PNG's header, with its checksum."""
    header = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


@pytest.mark.parametrize("side", [12_000, 60_000])
def test_decompression_bombs_are_refused_by_their_header(side: int) -> None:
    bomb = declare(encode(Image.new("RGB", (8, 8)), "PNG"), side, side)
    with pytest.raises(Exception, match="pixels"):
        transcode(bomb, 32)


def test_photos_of_todays_phones_are_decoded_at_a_smaller_scale() -> None:
    """These photos have 108 or 200 million pixels; progressive ones are refused."""
    photo = Image.new("L", (12_000, 9_000), 90)
    photo.paste(200, (0, 0, 6_000, 9_000))
    data = encode(photo, "JPEG", quality=50)
    found = transcode(data, short_side=60)
    assert found.shape == (60, 80, 3)
    assert np.abs(found[30, [10, 70], 0].astype(int) - (200, 90)).max() < 4
    larger = declare_jpeg(data, 16_320, 12_240)
    assert pictures._open(larger, ["JPEG"]).size == (16_320, 12_240)
    for short_side in (0, 8_000):
        with pytest.raises(ValueError, match="12000 x 9000 pixels, more than 89478485"):
            transcode(data, short_side)
    progressive = data.replace(b"\xff\xc0", b"\xff\xc2", 1)
    with pytest.raises(ValueError, match="more than 89478485"):
        transcode(progressive, 60)
    with pytest.raises(ValueError, match="20000 x 20000 pixels, more than 268435456"):
        transcode(declare_jpeg(data, 20_000, 20_000), 60)


def declare_jpeg(data: bytes, width: int, height: int) -> bytes:
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + struct.pack(">HH", height, width) + data[place + 4 :]


def test_many_scans_are_refused_before_they_take_their_time() -> None:
    data = encode(draw(0, 0, (64, 64)), "JPEG", progressive=True)
    assert transcode(data).shape == (64, 64, 3)
    last_scan = data[data.rindex(b"\xff\xda") : -2]
    bomb = data[:-2] + last_scan * 300 + data[-2:]
    assert transcode(bomb).shape == (64, 64, 3)
    place = bomb.index(b"\xff\xc2") + 5
    bomb = bomb[:place] + struct.pack(">HH", 9_400, 9_400) + bomb[place + 4 :]
    with pytest.raises(ValueError, match="9400 x 9400 pixels in 310 scans: too many"):
        transcode(bomb, 32)


WHOLE = encode(draw(0, 0, (64, 64)), "JPEG")
REFUSED = {
    # Phones send such files with the suffix .jpg.
    "heic": (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC picture, .*convert it to JPEG"),
    "thin line": (encode(Image.new("RGB", (9000, 1)), "PNG"), "too narrow"),
    "floating point": (encode(Image.new("F", (8, 8)), "TIFF"), "floating"),
    "runs programs": (encode(draw(0, 0), "EPS"), "not one of JPEG"),
    **{f"cut at {size}": (WHOLE[:size], "") for size in (0, 1, 100, 600)},
}


@pytest.mark.parametrize("data, message", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_decoded_is_refused(data: bytes, message: str) -> None:
    with pytest.raises((ValueError, OSError), match=message):
        transcode(data, 256)


def test_colour_moments_give_mean_and_covariance() -> None:
    pixels = np.random.RandomState(0).randint(0, 256, [3, 9, 14, 3]).astype(np.uint8)
    pixels[..., 1] = pixels[..., 0] // 2
    moments = sum(
        pictures.colour_moments(Image.fromarray(picture)) for picture in pixels
    )
    mean, covariance = pictures.mean_and_covariance(moments)
    used = pixels[:, ::4, ::4].reshape(-1, 3)
    np.testing.assert_allclose(mean, used.mean(axis=0), atol=1e-3)
    expected = np.cov(used.T.astype(float), bias=True)
    np.testing.assert_allclose(covariance, expected, atol=1e-3)
