"""Reads and writes the TFRecord format.

A record consists of its length (uint64), a checksum of the length, the data, and a
checksum of the data, all of them little-endian.  The checksum is CRC-32C, rotated and
offset ("masked").  TensorFlow's reader stops at the first damage and does not name the
file.  The reader of this module names the damaged record and reads the following
records if it can.
"""

import contextlib
import functools
import itertools
import os
import struct
from typing import (
    BinaryIO,
    Callable,
    Collection,
    Dict,
    Iterator,
    List,
    NamedTuple,
    Tuple,
)

import numpy as np

# Polynomial of CRC-32C (Castagnoli), with reflected bits.
_POLYNOMIAL = np.uint32(0x82F63B78)
_BLOCK_BYTES = 256
# These four bytes change the register from 0 to its initial value, all ones.
_PREFIX = b"Td\x1fd"
_HEADER = struct.Struct("<QI")
_CHECKSUM = struct.Struct("<I")


class Record(NamedTuple):
    """A record of a file.

    Attributes:
        record_index: Number of the record, from 0.
        data: Content of the record.
        problem: Description of the damage; empty if both checksums are right.
    """

    record_index: int
    data: bytes
    problem: str


@functools.lru_cache(maxsize=None)
def _tables() -> Tuple[np.ndarray, List[List[int]]]:
    """Compute the contribution of each byte of a block to the checksum.

    Returns:
        uint32 [_BLOCK_BYTES, 256], by the position in the block and the value of the
        byte; and its first four rows as lists, because looking up a single number in a
        list is faster.
    """
    last = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        last = np.where(last & 1, (last >> 1) ^ _POLYNOMIAL, last >> 1)
    rows = [last]
    while len(rows) < _BLOCK_BYTES:
        rows.append(last[rows[-1] & 255] ^ (rows[-1] >> 8))
    table = np.stack(rows[::-1])
    return table, table[:4].tolist()


def masked_crc32c(data: bytes) -> int:
    """Return the checksum of ``data`` as TFRecord files store it."""
    num_bytes = len(_PREFIX) + len(data)
    num_blocks = -(-num_bytes // _BLOCK_BYTES)
    # Zeros at the start do not change the register while it is 0, so that they can pad
    # the first block.
    filler = bytes(num_blocks * _BLOCK_BYTES - num_bytes)
    values = np.frombuffer(filler + _PREFIX + data, np.uint8)
    table, (t0, t1, t2, t3) = _tables()
    places = 256 * np.arange(_BLOCK_BYTES)
    # uint32 [num_blocks, _BLOCK_BYTES].  All bytes are looked up in one operation,
    # which is much faster than a loop over bytes.  Only the loop over blocks remains.
    parts = table.ravel()[values.reshape(num_blocks, _BLOCK_BYTES) + places]
    crc = 0
    for block in np.bitwise_xor.reduce(parts, axis=1).tolist():
        carried = t0[crc & 255] ^ t1[crc >> 8 & 255] ^ t2[crc >> 16 & 255]
        crc = block ^ carried ^ t3[crc >> 24]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def frame(data: bytes) -> bytes:
    """Return ``data`` as one record of a TFRecord file."""
    length = len(data).to_bytes(8, "little")
    header = _HEADER.pack(len(data), masked_crc32c(length))
    return header + data + _CHECKSUM.pack(masked_crc32c(data))


@contextlib.contextmanager
def writer(path: str) -> Iterator[Callable[[bytes], None]]:
    """Open a file for writing records with TensorFlow, which is faster than ``frame``.

    Yields:
        Function that writes a record.

    Raises:
        OSError: The file cannot be written.
    """
    # A launcher opens converted data without TensorFlow.
    from alexnet_estimator.engine.graph_mode import tf

    try:
        with tf.python_io.TFRecordWriter(os.fsencode(path)) as file:
            yield file.write
    except tf.errors.OpError as error:
        raise OSError(error.message) from error


def read_records(path: str) -> Iterator[Record]:
    """Read the records of a file, including the records after damaged data.

    Yields:
        The next record.  A damaged record has a ``problem``.  If the length is damaged
        or the file is truncated, the record is the last one, because the start of the
        next record is unknown.

    Raises:
        OSError: The file cannot be read.
    """
    num_left = os.path.getsize(path)
    with open(path, "rb") as file:
        for index in itertools.count():
            header = file.read(_HEADER.size)
            if not header:
                return
            num_left -= len(header)
            problem = _find_header_problem(header, num_left)
            if problem:
                yield Record(index, b"", problem)
                return
            length = _HEADER.unpack(header)[0]
            data = file.read(length)
            (checksum,) = _CHECKSUM.unpack(file.read(_CHECKSUM.size))
            num_left -= length + _CHECKSUM.size
            is_damaged = masked_crc32c(data) != checksum
            yield Record(index, data, "wrong checksum of the data" * is_damaged)


def _find_header_problem(header: bytes, num_left: int) -> str:
    if len(header) < _HEADER.size:
        return f"truncated: {len(header)} of the {_HEADER.size} bytes of its header"
    length, checksum = _HEADER.unpack(header)
    if masked_crc32c(header[:8]) != checksum:
        return "wrong checksum of the length; the rest of the file cannot be read"
    if length + _CHECKSUM.size > num_left:
        wanted = length + _CHECKSUM.size
        return f"truncated: {num_left} of {wanted} bytes follow its header"
    return ""


def walk(file: BinaryIO) -> Iterator[int]:
    """Find the records of a file by their lengths, without reading their data.

    Args:
        file: File that is open for reading.  At each yield, its position is the start
            of the data.  The caller may change the position.

    Yields:
        Position of the end of the data of the next record, in bytes.

    Raises:
        ValueError: A record ends beyond the end of the file.
    """
    size, at = os.fstat(file.fileno()).st_size, 0
    for index in itertools.count():
        if at == size:
            return
        file.seek(at)
        header = file.read(_HEADER.size)
        end = at + _HEADER.size
        if len(header) == _HEADER.size:
            end += _HEADER.unpack(header)[0]
        if end + _CHECKSUM.size > size:
            problem = _find_header_problem(header, size - at - len(header))
            raise ValueError(f"record {index}: {problem}")
        yield end
        at = end + _CHECKSUM.size


def read_at(path: str, indices: Collection[int]) -> Dict[int, bytes]:
    """Read some records of a file without the data of the others or any checksum.

    Args:
        path: Path of the file.
        indices: Numbers of the records, from 0.

    Returns:
        The content of each record, by its number.

    Raises:
        OSError: The file cannot be read.
        ValueError: A record ends beyond the end of the file, or does not exist.
    """
    found: Dict[int, bytes] = {}
    # A larger buffer would read more of the records between the wanted ones.
    with open(path, "rb", buffering=_HEADER.size) as file:
        for index, end in enumerate(walk(file)):
            if index in indices:
                found[index] = file.read(end - file.tell())
            if len(found) == len(indices):
                return found
    raise ValueError(f"there is no record {min(set(indices) - set(found))}")
