"""Real jobs of several ranks on this machine, and what is left of them."""

import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from typing import Any, Dict, List, Mapping, Sequence

import numpy as np

from alexnet_estimator import rank_table
from tests import training
from tests.faults import fault
from tests.faults.fault import Fault

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
MARK = "ALEXNET_TEST_JOB"
# What a user would wonder about in the folder of a run.
LEFTOVER = re.compile(r"(^|/)\.(?!lock$)|tmp|temp|heartbeat|quarantine")


@dataclasses.dataclass(frozen=True)
class Result:
    """What a job has left.

    Args:
        exit_code: of the launcher.
        output: what the terminal has shown.
        logs: of each rank.
        metrics: the records of ``metrics.jsonl``.
    """

    exit_code: int
    output: str
    logs: Dict[int, str]
    metrics: List[Dict[str, Any]]

    def events(self, name: str) -> List[Dict[str, Any]]:
        """Return the records of one kind."""
        return [record for record in self.metrics if record["event"] == name]


class Job:
    """Starts a job of several ranks.

    Args:
        num_ranks: on this machine.
        flags: of ``train``, ``model_dir`` among them.
        faults: that happen to it.
        environ: variables for all processes.
    """

    def __init__(
        self,
        num_ranks: int,
        flags: Mapping[str, Any],
        faults: Sequence[Fault] = (),
        environ: Mapping[str, str] = {},
    ):
        self.model_dir = pathlib.Path(str(flags["model_dir"]))
        # Of this start: things that are not to be found in model_dir.
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
        """Return the processes of this start that are alive, the launcher's among
        them."""
        return [pid for pid in map(int, _numbers_in("/proc")) if self._is_ours(pid)]

    def paused_pids(self) -> List[int]:
        """Return the processes that SIGSTOP holds."""
        files = {pid: pathlib.Path(f"/proc/{pid}/status") for pid in self.pids()}
        return [p for p, file in files.items() if "State:\tT" in file.read_text()]

    def _is_ours(self, pid: int) -> bool:
        try:
            environ = pathlib.Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return False  # Gone, or a zombie.
        return self._mark.encode() in environ.split(b"\0")

    def finish(self, timeout_secs: float = 120) -> Result:
        """Wait for the end; check that no process and no temporary file is left."""
        try:
            exit_code = self.popen.wait(timeout_secs)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            raise AssertionError(f"no end after {timeout_secs} s:\n{self.output()}")
        if exit_code == -signal.SIGKILL:  # The kernel ends its ranks a moment later.
            time.sleep(1)
        else:
            temporary = os.listdir(str(self._scratch / "tmp"))
            assert not temporary, f"{temporary} are left"
        left = self.pids()
        assert not left, f"processes {left} are left:\n{self.output()}"
        return Result(exit_code, self.output(), self._logs(), self._metrics())

    def output(self) -> str:
        """Return what the terminal has shown."""
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
    """Run a job to its end; see ``Job``.  Nothing but its results may be left."""
    result = Job(num_ranks, flags, faults, environ).finish()
    check_files(flags["model_dir"])
    return result


def check_files(model_dir: Any) -> None:
    """Check that nothing is left that a user would wonder about."""
    folder = pathlib.Path(str(model_dir))
    names = [str(path.relative_to(folder)) for path in folder.rglob("*")]
    left = [name for name in names if LEFTOVER.search(name)]
    assert not left, f"{left} are left"


def assert_same_weights(model_dir: Any, other_dir: Any) -> None:
    """Check that two runs have ended with equal variables: weights, slots, step."""
    ours, others = training.variables(model_dir), training.variables(other_dir)
    assert ours.keys() == others.keys()
    different = [name for name in ours if not np.array_equal(ours[name], others[name])]
    assert not different, f"{different} differ"
