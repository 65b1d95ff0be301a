"""Jobs with faults: they lose no results, do not hang, and report the cause."""

import json
import os
import pathlib
import re
import shutil
import signal
import time
from typing import Any, Dict

import pytest

from alexnet_estimator import __main__ as cli
from alexnet_estimator import locks, rank_table
from alexnet_estimator.checkpoints.restore import find_problem
from tests import pictures
from tests.faults.fault import Fault
from tests.faults.kit import (
    REPOSITORY,
    Job,
    assert_same_weights,
    check_files,
    run_ranks,
)
from tests.training import evaluation, metrics

pytest.importorskip("horovod", reason="Horovod is not installed")

NUM_STEPS = 6


@pytest.fixture(scope="session")
def records(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return data in files of 7 and 8 images, which ranks share unequally."""
    folder = tmp_path_factory.mktemp("records")
    return pictures.make_dataset(
        folder, num_per_class=24, images_per_shard=8, short_side=71
    ).directory


@pytest.fixture
def flags(records: str, tmp_path: pathlib.Path) -> Dict[str, Any]:
    """Return the flags of a job that saves a checkpoint every second step."""
    return make_flags(records, tmp_path / "run")


def make_flags(records: str, model_dir: pathlib.Path) -> Dict[str, Any]:
    return {
        "config": REPOSITORY / "configs" / "tiny.py",
        "data_path": records,
        "model_dir": model_dir,
        "device": "cpu",
        "train_steps": NUM_STEPS,
        "config.train.eval_every_epochs": 0,
        "config.train.log_every_steps": 1,
        "config.train.save_every_steps": 2,
    }


@pytest.fixture(scope="session")
def uninterrupted(records: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return the folder of a run without faults."""
    model_dir = tmp_path_factory.mktemp("uninterrupted") / "run"
    result = run_ranks(2, make_flags(records, model_dir))
    assert result.exit_code == 0, result.output
    assert [event["step"] for event in result.events("train")] == [2, 3, 4, 5, 6]
    return model_dir


# F1: a rank dies.


def test_f1_a_killed_rank_costs_nothing_but_time(
    flags: Dict[str, Any], uninterrupted: Any
) -> None:
    flags["max_restarts"] = 1
    result = run_ranks(2, flags, [Fault("kill", 1, "train", 3)])
    assert result.exit_code == 0, result.output
    assert "rank 1 was killed by SIGKILL" in result.output
    (restart,) = result.events("restart")
    assert (restart["step"], restart["num_restarts"]) == (2, 1)
    assert "rank 1 was killed by SIGKILL" in restart["reason"]
    assert [event["step"] for event in result.events("start")] == [0, 2]
    assert_same_weights(flags["model_dir"], uninterrupted)


# F2: a rank hangs.


def test_f2_a_rank_that_hangs_is_named_with_its_stack(flags: Dict[str, Any]) -> None:
    flags["hang_timeout_secs"] = 4
    result = run_ranks(2, flags, [Fault("sleep", 1, "train", 3)])
    assert result.exit_code == 5
    pattern = r"rank 1 hangs: no progress for [4-9] s in phase train"
    assert re.search(pattern, result.output)
    # The logs show the stacks: rank 1 sleeps in the fault, and rank 0 waits for it.
    assert "in strike" in result.logs[1] and "in strike" not in result.logs[0]
    assert "in gather" in result.logs[0]
    assert time.time() - result.metrics[-1]["time_secs"] < 4 + 10


def test_f2_a_paused_rank_is_named_and_restarted(
    flags: Dict[str, Any], uninterrupted: Any
) -> None:
    flags.update(hang_timeout_secs=4, max_restarts=1)
    result = run_ranks(2, flags, [Fault("pause", 1, "train", 3)])
    assert result.exit_code == 0, result.output
    assert "rank 1 hangs" in result.output
    assert "rank 1 could not write stacks: paused by SIGSTOP" in result.output
    (restart,) = result.events("restart")
    assert re.match(r"rank 1 hangs: no progress for [4-9] s", restart["reason"])
    assert_same_weights(flags["model_dir"], uninterrupted)


# F3: a signal asks the job to stop.


@pytest.mark.parametrize(
    "action, rank, step",
    [
        ("terminate", 1, 3),
        ("terminate launcher", 0, 3),
        ("interrupt launcher", 1, 0),
        ("terminate all", 1, 3),
    ],
)
def test_f3_all_ranks_stop_at_the_same_step(
    flags: Dict[str, Any], action: str, rank: int, step: int
) -> None:
    flags["max_restarts"] = 1
    result = run_ranks(2, flags, [Fault(action, rank, "train", step)])
    assert result.exit_code == 75, result.output
    last_step = result.events("stop")[0]["step"]
    # A signal to the launcher may reach the ranks one or two steps later.
    assert last_step - max(step, 1) in ((0, 1, 2) if "launcher" in action else (0,))
    assert max(event["step"] for event in result.metrics) == last_step
    assert newest_step(flags) == last_step
    for log in result.logs.values():
        assert f"stopped on request at step {last_step} of 6" in log


def newest_step(flags: Dict[str, Any]) -> int:
    files = pathlib.Path(flags["model_dir"]).glob("model.ckpt-*.index")
    return max(int(file.stem[len("model.ckpt-") :]) for file in files)


def test_f3_a_stop_during_evaluation_is_resumed(
    flags: Dict[str, Any], uninterrupted: Any
) -> None:
    flags["config.train.eval_every_epochs"] = 1.5
    fault = Fault("terminate", 1, "evaluate", 3)
    result = run_ranks(2, flags, [fault])
    assert result.exit_code == 75, result.output
    assert newest_step(flags) == 3
    assert not result.events("evaluation")
    result = run_ranks(2, flags)
    assert result.exit_code == 0, result.output
    # The evaluation that was interrupted is repeated.
    assert [event["step"] for event in result.events("evaluation")] == [3, 6]
    assert_same_weights(flags["model_dir"], uninterrupted)


@pytest.mark.parametrize("action", ["terminate", "terminate launcher"])
def test_f3_ranks_that_load_just_end(flags: Dict[str, Any], action: str) -> None:
    flags["max_restarts"] = 1
    faults = [Fault(action, 1, "load"), Fault("sleep", 0, "load")]
    result = run_ranks(2, flags, faults)
    assert result.exit_code == 75, result.output
    assert (
        "stopped before the ranks could save; run the same command again"
        in result.output
    )
    assert not result.events("restart")


def test_f3_a_second_request_ends_at_once(flags: Dict[str, Any]) -> None:
    result = run_ranks(2, flags, [Fault("terminate twice", 1, "train", 3)])
    assert result.exit_code == 75, result.output
    assert (
        "stopped before the ranks could save; run the same command again"
        in result.output
    )
    assert newest_step(flags) == 2


# F9: ranks that do not match.


def test_f9_a_missing_rank_is_named(flags: Dict[str, Any]) -> None:
    environ = {"HOROVOD_GLOO_TIMEOUT_SECONDS": "12"}
    result = run_ranks(2, flags, [Fault("sleep", 1, "load")], environ)
    assert result.exit_code == 5
    assert "rank 1 did not join the group" in result.output


def test_f9_ranks_with_different_settings_do_not_train(flags: Dict[str, Any]) -> None:
    config = REPOSITORY / "tests" / "faults" / "config_of_rank.py"
    flags.update(config=config, max_restarts=1)
    result = run_ranks(2, flags)
    assert result.exit_code == 5
    for log in result.logs.values():
        assert "ranks disagree on the configuration" in log
    assert not result.metrics


def test_f9_a_wrong_table_is_refused_at_once(
    flags: Dict[str, Any], tmp_path: pathlib.Path
) -> None:
    table = tmp_path / "wrong.json"
    rank_table.write(rank_table.make(["127.0.0.1"], 2), str(table))
    content = json.loads(table.read_text())
    for device in content["server_list"][0]["device"]:
        device.update(device_id="0", rank_id="1")
    table.write_text(json.dumps(content))
    flags["rank_table"] = table
    result = run_ranks(2, flags)
    assert result.exit_code == 2
    assert "loading TensorFlow" not in result.output
    for problem in ("device[1].device_id is", "device[1].rank_id is", "3 problems"):
        assert problem in result.output
    assert not flags["model_dir"].exists()


# F10: special cases.


def test_f10_a_run_goes_on_with_another_number_of_ranks(
    flags: Dict[str, Any], uninterrupted: Any
) -> None:
    shutil.copytree(str(uninterrupted), str(flags["model_dir"]))
    words = [f"--{name}={value}" for name, value in flags.items()]
    assert cli.main(["train", *words, "--train_steps=8"]) == 0
    starts = metrics(flags["model_dir"], "start")
    assert [(s["step"], s["num_ranks"]) for s in starts] == [(0, 2), (6, 1)]
    before, after = (evaluation(flags["model_dir"], step) for step in (6, 8))
    assert after["num_images"] == before["num_images"]
    assert find_problem(str(flags["model_dir"] / "model.ckpt-8")) is None


def test_f10_a_second_launcher_does_no_harm(
    flags: Dict[str, Any], uninterrupted: Any
) -> None:
    first = Job(2, flags, [Fault("pause", 0, "train", 3)])
    while not first.paused_pids():
        time.sleep(0.1)
        assert first.popen.poll() is None, first.output()
    second = Job(2, flags).finish()
    assert second.exit_code == 2
    assert f"{flags['model_dir']} is in use by another job (see " in second.output
    os.kill(first.paused_pids()[0], signal.SIGCONT)
    result = first.finish()
    assert result.exit_code == 0, result.output
    assert [log.count("starts, 20") for log in result.logs.values()] == [1, 1]
    check_files(flags["model_dir"])
    assert_same_weights(flags["model_dir"], uninterrupted)


def test_f10_a_job_without_launcher_is_not_disturbed(flags: Dict[str, Any]) -> None:
    os.mkdir(flags["model_dir"])
    with locks.use_run(str(flags["model_dir"])):
        result = run_ranks(2, flags)
    assert result.exit_code == 2
    assert f"{flags['model_dir']} is in use by another job" in result.output
    assert not result.metrics


@pytest.mark.parametrize("phase, step", [("train", 3), ("evaluate", 6)])
def test_f10_an_exception_on_rank_0_ends_all(
    flags: Dict[str, Any], phase: str, step: int
) -> None:
    result = run_ranks(2, flags, [Fault("fail", 0, phase, step)])
    assert result.exit_code == 5
    assert "rank 0 failed with exit code 1" in result.output
    assert "RuntimeError: injected" in result.output
    assert time.time() - result.metrics[-1]["time_secs"] < 15
