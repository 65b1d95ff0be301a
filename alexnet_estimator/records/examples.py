"""Builds and parses the Example of a record, with the feature names of ImageNet.

TensorFlow is imported when it is first needed: a launcher opens converted data without
it, and starts its ranks a second earlier.
"""

import collections
import os
from typing import Any, BinaryIO, Counter, Iterator, List, Tuple

from alexnet_estimator.records import tfrecord
from alexnet_estimator.records.pictures import Jpeg

ENCODED = "image/encoded"
LABEL = "image/class/label"
WEIGHT = "image/weight"
_PATH = "image/filename"
# A larger buffer would read more of the pictures, which are skipped.
_BUFFER_BYTES = 1024


def build(
    jpeg: Jpeg, label: int, class_name: str, path: str, weight: float = 1.0
) -> bytes:
    """Return the serialized Example of a picture.

    A weight of 1.0 is not stored, so that records without weights stay as they are.
    """
    width, height = jpeg.image.size
    texts = {
        ENCODED: jpeg.data,
        "image/format": b"JPEG",
        "image/colorspace": b"RGB",
        "image/class/text": os.fsencode(class_name),
        _PATH: os.fsencode(path),
    }
    numbers = {
        "image/height": height,
        "image/width": width,
        "image/channels": 3,
        LABEL: label,
    }
    from alexnet_estimator.engine.graph_mode import tf

    example = tf.train.Example()
    for name, text in texts.items():
        example.features.feature[name].bytes_list.value.append(text)
    for name, number in numbers.items():
        example.features.feature[name].int64_list.value.append(number)
    if weight != 1.0:
        example.features.feature[WEIGHT].float_list.value.append(weight)
    return example.SerializeToString(deterministic=True)


def parse(data: bytes) -> Tuple[bytes, int]:
    """Return the encoded picture and the label of a serialized Example.

    Raises:
        google.protobuf.message.DecodeError: The data are not an Example.
        ValueError: The Example does not contain exactly one picture and one label.
    """
    features = _features_of(data)
    encoded = features[ENCODED].bytes_list.value
    label = features[LABEL].int64_list.value
    if len(encoded) != 1 or len(label) != 1:
        names = ", ".join(list_features(data))
        raise ValueError(f"{ENCODED} or {LABEL} is missing; it has {names}")
    return encoded[0], label[0]


def parse_path(data: bytes) -> str:
    """Return the path of the original picture of a serialized Example.

    The result is empty if the Example does not contain it.
    """
    features = _features_of(data)
    return os.fsdecode(b"".join(features[_PATH].bytes_list.value[:1]))


def list_features(data: bytes) -> List[str]:
    """Return the names of the features of a serialized Example."""
    return sorted(_features_of(data))


def _features_of(data: bytes) -> Any:
    """Return the mapping from names to features of a serialized Example."""
    from alexnet_estimator.engine.graph_mode import tf

    return tf.train.Example.FromString(data).features.feature


def count_labels(path: str, offset: int = 0) -> Tuple[Counter[int], str]:
    """Count the labels of a file without reading its pictures.

    Args:
        path: Path of a TFRecord file.
        offset: Number that is subtracted from the labels.

    Returns:
        Number of records with each label, and a message if the file is damaged.  The
        message is about the record after the counted ones.

    Raises:
        OSError: The file cannot be opened.
    """
    labels: Counter[int] = collections.Counter()
    with open(path, "rb", buffering=_BUFFER_BYTES) as file:
        try:
            for end in tfrecord.walk(file):
                labels[read_label(file, end) - offset] += 1
        except Exception as error:  # Damaged bytes raise errors of any type.
            return labels, str(error) or type(error).__name__
    return labels, ""


def read_label(file: BinaryIO, end: int) -> int:
    """Read the label of an Example without reading its picture.

    The function parses the wire format of protocol buffers, in which each of these
    messages is a sequence of (tag, length, value).  They are nested as follows:
    Example > Features > map entries > Feature > Int64List.

    Args:
        file: File whose position is the start of the Example.
        end: Position of the end of the Example in the file, in bytes.

    Raises:
        google.protobuf.message.DecodeError: The label is damaged.
        ValueError: The data are not an Example, or the Example has no label.
    """
    from alexnet_estimator.engine.graph_mode import tf

    for _, features_end in _fields(file, end):
        for _, entry_end in _fields(file, features_end):
            is_label = False
            for number, field_end in _fields(file, entry_end):
                if number == 1:
                    is_label = file.read(field_end - file.tell()) == LABEL.encode()
                elif is_label:
                    data = file.read(field_end - file.tell())
                    value = tf.train.Feature.FromString(data).int64_list.value
                    if not value:
                        raise ValueError(f"{LABEL} is not an integer")
                    return int(value[0])
    raise ValueError(f"{LABEL} is missing")


def _fields(file: BinaryIO, end: int) -> Iterator[Tuple[int, int]]:
    """Yield the number and the end of each field.

    At each yield, the position of the file is the start of the field's value.
    """
    while file.tell() < end:
        tag = _read_varint(file)
        length = _read_varint(file)
        field_end = file.tell() + length
        if tag & 7 != 2 or field_end > end:  # Wire type 2: a length precedes the value.
            raise ValueError("not an Example")
        yield tag >> 3, field_end
        file.seek(field_end)


def _read_varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 64, 7):
        byte = ord(file.read(1) or b"\0")
        value |= (byte & 127) << shift
        if byte < 128:
            return value
    raise ValueError("not an Example")
