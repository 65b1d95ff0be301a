"""Faults at some file operations of the jobs; see ``every_operation``.

``python -m tests.faults.every_operation`` tests all operations of all jobs, which takes
an hour or more.
"""

import os
import pathlib
import shutil
import signal
import subprocess
import sys

import pytest

from tests.faults import every_operation

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
REPLACE = """
import pathlib, sys
from alexnet_estimator import files
with files.replacing_folder(sys.argv[1]) as folder:
    pathlib.Path(folder, "part").write_text(sys.argv[2])
"""

pytestmark = pytest.mark.skipif(
    shutil.which("cc") is None, reason="needs a C compiler, cc"
)


def test_jobs_survive_faults_in_the_middle() -> None:
    jobs = ["convert", "train", "predict"]
    try:
        import horovod  # noqa: F401
    except ImportError:
        pass
    else:
        jobs += ["train_2_ranks", "launcher"]
    command = [sys.executable, "-m", "tests.faults.every_operation", "--points=1"]
    done = subprocess.run(
        [*command, f"--jobs={','.join(jobs)}", "--faults=kill,EIO"],
        cwd=str(REPOSITORY),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
    )
    assert done.returncode == 0, done.stdout
    for fault in ("kill", "EIO"):
        assert done.stdout.count(f": {fault}: 1 of ") == len(jobs), done.stdout


def test_a_killed_writer_leaves_one_folder_or_the_other(tmp_path: pathlib.Path) -> None:
    path, log = tmp_path / "below" / "target", tmp_path / "calls"
    path.parent.mkdir()
    environ = {
        **os.environ,
        "LD_PRELOAD": every_operation.build(tmp_path),
        "STRIKE_FOLDER": str(path.parent),
        "STRIKE_LOG": str(log),
    }

    def replace(text: str, number: int) -> int:
        command = [sys.executable, "-c", REPLACE, str(path), text]
        environ["STRIKE_NUMBER"] = str(number)  # -1 injects no fault and logs nothing.
        return subprocess.call(command, env=environ, cwd=str(REPOSITORY))

    assert replace("old", -1) == 0 and replace("new", 0) == 0
    calls, found = log.read_text().splitlines(), []
    for number in range(1, len(calls) + 1):
        assert replace("old", -1) == 0
        assert replace("new", number) == -signal.SIGKILL
        found.append((path / "part").read_text())
    num_old = found.index("new")
    assert found == ["old"] * num_old + ["new"] * (len(calls) - num_old)
    assert calls[num_old - 1].split()[1] == "renameat2"
    assert replace("last", -1) == 0 and os.listdir(str(path.parent)) == ["target"]
