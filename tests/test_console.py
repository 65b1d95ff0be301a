"""What people see: bars on terminals only, and little with --quiet."""

import os
import pathlib
import pty
import re
import subprocess
import sys
from typing import Any, Dict, Tuple
from unittest import mock

import pytest

from alexnet_estimator import __main__ as cli
from alexnet_estimator import console
from alexnet_estimator.jobs import train as train_job
from tests import pictures

ROOT = pathlib.Path(__file__).resolve().parent.parent
TINY = f"--config={ROOT / 'configs' / 'tiny.py'}"


@pytest.fixture(autouse=True)
def loud() -> Any:
    yield
    console.be_quiet(False)


def test_quiet_leaves_results(capsys: pytest.CaptureFixture) -> None:
    console.be_quiet(True)
    console.say("step 1")
    console.note("downloading")
    console.say("accuracy 1", is_result=True)
    assert capsys.readouterr() == ("accuracy 1\n", "")
    console.be_quiet(False)
    console.say("step 1")
    console.note("downloading")
    assert capsys.readouterr() == ("step 1\n", "downloading\n")


def test_bars_need_a_terminal(capsys: pytest.CaptureFixture) -> None:
    assert not console.has_bars()
    with mock.patch.object(sys.stderr, "isatty", return_value=True):
        assert console.has_bars()
        console.be_quiet(True)
        assert not console.has_bars()


def run(capfd: pytest.CaptureFixture, *words: str) -> Tuple[str, str]:
    capfd.readouterr()
    assert cli.main(list(words)) == 0
    return capfd.readouterr()


def test_quiet_verbs_show_what_they_are_for(
    tmp_path: pathlib.Path, capfd: pytest.CaptureFixture
) -> None:
    folder = pictures.make_folder(tmp_path / "photos", num_per_class=6)
    (tmp_path / "photos" / "cat" / "broken.jpg").write_text("no picture")
    data, model_dir = f"--data_path={tmp_path / 'data'}", f"--model_dir={tmp_path}/run"
    words = [TINY, f"--data_path={folder}", f"--output={tmp_path / 'data'}", "--quiet"]
    out, err = run(capfd, "convert", *words)
    assert out.startswith("train: 10 images") and err == ""

    with mock.patch.object(train_job, "write_outcome"):  # It takes seconds.
        words = [TINY, data, model_dir, "--train_steps=2", "--quiet"]
        out, _ = run(capfd, "train", *words)
    assert out.startswith("-- done ---") and "accuracy" in out
    assert "step 2/2" not in out and out.count("\n") == 9

    out, _ = run(capfd, "evaluate", model_dir, "--quiet")
    assert re.fullmatch(r"step 2: accuracy .*\n", out)
    out, err = run(capfd, "predict", folder, model_dir, "--quiet")
    assert len(out.splitlines()) == 13
    # What could not be read is named, and nothing else.
    (line,) = err.splitlines()
    assert "broken.jpg: " in line


@pytest.mark.parametrize(
    "variables, is_coloured",
    [
        ({}, True),
        ({"NO_COLOR": "1"}, False),
        ({"NO_COLOR": ""}, True),  # As no-color.org has it.
        ({"TERM": "dumb"}, False),
        ({"HOROVOD_RANK": "0"}, False),  # The launcher writes it into a log.
    ],
)
def test_errors_are_red_on_terminals(
    variables: Dict[str, str], is_coloured: bool
) -> None:
    terminal, error = pty.openpty()
    command = [sys.executable, "-m", "alexnet_estimator", "trian"]
    environment = {"PATH": "/usr/bin:/bin", "TERM": "xterm", **variables}
    code = subprocess.call(command, cwd=str(ROOT), env=environment, stderr=error)
    os.close(error)
    seen = os.read(terminal, 1000).decode()
    os.close(terminal)
    assert code == 2
    assert ("\033" in seen) == is_coloured
    assert seen.replace("\033[31m", "").replace("\033[0m", "").startswith("error: no ")


def test_a_reader_may_leave() -> None:
    command = f"'{sys.executable}' -m alexnet_estimator --helpfull | true"
    done = subprocess.run(
        ["bash", "-c", command + "; exit ${PIPESTATUS[0]}"],
        cwd=str(ROOT),
        stderr=subprocess.PIPE,
    )
    assert (done.returncode, done.stderr) == (141, b"")
