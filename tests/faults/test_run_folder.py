"""Runs whose folders have unusual names, cannot be written, or were left by SIGKILL."""

import contextlib
import errno
import os
import pathlib
import shutil
import subprocess
from typing import Any, Dict, Iterator
from unittest import mock

import numpy as np
import pytest

from alexnet_estimator import files, locks
from alexnet_estimator.checkpoints import files_of
from alexnet_estimator.errors import ConfigError, DataError
from alexnet_estimator.hooks.progress import ProgressHook
from alexnet_estimator.jobs import evaluate as evaluate_job
from alexnet_estimator.jobs import train as train_job
from tests.faults.kit import mounted
from tests.training import evaluation, metrics, open_job, run_job, variables

PLATEAU: Dict[str, Dict[str, Any]] = {
    "optim": {
        "schedule": "plateau",
        "plateau_patience_epochs": 0.3,
        "plateau_min_gain": 1.0,
    },
    "train": {"steps": 9, "eval_every_epochs": 0.5},  # This is every 3 steps.
}


class Killed(BaseException):
    """Exception that stands for SIGKILL."""


def test_a_job_killed_before_an_evaluation_ends_as_an_uninterrupted_one(
    data_dir: str, tmp_path: pathlib.Path
) -> None:
    run_job(data_dir, tmp_path / "whole", **PLATEAU)
    rates = [event["learning_rate"] for event in metrics(tmp_path / "whole", "train")]
    assert len(set(rates)) > 1  # They depend on the evaluations.
    evaluate_sums = train_job.evaluate_sums

    def end_at_step_6(run: Any, checkpoint: str, *arguments: Any) -> Any:
        if checkpoint.endswith("-6"):
            raise Killed
        return evaluate_sums(run, checkpoint, *arguments)

    with mock.patch.object(train_job, "evaluate_sums", end_at_step_6):
        with pytest.raises(Killed):
            run_job(data_dir, tmp_path / "killed", **PLATEAU)
    run_job(data_dir, tmp_path / "killed", **PLATEAU)
    for step in (3, 6, 9):
        then = evaluation(tmp_path / "whole", step)
        assert evaluation(tmp_path / "killed", step) == then
    for name, value in variables(tmp_path / "killed").items():
        expected = variables(tmp_path / "whole")[name]
        np.testing.assert_array_equal(value, expected, err_msg=name)


def test_any_name_of_a_run_will_do(data_dir: str, tmp_path: pathlib.Path) -> None:
    model_dir = tmp_path / os.fsdecode(b"a[1]*b? caf\xe9")
    run_job(data_dir, model_dir, train={"steps": 2})
    run_job(data_dir, model_dir, train={"steps": 4})
    assert [event["step"] for event in metrics(model_dir, "start")] == [0, 2]
    run = open_job(data_dir, model_dir, train={"steps": 4})
    assert evaluate_job.evaluate(run) == evaluation(model_dir, 4)


def test_evaluations_of_version_1_0_may_name_any_class(tmp_path: pathlib.Path) -> None:
    (tmp_path / "eval").mkdir()
    values = b'"global_step": 7, "top_1_accuracy": 0.5, "class_names": ["caf\xe9"]'
    (tmp_path / "eval" / "7.json").write_bytes(b"{%s}" % values)
    (found,) = evaluate_job.read_evaluations(str(tmp_path))
    assert found["class_names"] == [os.fsdecode(b"caf\xe9")]


def fail_to_write(name: str) -> Any:
    """Return a function that writes files, but fails with EIO for one name."""
    replacing = files.replacing

    @contextlib.contextmanager
    def replace(path: str) -> Iterator[Any]:
        if os.path.basename(path) == name:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        with replacing(path) as file:
            yield file

    return mock.patch.object(files, "replacing", replace)


def test_a_broken_disk_is_one_message(
    data_dir: str, tmp_path: pathlib.Path, monkeypatch: Any
) -> None:
    """A run writes the files in this order, so each start goes further."""
    monkeypatch.setattr("alexnet_estimator.checkpoints.store.RETRY_SECS", 0)
    for name in ("config.json", "checkpoint", "best.json", "2.json"):
        with fail_to_write(name), pytest.raises(DataError, match="Input/output error"):
            run_job(data_dir, tmp_path / "run", train={"steps": 2})
    run_job(data_dir, tmp_path / "run", train={"steps": 2})
    assert evaluation(tmp_path / "run", 2)["num_images"] == 11


@pytest.mark.parametrize(
    "number, kind",
    [
        (errno.EIO, DataError),
        (errno.ENOSPC, DataError),
        (errno.EACCES, ConfigError),
        (errno.ENOTDIR, ConfigError),
        (errno.EROFS, ConfigError),
    ],
)
def test_a_broken_disk_is_no_mistake_in_the_command(
    number: int, kind: Any, data_dir: str, tmp_path: pathlib.Path
) -> None:
    run = open_job(data_dir, tmp_path / "run")
    error = OSError(number, os.strerror(number))
    with mock.patch.object(os, "makedirs", side_effect=error):
        with pytest.raises(kind, match=f"cannot be created: {os.strerror(number)}"):
            train_job.train(run)


def test_a_job_does_not_let_its_data_be_replaced(
    data_dir: str, tmp_path: pathlib.Path
) -> None:
    summarise, path = evaluate_job.summarise, os.path.join(data_dir, "dataset.json")

    def check(*arguments: Any) -> Any:
        with pytest.raises(ConfigError, match="a job reads these data"):
            locks.refuse_if_read(path)
        return summarise(*arguments)

    with mock.patch.object(evaluate_job, "summarise", side_effect=check) as checked:
        run_job(data_dir, tmp_path / "run", train={"steps": 2})
        evaluate_job.evaluate(open_job(data_dir, tmp_path / "run", train={"steps": 2}))
    assert checked.call_count == 2
    locks.refuse_if_read(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data_dir: str) -> str:
    """Return the folder of a run of 2 steps, which tests copy."""
    model_dir = str(tmp_path_factory.mktemp("trained") / "run")
    run_job(data_dir, model_dir, train={"steps": 2})
    return model_dir


def test_an_old_checkpoint_may_be_deleted_while_it_is_evaluated(
    data_dir: str, trained: str, tmp_path: pathlib.Path
) -> None:
    shutil.copytree(trained, str(tmp_path / "run"))
    run = open_job(data_dir, tmp_path / "run", train={"steps": 2})
    find = evaluate_job.find_checkpoint

    def find_and_delete(*arguments: Any) -> str:
        prefix = find(*arguments)
        for path in files_of(prefix):
            os.remove(path)
        return prefix

    with mock.patch.object(evaluate_job, "find_checkpoint", find_and_delete):
        with pytest.raises(DataError, match="model.ckpt-2: it was deleted meanwhile"):
            evaluate_job.evaluate(run)


def test_a_folder_that_goes_ends_the_run(
    data_dir: str, tmp_path: pathlib.Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("alexnet_estimator.checkpoints.store.RETRY_SECS", 0)
    report = ProgressHook._report

    def remove_folder(*arguments: Any) -> None:
        shutil.rmtree(str(tmp_path / "run"), ignore_errors=True)
        report(*arguments)

    monkeypatch.setattr(ProgressHook, "_report", remove_folder)
    with pytest.raises(DataError, match="No such file or directory"):
        run_job(data_dir, tmp_path / "run", train={"steps": 2})


def test_metrics_that_nobody_reads_do_not_hang(tmp_path: pathlib.Path) -> None:
    os.mkfifo(str(tmp_path / "metrics.jsonl"))
    with pytest.raises(OSError, match="No such device"):
        locks.append_bytes(str(tmp_path / "metrics.jsonl"), b"{}\n")


def test_a_run_on_a_read_only_disk_is_evaluated(
    data_dir: str, trained: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    with mounted(tmp_path / "disk", "size=32m") as disk:
        shutil.copytree(trained, str(disk / "run"))
        subprocess.check_call(["mount", "-o", "remount,ro", str(disk)])
        run = open_job(data_dir, disk / "run", train={"steps": 2})
        assert evaluate_job.evaluate(run) == evaluation(trained, 2)
        shown = capsys.readouterr().err
        assert "the result is not saved: " in shown and "Read-only" in shown
