"""Strike every operation on files of short jobs: kill the process, or fail the call.

    python -m tests.faults.every_operation [--points=N] [--jobs=train,export]

For every point, a job is started from the same state and struck at one call that
changes a file (``strike.c`` lists them).  The same command is given again, and what it
leaves is compared with that of a job without faults.  By default all points are struck;
``--points`` chooses so many of each job and fault, evenly spread.

One process imports TensorFlow, and each job is a fork of it, which takes a second or
two.  Jobs of two ranks are real processes; their rank 0 and their launcher are struck.
"""

import argparse
import contextlib
import errno
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence
from unittest import mock

SOURCE = pathlib.Path(__file__).with_name("strike.c")
REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
LIMIT_SECS = 600
# Number of the error with which a call fails; 0 kills the process.
FAULTS = {"kill": 0, "EIO": errno.EIO, "ENOSPC": errno.ENOSPC}
# Exit codes of a job in which one call has failed: it went on, or said what failed.
ALLOWED_CODES = (0, 2, 3)


class Job(NamedTuple):
    """A command line whose operations are struck.

    Attributes:
        words: Words of the command line in a folder.
        start: Name of the prepared folder that it starts from.
        check: Function that raises AssertionError if two folders, that of a struck and
            repeated job and that of a job without faults, do not hold the same results.
        num_ranks: Number of ranks; 1 runs in a fork of this process.
        rank: Value of HOROVOD_RANK in the process that is struck.
        has_outcome: Whether training ends with its report.
    """

    words: Callable[[pathlib.Path], List[str]]
    start: str
    check: Callable[[pathlib.Path, pathlib.Path], None]
    num_ranks: int = 1
    rank: str = ""
    has_outcome: bool = True


def build(folder: pathlib.Path) -> str:
    """Compile ``strike.c`` and return the path of the library."""
    library = str(folder / "strike.so")
    command = ["cc", "-shared", "-fPIC", "-O1", "-o", library, str(SOURCE), "-ldl"]
    subprocess.check_call(command)
    return library


def train_words(folder: pathlib.Path) -> List[str]:
    config = folder.parent / "config.json"
    return ["train", f"--config={config}", f"--model_dir={folder}/run"]


def names_in(folder: pathlib.Path) -> List[str]:
    """Return the files of a folder; the numbers in names of events are left out."""
    names = [str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()]
    kept = {"EVENTS" if "tfevents" in name else name for name in names}
    # The file of a lock stays.
    return sorted(n for n in kept if not n.endswith(".lock"))


def check_names(folder: pathlib.Path, whole: pathlib.Path) -> None:
    found, expected = names_in(folder), names_in(whole)
    assert found == expected, f"files differ: {set(found) ^ set(expected)}"


def check_contents(folder: pathlib.Path, whole: pathlib.Path) -> None:
    check_names(folder, whole)
    for name in names_in(whole):
        if name.startswith(("data", "predictions")):
            same = (folder / name).read_bytes() == (whole / name).read_bytes()
            assert same, f"{name} has another content"


def check_run(folder: pathlib.Path, whole: pathlib.Path) -> None:
    from tests import training
    from tests.faults.kit import assert_same_weights

    check_names(folder, whole)
    assert_same_weights(folder / "run", whole / "run")
    for file in sorted((whole / "run" / "eval").glob("*.json")):
        found = json.loads((folder / "run" / "eval" / file.name).read_text())
        assert found == json.loads(file.read_text()), f"{file.name} differs"
    for event in ("evaluation", "end"):
        found_steps = {r["step"] for r in training.metrics(folder / "run", event)}
        steps = {r["step"] for r in training.metrics(whole / "run", event)}
        assert steps <= found_steps, f"metrics.jsonl lacks {event} of some steps"


JOBS: Dict[str, Job] = {
    "convert": Job(
        lambda folder: [
            "convert",
            f"--data_path={folder.parent}/pictures",
            f"--output={folder}/data",
            "--config.convert.num_workers=1",
            "--config.convert.short_side=71",
            "--config.convert.images_per_shard=8",
        ],
        "empty",
        check_contents,
    ),
    "train": Job(train_words, "empty", check_run, has_outcome=False),
    "report": Job(train_words, "trained", check_run),
    "export": Job(
        lambda folder: [
            "export",
            f"--model_dir={folder}/run",
            f"--output={folder}/export",
        ],
        "trained",
        check_names,
    ),
    "predict": Job(
        lambda folder: [
            "predict",
            f"--model_dir={folder}/run",
            f"--output={folder}/predictions.csv",
            f"{folder.parent}/pictures",
        ],
        "trained",
        check_contents,
    ),
    "train_2_ranks": Job(
        lambda f: [*train_words(f), f"--rank_table={f.parent}/table.json"],
        "empty",
        check_run,
        num_ranks=2,
        rank="0",
    ),
    "train_2_launcher": Job(
        lambda f: [*train_words(f), f"--rank_table={f.parent}/table.json"],
        "empty",
        check_run,
        num_ranks=2,
    ),
}


class Sweep:
    """Strikes jobs in a temporary folder and counts what happens."""

    def __init__(self, root: pathlib.Path, faults: Sequence[str]):
        """Make pictures, data, a configuration, and a run that has ended.

        Args:
            root: Empty folder.
            faults: Keys of ``FAULTS``.
        """
        from alexnet_estimator import rank_table
        from tests import pictures, tiny, training

        self._root, self._work, self._faults = root, root / "work", faults
        data = pictures.make_dataset(
            root, num_per_class=12, images_per_shard=8, short_side=71
        )
        config = tiny.config(
            data={"path": data.directory, "shuffle_images": 16},
            train={
                "steps": 4,
                "eval_every_epochs": 0.5,
                "save_every_steps": 1,
                "log_every_steps": 1,
            },
        )
        training.train_words(config, root)
        rank_table.write(rank_table.make(["127.0.0.1"], 2), str(root / "table.json"))
        (root / "empty").mkdir()
        self._reset("empty")
        assert self._run(JOBS["report"], {}) == 0, self.output()
        shutil.copytree(str(self._work), str(root / "trained"))

    def strike(self, name: str, num_points: Optional[int]) -> Iterator[str]:
        """Strike a job at many points; yield a line for everything that is wrong.

        Args:
            name: Key of ``JOBS``.
            num_points: Number of points of each fault; None: all.
        """
        job = JOBS[name]
        whole = self._root / "whole"
        self._reset(job.start)
        code, calls = self._run(job, {"STRIKE_NUMBER": "0"}), self._struck_calls()
        assert code == 0 and calls, self.output()
        shutil.rmtree(str(whole), ignore_errors=True)
        shutil.copytree(str(self._work), str(whole))
        start, num_wrong = time.monotonic(), 0
        num_points = min(num_points or len(calls), len(calls))
        # The middle of each of so many equal parts, counted from 1.
        numbers = [
            (2 * i + 1) * len(calls) // (2 * num_points) + 1 for i in range(num_points)
        ]
        for fault in self._faults:
            for number in numbers:
                problem = self._strike_once(job, fault, number, whole)
                if problem:
                    num_wrong += 1
                    call = (self._struck_calls() or [f"{number} (not reached)"])[0]
                    yield f"WRONG: {name}: {fault} at {call}: {problem}"
        yield (
            f"{name}: {len(calls)} operations, "
            f"{len(self._faults) * num_points} struck, "
            f"{num_wrong} wrong, {time.monotonic() - start:.0f} s"
        )

    def _strike_once(
        self, job: Job, fault: str, number: int, whole: pathlib.Path
    ) -> str:
        """Strike a job and give its command again; return what is wrong, or nothing."""
        self._reset(job.start)
        variables = {
            "STRIKE_NUMBER": str(number),
            "STRIKE_ERRNO": str(FAULTS[fault]),
        }
        code, output = self._run(job, variables), self.output()
        if fault != "kill" and code not in ALLOWED_CODES and job.num_ranks == 1:
            return f"exit code {code}: {output[-2000:]}"
        if "Traceback" in output:
            return f"a traceback: {output[-2000:]}"
        code = self._run(job, {})
        if code != 0:
            return f"the next start ends with exit code {code}: {self.output()[-2000:]}"
        try:
            job.check(self._work, whole)
        except (AssertionError, OSError, ValueError) as error:
            return str(error) or repr(error)
        return ""

    def _reset(self, start: str) -> None:
        shutil.rmtree(str(self._work), ignore_errors=True)
        shutil.copytree(str(self._root / start), str(self._work))
        with contextlib.suppress(FileNotFoundError):
            (self._root / "calls").unlink()

    def _run(self, job: Job, variables: Dict[str, str]) -> int:
        """Run a job and return its exit code, that of a shell after a signal.

        Args:
            job: Job to run in the work folder.
            variables: Variables of ``strike.c``; none: nothing is struck.
        """
        if variables:
            variables = {
                **variables,
                "STRIKE_FOLDER": str(self._work),
                "STRIKE_LOG": str(self._root / "calls"),
                "STRIKE_RANK": job.rank,
            }
        words = job.words(self._work)
        if job.num_ranks > 1:
            with open(str(self._root / "output"), "wb") as file:
                process = subprocess.Popen(
                    [sys.executable, "-m", "alexnet_estimator", *words],
                    cwd=str(REPOSITORY),
                    env={**os.environ, **variables},
                    stdout=file,
                    stderr=subprocess.STDOUT,
                )
                return process.wait(LIMIT_SECS)
        pid = os.fork()
        if pid == 0:
            try:
                code = self._run_fork(job, words, variables)
            except BaseException:
                traceback.print_exc()
                code = 1
            sys.stdout.flush()
            os._exit(code)
        _, status = os.waitpid(pid, 0)
        killed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        return 128 + killed if killed else os.WEXITSTATUS(status)

    def _run_fork(self, job: Job, words: List[str], variables: Dict[str, str]) -> int:
        """Run a command line in this process, a fork, and return its exit code."""
        import ctypes

        from alexnet_estimator import __main__ as cli
        from alexnet_estimator.jobs import train as train_job

        descriptor = os.open(str(self._root / "output"), os.O_WRONLY | os.O_CREAT)
        os.ftruncate(descriptor, 0)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        signal.alarm(LIMIT_SECS)
        os.environ.update(variables)
        ctypes.CDLL(os.environ["LD_PRELOAD"]).strike_arm()
        with contextlib.ExitStack() as stack:
            # A checkpoint that could not be written is tried again after seconds.
            stack.enter_context(mock.patch("time.sleep"))
            if not job.has_outcome:
                stack.enter_context(mock.patch.object(train_job, "write_outcome"))
            code = cli.main(words)
        return code

    def _struck_calls(self) -> List[str]:
        file = self._root / "calls"
        return file.read_text().splitlines() if file.exists() else []

    def output(self) -> str:
        """Return what the last job has printed."""
        return (self._root / "output").read_text(errors="replace")


def main(argv: Optional[List[str]] = None) -> int:
    """Sweep; return 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, help="points of each job and fault")
    parser.add_argument("--jobs", default=",".join(JOBS), help="names, with commas")
    parser.add_argument("--faults", default=",".join(FAULTS), help="with commas")
    options = parser.parse_args(argv)
    is_wrong = False
    with tempfile.TemporaryDirectory(prefix="every-operation-") as folder:
        root = pathlib.Path(folder)
        sweep = Sweep(root, options.faults.split(","))
        for name in options.jobs.split(","):
            for line in sweep.strike(name, options.points):
                is_wrong |= line.startswith("WRONG")
                print(line, flush=True)
    return int(is_wrong)


def preload() -> None:
    """Start this program again with the library, unless it has it."""
    if "strike" in os.environ.get("LD_PRELOAD", ""):
        return
    with tempfile.TemporaryDirectory(prefix="strike-") as folder:
        environ = {**os.environ, "LD_PRELOAD": build(pathlib.Path(folder))}
        command = [sys.executable, "-m", "tests.faults.every_operation", *sys.argv[1:]]
        sys.exit(subprocess.call(command, env=environ))


if __name__ == "__main__":
    preload()
    sys.exit(main())
