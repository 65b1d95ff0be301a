"""What a rank table says, in one immutable object."""

import dataclasses
from typing import Iterable, List, Tuple

LEGACY = "legacy"  # The version of tables without one.


@dataclasses.dataclass(frozen=True)
class Device:
    """One device, which is one rank.

    Args:
        rank: from 0, over all servers.
        device_id: the physical number within its server.
        device_ip: address of the device's own network port; ``""`` where unknown.
        server_id: address (or name) of the server.
    """

    rank: int
    device_id: int
    device_ip: str
    server_id: str


@dataclasses.dataclass(frozen=True)
class Topology:
    """All ranks of a job.

    Args:
        devices: in the order of ranks; rank ``i`` is ``devices[i]``.
        version: of the format: ``"1.0"``, ``"1.2"`` or ``"legacy"``.
        path: absolute path of the file, symbolic links resolved.
    """

    devices: Tuple[Device, ...]
    version: str
    path: str

    @property
    def num_ranks(self) -> int:
        """Return the number of ranks on all servers."""
        return len(self.devices)

    @property
    def servers(self) -> Tuple[str, ...]:
        """Return the servers' ids; the first holds rank 0."""
        return tuple(dict.fromkeys(device.server_id for device in self.devices))

    def devices_of(self, server_id: str) -> Tuple[Device, ...]:
        """Return the devices of one server in the order of ranks."""
        return tuple(d for d in self.devices if d.server_id == server_id)

    def ranks_of(self, server_id: str) -> Tuple[int, ...]:
        """Return the ranks of one server, ascending."""
        return tuple(device.rank for device in self.devices_of(server_id))


def describe(topology: Topology) -> str:
    """Return the topology as text for people, a line for each server and rank."""
    ranks, servers = topology.num_ranks, topology.servers
    lines = [
        f"{topology.path} (version {topology.version}): "
        f"{ranks} rank{'s' * (ranks > 1)} on {len(servers)} "
        f"server{'s' * (len(servers) > 1)}"
    ]
    for server_id in servers:
        lines.append(f"  server {server_id}")
        for device in topology.devices_of(server_id):
            address = f"  {device.device_ip}" if device.device_ip else ""
            lines.append(f"    rank {device.rank}: device {device.device_id}{address}")
    return "\n".join(lines)


def format_ranks(ranks: Iterable[int]) -> str:
    """Return ranks in words: ``rank 3``, ``ranks 0-7`` or ``ranks 0-2, 5``."""
    runs: List[List[int]] = []
    for rank in sorted(ranks):
        if runs and rank == runs[-1][-1] + 1:
            runs[-1].append(rank)
        else:
            runs.append([rank])
    texts = [f"{r[0]}-{r[-1]}" if len(r) > 1 else f"{r[0]}" for r in runs]
    plural = len(runs) > 1 or any(len(run) > 1 for run in runs)
    return f"rank{'s' * plural} {', '.join(texts)}"
