"""The launch backend of Ascend NPUs, where HCCL itself reads the rank table."""

import contextlib
import os
import re
from typing import Dict, Iterator, List, Sequence, Set

from alexnet_estimator import rank_environment as names
from alexnet_estimator import rank_table
from alexnet_estimator.console import warn
from alexnet_estimator.errors import ConfigError
from alexnet_estimator.launch.group import Group
from alexnet_estimator.rank_table.topology import LEGACY, Device


def find_missing() -> List[str]:
    """Return no problems, because HCCL is part of the software of the devices."""
    return []


@contextlib.contextmanager
def describe_ranks(group: Group) -> Iterator[List[Dict[str, str]]]:
    """Yield the environment variables of each rank of a server.

    Raises:
        ConfigError: The rank table has devices that this container does not see, or a
            table of version 1.0 cannot be written.
    """
    topology, environ = group.topology, group.environ
    made_up = topology.servers_with_made_up_addresses
    if made_up:
        raise ConfigError(
            f"the device addresses of {', '.join(made_up)} are placeholders for CPUs "
            "and GPUs: replace them by what `hccn_tool -i N -ip -g` prints on the "
            "server for each device N",
            topology.path,
        )
    for text in topology.warnings:
        warn(text)
    path = topology.path
    if topology.version == LEGACY:
        # In a table of version 1.0, RANK_ID has the same meaning for HCCL, npu_bridge
        # and this package.
        path = os.path.realpath(os.path.join(group.log_dir, "rank_table.json"))
        rank_table.write(topology, path)
    devices = topology.devices_of(group.server_id)
    logical_ids = _number_devices(devices, group)
    yield [
        {
            names.JOB_ID: environ.get(names.JOB_ID, "alexnet_estimator"),
            names.RANK_ID: str(device.rank),
            names.RANK_SIZE: str(topology.num_ranks),
            names.RANK_TABLE_FILE: path,
            names.ASCEND_DEVICE_ID: str(logical_id),
            names.DEVICE_ID: str(device.device_id),
            # The default of 120 s is too short if eight ranks load and compile.
            names.HCCL_CONNECT_TIMEOUT: environ.get(names.HCCL_CONNECT_TIMEOUT, "600"),
        }
        for device, logical_id in zip(devices, logical_ids)
    ]


def _number_devices(devices: Sequence[Device], group: Group) -> List[int]:
    """Return the numbers of the devices in this container, which start at 0."""
    text = group.environ.get(names.VISIBLE_DEVICES, "")
    visible = _parse_ids(text)
    if not visible:
        return [device.device_id for device in devices]
    hidden = [str(d.device_id) for d in devices if d.device_id not in visible]
    if hidden:
        raise ConfigError(
            f"device {', '.join(hidden)} is not visible in this container: "
            f"{names.VISIBLE_DEVICES} is {text}; mount it, or correct the rank table",
            group.topology.path,
        )
    return [visible.index(device.device_id) for device in devices]


def _parse_ids(text: str) -> List[int]:
    """Parse ``0,2``, ``0-3,6`` or ``Ascend910-0,Ascend910-1``; [] for other texts."""
    ids: Set[int] = set()
    for part in text.split(","):
        found = re.fullmatch(r"\s*(?:(\d{1,3})-|Ascend\w+-)?(\d{1,3})\s*", part)
        if not found:
            return []
        last = int(found.group(2))
        ids.update(range(int(found.group(1) or last), last + 1))
    return sorted(ids)
