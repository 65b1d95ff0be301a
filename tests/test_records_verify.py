"""Every kind of damage is named with its file and record."""

import dataclasses
import io
import pathlib
from typing import Any, List

import pytest
from PIL import Image

from alexnet_estimator import files, records
from alexnet_estimator.errors import DataError
from alexnet_estimator.records import examples, manifest, tfrecord
from alexnet_estimator.records.dataset import Dataset, with_digest
from alexnet_estimator.records.pictures import Jpeg
from alexnet_estimator.records.verify import Damage, verify
from tests import pictures


@pytest.fixture
def dataset(tmp_path: pathlib.Path) -> Dataset:
    return pictures.make_dataset(tmp_path, images_per_shard=4)


def damages(dataset: Dataset, **options: Any) -> List[Damage]:
    return verify(dataset.directory, show_progress=False, **options)


def shard_file(dataset: Dataset, index: int = 1) -> pathlib.Path:
    return pathlib.Path(dataset.shard_paths("train")[index])


def starts(path: pathlib.Path) -> List[int]:
    """Return where the data of each record starts."""
    with open(str(path), "rb") as file:
        return [file.tell() for _ in tfrecord.walk(file)]


def flip(path: pathlib.Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def replace_record(dataset: Dataset, index: int, data: bytes) -> str:
    """Put another record into a shard, with right checksums everywhere."""
    path = shard_file(dataset)
    found = [record.data for record in tfrecord.read_records(str(path))]
    found[index] = data
    path.write_bytes(b"".join(map(tfrecord.frame, found)))
    return path.name


def test_whole_data_has_no_damage(dataset: Dataset) -> None:
    assert damages(dataset) == []


def test_flipped_bytes_in_two_records_and_two_files(dataset: Dataset) -> None:
    first, second = shard_file(dataset, 0), shard_file(dataset, 2)
    flip(first, starts(first)[1] + 50)
    flip(first, starts(first)[3])
    flip(second, starts(second)[2] + 7)
    found = [(damage.file, damage.record_index) for damage in damages(dataset)]
    assert found == [(first.name, 1), (first.name, 3), (second.name, 2)]
    text = str(damages(dataset)[0])
    assert text == f"{first.name}: record 1: wrong checksum of the data"


def test_a_flipped_length(dataset: Dataset) -> None:
    path = shard_file(dataset)
    flip(path, starts(path)[2] - 12)
    found = damages(dataset)
    assert (found[0].file, found[0].record_index) == (path.name, 2)
    assert "length" in found[0].reason
    assert [damage.record_index for damage in found[1:]] == [None]


@pytest.mark.parametrize("num_left, num_more", [(0, 0), (1, 0), (3, 0), (2, 42)])
def test_truncation(dataset: Dataset, num_left: int, num_more: int) -> None:
    """A file is truncated between two records, or inside of a record."""
    path = shard_file(dataset)
    content = path.read_bytes()
    path.write_bytes(content[: starts(path)[num_left] - 12 + num_more])
    found = damages(dataset)
    reason = f"{num_left + (num_more > 0)} records instead of 4"
    expected = [Damage(path.name, None, reason)]
    if num_more:
        assert found[0][:2] == (path.name, num_left) and "truncated" in found[0].reason
    assert found[num_more > 0 :] == expected


def test_a_missing_shard(dataset: Dataset) -> None:
    shard_file(dataset).unlink()
    assert damages(dataset) == [
        Damage(shard_file(dataset).name, None, "No such file or directory")
    ]


def test_a_shard_of_another_conversion(dataset: Dataset) -> None:
    shard_file(dataset, 0).write_bytes(shard_file(dataset, 1).read_bytes())
    found = damages(dataset)
    assert [damage.file for damage in found] == [shard_file(dataset, 0).name]
    assert "SHA-256" in found[0].reason


def test_records_that_are_no_examples(dataset: Dataset) -> None:
    name = replace_record(dataset, 3, b"\xff\xff no example")
    assert [damage[:2] for damage in damages(dataset)] == [(name, 3)]


def example(data: bytes, label: int) -> bytes:
    jpeg = Jpeg(data, Image.new("RGB", (1, 1)))
    return examples.build(jpeg, label, "cat", "x.jpg")


@pytest.mark.parametrize("label", [-1, 2])
def test_labels_out_of_range(dataset: Dataset, label: int) -> None:
    buffer = io.BytesIO()
    pictures.draw(0, 0).save(buffer, "JPEG")
    name = replace_record(dataset, 1, example(buffer.getvalue(), label))
    assert damages(dataset) == [Damage(name, 1, f"label {label}, but 2 classes")]


@pytest.mark.parametrize("kind,side", [("PNG", 32), ("JPEG", 40)])
def test_pictures_that_the_conversion_did_not_make(
    dataset: Dataset, kind: str, side: int
) -> None:
    """Training relies on the size and format that the manifest states."""
    buffer = io.BytesIO()
    pictures.draw(0, 0).resize((side, 60)).save(buffer, kind)
    name = replace_record(dataset, 1, example(buffer.getvalue(), 1))
    ((file, index, reason),) = damages(dataset)
    assert (file, index) == (name, 1) and f"{kind} with a short side" in reason
    assert f"short side of {side} pixels" in reason


def test_pictures_that_do_not_decode(dataset: Dataset) -> None:
    name = replace_record(dataset, 2, example(b"no picture", 1))
    assert [damage[:2] for damage in damages(dataset)] == [(name, 2)]
    undecoded = damages(dataset, decode=False)
    assert [damage.record_index for damage in undecoded] == [None]


def test_classes_that_are_counted_wrong(dataset: Dataset) -> None:
    train = dataset.splits["train"]
    counts = (train.class_counts[0] + 1, train.class_counts[1] - 1)
    splits = {
        **dataset.splits,
        "train": dataclasses.replace(train, class_counts=counts),
    }
    manifest.write(with_digest(dataclasses.replace(dataset, splits=splits)))
    assert damages(dataset) == [
        Damage("train", None, "pictures by class are (8, 8) instead of (9, 7)")
    ]


def test_foreign_records_are_verified_with_their_offset(tmp_path: pathlib.Path) -> None:
    buffer = io.BytesIO()
    pictures.draw(0, 0).save(buffer, "JPEG")
    path = tmp_path / "train-00000-of-00001"
    found = [example(buffer.getvalue(), label) for label in (1, 2, 1)]
    path.write_bytes(b"".join(map(tfrecord.frame, found)))
    assert verify(str(tmp_path), label_offset=1, show_progress=False) == []
    flip(path, starts(path)[2] + 60)
    damaged = verify(str(tmp_path), label_offset=1, show_progress=False)
    assert [damage[:2] for damage in damaged] == [(path.name, 2)]


def test_a_record_longer_than_its_file_is_refused_at_opening(
    dataset: Dataset, tmp_path: pathlib.Path
) -> None:
    """Its checksum is right, so TensorFlow would allocate a terabyte and abort."""
    manifest.check_lengths(dataset, "")
    path = shard_file(dataset)
    place, content = starts(path)[2] - 12, bytearray(path.read_bytes())
    length = (1 << 40).to_bytes(8, "little")
    content[place : place + 8] = length
    path.write_bytes(content)
    manifest.check_lengths(dataset, "")  # TensorFlow itself finds a wrong checksum.
    checksum = tfrecord.masked_crc32c(length).to_bytes(4, "little")
    content[place + 8 : place + 12] = checksum
    path.write_bytes(content)
    for many in (100_000, 0):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(manifest, "_MANY_IMAGES", many)
            with pytest.raises(DataError, match=f"{path.name}: record 2: truncated"):
                records.open_dataset(
                    dataset.directory, str(tmp_path / "cache"), pictures.settings()
                )


def test_a_shard_without_pictures_is_no_damage(tmp_path: pathlib.Path) -> None:
    source = pictures.make_folder(tmp_path / "pictures", num_per_class=4)
    pathlib.Path(source, "cat", "bad.jpg").write_bytes(b"x")
    dataset = pictures.make_dataset(
        tmp_path, num_per_class=4, images_per_shard=1, eval_fraction=0.0
    )
    num_images = [shard.num_images for shard in dataset.splits["train"].shards]
    assert sorted(num_images) == [0] + [1] * 8
    assert damages(dataset) == []


def test_a_file_of_the_conversion_is_not_decoded_again(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a file with the recorded SHA-256, only the labels are read."""
    decoded: List[int] = []
    name = "alexnet_estimator.records.verify.decode_picture"
    monkeypatch.setattr(name, lambda *args: decoded.append(1))
    assert damages(dataset) == [] and not decoded
    flip(shard_file(dataset, 0), starts(shard_file(dataset, 0))[1] + 50)
    assert [damage.record_index for damage in damages(dataset)] == [1]
    num_in_file = dataset.splits["train"].shards[0].num_images
    assert len(decoded) == num_in_file - 1  # The damaged record is not decoded.


def test_a_file_of_known_hash_with_a_wrong_label_is_named(
    dataset: Dataset,
) -> None:
    """A manifest from elsewhere may have the right hashes of wrong files."""
    buffer = io.BytesIO()
    pictures.draw(0, 0).save(buffer, "JPEG")
    name = replace_record(dataset, 1, example(buffer.getvalue(), 2))
    train = dataset.splits["train"]
    sha256 = files.sha256_of(str(shard_file(dataset)))
    shard = dataclasses.replace(train.shards[1], sha256=sha256)
    split = dataclasses.replace(
        train, shards=(train.shards[0], shard, *train.shards[2:])
    )
    splits = {**dataset.splits, "train": split}
    manifest.write(with_digest(dataclasses.replace(dataset, splits=splits)))
    assert damages(dataset) == [Damage(name, 1, "label 2, but 2 classes")]
