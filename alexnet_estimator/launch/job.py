"""The whole job of a launcher: lock, rendezvous, ranks, restarts, exit code."""

import dataclasses
import os
import shutil
import sys
import tempfile
from typing import Mapping, Sequence

from alexnet_estimator import rank_table
from alexnet_estimator.errors import ConfigError
from alexnet_estimator.launch import rendezvous
from alexnet_estimator.launch.environment import plan
from alexnet_estimator.launch.lock import held
from alexnet_estimator.launch.options import Options
from alexnet_estimator.launch.restarts import Restarts
from alexnet_estimator.launch.supervision import supervise
from alexnet_estimator.launch.verdict import Outcome
from alexnet_estimator.rank_table.topology import LEGACY, Topology

COMMAND = (sys.executable, "-m", "alexnet_estimator")
LOGS = "logs"


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
        arguments: the verb and the flags.
        topology: the whole job.
        server_id: this server, see ``rank_table.local_server``.
        backend: ``npu`` or ``horovod``.
        model_dir: gets ``logs/rank_<n>.log``.
        options: time limits, restarts and the port.

    Returns:
        The exit code, see ``supervise``.

    Raises:
        UserError: what is wrong before a rank has started.
    """
    _refuse_distant_restarts(topology, options)
    job = _Job([*COMMAND, *arguments], topology, server_id, backend, model_dir)
    try:
        os.makedirs(job.logs, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot be made: {error.strerror}", job.logs) from error
    # Not the folder's own lock: that is rank 0's, and servers may share the folder.
    first_log = os.path.join(LOGS, f"rank_{topology.ranks_of(server_id)[0]}.log")
    with held(model_dir, first_log):
        restarts = Restarts(model_dir, options.max_restarts)
        outcome = job.run_once(options)
        while outcome.crash and restarts.grant(outcome.crash):
            outcome = job.run_once(options)
    return outcome.exit_code


def _refuse_distant_restarts(topology: Topology, options: Options) -> None:
    if options.max_restarts and len(topology.servers) > 1:
        raise ConfigError(
            f"--max_restarts is {options.max_restarts}, but the table has "
            f"{len(topology.servers)} servers, which this launcher cannot restart "
            "together: leave it out, and give the same command on all of them again"
        )


@dataclasses.dataclass(frozen=True)
class _Job:
    """What is started again and again."""

    command: Sequence[str]
    topology: Topology
    server_id: str
    backend: str
    model_dir: str

    @property
    def logs(self) -> str:
        return os.path.join(self.model_dir, LOGS)

    def run_once(self, options: Options) -> Outcome:
        """Start the ranks and see them to their end."""
        # A rank that is killed cannot remove its temporary files.
        scratch = tempfile.mkdtemp(prefix="alexnet-")
        environ = {**os.environ, "TMPDIR": scratch}
        try:
            if self.backend == "npu":
                return self._run_npu(options, environ)
            return self._run_horovod(options, environ)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _run_npu(self, options: Options, environ: Mapping[str, str]) -> Outcome:
        topology = _for_hccl(self.topology, self.logs)
        ranks = plan(topology, self.server_id, self.backend, environ=environ)
        return supervise(self.command, ranks, self.logs, options)

    def _run_horovod(self, options: Options, environ: Mapping[str, str]) -> Outcome:
        topology, server_id = self.topology, self.server_id
        port = options.rendezvous_port
        with rendezvous.serve(topology, server_id, port) as store:
            if len(topology.servers) > 1:
                timeout_secs = _start_timeout_secs()
                rendezvous.meet(topology, server_id, store.port, timeout_secs)
            ranks = plan(topology, server_id, self.backend, store.port, environ)
            outcome = supervise(self.command, ranks, self.logs, options)
            if outcome.crash:
                store.tell_who_is_missing()
        return outcome


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
    path = os.path.realpath(os.path.join(directory, "rank_table.json"))
    rank_table.write(topology, path)
    return dataclasses.replace(topology, version="1.0", path=path)
