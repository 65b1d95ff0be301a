"""Parses a rank table to a ``Topology``, or reports all of its mistakes."""

import os
import re
import time
from typing import Any, Dict, List, Mapping, NamedTuple

from alexnet_estimator.console import note
from alexnet_estimator.errors import ConfigError
from alexnet_estimator.rank_table.table import Node, is_address, load, shown
from alexnet_estimator.rank_table.topology import LEGACY, Device, Topology

MAX_PROBLEMS = 100
POLL_SECS = 1.0
LAST_DEVICE_ID = 15  # An Atlas A2 or A3 server has up to 16 devices.
REFUSED_VERSIONS = {
    "1.1": "the format for heterogeneous systems",
    "2.0": "the format of a later generation of devices",
}
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,5}")


class Entry(NamedTuple):
    """A device as the strings of a rank table describe it.

    Attributes:
        rank_id: Rank of the device.
        device_id: Number of the device within its server.
        device_ip: Address of the device's network port; empty if it is not given.
        server_id: Id of the server.
        rank_place: Object of the table that contains the rank.
        place: Object of the table that contains the device.
    """

    rank_id: str
    device_id: str
    device_ip: str
    server_id: str
    rank_place: Node
    place: Node


def read(path: str, wait_secs: float = 0) -> Topology:
    """Read and check a rank table of version 1.0 or 1.2, or of a legacy format.

    Args:
        path: Path of the file.
        wait_secs: Largest time in seconds to wait while the status of the table is
            ``initializing``.  The controller of a cluster writes this status until it
            knows all servers.

    Raises:
        ConfigError: The file cannot be read, or the table has mistakes.  The error
            lists all of them, each with its place, its value and the broken rule.
    """
    deadline = time.monotonic() + wait_secs
    table = load(path)
    if wait_secs > 0 and table.get("status") == "initializing":
        note(f"{path} is initializing; waiting up to {wait_secs:g} s")
    while table.get("status") == "initializing" and time.monotonic() < deadline:
        time.sleep(min(POLL_SECS, wait_secs))
        table = load(path)
    return parse(table, os.path.realpath(path), heading=path)


def parse(content: Mapping[str, Any], path: str, heading: str = "") -> Topology:
    """Return the topology that the content of a rank table describes.

    Args:
        content: Content of the table, parsed from JSON.
        path: Path of the file, which is stored in the topology.
        heading: Beginning of the error message.

    Raises:
        ConfigError: The table has mistakes.  The error lists all of them.
    """
    problems: List[str] = []
    table = Node(content, "", problems)
    table.check_leaves()
    status, groups = table.get("status"), table.get("group_list")
    if status == "initializing":
        table.add("status", status, '"completed"; its writer is still at work')
        if groups is None and table.get("server_list") is None:
            raise ConfigError(problems, heading)
    elif status != "completed":
        table.add("status", status, '"completed"')
    version = table.get("version")
    if version in ("1.0", "1.2"):
        entries = _server_entries(table, version)
    elif version is None and groups is not None:
        version, entries = LEGACY, _legacy_entries(table)
    else:
        raise ConfigError(_refuse_version(version), heading)
    # The rules of the Ascend 910 do not hold for Atlas A3, which has version 1.2.
    _check_addresses(entries, is_a3=version == "1.2")
    _check_ranks(entries, problems)
    warnings = _check_device_ids(entries, problems)
    if problems:
        num_hidden = len(problems) - MAX_PROBLEMS
        more = [f"and {num_hidden} more"] if num_hidden > 0 else []
        raise ConfigError(problems[:MAX_PROBLEMS] + more, heading)
    devices = [
        Device(int(e.rank_id), int(e.device_id), e.device_ip, e.server_id)
        for e in entries
    ]
    devices.sort(key=lambda device: device.rank)
    warnings = [] if version == "1.2" else warnings
    return Topology(tuple(devices), version, path, tuple(warnings))


def _refuse_version(version: Any) -> str:
    if version is None:
        return (
            'version is missing: must be "1.0" or "1.2" with a server_list, or left '
            "out with a group_list (legacy formats)"
        )
    known = REFUSED_VERSIONS.get(str(version))
    meaning = f", {known}" if known else ""
    return f'version is {shown(version)}{meaning}: must be "1.0" or "1.2"'


def _server_entries(table: Node, version: str) -> List[Entry]:
    """Read a table of version 1.0 or 1.2, which has server_list[].device[]."""
    servers = table.objects("server_list")
    table.check_count("server_count", len(servers))
    entries: List[Entry] = []
    places: Dict[str, str] = {}
    for server in servers:
        server_id = server.server_id()
        server.check_unique("server_id", server_id, places)
        for device in server.objects("device"):
            rank_id = device.text("rank_id")
            if version == "1.2":
                device.text("super_device_id")
            entries.append(_entry(device, server_id, rank_id, device))
    if version == "1.0":
        return entries
    # Every server belongs to exactly one super pod.
    pods: Dict[str, str] = {}
    for pod in table.objects("super_pod_list"):
        pod.text("super_pod_id")
        for server in pod.objects("server_list"):
            server_id = server.server_id()
            if server_id and server_id not in places:
                server.add("server_id", server_id, "one of server_list")
            else:
                server.check_unique("server_id", server_id, pods)
    for server_id, place in places.items():
        if server_id not in pods:
            table.add(place, server_id, "in one of super_pod_list")
    return entries


def _legacy_entries(table: Node) -> List[Entry]:
    """Read a table without a version, of either of two legacy formats.

    Both have group_list[].instance_list[].devices[].
    """
    is_lab = table.get("deploy_mode") is not None
    groups = table.objects("group_list")
    table.check_count("group_count", len(groups))
    entries: List[Entry] = []
    pods: Dict[str, str] = {}
    for group in groups:
        instances = group.objects("instance_list")
        group.check_count("instance_count", len(instances))
        members: List[Entry] = []
        for instance in instances:
            server_id = instance.server_id()
            rank_id = instance.text("rank_id") if is_lab else ""
            if not is_lab:  # Each instance is a pod, which must not appear twice.
                instance.check_unique("pod_name", instance.text("pod_name"), pods)
            devices = instance.objects("devices")
            if is_lab and len(devices) > 1:
                rule = "one device, the one of this rank_id"
                instance.add("devices", f"{len(devices)} devices", rule)
            for device in devices:
                place = instance if is_lab else device
                members.append(_entry(device, server_id, rank_id, place))
        group.check_count("device_num" if is_lab else "device_count", len(members))
        num_servers = len({entry.server_id for entry in members})
        group.check_count("server_num", num_servers)
        entries.extend(members)
    if is_lab:
        return entries
    # HCCL assigns the ranks in the order of servers, and then of devices.
    entries.sort(key=lambda e: (e.server_id, len(e.device_id), e.device_id))
    return [entry._replace(rank_id=str(i)) for i, entry in enumerate(entries)]


def _entry(device: Node, server_id: str, rank_id: str, rank_place: Node) -> Entry:
    device_id = device.text("device_id")
    has_ip = device.get("device_ip") is not None
    device_ip = device.text("device_ip") if has_ip else ""
    return Entry(rank_id, device_id, device_ip, server_id, rank_place, device)


def _check_addresses(entries: List[Entry], is_a3: bool) -> None:
    has_several_servers = len({entry.server_id for entry in entries}) > 1
    seen: Dict[str, str] = {}
    for entry in entries:
        if entry.device_ip and not is_address(entry.device_ip):
            entry.place.add("device_ip", entry.device_ip, "a valid IP address")
        elif entry.device_ip:
            entry.place.check_unique("device_ip", entry.device_ip, seen)
        elif has_several_servers and not is_a3:
            rule = "given if there is more than one server"
            entry.place.add("device_ip", None, rule)


def _check_ranks(entries: List[Entry], problems: List[str]) -> None:
    seen: Dict[str, str] = {}
    last = len(entries) - 1
    for entry in entries:
        if entry.rank_id and not _is_at_most(last, entry.rank_id):
            rule = f'"0" to "{last}", one for each device'
            entry.rank_place.add("rank_id", entry.rank_id, rule)
        else:
            entry.rank_place.check_unique("rank_id", entry.rank_id, seen)
    missing = [str(i) for i in range(len(entries)) if str(i) not in seen]
    if missing:
        problems.append(
            f"rank_id {', '.join(missing[:20])} is missing: ranks must run from "
            f"0 to {last} without a gap"
        )
        return
    previous: Dict[str, int] = {}
    for rank, entry in enumerate(sorted(entries, key=lambda e: int(e.rank_id))):
        expected = previous.get(entry.server_id, rank - 1) + 1
        if rank != expected:
            rule = f'"{expected}", next to the other ranks of its server'
            entry.rank_place.add("rank_id", entry.rank_id, rule)
        previous[entry.server_id] = rank


def _check_device_ids(entries: List[Entry], problems: List[str]) -> List[str]:
    """Check the devices of each server.

    Returns:
        Warnings about devices that the Ascend 910 refuses, although later chips and
        CPUs accept them.
    """
    servers: Dict[str, List[int]] = {}
    seen: Dict[str, Dict[str, str]] = {}
    for entry in entries:
        if entry.device_id and not _is_at_most(LAST_DEVICE_ID, entry.device_id):
            rule = f'"0" to "{LAST_DEVICE_ID}"'
            entry.place.add("device_id", entry.device_id, rule)
        elif entry.device_id and entry.server_id:
            on_server = seen.setdefault(entry.server_id, {})
            entry.place.check_unique("device_id", entry.device_id, on_server)
            servers.setdefault(entry.server_id, []).append(int(entry.device_id))
    if len({len(devices) for devices in servers.values()}) > 1:
        counts = ", ".join(f"{shown(s)}: {len(d)}" for s, d in servers.items())
        problems.append(
            f"servers have different numbers of devices ({counts}): must be equal"
        )
    warnings = []
    for server_id, devices in servers.items():
        listed = ", ".join(map(str, sorted(devices)))
        rings = {device // 4 for device in devices}
        if max(devices) > 7:
            rule = "an Ascend 910 server has 0 to 7"
        elif len(devices) not in (1, 2, 4, 8):
            rule = "on an Ascend 910 server 1, 2, 4 or 8 train together"
        elif len(devices) in (2, 4) and len(rings) > 1:
            rule = "on an Ascend 910 server they must be of one ring, 0-3 or 4-7"
        else:
            continue
        warnings.append(f"server {shown(server_id)} has devices {listed}: {rule}")
    return warnings


def _is_at_most(last: int, text: str) -> bool:
    return bool(_DECIMAL.fullmatch(text)) and int(text) <= last
