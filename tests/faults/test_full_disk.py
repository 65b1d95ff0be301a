"""Training on a full disk: logs may be lost, but checkpoints are not."""

import contextlib
import errno
import os
import pathlib
import re
import subprocess
import sys
from typing import Any, Callable, Dict, Iterator, List
from unittest import mock

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from alexnet_estimator import checkpoints
from alexnet_estimator import disk as disk_errors
from alexnet_estimator import files
from alexnet_estimator.checkpoints import restore, store
from alexnet_estimator.errors import DataError
from alexnet_estimator.hooks.metrics_log import MetricsLog
from alexnet_estimator.hooks.progress import ProgressHook
from alexnet_estimator.jobs import train as train_job
from alexnet_estimator.records import convert
from alexnet_estimator.records.verify import verify
from tests import pictures, tiny
from tests.faults.kit import mounted
from tests.ranks import run_ranks
from tests.training import evaluation, metrics, run_job, train_words, variables

DISK_MIB = 16


class Disk:
    """A small file system in memory."""

    def __init__(self, folder: pathlib.Path):
        self.model_dir = folder / "run"
        self._filler = folder / "filler"

    def fill(self) -> None:
        """Fill the file system completely."""
        with contextlib.suppress(OSError), self._filler.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def free(self) -> None:
        """Remove the files that ``fill`` wrote."""
        self._filler.unlink()

    def temporary_files(self) -> List[str]:
        """Return the files that must not remain in the folder of a run."""
        names = [path.name for path in self.model_dir.rglob("*")]
        return [name for name in names if re.search(r"tmp|temp|saving", name)]


@pytest.fixture
def disk(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    monkeypatch.setattr(store, "RETRY_SECS", 0)
    with mounted(tmp_path / "disk", f"size={DISK_MIB}m") as folder:
        yield Disk(folder)


def before_call(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, action: Callable[..., None]
) -> None:
    """Run an action before every call of a function."""
    function = getattr(owner, name)

    def call(*arguments: Any, **options: Any) -> Any:
        action(*arguments)
        return function(*arguments, **options)

    monkeypatch.setattr(owner, name, call)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, data_dir: str) -> Dict[str, Any]:
    """Return the variables of a run on a disk with enough space."""
    model_dir = tmp_path_factory.mktemp("whole") / "run"
    train(data_dir, model_dir)
    return variables(model_dir)


def train(data_dir: str, model_dir: Any) -> None:
    training = {"steps": 6, "save_every_steps": 2, "keep_checkpoints": 2}
    run_job(data_dir, model_dir, train=training)


def check_equal(found: Dict[str, Any], expected: Dict[str, Any]) -> None:
    assert set(found) == set(expected)
    for name, value in found.items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


def test_a_checkpoint_that_does_not_fit_ends_the_run(
    disk: Disk,
    data_dir: str,
    whole: Dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    def fill_before_step_4(*arguments: Any) -> None:
        if arguments[3] == 4:
            disk.fill()

    with monkeypatch.context() as patch:
        before_call(patch, store, "save", fill_before_step_4)
        with pytest.raises(DataError) as caught:
            train(data_dir, disk.model_dir)
    message = str(caught.value)
    assert caught.value.exit_code == 3
    assert f"cannot save step 4 in {disk.model_dir} (0 MiB free): " in message
    assert "No space left on device" in message or "exhausted" in message.lower()
    good = str(disk.model_dir / "model.ckpt-2")
    assert message.endswith(f"the last checkpoint is {good}")
    assert capsys.readouterr().err.count("trying once more") == 1
    # The previous checkpoint is unchanged and in use, and no other files remain.
    assert checkpoints.list_checkpoints(str(disk.model_dir)) == [good]
    assert restore.find_problem(good) is None
    assert '"model.ckpt-2"' in (disk.model_dir / "checkpoint").read_text()
    assert disk.temporary_files() == []
    disk.free()
    train(data_dir, disk.model_dir)
    assert [r["step"] for r in metrics(disk.model_dir, "start")] == [0, 2]
    check_equal(variables(disk.model_dir), whole)


def test_the_second_try_may_succeed(
    disk: Disk, data_dir: str, whole: Dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_before_step_4(*arguments: Any) -> None:
        if arguments[3] == 4:
            disk.fill()

    before_call(monkeypatch, store, "save", fill_before_step_4)
    before_call(monkeypatch, store.time, "sleep", lambda secs: disk.free())
    train(data_dir, disk.model_dir)
    assert len(metrics(disk.model_dir, "start")) == 1
    check_equal(variables(disk.model_dir), whole)
    assert disk.temporary_files() == []


def test_records_that_do_not_fit_are_lost_and_the_run_goes_on(
    disk: Disk,
    data_dir: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    num_steps = 80
    num_reports = []

    def fill_and_free(*arguments: Any) -> None:
        num_reports.append(1)
        if len(num_reports) == 5:
            disk.fill()
        if len(num_reports) == num_steps - 5:
            disk.free()

    before_call(monkeypatch, ProgressHook, "_report", fill_and_free)
    run_job(data_dir, disk.model_dir, train={"steps": num_steps})
    steps = [record["step"] for record in metrics(disk.model_dir, "train")]
    assert steps == sorted(steps) and len(steps) < num_steps - 20
    assert {2, 3, 4, 5, num_steps - 1, num_steps} < set(steps)
    shown = capsys.readouterr()
    assert (
        shown.err.count("warning: lines of the log are lost, but training continues: ")
        == 1
    )
    assert "No space left on device" in shown.err
    # The terminal still shows the progress.
    assert f"step {num_steps // 2}/{num_steps} " in shown.out
    assert evaluation(disk.model_dir, num_steps)["num_images"] == 11
    assert disk.temporary_files() == []


@pytest.mark.parametrize("moment", ["evaluate_sums", "write_evaluation", "write"])
def test_other_files_that_do_not_fit_are_named(
    moment: str,
    disk: Disk,
    data_dir: str,
    whole: Dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # With TF 2.15, the events file that Estimator writes in an evaluation fails first.
    file = r"(best\.json|eval/6\.json|eval/events\.out\.\S+)"
    if moment == "write":
        file = "config.json"
    with monkeypatch.context() as patch:
        owners = {
            "write": train_job.run_record,
            "write_evaluation": train_job.evaluation_job,
        }
        owner = owners.get(moment, train_job)
        before_call(patch, owner, moment, lambda *arguments: disk.fill())
        with pytest.raises(DataError) as caught:
            train(data_dir, disk.model_dir)
    pattern = rf"cannot read or write {disk.model_dir}/{file} \(0 MiB free\): No space"
    assert re.search(pattern, str(caught.value))
    assert disk.temporary_files() == []
    disk.free()
    train(data_dir, disk.model_dir)
    check_equal(variables(disk.model_dir), whole)
    assert evaluation(disk.model_dir, 6)["num_images"] == 11


def test_a_record_is_appended_whole_or_not_at_all(disk: Disk) -> None:
    disk.model_dir.mkdir()
    log = MetricsLog(str(disk.model_dir), is_chief=True)
    disk.fill()
    for step in range(100):  # This is more than the rest of the last block can hold.
        log.write("train", step, text="x" * 500, loss=1.0)
    disk.free()
    log.write("train", 100, loss=1.0)
    steps = [record["step"] for record in metrics(disk.model_dir)]
    assert steps == [*range(len(steps) - 1), 100] and len(steps) < 20
    (events,) = disk.model_dir.glob("events.*")
    seen = [event.step for event in tf.train.summary_iterator(str(events))][1:]
    assert seen == [*range(len(seen) - 1), 100] and len(seen) < 90


def words(data_dir: str, folder: pathlib.Path, **training: int) -> List[str]:
    train = {"eval_every_epochs": 0.0, **training}
    return train_words(tiny.config(data={"path": data_dir}, train=train), folder)


def test_a_full_disk_behind_standard_output_ends_no_run(
    disk: Disk, data_dir: str, tmp_path: pathlib.Path
) -> None:
    run_words = words(data_dir, tmp_path, steps=6, log_every_steps=1)
    command = [sys.executable, "-m", "tests.ranks", "", *run_words]  # Without a report.
    with (disk.model_dir.parent / "train.log").open("wb") as log:
        log.write(b"x" * 4096)
        log.flush()
        disk.fill()
        process = subprocess.run(
            [*command, f"--model_dir={tmp_path}/run"],
            stdout=log,
            stderr=subprocess.PIPE,
            cwd=str(pathlib.Path(__file__).resolve().parents[2]),
        )
    assert b"Traceback" not in process.stderr
    assert evaluation(tmp_path / "run", 6)["num_images"] == 11
    # Python exits with 120 if it cannot flush stdout at its end.
    assert process.returncode in (0, 120)


def test_two_ranks_end_where_a_checkpoint_does_not_fit(
    data_dir: str, tmp_path: pathlib.Path, capfd: pytest.CaptureFixture
) -> None:
    pytest.importorskip("horovod", reason="Horovod is not installed")
    run_words = words(data_dir, tmp_path, steps=6, save_every_steps=2)
    command = [sys.executable, "-m", "tests.faults.limited", "4"]
    assert run_ranks(2, run_words, tmp_path / "run", command=command) == 3
    shown = capfd.readouterr()
    good = f"{tmp_path}/run/model.ckpt-2"
    text = shown.out + shown.err
    assert f"error: cannot save step 4 in {tmp_path}/run" in text
    assert f"the last checkpoint is {good}" in text
    assert "Traceback" not in text
    assert checkpoints.list_checkpoints(str(tmp_path / "run")) == [good]
    assert Disk(tmp_path).temporary_files() == []
    assert run_ranks(2, run_words, tmp_path / "run") == 0
    assert [r["step"] for r in metrics(tmp_path / "run", "start")] == [0, 2]


def test_a_conversion_that_does_not_fit_can_be_continued(
    disk: Disk, tmp_path: pathlib.Path
) -> None:
    source = pictures.make_folder(tmp_path / "pictures", num_per_class=20)
    output, settings = disk.model_dir, pictures.settings(images_per_shard=4)
    disk.fill()
    with pytest.raises(DataError, match="No space left on device") as caught:
        convert.convert(source, str(output), settings, show_progress=False)
    assert caught.value.exit_code == 3
    assert [path for path in output.glob("*") if path.name[0] != "."] == []
    disk.free()
    dataset = convert.convert(source, str(output), settings, show_progress=False)
    assert sum(split.num_images for split in dataset.splits.values()) == 40
    assert verify(dataset.directory, show_progress=False) == []
    assert [path for path in output.glob(".*")] == disk.temporary_files() == []


def test_a_lack_of_inodes_is_named(tmp_path: pathlib.Path) -> None:
    with mounted(tmp_path / "disk", "size=8m,nr_inodes=2") as folder:
        (folder / "the only file").touch()
        with pytest.raises(DataError, match="free, but no inodes for new files"):
            with disk_errors.explaining_errors(str(folder)):
                files.write_bytes(str(folder / "another"), b"")


def test_a_disk_that_does_not_count_inodes_lacks_none(tmp_path: pathlib.Path) -> None:
    fields = {"f_bavail": 3 << 8, "f_frsize": 1 << 12, "f_files": 0, "f_favail": 0}
    with mock.patch.object(os, "statvfs", return_value=mock.Mock(**fields)):
        text = disk_errors.describe_space(str(tmp_path))
    assert text.startswith("3 MiB free") and "inodes" not in text


def test_an_error_that_is_not_about_room_is_not_explained_as_one() -> None:
    with pytest.raises(OSError) as caught:
        with disk_errors.explaining_errors("/"):
            raise OSError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
    assert caught.value.errno == errno.ECONNRESET
