"""Jobs that are struck at some of their operations on files; see ``every_operation``.

``python -m tests.faults.every_operation`` strikes all of them, which takes hours.
"""

import pathlib
import shutil
import subprocess
import sys
from typing import List

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(
    shutil.which("cc") is None, reason="needs a C compiler, cc"
)


def strike(*options: str) -> List[str]:
    """Strike and return what is printed; it is an error if anything goes wrong."""
    command = [sys.executable, "-m", "tests.faults.every_operation", *options]
    done = subprocess.run(
        command,
        cwd=str(REPOSITORY),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout.splitlines()


def test_jobs_of_one_rank_survive_faults_in_the_middle() -> None:
    shown = strike("--points=1", "--jobs=convert,train,report,export,predict")
    assert ["3 struck, 0 wrong" in line for line in shown] == [True] * 5, shown


def test_a_killed_rank_of_two_loses_nothing() -> None:
    pytest.importorskip("horovod", reason="Horovod is not installed")
    (line,) = strike("--points=1", "--jobs=train_2_ranks", "--faults=kill")
    assert "1 struck, 0 wrong" in line
