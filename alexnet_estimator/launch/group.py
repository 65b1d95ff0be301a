"""The ranks of this server, with their environment variables and cores."""

import dataclasses
import os
from typing import Dict, List, Mapping, Sequence, Tuple

from alexnet_estimator import rank_environment as names
from alexnet_estimator.rank_table.topology import Topology

# Ranks must not inherit these variables, which describe a group without a rank table.
RIVALS = (*names.CM_VARIABLES, names.POD_NAME, names.TF_CONFIG)


@dataclasses.dataclass(frozen=True)
class Rank:
    """A process to start.

    Attributes:
        rank: Number of the rank, counted over all servers.
        environment: All environment variables of the process.
        cores: CPU cores to which it is bound; () for no binding.
    """

    rank: int
    environment: Dict[str, str] = dataclasses.field(repr=False)
    cores: Tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Group:
    """The ranks of one server, which a launch backend describes.

    Attributes:
        topology: Ranks of all servers.
        server_id: ID of this server.
        environ: Environment variables of the user, which the ranks inherit.
        log_dir: Folder of the logs.
        port: Port of the rendezvous; 0 for any free port.
    """

    topology: Topology
    server_id: str
    environ: Mapping[str, str]
    log_dir: str
    port: int = 0


def make_ranks(group: Group, specific: Sequence[Mapping[str, str]]) -> List[Rank]:
    """Return the processes that a server has to start.

    Args:
        group: Ranks of the server.
        specific: Environment variables of the backend for each rank.
    """
    numbers = group.topology.ranks_of(group.server_id)
    base = {k: v for k, v in group.environ.items() if k not in RIVALS}
    shares = _share_cores(sorted(os.sched_getaffinity(0)), len(numbers))
    ranks = []
    for number, cores, variables in zip(numbers, shares, specific):
        num_threads = str(max(1, len(cores)))
        defaults = {  # Variables of the user override these.
            "OMP_NUM_THREADS": num_threads,
            names.NUM_THREADS: num_threads,
            "PYTHONUNBUFFERED": "1",
            "PYTHONFAULTHANDLER": "1",
        }
        ranks.append(Rank(number, {**defaults, **base, **variables}, cores))
    return ranks


def _share_cores(cores: Sequence[int], num_ranks: int) -> List[Tuple[int, ...]]:
    """Divide the cores among the ranks; with fewer cores than ranks, bind no rank."""
    if len(cores) < num_ranks:
        return [()] * num_ranks
    ends = [len(cores) * i // num_ranks for i in range(num_ranks + 1)]
    return [tuple(cores[start:end]) for start, end in zip(ends, ends[1:])]
