"""Training jobs on several ranks, which are processes connected by Horovod."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from typing import Any, Dict, List, NamedTuple

import numpy as np
import pytest

from alexnet_estimator import __main__ as cli
from alexnet_estimator import inputs, rank_table, records
from alexnet_estimator.optim import schedules
from tests import pictures, tiny
from tests.conftest import CLASS_NAMES
from tests.ranks import read_weights, run_ranks
from tests.training import evaluation, metrics, open_job, variables, without_report

pytest.importorskip("horovod", reason="Horovod is not installed")

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
LIMIT_SECS = 120
CONFIG = """
import a_module_of_mine

def get_config():
    return a_module_of_mine.config
"""
MODULE = """
from alexnet_estimator import config_file

config = config_file.load_config_file({tiny!r})
config.optim.learning_rate_scaling = "linear"
config.train.eval_every_epochs = 0.0
config.train.log_every_steps = 1
"""


def make_table(folder: pathlib.Path, num_devices: int) -> str:
    path = str(folder / f"{num_devices}p.json")
    rank_table.write(rank_table.make(["127.0.0.1"], num_devices), path)
    return path


class Job(NamedTuple):
    """A finished job of two ranks, started from another folder."""

    model_dir: pathlib.Path
    words: List[str]
    environment: Dict[str, str]
    output: str
    errors: str


def start(words: List[str], environment: Dict[str, str], folder: Any) -> Any:
    return subprocess.Popen(
        [sys.executable, "-m", "alexnet_estimator", *words],
        env=environment,
        cwd=str(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory, picture_folder: str) -> Job:
    """Train six steps on raw pictures, with a module that only PYTHONPATH finds."""
    folder = tmp_path_factory.mktemp("two_ranks")
    (folder / "modules").mkdir()
    tiny_path = str(REPOSITORY / "configs" / "tiny.py")
    (folder / "modules" / "a_module_of_mine.py").write_text(
        MODULE.format(tiny=tiny_path)
    )
    (folder / "mine.py").write_text(CONFIG)
    (folder / "temporary").mkdir()
    words = [
        *("train", "--config=mine.py", f"--data_path={picture_folder}"),
        *("--model_dir=run", "--train_steps=6"),
        f"--rank_table={make_table(folder, 2)}",
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{folder / 'modules'}:{REPOSITORY}",
        "TMPDIR": str(folder / "temporary"),
    }
    process = start(words, environment, folder)
    output, errors = process.communicate(timeout=LIMIT_SECS)
    assert process.returncode == 0, errors + output
    return Job(folder / "run", words, environment, output, errors)


def test_the_report_shows_pictures_of_all_ranks(two_ranks: Job) -> None:
    """Each rank has evaluated six of the twelve pictures."""
    text = (two_ranks.model_dir / "samples.json").read_text(encoding="utf-8")
    samples = json.loads(text)
    shown = samples["pictures"]
    wrong = [p for p in shown if p["answers"][0][0] != p["label"]]
    assert (samples["num_images"], len(shown)) == (12, 12)
    assert samples["num_mistakes"] == len(wrong)
    assert len({p["file"] for p in shown}) == 12
    for picture in shown:
        assert picture["file"].split("/")[0] == CLASS_NAMES[picture["label"]]


def test_a_job_leaves_logs_and_no_other_traces_of_its_ranks(two_ranks: Job) -> None:
    names = os.listdir(str(two_ranks.model_dir))
    assert [n for n in names if n.startswith(".")] == [".lock"]
    assert [n for n in names if "tmp" in n or "saving" in n] == []
    assert len([n for n in names if n.startswith("events.")]) == 1
    logs = two_ranks.model_dir / "logs"
    assert sorted(os.listdir(str(logs))) == ["rank_0.log", "rank_1.log"]
    assert os.listdir(two_ranks.environment["TMPDIR"]) == []
    assert sorted(os.listdir(str(two_ranks.model_dir.parent))) == [
        *("2p.json", "mine.py", "modules", "run", "run.data", "temporary")
    ]


def test_rank_0_speaks_for_all(two_ranks: Job) -> None:
    assert two_ranks.output.count("-- AlexNet --") == 1
    assert two_ranks.output.count("step 6/6  evaluated 12 images") == 1
    logs = two_ranks.model_dir / "logs"
    assert two_ranks.output in (logs / "rank_0.log").read_text()
    silent = (logs / "rank_1.log").read_text()
    assert "AlexNet" not in silent and "step 6/6" not in silent
    assert re.search(r"batch size +8 per rank, 16 in total", two_ranks.output)
    assert re.search(r"steps +6, 3 per epoch", two_ranks.output)
    for rank in (0, 1):
        text = rf"rank {rank} reads +2 of 3 files, 24 images"
        assert re.search(text, two_ranks.output)
    # The launcher converts the pictures, and the ranks only read them.
    converted = "48 pictures to train and 12 to validate"
    assert two_ranks.errors.count(converted) == 1
    assert converted not in two_ranks.output + silent


def test_a_job_of_two_ranks_is_recorded_once(two_ranks: Job) -> None:
    events = [(r["event"], r["step"]) for r in metrics(two_ranks.model_dir)]
    trained = [("train", step) for step in range(2, 7)]
    assert events == [("start", 0), *trained, ("evaluation", 6), ("end", 6)]
    assert metrics(two_ranks.model_dir, "start")[0]["num_ranks"] == 2
    record = json.loads((two_ranks.model_dir / "config.json").read_text())
    assert record["num_ranks"] == 2
    assert (
        record["config"]["runtime"]["num_threads"] == 0
    )  # The launcher chooses the number.
    assert evaluation(two_ranks.model_dir, 6)["num_images"] == 12


def test_the_learning_rate_grows_with_the_ranks(two_ranks: Job) -> None:
    plan = schedules.LearningRatePlan("cosine", 2 * 0.01, total_steps=6)
    for record in metrics(two_ranks.model_dir, "train"):
        rate = float(schedules.learning_rate(record["step"] - 1.0, plan))
        assert record["learning_rate"] == pytest.approx(rate, rel=1e-4)


def test_a_finished_job_ends_at_once_on_all_ranks(two_ranks: Job) -> None:
    before = evaluation(two_ranks.model_dir, 6)
    weights = variables(two_ranks.model_dir)
    folder = two_ranks.model_dir.parent
    words = [*two_ranks.words, "--quiet"]
    process = start(words, two_ranks.environment, folder)
    output, errors = process.communicate(timeout=LIMIT_SECS)
    assert process.returncode == 0, errors + output
    assert output.startswith("-- done ---") and output.count("\n") == 10
    assert evaluation(two_ranks.model_dir, 6) == before
    assert len(metrics(two_ranks.model_dir, "train")) == 5
    assert [r["step"] for r in metrics(two_ranks.model_dir, "evaluation")] == [6, 6]
    for name, value in variables(two_ranks.model_dir).items():
        np.testing.assert_array_equal(value, weights[name])
    assert os.listdir(two_ranks.environment["TMPDIR"]) == []


def config_file(path: pathlib.Path, **changes: Dict[str, Any]) -> str:
    """Write the configuration of ``tiny.config`` as a file."""
    config = tiny.config(**changes)
    path.write_text(json.dumps({"config": config.to_dict()}))
    return f"--config={path}"


def test_two_ranks_equal_one_with_twice_the_batch(tmp_path: pathlib.Path) -> None:
    """Compare the weights after ten steps.

    There are two files of equal size, and records are not shuffled.  Each of the two
    ranks reads one file in order.  The single rank reads both files at a time and takes
    their records in turn, so its batch holds the images of the batches of both ranks.
    """
    data = pictures.make_dataset(
        tmp_path / "data", num_per_class=20, images_per_shard=16, eval_images=8
    )
    counts = [shard.num_images for shard in data.splits["train"].shards]
    assert counts == [16, 16]
    changes: Dict[str, Dict[str, Any]] = {
        "data": {
            "path": data.directory,
            "use_augmentation": False,
            "shuffle_images": 1,
            "interleave_files": 2,
        },
        "model": {"keep_prob": 1.0},
        "train": {"steps": 10, "eval_every_epochs": 0.0},
    }
    changes["train"]["batch_size_per_rank"] = 8
    words = ["train", config_file(tmp_path / "alone.json", **changes)]
    with without_report():
        assert cli.main([*words, f"--model_dir={tmp_path / 'alone'}"]) == 0
    changes["train"]["batch_size_per_rank"] = 4
    words = ["train", config_file(tmp_path / "both.json", **changes)]
    assert run_ranks(2, words, tmp_path / "both") == 0
    alone, both = variables(tmp_path / "alone"), variables(tmp_path / "both")
    assert set(alone) == set(both) and len(alone) > 30
    assert alone["global_step"] == both["global_step"] == 10
    errors = {name: relative_error(both[name], alone[name]) for name in alone}
    assert max(errors.values()) <= 1e-5, errors

    words.append("--config.precision.gradient_compression=fp16")
    assert run_ranks(2, words, tmp_path / "compressed") == 0
    compressed = variables(tmp_path / "compressed")
    errors = {name: relative_error(compressed[name], alone[name]) for name in alone}
    assert 1e-5 < max(errors.values()) < 0.05, errors


def relative_error(value: np.ndarray, expected: np.ndarray) -> float:
    return np.linalg.norm(value - expected) / max(np.linalg.norm(expected), 1e-30)


class Group(NamedTuple):
    """A run of three ranks, with all random operations switched on."""

    model_dir: pathlib.Path
    weights_dir: pathlib.Path


@pytest.fixture(scope="module")
def three_ranks(tmp_path_factory: pytest.TempPathFactory) -> Group:
    """Train on one file of 49 images, which three ranks cannot divide evenly."""
    folder = tmp_path_factory.mktemp("three_ranks")
    data = pictures.make_dataset(
        folder / "data", CLASS_NAMES, 20, images_per_shard=60, eval_images=11
    )
    assert [len(split.shards) for split in data.splits.values()] == [1, 1]
    group = Group(folder / "run", folder / "weights")
    group.weights_dir.mkdir()
    config = config_file(
        folder / "config.json",
        data={"path": data.directory, "colour_noise_std": 0.1},
        optim={"ema_decay": 0.9, "optimizer": "adam"},
        precision={"loss_scale": "dynamic"},
        train={"steps": 4, "eval_every_epochs": 0.0},
    )
    assert run_ranks(3, ["train", config], group.model_dir, group.weights_dir) == 0
    return group


def test_all_ranks_end_with_the_same_bytes(three_ranks: Group) -> None:
    first = read_weights(three_ranks.weights_dir, 0)
    assert first["global_step"] == 4
    for rank in (1, 2):
        other = read_weights(three_ranks.weights_dir, rank)
        assert set(other) == set(first) and len(first) > 60
        for name, value in first.items():
            assert other[name].tobytes() == value.tobytes(), name
    saved = variables(three_ranks.model_dir)
    for name, value in saved.items():
        assert first[name].tobytes() == value.tobytes(), name


def test_evaluation_is_exact_on_any_number_of_ranks(three_ranks: Group) -> None:
    """Neither two nor three ranks can divide the 11 images, all in one file, evenly."""
    trained = evaluation(three_ranks.model_dir, 4)
    assert trained["num_images"] == np.sum(trained["confusion_matrix"]) == 11
    results = {3: trained}
    path = three_ranks.model_dir / "eval" / "4.json"
    words = ["evaluate", f"--model_dir={three_ranks.model_dir}"]
    path.unlink()
    assert cli.main(words) == 0
    results[1] = evaluation(three_ranks.model_dir, 4)
    path.unlink()
    assert run_ranks(2, words[:1], three_ranks.model_dir) == 0
    results[2] = evaluation(three_ranks.model_dir, 4)
    losses = [result.pop("loss") for result in results.values()]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-6)
    assert results[1] == results[2] == results[3]


def test_eight_ranks_read_every_image_once(tmp_path: pathlib.Path) -> None:
    data = pictures.make_dataset(
        tmp_path, num_per_class=20, images_per_shard=5, eval_images=7
    )
    assert [len(split.shards) for split in data.splits.values()] == [7, 2]
    settings = tiny.config(data={"use_augmentation": False}).data
    trained, evaluated = [], []
    for rank in range(8):
        num_images = inputs.slices_of_rank([("", 33)], rank, 8)[0].take
        reader = inputs.Reader(rank, 8, num_images)
        batches = tiny.read(lambda: inputs.train_batches(data, settings, reader, 0), 1)
        features, _ = batches[0]  # An epoch of this rank.
        trained.append([image.tobytes() for image in features["image"]])
        reader = inputs.Reader(rank, 8, 1)
        batches = tiny.read(lambda: inputs.eval_batches(data, settings, reader), 1)
        features, _ = batches[0]
        if features["weight"][0]:
            evaluated.append(features["image"][0].tobytes())
    images = [image for part in trained for image in part]
    assert sorted(map(len, trained)) == [4] * 7 + [5]
    assert len(images) == len(set(images)) == 33
    assert len(evaluated) == len(set(evaluated)) == 7
    assert not set(images) & set(evaluated)


def ranks_of(launcher: int) -> Dict[int, int]:
    """Return the process of every rank that a launcher has started."""
    found = {}
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            variables_of_process = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # It has ended.
        for variable in variables_of_process:
            if parent == launcher and variable.startswith(b"HOROVOD_RANK="):
                found[int(variable.partition(b"=")[2])] = int(folder.name)
    return found


def wait_for_step(model_dir: pathlib.Path, process: Any) -> None:
    deadline = time.monotonic() + LIMIT_SECS
    while time.monotonic() < deadline and process.poll() is None:
        path = model_dir / "metrics.jsonl"
        if path.exists() and '"train"' in path.read_text():
            return
        time.sleep(0.1)
    pytest.fail("no step was trained")


def long_job(folder: pathlib.Path, data_dir: str, **training: Any) -> List[str]:
    training = {"steps": 10**6, "save_every_secs": 0, **training}
    return [
        *("train", f"--rank_table={make_table(folder, 2)}"),
        config_file(
            folder / "long.json",
            data={"path": data_dir},
            optim={"learning_rate": 1e-6},  # It must not diverge before its end.
            train=training,
        ),
        f"--model_dir={folder / 'run'}",
    ]


def test_a_killed_rank_ends_the_job(tmp_path: pathlib.Path, data_dir: str) -> None:
    words = long_job(tmp_path, data_dir, eval_every_epochs=0.0)
    (tmp_path / "temporary").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "temporary")}
    process = start(words, environment, REPOSITORY)
    wait_for_step(tmp_path / "run", process)
    ranks = ranks_of(process.pid)
    assert set(ranks) == {0, 1}
    os.kill(ranks[1], signal.SIGKILL)
    _, errors = process.communicate(timeout=LIMIT_SECS)
    assert process.returncode == 5
    assert "rank 1 was killed by SIGKILL" in errors
    assert os.listdir(environment["TMPDIR"]) == []
    survivor = (tmp_path / "run" / "logs" / "rank_0.log").read_text()
    assert "error: another rank has ended" in survivor
    assert "Traceback" not in survivor
    assert not any(os.path.exists(f"/proc/{pid}") for pid in ranks.values())


def test_an_error_of_rank_0_alone_ends_the_job(
    tmp_path: pathlib.Path, data_dir: str
) -> None:
    words = long_job(tmp_path, data_dir, eval_every_epochs=20.0)
    process = start(words, dict(os.environ), REPOSITORY)
    wait_for_step(tmp_path / "run", process)
    # A folder has the name of the file in which rank 0 writes its evaluation.
    (tmp_path / "run" / "eval" / "120.json").mkdir(parents=True)
    ranks = ranks_of(process.pid)
    output, errors = process.communicate(timeout=LIMIT_SECS)
    assert process.returncode == 3, errors + output
    assert "rank 0 failed with exit code 3" in errors
    assert "120.json" in output and "it is a folder" in output
    assert not any(os.path.exists(f"/proc/{pid}") for pid in ranks.values())


@pytest.mark.parametrize(
    "scaling, rate", [("none", "0.01"), ("linear", "0.08"), ("sqrt", "0.0282843")]
)
def test_a_dry_run_shows_the_job_and_starts_nothing(
    scaling: str,
    rate: str,
    data_dir: str,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture,
) -> None:
    job = open_job(data_dir, tmp_path / "run")
    words = [
        *("train", "--dry_run", f"--rank_table={make_table(tmp_path, 8)}"),
        config_file(tmp_path / "config.json", data={"path": data_dir}),
        f"--config.optim.learning_rate_scaling={scaling}",
        f"--model_dir={tmp_path / 'run'}",
    ]
    assert cli.main(words) == 0
    card = capsys.readouterr().out
    assert "8 ranks on 1 server" in card and "rank 7: device 7" in card
    assert re.search(r"ranks +8\n", card)
    assert re.search(r"batch size +4 per rank, 32 in total", card)
    assert re.search(r"steps +10, 2 per epoch", card)
    assert re.search(r"rank 7 reads +\d of 3 files, 7 images", card)
    assert re.search(rf"learning rate +constant: initial {rate}", card)
    assert re.search(rf"model_dir +{tmp_path / 'run'}\n", card)
    assert f"{job.dataset.directory}: 3 classes, 49 images for training, 11 for" in card
    assert sorted(os.listdir(str(tmp_path))) == ["8p.json", "config.json"]
    table = json.loads((tmp_path / "8p.json").read_text())
    table["server_list"][0]["device"][0]["rank_id"] = "8"
    (tmp_path / "8p.json").write_text(json.dumps(table))
    assert cli.main(words) == 2
    assert "8p.json" in capsys.readouterr().err


def test_data_and_tables_are_checked_before_a_rank_starts(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    words = ["train", f"--rank_table={make_table(tmp_path, 2)}"]
    words += [f"--model_dir={tmp_path / 'run'}", f"--data_path={tmp_path / 'none'}"]
    assert cli.main(words) == 3
    assert str(tmp_path / "none") in capsys.readouterr().err
    assert os.listdir(str(tmp_path)) == ["2p.json"]
    assert records.manifest.is_dataset(str(tmp_path)) is False
