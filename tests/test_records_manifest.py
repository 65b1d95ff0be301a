"""The manifest is read as it was written, and all of its mistakes are reported."""

import dataclasses
import json
import os
import pathlib
from typing import Any, Callable

import hypothesis
import hypothesis.strategies as st
import pytest

from alexnet_estimator.errors import DataError
from alexnet_estimator.records import manifest
from alexnet_estimator.records.dataset import Dataset, Shard, Split, with_digest

SHARDS = (Shard("train-0.tfrecord", 3, 4, "a" * 64), Shard("b", 2, 1, "b" * 64))


def make(directory: Any) -> Dataset:
    """Write shards of the right sizes, and a manifest."""
    for shard in SHARDS:
        with open(os.path.join(directory, shard.file), "wb") as file:
            file.write(bytes(shard.num_bytes))
    dataset = with_digest(
        Dataset(
            directory=str(directory),
            class_names=("cat", "狗"),
            splits={"train": Split(SHARDS, (2, 3)), "validation": Split((), (0, 0))},
            mean_rgb=(1.0, 2.5, 3.0),
            rgb_covariance=((1.0, 0.5, 0.0), (0.5, 1.0, 0.0), (0.0, 0.0, 1.0)),
            digest="",
            conversion={"short_side": 256},
        )
    )
    manifest.write(dataset)
    return dataset


def change(directory: pathlib.Path, edit: Callable[[Any], Any]) -> None:
    path = directory / manifest.FILE_NAME
    record = json.loads(path.read_text())
    edit(record)
    path.write_text(json.dumps(record))


def test_what_is_written_comes_back(tmp_path: pathlib.Path) -> None:
    dataset = make(tmp_path)
    assert manifest.load(str(tmp_path)) == dataset
    assert dataset.num_classes == 2
    assert dataset.splits["train"].num_images == 5
    assert dataset.shard_paths("train")[1] == str(tmp_path / "b")
    assert sorted(os.listdir(str(tmp_path))) == ["b", "dataset.json", SHARDS[0].file]


def test_the_digest_tells_content_not_place(tmp_path: pathlib.Path) -> None:
    dataset = make(tmp_path)
    moved = with_digest(dataclasses.replace(dataset, directory="/elsewhere"))
    assert moved.digest == dataset.digest
    other = Shard("b", 2, 1, "c" * 64)
    splits = {**dataset.splits, "train": Split((SHARDS[0], other), (2, 3))}
    changed = with_digest(dataclasses.replace(dataset, splits=splits))
    assert changed.digest != dataset.digest


def set_shard(field: str, value: Any) -> Callable[[Any], Any]:
    return lambda record: record["splits"]["train"]["shards"][0].update({field: value})


@pytest.mark.parametrize(
    "edit, message",
    [
        (set_shard("file", "../b"), r"shards\[0\].file is '../b'; .* plain file name"),
        (set_shard("file", "/etc/passwd"), "plain file name"),
        (set_shard("file", ".."), "plain file name"),
        (set_shard("file", "b"), "b is listed 2 times"),
        (set_shard("num_images", -1), "num_images is -1; it must be a whole number"),
        (set_shard("num_images", True), "num_images is True"),
        (set_shard("num_images", 4), "5 pictures by class but 6 by shard"),
        (set_shard("num_bytes", 1e300), "num_bytes is 1e"),
        (set_shard("sha256", "A" * 64), "64 hexadecimal digits"),
        (lambda r: r["splits"].pop("train"), "splits is .* train and validation"),
        (lambda r: r["splits"].update(train=[]), r"splits.train is \[\]"),
        (
            lambda r: r["splits"]["train"].update(class_counts=[5]),
            "1 classes instead of 2",
        ),
        (lambda r: r.update(class_names=["a", "a"]), "list of distinct names"),
        (lambda r: r.update(mean_rgb=[1, 2]), "mean_rgb .* three numbers"),
        (lambda r: r.update(mean_rgb=[1, 2, float("nan")]), "three numbers"),
        (lambda r: r.update(rgb_covariance=[[1, 2, 3]] * 2), "rgb_covariance"),
        (lambda r: r.update(format_version=2), "format_version"),
    ],
)
def test_wrong_values_are_named(
    tmp_path: pathlib.Path, edit: Callable[[Any], Any], message: str
) -> None:
    make(tmp_path)
    change(tmp_path, edit)
    with pytest.raises(DataError, match=message):
        manifest.load(str(tmp_path))


def test_all_problems_come_at_once(tmp_path: pathlib.Path) -> None:
    make(tmp_path)
    change(tmp_path, lambda record: record.update(mean_rgb=0, class_names=[]))
    with pytest.raises(DataError) as error:
        manifest.load(str(tmp_path))
    assert len(error.value.problems) == 2


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[" * 100_000, b"\xff\xfe", b"null", b"[]", b"1" * 5000]
)
def test_what_is_no_manifest_is_refused(tmp_path: pathlib.Path, content: bytes) -> None:
    (tmp_path / manifest.FILE_NAME).write_bytes(content)
    with pytest.raises(DataError, match="dataset.json"):
        manifest.load(str(tmp_path))


def test_huge_manifests_are_not_read(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path)
    monkeypatch.setattr(manifest, "_MAX_BYTES", 100)
    with pytest.raises(DataError, match="larger than"):
        manifest.load(str(tmp_path))


def test_converted_data_takes_no_label_offset(tmp_path: pathlib.Path) -> None:
    make(tmp_path)
    with pytest.raises(DataError, match="label_offset is 1"):
        manifest.load(str(tmp_path), label_offset=1)


def test_check_files_names_all_that_is_missing_or_cut(tmp_path: pathlib.Path) -> None:
    dataset = make(tmp_path)
    manifest.check_files(dataset)
    (tmp_path / "b").unlink()
    (tmp_path / SHARDS[0].file).write_bytes(b"123")
    with pytest.raises(DataError) as error:
        manifest.check_files(dataset)
    assert "train-0.tfrecord has 3 bytes instead of 4" in str(error.value)
    assert "b is missing" in str(error.value)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
PLACES = [
    [],
    *([name] for name in ("class_names", "splits", "mean_rgb", "conversion")),
    ["conversion", "short_side"],
    ["rgb_covariance", 1],
    ["splits", "train"],
    ["splits", "train", "shards"],
    ["splits", "train", "class_counts", 0],
    ["splits", "train", "shards", 0],
    *(
        ["splits", "train", "shards", 0, name]
        for name in ("file", "num_images", "num_bytes", "sha256")
    ),
]


@hypothesis.given(place=st.sampled_from(PLACES), value=VALUES)
@hypothesis.settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
def test_no_manifest_crashes_or_leads_outside(
    tmp_path: pathlib.Path, place: Any, value: Any
) -> None:
    make(tmp_path)
    path = tmp_path / manifest.FILE_NAME
    record = json.loads(path.read_text())
    if place:
        owner = record
        for key in place[:-1]:
            owner = owner[key]
        owner[place[-1]] = value
    else:
        record = value
    path.write_text(json.dumps(record))
    try:
        dataset = manifest.load(str(tmp_path))
    except DataError:
        return
    assert dataset.short_side >= 0
    for shard_path in dataset.shard_paths("train"):
        assert os.path.dirname(shard_path) == str(tmp_path)
    assert all(type(count) is int for count in dataset.splits["train"].class_counts)
