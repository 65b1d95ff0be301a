"""Writes the page: fills the template and puts pictures of the curves beside it."""

import base64
import os
import time
from typing import Optional, Sequence

import alexnet_estimator
from alexnet_estimator.errors import ConfigError
from alexnet_estimator.files import write_bytes
from alexnet_estimator.report import charts, settings, text
from alexnet_estimator.report.history import read_runs

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
        ConfigError: a folder holds no run, or the page cannot be written.
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
        raise ConfigError(f"cannot be written: {error.strerror}", output) from error
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
        settings=settings,
        max_named_classes=charts.MAX_NAMED_CLASSES,
        written_secs=time.time(),
        version=alexnet_estimator.__version__,
        **values,
    )
