"""Every format of rank tables is read, mistakes are named, new tables are valid."""

import copy
import errno
import json
import os
import pathlib
import re
import subprocess
import sys
import threading
import time
from typing import Any, Callable, Dict, Iterable, List, Sequence, Tuple
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alexnet_estimator import files, rank_table
from alexnet_estimator.errors import EXIT_USAGE, ConfigError, DataError
from alexnet_estimator.rank_table import Topology, local, writer

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
SERVERS = ["10.0.0.1", "10.0.0.2"]
Table = Dict[str, Any]


def devices(ids: Sequence[int], first_rank: int, subnet: int) -> List[Dict[str, str]]:
    return [
        {
            "device_id": str(device),
            "device_ip": f"192.168.{subnet}.{device + 1}",
            "rank_id": str(first_rank + i),
        }
        for i, device in enumerate(ids)
    ]


def table_v1(ids: Sequence[int] = (0, 1, 2, 3)) -> Table:
    """Two servers with the same devices."""
    return {
        "version": "1.0",
        "status": "completed",
        "server_count": "2",
        "server_list": [
            {"server_id": s, "device": devices(ids, i * len(ids), i)}
            for i, s in enumerate(SERVERS)
        ],
    }


def table_v1_2() -> Table:
    table = table_v1()
    table["version"] = "1.2"
    for server in table["server_list"]:
        for device in server["device"]:
            device["super_device_id"] = "37748736"
    table["super_pod_list"] = [
        {"super_pod_id": "0", "server_list": [{"server_id": SERVERS[0]}]},
        {"super_pod_id": "1", "server_list": [{"server_id": SERVERS[1]}]},
    ]
    return table


def table_lab() -> Table:
    instances = [
        {
            "devices": [{"device_id": str(i), "device_ip": f"192.168.0.{i + 1}"}],
            "rank_id": str(i),
            "server_id": SERVERS[0],
        }
        for i in range(2)
    ]
    group = {
        "device_num": "2",
        "server_num": "1",
        "group_name": "",
        "instance_count": "2",
        "instance_list": instances,
    }
    return {
        "board_id": "0x0000",
        "chip_info": "910",
        "deploy_mode": "lab",
        "group_count": "1",
        "group_list": [group],
        "para_plane_nic_location": "device",
        "para_plane_nic_name": ["eth0", "eth1"],
        "para_plane_nic_num": "2",
        "status": "completed",
    }


def table_cloud() -> Table:
    """Return a table whose pods and devices are not in the order of their ids."""
    instances = [
        {
            "pod_name": f"job-{i}",
            "server_id": SERVERS[1 - i],
            "devices": [
                {"device_id": str(d), "device_ip": f"192.168.{1 - i}.{d + 1}"}
                for d in (1, 0)
            ],
        }
        for i in range(2)
    ]
    group = {
        "group_name": "worker",
        "device_count": "4",
        "instance_count": "2",
        "instance_list": instances,
    }
    return {"status": "completed", "group_count": "1", "group_list": [group]}


def save(tmp_path: pathlib.Path, table: Any, name: str = "table.json") -> str:
    path = tmp_path / name
    path.write_text(table if isinstance(table, str) else json.dumps(table))
    return str(path)


def read(tmp_path: pathlib.Path, table: Any) -> Topology:
    return rank_table.read(save(tmp_path, table))


def problems_of(tmp_path: pathlib.Path, table: Any) -> List[str]:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, table)
    assert caught.value.exit_code == EXIT_USAGE
    return caught.value.problems


def change(table: Any, path: str, value: Any) -> None:
    """Set the value at a path such as ``a[0].b``, or remove it if it is None."""
    keys: List[Any] = [
        int(key) if key.isdigit() else key for key in re.findall(r"\w+", path)
    ]
    for key in keys[:-1]:
        table = table[key]
    if value is None:
        del table[keys[-1]]
    else:
        table[keys[-1]] = value


def test_reads_version_1_0(tmp_path: pathlib.Path) -> None:
    topology = read(tmp_path, table_v1())
    assert topology.num_ranks == 8
    assert topology.servers == tuple(SERVERS)
    assert topology.ranks_of(SERVERS[1]) == (4, 5, 6, 7)
    assert topology.devices[5] == rank_table.Device(5, 1, "192.168.1.2", SERVERS[1])
    assert topology.version == "1.0"
    assert topology.path == str(tmp_path / "table.json")


def test_orders_ranks_and_servers_by_rank(tmp_path: pathlib.Path) -> None:
    table = table_v1()
    for server in table["server_list"]:
        for device in server["device"]:
            device["rank_id"] = str(7 - int(device["rank_id"]))
    topology = read(tmp_path, table)
    assert [device.rank for device in topology.devices] == list(range(8))
    assert topology.servers == (SERVERS[1], SERVERS[0])
    assert [d.device_id for d in topology.devices_of(SERVERS[1])] == [3, 2, 1, 0]


def test_reads_version_1_2_with_16_devices_and_names(tmp_path: pathlib.Path) -> None:
    table = table_v1_2()
    table["server_list"][1]["server_id"] = "node_1"
    table["super_pod_list"][1]["server_list"][0]["server_id"] = "node_1"
    table["server_list"][0]["device"][3]["device_id"] = "15"
    del table["server_list"][0]["device"][0]["device_ip"]
    topology = read(tmp_path, table)
    assert topology.servers == (SERVERS[0], "node_1")
    assert topology.devices[3].device_id == 15


def test_reads_legacy_lab(tmp_path: pathlib.Path) -> None:
    topology = read(tmp_path, table_lab())
    assert [(d.rank, d.device_id) for d in topology.devices] == [(0, 0), (1, 1)]
    assert topology.devices[1].device_ip == "192.168.0.2"
    assert topology.version == "legacy"


def test_legacy_cloud_ranks_by_server_then_device(tmp_path: pathlib.Path) -> None:
    topology = read(tmp_path, table_cloud())
    assert [(d.server_id, d.device_id) for d in topology.devices] == [
        (SERVERS[0], 0),
        (SERVERS[0], 1),
        (SERVERS[1], 0),
        (SERVERS[1], 1),
    ]
    assert [d.rank for d in topology.devices] == [0, 1, 2, 3]


def test_tolerates_extra_keys_and_one_server_without_addresses(
    tmp_path: pathlib.Path,
) -> None:
    table = table_v1()
    del table["server_list"][1], table["server_count"]
    table["server_list"][0].update(host_nic_ip="reserve", container_ip="10.1.1.1")
    for device in table["server_list"][0]["device"]:
        del device["device_ip"]
    assert {d.device_ip for d in read(tmp_path, table).devices} == {""}


D = "server_list[0].device[1]"
MISTAKES: List[Tuple[str, Any, List[str]]] = [
    ("status", "done", ['status is "done": must be "completed"']),
    ("status", None, ['status is missing: must be "completed"']),
    (
        "server_count",
        "3",
        ['server_count is "3": must be "2", as counted in this table'],
    ),
    ("server_count", 2, ['server_count is 2: must be a string, "2"']),
    (f"{D}.device_id", 1, [f'{D}.device_id is 1: must be a string, "1"']),
    (f"{D}.host_ip", True, [f'{D}.host_ip is true: must be a string, "true"']),
    (f"{D}.device_id", "16", [f'{D}.device_id is "16": must be "0" to "15"']),
    (f"{D}.device_id", "01", [f'{D}.device_id is "01": must be "0" to "15"']),
    (
        f"{D}.device_id",
        "0",
        [f'{D}.device_id is "0": must be unique; server_list[0].device[0]'],
    ),
    (
        f"{D}.device_ip",
        "192.168.1.2",
        [
            'server_list[1].device[1].device_ip is "192.168.1.2": must be unique; '
            f"{D}.device_ip"
        ],
    ),
    (f"{D}.device_ip", "-.-.-.-", [f'{D}.device_ip is "-.-.-.-": must be a valid IP']),
    (f"{D}.device_ip", "0.0.0.0", [f"{D}.device_ip is", "must be a valid IP address"]),
    (f"{D}.device_ip", "10.0.0.010", ["must be a valid IP address"]),
    (f"{D}.device_ip", None, [f"{D}.device_ip is missing: must be given if there"]),
    (f"{D}.rank_id", None, [f"{D}.rank_id is missing: must be a string"]),
    (f"{D}.rank_id", "8", [f'{D}.rank_id is "8": must be "0" to "7"']),
    (f"{D}.rank_id", "-1", [f'{D}.rank_id is "-1": must be "0" to "7"']),
    (
        f"{D}.rank_id",
        "2",
        ["rank_id 1 is missing: ranks must run from 0 to 7", "must be unique"],
    ),
    ("server_list[1].server_id", "10.0.0.1", ["server_list[1].server_id is", "unique"]),
    ("server_list[1].server_id", "10.0.0", ["must be an IP address or a host name"]),
    ("server_list[1].server_id", "../../x", ["must be an IP address or a host name"]),
    ("server_list[1].server_id", "a" * 65, ["of at most 64 characters"]),
    ("server_list[1].server_id", "", ["must be a string that is not empty"]),
    ("server_list[1].device", [], ["must be a list with at least one object"]),
    ("server_list[1].device[0]", "x", ['device[0] is "x": must be an object']),
    ("server_list", {}, ["server_list is {}: must be a list"]),
    ("version", None, ["version is missing"]),
    ("version", "1.1", ['version is "1.1", the format for heterogeneous systems']),
    ("version", "2.0", ['version is "2.0", the format of a later generation']),
    ("version", "1.3", ['version is "1.3": must be "1.0" or "1.2"']),
]


MISTAKES_OF_OTHERS: List[Tuple[Callable[[], Table], str, Any, str]] = [
    (table_v1_2, "server_list[0].device[0].super_device_id", None, "is missing"),
    (table_v1_2, "super_pod_list", None, "super_pod_list is missing"),
    (table_v1_2, "super_pod_list[1]", None, "[1].server_id is"),
    (table_v1_2, "super_pod_list[1]", None, "must be in one of super_pod_list"),
    (
        table_v1_2,
        "super_pod_list[1].server_list[0].server_id",
        "10.0.0.9",
        "must be one of server_list",
    ),
    (table_lab, "group_list[0].device_num", "4", 'must be "2", as counted'),
    (table_lab, "group_list[0].server_num", "2", 'must be "1", as counted'),
    (table_lab, "group_list[0].instance_list[1].rank_id", "0", "must be unique"),
    (
        table_lab,
        "group_list[0].instance_list[0].devices",
        [{"device_id": "0"}] * 2,
        "must be one device",
    ),
    (table_lab, "group_count", "2", 'must be "1", as counted'),
    (table_cloud, "group_list[0].device_count", "2", 'must be "4", as counted'),
    (
        table_cloud,
        "group_list[0].instance_list[1].pod_name",
        "job-0",
        "must be unique",
    ),
    (
        table_cloud,
        "group_list[0].instance_list[1].devices[0].device_ip",
        None,
        "must be given",
    ),
]


@pytest.mark.parametrize(
    "make_table, path, value, expected",
    [
        *((table_v1, *mistake) for mistake in MISTAKES),
        *((make, *rest, [text]) for make, *rest, text in MISTAKES_OF_OTHERS),
    ],
)
def test_names_each_mistake(
    tmp_path: pathlib.Path,
    make_table: Callable[[], Table],
    path: str,
    value: Any,
    expected: Any,
) -> None:
    table = make_table()
    change(table, path, value)
    text = "\n".join(problems_of(tmp_path, table))
    for part in expected:
        assert part in text


def test_lists_all_mistakes_at_once(tmp_path: pathlib.Path) -> None:
    table = table_v1()
    change(table, "status", "initializing")
    change(table, "server_count", "1")
    change(table, "server_list[0].device[0].device_id", 0)
    change(table, "server_list[0].device[1].device_ip", "1.2.3")
    change(table, "server_list[1].device[3].rank_id", "9")
    starts = [problem.split(" is ")[0] for problem in problems_of(tmp_path, table)]
    for place in (
        "status",
        "server_count",
        "server_list[0].device[0].device_id",
        "server_list[0].device[1].device_ip",
        "server_list[1].device[3].rank_id",
    ):
        assert place in starts


def test_refuses_ranks_that_alternate_between_servers(tmp_path: pathlib.Path) -> None:
    table = table_v1(ids=(0, 1))
    change(table, "server_list[0].device[1].rank_id", "2")
    change(table, "server_list[1].device[0].rank_id", "1")
    text = "\n".join(problems_of(tmp_path, table))
    assert f'{D}.rank_id is "2": must be "1", next to the other ranks' in text


def test_refuses_unequal_servers(tmp_path: pathlib.Path) -> None:
    table = table_v1()
    del table["server_list"][1]["device"][3]
    text = "\n".join(problems_of(tmp_path, table))
    assert 'different numbers of devices ("10.0.0.1": 4, "10.0.0.2": 3)' in text


@pytest.mark.parametrize(
    "ids, rule",
    [
        ((2, 3), ""),
        (range(8), ""),
        ((3, 4), "on an Ascend 910 server they must be of one ring, 0-3 or 4-7"),
        ((0, 2, 3, 5), "on an Ascend 910 server they must be of one ring"),
        ((0, 1, 2), "on an Ascend 910 server 1, 2, 4 or 8 train together"),
        (range(16), "an Ascend 910 server has 0 to 7"),
    ],
)
def test_rules_of_the_910_are_warnings_since_others_do_not_have_them(
    tmp_path: pathlib.Path, ids: Sequence[int], rule: str
) -> None:
    topology = read(tmp_path, table_v1(ids))
    assert topology.num_ranks == 2 * len(ids)
    text = rank_table.describe_check(topology)
    if not rule:
        assert topology.warnings == ()
        assert text.endswith(
            "it keeps the rules of all chips and those of the Ascend 910"
        )
        return
    listed = ", ".join(map(str, ids))
    for server, warning in zip(SERVERS, topology.warnings):
        assert warning.startswith(f'server "{server}" has devices {listed}: {rule}')
        assert f"\nwarning: {warning}" in text
    assert "it keeps the rules of all chips; it breaks rules of the Ascend 910" in text


def test_a_super_pod_has_no_rules_of_the_910(tmp_path: pathlib.Path) -> None:
    table = table_v1_2()
    change(table, f"{D}.device_id", "13")
    topology = read(tmp_path, table)
    assert topology.warnings == ()
    assert "rules of version 1.2, for Atlas A3" in rank_table.describe_check(topology)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("", "not JSON"),
        ("[]", "not a JSON object"),
        ("{", "not JSON"),
        ("[" * 100000, "not JSON"),
        (
            '{"status": "completed", "x": "' + "a" * (1 << 20) + '"}',
            "larger than 1 MiB",
        ),
    ],
)
def test_refuses_what_is_no_table(
    tmp_path: pathlib.Path, text: str, expected: Any
) -> None:
    assert expected in problems_of(tmp_path, text)[0]


def test_refuses_duplicate_keys(tmp_path: pathlib.Path) -> None:
    text = json.dumps(table_v1()).replace(
        '"device_id": "1"', '"device_id": "1", "device_id": "2"', 1
    )
    assert f"{D}.device_id appears twice: keys must be unique" in problems_of(
        tmp_path, text
    )


def test_shows_nothing_that_a_terminal_would_obey(tmp_path: pathlib.Path) -> None:
    table = table_v1()
    table["server_list"][0]["\x1b[2J"] = 1
    change(table, f"{D}.device_ip", "\x1b[31m" + "x" * 1000)
    for problem in problems_of(tmp_path, table):
        assert "\x1b" not in problem and len(problem) < 200


def test_refuses_other_file_names_and_none(tmp_path: pathlib.Path) -> None:
    path = save(tmp_path, table_v1(), "table.txt")
    link = tmp_path / "link.json"
    link.symlink_to(path)
    for name in (path, str(link)):
        with pytest.raises(ConfigError, match="the file is table.txt"):
            rank_table.read(name)
    with pytest.raises(ConfigError, match="no such file"):
        rank_table.read(str(tmp_path / "none.json"))
    with pytest.raises(ConfigError, match="it is a folder"):
        rank_table.read(str(tmp_path))


def test_a_broken_disk_is_no_mistake_in_the_command(tmp_path: pathlib.Path) -> None:
    path = save(tmp_path, table_v1())
    error = OSError(errno.EIO, os.strerror(errno.EIO))
    with mock.patch.object(files, "read_at_most", side_effect=error):
        with pytest.raises(DataError, match="cannot be read: Input/output error"):
            rank_table.read(path)


def test_waits_for_the_controller(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("alexnet_estimator.rank_table.parser.POLL_SECS", 0.05)
    path = save(tmp_path, {"status": "initializing"})

    def complete() -> None:
        save(tmp_path, table_v1(), "next.json")
        (tmp_path / "next.json").replace(path)

    timer = threading.Timer(0.3, complete)
    timer.start()
    assert rank_table.read(path, wait_secs=30).num_ranks == 8
    timer.join()
    assert "initializing; waiting up to 30 s" in capsys.readouterr().err


def test_waiting_has_a_limit(tmp_path: pathlib.Path) -> None:
    path = save(tmp_path, {"status": "initializing"})
    with mock.patch.object(time, "sleep", wraps=time.sleep) as sleep:
        with pytest.raises(ConfigError) as caught:
            rank_table.read(path, wait_secs=0.2)
    sleep.assert_called_with(0.2)  # POLL_SECS would be longer.
    (problem,) = caught.value.problems
    assert problem.startswith('status is "initializing": must be "completed"')


@pytest.mark.parametrize("num_devices", [1, 2, 4, 8])
def test_what_is_made_can_be_read(tmp_path: pathlib.Path, num_devices: int) -> None:
    path = str(tmp_path / "made.json")
    rank_table.write(rank_table.make(SERVERS, num_devices), path)
    topology = rank_table.read(path)
    assert topology.servers == tuple(SERVERS)
    assert topology.num_ranks == 2 * num_devices
    assert topology.devices[-1].device_ip == f"10.255.1.{num_devices}"
    assert [p.name for p in tmp_path.iterdir()] == ["made.json"]


@pytest.mark.parametrize(
    "servers, num_devices",
    [([], 8), (["10.0.0.1"], 17), (["10.0.0.1"], 0), (["10.0.0.1"] * 2, 8), (["?"], 1)],
)
def test_makes_no_table_that_would_be_refused(
    servers: List[str], num_devices: int
) -> None:
    with pytest.raises(ConfigError, match="these servers and devices"):
        rank_table.make(servers, num_devices)


def test_legacy_becomes_1_0(tmp_path: pathlib.Path) -> None:
    legacy = read(tmp_path, table_cloud())
    path = str(tmp_path / "new.json")
    rank_table.write(legacy, path)
    new = rank_table.read(path)
    assert (new.devices, new.version) == (legacy.devices, "1.0")


def test_what_cannot_be_written_is_an_error(tmp_path: pathlib.Path) -> None:
    made = rank_table.make(SERVERS, 1)
    (tmp_path / "folder.json").mkdir()
    for name in ("folder.json", "none/table.json"):
        with pytest.raises(ConfigError, match="cannot be written"):
            rank_table.write(made, str(tmp_path / name))
    with pytest.raises(ConfigError, match="end in .json"):
        rank_table.write(made, str(tmp_path / "table.txt"))
    assert os.listdir(str(tmp_path)) == ["folder.json"]


def test_make_file_warns_of_made_up_addresses_and_keeps_old_files(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "local_device_ips", lambda num_devices: [])
    path = str(tmp_path / "new.json")
    text = rank_table.make_file(SERVERS, 2, path)
    assert "4 ranks on 2 servers" in text and "rank 3: device 1  10.255.1.2" in text
    assert "the device addresses of 10.0.0.1, 10.0.0.2 are placeholders" in text
    with pytest.raises(ConfigError, match="exists already"):
        rank_table.make_file(SERVERS, 2, path)


def test_make_file_asks_the_driver_for_the_local_server(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ips = ["192.168.7.1", "192.168.7.2"]
    monkeypatch.setattr(writer, "local_device_ips", lambda num_devices: ips)
    path = str(tmp_path / "new.json")
    text = rank_table.make_file(["127.0.0.1", "10.0.0.2"], 2, path)
    devices = rank_table.read(path).devices
    assert [d.device_ip for d in devices] == [*ips, "10.255.1.1", "10.255.1.2"]
    assert "device addresses of 10.0.0.2 are placeholders" in text
    path = str(tmp_path / "single.json")
    assert "placeholders" not in rank_table.make_file(["10.0.0.9"], 2, path)


def test_parses_what_the_driver_has() -> None:
    conf = "address_0=192.168.1.1\r\nnetmask_0=255.255.255.0\n#address_1=1.1.1.1\n"
    assert local.parse_hccn_conf(conf + " address_10 = 192.168.1.3\n") == {
        0: "192.168.1.1",
        10: "192.168.1.3",
    }
    answer = "ipaddr:192.168.1.2\nnetmask:255.255.255.0\n"
    assert local.parse_hccn_tool(answer) == "192.168.1.2"
    assert local.parse_hccn_tool("Command execute failed!\n") == ""


def test_asks_the_tool_before_the_file(tmp_path: pathlib.Path) -> None:
    conf, tool = tmp_path / "hccn.conf", tmp_path / "hccn_tool"
    conf.write_text("address_0=192.168.1.1\naddress_1=192.168.1.2\n")
    tool.write_text('#!/bin/sh\n[ "$*" = "-i $2 -ip -g" ] && echo ipaddr:10.9.9.$2\n')
    tool.chmod(0o755)
    assert local.local_device_ips(2, str(conf), str(tool)) == ["10.9.9.0", "10.9.9.1"]
    tool.write_text("#!/bin/sh\nexit 1\n")
    both = ["192.168.1.1", "192.168.1.2"]
    assert local.local_device_ips(2, str(conf), str(tool)) == both
    assert local.local_device_ips(2, str(conf), str(tmp_path / "none")) == both
    assert local.local_device_ips(4, str(conf), str(tmp_path / "none")) == []
    assert local.local_device_ips(2, str(tmp_path), str(tmp_path / "none")) == []


def topology_of(*servers: str) -> Topology:
    devices = [rank_table.Device(i, 0, "", s) for i, s in enumerate(servers)]
    return rank_table.Topology(tuple(devices), "1.0", "table.json")


def test_finds_the_local_server() -> None:
    assert rank_table.local_server(topology_of("10.255.0.9")) == "10.255.0.9"
    here = topology_of("192.0.2.254", "127.0.0.1")
    assert rank_table.local_server(here) == "127.0.0.1"
    assert rank_table.local_server(here, "192.0.2.254") == "192.0.2.254"
    with pytest.raises(ConfigError, match="server 10.0.0.3 is not in the table; it ha"):
        rank_table.local_server(here, "10.0.0.3")


def test_says_why_it_does_not_know_the_local_server() -> None:
    with pytest.raises(ConfigError) as caught:
        rank_table.local_server(topology_of("192.0.2.253", "192.0.2.254"))
    assert "the servers are 192.0.2.253, 192.0.2.254; this machine has none" in str(
        caught.value
    )
    assert "127.0.0.1" in str(caught.value) and "--server_id" in str(caught.value)
    with pytest.raises(ConfigError, match="127.0.0.1 and 127.0.0.2 are all addresses"):
        rank_table.local_server(topology_of("127.0.0.1", "127.0.0.2"))


def test_knows_own_addresses() -> None:
    assert "127.0.0.1" in local.own_addresses().values()
    assert local.interface_of("127.0.0.2") == local.interface_of("127.0.0.1")
    assert local.interface_of("192.0.2.254") is None
    assert not local.is_own_address("0.0.0.0")


def test_describes() -> None:
    text = rank_table.describe(topology_of("a", "b"))
    assert text.splitlines()[0] == "table.json (version 1.0): 2 ranks on 2 servers"
    assert "    rank 1: device 0" in text.splitlines()


@pytest.mark.parametrize(
    "ranks, text",
    [([3], "rank 3"), (range(8), "ranks 0-7"), ([5, 0, 2, 1], "ranks 0-2, 5")],
)
def test_formats_ranks(ranks: Iterable[int], text: str) -> None:
    assert rank_table.format_ranks(ranks) == text


@pytest.mark.parametrize(
    "name, servers, num_devices",
    [("1p", SERVERS[:1], 1), ("8p", SERVERS[:1], 8), ("2x8p", SERVERS, 8)],
)
def test_examples_are_what_make_makes(
    tmp_path: pathlib.Path, name: str, servers: List[str], num_devices: int
) -> None:
    example = REPOSITORY / "rank_tables" / f"{name}.json"
    made = tmp_path / "made.json"
    rank_table.write(rank_table.make(servers, num_devices), str(made))
    assert example.read_text() == made.read_text()
    topology = rank_table.read(str(example))
    assert topology.num_ranks == len(servers) * num_devices
    assert topology.servers_with_made_up_addresses == servers


def test_needs_no_tensorflow() -> None:
    code = (
        "import sys, alexnet_estimator.rank_table, alexnet_estimator.launch;"
        "sys.exit(any(n in sys.modules for n in ('tensorflow', 'numpy', 'horovod')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY).returncode == 0


FORMATS: List[Callable[[], Table]] = [
    table_v1,
    table_v1_2,
    table_lab,
    table_cloud,
]
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def places(value: Any, prefix: Tuple[Any, ...] = ()) -> List[Tuple[Any, ...]]:
    """Return the paths of all values in a table."""
    result = [prefix] if prefix else []
    children: List[Tuple[Any, Any]] = []
    if isinstance(value, dict):
        children = list(value.items())
    elif isinstance(value, list):
        children = list(enumerate(value))
    for key, child in children:
        result += places(child, (*prefix, key))
    return result


@st.composite
def damaged_tables(draw: st.DrawFn) -> Table:
    make_table = draw(st.sampled_from(FORMATS))
    table = make_table()
    for _ in range(draw(st.integers(1, 3))):
        *parents, last = draw(st.sampled_from(places(table)))
        target = table
        for key in parents:
            target = target[key]
        if draw(st.booleans()):
            target[last] = draw(JSON_VALUES)
        else:
            del target[last]
        if not places(table):
            break
    return table


def check_never_crashes(path: str) -> None:
    """Check that the result is a valid topology, or an error with a problem."""
    try:
        topology = rank_table.read(path)
    except ConfigError as error:
        assert error.problems
        return
    assert [d.rank for d in topology.devices] == list(range(topology.num_ranks))
    runs = [d.server_id for d in topology.devices]
    sizes = {runs.count(server) for server in topology.servers}
    assert runs == [s for s in topology.servers for _ in range(sizes.copy().pop())]
    keys = {(d.server_id, d.device_id) for d in topology.devices}
    assert len(keys) == topology.num_ranks and len(sizes) == 1


FUZZ = settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@FUZZ
@given(table=damaged_tables())
def test_survives_damaged_tables(tmp_path: pathlib.Path, table: Any) -> None:
    check_never_crashes(save(tmp_path, copy.deepcopy(table)))


@FUZZ
@given(content=st.binary(max_size=100) | st.text(max_size=100).map(str.encode))
def test_survives_any_bytes(tmp_path: pathlib.Path, content: bytes) -> None:
    path = tmp_path / "table.json"
    path.write_bytes(content)
    check_never_crashes(str(path))


@FUZZ
@given(data=st.data())
def test_survives_flipped_characters(
    tmp_path: pathlib.Path, data: st.DataObject
) -> None:
    make_table = data.draw(st.sampled_from(FORMATS))
    text = json.dumps(make_table())
    for _ in range(data.draw(st.integers(1, 4))):
        i = data.draw(st.integers(0, len(text) - 1))
        text = text[:i] + data.draw(st.sampled_from('0189"{}[],:.x\\')) + text[i + 1 :]
    check_never_crashes(save(tmp_path, text))
