"""Rank tables of version 1.0: made for given servers, written to a file."""

import json
import os
from typing import Any, Dict, List, Mapping, Optional, Sequence, Union

from alexnet_estimator import files
from alexnet_estimator.errors import ConfigError
from alexnet_estimator.rank_table.hccn import local_device_ips
from alexnet_estimator.rank_table.local import is_own_address
from alexnet_estimator.rank_table.parser import parse
from alexnet_estimator.rank_table.topology import Topology, describe


def make(
    servers: Sequence[str],
    num_devices: int,
    device_ips: Optional[Mapping[str, Sequence[str]]] = None,
) -> Dict[str, Any]:
    """Return a rank table of version 1.0 in which every server has the same devices.

    Args:
        servers: their addresses; the first gets rank 0.
        num_devices: of each server: 1, 2, 4 or 8, numbered from 0.
        device_ips: for a server, the addresses of its devices.  Devices of other
            servers get ``10.255.<server>.<device + 1>``, which is good for CPUs only.

    Raises:
        ConfigError: what HCCL would refuse.
    """
    known = device_ips or {}
    server_list = []
    for index, server_id in enumerate(servers):
        ips = known.get(server_id) or _placeholders(index, num_devices)
        devices = [
            {
                "device_id": str(device),
                "device_ip": ips[device],
                "rank_id": str(index * num_devices + device),
            }
            for device in range(num_devices)
        ]
        server_list.append({"server_id": server_id, "device": devices})
    table = _table(server_list)
    parse(table, "", "these servers and devices")
    return table


def make_file(servers: Sequence[str], num_devices: int, path: str) -> str:
    """Write a new rank table and return the text to show.

    The addresses of this server's devices are asked of the driver.

    Raises:
        ConfigError: the file exists, or the table would be refused.
    """
    if os.path.exists(path):
        raise ConfigError("exists already; remove it or name another file", path)
    ips = local_device_ips(num_devices)
    here = [s for s in servers if len(servers) == 1 or is_own_address(s)]
    known = {here[0]: ips} if ips and len(here) == 1 else {}
    table = make(servers, num_devices, known)
    write(table, path)
    text = describe(parse(table, os.path.realpath(path)))
    made_up = [server for server in servers if server not in known]
    if made_up:
        text += (
            f"\nwarning: the device addresses of {', '.join(made_up)} are "
            "placeholders, good for CPUs and GPUs only; on Ascend put in what "
            "`hccn_tool -i N -ip -g` prints there for each device N"
        )
    return text


def write(table: Union[Topology, Mapping[str, Any]], path: str) -> None:
    """Write a rank table of version 1.0, all of it or nothing.

    Args:
        table: what ``make`` returned, or a topology that was read from any format.
        path: its name must end in ``.json``.

    Raises:
        ConfigError: a wrong name, or a folder that cannot be written.
    """
    if not path.endswith(".json"):
        raise ConfigError("HCCL reads only names that end in .json", path)
    content = _to_table(table) if isinstance(table, Topology) else table
    text = json.dumps(content, indent=2) + "\n"
    try:
        files.write_bytes(path, text.encode())
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", path) from error


def _placeholders(server: int, num_devices: int) -> List[str]:
    return [f"10.255.{server}.{device + 1}" for device in range(num_devices)]


def _to_table(topology: Topology) -> Dict[str, Any]:
    server_list = []
    for server_id in topology.servers:
        devices = []
        for device in topology.devices_of(server_id):
            texts = {"device_id": str(device.device_id)}
            if device.device_ip:
                texts["device_ip"] = device.device_ip
            devices.append({**texts, "rank_id": str(device.rank)})
        server_list.append({"server_id": server_id, "device": devices})
    return _table(server_list)


def _table(server_list: List[Dict[str, Any]]) -> Dict[str, Any]:
    return {
        "version": "1.0",
        "status": "completed",
        "server_count": str(len(server_list)),
        "server_list": server_list,
    }
