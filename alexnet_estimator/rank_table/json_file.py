"""Strict reading of a small JSON file that may come from anywhere."""

import collections
import json
import os
from typing import Any, List, Tuple

from alexnet_estimator import files
from alexnet_estimator.errors import ConfigError

MAX_BYTES = 1 << 20


class Number(str):
    """A JSON number as it was written: every one of them is a mistake."""


class Object(dict):
    """A JSON object that remembers keys which appeared twice."""

    duplicates: Tuple[str, ...] = ()


def load(path: str) -> Object:
    """Read the JSON object in a file.

    Raises:
        ConfigError: no such file, a name that HCCL refuses, too large, not JSON.
    """
    real_path = os.path.realpath(path)
    if not os.path.isfile(real_path):
        raise ConfigError("no such file; `rank_table make` writes one", path)
    if not real_path.endswith(".json"):
        raise ConfigError(
            f"the file is {os.path.basename(real_path)}: HCCL reads only names that "
            "end in .json",
            path,
        )
    try:
        content = files.read_at_most(real_path, MAX_BYTES)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", path) from error
    except ValueError as error:
        raise ConfigError(f"{error}: not a rank table", path) from error
    try:
        value = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_object,
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
    """Return a value as JSON on one line, without control characters, cut short."""
    text = value if isinstance(value, Number) else json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _object(pairs: List[Tuple[str, Any]]) -> Object:
    result = Object(pairs)
    if len(result) < len(pairs):
        counts = collections.Counter(key for key, _ in pairs)
        result.duplicates = tuple(key for key in counts if counts[key] > 1)
    return result
