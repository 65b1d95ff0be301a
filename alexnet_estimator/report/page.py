"""Writes the page: fills the template and puts pictures of the curves beside it."""

import base64
import json
import os
import time
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import alexnet_estimator
from alexnet_estimator import disk
from alexnet_estimator.files import write_bytes
from alexnet_estimator.networks import DEFAULT, find_network
from alexnet_estimator.report import charts, text
from alexnet_estimator.report.history import History, read_runs
from alexnet_estimator.rules import anything
from alexnet_estimator.schema import SCHEMA, Field

FILE_NAME = "report.html"
COMPARISON_FILE_NAME = "comparison.html"


def write_report(model_dirs: Sequence[str], output: Optional[str] = None) -> str:
    """Write a page about one run, or about several side by side.

    The curves are written as PNGs as well, into a folder beside the page that has its
    name without ``.html``.  Without matplotlib the page has no curves and says so.

    Args:
        model_dirs: Folders of runs, finished or not.
        output: Path of the page; None: ``report.html`` in the folder of the only run,
            or ``comparison.html`` in the current folder.

    Returns:
        The path of the page.

    Raises:
        UserError: A folder holds no run, or the page cannot be written.
    """
    runs = read_runs(model_dirs)
    is_alone = len(runs) == 1
    if output is None and is_alone:
        output = os.path.join(model_dirs[0], FILE_NAME)
    output = output or COMPARISON_FILE_NAME
    planned, drawings, confusions = charts.plan_charts(runs), {}, {}
    if charts.can_draw():
        drawings = {chart.name: charts.draw_chart(chart) for chart in planned}
        # Beside others, a run with few classes has a table only.
        confusions = {
            run.name: charts.draw_confusion(run.answers)
            for run in runs
            if run.answers
            and (is_alone or len(run.class_names) > charts.MAX_NAMED_CLASSES)
        }
    page = _render(runs=runs, charts=planned, drawings=drawings, confusions=confusions)
    if is_alone and confusions:
        drawings["confusion"] = confusions[runs[0].name]
    folder = os.path.splitext(output)[0]
    try:
        for name, drawing in drawings.items():
            os.makedirs(folder, exist_ok=True)
            write_bytes(os.path.join(folder, f"{name}.png"), drawing.png)
        # JSON can hold halves of characters, which UTF-8 cannot.
        write_bytes(output, page.encode("utf-8", "replace"))
    except OSError as error:
        raise disk.error_at(output, "cannot be written", error) from error
    return output


def _render(**values: object) -> str:
    """Fill the template, in which no text can become a tag: all of it is escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("alexnet_estimator", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    functions = (text.number, text.percent, text.duration, text.time, text.plain)
    environment.filters.update({each.__name__: each for each in functions})
    environment.filters["base64"] = lambda content: base64.b64encode(content).decode()
    return environment.get_template("report.html.j2").render(
        list_settings=list_settings,
        list_differences=list_differences,
        max_named_classes=charts.MAX_NAMED_CLASSES,
        written_secs=time.time(),
        version=alexnet_estimator.__version__,
        **values,
    )


class Setting(NamedTuple):
    """One field of the configuration, in words."""

    name: str
    value: str
    default: str
    meaning: str


def list_settings(run: History) -> Tuple[List[Setting], List[Setting]]:
    """Return the fields that differ from the defaults, and the others."""
    # Of networks only the package's own is loaded: others are someone's code.
    described = run.record.get("network", {}).get("settings", {})
    settings = {
        name: Field(entry.get("default"), anything(), text.plain(entry.get("doc")))
        for name, entry in described.items()
    }
    model = settings or find_network(DEFAULT).settings
    fields = _flatten({**SCHEMA, "model": {**SCHEMA["model"], **model}})
    changed: List[Setting] = []
    same: List[Setting] = []
    for name, value in _flatten(run.config).items():
        field = fields.get(name, Field(None, anything(), ""))
        # As JSON has it, in which tuples are lists.
        default = json.loads(json.dumps(field.default))
        is_same = name in fields and default == value
        words = text.plain(default) if name in fields else "no such field now"
        listed = same if is_same else changed
        listed.append(Setting(name, text.plain(value), words, field.doc))
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
            **_flatten(run.config),
            **_flatten({"versions": run.record.get("versions", {})}),
            "data_digest": run.data_digest[:12] or None,
            "device": run.record.get("device"),
            "num_ranks": run.record.get("num_ranks"),
        }
        facts.append({name: text.plain(value) for name, value in values.items()})
    names = sorted({name for each in facts for name in each})
    rows = [(name, [each.get(name, text.UNKNOWN) for each in facts]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def _flatten(groups: Dict[str, Dict[str, Any]]) -> Dict[str, Any]:
    return {
        f"{group}.{name}": value
        for group, fields in groups.items()
        for name, value in fields.items()
    }
