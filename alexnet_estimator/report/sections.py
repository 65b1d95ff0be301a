"""The run as a whole: its result, its curves, its evaluations, what it depends on."""

import math
from typing import Any, List, Optional, Sequence, Tuple

import numpy as np

from alexnet_estimator.report import scores, text
from alexnet_estimator.report.charts import Chart, Line, describe
from alexnet_estimator.report.drawings import Drawing
from alexnet_estimator.report.history import Evaluation, History, Start, section
from alexnet_estimator.report.markup import Markup, details, element, join, table

MAX_EVALUATIONS = 10
MAX_NAMES = 20


def result(run: History) -> str:
    """Say in one line what the run has come to."""
    last = run.last
    if last is None:
        return "Not evaluated yet"
    images = f"{last.num_images:,} unseen pictures"
    line = f"{text.percent(last.top_1_accuracy)} of {images} recognised"
    if run.confusion is None or last.num_images == 0:
        return line
    label, share = scores.majority(run.confusion.matrix)
    always = f"always answering “{run.class_names[label]}”"
    low, _ = scores.wilson_interval(last.top_1_accuracy, last.num_images)
    if low > share:
        return f"{line}, against {text.percent(share)} for {always}"
    return f"{line}: not clearly better than {always} ({text.percent(share)})"


def status(run: History) -> str:
    """Say how sure the result is, and how the run ended."""
    sentences = []
    last, best = run.last, run.best
    if last and best and last.num_images:
        low, high = scores.wilson_interval(last.top_1_accuracy, last.num_images)
        interval = f"{text.percent(low)} to {text.percent(high)}"
        sentences.append(
            f"The 95\u202f% interval for {last.num_images:,} pictures is {interval}."
        )
        if best.step != last.step:
            accuracy = text.percent(best.top_1_accuracy)
            sentences.append(f"Best at step {best.step:,}: {accuracy}.")
    if run.starts:
        sentences.append(_ending(run.starts[-1]))
    return " ".join(sentences)


def _ending(start: Start) -> str:
    when = f"step {start.last_step:,}"
    if math.isfinite(start.last_time_secs):
        when += f" ({text.time(start.last_time_secs)})"
    if start.outcome == "end":
        return f"Finished at {when}."
    if start.outcome == "stop":
        return f"Stopped on request at {when}; the same command goes on from there."
    return f"Not finished: still training, or interrupted after {when}."


def notes(run: History) -> Markup:
    """Show what could not be read."""
    lines = [element("div", f"{run.name}: {note}") for note in run.notes]
    return element("div", *lines, class_="note") if lines else Markup()


def tiles(run: History) -> Markup:
    """Show the few numbers that are looked for first."""
    pairs: List[Tuple[str, str]] = []
    if run.last:
        pairs.append(("accuracy", text.percent(run.last.top_1_accuracy, 2)))
        if len(run.class_names) > 5:
            pairs.append(("top 5", text.percent(run.last.top_5_accuracy, 2)))
        pairs.append(("validation loss", text.decimal(run.last.loss)))
    if run.train:
        pairs.append(("steps", f"{run.train[-1]['step']:,}"))
        pairs.append(("epochs", text.plain(run.train[-1].get("epoch"))))
    pairs.append(("images/s", _speed(run)))
    pairs.append(("time", text.duration(run.duration_secs)))
    pairs.append(("ranks", _ranks(run)))
    cells = [
        element("div", element("dt", name), element("dd", value))
        for name, value in pairs
        if value != text.UNKNOWN
    ]
    return element("dl", *cells, class_="tiles") if cells else Markup()


def _speed(run: History) -> str:
    speeds = run.values("images_per_sec")[1]
    speeds = speeds[np.isfinite(speeds)]
    return f"{np.median(speeds):,.1f}" if len(speeds) else text.UNKNOWN


def _ranks(run: History) -> str:
    if "num_ranks" not in run.record:
        return text.UNKNOWN
    device = run.record.get("device", "")
    return f"{text.plain(run.record['num_ranks'])} × {text.plain(device)}"


def overview(runs: Sequence[History]) -> Markup:
    """List runs with their results."""
    header = "run,accuracy,best,at step,majority class,loss,images/s,time,ranks"
    rows = [_overview_row(run) for run in runs]
    return table("Results", header.split(","), rows)


def _overview_row(run: History) -> Sequence[str]:
    last, best = run.last, run.best
    share = scores.majority(run.confusion.matrix)[1] if run.confusion else math.nan
    return (
        run.name,
        text.percent(last.top_1_accuracy if last else math.nan, 2),
        text.percent(best.top_1_accuracy if best else math.nan, 2),
        f"{best.step:,}" if best else text.UNKNOWN,
        text.percent(share, 2),
        text.decimal(last.loss if last else math.nan),
        _speed(run),
        text.duration(run.duration_secs),
        _ranks(run),
    )


def chart(planned: Chart, drawing: Optional[Drawing]) -> Markup:
    """Show a chart, or say in words what would be in it."""
    bold = [line for line in planned.lines if not line.is_faint]
    keys: List[Any] = [_key(line) for line in bold or planned.lines]
    if len(bold) < len(planned.lines):
        keys.append("Faint: training.")
    return element(
        "figure",
        element("h3", planned.title),
        Markup(drawing.svg) if drawing else element("p", describe(planned)),
        element("figcaption", *keys) if len(planned.lines) > 1 else None,
    )


def _key(line: Line) -> Markup:
    """Show how a line is drawn."""
    dashes = {"--": "6 3", "-.": "8 3 2 3", ":": "2 3"}.get(line.dash)
    colour = f"var(--{line.colour})"
    stroke = element(
        "path",
        d="M0 6H28",
        stroke=colour,
        stroke_width=3,
        stroke_dasharray=dashes,
        opacity=0.4 if line.is_faint else None,
    )
    dot = element("circle", cx=14, cy=6, r=4, fill=colour) if line.marker else None
    swatch = element("svg", stroke, dot, viewBox="0 0 28 12", aria_hidden="true")
    return element("span", swatch, line.label, class_="key")


def evaluations(run: History) -> Markup:
    """List the evaluations, the best one marked."""
    if not run.evaluations:
        return element("p", "None yet.")
    best = run.best
    recent = run.evaluations[-MAX_EVALUATIONS:]
    if best and best not in recent:
        recent = [best, *recent]
    header = ["step", "accuracy", "top 5", "loss", "images", "note"]
    if len(run.class_names) <= 5:
        header.remove("top 5")
    caption = "On the whole validation split"
    shown = table(caption, header, [_evaluation(e, run) for e in recent])
    if len(recent) >= len(run.evaluations):
        return shown
    rows = [_evaluation(e, run) for e in run.evaluations]
    every = details(f"All {len(rows):,} evaluations", table(caption, header, rows))
    return join([shown, every])


def _evaluation(one: Evaluation, run: History) -> Sequence[Any]:
    accuracy = text.percent(one.top_1_accuracy, 2)
    is_best = one is run.best
    row: List[Any] = [
        f"{one.step:,}",
        element("td", accuracy, class_="best") if is_best else accuracy,
        text.percent(one.top_5_accuracy, 2),
        text.decimal(one.loss),
        f"{one.num_images:,}",
        "best" if is_best else "",
    ]
    if len(run.class_names) <= 5:
        del row[2]
    return row


def data_and_environment(run: History) -> Markup:
    """Show what the result depends on beside the configuration."""
    record, names = run.record, run.class_names
    data = section(section(record.get("config")).get("data"))
    shown = ", ".join(names[:MAX_NAMES]) + (", …" if len(names) > MAX_NAMES else "")
    counts = section(record.get("class_counts")).items()
    rows = [
        ("folder of the run", run.model_dir),
        ("data", data.get("path")),
        ("SHA-256 of the data", record.get("data_digest")),
        ("classes", f"{len(names):,}: {shown}" if names else None),
        *((f"pictures, {split}", _counts(each, names)) for split, each in counts),
        ("device", record.get("device")),
        ("ranks", record.get("num_ranks")),
        *sorted(section(record.get("versions")).items()),
    ]
    known = [(name, text.plain(value)) for name, value in rows if value is not None]
    return table("Beside the configuration", ("what", "value"), known, "texts")


def _counts(counts: Any, names: Sequence[str]) -> Optional[str]:
    """Describe the numbers of pictures by class; None where they are not that."""
    if not isinstance(counts, list) or not counts:
        return None
    if not all(isinstance(count, int) for count in counts):
        return None
    if len(counts) != len(names) or len(names) > MAX_NAMES:
        return f"{sum(counts):,}, {min(counts):,} to {max(counts):,} of a class"
    parts = [f"{name} {count:,}" for name, count in zip(names, counts)]
    return f"{sum(counts):,}: {', '.join(parts)}"


def starts(run: History) -> Markup:
    """List when the run was started and how each start ended."""
    if not run.starts:
        return element("p", "No start is recorded in metrics.jsonl.")
    words = {"end": "finished", "stop": "stopped on request"}
    rows = [
        (
            text.time(start.time_secs),
            f"{start.step:,}",
            f"{start.last_step:,}",
            text.duration(start.duration_secs),
            text.plain(start.values.get("num_ranks")),
            words.get(start.outcome, "not finished"),
            "; ".join(_more(start)),
        )
        for start in run.starts
    ]
    header = ("started", "from step", "to step", "time", "ranks", "end", "note")
    return table("Each start of the training in this folder", header, rows)


def _more(start: Start) -> List[str]:
    """Return what else the start has recorded, e.g. changes of the configuration."""
    usual = ("event", "step", "time_secs", "num_ranks")
    return [
        f"{name}: {text.plain(value)}"
        for name, value in start.values.items()
        if name not in usual and value
    ]
