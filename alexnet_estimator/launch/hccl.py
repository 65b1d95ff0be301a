"""Ranks on Ascend NPUs: HCCL and npu_bridge read the rank table themselves."""

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
    """Return nothing: HCCL comes with the software of the devices themselves."""
    return []


@contextlib.contextmanager
def describe_ranks(group: Group) -> Iterator[List[Dict[str, str]]]:
    """Yield the variables that tell each rank of a server who it is.

    Raises:
        ConfigError: The table names devices that this container does not see, or a
            table of version 1.0 cannot be written.
    """
    topology, environ = group.topology, group.environ
    made_up = topology.servers_with_made_up_addresses
    if made_up:
        raise ConfigError(
            f"the device addresses of {', '.join(made_up)} are made up, good for CPUs "
            "and GPUs only: put in what `hccn_tool -i N -ip -g` prints there for each "
            "device N",
            topology.path,
        )
    for text in topology.warnings:
        warn(text)
    path = topology.path
    if topology.version == LEGACY:
        # In a table of 1.0, RANK_ID means the same for HCCL, npu_bridge and us.
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
            # Its 120 s are short where eight ranks load and compile.
            names.HCCL_CONNECT_TIMEOUT: environ.get(names.HCCL_CONNECT_TIMEOUT, "600"),
        }
        for device, logical_id in zip(devices, logical_ids)
    ]


def _number_devices(devices: Sequence[Device], group: Group) -> List[int]:
    """Number the devices as this container does: from 0, those that it sees."""
    text = group.environ.get(names.VISIBLE_DEVICES, "")
    visible = _parse_ids(text)
    if not visible:
        return [device.device_id for device in devices]
    hidden = [str(d.device_id) for d in devices if d.device_id not in visible]
    if hidden:
        raise ConfigError(
            f"device {', '.join(hidden)} is not visible here: {names.VISIBLE_DEVICES} "
            f"is {text}",
            group.topology.path,
        )
    return [visible.index(device.device_id) for device in devices]


def _parse_ids(text: str) -> List[int]:
    """Read ``0,2``, ``0-3,6`` or ``Ascend910-0,Ascend910-1``; [] for other words."""
    ids: Set[int] = set()
    for part in text.split(","):
        found = re.fullmatch(r"\s*(?:(\d{1,3})-|Ascend\w+-)?(\d{1,3})\s*", part)
        if not found:
            return []
        last = int(found.group(2))
        ids.update(range(int(found.group(1) or last), last + 1))
    return sorted(ids)
