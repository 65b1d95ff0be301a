"""Training jobs with numbers that are not finite, on one rank and on two."""

import json
import pathlib
import re
import sys
from typing import Any, Dict

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from PIL import Image

from alexnet_estimator import __main__ as cli
from alexnet_estimator import checkpoints, model_fn
from alexnet_estimator.checkpoints import restore
from alexnet_estimator.config import Config
from alexnet_estimator.records import convert
from tests import pictures, tiny
from tests.faults.kit import assert_same_weights
from tests.faults.spoiled import Spoil, read_trace, spoiled
from tests.ranks import run_ranks
from tests.test_loss_scale import oracle
from tests.training import (
    evaluation,
    metrics,
    run_job,
    train_words,
    variables,
    without_report,
)

NUM_STEPS = 12


@pytest.fixture(params=[1, 2])
def num_ranks(request: pytest.FixtureRequest) -> int:
    if request.param > 1:
        pytest.importorskip("horovod", reason="Horovod is not installed")
    return request.param


def configure(data_dir: str, **changes: Dict[str, Any]) -> Config:
    training = {
        "steps": NUM_STEPS,
        "eval_every_epochs": 0.0,
        "log_every_steps": 1,
        "save_every_steps": 2,
        **changes.pop("train", {}),
    }
    return tiny.config(data={"path": data_dir}, train=training, **changes)


def train(config: Config, folder: pathlib.Path, num_ranks: int, spoil: Spoil) -> int:
    """Train in ``folder/run`` and return the exit code of the command."""
    folder.mkdir(exist_ok=True)
    words = train_words(config, folder)
    if num_ranks > 1:
        spec = json.dumps(spoil._asdict())
        command = [sys.executable, "-m", "tests.faults.spoiled", spec]
        return run_ranks(num_ranks, words, folder / "run", command=command)
    with without_report(), spoiled(spoil):
        return cli.main([*words, f"--model_dir={folder / 'run'}"])


def check_newest(model_dir: pathlib.Path, step: int) -> None:
    """Check that the newest checkpoint is finite, in use, and of the given step."""
    prefix = checkpoints.latest(str(model_dir))
    assert prefix is not None and checkpoints.step_of(prefix) == step
    assert restore.find_problem(prefix) is None
    assert tf.train.latest_checkpoint(str(model_dir)) == prefix
    assert not (model_dir / "quarantine").exists()


def test_a_resumed_run_goes_on_behind_the_batches_of_skipped_steps(
    data_dir: str, tmp_path: pathlib.Path
) -> None:
    spoil = Spoil(str(tmp_path / "trace"), "inf", [1])
    scaled = {"loss_scale": "dynamic"}
    for name, steps in (("whole", 4), ("resumed", 2)):
        with spoiled(spoil):
            run_job(data_dir, tmp_path / name, train={"steps": steps}, precision=scaled)
    run_job(data_dir, tmp_path / "resumed", train={"steps": 4}, precision=scaled)
    assert variables(tmp_path / "resumed")["loss_scale/num_skipped"] == 1
    assert_same_weights(tmp_path / "resumed", tmp_path / "whole")


def test_pictures_without_any_variance_give_finite_weights(
    tmp_path: pathlib.Path,
) -> None:
    """Train on equal pictures and a class of one, with what divides by variances."""
    grey = Image.new("RGB", (48, 40), (90, 90, 90))
    for name in ["alone/0", *(f"many/{i}" for i in range(12))]:
        file = tmp_path / "pictures" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        grey.save(str(file))
    nan = Image.fromarray(np.full([40, 48], np.nan, np.float32))
    nan.save(str(tmp_path / "pictures" / "many" / "nan.tiff"))
    settings = pictures.settings(eval_images=4)
    data = convert.convert(
        str(tmp_path / "pictures"), str(tmp_path / "data"), settings, False
    )
    assert data.conversion["num_rejects"] == 1
    assert [split.class_counts for split in data.splits.values()] == [(1, 9), (0, 3)]
    run_job(
        data.directory,
        tmp_path / "run",
        data={"colour_noise_std": 0.1, "contrast": 0.2},
        optim={"class_weights": "balanced"},
        train={"steps": 3},
    )
    check_newest(tmp_path / "run", 3)
    assert evaluation(tmp_path / "run", 3)["num_images"] == 3


@pytest.mark.parametrize(
    "value, num_ranks", [("nan", 1), ("inf", 2)], indirect=["num_ranks"]
)
def test_overflows_under_dynamic_scaling_are_skipped(
    value: str, num_ranks: int, data_dir: str, tmp_path: pathlib.Path
) -> None:
    config = configure(data_dir, precision={"loss_scale": "dynamic", "growth_steps": 3})
    # Only the last rank gets the spoiled batches, but all ranks skip these steps.
    spoil = Spoil(str(tmp_path / "trace"), value, [2, 3, 9], num_ranks - 1)
    assert train(config, tmp_path, num_ranks, spoil) == 0
    overflows = [number in spoil.batches for number in range(NUM_STEPS + 3)]
    expected = list(oracle(overflows, config.precision))
    assert expected[3] == (config.precision.initial_loss_scale / 4, 2)
    traces = [read_trace(spoil, rank) for rank in range(num_ranks)]
    assert all(trace == traces[0] for trace in traces)
    found = [(state["scale"], state["num_skipped"]) for state in traces[0]]
    assert found == expected
    for is_overflow, before, after in zip(overflows[1:], traces[0], traces[0][1:]):
        is_same = after["weights_and_slots"] == before["weights_and_slots"]
        assert is_same == is_overflow
        assert after["step"] == before["step"] + (not is_overflow)
    check_newest(tmp_path / "run", NUM_STEPS)
    last = metrics(tmp_path / "run", "train")[-1]
    assert (last["step"], last["num_skipped_steps"]) == (NUM_STEPS, 3)
    assert evaluation(tmp_path / "run", NUM_STEPS)["num_images"] == 11


def test_overflows_for_ever_end_the_run(
    num_ranks: int,
    data_dir: str,
    tmp_path: pathlib.Path,
    capfd: pytest.CaptureFixture,
) -> None:
    max_skipped = 4
    config = configure(
        data_dir,
        precision={"loss_scale": "dynamic", "max_skipped_steps": max_skipped},
    )
    first = 5
    batches = list(range(first, 1000))
    spoil = Spoil(str(tmp_path / "trace"), "nan", batches, num_ranks - 1)
    assert train(config, tmp_path, num_ranks, spoil) == 4
    trace = read_trace(spoil, num_ranks - 1)
    assert first + max_skipped < len(trace) <= first + max_skipped + 2
    shown = capfd.readouterr()
    message = re.search(r"error: (.*)", shown.err + shown.out)
    assert message and "Traceback" not in shown.err + shown.out
    for fact in (
        f"step {first}: ",
        "steps in a row overflowed",
        "learning rate 0.01",
        f"last checkpoint is {tmp_path}/run/model.ckpt-4",
    ):
        assert fact in message.group(1)
    scales = [state["scale"] for state in trace]
    shown_scale = float(re.findall(r"loss scale ([\d.e+]+)", message.group(1))[0])
    assert shown_scale in scales[-2:]
    check_newest(tmp_path / "run", 4)
    if num_ranks == 1:
        assert train(config, tmp_path, 1, spoil._replace(batches=[])) == 0
        check_newest(tmp_path / "run", NUM_STEPS)


def test_without_scaling_one_bad_batch_ends_the_run_before_it_is_saved(
    num_ranks: int,
    data_dir: str,
    tmp_path: pathlib.Path,
    capfd: pytest.CaptureFixture,
) -> None:
    config = configure(
        data_dir, precision={"loss_scale": "none"}, train={"save_every_steps": 1}
    )
    spoil = Spoil(str(tmp_path / "trace"), "inf", [5], num_ranks - 1)
    assert train(config, tmp_path, num_ranks, spoil) == 4
    shown = capfd.readouterr()
    text = f"--loss_scale=dynamic; the last checkpoint is {tmp_path}/run/model.ckpt"
    assert f"{text}-5" in shown.err + shown.out
    check_newest(tmp_path / "run", 5)
    if num_ranks > 1:
        return
    # The other steps are the same as in a run without spoiled batches.  That run needs
    # the same graph, because initial weights depend on the number of its operations.
    same = spoil._replace(batches=[])
    for folder in (tmp_path, tmp_path / "whole"):
        assert train(config, folder, 1, same) == 0
        check_newest(folder / "run", NUM_STEPS)
    expected = variables(tmp_path / "whole" / "run")
    for name, value in variables(tmp_path / "run").items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


@pytest.mark.parametrize("loss_scale, num_steps", [("none", 10), ("dynamic", 40)])
def test_gradients_that_float16_takes_for_zero_need_a_scale(
    loss_scale: str,
    num_steps: int,
    data_dir: str,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The loss is divided by 2 ** 24, and the learning rate is multiplied by it."""
    cross_entropy = model_fn.cross_entropy

    def shrink(*arguments: Any) -> tf.Tensor:
        return cross_entropy(*arguments) * 2.0**-24

    monkeypatch.setattr(model_fn, "cross_entropy", shrink)
    run_job(
        data_dir,
        tmp_path,
        model={"keep_prob": 1.0},
        optim={"learning_rate": 0.01 * 2.0**24, "weight_decay": 0.0},
        precision={
            "mode": "mixed",
            "loss_scale": loss_scale,
            "initial_loss_scale": 2.0**24,
        },
        train={"steps": num_steps, "save_every_steps": num_steps // 2},
    )
    losses = [record["loss"] * 2**24 for record in metrics(tmp_path, "train")]
    first, last = (variables(tmp_path, step) for step in (num_steps // 2, num_steps))
    kernel = "alexnet/fc6/kernel"
    has_learned = not np.array_equal(first[kernel], last[kernel])
    assert has_learned == (loss_scale == "dynamic")
    assert (np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])) == has_learned
