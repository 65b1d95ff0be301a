"""Jobs of several ranks on this machine, and checks of their results."""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from typing import Any, Dict, Iterator, List, Mapping, Sequence

import numpy as np
import pytest

from alexnet_estimator import rank_table
from tests import training
from tests.faults import fault
from tests.faults.fault import Fault

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
MARK = "ALEXNET_TEST_JOB"
# Files that must not remain in the folder of a run.
LEFTOVER = re.compile(r"(^|/)\.(?!lock$)|tmp|temp|heartbeat|quarantine")


@dataclasses.dataclass(frozen=True)
class Result:
    """Result of a job.

    Args:
        exit_code: Exit code of the launcher.
        output: Output on the terminal.
        logs: Log of each rank.
        metrics: Records of ``metrics.jsonl``.
    """

    exit_code: int
    output: str
    logs: Dict[int, str]
    metrics: List[Dict[str, Any]]

    def events(self, name: str) -> List[Dict[str, Any]]:
        """Return the records of an event."""
        return [record for record in self.metrics if record["event"] == name]


class Job:
    """A running job of several ranks.

    Args:
        num_ranks: Number of ranks on this machine.
        flags: Flags of ``train``, which must include ``model_dir``.
        faults: Faults that are injected.
        environ: Additional environment variables of all processes.
    """

    def __init__(
        self,
        num_ranks: int,
        flags: Mapping[str, Any],
        faults: Sequence[Fault] = (),
        environ: Mapping[str, str] = {},
    ):
        self.model_dir = pathlib.Path(str(flags["model_dir"]))
        # The files of this start that must not be in model_dir.
        self._scratch = pathlib.Path(f"{self.model_dir}.{time.monotonic_ns()}")
        temporary = self._scratch / "tmp"
        temporary.mkdir(parents=True)
        table = self._scratch / "table.json"
        rank_table.write(rank_table.make(["127.0.0.1"], num_ranks), str(table))
        words = [f"--{name}={value}" for name, value in flags.items()]
        self._mark = f"{MARK}={self._scratch}"
        self._output = (self._scratch / "output").open("w+b")
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.program", "train"]
            + [f"--rank_table={table}", *words],
            cwd=str(REPOSITORY),
            env={
                **os.environ,
                **environ,
                **fault.write(faults, str(self._scratch)),
                "TMPDIR": str(temporary),
                MARK: str(self._scratch),
            },
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )

    def pids(self) -> List[int]:
        """Return the live processes of this start, including the launcher."""
        return [pid for pid in map(int, _numbers_in("/proc")) if self._is_ours(pid)]

    def paused_pids(self) -> List[int]:
        """Return the processes that SIGSTOP has stopped."""
        files = {pid: pathlib.Path(f"/proc/{pid}/status") for pid in self.pids()}
        return [p for p, file in files.items() if "State:\tT" in file.read_text()]

    def _is_ours(self, pid: int) -> bool:
        try:
            environ = pathlib.Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return False  # The process has ended.
        return self._mark.encode() in environ.split(b"\0")

    def finish(self, timeout_secs: float = 120) -> Result:
        """Wait for the end; check that no process and no temporary file remains."""
        try:
            exit_code = self.popen.wait(timeout_secs)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            raise AssertionError(f"no end after {timeout_secs} s:\n{self.output()}")
        if exit_code == -signal.SIGKILL:  # The kernel ends the ranks a moment later.
            time.sleep(1)
        else:
            temporary = os.listdir(str(self._scratch / "tmp"))
            assert not temporary, f"{temporary} are left"
        left = self.pids()
        assert not left, f"processes {left} are left:\n{self.output()}"
        return Result(exit_code, self.output(), self._logs(), self._metrics())

    def output(self) -> str:
        """Return the output on the terminal."""
        self._output.seek(0)
        return self._output.read().decode()

    def _logs(self) -> Dict[int, str]:
        files = (self.model_dir / "logs").glob("rank_*.log")
        return {int(file.stem[len("rank_") :]): file.read_text() for file in files}

    def _metrics(self) -> List[Dict[str, Any]]:
        file = self.model_dir / "metrics.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        return [json.loads(line) for line in lines]


def _numbers_in(folder: str) -> List[str]:
    return [name for name in os.listdir(folder) if name.isdigit()]


def run_ranks(
    num_ranks: int,
    flags: Mapping[str, Any],
    faults: Sequence[Fault] = (),
    environ: Mapping[str, str] = {},
) -> Result:
    """Run a job to its end and check that only its results remain; see ``Job``."""
    result = Job(num_ranks, flags, faults, environ).finish()
    check_files(flags["model_dir"])
    return result


def check_files(model_dir: Any) -> None:
    """Check that no temporary files remain in the folder of a run."""
    folder = pathlib.Path(str(model_dir))
    names = [str(path.relative_to(folder)) for path in folder.rglob("*")]
    left = [name for name in names if LEFTOVER.search(name)]
    assert not left, f"{left} are left"


@contextlib.contextmanager
def mounted(folder: pathlib.Path, options: str) -> Iterator[pathlib.Path]:
    """Create a folder with a file system in memory; skip the test if that is denied."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.call(mount, stderr=subprocess.DEVNULL) != 0:
        pytest.skip("needs the right to mount a file system")
    try:
        yield folder
    finally:
        subprocess.check_call(["umount", "--lazy", str(folder)])


def assert_same_weights(model_dir: Any, other_dir: Any) -> None:
    """Check that two runs ended with equal variables: weights, slots and step."""
    ours, others = training.variables(model_dir), training.variables(other_dir)
    assert ours.keys() == others.keys()
    different = [name for name in ours if not np.array_equal(ours[name], others[name])]
    assert not different, f"{different} differ"
