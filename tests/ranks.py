"""Training jobs of several ranks, whose weights are recorded on each rank.

``python -m tests.ranks FOLDER VERB FLAGS...`` is a rank that writes no report.  It
writes all of its variables to the folder, unless the name of the folder is empty.
"""

import os
import pathlib
import signal
import sys
import threading
import time
from typing import Any, Dict, List, Optional, Sequence
from unittest import mock

import numpy as np
import tensorflow.compat.v1 as tf

from alexnet_estimator import __main__ as cli
from alexnet_estimator import launch
from alexnet_estimator.hooks.saving import SaveHook
from alexnet_estimator.jobs import train as train_job
from alexnet_estimator.launch import job
from alexnet_estimator.rank_table import Device, Topology
from tests.training import without_report

SERVER = "127.0.0.1"
LIMIT_SECS = 150


def run_ranks(
    num_ranks: int,
    words: List[str],
    model_dir: Any,
    weights_dir: Optional[pathlib.Path] = None,
    command: Sequence[str] = (),
) -> int:
    """Run a command line on any number of ranks of this machine.

    Args:
        num_ranks: Number of ranks, which may be one that rank tables do not allow.
        words: Subcommand and its flags.
        model_dir: Folder of the run and of the logs.
        weights_dir: Folder of the files that ``read_weights`` reads.
        command: Command of a rank with faults; by default, this file is run.

    Returns:
        The exit code of the launcher; 5 if the ranks hang.
    """
    devices = [
        Device(rank, rank, f"10.0.0.{rank}", SERVER) for rank in range(num_ranks)
    ]
    topology = Topology(tuple(devices), "1.0", "")
    command = command or [sys.executable, "-m", "tests.ranks", str(weights_dir or "")]
    words = [*words, f"--model_dir={model_dir}"]
    limit = threading.Timer(LIMIT_SECS, _end_launcher)
    limit.start()
    with mock.patch.object(job, "COMMAND", command):
        code = launch.run(words, topology, SERVER, "horovod", str(model_dir))
    limit.cancel()
    return code


def _end_launcher() -> None:
    """Ask the launcher, which is this process, to stop, and then to stop at once."""
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)


def read_weights(weights_dir: pathlib.Path, rank: int) -> Dict[str, np.ndarray]:
    """Return all variables that a rank had at the end of its last session."""
    with np.load(str(weights_dir / f"{rank}.npz")) as file:
        return {name: file[name] for name in file.files}


def train_two_ranks(words: List[str], folder: pathlib.Path) -> Dict[str, np.ndarray]:
    """Train on two ranks, check that both have the same bytes, and return them.

    Args:
        words: Subcommand and its flags.
        folder: Folder in which ``run`` and ``weights`` are created.
    """
    weights_dir = folder / "weights"
    weights_dir.mkdir()
    assert run_ranks(2, words, folder / "run", weights_dir) == 0
    first, other = (read_weights(weights_dir, rank) for rank in (0, 1))
    assert set(first) == set(other)
    for name, value in first.items():
        assert other[name].tobytes() == value.tobytes(), name
    return first


class _WeightsHook(SaveHook):
    """Saves as usual, and also writes the variables of this rank."""

    def end(self, session: tf.Session) -> None:
        super().end(session)
        variables = session.graph.get_collection(tf.GraphKeys.GLOBAL_VARIABLES)
        values = session.run({v.op.name: v for v in variables})
        if sys.argv[1]:
            np.savez(os.path.join(sys.argv[1], os.environ["HOROVOD_RANK"]), **values)


if __name__ == "__main__":
    with without_report(), mock.patch.object(train_job, "SaveHook", _WeightsHook):
        sys.exit(cli.main(sys.argv[2:]))
