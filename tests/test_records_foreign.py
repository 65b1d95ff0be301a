"""ImageNet TFRecords of other tools are counted and checked without a manifest."""

import gzip
import io
import os
import pathlib
import re
import zlib
from typing import Any, List

import pytest
import tensorflow.compat.v1 as tf

from alexnet_estimator.errors import DataError
from alexnet_estimator.records import examples, foreign, manifest, tfrecord
from tests.pictures import draw


def example(label: int, **extra: bytes) -> bytes:
    """Serialize an Example as other tools do, with more features in any order."""
    buffer = io.BytesIO()
    draw(label % 4, 0).save(buffer, "JPEG")
    features = {
        "image/class/label": tf.train.Feature(
            int64_list=tf.train.Int64List(value=[label])
        ),
        "image/object/bbox/xmin": tf.train.Feature(
            float_list=tf.train.FloatList(value=[0.5, 0.25])
        ),
    }
    for name, value in {"image/encoded": buffer.getvalue(), **extra}.items():
        features[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
    content = tf.train.Features(feature=features)
    return tf.train.Example(features=content).SerializeToString()


def write(path: pathlib.Path, labels: List[int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.python_io.TFRecordWriter(str(path)) as writer:
        for label in labels:
            writer.write(example(label))


def make(directory: pathlib.Path) -> str:
    write(directory / "train-00000-of-00002", [1, 3, 3])
    write(directory / "train-00001-of-00002", [2])
    write(directory / "validation-00000-of-00001", [1, 300])
    return str(directory)


def test_everything_is_counted(tmp_path: pathlib.Path) -> None:
    dataset = manifest.load(make(tmp_path), label_offset=1)
    train, validation = dataset.splits["train"], dataset.splits["validation"]
    assert dataset.num_classes == 300 and dataset.class_names[:2] == ("0", "1")
    assert train.class_counts[:4] == (1, 1, 2, 0)
    assert validation.class_counts[0] == validation.class_counts[299] == 1
    assert [shard.num_images for shard in train.shards] == [3, 1]
    assert validation.num_images == 2 and dataset.label_offset == 1
    manifest.check_files(dataset)
    assert 60 < dataset.mean_rgb[0] < 200 and dataset.rgb_covariance[0][0] > 100


def test_labels_below_the_offset_are_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DataError, match="labels from 1 to 300 .* label_offset 2"):
        foreign.load(make(tmp_path), label_offset=2)


def test_a_wild_label_does_not_make_a_wild_number_of_classes(
    tmp_path: pathlib.Path,
) -> None:
    write(tmp_path / "train-00000-of-00001", [1, 1 << 40])
    with pytest.raises(DataError, match="labels from 1 to 1099511627776"):
        foreign.load(str(tmp_path), label_offset=0)


def test_all_missing_and_damaged_files_are_named(tmp_path: pathlib.Path) -> None:
    make(tmp_path)
    (tmp_path / "train-00000-of-00002").unlink()
    validation = tmp_path / "validation-00000-of-00001"
    validation.write_bytes(validation.read_bytes()[:-5])
    with pytest.raises(DataError) as error:
        foreign.load(str(tmp_path), label_offset=1)
    assert "1 of 2 train files are missing, such as train-00000-of-00002" in str(
        error.value
    )
    assert "validation-00000-of-00001: record 1: truncated" in str(error.value)


def test_other_folders_are_no_data(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "cats-00000-of-00001", [1])
    write(tmp_path / "half" / "train-00000-of-00001.tfrecord", [1])
    (tmp_path / "half" / ".convert-01").mkdir()
    for folder in (tmp_path, tmp_path / "half"):
        assert not manifest.is_dataset(str(folder))
    with pytest.raises(DataError, match="no dataset.json.*there are: cats-00000"):
        manifest.load(str(tmp_path))
    with pytest.raises(DataError, match="no dataset.json"):
        manifest.load(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    "train, held_out",
    [
        ("train/train-00000-of-00001", "validation/validation-00000-of-00001"),
        ("train-00000-of-00001.tfrecord", "val-00000-of-00001.tfrecord"),
        ("a_b_train_00000-of-00001.tfrecord", "a_b_validation_00000-of-00001.tfrecord"),
        ("cats-train.tfrecord-00000-of-00001", "cats-test.tfrecord-00000-of-00001"),
        ("train.tfrecords", "valid.record"),
    ],
)
def test_names_of_other_tools(
    tmp_path: pathlib.Path, train: str, held_out: str
) -> None:
    write(tmp_path / train, [0, 1, 1])
    write(tmp_path / held_out, [1])
    dataset = manifest.load(str(tmp_path))
    assert dataset.splits["train"].class_counts == (1, 2)
    assert dataset.splits["validation"].class_counts == (0, 1)
    assert dataset.shard_paths("train") == [str(tmp_path / train)]
    manifest.check_files(dataset)


def test_several_sets_in_one_folder_are_refused(tmp_path: pathlib.Path) -> None:
    for name in ("cats", "dogs"):
        write(tmp_path / f"{name}_train_00000-of-00001.tfrecord", [0, 1])
    with pytest.raises(DataError, match="several sets of train files, such as cats_tr"):
        manifest.load(str(tmp_path))


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
def test_compressed_files_are_named(tmp_path: pathlib.Path, compress: Any) -> None:
    path = tmp_path / "train-00000-of-00001"
    write(path, [0, 1])
    path.write_bytes(compress(path.read_bytes()))
    with pytest.raises(DataError, match=f"compressed with {compress.__module__}"):
        manifest.load(str(tmp_path))


def test_features_that_are_there_are_named(tmp_path: pathlib.Path) -> None:
    features = {
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"x"])),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[1])),
    }
    record = tf.train.Example(features=tf.train.Features(feature=features))
    path = tmp_path / "train-00000-of-00001"
    path.write_bytes(tfrecord.frame(record.SerializeToString()))
    message = "must have image/encoded and image/class/label .* but has image, lab"
    with pytest.raises(DataError, match=message):
        manifest.load(str(tmp_path))


@pytest.mark.parametrize(
    "labels, offset, said",
    [
        ([1, 2], 0, "class 0 has no pictures; .*--config.data.label_offset=1"),
        ([1, 2], 1, ""),
        ([0, 1], 0, ""),
        ([0, 1, 3], 0, "label 3, the last one, does not occur in training"),
    ],
)
def test_labels_from_one_are_suspected_aloud(
    tmp_path: pathlib.Path,
    labels: List[int],
    offset: int,
    said: str,
    capsys: pytest.CaptureFixture,
) -> None:
    write(tmp_path / "train-00000-of-00001", [n for n in labels if n < 3])
    write(tmp_path / "validation-00000-of-00001", labels)
    manifest.load(str(tmp_path), offset)
    err = capsys.readouterr().err
    assert re.search(said, err) if said else err == ""


def test_records_are_counted_once(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, cache = tmp_path / "data", tmp_path / "run.data"
    first = manifest.load(make(data), 1, str(cache))
    assert [path.name[:8] for path in cache.iterdir()] == ["foreign-"]
    scanned = []
    scan = examples.count_labels

    def note_scan(path: str) -> Any:
        scanned.append(path)
        return scan(path)

    monkeypatch.setattr(examples, "count_labels", note_scan)
    assert manifest.load(str(data), 1, str(cache)) == first and not scanned
    os.utime(str(data / "train-00001-of-00002"), (1, 1))
    assert manifest.load(str(data), 1, str(cache)) == first and len(scanned) == 3
    # A result file that a power cut has damaged is computed again.
    for path in cache.iterdir():
        path.write_bytes(b"{")
    assert manifest.load(str(data), 1, str(cache)) == first and len(scanned) == 6
    # If the folder cannot be written, the records are only counted again.
    (tmp_path / "file").write_bytes(b"")
    assert manifest.load(str(data), 1, str(tmp_path / "file" / "x")) == first
    assert sorted(path.name for path in data.iterdir()) == sorted(
        os.path.basename(p) for s in first.splits for p in first.shard_paths(s)
    )


@pytest.mark.parametrize("label", [0, 1, 127, 128, 1 << 35, -1])
def test_read_label_follows_the_wire_format(label: int) -> None:
    data = example(label % 4, text=bytes(200))
    parsed = tf.train.Example.FromString(data)
    parsed.features.feature["image/class/label"].int64_list.value[0] = label
    data = parsed.SerializeToString()
    file = io.BytesIO(b"before" + data + b"after")
    file.seek(6)
    assert examples.read_label(file, 6 + len(data)) == label
    assert examples.parse(data)[1] == label


@pytest.mark.parametrize(
    "data", [b"", b"\x08\x01", b"\x0a\xff\xff\xff\xff\x7f", b"\xff" * 20, b"\x0a\x02a"]
)
def test_read_label_refuses_what_is_no_example(data: Any) -> None:
    with pytest.raises(ValueError):
        examples.read_label(io.BytesIO(data), len(data))


def test_read_label_stays_inside_its_record() -> None:
    data = example(3)
    assert examples.read_label(io.BytesIO(data), len(data)) == 3
    with pytest.raises(ValueError):
        examples.read_label(io.BytesIO(data), len(data) - 1)


def test_read_label_refuses_other_types_of_label() -> None:
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"cat"]))
    features = tf.train.Features(feature={"image/class/label": feature})
    data = tf.train.Example(features=features).SerializeToString()
    with pytest.raises(ValueError, match="not an integer"):
        examples.read_label(io.BytesIO(data), len(data))
