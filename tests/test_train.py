"""Training jobs from end to end, on one rank."""

import contextlib
import importlib.util
import io
import json
import math
import os
import pathlib
import re
import shutil
from typing import Any, Dict, Iterator, List, NamedTuple

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from PIL import Image

from alexnet_estimator import __main__ as cli
from alexnet_estimator import checkpoints, run_record
from alexnet_estimator.errors import ConfigError, DataError
from alexnet_estimator.hooks.guard import FiniteGuard
from alexnet_estimator.optim import schedules
from alexnet_estimator.records import convert
from tests import pictures
from tests.training import (
    evaluation,
    metrics,
    open_job,
    run_job,
    steady_metrics,
    train,
    variables,
    without_report,
)

TINY = str(pathlib.Path(__file__).resolve().parents[1] / "configs" / "tiny.py")
STEPS_PER_EPOCH = 6  # 49 images in batches of 8; `story` has 48 images.
EVALUATION_FIELDS = {
    "global_step",
    "num_images",
    "loss",
    "top_1_accuracy",
    "top_5_accuracy",
    "balanced_accuracy",
    "f1_per_class",
    "confusion_matrix",
    "class_names",
}


def run_words(*words: str) -> str:
    """Run a command line that must succeed, and return its output."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        assert cli.main(list(words)) == 0
    return output.getvalue()


class Story(NamedTuple):
    """A run of 40 steps that is resumed up to step 60, and then started again."""

    model_dir: str
    outputs: List[str]
    data_times: List[Dict[str, int]]


def file_times(folder: str) -> Dict[str, int]:
    paths = pathlib.Path(folder).rglob("*")
    return {str(path): path.stat().st_mtime_ns for path in paths}


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, picture_folder: str) -> Story:
    """Train on raw pictures with the command line, in three starts."""
    model_dir = str(tmp_path_factory.mktemp("story") / "run")
    words = [f"--data_path={picture_folder}", f"--model_dir={model_dir}"]
    words += [f"--config={TINY}", "--config.train.eval_every_epochs=4"]
    outputs, data_times = [], []
    for num_steps in (40, 60, 60):
        outputs.append(run_words("train", *words, f"--train_steps={num_steps}"))
        data_times.append(file_times(model_dir + ".data"))
    return Story(model_dir, outputs, data_times)


def test_a_run_leaves_what_is_promised_and_nothing_else(story: Story) -> None:
    names = sorted(os.listdir(story.model_dir))
    checkpoint = r"model\.ckpt-(\d+)\.(index|data-00000-of-00001)"
    steps = {m.group(1) for m in (re.fullmatch(checkpoint, n) for n in names) if m}
    best = json.loads(pathlib.Path(story.model_dir, "best.json").read_text())["step"]
    assert steps == {"40", "48", "60", str(best)}
    rest = {name for name in names if not re.fullmatch(checkpoint, name)}
    events = {name for name in rest if name.startswith("events.out.tfevents.")}
    expected = {".lock", "best.json", "checkpoint", "config.json"}
    expected |= {"eval", "metrics.jsonl"}
    expected |= {"conv1_kernels.png", "samples.json", "report.html"}
    if importlib.util.find_spec("matplotlib"):
        expected.add("report")
    assert rest - events == expected
    assert len(events) == 3  # One for each start.
    newest = checkpoints.path_of(story.model_dir, 60)
    assert tf.train.latest_checkpoint(story.model_dir) == newest
    results = [
        n for n in os.listdir(os.path.join(story.model_dir, "eval")) if "js" in n
    ]
    assert sorted(results) == [f"{step}.json" for step in (24, 40, 48, 60)]
    # Estimator itself writes no events, so there is one file for each start.
    assert len(os.listdir(os.path.join(story.model_dir, "eval"))) == 4 + 3


def test_the_configuration_is_recorded_as_resolved(story: Story) -> None:
    path = os.path.join(story.model_dir, "config.json")
    config = run_record.read(path).config
    assert config.train.steps == 60
    assert config.precision.mode == "must_keep_origin_dtype"
    assert len(config.data.mean_rgb) == 3 and min(config.data.mean_rgb) > 50
    record = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    assert record["class_names"] == ["apple", "ocean", "tree"]
    assert (record["device"], record["num_ranks"]) == ("cpu", 1)
    assert record["versions"]["tensorflow"] == tf.__version__
    assert re.fullmatch("[0-9a-f]{64}", record["data_digest"])


def test_metrics_tell_the_whole_story(story: Story) -> None:
    records = metrics(story.model_dir)
    assert all({"event", "step", "time_secs"} <= set(record) for record in records)
    times = [record["time_secs"] for record in records]
    assert times == sorted(times)
    trained = [record["step"] for record in records if record["event"] == "train"]
    assert trained == sorted(set(trained))
    assert set(trained) >= set(range(4, 61, 2)) - {26, 42, 50}  # These start a window.
    others = [(r["event"], r["step"]) for r in records if r["event"] != "train"]
    first = [("start", 0), ("evaluation", 24), ("evaluation", 40), ("end", 40)]
    second = [("start", 40), ("evaluation", 48), ("evaluation", 60), ("end", 60)]
    assert others == [*first, *second, ("start", 60), ("evaluation", 60), ("end", 60)]
    for record in records:
        if record["event"] == "train":
            assert record["images_per_sec"] > 0 and record["gradient_norm"] > 0
            assert record["epoch"] == round(record["step"] / STEPS_PER_EPOCH, 3)
            assert (record["loss_scale"], record["num_skipped_steps"]) == (1.0, 0)


def test_it_learns(story: Story) -> None:
    losses = [record["loss"] for record in metrics(story.model_dir, "train")]
    assert np.mean(losses[-5:]) < 0.3 * np.mean(losses[:5])
    assert evaluation(story.model_dir, 60)["top_1_accuracy"] >= 0.9
    assert "0.3333 is the accuracy of always predicting it" in story.outputs[0]


def test_an_evaluation_is_complete(story: Story) -> None:
    for step in (24, 60):
        result = evaluation(story.model_dir, step)
        assert set(result) == EVALUATION_FIELDS
        assert (result["global_step"], result["num_images"]) == (step, 12)
        confusion = np.array(result["confusion_matrix"])
        assert confusion.sum(axis=1).tolist() == [4, 4, 4]
        assert result["top_1_accuracy"] == np.trace(confusion) / 12
        # Every class has the same number of pictures.
        assert result["balanced_accuracy"] == pytest.approx(result["top_1_accuracy"])
        assert result["top_5_accuracy"] == 1.0  # There are three classes.
        assert result["loss"] > 0
        assert result["class_names"] == ["apple", "ocean", "tree"]
        logged = [
            r for r in metrics(story.model_dir, "evaluation") if r["step"] == step
        ]
        assert {r["top_1_accuracy"] for r in logged} == {result["top_1_accuracy"]}


def test_tensorboard_finds_scalars_and_pictures(story: Story) -> None:
    scalars: Dict[str, Dict[int, float]] = {}
    images = {}
    for path in sorted(pathlib.Path(story.model_dir).rglob("events.*")):
        folder = path.parent.name
        for event in tf.train.summary_iterator(str(path)):
            for value in event.summary.value:
                if value.HasField("image"):
                    images[value.tag, event.step] = value.image.encoded_image_string
                elif value.HasField("simple_value"):
                    by_step = scalars.setdefault(f"{folder}/{value.tag}", {})
                    by_step[event.step] = value.simple_value
    tags = ("loss", "optimizer/learning_rate", "throughput/images_per_sec")
    for record in metrics(story.model_dir, "train"):
        for tag in tags:
            seen = scalars[f"run/{tag}"][record["step"]]
            assert seen == pytest.approx(record[tag.split("/")[-1]])
    for tag in ("loss", "accuracy/top_1"):
        assert len(scalars[f"run/{tag}"]) > 20
        assert sorted(scalars[f"eval/{tag}"]) == [24, 40, 48, 60]
    for tag in ("input_samples", "conv1_kernels", "confusion_matrix"):
        steps = sorted(step for name, step in images if name == tag)
        assert steps == [24, 40, 48, 60]
    logged = metrics(story.model_dir, "evaluation")
    lacking = {r["step"] for r in logged if r["top_1_accuracy"] < 1}
    assert {step for name, step in images if name == "mistakes"} == lacking
    picture = Image.open(io.BytesIO(images["conv1_kernels", 60]))
    # 8 kernels of 11 x 11 weights in rows of 4; a weight has 4 pixels, as has a gap.
    assert picture.size == (4 * 48 + 4, 2 * 48 + 4)
    assert images["conv1_kernels", 60] != images["conv1_kernels", 24]


def test_resuming_continues_the_schedule(story: Story) -> None:
    num_seen = {40: 0, 60: 0}
    for record in metrics(story.model_dir, "train"):
        # The record of step n describes the update from step n - 1.
        step, total = record["step"] - 1, 40 if record["step"] <= 40 else 60
        num_seen[total] += 1
        rate = 0.01 * (1 + math.cos(math.pi * step / total)) / 2
        assert record["learning_rate"] == pytest.approx(rate, rel=1e-4)
    assert min(num_seen.values()) >= 8


def test_every_start_says_where_it_starts(story: Story) -> None:
    first, second, third = story.outputs
    assert re.search(r"starts from +new weights", first)
    assert re.search(r"starts from +step 40\n", second)
    assert re.search(r"starts from +step 60, already finished", third)
    assert "step 2/40 " in first and "step 42/60 " not in third
    for output, step in zip(story.outputs, (40, 60, 60)):
        accuracy = evaluation(story.model_dir, step)["top_1_accuracy"]
        assert re.search(rf"accuracy +{accuracy:.4f} on 12 unseen images", output)
        assert f"{story.model_dir}/model.ckpt-{step}\n" in output
    assert re.search(r"model +AlexNet, [\d,]+ parameters", first)
    weights = variables(story.model_dir)
    num_parameters = sum(
        value.size
        for name, value in weights.items()
        if name.endswith(("kernel", "bias"))
    )
    assert f"{num_parameters:,} parameters" in first


def test_raw_pictures_are_converted_once(story: Story) -> None:
    first, second, third = story.data_times
    assert first == second == third
    assert len([path for path in first if path.endswith("dataset.json")]) == 1


def test_evaluate_repeats_the_evaluations_of_training(
    story: Story, tmp_path: pathlib.Path
) -> None:
    words = ["evaluate", f"--model_dir={story.model_dir}"]
    checkpoint = f"--checkpoint={story.model_dir}/model.ckpt-48"
    choices: List[Any] = [(60, []), (48, [checkpoint])]
    for step, more in choices:
        path = pathlib.Path(story.model_dir, "eval", f"{step}.json")
        before = json.loads(path.read_text())
        path.unlink()
        output = run_words(*words, *more)
        assert json.loads(path.read_text()) == before
        assert f"step {step}: accuracy {before['top_1_accuracy']:.4f}" in output


def test_the_evaluation_of_a_foreign_checkpoint_is_not_saved(
    story: Story, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    for file in pathlib.Path(story.model_dir).glob("model.ckpt-48.*"):
        shutil.copy(str(file), str(tmp_path))
    path = pathlib.Path(story.model_dir, "eval", "48.json")
    before = path.stat().st_mtime_ns
    words = ["evaluate", f"--model_dir={story.model_dir}"]
    output = run_words(*words, f"--checkpoint={tmp_path}/model.ckpt-48")
    assert "step 48: accuracy" in output
    assert path.stat().st_mtime_ns == before
    message = f"{tmp_path}/model.ckpt-48 is not of {story.model_dir}"
    assert message in capsys.readouterr().err


def test_the_record_of_a_finished_run_stays(
    data_dir: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    first = {"batch_size_per_rank": 16, "steps": 0, "epochs": 2.0}
    run_job(data_dir, tmp_path, train=first)
    record = (tmp_path / "config.json").read_text()
    assert "it is evaluated only" not in capsys.readouterr().err
    second = {"batch_size_per_rank": 49, "steps": 0, "epochs": 4.0}
    run_job(data_dir, tmp_path, train=second)
    warning = capsys.readouterr().err
    assert "has taken 6 steps, and this command asks for 4: it is" in warning
    assert "the global batch size was 16 and is 49: the 6 steps" in warning
    assert "count as 6 epochs" in warning
    assert (tmp_path / "config.json").read_text() == record
    run_job(data_dir, tmp_path, train={"batch_size_per_rank": 49, "steps": 7})
    assert run_record.read(f"{tmp_path}/config.json").config.train.steps == 7
    assert "global batch size was" not in capsys.readouterr().err


def test_a_folder_of_pictures_is_no_folder_for_a_run(
    data_dir: str, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "one.JPG").touch()
    with pytest.raises(ConfigError, match="contains pictures .one.JPG"):
        run_job(data_dir, tmp_path)
    assert os.listdir(str(tmp_path)) == ["one.JPG"]


def test_training_needs_pictures_to_evaluate(
    picture_folder: str, tmp_path: pathlib.Path
) -> None:
    settings = pictures.settings(eval_fraction=0.0)
    converted = convert.convert(picture_folder, str(tmp_path / "data"), settings)
    with pytest.raises(DataError, match="no picture is held out .*eval_fraction"):
        run_job(converted.directory, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_evaluation_does_not_depend_on_its_batches(story: Story) -> None:
    before = evaluation(story.model_dir, 60)
    run_words("evaluate", f"--model_dir={story.model_dir}", "--batch_size=5")
    after = evaluation(story.model_dir, 60)
    assert after.pop("loss") == pytest.approx(before.pop("loss"), rel=1e-5)
    assert after == before


def test_a_zip_is_data_as_well(picture_folder: str, tmp_path: pathlib.Path) -> None:
    archive = pictures.make_zip(picture_folder, tmp_path / "fruit.zip")
    model_dir = tmp_path / "run"
    words = [f"--config={TINY}", f"--data_path={archive}", "--train_steps=2"]
    with without_report():
        run_words("train", *words, f"--model_dir={model_dir}")
    assert evaluation(model_dir, 2)["num_images"] == 12
    assert sorted(os.listdir(str(tmp_path))) == ["fruit.zip", "run", "run.data"]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, data_dir: str) -> str:
    """Return the folder of a run of 20 steps, evaluated at its end."""
    model_dir = str(tmp_path_factory.mktemp("reference") / "run")
    run_job(data_dir, model_dir)
    return model_dir


def test_equal_seeds_give_equal_runs(
    reference: str, data_dir: str, tmp_path: pathlib.Path
) -> None:
    run_job(data_dir, tmp_path / "again")
    assert steady_metrics(tmp_path / "again") == steady_metrics(reference)
    run_job(data_dir, tmp_path / "other", train={"seed": 1, "steps": 4})
    pairs = zip(metrics(tmp_path / "other", "train"), metrics(reference, "train"))
    assert all(mine["loss"] != other["loss"] for mine, other in pairs)


class Crash(Exception):
    """Ends a run like a crash, without saving."""


@pytest.fixture
def crash_at(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a context in which training crashes after a step."""

    @contextlib.contextmanager
    def crash(step: int) -> Iterator[None]:
        def after_run(self: Any, run_context: Any, run_values: Any) -> None:
            if run_values.results["step"] >= step:
                raise Crash

        with monkeypatch.context() as patch:
            patch.setattr(FiniteGuard, "after_run", after_run)
            with pytest.raises(Crash):
                yield

    return crash


def test_interrupted_equals_uninterrupted(
    reference: str, data_dir: str, tmp_path: pathlib.Path, crash_at: Any
) -> None:
    changes: Dict[str, Dict[str, Any]] = {"train": {"save_every_steps": 5}}
    with crash_at(13):
        run_job(data_dir, tmp_path, **changes)
    assert checkpoints.latest(str(tmp_path)) == str(tmp_path / "model.ckpt-10")
    run_job(data_dir, tmp_path, **changes)
    expected, found = variables(reference), variables(tmp_path)
    assert set(found) == set(expected) and len(found) > 30
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    assert evaluation(tmp_path, 20) == evaluation(reference, 20)


def test_the_target_accuracy_ends_a_run(data_dir: str, tmp_path: pathlib.Path) -> None:
    training = {"steps": 1000, "eval_every_epochs": 2.0, "target_accuracy": 0.9}
    result = run_job(data_dir, tmp_path, train=training)
    assert result["top_1_accuracy"] >= 0.9
    assert result["global_step"] < 200
    earlier = metrics(tmp_path, "evaluation")[:-1]
    assert all(record["top_1_accuracy"] < 0.9 for record in earlier)
    num_trained = len(metrics(tmp_path, "train"))
    again = run_job(data_dir, tmp_path, train=training)
    assert again["global_step"] == result["global_step"]
    assert len(metrics(tmp_path, "train")) == num_trained


# Changes of the configuration, each with a variable that shows its effect.
OPTIMIZERS: List[Any] = [
    (
        {"schedule": "step", "decay_epochs": (0.5, 1.0), "use_nesterov": True},
        "alexnet/fc8/kernel/Momentum",
    ),
    (
        {"schedule": "cosine", "warmup_epochs": 0.5, "optimizer": "adam"},
        "alexnet/fc8/kernel/Adam_1",
    ),
    (
        {
            "schedule": "polynomial",
            "polynomial_power": 2.0,
            "end_learning_rate": 1e-3,
            "ema_decay": 0.5,
        },
        "alexnet/fc8/kernel/ExponentialMovingAverage",
    ),
]


@pytest.mark.parametrize("optim, variable", OPTIMIZERS, ids=["step", "adam", "ema"])
def test_schedules_and_optimizers(
    optim: Dict[str, Any], variable: str, data_dir: str, tmp_path: pathlib.Path
) -> None:
    changes: Dict[str, Dict[str, Any]] = {"optim": optim, "train": {"steps": 9}}
    job = open_job(data_dir, tmp_path, **changes)
    result = train(job)
    records = metrics(tmp_path, "train")
    assert [record["step"] for record in records] == list(range(2, 10))
    rates = [record["learning_rate"] for record in records]
    plan = job.learning_rate_plan
    assert plan.total_steps == 9
    expected = [float(schedules.learning_rate(s, plan)) for s in np.arange(1.0, 9.0)]
    assert rates == pytest.approx(expected, rel=1e-5)
    assert len(set(rates)) > 1
    found = variables(tmp_path)
    assert found[variable].shape == found["alexnet/fc8/kernel"].shape
    assert np.abs(found[variable]).max() > 0
    if "ema_decay" in optim:
        check_average(job, result, found)


def check_average(job: Any, result: Dict[str, Any], found: Dict[str, Any]) -> None:
    """Check that the averages were evaluated and not the weights."""
    average = found["alexnet/fc8/kernel/ExponentialMovingAverage"]
    assert not np.array_equal(average, found["alexnet/fc8/kernel"])
    os.remove(os.path.join(job.model_dir, "eval", "9.json"))
    run_words("evaluate", f"--model_dir={job.model_dir}", "--config.optim.ema_decay=0")
    assert evaluation(job.model_dir, 9)["loss"] != result["loss"]
    run_words("evaluate", f"--model_dir={job.model_dir}")
    assert evaluation(job.model_dir, 9) == result


def test_a_plateau_lowers_the_rate_and_is_remembered(
    data_dir: str, tmp_path: pathlib.Path
) -> None:
    optim = {
        "schedule": "plateau",
        "plateau_patience_epochs": 1.0,
        "plateau_min_gain": 1.0,  # No accuracy can gain this much.
    }
    for num_steps in (12, 18):
        training = {"steps": num_steps, "eval_every_epochs": 1.0}
        run_job(data_dir, tmp_path, optim=optim, train=training)
    for record in metrics(tmp_path, "train"):
        num_evaluations = (record["step"] - 1) // STEPS_PER_EPOCH
        rate = 0.01 * 0.1 ** max(0, num_evaluations - 1)
        assert record["learning_rate"] == pytest.approx(rate, rel=1e-5)
    assert {r["step"] for r in metrics(tmp_path, "train")} >= {2, 12, 14, 18}


@pytest.fixture(scope="module")
def first_steps(tmp_path_factory: pytest.TempPathFactory, data_dir: str) -> str:
    """Return the folder of the first 3 steps of ``reference``, which tests copy."""
    model_dir = str(tmp_path_factory.mktemp("first_steps") / "run")
    run_job(data_dir, model_dir, train={"steps": 3})
    return model_dir


def loss_of_step(model_dir: Any, step: int) -> float:
    records = metrics(model_dir, "train")
    return next(record["loss"] for record in records if record["step"] == step)


def test_label_smoothing_bounds_the_loss(data_dir: str, tmp_path: pathlib.Path) -> None:
    smoothing = 0.6
    run_job(data_dir, tmp_path, optim={"label_smoothing": smoothing})
    targets = [1 - smoothing + smoothing / 3, smoothing / 3, smoothing / 3]
    entropy = -sum(share * math.log(share) for share in targets)
    losses = [record["loss"] for record in metrics(tmp_path, "train")]
    assert entropy <= min(losses) < 1.3 * entropy


def test_colour_noise_changes_what_is_seen(
    reference: str, first_steps: str, data_dir: str, tmp_path: pathlib.Path
) -> None:
    run = shutil.copytree(first_steps, str(tmp_path / "run"))
    run_job(data_dir, run, train={"steps": 5}, data={"colour_noise_std": 0.1})
    plain, noisy = loss_of_step(reference, 5), loss_of_step(run, 5)
    # The noise is small, so the pictures are the same ones.
    assert noisy != plain
    assert noisy == pytest.approx(plain, rel=0.3)


def test_mixed_precision_follows_float32(
    reference: str, first_steps: str, data_dir: str, tmp_path: pathlib.Path
) -> None:
    run = shutil.copytree(first_steps, str(tmp_path / "run"))
    run_job(data_dir, run, train={"steps": 6}, precision={"mode": "mixed"})
    records = [r for r in metrics(run, "train") if r["step"] > 3]
    assert [record["step"] for record in records] == [5, 6]
    for record in records:
        assert record["loss_scale"] >= 1024
        plain = loss_of_step(reference, record["step"])
        assert record["loss"] == pytest.approx(plain, rel=0.02)
        assert record["loss"] != plain
    kinds = {v.dtype for v in variables(run).values() if v.dtype.kind == "f"}
    assert kinds == {np.dtype(np.float32)}


def test_gradients_are_clipped(
    reference: str, data_dir: str, tmp_path: pathlib.Path
) -> None:
    norm = 1e-3
    optim = {"gradient_clip_norm": norm, "momentum": 0.0, "weight_decay": 0.0}
    training = {"steps": 4, "save_every_steps": 1, "keep_checkpoints": 9}
    run_job(data_dir, tmp_path, optim=optim, train=training)
    steps = [variables(tmp_path, step) for step in (1, 2, 3, 4)]
    names = [
        name for name in steps[0] if re.fullmatch(r"alexnet/\w+/(kernel|bias)", name)
    ]
    assert len(names) == 16
    for before, after in zip(steps, steps[1:]):
        squares = sum(np.sum((after[n] - before[n]) ** 2.0) for n in names)
        # Gradient descent moves the weights by the learning rate times the norm.
        assert math.sqrt(squares) == pytest.approx(0.01 * norm, rel=0.02)
    # The logged norm is the norm before clipping.
    assert min(record["gradient_norm"] for record in metrics(tmp_path, "train")) > 0.1
