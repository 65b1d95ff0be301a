"""Functions by which tests use the stand-in ``doubles/npu_bridge``."""

import contextlib
import json
import os
import pathlib
import sys
from typing import Any, Dict, Iterator
from unittest import mock

import pytest

from alexnet_estimator import engine
from alexnet_estimator.runtime import npu_checks

HERE = pathlib.Path(__file__).resolve().parent
DOUBLES = str(HERE / "doubles")
OLD, NEW = "r1.1.1_2021-01", "master_2023-12"
REASON = "npu_bridge is made for TensorFlow 1.15"
needs_1_15 = pytest.mark.skipif(not engine.is_1_15(), reason=REASON)


def clean_environment() -> Dict[str, str]:
    """Return the environment without the variables that make a process a rank."""
    ours = ("RANK_", "JOB_ID", "ASCEND_", "DEVICE_ID", "HCCL_", "NPU_DOUBLE", "HOROVOD")
    return {k: v for k, v in os.environ.items() if not k.startswith(ours)}


def load(monkeypatch: Any, release: str) -> None:
    """Make a release importable in this process, which is the only rank."""
    if not engine.is_1_15():
        pytest.skip(REASON)
    for name in set(os.environ) - set(clean_environment()):
        monkeypatch.delenv(name)
    monkeypatch.setenv("NPU_DOUBLE_RELEASE", release)
    monkeypatch.setenv("JOB_ID", "test")
    monkeypatch.setenv("RANK_SIZE", "1")
    monkeypatch.syspath_prepend(DOUBLES)
    forget()


def forget() -> None:
    """Unload the stand-in, so that the next import loads it again."""
    for name in list(sys.modules):
        if name.split(".")[0] in ("npu_bridge", "hccl"):
            del sys.modules[name]


def write_table(path: pathlib.Path, num_ranks: int, server: str = "10.0.0.1") -> str:
    """Write a rank table of one server; return its path."""
    devices = [
        {
            "device_id": str(i),
            "device_ip": f"192.168.100.{101 + i}",
            "rank_id": str(i),
        }
        for i in range(num_ranks)
    ]
    table = {
        "version": "1.0",
        "status": "completed",
        "server_count": "1",
        "server_list": [{"server_id": server, "device": devices}],
    }
    path.write_text(json.dumps(table))
    return str(path)


def rank_environment(table: str, rank: int, num_ranks: int) -> Dict[str, str]:
    """Return the variables that the launcher sets for a rank."""
    return {
        "JOB_ID": "test",
        "RANK_ID": str(rank),
        "RANK_SIZE": str(num_ranks),
        "RANK_TABLE_FILE": table,
        "ASCEND_DEVICE_ID": str(rank),
    }


@contextlib.contextmanager
def looking_like_a_server(folder: str) -> Iterator[None]:
    """Let ``doctor`` find devices and a driver in a folder."""
    places: Dict[str, Any] = {
        "DEVICES": os.path.join(folder, "davinci*"),
        "CONTROL_DEVICES": (),
        "DRIVER_VERSION": os.path.join(folder, "version.info"),
    }
    with mock.patch.multiple(npu_checks, **places):
        yield
