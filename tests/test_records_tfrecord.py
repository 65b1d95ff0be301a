"""Records are framed as by TensorFlow, and damage is located."""

import pathlib
from typing import List

import hypothesis
import hypothesis.strategies as st
import pytest

from alexnet_estimator.records import tfrecord

RECORDS = [b"", b"a", b"picture" * 100, bytes(1000), bytes(range(256)) * 100]


def slow_crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x82F63B78 * (crc & 1)
    return crc ^ 0xFFFFFFFF


def write(path: pathlib.Path, records: List[bytes] = RECORDS) -> str:
    path.write_bytes(b"".join(map(tfrecord.frame, records)))
    return str(path)


def problems(path: str) -> List[str]:
    return [record.problem for record in tfrecord.read_records(path)]


@hypothesis.given(st.binary(max_size=1100))
@hypothesis.example(b"123456789")
def test_checksums_equal_the_definition(data: bytes) -> None:
    crc = slow_crc32c(data)
    assert data != b"123456789" or crc == 0xE3069283  # The check value of the standard.
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) % (1 << 32)
    assert tfrecord.masked_crc32c(data) == masked


def test_files_equal_tensorflows_byte_for_byte(tmp_path: pathlib.Path) -> None:
    theirs = str(tmp_path / "theirs")
    with tfrecord.writer(theirs) as write_record:
        for record in RECORDS:
            write_record(record)
    ours = write(tmp_path / "ours")
    assert pathlib.Path(ours).read_bytes() == pathlib.Path(theirs).read_bytes()
    found = list(tfrecord.read_records(theirs))
    assert found == [tfrecord.Record(i, data, "") for i, data in enumerate(RECORDS)]
    with open(theirs, "rb") as file:
        walked = [file.read(end - file.tell()) for end in tfrecord.walk(file)]
    assert walked == RECORDS
    assert tfrecord.read_at(theirs, {0, 3}) == {0: RECORDS[0], 3: RECORDS[3]}
    with pytest.raises(ValueError, match="there is no record 5"):
        tfrecord.read_at(theirs, {0, 5, 7})


def test_flipped_data_is_named_and_the_rest_still_read(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "file"
    write(path)
    content = bytearray(path.read_bytes())
    content[16 + 12] ^= 1  # The only byte of record 1, after 16 bytes of record 0.
    path.write_bytes(content)
    assert problems(str(path)) == ["", "wrong checksum of the data", "", "", ""]


@pytest.mark.parametrize("place", range(12))
def test_a_flipped_header_ends_the_reading(tmp_path: pathlib.Path, place: int) -> None:
    path = tmp_path / "file"
    write(path)
    content = bytearray(path.read_bytes())
    content[16 + place] ^= 128
    path.write_bytes(content)
    found = problems(str(path))
    assert found[0] == "" and len(found) == 2
    assert "wrong checksum of the length" in found[1]


def test_every_truncation_is_found(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "file"
    write(path, [b"one", b"two"])
    content = path.read_bytes()
    for size in range(len(content)):
        path.write_bytes(content[:size])
        num_whole, rest = divmod(size, 19)
        expected = [True] * num_whole + [False] * (rest > 0)
        assert [problem == "" for problem in problems(str(path))] == expected


def test_walk_refuses_a_truncated_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "file"
    write(path)
    path.write_bytes(path.read_bytes()[:-1])
    with open(str(path), "rb") as file, pytest.raises(ValueError, match="record 4"):
        list(tfrecord.walk(file))


def test_a_full_disk_is_an_os_error() -> None:
    with pytest.raises(OSError, match="No space left"):
        with tfrecord.writer("/dev/full") as write:
            write(b"x")
