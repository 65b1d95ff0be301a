"""Rank table -> Topology, or all that is wrong with it."""

import os
import time
from typing import Any, Dict, List, Mapping

from alexnet_estimator.console import note
from alexnet_estimator.errors import ConfigError
from alexnet_estimator.rank_table.checker import Checker, Entry
from alexnet_estimator.rank_table.json_file import load, shown
from alexnet_estimator.rank_table.topology import LEGACY, Device, Topology

MAX_PROBLEMS = 100
POLL_SECS = 1.0
REFUSED_VERSIONS = {
    "1.1": "the format for heterogeneous systems",
    "2.0": "the format of a later generation of devices",
}


def read(path: str, wait_secs: float = 0) -> Topology:
    """Read and check a rank table of version 1.0 or 1.2, or of a legacy format.

    Args:
        path: the file.
        wait_secs: how long to wait while its status is ``initializing``, which a
            cluster's controller writes until it knows all servers.

    Raises:
        ConfigError: all problems of the file, each with place, value and rule.
    """
    deadline = time.monotonic() + wait_secs
    table = load(path)
    if wait_secs > 0 and table.get("status") == "initializing":
        note(f"{path} is initializing; waiting up to {wait_secs:g} s")
    while table.get("status") == "initializing" and time.monotonic() < deadline:
        time.sleep(min(POLL_SECS, wait_secs))
        table = load(path)
    return parse(table, os.path.realpath(path), heading=path)


def parse(table: Mapping[str, Any], path: str, heading: str = "") -> Topology:
    """Turn the content of a rank table into a topology.

    Args:
        table: as JSON has it.
        path: kept in the topology.
        heading: begins the error message.

    Raises:
        ConfigError: all problems of the table.
    """
    checker = Checker(table)
    has_devices = "server_list" in table or "group_list" in table
    if table.get("status") == "initializing" and not has_devices:
        raise ConfigError(checker.problems, heading)
    version = table.get("version", LEGACY if "group_list" in table else None)
    if version == LEGACY and "version" not in table:
        entries = _legacy_entries(checker, table)
    elif version in ("1.0", "1.2"):
        entries = _server_entries(checker, table, version)
    else:
        raise ConfigError(_refuse_version(version), heading)
    checker.check_devices(entries, is_a3=version == "1.2")
    if checker.problems:
        num_hidden = len(checker.problems) - MAX_PROBLEMS
        more = [f"and {num_hidden} more"] if num_hidden > 0 else []
        raise ConfigError(checker.problems[:MAX_PROBLEMS] + more, heading)
    devices = [
        Device(int(e.rank_id), int(e.device_id), e.device_ip, e.server_id)
        for e in entries
    ]
    devices.sort(key=lambda device: device.rank)
    return Topology(tuple(devices), version, path, tuple(checker.warnings))


def _refuse_version(version: Any) -> str:
    if version is None:
        return (
            'version is missing: must be "1.0" or "1.2" with a server_list, or left '
            "out with a group_list (legacy formats)"
        )
    known = REFUSED_VERSIONS.get(str(version))
    meaning = f", {known}" if known else ""
    return f'version is {shown(version)}{meaning}: must be "1.0" or "1.2"'


def _server_entries(
    checker: Checker, table: Mapping[str, Any], version: str
) -> List[Entry]:
    """Versions 1.0 and 1.2: server_list[].device[]."""
    servers = checker.objects(table, "server_list", "")
    checker.check_count(table, "server_count", "", len(servers))
    entries: List[Entry] = []
    places: Dict[str, str] = {}
    for path, server in servers:
        server_id = checker.server_id(server, path)
        if server_id:
            checker.check_unique(server_id, f"{path}.server_id", places)
        for place, device in checker.objects(server, "device", path):
            rank_id = checker.text(device, "rank_id", place)
            if version == "1.2":
                checker.text(device, "super_device_id", place)
            entries.append(_entry(checker, device, place, server_id, (rank_id, place)))
    if version == "1.2":
        _check_super_pods(checker, table, places)
    return entries


def _check_super_pods(
    checker: Checker, table: Mapping[str, Any], servers: Mapping[str, str]
) -> None:
    """Every server belongs to exactly one super pod."""
    places: Dict[str, str] = {}
    for path, pod in checker.objects(table, "super_pod_list", ""):
        checker.text(pod, "super_pod_id", path)
        for place, server in checker.objects(pod, "server_list", path):
            server_id = checker.server_id(server, place)
            if server_id and server_id not in servers:
                checker.add(f"{place}.server_id", server_id, "one of server_list")
            elif server_id:
                checker.check_unique(server_id, f"{place}.server_id", places)
    for server_id, place in servers.items():
        if server_id not in places:
            checker.add(f"{place}", server_id, "in one of super_pod_list")


def _legacy_entries(checker: Checker, table: Mapping[str, Any]) -> List[Entry]:
    """Both formats without a version: group_list[].instance_list[].devices[]."""
    is_lab = "deploy_mode" in table
    groups = checker.objects(table, "group_list", "")
    checker.check_count(table, "group_count", "", len(groups))
    entries: List[Entry] = []
    pods: Dict[str, str] = {}
    for path, group in groups:
        instances = checker.objects(group, "instance_list", path)
        checker.check_count(group, "instance_count", path, len(instances))
        members: List[Entry] = []
        for place, instance in instances:
            if is_lab:
                members.extend(_lab_entries(checker, instance, place))
            else:
                members.extend(_pod_entries(checker, instance, place, pods))
        count = "device_num" if is_lab else "device_count"
        checker.check_count(group, count, path, len(members))
        num_servers = len({entry.server_id for entry in members})
        checker.check_count(group, "server_num", path, num_servers)
        entries.extend(members)
    return entries if is_lab else _ranked(entries)


def _lab_entries(
    checker: Checker, instance: Mapping[str, Any], path: str
) -> List[Entry]:
    """An instance is one device with its rank."""
    server_id = checker.server_id(instance, path)
    rank_id = checker.text(instance, "rank_id", path)
    devices = checker.objects(instance, "devices", path)
    if len(devices) > 1:
        rule = "one device, the one of this rank_id"
        checker.add(f"{path}.devices", f"{len(devices)} devices", rule)
    return [
        _entry(checker, device, place, server_id, (rank_id, path))
        for place, device in devices
    ]


def _pod_entries(
    checker: Checker, instance: Mapping[str, Any], path: str, pods: Dict[str, str]
) -> List[Entry]:
    """An instance is a pod with its devices; ranks follow from their order."""
    server_id = checker.server_id(instance, path)
    pod_name = checker.text(instance, "pod_name", path)
    if pod_name:
        checker.check_unique(pod_name, f"{path}.pod_name", pods)
    return [
        _entry(checker, device, place, server_id, ("", place))
        for place, device in checker.objects(instance, "devices", path)
    ]


def _ranked(entries: List[Entry]) -> List[Entry]:
    """Give ranks by server and then by device, as HCCL does."""
    entries = sorted(
        entries, key=lambda e: (e.server_id, len(e.device_id), e.device_id)
    )
    return [entry._replace(rank_id=str(i)) for i, entry in enumerate(entries)]


def _entry(
    checker: Checker, device: Mapping[str, Any], path: str, server_id: str, rank: Any
) -> Entry:
    rank_id, rank_path = rank
    device_id = checker.text(device, "device_id", path)
    has_ip = "device_ip" in device
    device_ip = checker.text(device, "device_ip", path) if has_ip else ""
    return Entry(rank_id, device_id, device_ip, server_id, rank_path, path)
