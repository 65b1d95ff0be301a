"""Configuration of a run beside the defaults, and differences between runs."""

import json
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

from alexnet_estimator.networks import DEFAULT, find_network
from alexnet_estimator.report.history import History, section
from alexnet_estimator.report.text import UNKNOWN, plain
from alexnet_estimator.schema import SCHEMA, Field, anything


class Setting(NamedTuple):
    """One field of the configuration, in words."""

    name: str
    value: str
    default: str
    meaning: str


def list_settings(run: History) -> Tuple[List[Setting], List[Setting]]:
    """Return the fields that differ from the defaults, and the others."""
    fields = {**_flatten(SCHEMA), **_network_fields(run)}
    changed: List[Setting] = []
    same: List[Setting] = []
    for name, value in _flatten(run.section("config")).items():
        if name not in fields:
            changed.append(Setting(name, plain(value), "no such field now", ""))
            continue
        # As JSON has it, in which tuples are lists.
        default = json.loads(json.dumps(fields[name].default))
        setting = Setting(name, plain(value), plain(default), fields[name].doc)
        (same if default == value else changed).append(setting)
    return changed, same


def list_differences(runs: Sequence[History]) -> List[Tuple[str, List[str]]]:
    """Return in what runs differ: configuration, data, machine, versions.

    Args:
        runs: Runs with a record; one without would differ in everything.

    Returns:
        Name and values, one for each run.
    """
    facts = []
    for run in runs:
        values = {
            **_flatten(run.section("config")),
            **_flatten({"versions": run.section("versions")}),
            "data_digest": run.data_digest[:12],
            "device": run.record.get("device"),
            "num_ranks": run.record.get("num_ranks"),
        }
        facts.append({name: plain(value) for name, value in values.items()})
    names = sorted({name for each in facts for name in each})
    return [
        (name, [each.get(name, UNKNOWN) for each in facts])
        for name in names
        if len({each.get(name) for each in facts}) > 1
    ]


def _network_fields(run: History) -> Dict[str, Field]:
    """Return the settings of the network, of which only the package's own is loaded."""
    described = section(run.section("network").get("settings"))
    if not described:
        return _flatten({"model": find_network(DEFAULT).settings})
    return {
        f"model.{name}": Field(
            entry.get("default"), anything(), plain(entry.get("doc"))
        )
        for name, entry in described.items()
        if isinstance(entry, dict)
    }


def _flatten(groups: Any) -> Dict[str, Any]:
    return {
        f"{group}.{name}": value
        for group, fields in section(groups).items()
        for name, value in section(fields).items()
    }
