"""The number of steps in one call of a device, and the number of calls."""

import pathlib
from typing import Any, Dict

import pytest
import tensorflow.compat.v1 as tf
from tensorflow.python.client.session import BaseSession

from alexnet_estimator.errors import ConfigError
from alexnet_estimator.jobs.loops import choose_loop
from alexnet_estimator.jobs.session import open_run
from alexnet_estimator.records import dataset
from tests import npu_double, tiny, training


@pytest.mark.parametrize(
    "fields, steps_per_epoch, expected",
    [
        # 4,000 images are 40 steps of 100; 40 is a multiple of log_every_steps = 10.
        ({"batch_size_per_rank": 100}, 12000, 40),
        ({"batch_size_per_rank": 4000}, 300, 1),
        ({"batch_size_per_rank": 100, "steps": 1000, "save_every_steps": 60}, 500, 20),
        ({"batch_size_per_rank": 100, "log_every_steps": 7}, 1000, 35),
        # An evaluation every 12 steps is not moved to 10.
        ({"batch_size_per_rank": 100, "log_every_steps": 1}, 12, 12),
        ({"batch_size_per_rank": 100, "steps": 997}, 500, 1),
    ],
)
def test_a_loop_takes_a_second_and_fits_all_intervals(
    fields: Dict[str, int], steps_per_epoch: int, expected: int
) -> None:
    settings = {"steps": 0, "epochs": 10.0, **fields}
    loop = choose_loop(tiny.config(train=settings), steps_per_epoch)
    assert loop.num_steps == expected
    assert ("a longer loop does not fit" in loop.reason) == (expected == 1)
    assert 1 <= loop.calls_between_agreements * expected < 40 + expected


def test_a_loop_of_the_user_has_to_fit() -> None:
    npu = {"iterations_per_loop": 100}
    config = tiny.config(npu=npu, train={"steps": 200, "log_every_steps": 10})
    assert choose_loop(config, 50).num_steps == 100
    # A loop that is longer than a second is followed by an agreement each time.
    train = {"steps": 200, "log_every_steps": 10, "batch_size_per_rank": 100}
    loop = choose_loop(tiny.config(npu=npu, train=train), 50)
    assert (loop.num_steps, loop.calls_between_agreements) == (100, 1)
    settings = {"steps": 250, "save_every_steps": 30, "log_every_steps": 7}
    config = tiny.config(npu=npu, train=settings)
    with pytest.raises(ConfigError) as caught:
        choose_loop(config, 50)
    problems = caught.value.problems
    assert [p.split()[0] for p in problems] == [f"train.{name}" for name in settings]


def count_calls(num_steps: int, model_dir: pathlib.Path, monkeypatch: Any) -> int:
    """Train on the stand-in; return the number of calls that a device would get."""
    npu_double.load(monkeypatch, npu_double.NEW)
    config = tiny.config(
        runtime={"device": "npu"},
        precision={"mode": "allow_mix_precision", "loss_scale": "none"},
        train={"steps": num_steps, "log_every_steps": 5, "eval_every_epochs": 0.0},
        data={"synthetic": True, "synthetic_classes": 2},
        npu={"iterations_per_loop": 5},
    )
    from npu_bridge import device

    # With 10,000 images, an evaluation would take 2,500 calls.
    monkeypatch.setattr(dataset, "NUM_SYNTHETIC_IMAGES", 40)
    calls = []
    run = BaseSession.run

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not device.is_looping:
            calls.append(args)
        return run(self, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(BaseSession, "run", counted)
        training.train(open_run(config, str(model_dir)))
    npu_double.forget()
    assert tf.train.latest_checkpoint(str(model_dir)).endswith(f"-{num_steps}")
    return len(calls)


def test_a_loop_is_one_call(tmp_path: pathlib.Path, monkeypatch: Any) -> None:
    """Four more loops take four more calls; start, saving and evaluation are equal."""
    short = count_calls(10, tmp_path / "short", monkeypatch)
    long = count_calls(30, tmp_path / "long", monkeypatch)
    assert long - short == 4
