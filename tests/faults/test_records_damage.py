"""Training jobs with damaged records: each is reported, or left out and counted."""

import io
import os
import pathlib
import re
import shutil
import struct
import zlib
from typing import Any, Callable, Dict, List

import pytest
import tensorflow.compat.v1 as tf

from alexnet_estimator import records
from alexnet_estimator.errors import DataError
from alexnet_estimator.jobs.evaluate import evaluate
from alexnet_estimator.jobs.session import explaining_data_errors
from alexnet_estimator.jobs.train import train
from alexnet_estimator.records import clean_copies, examples, manifest, tfrecord
from alexnet_estimator.records.dataset import Dataset
from alexnet_estimator.records.pictures import Jpeg, decode
from alexnet_estimator.records.verify import check_shards, verify
from tests import pictures, tiny
from tests.ranks import run_ranks
from tests.training import evaluation, metrics, open_job, run_job, train_words

NUM_TRAINED, NUM_EVALUATED = 49, 11


@pytest.fixture
def data(data_dir: str, tmp_path: pathlib.Path) -> Dataset:
    """Return a copy of the data, which the test may damage."""
    folder = tmp_path / "records"
    shutil.copytree(data_dir, str(folder))
    return manifest.load(str(folder))


def starts(path: str) -> List[int]:
    """Return the offset of each record, and the end of the last one."""
    with open(path, "rb") as file:
        return [0, *(end + 4 for end in tfrecord.walk(file))]


def flip_data(path: str, record_index: int) -> None:
    """Damage the data of a record, but not its length."""
    flip_byte(path, starts(path)[record_index] + 12 + 100)


def flip_length(path: str, record_index: int) -> None:
    """Damage the length of a record, so that the following records cannot be found."""
    flip_byte(path, starts(path)[record_index])


def flip_byte(path: str, place: int) -> None:
    with open(path, "r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 4]))


def replace_picture(path: str, record_index: int, picture: bytes) -> None:
    """Replace the picture in a record by other bytes of the same size."""
    found = [record.data for record in tfrecord.read_records(path)]
    encoded, label = examples.parse(found[record_index])
    picture = picture.ljust(len(encoded), b"\0")[: len(encoded)]
    found[record_index] = found[record_index].replace(encoded, picture)
    assert examples.parse(found[record_index]) == (picture, label)
    pathlib.Path(path).write_bytes(b"".join(map(tfrecord.frame, found)))


def enlarge(jpeg: bytes) -> bytes:
    """Return a small JPEG whose header declares 65,000 x 65,000 pixels."""
    place = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:place] + struct.pack(">HH", 65000, 65000) + jpeg[place + 4 :]


def swap_in_bomb(path: str, record_index: int) -> None:
    record = list(tfrecord.read_records(path))[record_index]
    replace_picture(path, record_index, enlarge(examples.parse(record.data)[0]))


def swap_in_png_bomb(path: str, record_index: int) -> None:
    def chunk(content: bytes) -> bytes:
        size, checksum = len(content) - 4, zlib.crc32(content)
        return struct.pack(">I", size) + content + struct.pack(">I", checksum)

    header = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    chunks = [chunk(header), chunk(b"IDAT" + zlib.compress(bytes(9)))]
    png = b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND")
    replace_picture(path, record_index, png)


def swap_in_text(path: str, record_index: int) -> None:
    replace_picture(path, record_index, b"no picture")


def change_label(path: str, record_index: int) -> None:
    """Set the label of a record to 99, although there are only 3 classes."""
    found = [record.data for record in tfrecord.read_records(path)]
    # The name of the field, then the tags and the lengths of its list of integers.
    name = b"image/class/label\x12\x05\x1a\x03\x0a\x01"
    place = found[record_index].index(name) + len(name)
    data = bytearray(found[record_index])
    data[place] = 99
    found[record_index] = bytes(data)
    pathlib.Path(path).write_bytes(b"".join(map(tfrecord.frame, found)))


# Each damage, and the text of the message that reports it.
DAMAGES: Dict[str, Any] = {
    "data": (flip_data, "wrong checksum of the data"),
    "label": (change_label, "label 99, but 3 classes"),
    "text": (swap_in_text, "not one of JPEG"),
    "jpeg_bomb": (swap_in_bomb, "4225000000|65000 x 65000 pixels"),
    "png_bomb": (swap_in_png_bomb, "3600000000|60000 x 60000 pixels"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_training_stops_with_file_and_record(
    name: str, data: Dataset, tmp_path: pathlib.Path
) -> None:
    damage, reason = DAMAGES[name]
    path = data.shard_paths("train")[1]
    damage(path, 7)
    with pytest.raises(DataError) as caught:
        run_job(data.directory, tmp_path / "run", train={"steps": 12})
    assert caught.value.exit_code == 3
    assert caught.value.heading == data.directory
    lines = caught.value.problems
    pattern = rf"{os.path.basename(path)}: record 7: .*({reason})"
    assert re.match(pattern, lines[0]), lines
    assert "max_bad_records" in caught.value.advice
    assert [str(d) for d in verify(data.directory, show_progress=False)] == lines


def test_a_bomb_in_foreign_records_is_named(
    data: Dataset, tmp_path: pathlib.Path
) -> None:
    """Records from other programs have no manifest."""
    folder = tmp_path / "foreign"
    folder.mkdir()
    for split in ("train", "validation"):
        path = str(folder / f"{split}-00000-of-00001")
        shutil.copyfile(data.shard_paths(split)[0], path)
    swap_in_bomb(str(folder / "train-00000-of-00001"), 2)
    with pytest.raises(DataError, match="train-00000-of-00001: record 2: .*pixels"):
        run_job(str(folder), tmp_path / "run", train={"steps": 4})


def test_evaluation_stops_with_file_and_record(
    data: Dataset, tmp_path: pathlib.Path
) -> None:
    path = data.shard_paths("validation")[0]
    flip_data(path, 4)
    with pytest.raises(DataError, match=f"{os.path.basename(path)}: record 4: wrong"):
        run_job(data.directory, tmp_path / "run", train={"steps": 2})
    # The steps before the damaged record are not lost.
    shutil.copyfile(path, path + ".damaged")
    flip_data(path, 4)
    assert run_job(data.directory, tmp_path / "run", train={"steps": 2})["loss"] > 0
    assert metrics(tmp_path / "run", "start")[1]["step"] == 2
    os.replace(path + ".damaged", path)
    job = open_job(data.directory, tmp_path / "run", train={"steps": 2})
    with pytest.raises(DataError, match=f"{os.path.basename(path)}: record 4: wrong"):
        evaluate(job)


def test_a_rank_looks_at_its_own_files_only(
    data: Dataset, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rank 2 of 3 reads the third training file and the validation file."""
    job = open_job(data.directory, tmp_path)
    object.__setattr__(job, "runtime", tiny.SimulatedRank(2, 3))
    flip_data(data.shard_paths("train")[0], 1)
    flip_data(data.shard_paths("train")[2], 3)
    flip_data(data.shard_paths("validation")[0], 5)
    with pytest.raises(DataError) as caught:
        with explaining_data_errors(job):
            raise tf.errors.DataLossError(None, None, "corrupted record at 480")
    found = [problem.split(": wrong")[0] for problem in caught.value.problems]
    assert found == [
        f"{os.path.basename(data.shard_paths('train')[2])}: record 3",
        f"{os.path.basename(data.shard_paths('validation')[0])}: record 5",
    ]


def test_other_errors_are_not_blamed_on_the_data(
    data_dir: str, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match="a bug"):
        with explaining_data_errors(open_job(data_dir, tmp_path)):
            raise tf.errors.InvalidArgumentError(None, None, "a bug")


def truncate(path: str) -> None:
    os.truncate(path, starts(path)[3] + 30)


def empty(path: str) -> None:
    os.truncate(path, 0)


@pytest.mark.parametrize("max_bad_records", [0, 1000])
@pytest.mark.parametrize("damage", [truncate, empty, os.remove])
def test_short_and_missing_files_are_found_before_training(
    damage: Callable[[str], None],
    max_bad_records: int,
    data: Dataset,
    tmp_path: pathlib.Path,
) -> None:
    paths = [data.shard_paths("train")[2], data.shard_paths("validation")[0]]
    for path in paths:
        damage(path)
    with pytest.raises(DataError) as caught:
        open_job(
            data.directory, tmp_path / "run", data={"max_bad_records": max_bad_records}
        )
    assert all(os.path.basename(path) in str(caught.value) for path in paths)
    assert not (tmp_path / "run").exists()


def test_files_that_are_emptied_after_the_start_are_named(
    data: Dataset, tmp_path: pathlib.Path
) -> None:
    """An epoch without records was once repeated for ever."""
    job = open_job(data.directory, tmp_path / "run", train={"steps": 4})
    paths = data.shard_paths("train")
    for path in paths:
        empty(path)
    with pytest.raises(DataError) as caught:
        train(job)
    assert caught.value.exit_code == 3
    for path in paths:
        assert os.path.basename(path) in str(caught.value)


# Up to max_bad_records damaged records are left out.


def damage_three(data: Dataset) -> None:
    swap_in_text(data.shard_paths("train")[0], 5)
    flip_data(data.shard_paths("train")[0], 3)
    swap_in_bomb(data.shard_paths("validation")[0], 10)


def test_damaged_records_are_left_out_and_counted(
    data: Dataset, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    damage_three(data)
    job = open_job(
        data.directory,
        tmp_path / "run",
        data={"max_bad_records": 3},
        train={"steps": 14},  # This is more than two epochs.
    )
    result = train(job)
    assert result["num_images"] == NUM_EVALUATED - 1
    assert job.dataset.splits["train"].num_images == NUM_TRAINED - 2
    (start,) = metrics(tmp_path / "run", "start")
    assert start["num_bad_records"] == 3
    card = capsys.readouterr().out
    assert (
        "47 images for training, 10 for evaluation, without 3 damaged records" in card
    )
    # The remaining records are undamaged, and no undamaged one is missing.
    for split, expected in (("train", NUM_TRAINED - 2), ("validation", 10)):
        kept = {record.data for record in read(job.dataset, split)}
        well = {record.data for record in read(data, split) if is_well(record)}
        assert kept == well and len(kept) == expected
        counts = job.dataset.splits[split].class_counts
        assert sum(counts) == expected
    records.manifest.check_files(job.dataset)


def read(dataset: Dataset, split: str) -> List[tfrecord.Record]:
    paths = dataset.shard_paths(split)
    return [record for path in paths for record in tfrecord.read_records(path)]


def is_well(record: tfrecord.Record) -> bool:
    try:
        decode(examples.parse(record.data)[0])
    except Exception:
        return False
    return not record.problem


def open_data(data: Dataset, tmp_path: pathlib.Path, max_bad_records: int) -> Dataset:
    cache = str(tmp_path / "cache")
    settings = pictures.settings()
    return records.open_dataset(data.directory, cache, settings, 0, max_bad_records)


def test_too_many_are_an_error_that_lists_them(
    data: Dataset, tmp_path: pathlib.Path
) -> None:
    damage_three(data)
    for _ in range(2):  # The second time, the result of the check is in the cache.
        with pytest.raises(DataError) as caught:
            open_data(data, tmp_path, max_bad_records=2)
        records_named = [re.findall(r"record (\d+)", x) for x in caught.value.problems]
        assert records_named == [["3"], ["5"], ["10"]]
        advice = "3 records are lost, more than data.max_bad_records = 2"
        assert caught.value.advice.startswith(advice)
    assert open_data(data, tmp_path, max_bad_records=3).num_bad_records == 3


def test_what_follows_a_damaged_length_is_lost_and_counted(
    data: Dataset, tmp_path: pathlib.Path
) -> None:
    path, num_records = data.shard_paths("train")[1], len(read(data, "train"))
    num_lost = len(starts(path)) - 1 - 4
    flip_length(path, 4)
    with pytest.raises(DataError, match=f"{num_lost} records are lost"):
        open_data(data, tmp_path, max_bad_records=num_lost - 1)
    clean = open_data(data, tmp_path, max_bad_records=num_lost)
    assert clean.num_bad_records == num_lost
    assert clean.splits["train"].num_images == num_records - num_lost
    assert len(read(clean, "train")) == num_records - num_lost


def test_data_are_verified_once_and_again_when_they_change(
    data: Dataset, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    num_checks = []

    def count(*arguments: Any) -> Any:
        num_checks.append(1)
        return check_shards(*arguments)

    monkeypatch.setattr(clean_copies, "check_shards", count)
    path = data.shard_paths("train")[0]
    assert open_data(data, tmp_path, 5) == data  # There is no damage.
    assert len(num_checks) == 2
    flip_data(path, 3)
    first = open_data(data, tmp_path, 5)
    assert first == open_data(data, tmp_path, 7) != data
    assert len(num_checks) == 4
    folder = pathlib.Path(first.directory)
    names = {os.path.basename(p) for s in data.splits for p in data.shard_paths(s)}
    assert set(os.listdir(str(folder))) == names
    links = [name for name in names if (folder / name).is_symlink()]
    assert len(links) == len(names) - 1 and os.path.basename(path) not in links
    # Changed files are checked again.  Jobs that read the old copy are not affected.
    flip_data(path, 3)
    flip_data(data.shard_paths("train")[1], 0)
    second = open_data(data, tmp_path, 5)
    assert second.num_bad_records == 1 and second.digest != first.digest
    assert len(read(second, "train")) == NUM_TRAINED - 1
    assert (pathlib.Path(second.directory) / os.path.basename(path)).is_symlink()
    assert second.directory != first.directory
    records.manifest.check_files(first)


def test_equal_damage_gives_equal_digests_anywhere(
    data: Dataset, tmp_path: pathlib.Path
) -> None:
    """Ranks on several servers compare these digests, and each has another copy."""
    flip_data(data.shard_paths("train")[0], 3)
    shutil.copytree(data.directory, str(tmp_path / "server" / "data"))
    other = manifest.load(str(tmp_path / "server" / "data"))
    first = open_data(data, tmp_path, 1)
    second = open_data(other, tmp_path / "server", 1)
    assert first.directory != second.directory
    assert first.digest == second.digest != data.digest
    flip_data(other.shard_paths("train")[0], 4)
    assert open_data(other, tmp_path / "server", 2).digest != first.digest


def test_copies_that_cannot_be_written_are_one_message(
    data: Dataset, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataError, match="clean copies cannot be created"):
        open_data(data, tmp_path, 1)


def test_foreign_records_keep_their_offset(tmp_path: pathlib.Path) -> None:
    buffer = io.BytesIO()
    pictures.draw(0, 0).save(buffer, "JPEG")
    jpeg = Jpeg(buffer.getvalue(), pictures.draw(0, 0))
    path = tmp_path / "train-00000-of-00001"
    found = [examples.build(jpeg, label, "x", "x.jpg") for label in (1, 2, 1, 2)]
    path.write_bytes(b"".join(map(tfrecord.frame, found)))
    flip_data(str(path), 2)
    settings = pictures.settings()
    cache = str(tmp_path / "cache")
    dataset = records.open_dataset(str(tmp_path), cache, settings, 1, 1)
    assert (dataset.label_offset, dataset.num_bad_records) == (1, 1)
    assert dataset.splits["train"].class_counts == (1, 2)
    assert len(read(dataset, "train")) == 3


# Jobs of two ranks.


def words(data: Dataset, folder: pathlib.Path, max_bad_records: int) -> List[str]:
    config = tiny.config(
        data={"path": data.directory, "max_bad_records": max_bad_records},
        train={"steps": 4, "eval_every_epochs": 0.0},
    )
    return train_words(config, folder)


def test_a_rank_that_meets_damage_names_it(
    data: Dataset, tmp_path: pathlib.Path, capfd: pytest.CaptureFixture
) -> None:
    """Only rank 1 reads the last file."""
    pytest.importorskip("horovod", reason="Horovod is not installed")
    path = data.shard_paths("train")[-1]
    for index in range(len(starts(path)) - 1):
        flip_data(path, index)
    assert run_ranks(2, words(data, tmp_path, 0), tmp_path / "run") == 3
    log = (tmp_path / "run" / "logs" / "rank_1.log").read_text()
    shown = capfd.readouterr()
    for text in (log, shown.err + shown.out):
        assert f"{os.path.basename(path)}: record 5: wrong checksum" in text
        assert "Traceback" not in text


def test_all_ranks_leave_out_the_same(
    data: Dataset, tmp_path: pathlib.Path, capfd: pytest.CaptureFixture
) -> None:
    pytest.importorskip("horovod", reason="Horovod is not installed")
    damage_three(data)
    run_words = words(data, tmp_path, 3)
    assert run_ranks(2, run_words, tmp_path / "run") == 0
    assert metrics(tmp_path / "run", "start")[0]["num_bad_records"] == 3
    assert evaluation(tmp_path / "run", 4)["num_images"] == NUM_EVALUATED - 1
    assert "47 images for training, 10 for evaluation" in capfd.readouterr().out
