"""The TFRecord framing, for writing, locating damage and counting.

A record is its length (uint64), a checksum of the length, the data, a checksum of the
data; everything little-endian.  The checksum is CRC-32C, rotated and offset ("masked").
TensorFlow's own reader stops at the first damage and names no file; this one goes on
where it can.
"""

import contextlib
import functools
import itertools
import os
import struct
from typing import BinaryIO, Callable, Iterator, List, NamedTuple

import numpy as np

from alexnet_estimator.engine.graph_mode import tf

_POLYNOMIAL = np.uint32(0x82F63B78)  # CRC-32C (Castagnoli), bits reflected.
_BLOCK_BYTES = 256
# These four bytes take the register from 0 to its initial value, all ones.
_PREFIX = b"Td\x1fd"
_HEADER = struct.Struct("<QI")
_CHECKSUM = struct.Struct("<I")


class Record(NamedTuple):
    """One record; ``problem`` is empty where the checksums are right."""

    record_index: int
    data: bytes
    problem: str


@functools.lru_cache(maxsize=None)
def _tables() -> np.ndarray:
    """Tabulate what each byte of a block adds to the checksum.

    Returns:
        uint32 ``[_BLOCK_BYTES, 256]``, by place in the block and value of the byte.
    """
    last = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        last = np.where(last & 1, (last >> 1) ^ _POLYNOMIAL, last >> 1)
    rows = [last]
    while len(rows) < _BLOCK_BYTES:
        rows.append(last[rows[-1] & 255] ^ (rows[-1] >> 8))
    return np.stack(rows[::-1])


@functools.lru_cache(maxsize=None)
def _carry_tables() -> List[List[int]]:
    return _tables()[:4].tolist()


def crc32c(data: bytes) -> int:
    """Return the CRC-32C of ``data``, block by block, the bytes of all at once."""
    num_bytes = len(_PREFIX) + len(data)
    num_blocks = -(-num_bytes // _BLOCK_BYTES)
    # Zeros in front leave the register at 0, so they only fill the first block.
    filler = bytes(num_blocks * _BLOCK_BYTES - num_bytes)
    values = np.frombuffer(filler + _PREFIX + data, np.uint8)
    places = 256 * np.arange(_BLOCK_BYTES)
    parts = _tables().ravel()[values.reshape(num_blocks, _BLOCK_BYTES) + places]
    t0, t1, t2, t3 = _carry_tables()
    crc = 0
    for block in np.bitwise_xor.reduce(parts, axis=1).tolist():
        carried = t0[crc & 255] ^ t1[crc >> 8 & 255] ^ t2[crc >> 16 & 255]
        crc = block ^ carried ^ t3[crc >> 24]
    return crc ^ 0xFFFFFFFF


def masked_crc32c(data: bytes) -> int:
    """Return the checksum as TFRecord files store it."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def frame(data: bytes) -> bytes:
    """Return ``data`` as one record of a TFRecord file."""
    length = len(data).to_bytes(8, "little")
    header = _HEADER.pack(len(data), masked_crc32c(length))
    return b"".join([header, data, _CHECKSUM.pack(masked_crc32c(data))])


@contextlib.contextmanager
def writer(path: str) -> Iterator[Callable[[bytes], None]]:
    """Open a file to be written by TensorFlow, which has checksums in C.

    Yields:
        What writes a record.

    Raises:
        OSError: the file cannot be written.
    """
    try:
        with tf.python_io.TFRecordWriter(os.fsencode(path)) as file:
            yield file.write
    except tf.errors.OpError as error:
        raise OSError(error.message) from error


def read_records(path: str) -> Iterator[Record]:
    """Read a file to its end, past damaged data.

    Yields:
        Every record.  One whose data is damaged has a ``problem``; after a damaged
        length or a truncation nothing can be found any more: such a record is the last.

    Raises:
        OSError: the file cannot be read.
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


def find_huge_record(path: str) -> str:
    """Look for a record that claims to be longer than its file, checksum and all.

    TensorFlow would ask for that much memory and be ended by C++, without a message.

    Returns:
        What is wrong; empty where lengths fit, and where their checksums are wrong,
        which TensorFlow finds by itself.
    """
    at, size = 0, os.path.getsize(path)
    with open(path, "rb", buffering=0) as file:
        for index in itertools.count():
            header = os.pread(file.fileno(), _HEADER.size, at)
            if len(header) < _HEADER.size:
                return ""
            num_left = size - at - len(header)
            at += len(header) + _HEADER.unpack(header)[0] + _CHECKSUM.size
            if at > size:
                problem = _find_header_problem(header, num_left)
                is_huge = problem.startswith("truncated")
                return f"record {index}: {problem}" if is_huge else ""
    return ""


def walk(file: BinaryIO) -> Iterator[int]:
    """Find the records by their lengths alone, without reading them.

    Yields:
        Where the data of the next record ends, in bytes; the file stands at its start
        and may be moved.

    Raises:
        ValueError: the lengths do not add up to the size of the file.
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
        at = end + _CHECKSUM.size
        if at > size:
            raise ValueError(f"record {index}: truncated, or its length is damaged")
        yield end
