"""The ranks of this server: which processes they are, and what their environment is."""

import dataclasses
import os
from typing import Dict, List, Mapping, Sequence, Tuple

from alexnet_estimator import rank_environment as names
from alexnet_estimator.rank_table.topology import Topology

# They describe a group in other ways than a rank table does, and would be believed.
RIVALS = (*names.CM_VARIABLES, names.POD_NAME, names.TF_CONFIG)


@dataclasses.dataclass(frozen=True)
class Rank:
    """One process to start.

    Attributes:
        rank: Number over all servers.
        environment: All of its variables.
        cores: CPU cores it is bound to; () for no binding.
    """

    rank: int
    environment: Dict[str, str] = dataclasses.field(repr=False)
    cores: Tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Group:
    """The ranks of one server, as a launch backend sees them.

    Attributes:
        topology: Whole job.
        server_id: This server.
        environ: Variables of the user, which reach the ranks.
        log_dir: Folder for the logs.
        port: Port at which ranks may meet; 0 chooses one.
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
        specific: Variables of the backend for each rank.
    """
    numbers = group.topology.ranks_of(group.server_id)
    base = {k: v for k, v in group.environ.items() if k not in RIVALS}
    shares = _share_cores(sorted(os.sched_getaffinity(0)), len(numbers))
    ranks = []
    for number, cores, variables in zip(numbers, shares, specific):
        num_threads = str(max(1, len(cores)))
        defaults = {  # They give way to the user's.
            "OMP_NUM_THREADS": num_threads,
            names.NUM_THREADS: num_threads,
            "PYTHONUNBUFFERED": "1",
            "PYTHONFAULTHANDLER": "1",
        }
        ranks.append(Rank(number, {**defaults, **base, **variables}, cores))
    return ranks


def _share_cores(cores: Sequence[int], num_ranks: int) -> List[Tuple[int, ...]]:
    """Divide the cores; nobody is bound where they are fewer than the ranks."""
    if len(cores) < num_ranks:
        return [()] * num_ranks
    ends = [len(cores) * i // num_ranks for i in range(num_ranks + 1)]
    return [tuple(cores[start:end]) for start, end in zip(ends, ends[1:])]
