"""Wrong variables of a launcher are named in an error, and no rank hangs."""

import os
import pathlib
import re
import tempfile
from typing import Dict, List

import pytest

from alexnet_estimator import rank_environment
from alexnet_estimator.errors import ConfigError

HOROVOD = {
    "HOROVOD_RANK": "1",
    "HOROVOD_SIZE": "2",
    "HOROVOD_LOCAL_RANK": "1",
    "HOROVOD_LOCAL_SIZE": "2",
    "HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1",
    "HOROVOD_GLOO_RENDEZVOUS_PORT": "29400",
}


@pytest.mark.parametrize(
    "environ, expected",
    [
        ({}, False),
        ({"RANK_ID": "0"}, False),
        ({"RANK_SIZE": "8"}, False),
        ({"RANK_ID": "0", "RANK_SIZE": "8"}, True),
        ({"HOROVOD_RANK": "0"}, True),
    ],
)
def test_knows_ranks(environ: Dict[str, str], expected: bool) -> None:
    assert rank_environment.is_rank(environ) is expected


def test_threads_are_a_number() -> None:
    name = "ALEXNET_NUM_THREADS"
    read = rank_environment.read_num_threads
    assert (read({}), read({name: ""}), read({name: "3"})) == (0, 0, 3)
    for text in ("abc", "-1", "1.5", "9" * 30):
        with pytest.raises(ConfigError, match=f"{name} is '{text}': must be a whole"):
            read({name: text})


def test_a_heartbeat_needs_a_file_without_a_name(tmp_path: pathlib.Path) -> None:
    read = rank_environment.read_heartbeat
    assert read({}) is None
    with tempfile.TemporaryFile() as file:
        assert read({"ALEXNET_HEARTBEAT": str(file.fileno())}) == file.fileno()
    precious = tmp_path / "precious"
    precious.write_text("data")
    with precious.open("r+") as named:
        for text in (str(precious), str(named.fileno()), "-1", "9999999999"):
            with pytest.raises(ConfigError, match=f"ALEXNET_HEARTBEAT is '{text}'"):
                read({"ALEXNET_HEARTBEAT": text})
    assert precious.read_text() == "data"


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"HOROVOD_RANK": "abc"}, ["HOROVOD_RANK is 'abc': must be a whole number"]),
        ({"HOROVOD_RANK": "2"}, ["HOROVOD_RANK is 2: must be below HOROVOD_SIZE = 2"]),
        ({"HOROVOD_SIZE": ""}, ["HOROVOD_SIZE is not set"]),
        ({"HOROVOD_LOCAL_RANK": "2"}, ["HOROVOD_LOCAL_RANK is 2: must be below"]),
        (
            {"HOROVOD_CROSS_RANK": "1", "HOROVOD_CROSS_SIZE": "1"},
            ["HOROVOD_CROSS_RANK is 1: must be below HOROVOD_CROSS_SIZE = 1"],
        ),
        ({"HOROVOD_GLOO_RENDEZVOUS_ADDR": ""}, ["HOROVOD_GLOO_RENDEZVOUS_ADDR is not"]),
        ({"HOROVOD_GLOO_RENDEZVOUS_PORT": "0"}, ["HOROVOD_GLOO_RENDEZVOUS_PORT is 0"]),
        (
            {"HOROVOD_LOCAL_SIZE": "x", "HOROVOD_GLOO_RENDEZVOUS_PORT": ""},
            ["HOROVOD_LOCAL_SIZE is 'x'", "HOROVOD_GLOO_RENDEZVOUS_PORT is not set"],
        ),
    ],
)
def test_mistakes_of_a_horovod_rank_are_named(
    changes: Dict[str, str], expected: List[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        rank_environment.check_horovod({**HOROVOD, **changes})
    *problems, advice = caught.value.problems
    assert len(problems) == len(expected)
    for problem, start in zip(problems, expected):
        assert problem.startswith(start)
    assert advice.startswith("start ranks with --rank_table")


def test_good_horovod_ranks_pass() -> None:
    rank_environment.check_horovod(HOROVOD)
    # MPI has its own rendezvous, and a group of one needs none.
    mpi = {k: v for k, v in HOROVOD.items() if "GLOO" not in k}
    rank_environment.check_horovod({**mpi, "HOROVOD_CONTROLLER": "mpi"})
    alone = {name: str(int("SIZE" in name)) for name in mpi}
    rank_environment.check_horovod(alone)


WORKER = '"task": {"type": "worker", "index": 0}'
TWO_TASKS = '{"cluster": {"chief": ["a:1"], "worker": ["b:1"]}, %s}' % WORKER


@pytest.mark.parametrize(
    "text",
    [
        '{"cluster": {"worker": ["w:2222"]}, %s}' % WORKER,
        "{}",
        "not JSON",
        '{"cluster": 7}',
        "[" * 100000,
    ],
)
def test_tf_config_of_one_task_is_ignored_with_a_word(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    environ = {"TF_CONFIG": text, "HOME": "/root"}
    rank_environment.ignore_tf_config(environ)
    assert environ == {"HOME": "/root"}
    assert capsys.readouterr().err.startswith("warning: TF_CONFIG is ignored: ")


def test_tf_config_of_several_tasks_is_refused_where_nothing_else_names_ranks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(ConfigError, match="a cluster of 2 tasks, but .* --rank_table="):
        rank_environment.ignore_tf_config({"TF_CONFIG": TWO_TASKS})
    rank = {**HOROVOD, "TF_CONFIG": TWO_TASKS}
    rank_environment.ignore_tf_config(rank)
    assert rank == HOROVOD
    rank_environment.ignore_tf_config(rank)
    assert capsys.readouterr().err.count("TF_CONFIG is ignored") == 1


def test_every_process_reads_what_the_launcher_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The runtime reads the variables before it converts data or joins a group."""
    from alexnet_estimator.config import default_config
    from alexnet_estimator.runtime import make_runtime

    config = default_config()
    config.runtime.device = "cpu"
    for environ, name in (
        ({"TF_CONFIG": TWO_TASKS}, "TF_CONFIG"),
        ({"ALEXNET_HEARTBEAT": "/etc/passwd"}, "ALEXNET_HEARTBEAT"),
        ({**HOROVOD, "HOROVOD_RANK": "2"}, "HOROVOD_RANK"),
    ):
        with pytest.raises(ConfigError, match=name):
            make_runtime(config, dict(environ))
    monkeypatch.setattr(os, "environ", {"ALEXNET_NUM_THREADS": "abc"})
    from alexnet_estimator.runtime.base import session_config

    with pytest.raises(ConfigError, match="ALEXNET_NUM_THREADS is 'abc'"):
        session_config(0)
    # The configuration has the last word on the share of the launcher.
    monkeypatch.setattr(os, "environ", {"ALEXNET_NUM_THREADS": "3"})
    chosen = [session_config(n).intra_op_parallelism_threads for n in (0, 2)]
    assert chosen == [3, 2]


def test_no_other_module_spells_the_names() -> None:
    values = [v for v in vars(rank_environment).values() if isinstance(v, str)]
    names = {v for v in values if re.fullmatch("[A-Z_]{6,}", v)}
    names.update(rank_environment.CM_VARIABLES)
    assert {"RANK_ID", "HOROVOD_RANK", "ALEXNET_HEARTBEAT", "CM_RANK"} <= names
    package = pathlib.Path(rank_environment.__file__).parent
    found = [
        f"{path.name}: {name}"
        for path in package.rglob("*.py")
        for name in re.findall('"([A-Z_]+)"', path.read_text())
        if name in names and path.name != "rank_environment.py"
    ]
    assert found == []
