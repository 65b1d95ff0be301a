"""The whole job of a launcher: rendezvous, environment, processes, exit code."""

import contextlib
import dataclasses
import os
import sys
import tempfile
from typing import Sequence

from alexnet_estimator import rank_table
from alexnet_estimator.errors import ConfigError
from alexnet_estimator.launch import rendezvous
from alexnet_estimator.launch.environment import plan
from alexnet_estimator.launch.supervision import supervise
from alexnet_estimator.rank_table.topology import LEGACY, Topology

COMMAND = (sys.executable, "-m", "alexnet_estimator")
LOGS = "logs"


def run(
    arguments: Sequence[str],
    topology: Topology,
    server_id: str,
    backend: str,
    model_dir: str,
    rendezvous_port: int = 0,
) -> int:
    """Run ``python -m alexnet_estimator ARGUMENTS`` once for each rank of a server.

    Args:
        arguments: the verb and the flags.
        topology: the whole job.
        server_id: this server, see ``rank_table.local_server``.
        backend: ``npu`` or ``horovod``.
        model_dir: gets ``logs/rank_<n>.log``.
        rendezvous_port: for Horovod; 0 chooses.

    Returns:
        The exit code, see ``supervise``.

    Raises:
        UserError: what is wrong before a rank has started.
    """
    logs = os.path.join(model_dir, LOGS)
    command = [*COMMAND, *arguments]
    if backend == "npu":
        topology = _for_hccl(topology, logs)
        return supervise(command, plan(topology, server_id, backend), logs)
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(
            rendezvous.serve(topology, server_id, rendezvous_port)
        )
        if len(topology.servers) > 1:
            rendezvous.meet(topology, server_id, port, _start_timeout_secs())
        # A rank that is killed cannot remove its temporary files.
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="alexnet-"))
        environ = {**os.environ, "TMPDIR": scratch}
        ranks = plan(topology, server_id, backend, port, environ)
        code = supervise(command, ranks, logs)
    return code


def _start_timeout_secs() -> float:
    """Return how long the servers wait for each other; HCCL's ranks do so, too."""
    text = os.environ.get("HOROVOD_START_TIMEOUT", "600")
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"HOROVOD_START_TIMEOUT is {text}: must be seconds") from None


def _for_hccl(topology: Topology, directory: str) -> Topology:
    """Turn legacy tables into 1.0, where RANK_ID means the same for all of us."""
    if topology.version != LEGACY:
        return topology
    os.makedirs(directory, exist_ok=True)
    path = os.path.realpath(os.path.join(directory, "rank_table.json"))
    rank_table.write(topology, path)
    return dataclasses.replace(topology, version="1.0", path=path)
