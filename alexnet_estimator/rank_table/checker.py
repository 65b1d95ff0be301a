"""The rules of rank tables: each breach becomes a line with place, value and rule."""

import ipaddress
import re
from typing import Any, Dict, List, Mapping, NamedTuple, Tuple

from alexnet_estimator.rank_table.json_file import Number, shown

_DECIMAL = re.compile(r"0|[1-9][0-9]{0,5}")
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_]{1,40}")


class Entry(NamedTuple):
    """The texts of one device, and where in the file they stand."""

    rank_id: str
    device_id: str
    device_ip: str
    server_id: str
    rank_path: str
    device_path: str


LAST_DEVICE_ID = 15  # An Atlas A2 or A3 server has up to 16 devices.


class Checker:
    """Takes values out of a table and notes everything that is wrong.

    Attributes:
        problems: What no chip's HCCL takes.
        warnings: What the Ascend 910's does not take.
    """

    def __init__(self, table: Mapping[str, Any]) -> None:
        self.problems: List[str] = []
        self.warnings: List[str] = []
        self._check_leaves(table)
        status = table.get("status")
        if status == "initializing":
            self.add("status", status, '"completed"; its writer is still at work')
        elif status != "completed":
            self.add("status", status, '"completed"')

    def add(self, path: str, value: Any, rule: str) -> None:
        """Note that the value at a path breaks a rule."""
        seen = "missing" if value is None else shown(value)
        self.problems.append(f"{path} is {seen}: must be {rule}")

    def objects(
        self, parent: Mapping[str, Any], key: str, path: str
    ) -> List[Tuple[str, Mapping[str, Any]]]:
        """Return the objects of a list that must not be empty, with their paths."""
        value, place = parent.get(key), join(path, key)
        if not isinstance(value, list) or not value:
            self.add(place, value, "a list with at least one object")
            return []
        result = []
        for index, item in enumerate(value):
            if isinstance(item, Mapping):
                result.append((f"{place}[{index}]", item))
            else:
                self.add(f"{place}[{index}]", item, "an object {...}")
        return result

    def text(self, parent: Mapping[str, Any], key: str, path: str) -> str:
        """Return a string that must not be empty, or "" after noting why not."""
        value = parent.get(key)
        if value is None or value == "" or isinstance(value, (Mapping, list)):
            self.add(join(path, key), value, "a string that is not empty")
        # Numbers and the like have been noted by _check_leaves.
        return value if type(value) is str else ""

    def server_id(self, parent: Mapping[str, Any], path: str) -> str:
        """Return a server's id: an IP address or a name of at most 64 characters."""
        value = self.text(parent, "server_id", path)
        is_name = _HOST_NAME.fullmatch(value) and not re.fullmatch("[0-9.]+", value)
        if value and not (len(value) <= 64 and (is_name or _is_address(value))):
            rule = "an IP address or a host name of at most 64 characters"
            self.add(join(path, "server_id"), value, rule)
        return value

    def check_count(
        self, parent: Mapping[str, Any], key: str, path: str, actual: int
    ) -> None:
        """Note a count that is given and wrong."""
        value = parent.get(key)
        if value is not None and value != str(actual):
            self.add(join(path, key), value, f'"{actual}", as many as are listed')

    def check_unique(self, value: str, path: str, seen: Dict[str, str]) -> None:
        """Note a value that another place has, too."""
        if value in seen:
            self.add(path, value, f"unique; {seen[value]} has it, too")
        else:
            seen[value] = path

    def check_devices(self, entries: List[Entry], is_a3: bool) -> None:
        """Check what all formats have in common.

        Args:
            entries: All devices.
            is_a3: Whether the format is that of Atlas A3, for which no rule of the
                Ascend 910 holds.
        """
        self._check_addresses(entries, needs_addresses=not is_a3)
        self._check_ranks(entries)
        ids, seen = {}, {}  # type: Dict[str, List[int]], Dict[str, Dict[str, str]]
        for entry in entries:
            path = f"{entry.device_path}.device_id"
            if entry.device_id and not _is_at_most(LAST_DEVICE_ID, entry.device_id):
                self.add(path, entry.device_id, f'"0" to "{LAST_DEVICE_ID}"')
            elif entry.device_id and entry.server_id:
                on_server = seen.setdefault(entry.server_id, {})
                self.check_unique(entry.device_id, path, on_server)
                ids.setdefault(entry.server_id, []).append(int(entry.device_id))
        if len({len(devices) for devices in ids.values()}) > 1:
            counts = ", ".join(f"{shown(s)}: {len(d)}" for s, d in ids.items())
            self.problems.append(
                f"servers have different numbers of devices ({counts}): must be equal"
            )
        if not is_a3:
            self._check_as_910(ids)

    def _check_leaves(self, table: Mapping[str, Any]) -> None:
        """HCCL reads strings only; which of two equal keys it takes is chance."""
        stack: List[Tuple[str, Any]] = [("", table)]
        while stack:
            path, value = stack.pop()
            if isinstance(value, Mapping):
                for key in getattr(value, "duplicates", ()):
                    self.problems.append(
                        f"{join(path, key)} appears twice: keys must be unique"
                    )
                children = [(join(path, key), value[key]) for key in value]
                stack.extend(reversed(children))
            elif isinstance(value, list):
                items = [(f"{path}[{i}]", item) for i, item in enumerate(value)]
                stack.extend(reversed(items))
            elif isinstance(value, Number) or not isinstance(value, str):
                text = shown(value)
                self.problems.append(f'{path} is {text}: must be a string, "{text}"')

    def _check_addresses(self, entries: List[Entry], needs_addresses: bool) -> None:
        has_several_servers = len({entry.server_id for entry in entries}) > 1
        seen: Dict[str, str] = {}
        for entry in entries:
            path = f"{entry.device_path}.device_ip"
            if entry.device_ip and not _is_address(entry.device_ip):
                self.add(path, entry.device_ip, "a valid IP address")
            elif entry.device_ip:
                self.check_unique(entry.device_ip, path, seen)
            elif needs_addresses and has_several_servers:
                self.add(path, None, "given where there is more than one server")

    def _check_ranks(self, entries: List[Entry]) -> None:
        seen: Dict[str, str] = {}
        last = len(entries) - 1
        for entry in entries:
            path = f"{entry.rank_path}.rank_id"
            if entry.rank_id and not _is_at_most(last, entry.rank_id):
                self.add(path, entry.rank_id, f'"0" to "{last}", one for each device')
            elif entry.rank_id:
                self.check_unique(entry.rank_id, path, seen)
        missing = [str(i) for i in range(len(entries)) if str(i) not in seen]
        if missing:
            self.problems.append(
                f"rank_id {', '.join(missing[:20])} is missing: ranks must run from "
                f"0 to {last} without a gap"
            )
        else:
            self._check_interleaving(sorted(entries, key=lambda e: int(e.rank_id)))

    def _check_interleaving(self, entries: List[Entry]) -> None:
        previous: Dict[str, int] = {}
        for rank, entry in enumerate(entries):
            expected = previous.get(entry.server_id, rank - 1) + 1
            if rank != expected:
                rule = f'"{expected}", next to the other ranks of its server'
                self.add(f"{entry.rank_path}.rank_id", entry.rank_id, rule)
            previous[entry.server_id] = rank

    def _check_as_910(self, ids: Mapping[str, List[int]]) -> None:
        """Note what an Ascend 910 could not do, but a later chip or a CPU can."""
        for server_id, devices in ids.items():
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
            self.warnings.append(
                f"server {shown(server_id)} has devices {listed}: {rule}"
            )


def join(path: str, key: str) -> str:
    """Return the path of a key below ``path``."""
    if not _PLAIN_KEY.fullmatch(key):
        return f"{path}[{shown(key)}]"
    return f"{path}.{key}" if path else key


def _is_at_most(last: int, text: str) -> bool:
    return bool(_DECIMAL.fullmatch(text)) and int(text) <= last


def _is_address(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    # Python 3.7.5 takes 010.0.0.1, in which others read an octal number.
    is_plain = address.version == 6 or str(address) == text
    return is_plain and not address.is_unspecified and not address.is_multicast
