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
from typing import BinaryIO, Callable, Iterator, List, NamedTuple, Tuple

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
def _tables() -> Tuple[np.ndarray, List[List[int]]]:
    """Tabulate what each byte of a block adds to the checksum.

    Returns:
        uint32 ``[_BLOCK_BYTES, 256]``, by place in the block and value of the byte; and
        the first four rows as lists, in which single numbers are found faster.
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
    # Zeros in front leave the register at 0, so they only fill the first block.
    filler = bytes(num_blocks * _BLOCK_BYTES - num_bytes)
    values = np.frombuffer(filler + _PREFIX + data, np.uint8)
    table, (t0, t1, t2, t3) = _tables()
    places = 256 * np.arange(_BLOCK_BYTES)
    # All bytes of a block are looked up at once; blocks follow one another.
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
    """Open a file to be written by TensorFlow, which has checksums in C.

    Yields:
        Function that writes a record.

    Raises:
        OSError: The file cannot be written.
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
    """Find the records by their lengths alone, without reading them.

    Yields:
        End of the data of the next record, in bytes; the file stands at its start and
        may be moved.

    Raises:
        ValueError: The lengths do not add up to the size of the file.
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
