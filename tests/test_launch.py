"""The launcher gives each process its environment, and leaves no process behind."""

import contextlib
import dataclasses
import json
import os
import pathlib
import pty
import re
import signal
import subprocess
import sys
import time
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

import pytest

from alexnet_estimator import launch, rank_environment, rank_table, run_record, runtime
from alexnet_estimator.errors import ConfigError
from alexnet_estimator.launch import job
from alexnet_estimator.rank_table import Topology
from alexnet_estimator.runtime import host, npu
from tests import tiny

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
FAST = launch.Options(settle_secs=0.6, end_secs=0.6, stop_secs=20, tail_lines=3)
SERVERS = ("127.0.0.1", "127.0.0.2")

# The ranks of these tests run this code first.
PRELUDE = """
import os, signal, subprocess, sys, time
rank = int(os.environ["RANK"])
def on_stop(handler): signal.signal(signal.SIGUSR2, handler)
def on_end(handler): signal.signal(signal.SIGTERM, handler)
def leave(code): sys.stdout.flush(); os._exit(code)
"""


def ranks(num_ranks: int = 2, first: int = 0) -> List[launch.Rank]:
    return [
        launch.Rank(first + i, {**os.environ, "RANK": str(first + i)})
        for i in range(num_ranks)
    ]


def command(code: str) -> List[str]:
    return [sys.executable, "-c", PRELUDE + code]


def supervise(
    tmp_path: pathlib.Path,
    code: str,
    num_ranks: int = 2,
    options: launch.Options = FAST,
) -> int:
    started = ranks(num_ranks)
    return launch.supervise(command(code), started, str(tmp_path), options).exit_code


def log_of(tmp_path: pathlib.Path, rank: int) -> str:
    return (tmp_path / f"rank_{rank}.log").read_text()


def wait_until(condition: Callable[[], bool], secs: float = 15) -> None:
    deadline = time.monotonic() + secs
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Return whether a process runs; a zombie without a parent does not count."""
    try:
        status = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def pids_in(tmp_path: pathlib.Path, num_pids: int) -> List[int]:
    """Wait for the files ``pid_*`` of the ranks, and return their contents."""

    def files() -> List[pathlib.Path]:
        return [path for path in tmp_path.glob("pid_*") if path.read_text()]

    wait_until(lambda: len(files()) == num_pids)
    return [int(path.read_text()) for path in files()]


WRITE_PID = "open(f'{DIR}/pid_{os.getpid()}', 'w').write(str(os.getpid()))\n"


@contextlib.contextmanager
def launcher(
    tmp_path: pathlib.Path,
    code: str,
    options: launch.Options = FAST,
    stdout: Optional[int] = None,
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run supervise() in a separate process, to which signals can be sent."""
    program = (
        "import os, sys\n"
        "from alexnet_estimator import launch\n"
        f"options = launch.Options(**{dataclasses.asdict(options)})\n"
        "ranks = [launch.Rank(i, {**os.environ, 'RANK': str(i)}) for i in (0, 1)]\n"
        f"command = {command(code)!r}\n"
        f"outcome = launch.supervise(command, ranks, {str(tmp_path)!r}, options)\n"
        "sys.exit(outcome.exit_code)\n"
    )
    popen = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=str(REPOSITORY),
        stdout=stdout or subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield popen
    finally:
        popen.kill()
        popen.communicate()


# The processes and their ends.


def test_runs_all_ranks_and_shows_the_first(
    tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    logs = tmp_path / "model" / "logs"
    code = "print('out', rank)\nprint('err', rank, file=sys.stderr)"
    started = [dataclasses.replace(rank, rank=rank.rank + 8) for rank in ranks()]
    logs.mkdir(parents=True)
    assert launch.supervise(command(code), started, str(logs), FAST).exit_code == 0
    captured = capfd.readouterr()
    assert sorted(captured.out.split("\n")) == ["", "err 0", "out 0"]
    assert captured.err == ""
    assert sorted(path.name for path in logs.iterdir()) == ["rank_8.log", "rank_9.log"]
    assert {"out 1", "err 1"} <= set(log_of(logs, 9).splitlines())
    assert {"out 0", "err 0"} <= set(log_of(logs, 8).splitlines())


def test_logs_are_appended_with_a_line_for_each_start(tmp_path: pathlib.Path) -> None:
    for text in ("one", "two"):
        assert supervise(tmp_path, f"print('{text}')") == 0
    lines = log_of(tmp_path, 1).splitlines()
    assert lines[1] == "one" and lines[3] == "two"
    assert all(line.startswith("--- rank 1 starts, 20") for line in lines[::2])


@pytest.mark.parametrize(
    "codes, expected",
    [
        ((0, 0), 0),
        ((0, 1), 5),
        ((1, 0), 5),
        ((0, 5), 5),
        ((2, 2), 2),
        ((0, 3), 3),
        ((4, 0), 4),
        ((75, 75), 75),
        ((0, 75), 75),
        ((75, 1), 5),
        ((1, 3), 3),
    ],
)
def test_exit_codes(
    tmp_path: pathlib.Path, codes: Tuple[int, int], expected: int
) -> None:
    assert supervise(tmp_path, f"leave({codes}[rank])") == expected


def test_a_killed_rank_ends_the_group_and_is_named(
    tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    supervise(tmp_path, "print('of an earlier run')")
    capfd.readouterr()
    code = (
        f"DIR = {str(tmp_path)!r}\n{WRITE_PID}"
        "for i in range(5): print('line', i, flush=True)\n"
        "if rank == 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "time.sleep(60)\nprint('slept')"
    )
    assert supervise(tmp_path, code, num_ranks=3) == 5
    assert not any(is_alive(pid) for pid in pids_in(tmp_path, 3))
    assert "slept" not in log_of(tmp_path, 0) + log_of(tmp_path, 1)
    errors = capfd.readouterr().err.splitlines()
    log = tmp_path / "rank_2.log"
    assert errors == [
        f"rank 2 was killed by SIGKILL (out of memory?); its log is {log}",
        "  rank 2 | line 2",
        "  rank 2 | line 3",
        "  rank 2 | line 4",
    ]


def test_the_tail_is_of_this_start_only(
    tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    supervise(tmp_path, "print('of an earlier run')")
    assert supervise(tmp_path, "if rank: print('new'); leave(1)") == 5
    errors = capfd.readouterr().err
    assert "rank 1 | new" in errors and "earlier" not in errors


def test_the_tail_shows_the_last_state_of_a_progress_bar(
    tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = "if rank: print('\\r'.join(['10 %', '20 %', '30 %'])); leave(1)"
    assert supervise(tmp_path, code) == 5
    assert capfd.readouterr().err.splitlines()[1:] == ["  rank 1 | 30 %"]


def test_ranks_that_ignore_sigterm_are_killed_with_their_children(
    tmp_path: pathlib.Path,
) -> None:
    code = (
        f"DIR = {str(tmp_path)!r}\n"
        "on_end(signal.SIG_IGN)\n"
        f"{WRITE_PID}"
        "child = subprocess.Popen(['sleep', '60'])\n"
        "open(f'{DIR}/pid_{child.pid}', 'w').write(str(child.pid))\n"
        "while rank == 0 or len(os.listdir(DIR)) < 6: time.sleep(0.02)\n"
        "leave(1)"
    )
    assert supervise(tmp_path, code) == 5
    wait_until(lambda: not any(is_alive(pid) for pid in pids_in(tmp_path, 4)))


def test_ranks_get_time_to_clean_up(tmp_path: pathlib.Path) -> None:
    code = (
        "on_end(lambda *_: (print('cleaned up'), leave(0)))\n"
        "print('ready', flush=True)\n"
        f"while rank and 'ready' not in open({str(tmp_path)!r} + '/rank_0.log').read():"
        " time.sleep(0.02)\n"
        "if rank: leave(1)\n"
        "time.sleep(60)"
    )
    assert supervise(tmp_path, code) == 5
    assert "cleaned up" in log_of(tmp_path, 0)


def test_default_times_keep_the_promise_of_10_s() -> None:
    options = launch.Options()
    assert options.settle_secs + options.end_secs < 10


def test_a_user_error_explains_the_crash_that_it_caused(
    tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = "if rank: leave(1)\ntime.sleep(0.2)\nprint('bad data')\nleave(3)"
    assert supervise(tmp_path, code) == 3
    captured = capfd.readouterr()
    assert captured.out == "bad data\n"
    assert captured.err.startswith("rank 0 failed with exit code 3;")


def test_a_rank_that_misses_another_is_not_blamed(
    tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert supervise(tmp_path, "if rank: leave(5)\ntime.sleep(0.2)\nleave(1)") == 5
    assert capfd.readouterr().err.startswith("rank 0 failed with exit code 1;")


@pytest.mark.parametrize("codes", [(2, 2), (0, 2)])
def test_a_user_error_is_shown_once(
    tmp_path: pathlib.Path,
    capfd: pytest.CaptureFixture[str],
    codes: Tuple[int, int],
) -> None:
    code = (
        f"code = {codes}[rank]\n"
        "time.sleep(0.2 * (rank == 0))\n"
        "if code: print('the message')\n"
        "leave(code)"
    )
    assert supervise(tmp_path, code) == 2
    captured = capfd.readouterr()
    assert (captured.out + captured.err).count("the message") == 1


def test_a_command_that_cannot_run_is_named(
    tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    outcome = launch.supervise(["./none"], ranks(1), str(tmp_path), FAST)
    assert outcome.exit_code == 5
    assert capfd.readouterr().out == "./none cannot be run: No such file or directory\n"


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be created"):
        launch.run([], topology_of(2), SERVERS[0], "npu", str(tmp_path / "file" / "x"))


def test_no_rank_stays_when_another_cannot_start(tmp_path: pathlib.Path) -> None:
    (tmp_path / "rank_1.log").mkdir()
    with pytest.raises(ConfigError, match="rank 1 cannot be started: Is a directory"):
        supervise(tmp_path, f"time.sleep(60)  # {tmp_path}\nprint('slept')")
    assert not has_process_with(str(tmp_path))
    assert "slept" not in log_of(tmp_path, 0)


def has_process_with(text: str) -> bool:
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if text.encode() in path.read_bytes():
                return True
    return False


# Signals.

STOPPABLE = (
    "stops = []\n"
    "on_stop(lambda *_: stops.append(1))\n"
    "print('ready', flush=True)\n"
    "while not stops: time.sleep(0.02)\n"
    "time.sleep(0.3)\n"
    "print('saved after', len(stops), flush=True)\n"
    "leave(75)"
)


def wait_for_ready(tmp_path: pathlib.Path) -> None:
    def is_ready(rank: int) -> bool:
        path = tmp_path / f"rank_{rank}.log"
        return path.exists() and "ready" in path.read_text()

    wait_until(lambda: is_ready(0) and is_ready(1))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_asks_all_ranks_once_to_stop(
    tmp_path: pathlib.Path, number: int
) -> None:
    with launcher(tmp_path, STOPPABLE) as popen:
        wait_for_ready(tmp_path)
        popen.send_signal(number)
        assert popen.wait(10) == 75
        _, errors = popen.communicate()
        assert errors == b""
    for rank in (0, 1):
        assert "saved after 1\n" in log_of(tmp_path, rank)


def test_a_second_signal_kills(tmp_path: pathlib.Path) -> None:
    code = (
        f"DIR = {str(tmp_path)!r}\n"
        "on_stop(lambda *_: print('asked', flush=True))\n"
        f"{WRITE_PID}print('ready', flush=True)\n"
        "while True: time.sleep(0.1)"
    )
    with launcher(tmp_path, code) as popen:
        wait_for_ready(tmp_path)
        popen.terminate()
        wait_until(lambda: all("asked" in log_of(tmp_path, rank) for rank in (0, 1)))
        assert popen.poll() is None
        popen.terminate()
        assert popen.wait(2) == 75
        _, errors = popen.communicate()
        assert b"stopped before the ranks could save" in errors
    assert not any(is_alive(pid) for pid in pids_in(tmp_path, 2))


def test_ranks_that_are_still_loading_just_end(tmp_path: pathlib.Path) -> None:
    code = "print('ready', flush=True)\ntime.sleep(60)"
    with launcher(tmp_path, code) as popen:
        wait_for_ready(tmp_path)
        popen.terminate()
        assert popen.wait(5) == 75
        _, errors = popen.communicate()
        assert b"stopped before the ranks could save" in errors


def test_ranks_that_do_not_stop_are_named(tmp_path: pathlib.Path) -> None:
    code = (
        "on_stop(signal.SIG_IGN)\non_end(signal.SIG_IGN)\n"
        "print('ready', flush=True)\ntime.sleep(60)"
    )
    with launcher(tmp_path, code, dataclasses.replace(FAST, stop_secs=0.5)) as popen:
        wait_for_ready(tmp_path)
        popen.terminate()
        assert popen.wait(5) == 5
        _, errors = popen.communicate()
        assert b"ranks 0-1 did not stop on request" in errors


def test_a_rank_that_stops_gives_the_others_time_to_save(
    tmp_path: pathlib.Path,
) -> None:
    code = "time.sleep(1.2 * (rank == 0))\nprint('saved')\nleave(75)"
    assert supervise(tmp_path, code) == 75
    assert "saved" in log_of(tmp_path, 0)


def test_a_rank_that_stops_has_the_others_stop(tmp_path: pathlib.Path) -> None:
    options = dataclasses.replace(FAST, stop_secs=0.5)
    assert supervise(tmp_path, "time.sleep(60 * rank)\nleave(75)", 2, options) == 5


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_a_loading_rank_that_is_asked_alone_ends_all(
    tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str], number: str
) -> None:
    """The others then end with exit code 1, which does not count as a failure."""
    code = (
        "on_stop(lambda *_: (print('asked'), leave(1)))\n"
        "signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
        "print('ready', flush=True)\n"
        f"while 'ready' not in open({str(tmp_path)!r} + '/rank_0.log').read():"
        " time.sleep(0.02)\n"
        f"if rank: os.kill(os.getpid(), signal.{number})\n"
        "time.sleep(60)"
    )
    assert supervise(tmp_path, code) == 75
    assert "asked" in log_of(tmp_path, 0)
    assert capfd.readouterr().err == (
        "stopped before the ranks could save; run the same command again to resume\n"
    )


def test_a_crash_before_a_request_is_a_crash(tmp_path: pathlib.Path) -> None:
    code = "time.sleep(0.3 * rank)\nif rank: os.kill(os.getpid(), signal.SIGTERM)\n"
    assert supervise(tmp_path, code + "leave(1)") == 5


def test_only_the_rank_itself_is_asked(tmp_path: pathlib.Path) -> None:
    """The helper processes of a rank are needed until it has saved."""
    code = (
        "stops = []\n"
        "on_stop(lambda *_: stops.append(1))\n"
        "child = subprocess.Popen(['sleep', '60'])\n"
        "print('ready', flush=True)\n"
        "while not stops: time.sleep(0.02)\n"
        "time.sleep(0.2)\n"
        "leave(75 if child.poll() is None else 1)"
    )
    with launcher(tmp_path, code) as popen:
        wait_for_ready(tmp_path)
        popen.terminate()
        assert popen.wait(10) == 75


def test_ranks_die_with_the_launcher(tmp_path: pathlib.Path) -> None:
    code = (
        f"DIR = {str(tmp_path)!r}\n"
        f"on_end(signal.SIG_IGN)\n{WRITE_PID}time.sleep(60)"
    )
    with launcher(tmp_path, code) as popen:
        pids = pids_in(tmp_path, 2)
        popen.kill()
        wait_until(lambda: not any(is_alive(pid) for pid in pids), secs=3)


def test_handlers_are_put_back(tmp_path: pathlib.Path) -> None:
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    supervise(tmp_path, "")
    assert before == [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]


# The terminal.

PROGRESS = (
    "print(os.isatty(1), os.isatty(2), flush=True)\n"
    "for i in range(3): sys.stdout.write(f'\\rstep {i}'); sys.stdout.flush()\n"
    "print()"
)


def test_a_terminal_reaches_the_first_rank(tmp_path: pathlib.Path) -> None:
    source, sink = pty.openpty()
    with launcher(tmp_path, PROGRESS, stdout=sink) as popen:
        assert popen.wait(10) == 0
    os.close(sink)
    with os.fdopen(source, "rb", buffering=0) as terminal:
        text = terminal.read(65536)
    assert text == b"True True\r\n\rstep 0\rstep 1\rstep 2\r\n"
    assert log_of(tmp_path, 1).splitlines()[1] == "False False"


def test_what_follows_a_progress_bar_gets_its_own_line(
    tmp_path: pathlib.Path,
) -> None:
    source, sink = pty.openpty()
    with launcher(tmp_path, "print('step 1', end='')", stdout=sink) as popen:
        assert popen.wait(10) == 0
    os.close(sink)
    with os.fdopen(source, "rb", buffering=0) as terminal:
        assert terminal.read(65536) == b"step 1\r\n"
    assert log_of(tmp_path, 0).endswith("step 1")


def test_a_pipe_gets_the_same_bytes(tmp_path: pathlib.Path) -> None:
    with launcher(tmp_path, PROGRESS) as popen:
        output, _ = popen.communicate(timeout=10)
    assert output == b"False False\n\rstep 0\rstep 1\rstep 2\n"
    log = (tmp_path / "rank_0.log").read_bytes()
    assert log.endswith(b" ---\n" + output)


def test_a_slow_reader_gets_all(tmp_path: pathlib.Path) -> None:
    with launcher(tmp_path, "print('x' * 120000)") as popen:
        time.sleep(0.7)  # The rank has ended, and half of its output has not been read.
        output, _ = popen.communicate(timeout=10)
    assert len(output) == 120001


def test_a_closed_pipe_does_not_end_the_job(tmp_path: pathlib.Path) -> None:
    code = "for i in range(50): print('x' * 5000, flush=True)\nprint('done')"
    with launcher(tmp_path, code) as popen:
        assert popen.stdout is not None
        popen.stdout.close()
        popen.stdout = None
        assert popen.wait(10) == 0
    assert log_of(tmp_path, 0).endswith("done\n")


# The environment.


def topology_of(num_devices: int = 8, servers: Sequence[str] = SERVERS[:1]) -> Topology:
    ips = {s: [f"192.168.{s[-1]}.{i}" for i in range(num_devices)] for s in servers}
    made = rank_table.make(servers, num_devices, ips)
    return dataclasses.replace(made, path="/tables/table.json")


def plan(
    topology: Topology, server_id: str, backend: str, **environ: Any
) -> List[launch.Rank]:
    group = launch.Group(topology, server_id, environ, log_dir="/none")
    with launch.BACKENDS[backend].describe_ranks(group) as specific:
        return launch.make_ranks(group, specific)


def variables(*arguments: Any, **environ: Any) -> List[Dict[str, str]]:
    return [rank.environment for rank in plan(*arguments, **environ)]


def test_npu_environment() -> None:
    topology = topology_of(servers=SERVERS)
    rivals = {"POD_NAME": "job-0", "CM_RANK": "3", "CM_CHIEF_IP": "x", "TF_CONFIG": ""}
    user = {"HOME": "/home/me", **rivals}
    planned = plan(topology, SERVERS[1], "npu", **user)
    assert [rank.rank for rank in planned] == list(range(8, 16))
    rank = planned[3].environment
    assert {
        "HOME": "/home/me",
        "JOB_ID": "alexnet_estimator",
        "RANK_ID": "11",
        "RANK_SIZE": "16",
        "RANK_TABLE_FILE": "/tables/table.json",
        "ASCEND_DEVICE_ID": "3",
        "DEVICE_ID": "3",
        "HCCL_CONNECT_TIMEOUT": "600",
    }.items() <= rank.items()
    assert rank_environment.is_rank(rank)
    assert not any(name.startswith("HOROVOD") for name in rank)
    assert not set(rivals) & set(
        rank
    )  # These would take precedence over the rank table.


def test_npu_environment_keeps_what_the_user_set() -> None:
    (rank,) = variables(
        topology_of(1),
        SERVERS[0],
        "npu",
        JOB_ID="10087",
        HCCL_CONNECT_TIMEOUT="1200",
        RANK_SIZE="64",
        OMP_NUM_THREADS="3",
        ALEXNET_NUM_THREADS="5",
        PYTHONPATH="/somewhere",
    )
    assert rank["JOB_ID"] == "10087"
    assert rank["HCCL_CONNECT_TIMEOUT"] == "1200"
    assert rank["RANK_SIZE"] == "1"
    assert (rank["OMP_NUM_THREADS"], rank["ALEXNET_NUM_THREADS"]) == ("3", "5")
    assert rank["PYTHONPATH"] == "/somewhere"


def test_npus_get_no_made_up_addresses(capsys: pytest.CaptureFixture[str]) -> None:
    made = rank_table.make(SERVERS, 1)
    message = (
        "addresses of 127.0.0.1, 127.0.0.2 are placeholders .* `hccn_tool -i N -ip -g`"
    )
    with pytest.raises(ConfigError, match=message):
        plan(made, SERVERS[0], "npu")
    plan(topology_of(3), SERVERS[0], "npu")
    assert 'warning: server "127.0.0.1" has devices 0, 1, 2: on an' in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    "visible, expected",
    [
        ("4-7", [0, 1]),
        ("0,4,5,7", [1, 2]),
        ("Ascend910-5,Ascend910-4", [0, 1]),
        ("", [4, 5]),
        ("void", [4, 5]),
    ],
)
def test_containers_number_devices_from_0(visible: str, expected: List[int]) -> None:
    full = topology_of()
    devices = [
        dataclasses.replace(full.devices[4 + rank], rank=rank) for rank in range(2)
    ]
    topology = dataclasses.replace(full, devices=tuple(devices))
    ranks_of = variables(topology, SERVERS[0], "npu", ASCEND_VISIBLE_DEVICES=visible)
    assert [int(rank["ASCEND_DEVICE_ID"]) for rank in ranks_of] == expected
    assert [rank["DEVICE_ID"] for rank in ranks_of] == ["4", "5"]


def test_devices_must_be_visible() -> None:
    with pytest.raises(ConfigError, match="device 4, 5, 6, 7 is not visible in this"):
        variables(topology_of(), SERVERS[0], "npu", ASCEND_VISIBLE_DEVICES="0-3")


def test_horovod_environment() -> None:
    topology = topology_of(2, ["10.0.0.1"])
    rank = variables(topology, "10.0.0.1", "horovod")[1]
    ours = {k: v for k, v in rank.items() if k.startswith("HOROVOD_")}
    port = ours.pop("HOROVOD_GLOO_RENDEZVOUS_PORT")
    address = ours.pop("HOROVOD_GLOO_RENDEZVOUS_ADDR")
    assert re.fullmatch(f"127.0.0.1:{port}/[0-9a-f]{{32}}", address)
    assert ours == {
        "HOROVOD_RANK": "1",
        "HOROVOD_SIZE": "2",
        "HOROVOD_LOCAL_RANK": "1",
        "HOROVOD_LOCAL_SIZE": "2",
        "HOROVOD_CROSS_RANK": "0",
        "HOROVOD_CROSS_SIZE": "1",
        "HOROVOD_HOSTNAME": "10.0.0.1",
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_CPU_OPERATIONS": "gloo",
        "HOROVOD_GLOO_TIMEOUT_SECONDS": "120",
        "HOROVOD_GLOO_IFACE": rank_table.local.interface_of("127.0.0.1"),
    }
    assert rank_environment.is_rank(rank)
    user = {"HOROVOD_GLOO_IFACE": "eth7"}
    rank = variables(topology, "10.0.0.1", "horovod", **user)[0]
    assert rank["HOROVOD_GLOO_IFACE"] == "eth7"


@pytest.mark.parametrize(
    "num_cores, num_ranks, shares",
    [
        (8, 2, [(0, 1, 2, 3), (4, 5, 6, 7)]),
        (3, 2, [(0,), (1, 2)]),
        (2, 2, [(0,), (1,)]),
        (2, 4, [(), (), (), ()]),
    ],
)
def test_cores_and_threads_are_divided(
    monkeypatch: pytest.MonkeyPatch,
    num_cores: int,
    num_ranks: int,
    shares: List[Tuple[int, ...]],
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(num_cores)))
    planned = plan(topology_of(num_ranks), SERVERS[0], "npu")
    assert [rank.cores for rank in planned] == shares
    threads = [int(rank.environment["ALEXNET_NUM_THREADS"]) for rank in planned]
    assert threads == [max(1, len(share)) for share in shares]
    assert threads == [int(rank.environment["OMP_NUM_THREADS"]) for rank in planned]


def test_ranks_are_bound_to_their_cores(tmp_path: pathlib.Path) -> None:
    cores = sorted(os.sched_getaffinity(0))
    bound = [
        dataclasses.replace(rank, cores=(cores[rank.rank % len(cores)],))
        for rank in ranks()
    ]
    code = "print(sorted(os.sched_getaffinity(0)))"
    outcome = launch.supervise(command(code), bound, str(tmp_path), FAST)
    assert outcome == launch.Outcome(0)
    for rank in bound:
        assert log_of(tmp_path, rank.rank).splitlines()[1] == str(list(rank.cores))


# The whole job.


def run_printing_environment(
    monkeypatch: pytest.MonkeyPatch, topology: Topology, model_dir: pathlib.Path
) -> List[Dict[str, Any]]:
    program = (
        "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ)]))"
    )
    monkeypatch.setattr(job, "COMMAND", (sys.executable, "-c", program))
    monkeypatch.setenv("MY_VARIABLE", "of the user")
    server = topology.servers[0]
    assert launch.run(["train", "--x=1"], topology, server, "npu", str(model_dir)) == 0
    environments = []
    for rank in topology.ranks_of(server):
        log = log_of(model_dir / "logs", rank)
        arguments, environ = json.loads(log.splitlines()[1])
        assert arguments == ["train", "--x=1"]
        assert environ["MY_VARIABLE"] == "of the user"
        environments.append(environ)
    return environments


def test_runs_the_same_command_on_each_rank(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert job.COMMAND == (sys.executable, "-m", "alexnet_estimator")
    first, second = run_printing_environment(monkeypatch, topology_of(2), tmp_path)
    assert (first["RANK_ID"], second["RANK_ID"]) == ("0", "1")
    assert first["RANK_TABLE_FILE"] == "/tables/table.json"


def test_hccl_gets_legacy_tables_as_1_0(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    legacy = dataclasses.replace(topology_of(2), version="legacy")
    for environ in run_printing_environment(monkeypatch, legacy, tmp_path):
        table = rank_table.read(environ["RANK_TABLE_FILE"])
        assert (table.version, table.devices) == ("1.0", legacy.devices)


def test_says_that_horovod_is_missing(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [n for n in sys.modules if n.startswith("horovod.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "horovod", None)
    with pytest.raises(ConfigError, match="need Horovod with Gloo and TensorFlow"):
        launch.run([], topology_of(2), SERVERS[0], "horovod", str(tmp_path))


def test_the_launcher_does_not_load_tensorflow(
    tmp_path: pathlib.Path, data_dir: str
) -> None:
    """Its ranks start while TensorFlow would be loading."""
    table = str(tmp_path / "table.json")
    rank_table.make_file(["127.0.0.1"], 2, table)
    program = (
        "import sys\n"
        "from alexnet_estimator import __main__ as cli\n"
        "from alexnet_estimator.launch import job\n"
        "job.COMMAND = ('echo',)\n"
        "assert cli.main(sys.argv[1:]) == 0\n"
        "assert not {'tensorflow', 'horovod'} & set(sys.modules)\n"
    )
    config = tiny.config(data={"path": data_dir})
    record = run_record.RunRecord(config, class_names=("apple", "ocean", "tree"))
    for verb in ("train", "evaluate", "benchmark"):
        model_dir = tmp_path / verb
        model_dir.mkdir()
        run_record.write(run_record.path_of(str(model_dir)), record)
        words = [verb, f"--model_dir={model_dir}", f"--rank_table={table}"]
        command = [sys.executable, "-c", program, *words]
        subprocess.check_call(command, cwd=str(REPOSITORY))
        log = model_dir / "logs" / "rank_1.log"
        assert verb == "benchmark" or f"{verb} --model_dir" in log.read_text()


def test_the_launch_backend_follows_from_the_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert runtime.find_launch_backend("cpu") == "horovod"
    assert runtime.find_launch_backend("npu") == "npu"
    monkeypatch.setattr(npu.Npu, "is_present", lambda self: False)
    assert runtime.find_launch_backend("auto") == "horovod"
    monkeypatch.setattr(npu.Npu, "is_present", lambda self: True)
    assert runtime.find_launch_backend("auto") == "npu"
    monkeypatch.setattr(host.Gpu, "is_present", lambda self: False)
    with pytest.raises(ConfigError, match="TensorFlow sees no GPU"):
        runtime.find_launch_backend("gpu")
