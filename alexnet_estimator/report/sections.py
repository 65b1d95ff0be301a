"""The parts of a run's page, each a function from its history to HTML."""

import base64
import math
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from alexnet_estimator.report import scores, text
from alexnet_estimator.report.charts import (
    MAX_NAMED_CLASSES,
    Chart,
    Drawing,
    Line,
    describe,
)
from alexnet_estimator.report.history import Evaluation, History, Sample, Start, section
from alexnet_estimator.report.markup import Markup, details, element, join, table

MAX_ROWS = 20
# Section and field of the configuration; or a group, and what it says.
Field = Tuple[str, str]


def result(run: History) -> str:
    """Say in one line what the run has come to."""
    last = run.last
    if last is None:
        return "Not evaluated yet."
    images = f"{last.num_images:,} unseen pictures"
    line = f"{text.percent(last.top_1_accuracy)} of {images} recognised"
    if run.confusion is None or last.num_images == 0:
        return f"{line}."
    label, share = scores.majority(run.confusion.matrix)
    answer = f"always answering “{run.class_names[label]}” ({text.percent(share)})"
    low, high = scores.wilson_interval(last.top_1_accuracy, last.num_images)
    if low > share:
        return f"{line}; {answer} would be worse."
    return f"{line}: {'worse' if high < share else 'no better'} than {answer}."


def status(run: History) -> str:
    """Say how the run ended, and how sure the result is."""
    sentences = []
    last, best = run.last, run.best
    if last and best and last.num_images:
        low, high = scores.wilson_interval(last.top_1_accuracy, last.num_images)
        sentences.append(
            f"With {last.num_images:,} pictures, the 95 % interval is "
            f"{text.percent(low)} to {text.percent(high)}."
        )
        if best.step != last.step:
            accuracy = text.percent(best.top_1_accuracy)
            sentences.append(f"Best at step {best.step:,}: {accuracy}.")
    if run.starts:
        sentences.append(_ending(run.starts[-1]))
    return " ".join(sentences)


def _ending(start: Start) -> str:
    when = f"step {start.last_step:,} ({text.time(start.last_time_secs)})"
    if start.outcome == "end":
        return f"Finished at {when}."
    if start.outcome == "stop":
        return f"Stopped on request at {when}; the same command goes on from there."
    return f"Not finished: still training, or interrupted after {when}."


def notes(run: History) -> Markup:
    """Show what could not be read."""
    lines = [element("p", f"{run.name}: {note}", class_="note") for note in run.notes]
    return join(lines)


def tiles(run: History) -> Markup:
    """Show the few numbers that are looked for first."""
    last, speeds = run.last, run.values("images_per_sec")[1]
    pairs: List[Tuple[str, Any]] = []
    if last:
        pairs += [
            ("accuracy", text.percent(last.top_1_accuracy, 2)),
            ("top 5", text.percent(last.top_5_accuracy, 2)),
            ("validation loss", text.decimal(last.loss)),
        ]
        if len(run.class_names) <= 5:
            del pairs[1]
    if run.confusion:
        share = scores.majority(run.confusion.matrix)[1]
        pairs.insert(1, ("majority class", text.percent(share, 2)))
    if run.train:
        epoch = run.train[-1].get("epoch")
        pairs.append(("steps", f"{run.train[-1]['step']:,}"))
        pairs += [("epochs", text.plain(epoch))] if epoch is not None else []
    if np.isfinite(speeds).any():
        pairs.append(("images/s, median", f"{np.nanmedian(speeds):,.1f}"))
    if run.starts:
        pairs.append(("time", text.duration(run.duration_secs)))
    if "num_ranks" in run.record:
        pairs.append(("ranks", f"{run.record['num_ranks']} {run.record.get('device')}"))
    cells = [
        element("div", element("dt", name), element("dd", value))
        for name, value in pairs
    ]
    return element("dl", *cells, class_="tiles") if cells else Markup()


def overview(runs: Sequence[History]) -> Markup:
    """List runs with their results."""
    header = "run,accuracy,best,at step,majority class,loss,images/s,time,ranks"
    rows = [_overview_row(run) for run in runs]
    return table("Results", header.split(","), rows)


def _overview_row(run: History) -> Sequence[Any]:
    last, best, speeds = run.last, run.best, run.values("images_per_sec")[1]
    share = scores.majority(run.confusion.matrix)[1] if run.confusion else math.nan
    is_fast = np.isfinite(speeds).any()
    return (
        run.name,
        text.percent(last.top_1_accuracy if last else math.nan, 2),
        text.percent(best.top_1_accuracy if best else math.nan, 2),
        f"{best.step:,}" if best else "–",
        text.percent(share, 2),
        text.decimal(last.loss if last else math.nan),
        f"{np.nanmedian(speeds):,.1f}" if is_fast else "–",
        text.duration(run.duration_secs),
        f"{text.plain(run.record.get('num_ranks'))} {run.record.get('device', '')}",
    )


def chart(planned: Chart, drawing: Optional[Drawing]) -> Markup:
    """Show a chart, or in words what would be in it."""
    keys = join(_key(line) for line in planned.lines)
    restarts = "Dotted: restarts." if planned.restarts else None
    return element(
        "figure",
        element("h3", planned.title),
        Markup(drawing.svg) if drawing else element("p", describe(planned)),
        element("figcaption", keys if len(planned.lines) > 1 else None, restarts),
    )


def _key(line: Line) -> Markup:
    """Show how a line is drawn."""
    dashes = {"--": "6 3", "-.": "8 3 2 3", ":": "2 3"}.get(line.dash)
    stroke = element(
        "path",
        d="M0 6H28",
        stroke=f"var(--{line.colour})",
        stroke_width=3,
        stroke_dasharray=dashes,
        opacity=0.4 if line.is_faint else None,
    )
    dot = element("circle", cx=14, cy=6, r=4, fill=f"var(--{line.colour})")
    is_dotted = bool(line.marker)
    swatch = element(
        "svg",
        stroke,
        dot if is_dotted else None,
        viewBox="0 0 28 12",
        aria_hidden="true",
    )
    return element("span", swatch, line.label, class_="key")


def evaluations(run: History) -> Markup:
    """List the evaluations, the best one marked."""
    best = run.best
    recent = run.evaluations[-MAX_ROWS:]
    if best and best not in recent:
        recent = [best, *recent]
    header = ("step", "accuracy", "top 5", "loss", "images", "")
    shown = table("Evaluations", header, [_evaluation(e, best) for e in recent])
    if len(recent) == len(run.evaluations):
        return shown
    rows = [_evaluation(e, best) for e in run.evaluations]
    every = table("All evaluations", header, rows)
    return join([shown, details(f"All {len(rows)} evaluations", every)])


def _evaluation(one: Evaluation, best: Optional[Evaluation]) -> Sequence[Any]:
    accuracy = text.percent(one.top_1_accuracy, 2)
    is_best = one is best
    return (
        f"{one.step:,}",
        element("td", accuracy, class_="best") if is_best else accuracy,
        text.percent(one.top_5_accuracy, 2),
        text.decimal(one.loss),
        f"{one.num_images:,}",
        "best" if is_best else "",
    )


def confusion(run: History, drawing: Optional[Drawing]) -> Markup:
    """Show the confusion matrix, precision and recall."""
    if run.confusion is None:
        return element("p", "No confusion matrix in the folder eval/.")
    matrix, names = run.confusion.matrix, run.class_names
    parts: List[Optional[Markup]] = [
        element("p", f"Of the evaluation at step {run.confusion.step:,}.")
    ]
    if len(names) <= MAX_NAMED_CLASSES:
        parts.append(_matrix(matrix, names))
    elif drawing:
        caption = "Dark: a large share of the true class. The diagonal is right."
        picture = element("figure", Markup(drawing.svg), element("figcaption", caption))
        parts.append(element("div", picture, class_="charts"))
    parts.append(_class_scores(matrix, names))
    if len(names) > 2:
        parts.append(_pairs(matrix, names))
    return join(parts)


def _matrix(matrix: np.ndarray, names: Sequence[str]) -> Markup:
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    rows = [
        (name, *(_heat(matrix[label, i], shares[label, i]) for i in range(len(names))))
        for label, name in enumerate(names)
    ]
    caption = "Confusion matrix: rows are true classes, columns the answers"
    class_ = "matrix many" if len(names) > 6 else "matrix"
    return table(caption, ("", *names), rows, class_)


def _heat(count: int, share: float) -> Markup:
    """Return a cell whose colour shows the share of its row."""
    mixed = f"color-mix(in srgb, var(--heat) {100 * share:.0f}%, var(--panel))"
    colour = "var(--page)" if share > 0.55 else "var(--text)"
    return element("td", f"{count:,}", style=f"background: {mixed}; color: {colour}")


def _class_scores(matrix: np.ndarray, names: Sequence[str]) -> Markup:
    header = ("class", "images", "recall", "precision")
    ranked = scores.class_scores(matrix)
    caption = "Recall: the share of a class that is recognised. Precision: the share "
    caption += "of the answers naming it that are right."
    if len(ranked) <= MAX_ROWS:
        return table(caption, header, [_class_score(s, names) for s in ranked])
    # Those without images say nothing and go last.
    ranked.sort(key=lambda s: (math.isnan(s.recall), s.recall, -s.num_images))
    worst = [_class_score(s, names) for s in ranked[:MAX_ROWS]]
    every = table(caption, header, [_class_score(s, names) for s in ranked])
    return join(
        [
            table(
                f"The {MAX_ROWS} classes that are hardest to recognise", header, worst
            ),
            details(f"All {len(ranked):,} classes", every),
        ]
    )


def _class_score(score: scores.ClassScore, names: Sequence[str]) -> Sequence[Any]:
    return (
        names[score.label],
        f"{score.num_images:,}",
        text.percent(score.recall),
        text.percent(score.precision),
    )


def _pairs(matrix: np.ndarray, names: Sequence[str]) -> Optional[Markup]:
    num_images = matrix.sum(axis=1)
    rows = [
        (
            names[pair.label],
            element("td", names[pair.answer], class_="left"),
            f"{pair.num_images:,}",
            text.percent(pair.num_images / num_images[pair.label]),
        )
        for pair in scores.confused_pairs(matrix, MAX_ROWS)
    ]
    header = ("true class", "taken for", "images", "of the class")
    return table("Most frequent confusions", header, rows) if rows else None


def samples(run: History) -> Markup:
    """Show the most confident mistakes and some right answers."""
    if not run.samples:
        return element("p", "None in this run; they are written when training ends.")
    about = run.samples_about
    mistakes = [sample for sample in run.samples if not sample.is_right]
    right = [sample for sample in run.samples if sample.is_right]
    summary = (
        f"At step {about.get('global_step', 0):,}, {about.get('num_mistakes', 0):,} of "
        f"{about.get('num_images', 0):,} validation pictures that were looked at "
        "are mistaken."
    )
    parts = [element("p", summary)]
    for title, listed in (("Most confident mistakes", mistakes), ("Right", right)):
        if listed:
            pictures = [_sample(sample, run.class_names) for sample in listed]
            parts.append(element("h3", title))
            parts.append(element("div", *pictures, class_="samples"))
    return join(parts)


def _sample(sample: Sample, names: Sequence[str]) -> Markup:
    truth = names[sample.label]
    (first, probability), *others = sample.answers
    answer = f"{names[first]} {text.percent(probability)}"
    others = [pair for pair in others if pair[1] >= 0.005]
    words = [f"{names[label]} {text.percent(share)}" for label, share in others]
    truth_line = None if sample.is_right else element("div", f"is {truth}")
    return element(
        "figure",
        element(
            "img",
            src=f"data:image/jpeg;base64,{sample.jpeg}",
            alt=f"A picture of class {truth}; the answer is {answer}",
        ),
        element(
            "figcaption",
            element("b", answer),
            truth_line,
            element("div", ", ".join(words)) if words else None,
            element("div", sample.file) if sample.file else None,
        ),
    )


def kernels(run: History) -> Markup:
    """Show what the first layer looks for."""
    if not run.kernels:
        return element("p", "None in this run; they are written when training ends.")
    encoded = base64.b64encode(run.kernels).decode()
    text_ = "The kernels of the first convolution as small coloured squares in a grid"
    caption = "Each kernel of conv1, stretched to the full range of colours. Edges and "
    caption += "colour blobs are what a trained one shows; noise, an untrained one."
    return element(
        "figure",
        element("img", src=f"data:image/png;base64,{encoded}", alt=text_),
        element("figcaption", caption),
        class_="kernels",
    )


def data_and_environment(run: History) -> Markup:
    """Show what the result depends on beside the configuration."""
    record = run.record
    versions = section(record.get("versions"))
    names = run.class_names
    rows: List[Tuple[str, Any]] = [("folder", run.model_dir)]
    rows += [("data", _setting(record, "data", "path"))]
    rows += [("SHA-256 of the data", record.get("data_digest"))]
    shown = ", ".join(names[:MAX_ROWS]) + (", ..." if len(names) > MAX_ROWS else "")
    rows += [("classes", f"{len(names):,}: {shown}" if names else None)]
    for split, counts in section(record.get("class_counts")).items():
        rows += [(f"pictures, {split}", _counts(counts, names))]
    rows += [("device", record.get("device")), ("ranks", record.get("num_ranks"))]
    rows += sorted(versions.items())
    known = [(name, text.plain(value)) for name, value in rows if value is not None]
    return table("Data and environment", ("", "value"), known, "texts")


def _setting(record: Dict[str, Any], group: str, name: str) -> Any:
    return section(section(record.get("config")).get(group)).get(name)


def _counts(counts: Any, names: Sequence[str]) -> Optional[str]:
    if not isinstance(counts, list) or not all(isinstance(n, int) for n in counts):
        return None
    total = f"{sum(counts):,}"
    if len(counts) != len(names) or len(names) > MAX_ROWS:
        return f"{total}, from {min(counts):,} to {max(counts):,} of a class"
    parts = [f"{name} {count:,}" for name, count in zip(names, counts)]
    return f"{total}: {', '.join(parts)}"


def starts(run: History) -> Markup:
    """List when the run was started and how each start ended."""
    words = {"end": "finished", "stop": "stopped on request"}
    usual = ("event", "step", "time_secs", "num_ranks")
    rows = [
        (
            text.time(start.time_secs),
            f"{start.step:,}",
            f"{start.last_step:,}",
            text.duration(start.duration_secs),
            text.plain(start.values.get("num_ranks")),
            words.get(start.outcome, "not finished"),
            "; ".join(
                f"{name}: {text.plain(value)}"
                for name, value in start.values.items()
                if name not in usual and value not in (None, [], "")
            ),
        )
        for start in run.starts
    ]
    header = ["started", "from step", "to step", "time", "ranks", "end", "more"]
    if not any(row[-1] for row in rows):
        header, rows = header[:-1], [row[:-1] for row in rows]
    if not rows:
        return element("p", "No start is recorded in metrics.jsonl.")
    return table("Starts of this run", header, rows)
