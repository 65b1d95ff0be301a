"""Bars appear only on terminals, --quiet hides messages, and escapes are shown."""

import errno
import io
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
from alexnet_estimator.errors import DataError
from alexnet_estimator.jobs import train as train_job
from tests import pictures

ROOT = pathlib.Path(__file__).resolve().parent.parent
TINY = f"--config={ROOT / 'configs' / 'tiny.py'}"
PROGRAM = f"'{sys.executable}' -m alexnet_estimator"


@pytest.fixture(autouse=True)
def loud() -> Any:
    """Undo --quiet."""
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


def test_names_cannot_steer_the_terminal(capsys: pytest.CaptureFixture) -> None:
    name = "\x1b[2Jcat\r\x07\u202e\x9b1m" + os.fsdecode(b"\xff")
    shown = r"\u001b[2Jcat\u000d\u0007\u202e\u009b1m\udcff 雪" + "\n\tü\n"
    console.say(f"{name} 雪\n\tü")
    console.show(f"{name} 雪\n\tü")
    console.note(f"{name} 雪\n\tü")
    console.warn(f"{name} 雪\n\tü")
    console.complain(f"{name} 雪\n\tü")
    out, err = capsys.readouterr()
    assert out == 2 * shown
    assert err == shown + "warning: " + shown + "error: " + shown


class _Gone(io.StringIO):
    """A terminal whose other end was closed."""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("stream", [_Gone(), None], ids=["gone", "never opened"])
def test_news_may_get_lost_and_results_may_not(
    stream: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    console.prepare()
    console.say("step 1")
    console.note("step 1")
    console.warn("step 1")
    console.complain("step 1")
    with console.open_bar("reading", 4, "files") as bar:
        bar.update()
        bar.refresh()
    with pytest.raises(OSError) as caught:
        console.show("accuracy 1")
    assert caught.value.filename == console.STDOUT_NAME


def test_bars_need_a_terminal(capsys: pytest.CaptureFixture) -> None:
    assert not console.has_bars()
    with mock.patch.object(sys.stderr, "isatty", return_value=True):
        assert console.has_bars()
        with console.open_bar("reading", 4, "files", start=1) as bar:
            bar.update()
            assert bar.n == 2
            console.note("above")
        console.be_quiet(True)
        assert not console.has_bars()
    assert "above\n" in capsys.readouterr().err


def test_a_remedy_is_no_problem() -> None:
    error = DataError(["a is bad", "b is bad"], "data", "copy it again")
    assert error.message() == (
        "data: 2 problems\n  - a is bad\n  - b is bad\ncopy it again"
    )
    error = DataError(["a is bad"], "data", "copy it again")
    assert error.message() == "data: a is bad; copy it again"


def test_nouns_are_counted() -> None:
    found = [console.count(number, "picture") for number in (0, 1, 2)]
    assert found == ["0 pictures", "1 picture", "2 pictures"]


def test_a_list_is_shortened_only_if_it_is_too_long() -> None:
    assert console.list_some(["a", "b"], 2) == "a, b"
    assert console.list_some(["a", "b", "c"], 2) == "a, b, ... (3)"
    assert console.list_some(["a", "b", "c"], 2, is_counted=False) == "a, b, ..."


def run(capfd: pytest.CaptureFixture, *words: str) -> Tuple[str, str]:
    """Run a command line that must succeed, and return its output."""
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

    with mock.patch.object(train_job, "write_outcome", return_value="report.html"):
        words = [TINY, data, model_dir, "--train_steps=2", "--quiet"]
        out, _ = run(capfd, "train", *words)
    assert out.startswith("-- done ---") and "accuracy" in out
    assert re.search(r"\n  report +report.html\n", out)
    assert "step 2/2" not in out and out.count("\n") == 10

    out, _ = run(capfd, "evaluate", model_dir, "--quiet")
    assert re.fullmatch(r"step 2: accuracy .*\n", out)
    out, err = run(capfd, "predict", folder, model_dir, "--quiet")
    assert len(out.splitlines()) == 13
    # What could not be read is named, and nothing else.
    (line,) = err.splitlines()
    assert "broken.jpg: " in line


def test_training_needs_no_reader(data_dir: str, tmp_path: pathlib.Path) -> None:
    words = f"train {TINY} --data_path={data_dir} --train_steps=1 --quiet"
    command = f"{PROGRAM} {words} --model_dir={tmp_path}/run 2>/dev/full | true"
    command += "; exit ${PIPESTATUS[0]}"
    done = subprocess.run(["bash", "-c", command], cwd=str(ROOT))
    assert done.returncode == 0
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize(
    "variables, is_coloured",
    [
        ({}, True),
        ({"NO_COLOR": "1"}, False),
        ({"NO_COLOR": ""}, True),  # As no-color.org specifies.
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
    plain = seen.replace("\033[31m", "").replace("\033[0m", "")
    assert plain.startswith("error: there is no subcommand")


@pytest.mark.parametrize(
    "command, code, error",
    [
        (f"{PROGRAM} train --helpfull | true", 141, ""),
        (f"{PROGRAM} --help >&-", 3, "error: standard output: Bad file descriptor"),
        (f"{PROGRAM} trian 2>&-", 2, ""),
        (
            f"LC_ALL=C PYTHONIOENCODING=ascii {PROGRAM} rank_table check 雪.json",
            2,
            r"error: \u96ea.json: no such file",
        ),
    ],
)
def test_streams_that_are_closed_or_narrow(command: str, code: int, error: str) -> None:
    done = subprocess.run(
        ["bash", "-c", command + "; exit ${PIPESTATUS[0]}"],
        cwd=str(ROOT),
        stderr=subprocess.PIPE,
    )
    assert done.returncode == code
    shown = done.stderr.decode()
    assert shown.startswith(error) and shown.count("\n") == bool(error)
