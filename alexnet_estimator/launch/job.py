"""The job of the launcher: it locks the run, starts the ranks and restarts them."""

import contextlib
import dataclasses
import os
import subprocess
import sys
import tempfile
from typing import Any, Dict, Iterator, Sequence

from alexnet_estimator import disk, locks, rank_environment
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
# The launch backends: modules with ``describe_ranks``, which yields the environment
# variables of each rank, and ``find_missing``, which returns what this machine lacks.
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
        arguments: Subcommand and flags.
        topology: Ranks of all servers.
        server_id: ID of this server, see ``rank_table.local_server``.
        backend: Name of the backend in ``BACKENDS``.
        model_dir: Folder in which ``logs/rank_<n>.log`` is written.
        options: Options of the launcher.

    Returns:
        The exit code, see ``supervise``.

    Raises:
        UserError: A problem was found before the ranks were started.
    """
    num_servers = len(topology.servers)
    if options.max_restarts and num_servers > 1:
        raise ConfigError(
            f"--max_restarts is {options.max_restarts}, but the rank table has "
            f"{num_servers} servers, which the launcher cannot restart together: "
            "omit the flag, and run the command on all servers again after a crash"
        )
    log_dir = os.path.join(model_dir, LOGS)
    try:
        os.makedirs(log_dir, exist_ok=True)
    except OSError as error:
        raise disk.error_at(log_dir, "cannot be created", error) from error
    if rank_environment.TF_CONFIG in os.environ:
        warn(rank_environment.TF_CONFIG_IS_IGNORED)

    port = options.rendezvous_port
    group = Group(topology, server_id, dict(os.environ), log_dir, port)
    command = [*COMMAND, *arguments]
    # Rank 0 locks the run itself, in a folder that several servers may share.
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
    """Create a temporary folder, which is removed even if the launcher is killed."""
    folder = tempfile.mkdtemp(prefix="alexnet-")
    # A separate process removes the folder when its input ends, which also happens when
    # SIGKILL ends the launcher.  It tries twice, because the ranks may take a moment to
    # end.  It ignores signals that reach all processes, so that it can clean up.
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
