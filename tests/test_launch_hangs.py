"""The launcher notices that ranks hang, and which of them stopped first."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
from typing import Any, Dict, List

import pytest

from alexnet_estimator import launch
from alexnet_estimator.launch import heartbeats
from alexnet_estimator.launch.heartbeats import Watchdog
from tests.test_launch import REPOSITORY, command, log_of, ranks


class Patient:
    """Ranks whose heartbeats and clock are set by the test."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        limits: Dict[str, Any],
    ):
        self.now = 1000.0
        monkeypatch.setattr(heartbeats.time, "monotonic", lambda: self.now)
        self.watchdog = Watchdog([0, 1], launch.Options(**limits))

    def beat(self, rank: int, count: int, phase: str = "train") -> None:
        record = {"phase": phase, "count": count, "time_secs": self.now}
        self.write(rank, json.dumps(record))

    def write(self, rank: int, text: str) -> None:
        (descriptor,) = self.watchdog.descriptors_of(rank)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)

    def wait(self, secs: int) -> List[int]:
        """Poll once a second, and return the ranks that hang at the end."""
        for _ in range(secs):
            self.now += 1
            pulses = self.watchdog.find_hang([0, 1])
        return [pulse.rank for pulse in pulses]


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> Patient:
    return Patient(monkeypatch, {"hang_timeout_secs": 10, "start_timeout_secs": 30})


def test_a_rank_hangs_when_its_count_stands_still(patient: Patient) -> None:
    for count in (1, 2, 3):
        patient.beat(0, count)
        patient.beat(1, count)
        assert patient.wait(9) == []
    patient.beat(0, 4)
    assert patient.wait(1) == []
    assert patient.wait(1) == [1]


def test_the_rank_with_the_fewest_beats_is_to_blame(patient: Patient) -> None:
    """Rank 0 has been idle for longer, but it waits for rank 1."""
    patient.beat(0, 7)
    patient.beat(1, 5)
    patient.wait(3)
    patient.beat(1, 6)
    assert patient.wait(10) == []
    assert patient.wait(1) == [1]


def test_of_equal_ranks_the_first_to_stop_is_named_first(patient: Patient) -> None:
    patient.beat(1, 5)
    patient.wait(1)
    patient.beat(0, 5)
    assert patient.wait(11) == [1, 0]


def test_the_start_has_a_limit_of_its_own(patient: Patient) -> None:
    assert patient.wait(29) == []  # There is no heartbeat yet.
    assert patient.wait(1) == [0, 1]


def test_who_still_compiles_gives_the_others_time(patient: Patient) -> None:
    patient.beat(0, 6)
    patient.beat(1, 5, "start")
    assert patient.wait(30) == []
    assert patient.wait(1) == [1]


def test_time_in_which_the_launcher_slept_does_not_count(patient: Patient) -> None:
    patient.beat(0, 5)
    patient.beat(1, 5)
    patient.wait(2)
    patient.now += 3600  # The container was paused.
    assert patient.wait(5) == []
    assert patient.wait(10) == [0, 1]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"count": 1}', "\x00" * 100])
def test_half_a_beat_is_none(patient: Patient, content: str) -> None:
    patient.beat(0, 5)
    patient.beat(1, 5)
    patient.wait(8)
    patient.write(1, content)
    assert patient.wait(2) == []
    assert patient.wait(1) == [0, 1]


@pytest.mark.parametrize("limit", ["hang_timeout_secs", "start_timeout_secs"])
def test_each_limit_can_be_off(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    patient = Patient(monkeypatch, {limit: 10})
    if limit == "start_timeout_secs":
        patient.beat(0, 1)
        patient.beat(1, 1)
    assert patient.wait(1000) == []


# Real processes.

BEAT = """
import faulthandler, json
faulthandler.register(signal.SIGUSR1)
def beat(count, phase="train"):
    record = {"phase": phase, "count": count, "time_secs": time.time()}
    text = json.dumps(record).ljust(100).encode()
    os.pwrite(int(os.environ["ALEXNET_HEARTBEAT"]), text, 0)
def stand_still():
    time.sleep(60)
"""
FAST: Dict[str, Any] = {"settle_secs": 0.6, "end_secs": 0.6, "dump_secs": 0.6}


def supervise(tmp_path: pathlib.Path, code: str, **limits: Any) -> launch.Outcome:
    options = launch.Options(**FAST, **limits)
    outcome = launch.supervise(command(code), ranks(), str(tmp_path), options)
    left = sorted(os.listdir(str(tmp_path)))
    assert left == ["rank_0.log", "rank_1.log"]
    return outcome


def test_a_hanging_group_is_ended_with_its_stacks(
    tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = BEAT + (
        "for count in range(2 + (rank == 0)): beat(count + 1)\n"
        "stand_still() if rank else time.sleep(60)\n"
    )
    outcome = supervise(tmp_path, code, hang_timeout_secs=2)
    text = outcome.crash
    # On a busy machine, the launcher may look a second later.
    pattern = (
        r"rank 1 hangs: no progress for [2-9] s in phase train, where 2 s are allowed"
    )
    assert outcome.exit_code == 5 and re.fullmatch(pattern, text)
    errors = capfd.readouterr().err
    assert f"{text}; its log is {tmp_path / 'rank_1.log'}\n  rank 1 | " in errors
    assert "  rank 1 |   File" in errors and "in stand_still" in errors
    assert "the logs of ranks 0-1 contain their Python stacks" in errors
    assert "in stand_still" in log_of(tmp_path, 1)
    assert "in <module>" in log_of(tmp_path, 0)
    assert "in stand_still" not in log_of(tmp_path, 0)


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler, cc")
def test_a_clock_that_is_set_back_hides_no_hang(tmp_path: pathlib.Path) -> None:
    library, source = tmp_path / "later.so", REPOSITORY / "tests" / "faults" / "later.c"
    subprocess.check_call(["cc", "-shared", "-fPIC", "-o", str(library), str(source)])
    program = (
        "import os, sys, time\n"
        "from alexnet_estimator import launch\n"
        "assert time.time() - os.stat(sys.argv[1]).st_mtime > 3000\n"
        "options = launch.Options(hang_timeout_secs=1, start_timeout_secs=1,"
        " dump_secs=0.6, end_secs=0.6)\n"
        "sleep = [sys.executable, '-c', 'import time; time.sleep(600)']\n"
        "ranks = [launch.Rank(0, dict(os.environ))]\n"
        "assert launch.supervise(sleep, ranks, sys.argv[2], options).exit_code == 5\n"
        "with launch.watching_alone(None, options): time.sleep(600)\n"
    )
    code = subprocess.call(
        [sys.executable, "-c", program, str(library), str(tmp_path)],
        cwd=str(REPOSITORY),
        env={**os.environ, "LD_PRELOAD": str(library)},
        timeout=120,
    )
    assert code == 5


def test_a_paused_rank_is_to_blame(
    tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = BEAT + (
        "beat(1)\n" "if rank: os.kill(os.getpid(), signal.SIGSTOP)\n" "time.sleep(60)"
    )
    outcome = supervise(tmp_path, code, hang_timeout_secs=2)
    assert re.match(r"rank 1 hangs: no progress for [2-9] s in phase tr", outcome.crash)
    errors = capfd.readouterr().err
    assert "rank 1 could not write stacks: paused by SIGSTOP or a debug" in errors
    assert "\nthe logs of rank 0 contain their Python stacks" in errors


def test_ranks_that_never_start(tmp_path: pathlib.Path) -> None:
    """SIGUSR1 ends these ranks, which must not be reported as the cause."""
    outcome = supervise(tmp_path, "time.sleep(60)", start_timeout_secs=2)
    assert outcome.exit_code == 5
    # On a busy machine, the launcher may look a second later.
    pattern = (
        r"ranks 0-1 hang: no progress for [2-9] s in phase start, .*; rank 0 stopped"
    )
    assert re.match(pattern, outcome.crash)


def test_ranks_that_advance_are_left_alone(tmp_path: pathlib.Path) -> None:
    code = BEAT + "for count in range(40): beat(count); time.sleep(0.1)"
    assert supervise(tmp_path, code, hang_timeout_secs=2) == launch.Outcome(0)


def test_a_rank_that_has_ended_does_not_hang(tmp_path: pathlib.Path) -> None:
    code = BEAT + (
        "beat(1)\n" "for count in range(40 * rank): beat(count + 2); time.sleep(0.1)"
    )
    assert supervise(tmp_path, code, hang_timeout_secs=2) == launch.Outcome(0)


def test_without_limits_nobody_beats(tmp_path: pathlib.Path) -> None:
    assert (
        supervise(tmp_path, "leave('ALEXNET_HEARTBEAT' in os.environ)").exit_code == 0
    )


# One rank, without a launcher.


@pytest.mark.parametrize("verb", ["train", "benchmark input"])
def test_a_rank_alone_ends_itself_with_its_stacks(
    verb: str, tmp_path: pathlib.Path
) -> None:
    words = [
        *verb.split(),
        "--config=configs/tiny.py",
        f"--model_dir={tmp_path / 'run'}",
    ]
    words += ["--config.data.synthetic=true", "--hang_timeout_secs=3", "--device=cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.programs.standing_still", *words],
        cwd=str(REPOSITORY),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        timeout=120,
    )
    assert done.returncode == 5
    errors = done.stderr.decode()
    pattern = r"this process hangs: no progress for [3-9] s in phase train, where 3 s"
    assert re.search(pattern, errors)
    assert "in stand_still" in errors


def test_a_rank_that_goes_on_or_has_a_launcher_is_left_alone() -> None:
    options = launch.Options(hang_timeout_secs=1, start_timeout_secs=1)
    with launch.watching_alone(None, options) as descriptor:
        assert descriptor is not None
        for count in range(25):
            record = {"phase": "train", "count": count + 1, "time_secs": 0.0}
            os.pwrite(descriptor, json.dumps(record).ljust(100).encode(), 0)
            time.sleep(0.1)
    with launch.watching_alone(7, options) as descriptor:
        assert descriptor == 7
        time.sleep(2.5)
    with launch.watching_alone(None, launch.Options()) as descriptor:
        assert descriptor is None
