"""The configuration of a run beside the defaults, and of runs side by side."""

import json
from typing import Any, Dict, Sequence

from alexnet_estimator.report.history import History, section
from alexnet_estimator.report.markup import Markup, details, element, join, table
from alexnet_estimator.report.text import UNKNOWN, plain
from alexnet_estimator.schema import SCHEMA


def configuration(run: History) -> Markup:
    """Show what differs from the defaults, and the rest on demand."""
    values, defaults = _flatten(run.record.get("config")), _defaults()
    if not values:
        return element("p", "Not recorded.")
    rows = [
        (
            element("code", name),
            plain(value),
            plain(defaults[name]) if name in defaults else "no such field now",
            _meaning(name),
        )
        for name, value in values.items()
    ]
    is_changed = [defaults.get(name) != value for name, value in values.items()]
    header = ("field", "value", "default", "meaning")
    changed = [row for row, differs in zip(rows, is_changed) if differs]
    others = [row for row, differs in zip(rows, is_changed) if not differs]
    title = "Fields that differ from the defaults"
    same = table("Fields that are the defaults", header, others, "texts")
    return join(
        [
            table(title, header, changed, "texts") if changed else None,
            details(f"{len(others)} fields are the defaults", same),
        ]
    )


def differences(runs: Sequence[History]) -> Markup:
    """Show in what the runs differ: configuration, data, machine, versions."""
    # A run without a record would differ in everything.
    known = [run for run in runs if run.record]
    facts = [_facts(run) for run in known]
    names = sorted({name for each in facts for name in each})
    rows = [
        (element("code", name), *(each.get(name, UNKNOWN) for each in facts))
        for name in names
        if len({each.get(name) for each in facts}) > 1
    ]
    if not rows:
        return element("p", "None: configuration, data, machine and versions agree.")
    header = ("field", *(run.name for run in known))
    return table("In what the runs differ", header, rows, "texts")


def _facts(run: History) -> Dict[str, str]:
    record = run.record
    values = {
        **_flatten(record.get("config")),
        **_flatten({"versions": record.get("versions")}),
        "data_digest": plain(record.get("data_digest"))[:12],
        "device": record.get("device"),
        "num_ranks": record.get("num_ranks"),
    }
    return {name: plain(value) for name, value in values.items()}


def _flatten(groups: Any) -> Dict[str, Any]:
    return {
        f"{group}.{name}": value
        for group, fields in section(groups).items()
        for name, value in section(fields).items()
    }


def _defaults() -> Dict[str, Any]:
    """Return the defaults as JSON has them, in which tuples are lists."""
    fields = {
        group: {name: field.default for name, field in members.items()}
        for group, members in SCHEMA.items()
    }
    return _flatten(json.loads(json.dumps(fields)))


def _meaning(name: str) -> str:
    group, _, field = name.partition(".")
    known = SCHEMA.get(group, {}).get(field)
    return known.doc if known else ""
