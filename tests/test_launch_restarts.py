"""The launcher restarts a crashed group as long as the job advances."""

import json
import os
import pathlib
import subprocess
import sys
from typing import Any, Dict, List

import pytest

from alexnet_estimator import launch, rank_table
from alexnet_estimator.errors import ConfigError
from alexnet_estimator.launch import job, restarts
from alexnet_estimator.locks import refuse_others
from tests.test_launch import REPOSITORY, SERVERS, topology_of, wait_until

PIPES: Dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
# Each rank runs this code first; ``life`` counts its starts.
PRELUDE = """
import os, pathlib, signal, sys, tempfile, time
rank, folder = int(os.environ["RANK_ID"]), pathlib.Path(sys.argv[1])
lives = folder / f"lives_{rank}"
lives.open("a").write("x")
life = len(lives.read_text())
def die(): os.kill(os.getpid(), signal.SIGKILL)
def save(step): (folder / f"model.ckpt-{step}.index").write_text("")
"""


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> List[float]:
    """Return the pauses before restarts in seconds, without waiting."""
    waited: List[float] = []
    monkeypatch.setattr(restarts.time, "sleep", waited.append)
    return waited


def run(folder: pathlib.Path, code: str, max_restarts: int = 0) -> int:
    """Run two ranks that execute ``code``."""
    command, job.COMMAND = job.COMMAND, (sys.executable, "-c", PRELUDE + code)
    options = launch.Options(max_restarts=max_restarts, settle_secs=0.6, end_secs=0.6)
    try:
        return launch.run(
            [str(folder)], topology_of(2), SERVERS[0], "npu", str(folder), options
        )
    finally:
        job.COMMAND = command


def num_lives(folder: pathlib.Path, rank: int = 1) -> int:
    return len((folder / f"lives_{rank}").read_text())


def records(folder: pathlib.Path) -> List[Dict[str, Any]]:
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_crash_is_restarted_and_recorded(
    tmp_path: pathlib.Path,
    pauses: List[float],
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"event": "start", "step": 0}\n')
    assert run(tmp_path, "if rank == 1 and life < 3: die()", max_restarts=2) == 0
    assert num_lives(tmp_path, 0) == num_lives(tmp_path, 1) == 3
    first, second, third = records(tmp_path)
    assert first == {"event": "start", "step": 0}
    assert [(r["event"], r["step"], r["num_restarts"]) for r in (second, third)] == [
        ("restart", 0, 1),
        ("restart", 0, 2),
    ]
    assert second["reason"] == "rank 1 was killed by SIGKILL (out of memory?)"
    assert second["time_secs"] <= third["time_secs"]
    errors = capfd.readouterr().err
    assert "restart 1 from step 0 in 1 s (1 of at most 2 in a row with" in errors
    assert "restart 2 from step 0 in 2 s (2 of at most 2 in a row with" in errors
    assert pauses == [1, 2]


def test_there_is_an_end_to_it(
    tmp_path: pathlib.Path, pauses: List[float], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "if rank: die()", max_restarts=2) == 5
    assert num_lives(tmp_path) == 3
    assert "not restarted: 2 restarts in a row brought no new" in capfd.readouterr().err


def test_without_the_flag_nothing_is_restarted(
    tmp_path: pathlib.Path, pauses: List[float], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "if rank: die()") == 5
    assert num_lives(tmp_path) == 1
    assert "restart" not in capfd.readouterr().err
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_new_checkpoint_is_progress(
    tmp_path: pathlib.Path, pauses: List[float]
) -> None:
    code = "if rank and life < 5: save(10 * life); die()"
    assert run(tmp_path, code, max_restarts=1) == 0
    assert [record["step"] for record in records(tmp_path)] == [10, 20, 30, 40]
    assert pauses == [1, 1, 1, 1]


@pytest.mark.parametrize("step", [9, 10])
def test_an_old_checkpoint_is_none(
    tmp_path: pathlib.Path, pauses: List[float], step: int
) -> None:
    (tmp_path / "model.ckpt-10.index").write_text("")
    # Files that only look like checkpoints do not count either.
    code = f"if rank: save({step}); save('99-part'); save('99.tmp'); die()"
    assert run(tmp_path, code, max_restarts=1) == 5
    assert num_lives(tmp_path) == 2


def test_progress_is_measured_by_the_best_checkpoint_ever(
    tmp_path: pathlib.Path, pauses: List[float]
) -> None:
    """A rank that moves a damaged checkpoint away must still reach a higher step."""
    (tmp_path / "model.ckpt-10.index").write_text("")
    code = (
        "if rank:\n"
        "    if life == 1: (folder / 'model.ckpt-10.index').unlink()\n"
        "    save(life)\n"
        "    die()\n"
    )
    assert run(tmp_path, code, max_restarts=1) == 5
    assert num_lives(tmp_path) == 2


@pytest.mark.parametrize("code", [2, 3, 4, 5, 75])
def test_what_a_rank_reports_is_not_restarted(
    tmp_path: pathlib.Path, pauses: List[float], code: int
) -> None:
    assert run(tmp_path, f"sys.exit({code})", max_restarts=3) == code
    assert num_lives(tmp_path) == 1


def test_who_only_misses_the_others_is_not_the_cause(
    tmp_path: pathlib.Path, pauses: List[float]
) -> None:
    code = "if life == 1: time.sleep(0.3 * rank); sys.exit([5, 1][rank])"
    assert run(tmp_path, code, max_restarts=1) == 0
    assert records(tmp_path)[0]["reason"] == "rank 1 failed with exit code 1"


def test_who_was_asked_to_stop_is_not_restarted(
    tmp_path: pathlib.Path, pauses: List[float]
) -> None:
    code = "if rank: os.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(60)"
    assert run(tmp_path, code, max_restarts=3) == 75
    code = "time.sleep(0.3 * rank); sys.exit([75, 1][rank])"
    assert run(tmp_path, code, max_restarts=3) == 5
    assert num_lives(tmp_path) == 2


def test_a_crash_after_a_request_is_not_restarted(
    tmp_path: pathlib.Path, pauses: List[float]
) -> None:
    code = (
        "signal.signal(signal.SIGUSR2, lambda *_: os._exit(1))\n"
        "(folder / f'ready_{rank}').write_text('')\n"
        "while not (folder / f'ready_{1 - rank}').exists(): time.sleep(0.02)\n"
        "if rank: os.kill(os.getppid(), signal.SIGTERM)\n"
        "time.sleep(60)\n"
    )
    assert run(tmp_path, code, max_restarts=3) == 5
    assert num_lives(tmp_path) == 1


def test_pauses_grow_up_to_a_minute(
    tmp_path: pathlib.Path, pauses: List[float]
) -> None:
    policy = restarts.Restarts(str(tmp_path), 9)
    granted = [policy.grant("crash") for _ in range(10)]
    assert granted == [True] * 9 + [False]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_a_pause_can_be_interrupted(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(secs: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(restarts.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "if rank: die()", max_restarts=1)
    with refuse_others(str(tmp_path), "logs/rank_0.log"):
        pass  # The folder is free again.


def test_a_record_that_cannot_be_written_stops_nobody(
    tmp_path: pathlib.Path, pauses: List[float], capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "metrics.jsonl").mkdir()
    assert run(tmp_path, "if rank and life == 1: die()", max_restarts=1) == 0
    assert "metrics.jsonl cannot be written: Is a directory" in capfd.readouterr().err


def test_several_servers_are_not_restarted(tmp_path: pathlib.Path) -> None:
    options = launch.Options(max_restarts=1)
    topology = topology_of(2, SERVERS)
    with pytest.raises(
        ConfigError, match="--max_restarts is 1, but the rank table has 2 s"
    ):
        launch.run([], topology, SERVERS[0], "npu", str(tmp_path), options)
    assert os.listdir(str(tmp_path)) == []


def test_temporary_files_of_killed_ranks_are_removed(
    tmp_path: pathlib.Path, pauses: List[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(job.tempfile, "tempdir", str(temporary))
    code = (
        "path = pathlib.Path(tempfile.mkdtemp(), 'file')\n"
        "path.write_text('')\n"
        "print(path)\n"
        "if rank and life == 1: die()\n"
    )
    assert run(tmp_path, code, max_restarts=1) == 0
    log = (tmp_path / "logs" / "rank_0.log").read_text().splitlines()
    assert all(line.startswith(f"{temporary}/alexnet-") for line in log[1::2])
    assert os.listdir(str(temporary)) == []


def start_launcher(
    folder: pathlib.Path, code: str, **options: Any
) -> "subprocess.Popen[bytes]":
    """Run two ranks in a launcher that is a separate process."""
    table = folder / "table.json"
    rank_table.write(topology_of(2), str(table))
    program = [sys.executable, "-m", "tests.programs.launching", str(table), SERVERS[0]]
    arguments = ["npu", str(folder), json.dumps(options), PRELUDE + code, str(folder)]
    return subprocess.Popen([*program, *arguments], cwd=str(REPOSITORY), **PIPES)


def test_output_that_nobody_reads_does_not_prevent_a_restart(
    tmp_path: pathlib.Path,
) -> None:
    code = "for _ in range(100): print('x' * 5000)\nif rank == 1 and life == 1: die()"
    popen = start_launcher(tmp_path, code, max_restarts=1, settle_secs=0.3)
    for pipe in (popen.stdout, popen.stderr):
        assert pipe is not None
        pipe.close()
    assert popen.wait(30) == 0
    assert num_lives(tmp_path) == 2
    assert records(tmp_path)[0]["reason"].startswith("rank 1 was killed by SIGKILL")


def test_temporary_files_go_with_a_launcher_that_is_killed(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    code = (
        "pathlib.Path(tempfile.mkdtemp(), 'file').write_text('')\n"
        "(folder / f'ready_{rank}').write_text('')\n"
        "time.sleep(60)\n"
    )
    popen = start_launcher(tmp_path, code)
    wait_until(lambda: len(list(tmp_path.glob("ready_*"))) == 2)
    assert len(os.listdir(str(temporary))) == 1
    popen.kill()
    popen.communicate()
    wait_until(lambda: os.listdir(str(temporary)) == [])


# A second job.


def test_a_second_launcher_is_refused_before_it_does_anything(
    tmp_path: pathlib.Path,
) -> None:
    log = tmp_path / "logs" / "rank_0.log"
    log.parent.mkdir()
    log.write_text("of the first")
    with refuse_others(str(tmp_path), "logs/rank_0.log"):
        with pytest.raises(ConfigError, match=f"is in use by another job .see {log}"):
            run(tmp_path, "")
    assert os.listdir(str(tmp_path)) == ["logs"]
    assert os.listdir(str(log.parent)) == ["rank_0.log"]
    assert log.read_text() == "of the first"
