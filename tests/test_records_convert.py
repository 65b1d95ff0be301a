"""Conversion is complete, reproducible, and robust to bad pictures and to SIGKILL."""

import collections
import csv
import dataclasses
import hashlib
import io
import json
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import zipfile
from typing import Any, Dict, List, Set, Tuple

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from PIL import Image

from alexnet_estimator import inputs, locks
from alexnet_estimator.config import Config
from alexnet_estimator.errors import ConfigError, DataError
from alexnet_estimator.records import (
    convert,
    examples,
    layouts,
    manifest,
    shards,
    splits,
    tfrecord,
)
from alexnet_estimator.records.dataset import Dataset
from tests import pictures, tiny

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]


def run(source: Any, output: Any, **changes: Any) -> Dataset:
    settings = pictures.settings(**changes)
    return convert.convert(str(source), str(output), settings, show_progress=False)


def read(dataset: Dataset, split: str) -> List[Any]:
    """Return the features of all records of a split."""
    return [
        tf.train.Example.FromString(record.data).features.feature
        for path in dataset.shard_paths(split)
        for record in tfrecord.read_records(path)
    ]


def names(dataset: Dataset, split: str) -> List[str]:
    return [
        os.fsdecode(features["image/filename"].bytes_list.value[0])
        for features in read(dataset, split)
    ]


def rejects(output: Any) -> Dict[str, str]:
    path = os.path.join(output, "rejects.csv")
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        return {row["path"]: row["reason"] for row in csv.DictReader(file)}


def visible(output: Any) -> Set[str]:
    return {name for name in os.listdir(output) if not name.startswith(".")}


@pytest.fixture
def source(tmp_path: pathlib.Path) -> str:
    return pictures.make_folder(tmp_path / "pictures", num_per_class=20)


def test_records_have_imagenets_features(source: str, tmp_path: pathlib.Path) -> None:
    dataset = run(source, tmp_path / "out", images_per_shard=10)
    for features in read(dataset, "train"):
        values: Dict[str, Any] = {
            name: (feature.bytes_list.value or feature.int64_list.value)[0]
            for name, feature in features.items()
        }
        name, number = values["image/filename"].decode().split("/")
        label = ("cat", "dog").index(name)
        assert values["image/class/label"] == label
        assert values["image/class/text"] == name.encode()
        assert values["image/format"] == b"JPEG"
        assert values["image/colorspace"] == b"RGB"
        assert values["image/channels"] == 3
        assert (values["image/height"], values["image/width"]) == (32, 38)
        with tf.Graph().as_default(), tf.Session() as session:
            pixels = session.run(tf.image.decode_jpeg(values["image/encoded"]))
        expected = pictures.draw(label, int(number.split(".")[0]))
        assert pixels.shape == (32, 38, 3)
        assert pixels.mean(axis=(0, 1)) == pytest.approx(
            np.asarray(expected).mean(axis=(0, 1)), abs=3
        )


def test_manifest_equals_what_is_read_back(source: str, tmp_path: pathlib.Path) -> None:
    output = tmp_path / "out"
    dataset = run(source, output, images_per_shard=10, num_workers=2)
    assert dataset == manifest.load(str(output))
    assert visible(output) == {
        "dataset.json",
        "rejects.csv",
        *(f"train-{i:05d}-of-00004.tfrecord" for i in range(4)),
        "validation-00000-of-00001.tfrecord",
    }
    assert visible(output) == set(os.listdir(str(output)))
    for name, split in dataset.splits.items():
        labels = collections.Counter(
            features["image/class/label"].int64_list.value[0]
            for features in read(dataset, name)
        )
        assert split.class_counts == (labels[0], labels[1])
        for shard, path in zip(split.shards, dataset.shard_paths(name)):
            content = pathlib.Path(path).read_bytes()
            assert shard.num_images == len(list(tfrecord.read_records(path)))
            assert shard.num_bytes == len(content)
            assert shard.sha256 == hashlib.sha256(content).hexdigest()
    record = json.loads((output / "dataset.json").read_text())
    assert record["conversion"]["short_side"] == 32


def test_colours_are_those_of_the_training_pictures(tmp_path: pathlib.Path) -> None:
    for split, colour in (("train", (200, 100, 0)), ("val", (0, 0, 255))):
        for name in ("cat", "dog"):
            folder = tmp_path / "source" / split / name
            folder.mkdir(parents=True)
            Image.new("RGB", (40, 40), colour).save(str(folder / "0.png"))
    dataset = run(tmp_path / "source", tmp_path / "out")
    assert dataset.mean_rgb == pytest.approx((200, 100, 0), abs=1)
    assert np.abs(dataset.rgb_covariance).max() < 1


def test_split_is_stratified_disjoint_and_complete(tmp_path: pathlib.Path) -> None:
    source = pictures.make_folder(tmp_path / "pictures", num_per_class=10)
    pictures.make_folder(source, ["ant"], num_per_class=30)
    dataset = run(source, tmp_path / "out", eval_fraction=0.2)
    assert dataset.splits["validation"].class_counts == (6, 2, 2)
    assert dataset.splits["train"].class_counts == (24, 8, 8)
    train, validation = names(dataset, "train"), names(dataset, "validation")
    assert not set(train) & set(validation)
    assert len(set(train) | set(validation)) == len(train + validation) == 50


def test_split_depends_on_the_seed_alone(source: str, tmp_path: pathlib.Path) -> None:
    first = run(source, tmp_path / "a", num_workers=1)
    second = run(source, tmp_path / "b", num_workers=2)
    other = run(source, tmp_path / "c", split_seed=1)
    assert first.digest == second.digest
    assert names(first, "train") == names(second, "train")
    assert set(names(first, "validation")) != set(names(other, "validation"))


def test_eval_images_is_exact(source: str, tmp_path: pathlib.Path) -> None:
    dataset = run(source, tmp_path / "out", eval_images=7)
    assert sum(dataset.splits["validation"].class_counts) == 7
    assert set(dataset.splits["validation"].class_counts) == {3, 4}
    with pytest.raises(DataError, match="eval_images is 39, .* at most 38"):
        run(source, tmp_path / "out", eval_images=39)
    manifest.check_files(dataset)  # The error above has removed nothing.


@pytest.mark.parametrize("counts", [(10, 13), (3, 3, 7)])
def test_folds_are_stratified_disjoint_and_complete(
    counts: Tuple[int, ...], tmp_path: pathlib.Path
) -> None:
    found = layouts.PictureSet(
        source="here",
        class_names=tuple(map(str, range(len(counts)))),
        pictures=tuple(
            layouts.Picture(f"{label}/{i}.jpg", "", label, "train")
            for label, count in enumerate(counts)
            for i in range(count)
        ),
        has_validation=False,
        layout="",
        left_out=(),
    )

    def split(
        fold: int, pictures_found: layouts.PictureSet = found, seed: int = 0
    ) -> Dict[str, Any]:
        options = pictures.settings(num_folds=3, fold=fold, split_seed=seed)
        return splits.split_pictures(pictures_found, options)

    held_out = [split(fold)["validation"] for fold in range(3)]
    assert sorted(sum(held_out, [])) == sorted(found.pictures)
    for fold, chosen in enumerate(held_out):
        assert sorted(chosen + split(fold)["train"]) == sorted(found.pictures)
        assert abs(len(chosen) - sum(counts) / 3) < 1
        numbers = collections.Counter(picture.label for picture in chosen)
        for label, count in enumerate(counts):
            assert abs(numbers[label] - count / 3) < 1
    # The order in which the pictures were listed does not matter, and the seed does.
    mixed = found._replace(pictures=found.pictures[::-1])
    assert split(1, mixed) == split(1)
    assert set(split(1, seed=1)["validation"]) != set(held_out[1])


def test_folds_that_cannot_be_made_are_refused(
    source: str, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(DataError, match="is 21, .* fewer pictures of .*cat, dog"):
        run(source, tmp_path / "out", num_folds=21)
    for name in ("train", "val"):
        pictures.make_folder(tmp_path / "parts" / name, num_per_class=4)
    with pytest.raises(DataError, match="the folders already hold out pictures"):
        run(tmp_path / "parts", tmp_path / "out", num_folds=2)
    said = {"train_folder": "train", "num_folds": 2, "fold": 1}
    dataset = run(tmp_path / "parts", tmp_path / "out", **said)
    assert dataset.splits["validation"].class_counts == (2, 2)


def test_weights_are_stored_and_their_mean_is_1(
    source: str, tmp_path: pathlib.Path
) -> None:
    plain = run(source, tmp_path / "plain", eval_fraction=0.0)
    weighted = [f"dog/sample_weight=0.25/{i}.jpg" for i in range(5)]
    for name in ("cat", "dog"):
        os.mkdir(os.path.join(source, name, "sample_weight=0.25"))
    for path in weighted:
        name = os.path.basename(path)
        os.rename(os.path.join(source, "dog", name), os.path.join(source, path))
    run(source, tmp_path / "out", eval_fraction=0.0)
    dataset = manifest.load(str(tmp_path / "out"))
    assert dataset.splits["train"].class_counts == (20, 20)
    stored = {
        os.fsdecode(features["image/filename"].bytes_list.value[0]): list(
            features["image/weight"].float_list.value
        )
        for features in read(dataset, "train")
    }
    assert {path for path, weight in stored.items() if weight == [0.25]} == {*weighted}
    assert sorted(stored.values()) == [[]] * 35 + [[0.25]] * 5
    mean = (35 + 5 * 0.25) / 40
    data = tiny.config().data
    by_rank = [
        tiny.read(lambda: inputs.train_batches(dataset, data, reader, 0), 1)[0]
        for reader in (inputs.Reader(0, 2, 20), inputs.Reader(1, 2, 20))
    ]
    weights = np.concatenate([features["weight"] for features, _ in by_rank])
    labels = np.concatenate([labels for _, labels in by_rank])
    assert sorted(weights) == pytest.approx([0.25 / mean] * 5 + [1 / mean] * 35)
    assert set(labels[weights < 1]) == {1}
    ((features, _),) = tiny.read(
        lambda: inputs.eval_batches(dataset, data, inputs.Reader(0, 1, 40), "train")
    )
    assert features["weight"].tolist() == [1.0] * 40
    assert "mean_weight" not in plain.conversion
    ((features, _),) = tiny.read(
        lambda: inputs.train_batches(plain, data, inputs.Reader(0, 1, 40), 0), 1
    )
    assert set(features) == {"image"}


@pytest.mark.parametrize("stated", ["0", "0.00", "-1", "half", "1e3", ""])
def test_other_weights_are_refused(
    source: str, tmp_path: pathlib.Path, stated: str
) -> None:
    os.mkdir(os.path.join(source, "cat", f"sample_weight={stated}"))
    with pytest.raises(DataError, match=f"cat/sample_weight={stated}/ does not state"):
        run(source, tmp_path / "out")


def test_nothing_held_out(source: str, tmp_path: pathlib.Path) -> None:
    dataset = run(source, tmp_path / "out", eval_fraction=0.0)
    assert dataset.splits["train"].num_images == 40
    assert dataset.splits["validation"].shards == ()


@hypothesis.given(st.lists(st.integers(1, 50), min_size=2, max_size=8), st.data())
def test_count_held_out_is_proportional(counts: List[int], data: Any) -> None:
    wanted = data.draw(st.integers(0, sum(counts) - len(counts)))
    held_out = splits.count_held_out(counts, wanted)
    assert sum(held_out) == wanted
    assert all(held < count for held, count in zip(held_out, counts))
    if min(counts) == max(counts):
        assert max(held_out) - min(held_out) <= 1


def test_the_layouts_own_validation_is_kept(tmp_path: pathlib.Path) -> None:
    pictures.make_folder(tmp_path / "s" / "train", num_per_class=4)
    pictures.make_folder(tmp_path / "s" / "val", num_per_class=2)
    dataset = run(tmp_path / "s", tmp_path / "out", eval_fraction=0.5)
    assert {name.split("/")[0] for name in names(dataset, "validation")} == {"val"}
    assert {name.split("/")[0] for name in names(dataset, "train")} == {"train"}


@pytest.mark.parametrize(
    "num_images, images_per_shard, expected",
    [
        (0, 0, 0),
        (1, 0, 1),
        (128, 0, 1),
        (129, 0, 2),
        (400, 0, 4),
        (1600, 0, 8),
        (512 * 8, 0, 8),
        (512 * 8 + 1, 0, 9),
        (1600, 512, 4),
        (1600, 1, 1600),
    ],
)
def test_count_shards(num_images: int, images_per_shard: int, expected: int) -> None:
    assert convert.count_shards(num_images, images_per_shard) == expected


def test_pictures_that_need_nothing_are_stored_as_they_are(
    source: str, tmp_path: pathlib.Path
) -> None:
    whole = {path.read_bytes() for path in pathlib.Path(source).glob("*/*.jpg")}
    for quality, num_kept in ((75, 40), (74, 0)):  # Pillow writes them with 75.
        dataset = run(
            source,
            tmp_path / str(quality),
            short_side=40,
            jpeg_quality=quality,
            eval_fraction=0.0,
        )
        stored = {
            features["image/encoded"].bytes_list.value[0]
            for features in read(dataset, "train")
        }
        assert len(stored & whole) == num_kept


def test_shards_mix_the_classes(source: str, tmp_path: pathlib.Path) -> None:
    dataset = run(source, tmp_path / "out", images_per_shard=16)
    for path in dataset.shard_paths("train"):
        labels = [
            tf.train.Example.FromString(record.data)
            .features.feature["image/class/label"]
            .int64_list.value[0]
            for record in tfrecord.read_records(path)
        ]
        assert 0 < sum(labels) < len(labels) and labels != sorted(labels)


def test_bad_pictures_stop_nothing(source: str, tmp_path: pathlib.Path) -> None:
    cat = pathlib.Path(source) / "cat"
    whole = (cat / "0.jpg").read_bytes()
    pictures.draw(0, 50).save(str(cat / "png.jpg"), "PNG")
    pictures.draw(0, 51).convert("CMYK").save(str(cat / "cmyk.jpg"))
    pictures.draw(0, 52).save(str(cat / "bmp.jpg"), "BMP")
    pictures.draw(0, 53).save(str(cat / "gif.jpg"), "GIF")
    (cat / "truncated.jpg").write_bytes(whole[:400])
    (cat / "empty.jpg").write_bytes(b"")
    (cat / "text.jpg").write_bytes(b"no picture")
    (cat / "写真.jpg").write_bytes(b"no picture")
    for name, content in ((b"\xff\xfe.jpg", whole), (b"\xfe.jpg", b"no picture")):
        with open(os.path.join(os.fsencode(str(cat)), name), "wb") as file:
            file.write(content)
    dataset = run(source, tmp_path / "out", eval_fraction=0.0)
    assert dataset.splits["train"].class_counts == (25, 20)
    found = rejects(tmp_path / "out")
    expected = ("truncated", "empty", "text", "写真", "\udcfe")
    assert set(found) == {f"cat/{name}.jpg" for name in expected}
    assert "Truncated" in found["cat/truncated.jpg"]
    assert "empty file" in found["cat/empty.jpg"]
    assert "not one of JPEG, PNG" in found["cat/text.jpg"]
    stored = {os.fsencode(name) for name in names(dataset, "train")}
    assert b"cat/\xff\xfe.jpg" in stored


def test_unreadable_pictures_are_rejected(
    source: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_file = shards.PictureReader.read

    def refuse(self: Any, path: str) -> bytes:
        if path == "dog/3.jpg":
            raise PermissionError(13, "Permission denied")
        return read_file(self, path)

    monkeypatch.setattr(shards.PictureReader, "read", refuse)
    dataset = run(source, tmp_path / "out", eval_fraction=0.0)
    assert dataset.splits["train"].class_counts == (20, 19)
    assert "Permission denied" in rejects(tmp_path / "out")["dog/3.jpg"]


def test_a_class_without_usable_pictures_is_an_error(
    source: str, tmp_path: pathlib.Path
) -> None:
    for path in pathlib.Path(source, "dog").iterdir():
        path.write_bytes(b"x")
    for _ in range(2):  # The second attempt must fail as well.
        with pytest.raises(DataError, match="no usable training pictures of dog"):
            run(source, tmp_path / "out", images_per_shard=4)
    assert len(rejects(tmp_path / "out")) == 20
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_zips_give_the_same_records(source: str, tmp_path: pathlib.Path) -> None:
    archive = pictures.make_zip(source, tmp_path / "pictures.zip")
    from_zip = run(archive, tmp_path / "zip", num_workers=2, images_per_shard=8)
    assert from_zip.digest == run(source, tmp_path / "out", images_per_shard=8).digest


def states(output: Any) -> Dict[str, int]:
    """Return the properties of files that change when a file is written again."""
    return {
        name: os.stat(os.path.join(output, name)).st_ino for name in visible(output)
    }


def test_a_finished_conversion_is_kept(source: str, tmp_path: pathlib.Path) -> None:
    output = tmp_path / "out"
    first = run(source, output)
    before = states(output)
    assert run(source, output, num_workers=2) == first
    assert states(output) == before


@pytest.mark.parametrize("change", ["option", "picture", "shard", "manifest"])
def test_what_has_changed_is_converted_again(
    source: str, tmp_path: pathlib.Path, change: str
) -> None:
    output = tmp_path / "out"
    first = run(source, output, images_per_shard=10)
    options: Dict[str, Any] = {"images_per_shard": 10}
    if change == "option":
        options["images_per_shard"] = 5
    elif change == "picture":
        pictures.draw(0, 99).save(os.path.join(source, "cat", "0.jpg"))
    elif change == "shard":
        os.remove(first.shard_paths("train")[1])
    else:
        (output / "dataset.json").write_bytes(b"{")
    second = run(source, output, **options)
    assert (second.digest == first.digest) == (change in ("shard", "manifest"))
    expected = {
        os.path.basename(path)
        for split in second.splits
        for path in second.shard_paths(split)
    }
    assert visible(output) == {"dataset.json", "rejects.csv", *expected}
    assert visible(output) == set(os.listdir(str(output)))
    manifest.check_files(second)


def test_data_that_a_job_reads_are_not_replaced(
    source: str, tmp_path: pathlib.Path
) -> None:
    output = tmp_path / "out"
    dataset = run(source, output)
    before = states(output)
    # A job that leaves damaged records out reads the other files through links.
    links = tmp_path / "links"
    links.mkdir()
    for path in dataset.shard_paths("train"):
        os.symlink(path, str(links / os.path.basename(path)))
    for directory in (str(output), str(links)):
        read = dataclasses.replace(dataset, directory=directory)
        with manifest.keep_unchanged(read), manifest.keep_unchanged(read):
            with pytest.raises(ConfigError, match="out: a job reads these data"):
                run(source, output, images_per_shard=5)
            assert run(source, output) == dataset
            assert states(output) == before
    assert run(source, output, images_per_shard=5).digest != dataset.digest


def test_folders_of_others_are_left_alone(source: str, tmp_path: pathlib.Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    precious = output / "train-00000-of-00001.tfrecord"
    precious.write_bytes(b"precious")
    with pytest.raises(ConfigError, match="convert has not written"):
        run(source, output)
    assert precious.read_bytes() == b"precious"
    assert os.listdir(str(output)) == [precious.name]


def test_output_that_cannot_be_written(source: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="it is a file"):
        run(source, tmp_path / "file")
    with pytest.raises(DataError, match="cannot write"):
        run(source, tmp_path / "file" / "out")


def test_a_full_disk_is_one_message(
    source: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(DataError, match="No space left on device"):
        run(source, tmp_path / "out")
    monkeypatch.undo()
    run(source, tmp_path / "out")


def test_a_shard_appears_when_it_is_on_the_disk(
    source: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: List[Tuple[str, str]] = []
    sync, replace = os.fsync, os.replace

    def note_sync(descriptor: int) -> None:
        events.append(("sync", os.readlink(f"/proc/self/fd/{descriptor}")))
        sync(descriptor)

    def note_replace(old: str, new: str) -> None:
        events.append(("replace", old))
        replace(old, new)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_replace)
    run(source, tmp_path / "out", num_workers=2, images_per_shard=4)
    moved = [path for kind, path in events if kind == "replace"]
    assert sum(path.endswith(".tfrecord") for path in moved) > 2
    for path in moved:
        assert events.index(("sync", path)) < events.index(("replace", path))


def test_an_interrupted_conversion_keeps_what_is_written(
    source: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish, published = shards.publish_shard, []

    def interrupt(task: Any, report: Any) -> None:
        publish(task, report)
        published.append(os.path.basename(task.path))
        if len(published) == 1:
            time.sleep(1)  # Meanwhile the workers write the shards that are queued.
            raise KeyboardInterrupt

    monkeypatch.setattr(shards, "publish_shard", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "out", num_workers=2, images_per_shard=4)
    assert len(published) > 1 and visible(tmp_path / "out") == set(published)


def test_a_killed_worker_is_an_error_and_no_hang(
    source: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(examples, "build", die)
    with pytest.raises(DataError, match="was killed"):
        run(source, tmp_path / "out", num_workers=2, images_per_shard=4)
    monkeypatch.undo()
    run(source, tmp_path / "out", num_workers=2, images_per_shard=4)


def test_workers_share_one_tensorflow(source: str, tmp_path: pathlib.Path) -> None:
    """A hundred forks that load it themselves would need a hundred times its memory."""
    code = (
        "import os, sys\n"
        "from alexnet_estimator import __main__ as cli\n"
        "from alexnet_estimator.records import shards\n"
        "def write(*_): os._exit(40 + ('tensorflow' in sys.modules))\n"
        "shards._write_and_publish = write\n"
        "cli.main(['convert', *sys.argv[1:]])\n"
    )
    words = [f"--data_path={source}", f"--output={tmp_path / 'out'}"]
    command = [sys.executable, "-c", code, *words]
    assert subprocess.call(command, cwd=str(REPOSITORY)) == 41


def start(script: str, *arguments: Any) -> subprocess.Popen:
    """Run Python code that may use ``run`` of this module."""
    code = "from tests.test_records_convert import *\n" + textwrap.dedent(script)
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=str(REPOSITORY)
    )


KILLED_IN_THE_MIDDLE = """
build, num_records = examples.build, 0
def killer(*arguments):
    global num_records
    num_records += 1
    if num_records == 10:  # In the middle of the third shard.
        deadline = time.time() + 30
        # They appear by the parent's work.
        while len(visible(pathlib.Path(sys.argv[2]))) < 2 and time.time() < deadline:
            time.sleep(0.01)
        os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
    return build(*arguments)
examples.build = killer
run(sys.argv[1], sys.argv[2], images_per_shard=4)
"""


def test_killed_in_the_middle_it_continues(source: str, tmp_path: pathlib.Path) -> None:
    output = tmp_path / "out"
    assert start(KILLED_IN_THE_MIDDLE, source, output).wait(60) == -signal.SIGKILL
    finished = visible(output)
    assert len(finished) == 2 and "dataset.json" not in finished
    for name in finished:
        found = list(tfrecord.read_records(str(output / name)))
        assert len(found) == 4 and not any(record.problem for record in found)
    assert any((output / name).is_dir() for name in os.listdir(str(output)))
    kept, cut = sorted(finished)
    before = states(output)
    (output / cut).write_bytes((output / cut).read_bytes()[:-1])
    dataset = run(source, output, images_per_shard=4)
    assert states(output)[kept] == before[kept]
    manifest.check_files(dataset)
    assert dataset == manifest.load(str(output))
    uninterrupted = run(source, tmp_path / "other", images_per_shard=4)
    assert dataset.digest == uninterrupted.digest
    assert visible(output) == set(os.listdir(str(output)))


def test_interrupted_and_then_with_other_options(
    source: str, tmp_path: pathlib.Path
) -> None:
    output = tmp_path / "out"
    start(KILLED_IN_THE_MIDDLE, source, output).wait(60)
    dataset = run(source, output, images_per_shard=7)
    assert visible(output) == set(os.listdir(str(output)))
    assert len(visible(output)) == 2 + sum(
        len(split.shards) for split in dataset.splits.values()
    )


def test_workers_end_with_their_parent(source: str, tmp_path: pathlib.Path) -> None:
    process = start(
        """
        def wait(*_):
            with open(sys.argv[3], "w") as file:
                file.write(str(os.getpid()))
            time.sleep(600)
        examples.build = wait
        run(sys.argv[1], sys.argv[2])
        """,
        source,
        tmp_path / "out",
        tmp_path / "pid",
    )
    pid_file = tmp_path / "pid"
    deadline = time.time() + 60
    while not (pid_file.exists() and pid_file.read_text()):
        assert time.time() < deadline and process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    worker = pathlib.Path("/proc", pid_file.read_text())
    while worker.exists() and "Z" not in (worker / "stat").read_text().split()[2]:
        assert time.time() < deadline
        time.sleep(0.05)


def test_spawned_workers_work_too(source: str, tmp_path: pathlib.Path) -> None:
    process = start(
        """
        import multiprocessing
        multiprocessing.set_start_method("spawn")
        run(sys.argv[1], sys.argv[2])
        """,
        source,
        tmp_path / "out",
    )
    assert process.wait(60) == 0
    spawned = manifest.load(str(tmp_path / "out"))
    assert spawned.digest == run(source, tmp_path / "other").digest


def test_two_conversions_at_once_make_one(source: str, tmp_path: pathlib.Path) -> None:
    output = tmp_path / "out"
    script = """
    dataset = run(sys.argv[1], sys.argv[2], images_per_shard=4)
    manifest.check_files(dataset)
    """
    processes = [start(script, source, output) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert visible(output) == set(os.listdir(str(output)))


def hold_lock(folder: pathlib.Path) -> None:
    with locks.wait_for_folder(str(folder)):
        (folder / "held").touch()
        time.sleep(0.3)
        (folder / "held").unlink()


def test_finished_data_are_opened_without_waiting(
    source: str, tmp_path: pathlib.Path
) -> None:
    output = tmp_path / "out"
    made, found = run(source, output), []
    reader = threading.Thread(target=lambda: found.append(run(source, output)))
    with locks.wait_for_folder(str(output)):
        reader.start()
        reader.join(timeout=20)
        assert found == [made]
    reader.join()


def test_the_lock_waits(tmp_path: pathlib.Path) -> None:
    holder = multiprocessing.Process(target=hold_lock, args=[tmp_path])
    holder.start()
    while not (tmp_path / "held").exists():
        assert holder.is_alive()
        time.sleep(0.02)
    with locks.wait_for_folder(str(tmp_path)):
        assert not (tmp_path / "held").exists()
    holder.join()


def test_summary_goes_to_stderr(
    source: str, tmp_path: pathlib.Path, capfd: pytest.CaptureFixture
) -> None:
    (pathlib.Path(source) / "cover.jpg").write_bytes(b"x")
    pathlib.Path(source, "cat", "bad.jpg").write_bytes(b"x")
    settings: Config = pictures.settings()
    convert.convert(source, str(tmp_path / "out"), settings)
    out, err = capfd.readouterr()
    assert out == ""
    assert "32 pictures to train and 8 to validate, 2 classes" in err
    assert "1 unusable picture, listed in rejects.csv" in err
    assert f"{source}: classes are the folders in ./: 2 classes (cat, dog)" in err
    assert "left out: 1 x picture outside the class folders (cover.jpg)" in err
    assert rejects(tmp_path / "out") == {
        "cat/bad.jpg": "not one of JPEG, PNG, GIF, BMP, WEBP, TIFF",
        "cover.jpg": "picture outside the class folders",
    }


def jpeg_bytes() -> bytes:
    buffer = io.BytesIO()
    pictures.draw(0, 0).save(buffer, "JPEG")
    return buffer.getvalue()


WHOLE = jpeg_bytes()
NAMES = st.lists(
    st.text(st.characters(min_codepoint=1, blacklist_categories=["Cs"]), max_size=8)
    | st.sampled_from(["cat", "dog", "train", ".."]),
    min_size=1,
    max_size=4,
).map("/".join)
CONTENTS = st.one_of(
    st.just(WHOLE),
    st.integers(0, len(WHOLE)).map(lambda size: WHOLE[:size]),
    st.tuples(st.integers(0, len(WHOLE)), st.binary(max_size=50)).map(
        lambda edit: WHOLE[: edit[0]] + edit[1] + WHOLE[edit[0] + len(edit[1]) :]
    ),
    st.binary(max_size=200),
)


@hypothesis.given(st.dictionaries(NAMES, CONTENTS, min_size=1, max_size=8))
@hypothesis.example({"cat/\r": b"", "dog/a\n,b\r\nc": b""})
@hypothesis.settings(max_examples=25)
def test_no_zip_crashes_or_leads_outside(members: Dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "source.zip")
        with zipfile.ZipFile(source, "w") as archive:
            for name, content in members.items():
                archive.writestr(f"{name}.jpg", content)
            archive.writestr("cat/whole.jpg", WHOLE)
            archive.writestr("dog/whole.jpg", WHOLE)
        output = os.path.join(folder, "out")
        try:
            dataset = run(source, output, eval_fraction=0.0)
        except DataError:
            return
        finally:
            assert set(os.listdir(folder)) <= {"source.zip", "out"}
        found = layouts.find_pictures(source)
        num_images = dataset.splits["train"].num_images
        num_rejects = len(rejects(output)) - len({x.path for x in found.left_out})
        assert num_images + num_rejects == len(found.pictures)
