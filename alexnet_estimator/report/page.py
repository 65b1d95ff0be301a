"""The report: sections put together to one file that needs nothing else."""

import datetime
import os
from typing import Dict, List, Optional, Sequence, Tuple

import alexnet_estimator
from alexnet_estimator.errors import ConfigError
from alexnet_estimator.files import write_bytes
from alexnet_estimator.report import answers, charts, sections, settings, text
from alexnet_estimator.report.charts import Chart
from alexnet_estimator.report.drawings import (
    MAX_NAMED_CLASSES,
    Drawing,
    draw_chart,
    draw_confusion,
)
from alexnet_estimator.report.history import History, read_runs
from alexnet_estimator.report.markup import Markup, details, element, join
from alexnet_estimator.report.style import STYLE

FILE_NAME = "report.html"
COMPARISON_FILE_NAME = "comparison.html"
# Nothing is fetched and no script runs, whatever a class or a file is called.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

Drawn = List[Tuple[Chart, Optional[Drawing]]]


def write_report(model_dirs: Sequence[str], output: Optional[str] = None) -> str:
    """Write a page about one run, or about several side by side.

    The curves are written as PNGs as well, into a folder beside the page that has its
    name without ``.html``.  Without matplotlib the page has no curves and says so.

    Args:
        model_dirs: folders of runs, finished or not.
        output: the page; None: ``report.html`` in the folder of the only run, or
            ``comparison.html`` in the current folder.

    Returns:
        The path of the page.

    Raises:
        ConfigError: a folder holds no run, or the page cannot be written.
    """
    runs = read_runs(model_dirs)
    if output is None and len(runs) == 1:
        output = os.path.join(model_dirs[0], FILE_NAME)
    output = output or COMPARISON_FILE_NAME
    drawn: Drawn = [(chart, draw_chart(chart)) for chart in charts.plan_charts(runs)]
    if len(runs) == 1:
        matrix = _draw_confusion(runs[0])
        page = _page_of_one(runs[0], drawn, matrix)
    else:
        matrix, page = None, _page_of_many(runs, drawn)
    pictures = {chart.name: drawing.png for chart, drawing in drawn if drawing}
    pictures.update({"confusion": matrix.png} if matrix else {})
    try:
        _write_all(output, page, pictures)
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", output) from error
    return output


def _write_all(output: str, page: str, pictures: Dict[str, bytes]) -> None:
    folder = os.path.splitext(output)[0]
    for name, png in pictures.items():
        os.makedirs(folder, exist_ok=True)
        write_bytes(os.path.join(folder, f"{name}.png"), png)
    # JSON can hold halves of characters, which UTF-8 cannot.
    write_bytes(output, page.encode("utf-8", "replace"))


def _draw_confusion(run: History, name: str = "confusion") -> Optional[Drawing]:
    if run.confusion is None:
        return None
    return draw_confusion(run.confusion.matrix, run.class_names, name)


def _page_of_one(run: History, drawn: Drawn, matrix: Optional[Drawing]) -> str:
    header = element(
        "header",
        element("h1", f"AlexNet · {run.name}"),
        element("p", sections.result(run), class_="result"),
        element("p", sections.status(run), class_="muted"),
        sections.notes(run),
        sections.tiles(run),
    )
    parts = {
        "Curves": _curves(drawn),
        "Evaluations": sections.evaluations(run),
        **_contents(run, matrix),
        "Configuration": settings.configuration(run),
        "Data and environment": sections.data_and_environment(run),
        "Starts": sections.starts(run),
    }
    return _document(f"AlexNet: {run.name}", header, parts)


def _contents(run: History, matrix: Optional[Drawing]) -> Dict[str, Markup]:
    return {
        "Classes": answers.classes(run.confusion, matrix),
        "Pictures": answers.samples(run),
        "Kernels": answers.kernels(run),
    }


def _page_of_many(runs: Sequence[History], drawn: Drawn) -> str:
    title = f"{len(runs)} runs"
    header = element(
        "header",
        element("h1", f"AlexNet · {title}"),
        element("p", _winner(runs), class_="result"),
        *(sections.notes(run) for run in runs),
    )
    parts = {
        "Runs": sections.overview(runs),
        "Curves": _curves(drawn),
        "Differences": settings.differences(runs),
        "Each run": join(_folded(run, index) for index, run in enumerate(runs)),
    }
    return _document(f"AlexNet: {title}", header, parts)


def _winner(runs: Sequence[History]) -> str:
    """Say which run was best, where that can be said."""
    scored = [(run.best.top_1_accuracy, run) for run in runs if run.best]
    if not scored:
        return "None has been evaluated yet"
    accuracy, run = max(scored, key=lambda pair: pair[0])
    if len({each.record.get("data_digest") for _, each in scored}) > 1:
        return "Evaluated on different data: accuracies cannot be compared"
    return f"Best: {run.name}, {text.percent(accuracy)} recognised"


def _folded(run: History, index: int) -> Markup:
    drawing = None
    if len(run.class_names) > MAX_NAMED_CLASSES:
        drawing = _draw_confusion(run, f"confusion-{index}")
    parts = {
        "Evaluations": sections.evaluations(run),
        **_contents(run, drawing),
        "Data and environment": sections.data_and_environment(run),
        "Starts": sections.starts(run),
    }
    blocks = [join([element("h3", name), part]) for name, part in parts.items()]
    status = element("p", sections.status(run), class_="muted")
    return details(f"{run.name}: {sections.result(run)}", status, *blocks)


def _curves(drawn: Drawn) -> Markup:
    if not drawn:
        return element("p", "Nothing has been logged yet.")
    remarks = []
    if not all(drawing for _, drawing in drawn):
        remarks.append("For curves, install matplotlib and run the verb report again.")
    if any(chart.restarts for chart, _ in drawn):
        remarks.append("Dotted lines: restarts.")
    if any(charts.is_long(line) for chart, _ in drawn for line in chart.lines):
        remarks.append("Bands: from the lowest to the highest of neighbouring values.")
    figures = [sections.chart(chart, drawing) for chart, drawing in drawn]
    note = element("p", " ".join(remarks), class_="muted") if remarks else None
    return join([note, element("div", *figures, class_="charts")])


def _document(title: str, header: Markup, parts: Dict[str, Markup]) -> str:
    """Return the whole page, with links to its parts."""
    ids = {name: name.lower().replace(" ", "-") for name in parts}
    links = [element("a", name, href=f"#{ids[name]}") for name in parts]
    blocks = [
        element("section", element("h2", name, id=ids[name]), content)
        for name, content in parts.items()
    ]
    now = datetime.datetime.now(datetime.timezone.utc).timestamp()
    version = f"alexnet_estimator {alexnet_estimator.__version__}"
    head = [
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("title", title),
        element("style", Markup(STYLE)),
    ]
    body = [
        header,
        element("nav", *links, aria_label="Sections"),
        element("main", *blocks),
        element("footer", f"Written {text.time(now)} by {version}."),
    ]
    page = element("html", element("head", *head), element("body", *body), lang="en")
    return f"<!DOCTYPE html>\n{page}\n"
