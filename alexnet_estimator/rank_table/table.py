"""Reads the JSON of a rank table strictly; each mistake is reported with its place."""

import collections
import ipaddress
import json
import os
import re
from typing import Any, Dict, List, Mapping, Sequence, Tuple

from alexnet_estimator import disk, files
from alexnet_estimator.errors import ConfigError

MAX_BYTES = 1 << 20
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_]{1,40}")


class Number(str):
    """The text of a JSON number.

    HCCL accepts only strings, so that every number in a rank table is a mistake, which
    is reported as it was written.
    """


class Object(dict):
    """A JSON object that remembers which of its keys appeared more than once.

    Attributes:
        duplicates: Keys that appeared more than once.
    """

    duplicates: Sequence[str] = ()


def load(path: str) -> Object:
    """Read a JSON object from a file.

    The file may come from anywhere, so that its size is limited.

    Raises:
        ConfigError: The file does not exist or cannot be read, HCCL refuses its name,
            it is too large, or it does not contain a JSON object.
        DataError: The disk is broken.
    """
    real_path = os.path.realpath(path)
    if os.path.isdir(real_path):
        raise ConfigError("it is a folder: name the file of a rank table", path)
    if not os.path.isfile(real_path):
        raise ConfigError("no such file; `rank_table make` writes one", path)
    if not real_path.endswith(".json"):
        name = os.path.basename(real_path)
        raise ConfigError(
            f"the file is {name}: HCCL reads only names that end in .json", path
        )
    try:
        content = files.read_at_most(real_path, MAX_BYTES)
    except OSError as error:
        raise disk.error_at(path, "cannot be read", error) from error
    except ValueError as error:
        raise ConfigError(f"{error}: not a rank table", path) from error

    def make_object(pairs: List[Tuple[str, Any]]) -> Object:
        result = Object(pairs)
        counts = collections.Counter(key for key, _ in pairs)
        result.duplicates = [key for key, count in counts.items() if count > 1]
        return result

    try:
        value = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=make_object,
            parse_int=Number,
            parse_float=Number,
            parse_constant=Number,
        )
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"not JSON: {error}", path) from error
    if not isinstance(value, Object):
        raise ConfigError("not a JSON object: a rank table starts with {", path)
    return value


def shown(value: Any) -> str:
    """Return a value as JSON on one line for a message.

    Control characters are escaped, and a long text is truncated.
    """
    text = value if isinstance(value, Number) else json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


class Node:
    """A JSON object of a rank table whose values are checked when they are read.

    Attributes:
        path: Path of the object in the file; empty for the whole table.
        problems: Messages about all mistakes of the table, which HCCL refuses on every
            chip.  All nodes of a table share the list.
    """

    def __init__(self, value: Mapping[str, Any], path: str, problems: List[str]):
        self._value, self.path, self.problems = value, path, problems

    def get(self, key: str) -> Any:
        """Return the value of a key; None if there is no such key."""
        return self._value.get(key)

    def add(self, key: str, value: Any, rule: str) -> None:
        """Add the problem that the value of a key breaks a rule."""
        seen = "missing" if value is None else shown(value)
        self.problems.append(f"{_join(self.path, key)} is {seen}: must be {rule}")

    def objects(self, key: str) -> List["Node"]:
        """Return the objects of a list, which must not be empty."""
        items = self.get(key)
        if not isinstance(items, list) or not items:
            self.add(key, items, "a list with at least one object")
            return []
        nodes = []
        for index, item in enumerate(items):
            if isinstance(item, Mapping):
                path = f"{_join(self.path, key)}[{index}]"
                nodes.append(Node(item, path, self.problems))
            else:
                self.add(f"{key}[{index}]", item, "an object {...}")
        return nodes

    def text(self, key: str) -> str:
        """Return a string, which must not be empty; "" after adding a problem."""
        value = self.get(key)
        if value is None or value == "" or isinstance(value, (Mapping, list)):
            self.add(key, value, "a string that is not empty")
        # check_leaves has reported numbers and other values that are not strings.
        return value if type(value) is str else ""

    def server_id(self) -> str:
        """Return the id of a server, which must be an IP address or a host name."""
        value = self.text("server_id")
        is_name = _HOST_NAME.fullmatch(value) and not re.fullmatch("[0-9.]+", value)
        if value and not (len(value) <= 64 and (is_name or is_address(value))):
            rule = "an IP address or a host name of at most 64 characters"
            self.add("server_id", value, rule)
        return value

    def check_count(self, key: str, actual: int) -> None:
        """Add a problem if a count is given and is wrong."""
        if self.get(key) not in (None, str(actual)):
            self.add(key, self.get(key), f'"{actual}", as counted in this table')

    def check_unique(self, key: str, value: str, seen: Dict[str, str]) -> None:
        """Add a problem if a value appears in another place as well.

        Args:
            key: Key of the value.
            value: Value to check; an empty value is not checked.
            seen: Place of each earlier value, to which this value is added.
        """
        if value in seen:
            self.add(key, value, f"unique; {seen[value]} has it, too")
        elif value:
            seen[value] = _join(self.path, key)

    def check_leaves(self) -> None:
        """Add a problem for each value that is not a string, and each duplicate key.

        Duplicate keys are refused because it is undefined which of them HCCL uses.
        """
        stack: List[Tuple[str, Any]] = [(self.path, self._value)]
        while stack:
            path, value = stack.pop()
            children: List[Tuple[str, Any]] = []
            if isinstance(value, Mapping):
                for key in getattr(value, "duplicates", ()):
                    self.problems.append(
                        f"{_join(path, key)} appears twice: keys must be unique"
                    )
                children = [(_join(path, key), value[key]) for key in value]
            elif isinstance(value, list):
                children = [(f"{path}[{i}]", item) for i, item in enumerate(value)]
            elif isinstance(value, Number) or not isinstance(value, str):
                text = shown(value)
                self.problems.append(f'{path} is {text}: must be a string, "{text}"')
            stack.extend(reversed(children))


def _join(path: str, key: str) -> str:
    name, bracket, index = key.partition("[")
    if not _PLAIN_KEY.fullmatch(name):
        return f"{path}[{shown(key)}]"
    return f"{path}.{name}{bracket}{index}" if path else key


def is_address(text: str) -> bool:
    """Return whether a text is an IP address that a single network port can have."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    # Python 3.7.5 accepts 010.0.0.1, but other programs read 010 as an octal number.
    is_plain = address.version == 6 or str(address) == text
    return is_plain and not address.is_unspecified and not address.is_multicast
