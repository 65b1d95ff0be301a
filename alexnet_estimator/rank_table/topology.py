"""The topology of a job, which is the content of a rank table as an object."""

import dataclasses
from typing import Iterable, List, Tuple

LEGACY = "legacy"  # Version of a topology whose table has no version.


@dataclasses.dataclass(frozen=True)
class Device:
    """A device, which is one rank of the job.

    Attributes:
        rank: Number of the rank, from 0 over all servers.
        device_id: Physical number of the device within its server.
        device_ip: Address of the device's network port; empty if it is unknown.
        server_id: IP address or host name of the server.
    """

    rank: int
    device_id: int
    device_ip: str
    server_id: str


@dataclasses.dataclass(frozen=True)
class Topology:
    """All ranks of a job.

    Attributes:
        devices: Devices in the order of ranks; rank ``i`` is ``devices[i]``.
        version: Version of the format: ``"1.0"``, ``"1.2"`` or ``"legacy"``.
        path: Absolute path of the file, with symbolic links resolved.
        warnings: Messages about broken rules that hold for some chips only.
    """

    devices: Tuple[Device, ...]
    version: str
    path: str
    warnings: Tuple[str, ...] = ()

    @property
    def num_ranks(self) -> int:
        """Return the number of ranks on all servers."""
        return len(self.devices)

    @property
    def servers(self) -> Tuple[str, ...]:
        """Return the ids of the servers; the first server has rank 0."""
        return tuple(dict.fromkeys(device.server_id for device in self.devices))

    @property
    def servers_with_made_up_addresses(self) -> List[str]:
        """Return the servers whose device addresses are from ``make_up_address``."""
        found = {
            device.server_id
            for index, server in enumerate(self.servers)
            for device in self.devices_of(server)
            if device.device_ip == make_up_address(index, device.device_id)
        }
        return sorted(found, key=self.servers.index)

    def devices_of(self, server_id: str) -> Tuple[Device, ...]:
        """Return the devices of one server in the order of ranks."""
        return tuple(d for d in self.devices if d.server_id == server_id)

    def ranks_of(self, server_id: str) -> Tuple[int, ...]:
        """Return the ranks of one server in ascending order."""
        return tuple(device.rank for device in self.devices_of(server_id))


def make_up_address(server: int, device: int) -> str:
    """Return a placeholder for the address of a device, in a table for CPUs and GPUs.

    Args:
        server: Index of the server, from 0.
        device: Number of the device within the server, from 0.
    """
    return f"10.255.{server}.{device + 1}"


def describe(topology: Topology) -> str:
    """Return a description of the topology, with a line for each server and rank."""
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


def describe_check(topology: Topology) -> str:
    """Return a description of the topology, the rules that it keeps, and warnings."""
    if topology.version == "1.2":
        rules = "the rules of version 1.2, for Atlas A3"
    elif topology.warnings:
        rules = "the rules of all chips; it breaks rules of the Ascend 910, see below"
    else:
        rules = "the rules of all chips and those of the Ascend 910"
    lines = [describe(topology), f"it keeps {rules}", *topology.warnings]
    servers = topology.servers_with_made_up_addresses
    if servers:
        lines.append(
            f"the device addresses of {', '.join(servers)} are placeholders for CPUs "
            "and GPUs: for Ascend, replace them by what `hccn_tool -i N -ip -g` prints "
            "on the server for each device N"
        )
    return "\n".join([*lines[:2], *(f"warning: {line}" for line in lines[2:])])


def format_ranks(ranks: Iterable[int]) -> str:
    """Return ranks as text, such as ``rank 3``, ``ranks 0-7`` or ``ranks 0-2, 5``."""
    runs: List[List[int]] = []
    for rank in sorted(ranks):
        if runs and rank == runs[-1][-1] + 1:
            runs[-1].append(rank)
        else:
            runs.append([rank])
    texts = [f"{r[0]}-{r[-1]}" if len(r) > 1 else f"{r[0]}" for r in runs]
    plural = len(runs) > 1 or any(len(run) > 1 for run in runs)
    return f"rank{'s' * plural} {', '.join(texts)}"
