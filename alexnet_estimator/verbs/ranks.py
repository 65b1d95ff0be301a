"""Starting the ranks of a rank table for a subcommand."""

import contextlib
import os
from typing import TYPE_CHECKING, Iterator, Optional

from alexnet_estimator import launch
from alexnet_estimator import rank_table as tables
from alexnet_estimator.command_line import Command
from alexnet_estimator.config import TRAINING_VERBS, Config
from alexnet_estimator.errors import ConfigError
from alexnet_estimator.rank_environment import is_rank
from alexnet_estimator.rank_table import Topology

if TYPE_CHECKING:
    from alexnet_estimator.runtime.base import Runtime

RANK_FLAGS = "rank_table server_id rendezvous_port hang_timeout_secs start_timeout_secs"
# HCCL also waits this long for the controller of a cluster to complete the table.
TABLE_WAIT_SECS = 1800


def read_topology(command: Command) -> Optional[Topology]:
    """Return the ranks that this process has to start.

    The result is None without a rank table, and in a process that is itself a rank.

    Raises:
        ConfigError: The rank table is wrong.
    """
    return None if is_rank(os.environ) else read_table(command)


def read_table(command: Command) -> Optional[Topology]:
    """Return the ranks of the whole job, or None without a rank table.

    Raises:
        ConfigError: The rank table is wrong, or it is missing although another flag
            needs it.
    """
    path = command.flags.rank_table
    if command.flags.server_id and not path:
        raise ConfigError("--server_id needs --rank_table, which lists the servers")
    return tables.read(path, wait_secs=TABLE_WAIT_SECS) if path else None


def launch_ranks(
    command: Command,
    config: Config,
    model_dir: str,
    topology: Topology,
    logs_dir: str = "",
) -> int:
    """Start the ranks of this server and return the exit code of the job.

    Pictures are converted once before the ranks start.

    Args:
        command: Command line, which every rank executes.
        config: Configuration of the command line.
        model_dir: Folder of the run.
        topology: Ranks of all servers.
        logs_dir: Folder of the logs of the ranks; empty for ``model_dir``.

    Raises:
        UserError: A problem was found before the ranks were started.
    """
    from alexnet_estimator.jobs.data import open_data
    from alexnet_estimator.runtime import find_launch_backend

    server_id = tables.local_server(topology, command.flags.server_id)
    backend = find_launch_backend(config.runtime.device)
    open_data(config, model_dir, command.words[0] in TRAINING_VERBS)
    logs_dir = logs_dir or model_dir
    options = _options(command)
    return launch.run(command.words, topology, server_id, backend, logs_dir, options)


@contextlib.contextmanager
def watching_alone(command: Command, runtime: "Runtime") -> Iterator[None]:
    """End this process if it hangs, unless a launcher watches it."""
    options = _options(command)
    with launch.watching_alone(runtime.heartbeat, options) as runtime.heartbeat:
        yield


def _options(command: Command) -> launch.Options:
    port = command.number("rendezvous_port", 0)
    if port >= 1 << 16:
        raise ConfigError(f"--rendezvous_port is {port}: must be from 1 to 65535")
    return launch.Options(
        max_restarts=command.number("max_restarts", 0),
        hang_timeout_secs=command.number("hang_timeout_secs", 900),
        start_timeout_secs=command.number("start_timeout_secs", 3600),
        rendezvous_port=port,
    )
