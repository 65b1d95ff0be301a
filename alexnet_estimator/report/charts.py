"""Curves over steps: which lines, in which colours, on which scale."""

from typing import List, NamedTuple, Sequence, Tuple

import numpy as np

from alexnet_estimator.report import scores
from alexnet_estimator.report.history import History
from alexnet_estimator.report.style import SERIES

# More points than that cannot be told apart in a chart of this width.
MAX_POINTS = 300
_DASHES = ("-", "--", "-.", ":")


class Line(NamedTuple):
    """One curve.

    Attributes:
        label: for the key.
        steps: float64 ``[n]``.
        values: float64 ``[n]``; NaN where a value was not finite.
        colour: a name in ``style.LIGHT``.
        dash: matplotlib's name of a line style.
        marker: the same of a marker; empty: none.
        is_faint: drawn behind the others.
    """

    label: str
    steps: np.ndarray
    values: np.ndarray
    colour: str
    dash: str = "-"
    marker: str = ""
    is_faint: bool = False


class Chart(NamedTuple):
    """One set of axes.

    Attributes:
        name: of its file.
        title: with the unit.
        lines: at least one, each with a finite value.
        scale: of the vertical axis: ``from_0``, ``linear``, ``log`` or ``log2``.
        restarts: steps at which the only run was started again.
    """

    name: str
    title: str
    lines: List[Line]
    scale: str = "linear"
    restarts: Tuple[int, ...] = ()


def plan_charts(runs: Sequence[History]) -> List[Chart]:
    """Return the charts for which the runs have values."""
    restarts: Tuple[int, ...] = ()
    if len(runs) == 1:
        restarts = tuple(start.step for start in runs[0].starts[1:])
    charts = [
        Chart("loss", "Loss", _losses(runs), "from_0"),
        Chart("accuracy", "Accuracy, %", _accuracies(runs)),
        _logged(runs, "learning_rate", "Learning rate"),
        _logged(runs, "images_per_sec", "Images/s"),
        _logged(runs, "gradient_norm", "Gradient norm"),
    ]
    scaled = [run for run in runs if (run.values("loss_scale")[1] > 1).any()]
    if scaled:
        chart = _logged(runs, "loss_scale", "Loss scale")
        charts.insert(3, chart._replace(scale="log2"))
    return [
        _with_scale(chart._replace(lines=lines, restarts=restarts))
        for chart in charts
        for lines in [[line for line in chart.lines if np.isfinite(line.values).any()]]
        if lines
    ]


def _with_scale(chart: Chart) -> Chart:
    """Choose a logarithmic scale where a linear one would show nothing but a peak."""
    values = np.concatenate([line.values for line in chart.lines])
    values = values[np.isfinite(values)]
    is_steep = values.min() > 0 and values.max() > 100 * np.median(values)
    is_linear = chart.scale in ("linear", "from_0")
    return chart._replace(scale="log") if is_steep and is_linear else chart


def _losses(runs: Sequence[History]) -> List[Line]:
    lines = []
    for run, colour, dash in _with_colours(runs):
        is_alone = len(runs) == 1
        steps, values = run.values("loss")
        label = "training" if is_alone else f"{run.name} (training)"
        lines.append(Line(label, steps, values, colour, dash, is_faint=not is_alone))
        label = "validation" if is_alone else run.name
        colour = "vermilion" if is_alone else colour
        lines.append(_evaluated(run, "loss", label, colour, dash))
    return lines


def _accuracies(runs: Sequence[History]) -> List[Line]:
    if len(runs) > 1:
        return [
            _evaluated(run, "top_1_accuracy", run.name, colour, dash, 100)
            for run, colour, dash in _with_colours(runs)
        ]
    run = runs[0]
    lines = [_evaluated(run, "top_1_accuracy", "validation", "vermilion", "-", 100)]
    if len(run.class_names) > 5:
        top_5 = _evaluated(run, "top_5_accuracy", "top 5", "green", "-", 100)
        lines.append(top_5._replace(marker="s"))
    if run.confusion and len(lines[0].steps):
        ends = np.array([0.0, lines[0].steps[-1]])
        share = scores.majority(run.confusion.matrix)[1]
        values = np.full(2, 100 * share)
        lines.append(Line("majority class", ends, values, "grey", "--"))
    return lines


def _evaluated(
    run: History, name: str, label: str, colour: str, dash: str, factor: float = 1
) -> Line:
    steps = np.array([float(e.step) for e in run.evaluations])
    values = np.array([factor * getattr(e, name) for e in run.evaluations])
    return Line(label, steps, values, colour, dash, marker="o")


def _logged(runs: Sequence[History], name: str, title: str) -> Chart:
    lines = [
        Line(run.name, *run.values(name), colour, dash)
        for run, colour, dash in _with_colours(runs)
    ]
    return Chart(name, title, lines, "from_0")


def _with_colours(runs: Sequence[History]) -> List[Tuple[History, str, str]]:
    """Give every run a colour and dashes: 12 different pairs."""
    return [
        (run, SERIES[i % len(SERIES)], _DASHES[i % len(_DASHES)])
        for i, run in enumerate(runs)
    ]


def describe(chart: Chart) -> str:
    """Say in words what a chart shows, for those who cannot see it."""
    texts = []
    for line in chart.lines:
        known = np.isfinite(line.values)
        steps, values = line.steps[known], line.values[known]
        text = (
            f"{line.label}: {values[0]:.4g} at step {steps[0]:.0f}, "
            f"{values[-1]:.4g} at step {steps[-1]:.0f}, "
            f"from {values.min():.4g} to {values.max():.4g}"
        )
        num_bad = len(known) - known.sum()
        texts.append(text + (f", {num_bad} values not finite" if num_bad else ""))
    return f"{chart.title} by step. " + ". ".join(texts) + "."


def is_long(line: Line) -> bool:
    """Tell whether a line is drawn as means with a band of extremes."""
    return bool(np.isfinite(line.values).sum() > MAX_POINTS)


def summarise(
    steps: np.ndarray, values: np.ndarray
) -> Tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Cut a long curve into ``MAX_POINTS`` parts.

    Returns:
        Of each part: mean step, mean, lowest and highest value, float64 ``[parts]``.
    """
    known = np.isfinite(values)
    num_parts = min(MAX_POINTS, int(known.sum()))
    parts = np.array_split(values[known], num_parts)
    centres = [part.mean() for part in np.array_split(steps[known], num_parts)]
    means, lows, highs = np.array([[p.mean(), p.min(), p.max()] for p in parts]).T
    return np.array(centres), means, lows, highs
