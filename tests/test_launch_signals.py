"""Every process can be asked to stop, and can be ended, at any time."""

import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any, Dict, Mapping

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
NO_RANK: Dict[str, str] = {}
RANK = {"HOROVOD_RANK": "0"}


def start(
    action: str, environ: Mapping[str, str] = {}, **options: Any
) -> "subprocess.Popen[bytes]":
    popen = subprocess.Popen(
        [sys.executable, "-m", "tests.programs.signalled", action],
        cwd=str(REPOSITORY),
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )
    assert popen.stdout and popen.stdout.readline() == b"ready\n"
    return popen


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_requests_to_stop_are_alike(number: int) -> None:
    for action, environ, expected in (
        ("wait", NO_RANK, 7),  # Like Ctrl-C.
        ("listen", NO_RANK, 8),  # Training saves before it ends.
        ("listen", RANK, 8),
    ):
        popen = start(action, environ)
        popen.send_signal(number)
        _, error = popen.communicate(timeout=20)
        assert popen.returncode == expected, action
        # A process may take a while to end.
        assert (b"stopping; a second signal ends this process at once" in error) == (
            action == "wait"
        )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_rank_that_loads_is_ended_at_once(number: int) -> None:
    popen = start("wait", RANK)
    popen.send_signal(number)
    popen.communicate(timeout=20)
    assert popen.returncode == -number


def test_nohup_is_obeyed() -> None:
    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    for action in ("wait", "listen"):
        popen = start(action, preexec_fn=ignore)
        popen.send_signal(signal.SIGHUP)
        popen.send_signal(signal.SIGUSR2 if action == "listen" else signal.SIGTERM)
        popen.communicate(timeout=20)
        assert popen.returncode == {"wait": 7, "listen": 8}[action]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_second_signal_ends_a_process_inside_of_c(number: int) -> None:
    popen = start("stay")
    popen.send_signal(number)
    time.sleep(0.2)  # Two equal signals that arrive together count as one.
    assert popen.poll() is None
    popen.send_signal(number)
    popen.communicate(timeout=20)
    assert popen.returncode == -number


def test_stacks_are_written_on_request() -> None:
    popen = start("show stacks")
    _, errors = popen.communicate(timeout=20)
    assert popen.returncode == 0 and b"signalled.py" in errors
