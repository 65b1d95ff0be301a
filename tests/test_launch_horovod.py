"""Ranks of Horovod that the launcher starts find each other and end together."""

import json
import pathlib
import subprocess
import sys
import time
from typing import Dict, List, Sequence

import pytest

from alexnet_estimator import launch, rank_table
from alexnet_estimator.errors import ConfigError
from alexnet_estimator.launch import horovod, job

pytest.importorskip("horovod", reason="Horovod is not installed")

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
SERVERS = ["127.0.0.1", "127.0.0.2"]

# The value is fed, because TensorFlow computes the sum of constants only once.
RANK = """
import os, signal, sys, time
from alexnet_estimator.engine.graph_mode import tf
import horovod.tensorflow as hvd
hvd.init()
value = tf.placeholder(tf.float32, [])
total = hvd.allreduce(value, op=hvd.Sum)
def add():
    return float(session.run(total, {value: 10.0 ** hvd.rank()}))
session = tf.Session()
"""
PRINT_SUM = """
import json
print(json.dumps({"sum": add(), "rank": hvd.rank(), "size": hvd.size(),
    "local": [hvd.local_rank(), hvd.local_size()],
    "cross": [hvd.cross_rank(), hvd.cross_size()]}), flush=True)
"""
DIE_LATER = """
for step in range(3000):
    add()
    if step == 3 and hvd.rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.02)
"""


@pytest.fixture
def port() -> int:
    """Return a port that was free a moment ago."""
    with horovod.serve("127.0.0.1", 0, is_secret=False) as store:
        return store.port


def make_table(path: pathlib.Path, servers: Sequence[str], num_devices: int) -> str:
    rank_table.write(rank_table.make(servers, num_devices), str(path))
    return str(path)


def start(
    tmp_path: pathlib.Path, table: str, server_id: str, port: int, code: str
) -> "subprocess.Popen[str]":
    program = [sys.executable, "-m", "tests.programs.launching", table, server_id]
    options = json.dumps({"rendezvous_port": port})
    return subprocess.Popen(
        [*program, "horovod", str(tmp_path / server_id), options, code],
        cwd=str(REPOSITORY),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )


def reports(tmp_path: pathlib.Path, server_id: str) -> List[Dict[str, object]]:
    logs = sorted((tmp_path / server_id / "logs").iterdir())
    lines = [line for log in logs for line in log.read_text().splitlines()]
    return [json.loads(line) for line in lines if line.startswith("{")]


def test_two_ranks_of_one_server(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "COMMAND", (sys.executable, "-c", RANK + PRINT_SUM))
    table = make_table(tmp_path / "table.json", ["10.0.0.1"], 2)
    model_dir = str(tmp_path / "10.0.0.1")
    topology = rank_table.read(table)
    assert launch.run([], topology, "10.0.0.1", "horovod", model_dir) == 0
    assert reports(tmp_path, "10.0.0.1") == [
        {"sum": 11, "rank": r, "size": 2, "local": [r, 2], "cross": [0, 1]}
        for r in (0, 1)
    ]


def test_two_servers(tmp_path: pathlib.Path, port: int) -> None:
    table = make_table(tmp_path / "table.json", SERVERS, 1)
    # The second server comes first and has to wait.
    second = start(tmp_path, table, SERVERS[1], port, RANK + PRINT_SUM)
    time.sleep(0.5)
    first = start(tmp_path, table, SERVERS[0], port, RANK + PRINT_SUM)
    assert (first.wait(60), second.wait(60)) == (0, 0), first.communicate()
    for rank, server in enumerate(SERVERS):
        assert reports(tmp_path, server) == [
            {"sum": 11, "rank": rank, "size": 2, "local": [0, 1], "cross": [rank, 2]}
        ]


def test_a_killed_rank_ends_both_servers(tmp_path: pathlib.Path, port: int) -> None:
    table = make_table(tmp_path / "table.json", SERVERS, 1)
    popens = [start(tmp_path, table, s, port, RANK + DIE_LATER) for s in SERVERS]
    errors = [popen.communicate(timeout=60)[1] for popen in popens]
    assert [popen.returncode for popen in popens] == [5, 5]
    assert "rank 1 was killed by SIGKILL" in errors[1]


def test_servers_must_have_the_same_table(tmp_path: pathlib.Path, port: int) -> None:
    tables = [make_table(tmp_path / f"{n}.json", SERVERS, n) for n in (1, 2)]
    popens = [start(tmp_path, t, s, port, "") for t, s in zip(tables, SERVERS)]
    for popen, other in zip(popens, reversed(SERVERS)):
        _, errors = popen.communicate(timeout=20)
        assert popen.returncode == 2
        assert f"server {other} was started with another rank table" in errors
    assert not any(log.read_text() for log in tmp_path.glob("*/logs/*"))


@pytest.mark.parametrize("here, missing", [(0, 1), (1, 0)])
def test_a_missing_server_is_named(
    tmp_path: pathlib.Path,
    port: int,
    monkeypatch: pytest.MonkeyPatch,
    here: int,
    missing: int,
) -> None:
    monkeypatch.setenv("HOROVOD_START_TIMEOUT", "1")
    table = make_table(tmp_path / "table.json", SERVERS, 2)
    popen = start(tmp_path, table, SERVERS[here], port, "")
    _, errors = popen.communicate(timeout=20)
    assert popen.returncode == 5
    ranks = f"{2 * missing}-{2 * missing + 1}"
    assert f"server {SERVERS[missing]} (ranks {ranks}) did not join within" in errors


def test_a_taken_port_is_an_error(port: int) -> None:
    message = f"port {port} of 127.0.0.1 cannot be used .Address already in use."
    with horovod.serve(SERVERS[0], port, is_secret=False) as store:
        assert store.port == port
        with pytest.raises(ConfigError, match=message):
            with horovod.serve(SERVERS[0], port, is_secret=False):
                pass
