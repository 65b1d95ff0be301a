"""Inject a fault at every file operation of short jobs.

    python -m tests.faults.every_operation [--points=N] [--jobs=A] [--faults=A,B]

``strike.c`` counts the calls that change a file below a folder.  A point is the number
of such a call.  The faults are:

* ``state``: In one job without faults, the folder is copied before every call.  The
  copy has the state that SIGKILL would leave behind.  The job is continued from each
  copy that differs from all earlier ones.
* ``kill``: SIGKILL ends the process before the call.
* ``EIO``, ``ENOSPC``: The call fails with this error.

Afterwards the same command is run again, and the resulting folder is compared with that
of a job without faults.  By default, the faults are injected at all points.
``--points`` limits the number of points for each job and fault; they are evenly spread.

Only one process imports TensorFlow, because the import takes longer than such a job.
The jobs, and the ranks that a launcher starts, are forks of this process.
"""

import argparse
import contextlib
import ctypes
import errno
import hashlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import Dict, Iterator, List, Optional, Sequence

from tests.faults.struck_jobs import JOBS, LIMIT_SECS, Job, become, load_everything

SOURCE = pathlib.Path(__file__).with_name("strike.c")
NETWORK = pathlib.Path(__file__).with_name("one_layer.py")
PR_SET_CHILD_SUBREAPER = 36
STATE = "state"
# Error number (errno) with which the call fails; 0 if the process is killed.
FAULTS = {STATE: 0, "kill": 0, "EIO": errno.EIO, "ENOSPC": errno.ENOSPC}
# Exit codes of a job in which one call failed: either it succeeded all the same, or it
# reported the failure.  A code of 2 would blame the command, which has no mistake.
ALLOWED_CODES = (0, 3)


def build(folder: pathlib.Path) -> str:
    """Compile ``strike.c`` and return the path of the library."""
    library = str(folder / "strike.so")
    command = ["cc", "-shared", "-fPIC", "-O1", "-o", library, str(SOURCE)]
    subprocess.check_call([*command, "-ldl", "-lpthread"])
    return library


class Sweep:
    """Injects faults into jobs in a temporary folder and counts the results."""

    def __init__(self, root: pathlib.Path):
        """Create pictures, data, a configuration and a finished run."""
        from alexnet_estimator import rank_table
        from alexnet_estimator.config import config_from
        from tests import pictures, training

        self._root, self._work, self._output = root, root / "work", root / "output"
        data = pictures.make_dataset(
            root, num_per_class=6, images_per_shard=4, short_side=36
        )
        train = {"batch_size_per_rank": 2, "steps": 2, "save_every_steps": 1}
        config = config_from(
            {
                "data": {"path": data.directory, "image_size": 32, "shuffle_images": 4},
                "model": {"network": str(NETWORK)},
                "train": {**train, "eval_every_epochs": 0.0, "log_every_steps": 1},
                "runtime": {"num_threads": 1, "device": "cpu"},
            }
        )
        training.train_words(config, root)
        rank_table.write(rank_table.make(["127.0.0.1"], 2), str(root / "table.json"))
        (root / "empty").mkdir()
        (root / "tmp").mkdir()
        self._reset("empty")
        assert self._run(JOBS["report"], {}) == 0, self.output()
        shutil.copytree(str(self._work), str(root / "trained"))

    def strike(
        self, name: str, faults: Sequence[str], num_points: Optional[int]
    ) -> Iterator[str]:
        """Inject faults into a job at many points; yield a line for each problem.

        Args:
            name: Name of the job, a key of ``JOBS``.
            faults: Names of the faults, keys of ``FAULTS``.
            num_points: Number of points for each fault; None for all points.
        """
        job, start = JOBS[name], time.monotonic()
        whole, states = self._root / "whole", self._root / "states"
        self._reset(job.start)
        for folder in (whole, states):
            shutil.rmtree(str(folder), ignore_errors=True)
        states.mkdir()
        copying = {"STRIKE_STATES": str(states)} if STATE in faults else {}
        code = self._run(job, {"STRIKE_NUMBER": "0", **copying})
        calls = self._struck_calls()
        assert code == 0 and calls, self.output()
        shutil.copytree(str(self._work), str(whole))
        yield f"{name}: {len(calls)} operations"
        for fault in faults:
            numbers = list(range(1, len(calls) + 1))
            if fault == STATE:
                found = {digest_of(states / str(n)): n for n in reversed(numbers)}
                numbers = sorted(found.values())
            total, num_struck, num_wrong = len(numbers), 0, 0
            problem: Optional[str]
            wanted = min(num_points or total, total)
            # The points are the centres of equal parts.
            for number in [
                numbers[(2 * i + 1) * total // (2 * wanted)] for i in range(wanted)
            ]:
                if fault == STATE:
                    self._reset(f"states/{number}")
                    problem = self._continue(job, whole)
                else:
                    problem = self._strike_once(job, fault, number, whole)
                num_struck += problem is not None
                if problem:
                    num_wrong += 1
                    yield f"WRONG: {name}: {fault} at {calls[number - 1]}: {problem}"
            secs = time.monotonic() - start
            yield (
                f"{name}: {fault}: {num_struck} of {total} struck, {num_wrong} wrong, "
                f"{secs:.0f} s so far"
            )

    def _strike_once(
        self, job: Job, fault: str, number: int, whole: pathlib.Path
    ) -> Optional[str]:
        """Inject one fault into a job, then run its command again.

        Returns:
            A description of the problem, or an empty string.  None if the job did not
            reach the call: a launcher copies the output of its ranks in pieces, whose
            number varies.
        """
        self._reset(job.start)
        variables = {"STRIKE_NUMBER": str(number), "STRIKE_ERRNO": str(FAULTS[fault])}
        code, output = self._run(job, variables), self.output()
        if not self._struck_calls():
            return None
        if fault != "kill" and code not in ALLOWED_CODES:
            return f"exit code {code}: {output[-2000:]}"
        if "Traceback" in output:
            return f"a traceback: {output[-2000:]}"
        return self._continue(job, whole)

    def _continue(self, job: Job, whole: pathlib.Path) -> str:
        """Run a command again; return a description of the problem, or nothing."""
        code = self._run(job, {})
        if code not in (0, job.code_after_end):
            return f"the next start ends with exit code {code}: {self.output()[-2000:]}"
        try:
            job.check(self._work, whole)
            left = os.listdir(str(self._root / "tmp"))
            assert not left, f"{left} are left in $TMPDIR"
        except (AssertionError, OSError, ValueError) as error:
            return str(error) or repr(error)
        return ""

    def _reset(self, start: str) -> None:
        shutil.rmtree(str(self._work), ignore_errors=True)
        shutil.copytree(str(self._root / start), str(self._work), symlinks=True)
        with contextlib.suppress(FileNotFoundError):
            (self._root / "calls").unlink()
        for path in (self._root / "tmp").iterdir():
            shutil.rmtree(str(path)) if path.is_dir() else path.unlink()

    def _run(self, job: Job, variables: Dict[str, str]) -> int:
        """Run a job in a fork and return its exit code, 128 + N after signal N.

        Args:
            job: Job to run in the work folder.
            variables: Environment variables for ``strike.c``; empty for no fault.
        """
        if variables:
            variables = {
                **variables,
                "STRIKE_FOLDER": str(self._work),
                "STRIKE_LOG": str(self._root / "calls"),
                "STRIKE_RANK": job.rank,
            }
        words = job.words(self._work)
        pid = os.fork()
        if pid == 0:
            output = os.open(str(self._output), os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
            os.environ.update(variables, TMPDIR=str(self._root / "tmp"))
            become(words, output, job.has_outcome)
        _, status = os.waitpid(pid, 0)
        # The processes that the job started end soon after it.
        signal.alarm(LIMIT_SECS)
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)
        signal.alarm(0)
        killed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        return 128 + killed if killed else os.WEXITSTATUS(status)

    def _struck_calls(self) -> List[str]:
        file = self._root / "calls"
        return file.read_text().splitlines() if file.exists() else []

    def output(self) -> str:
        """Return the output of the last job."""
        return self._output.read_text(errors="replace")


def digest_of(folder: pathlib.Path) -> str:
    """Return a digest of all names and contents in a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(f"{path.relative_to(folder)} {path.is_file()}\n".encode())
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()


def main(argv: Optional[List[str]] = None) -> int:
    """Run the command line; return 1 if there was a problem, or else 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, help="points of each job and fault")
    parser.add_argument("--jobs", default=",".join(JOBS), help="names, with commas")
    parser.add_argument("--faults", default=",".join(FAULTS), help="with commas")
    options = parser.parse_args(argv)
    is_wrong = False
    load_everything()
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # This is no TemporaryDirectory, because every fork would remove that at its end.
    root = pathlib.Path(tempfile.mkdtemp(prefix="every-operation-"))
    try:
        sweep = Sweep(root)
        for name in options.jobs.split(","):
            for line in sweep.strike(name, options.faults.split(","), options.points):
                is_wrong |= line.startswith("WRONG")
                print(line, flush=True)
    finally:
        shutil.rmtree(str(root))
    return int(is_wrong)


def preload() -> None:
    """Start this program again with the library, unless that is loaded already."""
    if "strike" in os.environ.get("LD_PRELOAD", ""):
        return
    with tempfile.TemporaryDirectory(prefix="strike-") as folder:
        library = build(pathlib.Path(folder))
        # A quarter of the CPU time of a tiny job would go to compiling MKL's kernels.
        environ = {**os.environ, "TF_DISABLE_MKL": "1", "LD_PRELOAD": library}
        command = [sys.executable, "-m", "tests.faults.every_operation", *sys.argv[1:]]
        sys.exit(subprocess.call(command, env=environ))


if __name__ == "__main__":
    preload()
    sys.exit(main())
