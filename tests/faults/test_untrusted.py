"""Files from strangers: any content is accepted or rejected with one message."""

import contextlib
import json
import os
import pathlib
import re
import struct
import tempfile
from typing import Any, Callable, Dict, Iterator

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from alexnet_estimator import inputs
from alexnet_estimator.config import validate
from alexnet_estimator.config_file import load_config_file
from alexnet_estimator.errors import ConfigError
from alexnet_estimator.records.pictures import MAX_PIXELS
from alexnet_estimator.schema import SCHEMA
from tests import tiny

Decode = Callable[[bytes], np.ndarray]

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]

numbers = st.integers() | st.floats() | st.just(10**400)
anything = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=8,
)


@st.composite
def records(draw: Any) -> Dict[str, Any]:
    """Return existing fields, most of them with values of arbitrary types."""
    sections: Dict[str, Any] = {}
    for _ in range(draw(st.integers(1, 4))):
        section = draw(st.sampled_from(sorted(SCHEMA)))
        name = draw(st.sampled_from(sorted(SCHEMA[section])))
        fields = sections.setdefault(section, {})
        default = SCHEMA[section][name].default
        alike = {
            int: st.integers() | st.just(10**400),
            float: numbers,
            str: st.text(),
        }
        kinds = alike.get(type(default), st.lists(numbers | st.text(), max_size=9))
        fields[name] = draw(kinds | st.just(default) | anything)
    return sections


def load(content: bytes) -> None:
    """Load a file as a configuration and check it."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "config.json")
        pathlib.Path(path).write_bytes(content)
        try:
            validate(load_config_file(path))
        except ConfigError as error:
            assert error.message()


@settings(max_examples=300)
@given(records())
@example({"npu": {"high_precision_ops": [[]]}})
def test_any_values_of_known_fields_load_or_are_refused(record: Any) -> None:
    load(json.dumps({"config": record}).encode())


@settings(max_examples=100)
@given(anything | st.fixed_dictionaries({"config": anything}))
def test_any_json_loads_or_is_refused(value: Any) -> None:
    load(json.dumps(value).encode())


@settings(max_examples=100)
@given(st.binary(max_size=200))
def test_any_bytes_load_or_are_refused(content: bytes) -> None:
    load(content)


@pytest.mark.parametrize(
    "content", [b"[" * 10**5, b'{"config": ' * 10**4, b" " * (2**26 + 1)], ids=len
)
def test_deep_and_large_files_are_refused(
    content: bytes, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(
        ConfigError, match=r"config.json: damaged \((not JSON|larger than 64 MiB)"
    ):
        load_config_file(str(tmp_path / "config.json"))


def declare(picture: bytes, kind: str, side: int) -> bytes:
    """Return a picture whose header declares other sides."""
    place, layout = {
        "JPEG": (picture.find(b"\xff\xc0") + 5, ">HH"),
        "PNG": (16, ">II"),
        "GIF": (6, "<HH"),
    }[kind]
    sides = struct.pack(layout, side, side)
    return picture[:place] + sides + picture[place + len(sides) :]


@contextlib.contextmanager
def decoding(short_side: int) -> Iterator[Decode]:
    with tf.Graph().as_default(), tiny.session() as session:
        encoded = tf.placeholder(tf.string, [])
        image = inputs.decode_for_eval(encoded, 63, short_side)
        yield lambda picture: session.run(image, {encoded: picture})


@pytest.fixture(scope="module")
def decode() -> Iterator[Decode]:
    """Yield the function that decodes a picture in training, evaluation and serving."""
    with decoding(0) as decode_any:
        yield decode_any


@pytest.fixture(scope="module")
def decode_converted() -> Iterator[Decode]:
    """Yield the function that decodes a picture from ``convert`` by its manifest."""
    with decoding(tiny.PICTURE_SIZE) as decode_jpeg:
        yield decode_jpeg


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF"])
def test_pictures_of_a_size_beyond_memory_are_not_decoded(
    kind: str, decode: Decode
) -> None:
    picture = tiny.encode(tiny.noise(0), kind.lower())
    assert decode(picture).shape == (63, 63, 3)
    for side in (9460, 60000):  # 9460 ** 2 is just above the limit.
        assert side**2 > MAX_PIXELS > 9450**2
        with pytest.raises(tf.errors.InvalidArgumentError, match="too many pixels"):
            decode(declare(picture, kind, side))


def test_a_manifest_does_not_vouch_for_their_size(decode_converted: Decode) -> None:
    picture = tiny.encode(tiny.noise(0), "jpeg")
    assert decode_converted(picture).shape == (63, 63, 3)
    with pytest.raises(tf.errors.InvalidArgumentError, match="too many pixels"):
        decode_converted(declare(picture, "JPEG", 9460))
    small, other = tiny.noise(0, 40, 40), tiny.encode(tiny.noise(0))
    for picture in (tiny.encode(small, "jpeg"), other):
        with pytest.raises(tf.errors.InvalidArgumentError):
            decode_converted(picture)


@settings(max_examples=300)
@given(
    start=st.sampled_from(
        [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM"]
    ),
    rest=st.binary(max_size=80),
)
def test_any_bytes_decode_or_are_refused(
    decode: Decode, decode_converted: Decode, start: bytes, rest: bytes
) -> None:
    for way in (decode, decode_converted):
        try:
            assert way(start + rest).shape == (63, 63, 3)
        except tf.errors.InvalidArgumentError as error:
            assert error.message


def test_nothing_is_unpickled() -> None:
    """The package never unpickles, because a pickle can run code of its author.

    The file from Caffe is a pickle, whose reader is tested in tests/test_warm_start.py.
    """
    pattern = re.compile(r"\b(pickle|marshal|shelve|allow_pickle|joblib|yaml\.load)\b")
    files = sorted((REPOSITORY / "alexnet_estimator").rglob("*.py"))
    assert len(files) > 50
    found = [f.name for f in files if pattern.search(f.read_text("utf-8"))]
    assert found == ["caffe_file.py"]
