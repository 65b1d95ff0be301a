"""Predictions agree with the evaluation, and each picture gets one row."""

import csv
import io
import json
import os
import pathlib
import shutil
from typing import Any, Dict, Iterator, List, NamedTuple, Tuple
from unittest import mock

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from alexnet_estimator import checkpoints, inputs, run_record
from alexnet_estimator.config import Config
from alexnet_estimator.errors import EXIT_DATA, ConfigError, DataError
from alexnet_estimator.jobs.evaluate import Evaluation, evaluate
from alexnet_estimator.jobs.predict import job, rows
from alexnet_estimator.jobs.predict.classifier import (
    Classifier,
    InputFn,
    open_classifier,
)
from alexnet_estimator.jobs.predict.rows import Prediction
from alexnet_estimator.jobs.predict.sources import Reject, find_sources
from alexnet_estimator.jobs.session import open_run
from alexnet_estimator.model_fn import _average_views
from alexnet_estimator.records import manifest, tfrecord
from tests import pictures, tiny, training

CLASS_NAMES = ("apple", "ocean", "tree")
STRANGE_NAMES = (
    "comma,.jpg",
    'quote".jpg',
    "line\nbreak.jpg",
    "return\rcarriage.jpg",
    " space .jpg",
    "ü 雪.jpg",
    os.fsdecode(b"not-utf8-\xff.jpg"),
)


class Trained(NamedTuple):
    """A run, its last evaluation, and the pictures of this evaluation."""

    model_dir: str
    evaluation: Evaluation
    held_out: List[str]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data_dir: str) -> Trained:
    """Return a run with averaged weights."""
    model_dir = str(tmp_path_factory.mktemp("predict") / "run")
    optim = {"ema_decay": 0.9, "learning_rate": 0.02}
    evaluation = training.run_job(data_dir, model_dir, optim=optim)
    folder = os.path.join(os.path.dirname(data_dir), "pictures")
    return Trained(model_dir, evaluation, _held_out(data_dir, folder))


def _held_out(data_dir: str, folder: str) -> List[str]:
    """Return the picture files from which the validation records were made."""
    paths = []
    for shard in manifest.load(data_dir).shard_paths("validation"):
        for record in tfrecord.read_records(shard):
            example = tf.train.Example.FromString(record.data)
            (name,) = example.features.feature["image/filename"].bytes_list.value
            paths.append(os.path.join(folder, os.fsdecode(name)))
    return paths


class _Fake:
    """Returns the mean red, green and blue of each image."""

    def __init__(self, batch_size: int = 4):
        self.config = tiny.config(train={"batch_size_per_rank": batch_size})
        self.batch_shapes: List[List[int]] = []

    def predict_batches(self, input_fn: InputFn) -> Iterator[np.ndarray]:
        for batch in tiny.read(input_fn):
            self.batch_shapes.append(list(batch["image"].shape))
            colours = batch["image"].reshape([len(batch["image"]), -1, 3]).mean(axis=1)
            yield (colours / colours.sum(axis=1, keepdims=True)).astype(np.float32)

    def classifier(self) -> Classifier:
        conversion = {"short_side": tiny.PICTURE_SIZE, "jpeg_quality": 90}
        return Classifier(
            self.config, ("red", "green", "blue"), conversion, self.predict_batches
        )


@pytest.fixture
def fake() -> _Fake:
    """Return a classifier that needs no training: red, green or blue."""
    return _Fake()


def _read_csv(path: Any) -> List[Dict[str, str]]:
    text = pathlib.Path(path).read_bytes().decode("utf-8", "surrogateescape")
    return list(csv.DictReader(io.StringIO(text, newline="")))


def _confusion(rows: List[Dict[str, str]]) -> List[List[int]]:
    matrix = [[0] * 3 for _ in range(3)]
    for row in rows:
        truth = os.path.basename(os.path.dirname(row["path"]))
        matrix[CLASS_NAMES.index(truth)][CLASS_NAMES.index(row["class"])] += 1
    return matrix


def _config(model_dir: str, **data: Any) -> Config:
    config = Config(run_record.read(run_record.path_of(model_dir)).config.to_dict())
    config.data.update(data)
    return config


@pytest.mark.parametrize("ema_decay", [0.0, 0.9], ids=["weights", "averages"])
def test_predictions_are_those_of_the_evaluation(
    ema_decay: float, run: Trained, tmp_path: Any
) -> None:
    model_dir, evaluation = run.model_dir, run.evaluation
    config = _config(model_dir)
    if not ema_decay:
        model_dir = shutil.copytree(run.model_dir, str(tmp_path / "run"))
        config.optim.ema_decay = ema_decay
        evaluation = evaluate(open_run(config, model_dir))
        assert evaluation["loss"] != run.evaluation["loss"]
    output = str(tmp_path / "out.csv")
    classifier = open_classifier(model_dir, config)
    summary = job.predict(classifier, run.held_out, output)
    rows = _read_csv(output)
    assert summary.num_images == len(rows) == 11 and not summary.rejects
    assert [row["path"] for row in rows] == run.held_out
    assert _confusion(rows) == evaluation["confusion_matrix"]
    # The classes could agree by chance, but the loss cannot.
    found = find_sources(run.held_out)
    losses = []
    for prediction in job.classify(classifier, found, _refuse):
        truth = os.path.basename(os.path.dirname(prediction.path))
        losses.append(-np.log(prediction.probabilities[CLASS_NAMES.index(truth)]))
    assert np.mean(losses) == pytest.approx(evaluation["loss"], rel=1e-4)


def _refuse(picture: Reject) -> None:
    raise AssertionError(picture)


def test_ten_crops_are_averaged_the_same_way(
    run: Trained, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_dir = str(tmp_path / "run")
    shutil.copytree(run.model_dir, model_dir)
    config = _config(model_dir, use_ten_crop=True)
    classifier = open_classifier(model_dir, config)
    output = str(tmp_path / "out.csv")
    job.predict(classifier, run.held_out, output, top_k=3)
    read = mock.Mock(side_effect=inputs.eval_batches)
    monkeypatch.setattr(inputs, "eval_batches", read)
    evaluation = evaluate(open_run(config, model_dir))
    # A batch has 8 images; ten times as many might not fit into the memory.
    assert read.call_args[0][2].batch_size == 1
    assert evaluation["num_images"] == 11
    assert _confusion(_read_csv(output)) == evaluation["confusion_matrix"]
    assert evaluation["loss"] != run.evaluation["loss"]


def test_ten_crops_are_corners_and_centre_and_mirrored() -> None:
    picture = tiny.noise(0, height=tiny.PICTURE_SIZE, width=81)
    data = tiny.config(data={"use_ten_crop": True}).data
    make = lambda: inputs.picture_batches(  # noqa: E731
        lambda: iter([tiny.encode(picture)]), data, 1
    )
    (batch,) = tiny.read(make)
    size, down, right = tiny.IMAGE_SIZE, 71 - 63, 81 - 63
    corners = [(0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2)]
    crops = [picture[top : top + size, left : left + size] for top, left in corners]
    np.testing.assert_array_equal(
        batch["image"], [crops + [crop[:, ::-1] for crop in crops]]
    )


def test_views_are_averaged_as_probabilities() -> None:
    logits = np.random.RandomState(0).normal(0, 30, [20, 4]).astype(np.float32)
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    expected = probabilities.reshape([2, 10, 4]).mean(axis=1)
    with tf.Graph().as_default(), tiny.session() as session:
        averaged = tf.nn.softmax(_average_views(tf.constant(logits), 10))
        np.testing.assert_allclose(session.run(averaged), expected, atol=1e-6)


def test_one_row_for_each_readable_picture(
    fake: _Fake, tmp_path: Any, capsys: pytest.CaptureFixture
) -> None:
    for index in range(9):
        pictures.save(tmp_path / "in" / f"{index}.jpg", label=index % 3, seed=index)
    whole = (tmp_path / "in" / "8.jpg").read_bytes()
    (tmp_path / "in" / "0.jpg").write_bytes(b"")
    (tmp_path / "in" / "3.jpg").write_bytes(b"no picture")
    (tmp_path / "in" / "8.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "in" / "notes.txt").write_text("no picture, and not said to be one")
    output = tmp_path / "out.csv"
    summary = job.predict(fake.classifier(), [str(tmp_path / "in")], str(output))
    rows = _read_csv(output)
    assert [os.path.basename(row["path"]) for row in rows] == [
        f"{index}.jpg" for index in (1, 2, 4, 5, 6, 7)
    ]
    # The label decides the colour, so no row has the answer of another picture.
    expected = {0: "red", 1: "blue", 2: "green"}
    assert [row["class"] for row in rows] == [
        expected[index % 3] for index in (1, 2, 4, 5, 6, 7)
    ]
    assert summary.num_images == 6 and summary.images_per_sec > 0
    assert [os.path.basename(r.path) for r in summary.rejects] == [
        "0.jpg",
        "3.jpg",
        "8.jpg",
    ]
    errors = capsys.readouterr().err
    for name, reason in (("0", "empty"), ("3", "not one of JPEG"), ("8", "Truncated")):
        assert f"{name}.jpg: " in errors and reason in errors
    assert fake.batch_shapes == [[4, 63, 63, 3]] * 2


@pytest.mark.parametrize("row_format", job.ROW_FORMATS)
def test_strange_names_come_back(fake: _Fake, tmp_path: Any, row_format: str) -> None:
    for seed, name in enumerate(STRANGE_NAMES):
        pictures.save(tmp_path / "in" / "first.jpg", seed=seed)
        (tmp_path / "in" / "first.jpg").rename(tmp_path / "in" / name)
    output = tmp_path / f"out.{row_format}"
    job.predict(fake.classifier(), [str(tmp_path / "in")], str(output))
    if row_format == "csv":
        rows: List[Dict[str, Any]] = _read_csv(output)
    else:
        lines = output.read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        assert sorted(rows[0]) == ["class", "path", "probability"]
    names = [os.path.basename(row["path"]) for row in rows]
    assert names == sorted(STRANGE_NAMES)
    assert all(row["class"] == "red" and float(row["probability"]) for row in rows)


def test_top_k(fake: _Fake, tmp_path: Any) -> None:
    pictures.save(tmp_path / "a.jpg", label=1)
    source, output = str(tmp_path / "a.jpg"), tmp_path / "out"
    job.predict(fake.classifier(), [source], str(output), top_k=2)
    (row,) = _read_csv(output)
    assert list(row) == ["path", "class", "probability", "class_2", "probability_2"]
    assert row["class"] == "blue"
    assert float(row["probability"]) > float(row["probability_2"])
    job.predict(fake.classifier(), [source], str(output), 9, "jsonl")
    record = json.loads(output.read_text())
    ranking = record["top_k"]
    assert [entry["class"] for entry in ranking][0] == record["class"] == "blue"
    assert {entry["class"] for entry in ranking} == {"red", "green", "blue"}
    values = [entry["probability"] for entry in ranking]
    assert values == sorted(values, reverse=True)
    assert sum(values) == pytest.approx(1, abs=1e-5)


def test_files_folders_zips_and_lists(
    fake: _Fake, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pictures.make_folder(tmp_path / "in", ("a", "b"), 2)
    archive = pictures.make_zip(folder, tmp_path / "in.zip")
    names = ["a/0.jpg", "a/1.jpg", "b/0.jpg", "b/1.jpg"]
    files = [os.path.join(folder, name) for name in names]
    listed = tmp_path / "list.txt"
    monkeypatch.setenv("HOME", folder)
    lines = [f"{files[2]}\r", "", "~/b", f"{folder}/gone.jpg", "~nobody-here/a.jpg"]
    listed.write_text("\ufeff" + "\n".join([*lines, ""]))
    without_suffix = tmp_path / "photo"
    shutil.copy(files[0], without_suffix)
    sources = [files[3], folder, archive, str(listed), str(without_suffix)]
    output = tmp_path / "out.csv"
    summary = job.predict(fake.classifier(), sources, str(output))
    rows = _read_csv(output)
    assert [row["path"] for row in rows] == [
        files[3],
        *files,
        *(os.path.join(archive, name) for name in names),
        files[2],
        *files[2:],
        str(without_suffix),
    ]
    assert [reject.path for reject in summary.rejects] == lines[3:]
    answers = [(row["class"], row["probability"]) for row in rows]
    assert answers[1:5] == answers[5:9] and answers[0] == answers[4]
    assert answers[12] == answers[1]


def test_links_are_followed_and_what_is_lost_is_rejected(
    fake: _Fake, tmp_path: Any, capsys: pytest.CaptureFixture
) -> None:
    folder = pictures.make_folder(tmp_path / "in", ("a", "@eaDir"), 1)
    pictures.save(tmp_path / "other.jpg")
    os.symlink(tmp_path / "other.jpg", tmp_path / "in" / "link.jpg")
    os.symlink("nowhere.jpg", str(tmp_path / "in" / "broken.jpg"))
    summary = job.predict(fake.classifier(), [folder], str(tmp_path / "out.csv"))
    assert summary.num_images == 2
    assert summary.rejects == (
        job.Reject(f"{folder}/broken.jpg", "link to a missing file"),
    )
    said = f"{folder}: left out: 1 x hidden or system file (@eaDir)"
    assert said in capsys.readouterr().err


def test_stdout(fake: _Fake, tmp_path: Any, capfd: pytest.CaptureFixture) -> None:
    pictures.save(tmp_path / "a.jpg")
    job.predict(fake.classifier(), [str(tmp_path / "a.jpg")])
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "path,class,probability"
    assert lines[1].startswith(f"{tmp_path}/a.jpg,red,0.")


def test_notebooks_have_a_stdout_for_text_only(
    fake: _Fake, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures.save(tmp_path / "a.jpg")
    shown = io.StringIO()
    monkeypatch.setattr("sys.stdout", shown)
    job.predict(fake.classifier(), str(tmp_path / "a.jpg"))
    assert shown.getvalue().startswith(f"path,class,probability\n{tmp_path}/a.jpg,")


def test_equally_probable_classes_keep_their_order() -> None:
    file = io.BytesIO()
    write = rows.write_csv(file, ["a", "b", "c"], 3)
    write(Prediction("x.jpg", np.array([0.25, 0.5, 0.25])))
    assert file.getvalue().splitlines()[1] == b"x.jpg,b,0.5,a,0.25,c,0.25"


def test_a_spreadsheet_gets_no_formula_for_a_path() -> None:
    file = io.BytesIO()
    write = rows.write_csv(file, ["@SUM(1)", "-1"], 2)
    write(Prediction("=cmd|1.jpg", np.array([0.75, 0.25])))
    write(Prediction("a/=1.jpg", np.array([0.25, 0.75])))
    assert file.getvalue().splitlines()[1:] == [
        b'./=cmd|1.jpg,"@SUM(1)",0.75,"-1",0.25',
        b'a/=1.jpg,"-1",0.75,"@SUM(1)",0.25',
    ]


def test_a_terminal_gets_no_raw_names(
    fake: _Fake, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures.save(tmp_path / "\x1b[2Ja.jpg")
    shown = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr("sys.stdout", shown)
    for is_terminal, name in ((True, b"/\\u001b[2Ja.jpg,"), (False, b"/\x1b[2Ja.jpg,")):
        with mock.patch.object(shown, "isatty", return_value=is_terminal):
            job.predict(fake.classifier(), str(tmp_path))
        assert name in shown.buffer.getvalue()  # type: ignore[attr-defined]
        shown.buffer.truncate(0)


def test_nothing_to_classify(fake: _Fake, tmp_path: Any) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.doc").write_text("")
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    output = tmp_path / "out.csv"
    cases: List[Tuple[List[str], str]] = [
        (["empty"], "no pictures; files found: none"),
        (["empty", "text"], "not a picture: .doc"),
        (["gone"], "no such folder, zip or picture"),
        (["gone.txt"], "cannot be read"),
        (["bad.jpg"], "none of 1 picture can be read"),
        ([], "no pictures"),
    ]
    for sources, message in cases:
        paths = [str(tmp_path / source) for source in sources]
        with pytest.raises(DataError, match=message) as caught:
            job.predict(fake.classifier(), paths, str(output))
        assert caught.value.exit_code == EXIT_DATA
    assert sorted(os.listdir(tmp_path)) == ["bad.jpg", "empty", "text"]


def test_wrong_arguments_are_refused_before_the_work(
    fake: _Fake, tmp_path: Any
) -> None:
    pictures.save(tmp_path / "in" / "a.jpg")
    source = str(tmp_path / "in")
    for output, top_k, row_format, message in (
        (str(tmp_path / "gone" / "out.csv"), 1, "", "No such file"),
        (source, 1, "", "it is a folder"),
        ("-", 0, "", "top_k is 0"),
        ("-", 1, "xml", "'xml'"),
    ):
        with pytest.raises(ConfigError, match=message):
            job.predict(fake.classifier(), [source], output, top_k, row_format)
    assert fake.batch_shapes == []


def test_an_interrupted_job_leaves_the_old_output(tmp_path: Any) -> None:
    class _Breaking(_Fake):
        def predict_batches(self, input_fn: InputFn) -> Iterator[np.ndarray]:
            yield next(super().predict_batches(input_fn))
            raise KeyboardInterrupt

    source = pictures.make_folder(tmp_path / "in", ("a",), 5)
    output = tmp_path / "out.csv"
    output.write_text("path,class,probability\nof yesterday")
    with pytest.raises(KeyboardInterrupt):
        job.predict(_Breaking().classifier(), [source], str(output))
    assert output.read_text() == "path,class,probability\nof yesterday"
    assert sorted(os.listdir(tmp_path)) == ["in", "out.csv"]


@pytest.mark.parametrize("row_format", ["csv", "jsonl"])
def test_only_predictions_are_replaced(tmp_path: Any, row_format: str) -> None:
    source = pictures.make_folder(tmp_path / "in", ("a",), 2)
    for file in pathlib.Path(source, "a").iterdir():
        before = file.read_bytes()
        with pytest.raises(ConfigError, match="does not hold predictions"):
            job.predict(
                _Fake().classifier(), [source], str(file), row_format=row_format
            )
        assert file.read_bytes() == before
    output, link = tmp_path / "rows", tmp_path / "link"
    output.touch()
    link.symlink_to(output)
    for _ in range(2):  # An empty file is replaced, and so are predictions.
        job.predict(_Fake().classifier(), [source], str(link), row_format=row_format)
        assert link.is_symlink()
        assert len(output.read_text().splitlines()) == 2 + (row_format == "csv")


def test_only_the_wrong_argument_is_named(tmp_path: Any) -> None:
    choices: List[Dict[str, Any]] = [{"top_k": 0}, {"row_format": "xml"}]
    for arguments in choices:
        with pytest.raises(ConfigError) as error:
            job.predict(_Fake().classifier(), [str(tmp_path)], **arguments)
        assert len(error.value.problems) == 1


def test_the_rate_leaves_the_first_batch_out() -> None:
    assert job.measure_rate(4, 4, 100.0, 0.0) == pytest.approx(4 / 100)
    assert job.measure_rate(10, 4, 104.0, 4.0) == pytest.approx(6 / 4)


def test_the_newest_valid_checkpoint_is_used_and_nothing_changed(
    run: Trained, tmp_path: Any
) -> None:
    model_dir = str(tmp_path / "run")
    shutil.copytree(run.model_dir, model_dir)
    good = checkpoints.path_of(model_dir, 20)
    assert good is not None
    for suffix in (".index", ".data-00000-of-00001"):
        shutil.copy(good + suffix, os.path.join(model_dir, f"model.ckpt-30{suffix}"))
    damaged = pathlib.Path(model_dir, "model.ckpt-30.data-00000-of-00001")
    damaged.write_bytes(damaged.read_bytes()[:1000])
    before = sorted(os.listdir(model_dir))
    output = str(tmp_path / "out.csv")
    job.predict(open_classifier(model_dir), run.held_out, output)
    assert _confusion(_read_csv(output)) == run.evaluation["confusion_matrix"]
    assert sorted(os.listdir(model_dir)) == before
    with pytest.raises(DataError, match="no valid checkpoint"):
        open_classifier(model_dir, checkpoint=str(tmp_path / "model.ckpt-30"))


def test_a_folder_without_a_model(run: Trained, tmp_path: Any) -> None:
    with pytest.raises(ConfigError, match="neither a run"):
        open_classifier(str(tmp_path))
    shutil.copy(os.path.join(run.model_dir, "config.json"), tmp_path)
    with pytest.raises(DataError, match="train first"):
        open_classifier(str(tmp_path))
    record = json.loads((tmp_path / "config.json").read_text())
    del record["class_names"]
    (tmp_path / "config.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match="class_names"):
        open_classifier(str(tmp_path))
