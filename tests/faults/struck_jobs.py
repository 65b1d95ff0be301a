"""The jobs into which ``every_operation`` injects faults; they run as forks."""

import atexit
import contextlib
import ctypes
import importlib
import json
import os
import pathlib
import pkgutil
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
import types
from typing import Any, Callable, Dict, List, NamedTuple, Sequence
from unittest import mock

LIMIT_SECS = 600
PR_SET_PDEATHSIG = 1


class Job(NamedTuple):
    """A command line into which faults are injected.

    Attributes:
        words: Function from a folder to the words of the command line.
        start: Name of the prepared folder that the job starts from.
        check: Function that compares the folder of a job that was repeated after a
            fault with that of a job without faults.  It raises AssertionError if their
            results differ.
        rank: Value of HOROVOD_RANK in the process that gets the fault.
        has_outcome: Whether training writes its report at its end.
        code_after_end: Exit code if the job is started again after it has finished.
    """

    words: Callable[[pathlib.Path], List[str]]
    start: str
    check: Callable[[pathlib.Path, pathlib.Path], None]
    rank: str = ""
    has_outcome: bool = True
    code_after_end: int = 0


def train_words(folder: pathlib.Path) -> List[str]:
    config = folder.parent / "config.json"
    return ["train", f"--config={config}", f"--model_dir={folder}/run"]


def two_ranks_words(folder: pathlib.Path) -> List[str]:
    return [*train_words(folder), f"--rank_table={folder.parent}/table.json"]


def names_in(folder: pathlib.Path) -> List[str]:
    """Return the names of the files in a folder, with one name for all events files."""
    names = [str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()]
    kept = {"EVENTS" if "tfevents" in name else name for name in names}
    # Lock files are not deleted, so they may or may not be there.
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
            "--config.convert.short_side=36",
            "--config.convert.images_per_shard=4",
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
        code_after_end=2,  # An export never replaces a folder.
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
    "train_2_ranks": Job(two_ranks_words, "empty", check_run, "0", has_outcome=False),
    "report_2_ranks": Job(two_ranks_words, "trained", check_run, "0"),
    "launcher": Job(two_ranks_words, "empty", check_run, has_outcome=False),
}


def become(words: List[str], output: int, has_outcome: bool) -> None:
    """Run a command line in this process, which is a fork, and exit.

    Args:
        words: Words of the command line.
        output: File descriptor that stdout and stderr are redirected to.
        has_outcome: Whether training writes its report at its end.
    """
    from alexnet_estimator import __main__ as cli
    from alexnet_estimator.checkpoints import store
    from alexnet_estimator.jobs import train as train_job
    from alexnet_estimator.launch import process

    code = 1
    try:
        os.dup2(output, 1)
        os.dup2(output, 2)
        # Python's streams were created for the old files, perhaps for a terminal.
        sys.stdout, sys.stderr = (open(fd, "w", closefd=False) for fd in (1, 2))
        tempfile.tempdir = None
        signal.alarm(LIMIT_SECS)
        ctypes.CDLL(os.environ["LD_PRELOAD"]).strike_arm()
        with contextlib.ExitStack() as stack:
            patch = mock.patch.object
            stack.enter_context(patch(store, "RETRY_SECS", 0))
            ranks = types.SimpleNamespace(Popen=ForkedRank, DEVNULL=subprocess.DEVNULL)
            stack.enter_context(patch(process, "subprocess", ranks))
            stack.enter_context(patch(ForkedRank, "has_outcome", has_outcome))
            if not has_outcome:
                stack.enter_context(patch(train_job, "write_outcome"))
            code = cli.main(words)
        atexit._run_exitfuncs()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


class ForkedRank:
    """A rank that is a fork of the launcher; it replaces subprocess.Popen."""

    has_outcome = True

    def __init__(
        self,
        command: Sequence[str],
        env: Dict[str, str],
        stdout: int,
        pass_fds: Sequence[int],
        **_: Any,
    ):
        launcher_pid = os.getpid()
        self.pid = os.fork()
        # Both processes do this, so that the launcher can end the group at once.
        os.setpgid(self.pid, self.pid)
        if self.pid == 0:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != launcher_pid:  # It was killed before the call of prctl.
                os._exit(1)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            os.environ.clear()
            os.environ.update(env)
            words = command[list(command).index("alexnet_estimator") + 1 :]
            become(list(words), stdout, self.has_outcome)

    def wait(self) -> int:
        """Return the exit code, or minus the number of the signal that ended it."""
        _, status = os.waitpid(self.pid, 0)
        return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else status >> 8


def load_everything() -> None:
    """Import the modules that the jobs need, before the jobs are forked."""
    import alexnet_estimator

    # tqdm's own lock is shared by processes: it would stay locked if one were killed.
    importlib.import_module("tqdm").tqdm.set_lock(threading.RLock())
    # Without matplotlib, no charts are drawn.  That would take longer than the whole
    # rest of a job.
    sys.modules["matplotlib"] = None  # type: ignore[assignment]
    importlib.import_module("tensorflow").compat.v1.estimator.Estimator
    for module in pkgutil.walk_packages(
        alexnet_estimator.__path__, "alexnet_estimator."
    ):
        # Horovod, npu_bridge and ONNX are optional.
        with contextlib.suppress(ImportError):
            if not module.name.endswith(("__main__", "child")):
                importlib.import_module(module.name)
