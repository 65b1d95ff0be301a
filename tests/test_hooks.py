"""The hooks of a training step: guard, saving, progress and records."""

import json
import os
import pathlib
import re
import sys
import tempfile
import types
from typing import Any, Dict, List, Optional
from unittest import mock

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from alexnet_estimator import checkpoints
from alexnet_estimator.checkpoints import restore, store
from alexnet_estimator.errors import DivergedError
from alexnet_estimator.hooks import progress, saving
from alexnet_estimator.hooks.guard import FiniteGuard
from alexnet_estimator.hooks.heartbeat import Heartbeat
from alexnet_estimator.hooks.metrics_log import MetricsLog
from alexnet_estimator.hooks.progress import (
    ProgressHook,
    StepClock,
    TrainingAmounts,
    format_secs,
)
from alexnet_estimator.hooks.saving import SaveHook
from alexnet_estimator.hooks.step_tensors import StepTensors
from alexnet_estimator.hooks.stopping import AgreedStop, StopRequest
from tests import tiny

SEEN = StepTensors(
    step=7,
    loss=0.5,
    accuracy=0.25,
    learning_rate=0.125,
    gradient_norm=2.0,
    loss_scale=1.0,
    num_skipped=0,
)


def run_values(**changes: Any) -> tf.train.SessionRunValues:
    results = SEEN._replace(**changes)._asdict()
    return tf.train.SessionRunValues(results, options=None, run_metadata=None)


class FakeTime:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now_secs = 1000.0

    def monotonic(self) -> float:
        return self.now_secs


@pytest.fixture
def clock_face(monkeypatch: Any) -> FakeTime:
    fake = FakeTime()
    monkeypatch.setattr(progress, "time", fake)
    monkeypatch.setattr(saving, "time", fake)
    return fake


# The guard.


@pytest.mark.parametrize("name", ["loss", "gradient_norm"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_guard_stops_at_what_is_not_finite(
    tmp_path: pathlib.Path, name: str, value: float
) -> None:
    (tmp_path / "model.ckpt-6.index").touch()
    guard = FiniteGuard(SEEN, False, max_skipped=5, model_dir=str(tmp_path))
    guard.after_run(None, run_values())
    with pytest.raises(DivergedError) as caught:
        guard.after_run(None, run_values(**{name: value}))
    message = str(caught.value)
    assert caught.value.exit_code == 4
    for fact in ("step 7", "loss scale 1", "learning rate 0.125", f"{value:g}"):
        assert fact in message
    assert str(tmp_path / "model.ckpt-6") in message


def test_guard_lets_skipped_steps_pass_until_they_are_too_many(
    tmp_path: pathlib.Path,
) -> None:
    guard = FiniteGuard(SEEN, True, max_skipped=3, model_dir=str(tmp_path))
    skipped = {"loss": np.inf, "gradient_norm": np.nan, "loss_scale": 2.0}
    step = 0
    for num_skipped in (3, 1, 3):  # A finite step comes between two overflows.
        step += 1
        guard.after_run(None, run_values(step=step))
        for _ in range(num_skipped):
            guard.after_run(None, run_values(step=step, **skipped))
    with pytest.raises(DivergedError, match="(?s)step 3.*4 steps in a row.*scale 2"):
        guard.after_run(None, run_values(step=step, **skipped))


def test_guard_asks_for_every_scalar() -> None:
    arguments = FiniteGuard(SEEN, True, 1, "").before_run(None)
    assert arguments.fetches == SEEN._asdict()


# Saving, in sessions that only count steps.


def count_steps(
    model_dir: Any,
    num_steps: int,
    train: Dict[str, Any],
    is_chief: bool = True,
    clock: Optional[StepClock] = None,
    weight_at: Any = float,
    fake: Optional[FakeTime] = None,
) -> None:
    """Run a session with a SaveHook; each step adds one and takes 10 fake seconds."""
    settings = tiny.config(train={"save_every_secs": 0, **train}).train
    hook = SaveHook(str(model_dir), settings, clock or StepClock(), is_chief)
    with tf.Graph().as_default():
        step = tf.train.get_or_create_global_step()
        weight = tf.get_variable("weight", initializer=0.0)
        value = tf.placeholder(tf.float32, [])
        with tf.control_dependencies([tf.assign(weight, value)]):
            train_op = tf.assign_add(step, 1)
        directory = str(model_dir) if checkpoints.latest(str(model_dir)) else None
        with tf.train.MonitoredTrainingSession(
            checkpoint_dir=directory,
            hooks=[hook],
            save_checkpoint_secs=None,
            save_checkpoint_steps=None,
            save_summaries_steps=None,
            save_summaries_secs=None,
            log_step_count_steps=None,
        ) as session:
            for number in range(num_steps):
                if fake:
                    fake.now_secs += 10
                session.run(train_op, {value: weight_at(number)})


def saved_steps(model_dir: Any) -> List[Any]:
    return [
        checkpoints.step_of(p) for p in checkpoints.list_checkpoints(str(model_dir))
    ]


def test_saves_by_steps_and_at_the_end(tmp_path: Any) -> None:
    settings = {"save_every_steps": 3, "keep_checkpoints": 2}
    count_steps(tmp_path, 8, settings)
    assert saved_steps(tmp_path) == [6, 8]
    count_steps(tmp_path, 0, settings)  # No step was taken, so nothing is saved.
    assert saved_steps(tmp_path) == [6, 8]
    count_steps(tmp_path, 4, settings)  # The run takes three steps after step 8.
    assert saved_steps(tmp_path) == [11, 12]
    reader = tf.train.load_checkpoint(checkpoints.latest(str(tmp_path)))
    assert reader.get_tensor("weight") == 3


def test_a_run_that_ends_before_its_first_step_is_saved(tmp_path: Any) -> None:
    """Its steps may all have been skipped, which has lowered the loss scale."""
    count_steps(tmp_path, 0, {"save_every_steps": 3})
    assert saved_steps(tmp_path) == [0]


def test_saves_by_the_clock(tmp_path: Any, clock_face: FakeTime) -> None:
    count_steps(
        tmp_path,
        8,
        {"save_every_secs": 25, "keep_checkpoints": 9},
        fake=clock_face,
    )
    assert saved_steps(tmp_path) == [3, 6, 8]


def test_only_the_chief_saves(tmp_path: Any) -> None:
    count_steps(tmp_path, 4, {"save_every_steps": 1}, is_chief=False)
    assert saved_steps(tmp_path) == []


def test_a_diverged_weight_ends_the_run_unsaved(tmp_path: Any) -> None:
    with pytest.raises(DivergedError, match="step 3: weight"):
        count_steps(
            tmp_path,
            9,
            {"save_every_steps": 1},
            weight_at=lambda number: np.inf if number == 2 else 1.0,
        )
    assert saved_steps(tmp_path) == [1, 2]
    newest = restore.newest_valid(str(tmp_path))
    assert newest == str(tmp_path / "model.ckpt-2")


# Progress.


class Steps:
    """Calls a ProgressHook as a session does."""

    def __init__(self, hook: ProgressHook, face: FakeTime):
        self._hook, self._face, self.step = hook, face, 0
        # It makes no additional call of session.run.
        self._context: Any = types.SimpleNamespace()
        hook.begin()

    def run(self, secs: float, num_steps: int = 1, **seen: Any) -> None:
        self._face.now_secs += secs
        self.step += num_steps
        self._hook.after_run(self._context, run_values(step=self.step, **seen))


def read_log(model_dir: Any) -> List[Dict[str, Any]]:
    lines = pathlib.Path(model_dir, "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def make_progress(
    model_dir: Any, clock: StepClock, is_chief: bool = True
) -> ProgressHook:
    log = MetricsLog(str(model_dir), is_chief)
    plan = TrainingAmounts(
        total_steps=11, steps_per_epoch=4, global_batch_size=20, log_every_steps=4
    )
    return ProgressHook(SEEN, log, clock, plan, is_chief)


def test_throughput_leaves_out_start_and_pauses(
    tmp_path: Any, clock_face: FakeTime, capsys: Any
) -> None:
    clock = StepClock()
    steps = Steps(make_progress(tmp_path, clock), clock_face)
    steps.run(500)  # The first step compiles the graph.
    for _ in range(2):
        steps.run(2)
    clock_face.now_secs += 100  # A checkpoint is written.
    clock.exclude(100)
    for _ in range(3):
        steps.run(2, loss_scale=4.0, num_skipped=2)
    for _ in range(5):
        steps.run(4)
    records = read_log(tmp_path)
    assert [r["step"] for r in records] == [4, 8, 11]
    # 3 steps of 2 s; 2 of 2 s and 2 of 4 s; 3 of 4 s; with 20 images each.
    assert [r["images_per_sec"] for r in records] == [10, 6.67, 5]
    assert [r["epoch"] for r in records] == [1, 2, 2.75]
    first = {**records[0]}
    del first["time_secs"]
    assert first == {
        "event": "train",
        "step": 4,
        "epoch": 1.0,
        "loss": 0.5,
        "top_1_accuracy": 0.25,
        "learning_rate": 0.125,
        "gradient_norm": 2.0,
        "loss_scale": 4.0,
        "num_skipped_steps": 2,
        "images_per_sec": 10.0,
    }
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    for part in ("4/11", "0.5000", "10.0 images/s", "scale 4", "skipped 2", "14s left"):
        assert part in lines[0]
    assert "skipped" not in lines[1]


def test_saving_is_such_a_pause(
    tmp_path: Any, clock_face: FakeTime, monkeypatch: Any
) -> None:
    def save_slowly(*arguments: Any) -> None:
        clock_face.now_secs += 1000

    monkeypatch.setattr(store, "save", save_slowly)
    clock = StepClock()
    clock.restart()
    count_steps(tmp_path, 6, {"save_every_steps": 2}, clock=clock, fake=clock_face)
    assert clock_face.now_secs == 1000 + 6 * 10 + 3 * 1000
    assert clock.elapsed_secs() == 6 * 10


def test_a_step_that_was_skipped_is_not_reported_twice(
    tmp_path: Any, clock_face: FakeTime
) -> None:
    steps = Steps(make_progress(tmp_path, StepClock()), clock_face)
    for _ in range(4):
        steps.run(1)
    for _ in range(3):  # Step 4 is repeated.
        steps.step -= 1
        steps.run(1)
    assert [r["step"] for r in read_log(tmp_path)] == [4]


def test_a_multiple_that_is_passed_over_is_reported_late(
    tmp_path: Any, clock_face: FakeTime
) -> None:
    """A device may take several steps in a call, and skip some of them."""
    steps = Steps(make_progress(tmp_path, StepClock()), clock_face)
    for num_steps in (5, 1, 3, 1):  # The run was resumed at step 5.
        steps.run(2, num_steps)
    records = read_log(tmp_path)
    assert [r["step"] for r in records] == [9]
    assert records[0]["images_per_sec"] == 20


def test_a_terminal_gets_a_bar(
    tmp_path: Any, clock_face: FakeTime, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    hook = make_progress(tmp_path, StepClock())
    steps = Steps(hook, clock_face)
    for _ in range(8):
        steps.run(1)
    hook.end(None)
    output = capsys.readouterr()
    assert output.out == ""
    assert "8/11" in output.err and "images/s" in output.err
    # The session after an evaluation continues from there.
    hook = make_progress(tmp_path, StepClock())
    steps = Steps(hook, clock_face)
    steps.run(1, num_steps=9)
    steps.run(1)
    hook.end(None)
    shown = re.findall(r"(\d+)/11", capsys.readouterr().err)
    assert shown[0] == "9" and "0" not in shown


def test_other_ranks_are_silent(
    tmp_path: Any, clock_face: FakeTime, capsys: Any
) -> None:
    hook = make_progress(tmp_path, StepClock(), is_chief=False)
    steps = Steps(hook, clock_face)
    for _ in range(11):
        steps.run(1)
    hook.end(None)
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []


def test_durations_as_people_say_them() -> None:
    found = [format_secs(secs) for secs in (0.4, 59.4, 59.6, 3599, 3599.7, 3725)]
    assert found == ["0s", "59s", "1m 00s", "59m 59s", "1h 00m", "1h 02m"]


# Records.


def test_metrics_go_to_json_and_tensorboard(tmp_path: Any) -> None:
    log = MetricsLog(str(tmp_path), is_chief=True)
    log.write("train", 3, loss=float("nan"), images_per_sec=2.5, is_last=True)
    log.write("end", 4, note="你好")
    log.write_image("kernels", 4, tiny.encode(tiny.noise(0, 2, 2)))
    first, second = read_log(tmp_path)
    assert 1.6e9 < first.pop("time_secs") <= second.pop("time_secs")
    assert first == {
        "event": "train",
        "step": 3,
        "loss": None,
        "images_per_sec": 2.5,
        "is_last": True,
    }
    assert second == {"event": "end", "step": 4, "note": "你好"}
    (events,) = tmp_path.glob("events.*")
    values = [
        (event.step, value)
        for event in tf.train.summary_iterator(str(events))
        for value in event.summary.value
    ]
    assert [(step, value.tag) for step, value in values] == [
        (3, "loss"),
        (3, "throughput/images_per_sec"),
        (4, "kernels"),
    ]
    assert values[1][1].simple_value == 2.5
    assert values[2][1].image.encoded_image_string.startswith(b"\x89PNG")


# Stopping.


def test_ranks_ask_each_other_only_after_every_few_calls() -> None:
    """A short loop of a device must not wait for the other ranks after each call."""
    request, context = StopRequest(), mock.Mock()
    gather = mock.Mock(side_effect=lambda values: np.array([values]))
    hook = AgreedStop(request, gather, every_calls=3)
    request.is_received = True
    for num_gathered in (0, 0, 1, 1, 1, 2):
        hook.after_run(context, None)
        assert gather.call_count == context.request_stop.call_count == num_gathered
        assert request.is_agreed == (num_gathered > 0)


# Heartbeats.


def test_a_short_heartbeat_leaves_nothing_of_a_longer_one() -> None:
    with tempfile.TemporaryFile() as file:
        heartbeat = Heartbeat(file.fileno())
        for phase in ("a_phase_with_a_long_name", "train"):
            heartbeat.beat(phase)
        record = json.loads(os.pread(file.fileno(), 1000, 0).decode())
    assert (record["phase"], record["count"]) == ("train", 3)
