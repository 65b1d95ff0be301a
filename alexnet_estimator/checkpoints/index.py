"""Validation of a checkpoint's index before TensorFlow reads it.

TensorFlow 1.15 aborts the process if an index declares an impossible shape or type.
The index is a sorted table in the format of LevelDB: blocks of entries, a block that
lists the positions of these blocks, and a footer (tensorflow/core/lib/io/format.h).
The value of the key "" is a ``BundleHeaderProto``; all others are
``BundleEntryProto``.
"""

import os
import struct
from typing import Iterator, List, Sequence, Tuple

from google.protobuf.message import DecodeError  # type: ignore[import]
from tensorflow.core.protobuf import tensor_bundle_pb2

from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.files import read_at_most

MAX_BYTES = 64 << 20
MAX_RANK = 32
_FOOTER_BYTES = 48
_MAGIC = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"


def check(path: str, data_files: Sequence[str]) -> None:
    """Check the index of a checkpoint.

    Args:
        path: Path of the index.
        data_files: Paths of the files that hold the values.

    Raises:
        ValueError: The index is damaged, or it declares more than the files hold.
    """
    try:
        content = read_at_most(path, MAX_BYTES)
    except ValueError as error:
        raise ValueError(f"the index is {error}") from error
    try:
        entries = list(_read_table(content))
    except (IndexError, struct.error) as error:
        raise ValueError("the index is not a table of TensorFlow") from error
    keys = [key for key, _ in entries]
    if keys[:1] != [b""] or sorted(set(keys)) != keys:
        raise ValueError("the index has no header, or its names are not in order")
    stored_bytes = sum(map(os.path.getsize, data_files))
    try:
        header = tensor_bundle_pb2.BundleHeaderProto.FromString(entries[0][1])
        if header.num_shards != len(data_files):
            raise ValueError(
                f"{header.num_shards} data files declared, {len(data_files)} found"
            )
        for key, value in entries[1:]:
            entry = tensor_bundle_pb2.BundleEntryProto.FromString(value)
            _check_entry(key.decode("utf-8", "replace"), entry, stored_bytes)
    except DecodeError as error:
        raise ValueError("the index has an entry that cannot be parsed") from error


def _check_entry(
    name: str, entry: tensor_bundle_pb2.BundleEntryProto, stored_bytes: int
) -> None:
    """Raise ValueError for a variable that the data files cannot hold."""
    sizes = [dimension.size for dimension in entry.shape.dim]
    if entry.dtype not in _SIZES or entry.slices or entry.shape.unknown_rank:
        raise ValueError(f"{name} has a type that this package never saves")
    if len(sizes) > MAX_RANK or any(size < 0 for size in sizes):
        raise ValueError(f"{name} is declared with the shape {sizes[:MAX_RANK]}")
    declared_bytes = _SIZES[entry.dtype]  # Integers of Python do not overflow.
    for size in sizes:
        declared_bytes *= size
    has_size = entry.size == declared_bytes or entry.dtype == tf.string.as_datatype_enum
    is_inside = 0 <= entry.offset and 0 <= entry.size
    if not has_size or not is_inside or entry.offset + entry.size > stored_bytes:
        raise ValueError(
            f"{declared_bytes} bytes declared for {name}, {stored_bytes} bytes stored"
        )


# Number of bytes of one value.  A string needs at least the byte of its length.
_SIZES = {
    dtype.as_datatype_enum: 1 if dtype == tf.string else dtype.size
    for dtype in (
        *(tf.float16, tf.float32, tf.float64, tf.bfloat16, tf.bool, tf.string),
        *(tf.int8, tf.int16, tf.int32, tf.int64),
        *(tf.uint8, tf.uint16, tf.uint32, tf.uint64),
    )
}


def _read_table(content: bytes) -> Iterator[Tuple[bytes, bytes]]:
    """Yield the keys and values of a table."""
    footer = content[-_FOOTER_BYTES:]
    if len(footer) < _FOOTER_BYTES or not footer.endswith(_MAGIC):
        raise ValueError("the index is cut off, or is not an index")
    # The first two numbers locate the block of metadata, which is not read.
    _, _, offset, size = _read_varints(footer, 0, 4)[0]
    for _, value in _read_block(content, offset, size):
        yield from _read_block(content, *_read_varints(value, 0, 2)[0])


def _read_block(content: bytes, offset: int, size: int) -> List[Tuple[bytes, bytes]]:
    """Return the entries of a block.

    For each key, a block stores the length of the prefix that it shares with the
    previous key, and the bytes after this prefix.
    """
    block = content[offset : offset + size]
    if len(block) != size or content[offset + size] != 0:
        raise ValueError("the index is cut off or compressed")
    (num_restarts,) = struct.unpack_from("<I", block, len(block) - 4)
    end = len(block) - 4 - 4 * num_restarts
    if num_restarts < 1 or end < 0:
        raise ValueError("the index is damaged")
    restarts = struct.unpack_from(f"<{num_restarts}I", block, end)
    entries, starts, key, position = [], set(), b"", 0
    while position < end:
        start = position
        sizes, position = _read_varints(block, position, 3)
        num_shared, num_more, num_value = sizes
        if num_shared > len(key) or position + num_more + num_value > end:
            raise ValueError("the index is damaged")
        if num_shared == 0:
            starts.add(start)
        key = key[:num_shared] + block[position : position + num_more]
        position += num_more
        entries.append((key, block[position : position + num_value]))
        position += num_value
    # TensorFlow starts reading at any of these positions, where a key must be whole.
    if restarts[0] != 0 or not starts.issuperset(restarts):
        raise ValueError("the index is damaged")
    return entries


def _read_varints(data: bytes, position: int, count: int) -> Tuple[List[int], int]:
    """Decode variable-length integers of 7 bits a byte, the lowest bits first.

    Returns:
        The integers, and the position after the last of them.
    """
    values = []
    for _ in range(count):
        value = shift = 0
        while True:
            byte = data[position]
            value |= (byte & 127) << shift
            position, shift = position + 1, shift + 7
            if byte < 128:
                break
            if shift >= 64:
                raise ValueError("the index is damaged")
        values.append(value)
    return values, position
