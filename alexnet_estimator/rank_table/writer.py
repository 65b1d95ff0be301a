"""Makes rank tables of version 1.0 for given servers, and writes them to files."""

import collections
import dataclasses
import json
import os
from typing import Any, Dict, List, Mapping, Optional, Sequence

from alexnet_estimator import disk, files
from alexnet_estimator.errors import ConfigError
from alexnet_estimator.rank_table.local import is_own_address, local_device_ips
from alexnet_estimator.rank_table.parser import parse
from alexnet_estimator.rank_table.topology import (
    Device,
    Topology,
    describe_check,
    make_up_address,
)


def make(
    servers: Sequence[str],
    num_devices: int,
    device_ips: Optional[Mapping[str, Sequence[str]]] = None,
) -> Topology:
    """Return the topology of a job in which all servers have the same devices.

    Args:
        servers: Addresses or names of the servers; the first one gets rank 0.
        num_devices: Number of devices of each server.
        device_ips: Addresses of the devices of some servers.  The devices of the other
            servers get placeholders, which are valid for CPUs and GPUs only.

    Raises:
        ConfigError: There are no devices, a server is repeated, or HCCL would refuse
            the rank table.
    """
    problems = [
        f"{server} is named {'twice' if number == 2 else f'{number} times'}: give each "
        "server once"
        for server, number in collections.Counter(servers).items()
        if number > 1
    ]
    if num_devices < 1:
        problems.append(f"the number of devices is {num_devices}: must be at least 1")
    if problems:
        raise ConfigError(problems, "these servers and devices")
    known = device_ips or {}
    devices: List[Device] = []
    for index, server in enumerate(servers):
        for i in range(num_devices):
            ip = known[server][i] if server in known else make_up_address(index, i)
            devices.append(Device(len(devices), i, ip, server))
    made = Topology(tuple(devices), "1.0", "")
    return parse(_to_table(made), "", "these servers and devices")


def make_file(servers: Sequence[str], num_devices: int, path: str) -> str:
    """Write a new rank table and return its description.

    If this machine is one of the servers, the addresses of its devices come from the
    driver.

    Args:
        servers: Addresses or names of the servers; the first one gets rank 0.
        num_devices: Number of devices of each server.
        path: Path of the file, which must not exist yet.

    Raises:
        ConfigError: The file exists, or HCCL would refuse the rank table.
    """
    if os.path.exists(path):
        raise ConfigError("exists already; remove it or name another file", path)
    ips = local_device_ips(num_devices)
    here = [s for s in servers if len(servers) == 1 or is_own_address(s)]
    known = {here[0]: ips} if ips and len(here) == 1 else {}
    topology = make(servers, num_devices, known)
    write(topology, path)
    return describe_check(dataclasses.replace(topology, path=os.path.realpath(path)))


def write(topology: Topology, path: str) -> None:
    """Write a rank table of version 1.0.

    Readers see either the old file or the whole new one.

    Args:
        topology: Topology of the job, which may come from a table of another version.
        path: Path of the file, whose name must end in ``.json``.

    Raises:
        UserError: The name is wrong, or the folder cannot be written.
    """
    if not path.endswith(".json"):
        raise ConfigError("HCCL reads only names that end in .json", path)
    text = json.dumps(_to_table(topology), indent=2) + "\n"
    try:
        files.write_bytes(path, text.encode())
    except OSError as error:
        raise disk.error_at(path, "cannot be written", error) from error


def _to_table(topology: Topology) -> Dict[str, Any]:
    server_list: Dict[str, Dict[str, Any]] = {}
    for device in topology.devices:
        entry = {"server_id": device.server_id, "device": []}
        texts = {"device_id": str(device.device_id)}
        if device.device_ip:
            texts["device_ip"] = device.device_ip
        texts["rank_id"] = str(device.rank)
        server_list.setdefault(device.server_id, entry)["device"].append(texts)
    return {
        "version": "1.0",
        "status": "completed",
        "server_count": str(len(server_list)),
        "server_list": list(server_list.values()),
    }
