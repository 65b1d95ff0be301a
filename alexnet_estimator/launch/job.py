"""The whole job of a launcher: lock, ranks, restarts, exit code."""

import contextlib
import dataclasses
import os
import subprocess
import sys
import tempfile
from typing import Any, Dict, Iterator, Sequence

from alexnet_estimator import locks, rank_environment
from alexnet_estimator.console import warn
from alexnet_estimator.errors import ConfigError
from alexnet_estimator.launch import hccl, horovod
from alexnet_estimator.launch.group import Group, make_ranks
from alexnet_estimator.launch.options import Options
from alexnet_estimator.launch.restarts import Restarts
from alexnet_estimator.launch.supervision import supervise
from alexnet_estimator.launch.verdict import Outcome
from alexnet_estimator.rank_table.topology import Topology

COMMAND = (sys.executable, "-m", "alexnet_estimator")
LOGS = "logs"
# How ranks find each other: modules with ``describe_ranks``, the variables for each
# rank, and ``find_missing``, what this machine lacks.  A runtime names its backend; a
# new one is a line here.
BACKENDS: Dict[str, Any] = {"npu": hccl, "horovod": horovod}


def run(
    arguments: Sequence[str],
    topology: Topology,
    server_id: str,
    backend: str,
    model_dir: str,
    options: Options = Options(),
) -> int:
    """Run ``python -m alexnet_estimator ARGUMENTS`` once for each rank of a server.

    Args:
        arguments: Verb and flags.
        topology: Whole job.
        server_id: This server, see ``rank_table.local_server``.
        backend: Name in ``BACKENDS``.
        model_dir: Folder that gets ``logs/rank_<n>.log``.
        options: Time limits, restarts and the port.

    Returns:
        The exit code, see ``supervise``.

    Raises:
        UserError: Something is wrong before a rank has started.
    """
    num_servers = len(topology.servers)
    if options.max_restarts and num_servers > 1:
        raise ConfigError(
            f"--max_restarts is {options.max_restarts}, but the table has "
            f"{num_servers} servers, which this launcher cannot restart "
            "together: leave it out, and give the same command on all of them again"
        )
    log_dir = os.path.join(model_dir, LOGS)
    try:
        os.makedirs(log_dir, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot be made: {error.strerror}", log_dir) from error
    if rank_environment.TF_CONFIG in os.environ:
        warn(rank_environment.TF_CONFIG_IS_IGNORED)

    port = options.rendezvous_port
    group = Group(topology, server_id, dict(os.environ), log_dir, port)
    command = [*COMMAND, *arguments]
    # Not the folder's own lock: that is rank 0's, and servers may share the folder.
    first_log = os.path.join(LOGS, f"rank_{topology.ranks_of(server_id)[0]}.log")
    with locks.refuse_others(model_dir, first_log):
        restarts = Restarts(model_dir, options.max_restarts)
        outcome = _run_once(command, group, backend, options)
        while outcome.crash and restarts.grant(outcome.crash):
            outcome = _run_once(command, group, backend, options)
    return outcome.exit_code


def _run_once(
    command: Sequence[str], group: Group, backend: str, options: Options
) -> Outcome:
    with _scratch_folder() as scratch:
        environ = {**group.environ, "TMPDIR": scratch}
        group = dataclasses.replace(group, environ=environ)
        with BACKENDS[backend].describe_ranks(group) as variables:
            ranks = make_ranks(group, variables)
            return supervise(command, ranks, group.log_dir, options)


@contextlib.contextmanager
def _scratch_folder() -> Iterator[str]:
    """Make a folder for temporary files, which goes however ranks and launcher end."""
    folder = tempfile.mkdtemp(prefix="alexnet-")
    # The end of its input is our own end, be it by SIGKILL.  The ranks may need a
    # moment to die of that as well.  A signal that reaches all processes must not end
    # this one before it has cleaned up.
    command = "trap '' HUP INT TERM; " + 'cat; rm -rf "$0" || { sleep 1; rm -rf "$0"; }'
    remover = subprocess.Popen(
        ["/bin/sh", "-c", command, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield folder
    finally:
        remover.communicate()
