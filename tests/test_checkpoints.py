"""Checkpoints are complete and finite, and the newest valid one is always found."""

import errno
import json
import os
import pathlib
import re
import resource
import struct
from typing import Any, Callable, Iterator, List, Sequence, Tuple

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from tensorflow.core.protobuf import tensor_bundle_pb2

from alexnet_estimator import checkpoints
from alexnet_estimator.checkpoints import best, index, restore, store
from alexnet_estimator.errors import DataError, DivergedError
from alexnet_estimator.records.tfrecord import masked_crc32c

NUM_VALUES = 50_000  # 200 kB


class Writer:
    """A session with a variable to save."""

    def __init__(self) -> None:
        with tf.Graph().as_default():
            self._value = tf.placeholder(tf.float32, [])
            weight = tf.get_variable("weight", [NUM_VALUES])
            tf.get_variable("step", initializer=0)
            self._fill = tf.assign(weight, tf.fill([NUM_VALUES], self._value))
            self._saver = tf.train.Saver(max_to_keep=None)
            self._session = tf.Session()
            self._session.run(tf.global_variables_initializer())

    def fill(self, value: float) -> None:
        self._session.run(self._fill, {self._value: value})

    def save(self, model_dir: Any, *steps: int) -> None:
        """Save checkpoints that hold their step."""
        for step in steps:
            self.fill(step)
            store.save(self._session, self._saver, str(model_dir), step)

    def save_as_is(self, model_dir: Any, step: int) -> None:
        store.save(self._session, self._saver, str(model_dir), step)

    def save_unchecked(self, model_dir: Any, step: int, value: float) -> None:
        """Save a checkpoint as TensorFlow does, without checks."""
        self.fill(value)
        prefix = os.path.join(str(model_dir), f"model.ckpt-{step}")
        self._saver.save(self._session, prefix, write_meta_graph=False)


@pytest.fixture(scope="module")
def writer() -> Writer:
    return Writer()


@pytest.fixture
def model_dir(tmp_path: pathlib.Path, writer: Writer) -> pathlib.Path:
    """Return a folder with checkpoints of the steps 9, 10 and 100."""
    folder = tmp_path / "model"
    folder.mkdir()
    writer.save(folder, 9, 10, 100)
    return folder


def path_of(model_dir: pathlib.Path, step: int) -> str:
    return str(model_dir / f"model.ckpt-{step}")


def steps_in(model_dir: pathlib.Path) -> List[Any]:
    return [
        checkpoints.step_of(p) for p in checkpoints.list_checkpoints(str(model_dir))
    ]


def files_in(model_dir: pathlib.Path) -> List[str]:
    return sorted(str(file.relative_to(model_dir)) for file in model_dir.rglob("*"))


def test_save_moves_whole_checkpoints_into_place(model_dir: pathlib.Path) -> None:
    assert steps_in(model_dir) == [9, 10, 100]  # The order is that of the numbers.
    assert checkpoints.latest(str(model_dir)) == path_of(model_dir, 100)
    names = [f"model.ckpt-{step}" for step in (9, 10, 100)]
    suffixes = [".data-00000-of-00001", ".index"]
    expected = [name + suffix for name in names for suffix in suffixes]
    assert files_in(model_dir) == sorted(["checkpoint", *expected])
    # TensorFlow itself finds the same checkpoint.
    state = tf.train.get_checkpoint_state(str(model_dir))
    assert state.model_checkpoint_path == path_of(model_dir, 100)
    assert list(state.all_model_checkpoint_paths) == [
        path_of(model_dir, step) for step in (9, 10, 100)
    ]
    for step in (9, 10, 100):
        reader = tf.train.load_checkpoint(path_of(model_dir, step))
        assert (reader.get_tensor("weight") == step).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_saved(
    model_dir: pathlib.Path, writer: Writer, value: float
) -> None:
    before = files_in(model_dir)
    writer.fill(value)
    with pytest.raises(DivergedError) as caught:
        writer.save_as_is(model_dir, 101)
    message = str(caught.value)
    assert "101" in message and "weight" in message
    assert path_of(model_dir, 100) in message  # The last checkpoint is named.
    assert files_in(model_dir) == before
    assert restore.newest_valid(str(model_dir)) == path_of(model_dir, 100)


def truncate(prefix: str) -> None:
    os.truncate(prefix + ".data-00000-of-00001", 1000)


def flip_byte(prefix: str) -> None:
    with open(prefix + ".data-00000-of-00001", "r+b") as file:
        file.seek(5000)
        byte = file.read(1)[0]
        file.seek(5000)
        file.write(bytes([byte ^ 1]))


def empty_index(prefix: str) -> None:
    os.truncate(prefix + ".index", 0)


def break_index(prefix: str) -> None:
    pathlib.Path(prefix + ".index").write_bytes(b"\x7f" * 300)


def delete_data(prefix: str) -> None:
    os.remove(prefix + ".data-00000-of-00001")


DAMAGES = [truncate, flip_byte, empty_index, break_index, delete_data]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_leads_back_to_the_previous_checkpoint(
    model_dir: pathlib.Path, damage: Callable[[str], None]
) -> None:
    damage(path_of(model_dir, 100))
    left = [file for file in files_in(model_dir) if "-100." in file]
    assert restore.newest_valid(str(model_dir)) == path_of(model_dir, 10)
    assert tf.train.latest_checkpoint(str(model_dir)) == path_of(model_dir, 10)
    assert steps_in(model_dir) == [9, 10]
    moved = [f for f in files_in(model_dir) if f.startswith("quarantine" + os.sep)]
    assert moved == [os.path.join("quarantine", file) for file in left]
    # The damaged step can be saved again.
    Writer().save(model_dir, 100)
    assert restore.newest_valid(str(model_dir)) == path_of(model_dir, 100)


def test_a_checkpoint_of_nan_is_passed_over(
    model_dir: pathlib.Path, writer: Writer
) -> None:
    writer.save_unchecked(model_dir, 200, np.nan)
    writer.save_unchecked(model_dir, 300, np.inf)
    assert restore.newest_valid(str(model_dir)) == path_of(model_dir, 100)
    assert len(list((model_dir / "quarantine").glob("*.index"))) == 2


@pytest.mark.parametrize(
    "content",
    [b'model_checkpoint_path: "model.ckpt-555"\n', b"\xff\x00 nonsense {", b""],
)
def test_the_checkpoint_file_is_not_believed(
    model_dir: pathlib.Path, content: bytes
) -> None:
    (model_dir / "checkpoint").write_bytes(content)
    assert restore.newest_valid(str(model_dir)) == path_of(model_dir, 100)
    assert tf.train.latest_checkpoint(str(model_dir)) == path_of(model_dir, 100)


def test_no_valid_checkpoint_is_an_error_every_time(model_dir: pathlib.Path) -> None:
    for step, damage in zip((9, 10, 100), DAMAGES):
        damage(path_of(model_dir, step))
    before = files_in(model_dir)
    for _ in range(2):  # A second start must not begin from scratch either.
        with pytest.raises(DataError) as caught:
            restore.newest_valid(str(model_dir))
        for step in (9, 10, 100):
            assert path_of(model_dir, step) in str(caught.value)
        assert files_in(model_dir) == before


def test_a_new_folder_has_no_checkpoint(tmp_path: pathlib.Path) -> None:
    assert restore.newest_valid(str(tmp_path / "absent")) is None
    assert restore.newest_valid(str(tmp_path)) is None
    assert checkpoints.latest(str(tmp_path)) is None


@pytest.mark.parametrize("content", [b'model_checkpoint_path: "model.ckpt-5"\n', b""])
def test_checkpoints_that_have_gone_are_an_error(
    tmp_path: pathlib.Path, content: bytes
) -> None:
    pointer = tmp_path / "checkpoint"
    pointer.write_bytes(content)
    for _ in range(2):
        with pytest.raises(DataError, match=f"delete {pointer}"):
            restore.newest_valid(str(tmp_path))
    pointer.unlink()
    assert restore.newest_valid(str(tmp_path)) is None


def test_a_deleted_index_does_not_go_unnoticed(
    model_dir: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    os.remove(path_of(model_dir, 100) + ".index")
    assert restore.newest_valid(str(model_dir)) == path_of(model_dir, 10)
    assert [file for file in files_in(model_dir) if "-100." in file] == [
        "quarantine/model.ckpt-100.data-00000-of-00001"
    ]
    warning = capsys.readouterr().err
    assert path_of(model_dir, 100) in warning and "index is missing" in warning


@pytest.mark.parametrize("place", ["../elsewhere/", "{}/elsewhere/"])
def test_the_checkpoint_file_does_not_lead_out_of_its_folder(
    model_dir: pathlib.Path, writer: Writer, place: str
) -> None:
    elsewhere = model_dir.parent / "elsewhere"
    elsewhere.mkdir()
    writer.save(elsewhere, 555)
    name = place.format(model_dir.parent) + "model.ckpt-555"
    pointer = model_dir / "checkpoint"
    pointer.write_text(f'model_checkpoint_path: "{name}"\n')
    assert restore.newest_valid(str(model_dir)) == path_of(model_dir, 100)
    assert "elsewhere" not in pointer.read_text()
    assert len(files_in(elsewhere)) == 3


def test_half_written_files_are_no_checkpoints(
    model_dir: pathlib.Path, writer: Writer
) -> None:
    (model_dir / "model.ckpt-500.data-00000-of-00001").write_bytes(
        b"data without index"
    )
    (model_dir / "model.ckpt-abc.index").write_bytes(b"another program's")
    (model_dir / ".saving").mkdir()
    (model_dir / ".saving" / "model.ckpt-600.index").write_bytes(b"killed while saving")
    assert steps_in(model_dir) == [9, 10, 100]
    writer.save(model_dir, 700)
    assert steps_in(model_dir) == [9, 10, 100, 700]
    assert not (model_dir / ".saving").exists()


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Limit the size of files to 100 kB, which is half of a checkpoint."""
    monkeypatch.setattr(store, "RETRY_SECS", 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_keeps_the_previous_checkpoint(
    model_dir: pathlib.Path, writer: Writer, full_disk: None
) -> None:
    before = files_in(model_dir)
    with pytest.raises(DataError) as caught:
        writer.save(model_dir, 101)
    message = str(caught.value)
    assert "step 101" in message and "MiB free" in message
    assert str(model_dir) in message and path_of(model_dir, 100) in message
    assert files_in(model_dir) == before
    assert restore.newest_valid(str(model_dir)) == path_of(model_dir, 100)


def test_saving_is_tried_twice(
    model_dir: pathlib.Path,
    writer: Writer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    save, num_calls = tf.train.Saver.save, [0]

    def fail_once(*arguments: Any, **options: Any) -> str:
        num_calls[0] += 1
        if num_calls[0] == 1:
            raise OSError(5, "Input/output error")
        return save(*arguments, **options)

    monkeypatch.setattr(store, "RETRY_SECS", 0)
    monkeypatch.setattr(tf.train.Saver, "save", fail_once)
    writer.save(model_dir, 101)
    assert restore.newest_valid(str(model_dir)) == path_of(model_dir, 101)
    assert "Input/output error" in capsys.readouterr().err


def test_what_cannot_be_read_back_is_not_published(
    model_dir: pathlib.Path, writer: Writer, monkeypatch: Any
) -> None:
    save = tf.train.Saver.save

    def save_badly(saver: Any, session: Any, prefix: str, **options: Any) -> str:
        path = save(saver, session, prefix, **options)
        truncate(prefix)
        return path

    before = files_in(model_dir)
    monkeypatch.setattr(store, "RETRY_SECS", 0)
    monkeypatch.setattr(tf.train.Saver, "save", save_badly)
    with pytest.raises(DataError, match="cannot save step 101"):
        writer.save(model_dir, 101)
    assert files_in(model_dir) == before


@pytest.mark.parametrize("is_relative", [False, True])
def test_the_last_ones_and_the_best_are_kept(
    model_dir: pathlib.Path, writer: Writer, is_relative: bool, monkeypatch: Any
) -> None:
    monkeypatch.chdir(model_dir)
    folder = "." if is_relative else str(model_dir)
    writer.save(model_dir, 110, 120)
    best.note_best(folder, 10, 0.75)
    store.delete_old(folder, num_to_keep=2)
    assert steps_in(model_dir) == [10, 110, 120]
    state = tf.train.get_checkpoint_state(str(model_dir))
    names = [os.path.basename(path) for path in state.all_model_checkpoint_paths]
    assert names == ["model.ckpt-10", "model.ckpt-110", "model.ckpt-120"]
    assert len(files_in(model_dir)) == 3 * 2 + 2  # checkpoint, best.json
    # A better checkpoint replaces it.
    best.note_best(folder, 110, 0.8)
    writer.save(model_dir, 130)
    store.delete_old(folder, num_to_keep=1)
    assert steps_in(model_dir) == [110, 130]
    store.delete_old(folder, num_to_keep=5)
    assert steps_in(model_dir) == [110, 130]


def test_the_best_has_the_highest_accuracy(model_dir: pathlib.Path) -> None:
    folder = str(model_dir)
    assert best.best_of(folder) is None
    for step, accuracy, expected in (
        (9, 0.5, 9),
        (10, 0.5, 9),
        (100, 0.6, 100),
        (9, 0.1, 100),
    ):
        best.note_best(folder, step, accuracy)
        assert best.best_of(folder) == path_of(model_dir, expected)
    record = json.loads((model_dir / "best.json").read_text())
    assert record == {
        "checkpoint": "model.ckpt-100",
        "step": 100,
        "top_1_accuracy": 0.6,
    }
    os.remove(path_of(model_dir, 100) + ".index")
    assert best.best_of(folder) is None
    # A lost checkpoint is no longer the best.
    best.note_best(folder, 10, 0.4)
    assert best.best_of(folder) == path_of(model_dir, 10)


@pytest.mark.parametrize(
    "content", ["", "{}", '{"step": "../x", "top_1_accuracy": 1}', "[" * 9999], ids=len
)
def test_a_damaged_best_is_an_error(model_dir: pathlib.Path, content: str) -> None:
    (model_dir / "best.json").write_text(content)
    with pytest.raises(DataError, match="best.json: damaged"):
        store.delete_old(str(model_dir), 1)
    assert steps_in(model_dir) == [9, 10, 100]


# Manipulated indexes, at which TensorFlow 1.15 itself would abort.


def encode_varint(number: int) -> bytes:
    groups = [number & 127]
    while number >> 7 * len(groups):
        groups.append(number >> 7 * len(groups) & 127)
    return bytes([group | 128 for group in groups[:-1]] + groups[-1:])


def encode_block(entries: Sequence[Tuple[bytes, bytes]]) -> bytes:
    """Return a block of a table, whose keys share no prefixes, with its trailer."""
    block = b"".join(
        b"\0" + encode_varint(len(key)) + encode_varint(len(value)) + key + value
        for key, value in entries
    )
    block += struct.pack("<II", 0, 1)
    return block + b"\0" + struct.pack("<I", masked_crc32c(block + b"\0"))


def write_index(prefix: str, entries: Sequence[Tuple[bytes, bytes]]) -> None:
    """Write a table as TensorFlow does."""
    data, empty = encode_block(entries), encode_block([])
    data_place = encode_varint(0) + encode_varint(len(data) - 5)
    index = encode_block([(b"~", data_place)])
    empty_place = encode_varint(len(data)) + encode_varint(len(empty) - 5)
    index_place = encode_varint(len(data + empty)) + encode_varint(len(index) - 5)
    footer = (empty_place + index_place).ljust(40, b"\0")
    magic = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"
    content = data + empty + index + footer + magic
    pathlib.Path(prefix + ".index").write_bytes(content)


def describe_weight(**fields: Any) -> bytes:
    entry = tensor_bundle_pb2.BundleEntryProto(dtype=1, size=4 * NUM_VALUES)
    for size in fields.pop("sizes", [NUM_VALUES]):
        entry.shape.dim.add(size=size)
    for name, value in fields.items():
        setattr(entry, name, value)
    return entry.SerializeToString()


HEADER = tensor_bundle_pb2.BundleHeaderProto(num_shards=1).SerializeToString()


@pytest.mark.parametrize(
    "weight, message",
    [
        (describe_weight(sizes=[-1]), "weight is declared with the shape .-1"),
        (describe_weight(sizes=[-2, -(NUM_VALUES // 2)]), "the shape .-2, -25000"),
        (describe_weight(sizes=[1 << 62, 8]), "147573952589676412928 bytes declared"),
        (describe_weight(sizes=[1 << 20, 1 << 20]), "4398046511104 bytes declared"),
        (describe_weight(sizes=[1] * 300), "is declared with the shape"),
        (describe_weight(dtype=0), "has a type"),
        (describe_weight(dtype=99), "has a type"),
        (describe_weight(dtype=21), "has a type"),
        (describe_weight(size=1 << 40), "bytes declared for weight, 200004 bytes"),
        (describe_weight(offset=1 << 40), "200000 bytes declared"),
        (describe_weight(offset=-8), "200000 bytes declared"),
        (b"\xff\xff\xff garbage", "cannot be parsed"),
    ],
)
def test_an_index_that_cannot_be_is_refused_before_tensorflow_reads_it(
    model_dir: pathlib.Path, weight: bytes, message: str
) -> None:
    prefix = path_of(model_dir, 100)
    write_index(prefix, [(b"", HEADER), (b"weight", weight)])
    problem = restore.find_problem(prefix)
    assert problem and re.search(message, problem)


def test_an_index_in_order_is_read(model_dir: pathlib.Path) -> None:
    prefix = path_of(model_dir, 100)
    write_index(prefix, [(b"", HEADER), (b"weight", describe_weight(offset=4))])
    problem = restore.find_problem(prefix)
    assert problem and "checksum" in problem.lower()  # TensorFlow has looked at it.
    for entries in ([(b"weight", describe_weight())], [(b"", HEADER)] * 2):
        write_index(prefix, entries)
        assert "no header, or its names" in (restore.find_problem(prefix) or "")
    two_files = tensor_bundle_pb2.BundleHeaderProto(num_shards=2).SerializeToString()
    write_index(prefix, [(b"", two_files)])
    assert "2 data files declared, 1 found" in (restore.find_problem(prefix) or "")


@pytest.mark.parametrize(
    "entry, restart",
    [
        (b"\5\1\0", 0),  # It shares 5 bytes with the previous key, which is empty.
        (b"\0\1\0" + b"a" + b"\1\1\0", 7),  # A restart at a key that is not whole.
        (b"\0\1\0", 1),  # A restart in the middle of an entry.
    ],
)
def test_keys_of_an_index_must_be_whole(entry: bytes, restart: int) -> None:
    header = b"\0\0\0"  # The entry with the key "".
    block = header + entry + b"b" + struct.pack("<III", 0, restart, 2)
    with pytest.raises(ValueError, match="damaged"):
        index._read_block(block + b"\0", 0, len(block))


@pytest.mark.parametrize("place", range(0, 400, 23))
def test_no_byte_of_an_index_ends_the_process(
    model_dir: pathlib.Path, place: int
) -> None:
    file = pathlib.Path(path_of(model_dir, 100) + ".index")
    content = bytearray(file.read_bytes())
    content[place % len(content)] ^= 0x85
    file.write_bytes(content)
    assert restore.newest_valid(str(model_dir)) is not None


# Folders whose names have a special meaning for TensorFlow.


@pytest.mark.parametrize(
    "name", ["a[1]", "b*c?", "back\\slash", os.fsdecode(b"caf\xe9")]
)
def test_any_name_of_a_folder_will_do(
    name: str, tmp_path: pathlib.Path, writer: Writer
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    writer.save(folder, 9, 10)
    assert steps_in(folder) == [9, 10]
    truncate(path_of(folder, 10))
    assert restore.newest_valid(str(folder)) == path_of(folder, 9)
    reader = restore.open_reader(path_of(folder, 9))
    assert (reader.get_tensor("weight") == 9).all()


def test_an_old_checkpoint_that_cannot_be_deleted_is_a_warning(
    model_dir: pathlib.Path, monkeypatch: Any, capsys: pytest.CaptureFixture
) -> None:
    remove = os.remove

    def fail_at_step_9(path: str) -> None:
        if "ckpt-9." in path:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        remove(path)

    monkeypatch.setattr(os, "remove", fail_at_step_9)
    store.delete_old(str(model_dir), 1)
    assert "cannot be deleted: [Errno 5]" in capsys.readouterr().err
    assert steps_in(model_dir) == [9, 100]  # The others are deleted all the same.


def test_a_damaged_best_checkpoint_is_no_bar_any_more(model_dir: pathlib.Path) -> None:
    best.note_best(str(model_dir), 100, 0.9)
    truncate(path_of(model_dir, 100))
    restore.newest_valid(str(model_dir))
    Writer().save(model_dir, 100)  # The same step may have another accuracy now.
    best.note_best(str(model_dir), 100, 0.5)
    assert json.loads((model_dir / "best.json").read_text())["top_1_accuracy"] == 0.5


def test_what_was_being_saved_is_removed_at_the_next_start(
    model_dir: pathlib.Path,
) -> None:
    (model_dir / ".saving").mkdir()
    restore.newest_valid(str(model_dir))
    assert not (model_dir / ".saving").exists()
