"""Writing of the HTML page and of the PNG files of its charts."""

import base64
import json
import os
import time
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

import alexnet_estimator
from alexnet_estimator import disk
from alexnet_estimator.errors import ConfigError
from alexnet_estimator.files import write_bytes
from alexnet_estimator.networks import DEFAULT, find_network
from alexnet_estimator.report import charts, text
from alexnet_estimator.report.history import History, read_runs
from alexnet_estimator.rules import anything
from alexnet_estimator.schema import SCHEMA, Field

FILE_NAME = "report.html"
COMPARISON_FILE_NAME = "comparison.html"


def write_report(model_dirs: Sequence[str], output: Optional[str] = None) -> str:
    """Write a page about one run, or a page that compares several runs.

    The charts are also written as PNG files, into a folder beside the page that has the
    name of the page without ``.html``.  Without matplotlib, the page has no charts and
    says so.

    Args:
        model_dirs: Folders of runs, finished or not.
        output: Path of the page.  None: ``report.html`` in the folder of the run or,
            for several runs, ``comparison.html`` in the current folder.

    Returns:
        The path of the page.

    Raises:
        UserError: A folder holds no run, the name of the page does not end with
            ``.html``, its folder has other files, or the page cannot be written.
    """
    if output is not None:
        _check_output(output)
    runs = read_runs(model_dirs)
    is_alone = len(runs) == 1
    if output is None and is_alone:
        output = os.path.join(model_dirs[0], FILE_NAME)
    output = output or COMPARISON_FILE_NAME
    planned, drawings, confusions = charts.plan_charts(runs), {}, {}
    if charts.can_draw():
        drawings = {chart.name: charts.draw_chart(chart) for chart in planned}
        # In a comparison, the page shows the matrix of a run with few classes as a
        # table.
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
        # JSON can hold half of a surrogate pair, which UTF-8 cannot encode.
        write_bytes(output, page.encode("utf-8", "replace"))
        for name, drawing in drawings.items():
            os.makedirs(folder, exist_ok=True)
            write_bytes(os.path.join(folder, f"{name}.png"), drawing.png)
    except OSError as error:
        raise disk.error_at(output, "cannot be written", error) from error
    return output


def _check_output(output: str) -> None:
    """Check that the charts have a folder of their own beside the page."""
    folder, suffix = os.path.splitext(output)
    if suffix.lower() not in (".html", ".htm"):
        raise ConfigError("the name of a report must end with .html", output)
    is_old_page = os.path.isfile(output)
    if os.path.isdir(folder) and os.listdir(folder) and not is_old_page:
        raise ConfigError(
            f"its charts would be written to {folder}, which has other files: give "
            "another name",
            output,
        )


def _render(**values: Any) -> str:
    """Render the template; all values are escaped, so that no text becomes a tag."""
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
        folds=summarise_folds(values["runs"]),
        max_named_classes=charts.MAX_NAMED_CLASSES,
        written_secs=time.time(),
        version=alexnet_estimator.__version__,
        **values,
    )


class Setting(NamedTuple):
    """One field of the configuration, as the page shows it."""

    name: str
    value: str
    default: str
    meaning: str


def list_settings(run: History) -> Tuple[List[Setting], List[Setting]]:
    """Return the fields that differ from their defaults, and those that do not."""
    # Other networks are described from the record.  They are not loaded, because that
    # would run code that came with the run.
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
        # The value comes from JSON, in which tuples are lists.
        default = json.loads(json.dumps(field.default))
        is_same = name in fields and default == value
        words = text.plain(default) if name in fields else "unknown field"
        listed = same if is_same else changed
        listed.append(Setting(name, text.plain(value), words, field.doc))
    return changed, same


def list_differences(runs: Sequence[History]) -> List[Tuple[str, List[str]]]:
    """Return the facts in which runs differ: configuration, data, machine, versions.

    Args:
        runs: Runs that have a record.  A run without one would differ in every fact.

    Returns:
        The name of each fact, and a list of its values with one for each run.
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


class Folds(NamedTuple):
    """Results of the runs of a cross-validation: means and standard deviations."""

    title: str
    accuracy: Tuple[float, float]
    best: Tuple[float, float]
    loss: Tuple[float, float]


def summarise_folds(runs: Sequence[History]) -> Optional[Folds]:
    """Return the results over folds, or None if the runs differ in more than the fold.

    Every run must have been evaluated, and each fold may occur once.
    """
    differences = dict(list_differences(runs))
    folds = differences.get("convert.fold", [])
    pairs = [(run.last, run.best) for run in runs if run.last and run.best]
    # The pictures and their mean colour differ from fold to fold.
    others = set(differences) - {"convert.fold", "data.mean_rgb", "data_digest"}
    if others or len(set(folds)) < len(runs) or len(pairs) < len(runs):
        return None

    def spread(values: List[float]) -> Tuple[float, float]:
        return float(np.mean(values)), float(np.std(values, ddof=1))

    num_folds = text.plain(runs[0].config.get("convert", {}).get("num_folds"))
    return Folds(
        f"mean and standard deviation over {len(runs)} of {num_folds} folds",
        spread([last.top_1_accuracy for last, _ in pairs]),
        spread([best.top_1_accuracy for _, best in pairs]),
        spread([last.loss for last, _ in pairs]),
    )


def describe_folds(model_dirs: Sequence[str]) -> str:
    """Return a line about the folds of a cross-validation; empty for other runs."""
    folds = summarise_folds(read_runs(model_dirs))
    if not folds:
        return ""
    values = zip(("accuracy", "best", "loss"), folds[1:])
    return f"{folds.title}: " + ", ".join(
        f"{name} {mean:.4f} ± {deviation:.4f}" for name, (mean, deviation) in values
    )


def _flatten(groups: Dict[str, Dict[str, Any]]) -> Dict[str, Any]:
    return {
        f"{group}.{name}": value
        for group, fields in groups.items()
        for name, value in fields.items()
    }
