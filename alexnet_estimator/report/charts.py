"""Curves over steps: what to draw, and drawing it with matplotlib where that is."""

import io
import re
import warnings
from typing import Any, Callable, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from alexnet_estimator.report import scores
from alexnet_estimator.report.history import History
from alexnet_estimator.report.markup import element
from alexnet_estimator.report.style import LIGHT, SERIES

# More points than that cannot be told apart in a chart of this width.
MAX_POINTS = 300
# A confusion matrix of more classes is drawn without names and numbers.
MAX_NAMED_CLASSES = 20
# Rows of a confusion matrix that can be told apart in a picture.
MAX_CELLS = 200
_DASHES = ("-", "--", "-.", ":")
_STYLE = {
    "axes.edgecolor": LIGHT["border"],
    "axes.labelcolor": LIGHT["muted"],
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 10.5,
    "grid.color": LIGHT["border"],
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "text.color": LIGHT["text"],
    "xtick.color": LIGHT["muted"],
    "ytick.color": LIGHT["muted"],
}


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


class Drawing(NamedTuple):
    """A drawn chart.

    Attributes:
        svg: an element for the page, in its colours, without a key.
        png: the same with title and key, on white.
    """

    svg: str
    png: bytes


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


def draw(chart: Chart) -> Optional[Drawing]:
    """Draw a chart; None without matplotlib."""

    def plot(axes: Any) -> None:
        for line in sorted(chart.lines, key=lambda line: not line.is_faint):
            _plot_line(axes, line)
        for step in chart.restarts:
            axes.axvline(step, color=LIGHT["grey"], linestyle=":", linewidth=1)
        _scale_axes(axes, chart)

    return _draw(plot, chart.title, chart.name, describe(chart))


def draw_confusion(
    matrix: np.ndarray, class_names: Sequence[str], name: str = "confusion"
) -> Optional[Drawing]:
    """Draw a confusion matrix; None without matplotlib.

    Args:
        matrix: ``[num_classes, num_classes]``, rows are true classes.
        class_names: by label; shown where there are few.
        name: makes ids unique on a page.
    """
    matrix = np.asarray(matrix)
    num_classes = len(class_names)
    shares = _pool(matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1))

    def plot(axes: Any) -> None:
        from matplotlib.colors import LinearSegmentedColormap, PowerNorm, to_rgb

        # From transparent, so that it fits any page; the root lets rare errors show.
        colour = to_rgb(LIGHT["sky"])
        colours = LinearSegmentedColormap.from_list("", [(*colour, 0), (*colour, 1)])
        sides = (-0.5, num_classes - 0.5, num_classes - 0.5, -0.5)
        style = {"norm": PowerNorm(0.5, 0, 1), "interpolation": "none"}
        axes.imshow(shares, colours, extent=sides, **style)
        axes.grid(False)
        axes.set(xlabel="answer", ylabel="true class")
        if num_classes <= MAX_NAMED_CLASSES:
            _name_classes(axes, matrix, class_names)

    description = (
        f"Confusion matrix of {num_classes} classes and {matrix.sum()} images; the "
        f"diagonal, which is right, holds {np.trace(matrix)} of them."
    )
    return _draw(plot, "Confusion matrix", name, description, 4.6)


def _pool(shares: np.ndarray) -> np.ndarray:
    """Take the largest of neighbours where single cells would be too small to see."""
    factor = -(-len(shares) // MAX_CELLS)
    missing = -len(shares) % factor
    padded = np.pad(shares, (0, missing), mode="constant")
    side = len(padded) // factor
    return padded.reshape(side, factor, side, factor).max(axis=(1, 3))


def _name_classes(axes: Any, matrix: np.ndarray, class_names: Sequence[str]) -> None:
    labels = range(len(class_names))
    names = [_plain(name[:24]) for name in class_names]
    axes.set_xticks(labels)
    axes.set_xticklabels(names, rotation=45 if len(names) > 3 else 0, ha="center")
    axes.set_yticks(labels)
    axes.set_yticklabels(names)
    for row in labels:
        for column in labels:
            count = f"{matrix[row][column]}"
            axes.text(column, row, count, ha="center", va="center", size=8)


def _plain(text: str) -> str:
    """Return text in which matplotlib finds no formula and nothing unprintable."""
    printable = "".join(letter if letter.isprintable() else "?" for letter in text)
    return printable.replace("\\", "/").replace("$", r"\$")


def _plot_line(axes: Any, line: Line) -> None:
    colour = LIGHT[line.colour]
    steps, means, lows, highs = summarise(line.steps, line.values)
    if is_long(line):
        axes.fill_between(steps, lows, highs, color=colour, alpha=0.2, linewidth=0)
    axes.plot(
        steps,
        means,
        color=colour,
        linestyle=line.dash,
        # A single point needs one to be seen.
        marker=line.marker or ("." if len(steps) == 1 else ""),
        markersize=4 if len(steps) < 50 else 0,
        alpha=0.4 if line.is_faint else 1,
        label=_plain(line.label),
    )


def _scale_axes(axes: Any, chart: Chart) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

    thousands = FuncFormatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel("step", loc="right")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(thousands)
    if chart.scale == "log":
        axes.set_yscale("log")
        return
    if chart.scale == "log2":
        axes.set_yscale("log", base=2)
        axes.yaxis.set_major_locator(LogLocator(2, numticks=6))
        axes.yaxis.set_major_formatter(thousands)
        return
    axes.yaxis.set_major_locator(MaxNLocator(5))
    if max(axes.get_ylim()) >= 1000:
        axes.yaxis.set_major_formatter(thousands)
    if chart.scale == "from_0":
        axes.set_ylim(bottom=0)


def _draw(
    plot: Callable[[Any], None], title: str, name: str, text: str, height: float = 2.9
) -> Optional[Drawing]:
    """Draw on new axes.

    Args:
        plot: called with the axes.
        title: of the PNG.
        name: makes ids unique on the page.
        text: the alternative text.
        height: in inches; the width is 4.6.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        return None
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # Pictures lack the letters of some languages; the page has them.
        warnings.simplefilter("ignore")
        # Without pyplot: no global state, no display.
        figure = Figure(figsize=(4.6, height), constrained_layout=True)
        axes = figure.add_subplot()
        plot(axes)
        svg = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(svg, format="svg", transparent=True, metadata=nothing)
        axes.set_title(title, loc="left", fontsize=11)
        if len(axes.get_legend_handles_labels()[0]) > 1:
            axes.legend(fontsize=9)
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=200, facecolor="white")
    return Drawing(_for_page(svg.getvalue(), name, text), png.getvalue())


def _for_page(svg: str, name: str, text: str) -> str:
    """Return matplotlib's SVG as an element: ids of its own, the page's colours."""
    view = re.search(r'viewBox="[-0-9. ]+"', svg)
    assert view is not None, "matplotlib's SVG has no viewBox"
    body = svg[svg.index(">", view.end()) + 1 : svg.rindex("</svg>")]
    body = re.sub(r"<style.*?</style>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{name}-", body)
    for colour, value in LIGHT.items():
        body = body.replace(value, f"var(--{colour})")
    start = element("svg", role="img", aria_label=text)[: -len("></svg>")]
    return f"{start} {view.group()}>{body}</svg>"
