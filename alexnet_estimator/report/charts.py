"""Charts and confusion matrices, drawn with matplotlib if it is installed."""

import collections
import contextlib
import io
import itertools
import os
import warnings
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence, Tuple

import numpy as np

from alexnet_estimator.report.history import History
from alexnet_estimator.report.scores import Answers

# A chart is too narrow to show more points than this one by one.
MAX_POINTS = 300
# With more classes, a confusion matrix is drawn without names and numbers.
MAX_NAMED_CLASSES = 20
# A drawing is too small to show more rows of a confusion matrix than this.
MAX_CELLS = 200
# The palette of Okabe and Ito: blue, vermilion, green, purple, orange, sky blue.
# Readers with colour blindness can distinguish these colours.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b4588c", "#c98a00", "#3d9fd8")
GREY = "#7a8590"
_STYLE_FILE = os.path.join(os.path.dirname(__file__), "charts.mplstyle")


class Line(NamedTuple):
    """One curve in a chart.

    Attributes:
        label: Name in the legend.
        steps: Global steps, float64 ``[n]``.
        values: Finite values at these steps, float64 ``[n]``.
        colour: Hexadecimal RGB colour.
        dash: Matplotlib line style.
        marker: Matplotlib marker, or an empty string for no marker.
        is_faint: Whether the line is drawn behind the others and without a label.
    """

    label: str
    steps: np.ndarray
    values: np.ndarray
    colour: str
    dash: str = "-"
    marker: str = ""
    is_faint: bool = False

    @property
    def is_long(self) -> bool:
        """Return whether the line is drawn as mean values in a band of extremes."""
        return len(self.values) > MAX_POINTS


class Chart(NamedTuple):
    """One set of axes.

    Attributes:
        name: Name of the PNG file, without the suffix.
        title: Title, with the unit.
        lines: Lines.  There is at least one, and each has at least one value.
        scale: Scale of the vertical axis: ``from_0``, ``linear``, ``log`` or ``log2``.
        restarts: Steps at which the run was started again; empty if the chart compares
            several runs.
    """

    name: str
    title: str
    lines: List[Line]
    scale: str = "from_0"
    restarts: Tuple[int, ...] = ()


class Drawing(NamedTuple):
    """One drawing in two file formats.

    Attributes:
        svg: Content of an SVG file with a transparent background, for the page.
        png: Content of a PNG file with a white background, written beside the page.
    """

    svg: bytes
    png: bytes


def plan_charts(runs: Sequence[History]) -> List[Chart]:
    """Return the charts for which the runs have values."""
    is_alone = len(runs) == 1
    logged = (
        ("learning_rate", "Learning rate", "from_0"),
        ("loss_scale", "Loss scale", "log2"),
        ("images_per_sec", "Images/s", "from_0"),
        ("gradient_norm", "Gradient norm", "from_0"),
    )
    lines: Dict[str, List[Line]] = collections.defaultdict(list)
    # The 6 colours and 4 dashes give 12 different pairs before they repeat.
    styles = zip(itertools.cycle(COLOURS), itertools.cycle(("-", "--", "-.", ":")))
    for run, style in zip(runs, styles):
        label = "training" if is_alone else f"{run.name} (training)"
        losses = Line(label, *run.values("loss"), *style, is_faint=not is_alone)
        evaluated = ("validation", COLOURS[1], "-") if is_alone else (run.name, *style)
        lines["loss"] += [losses, _evaluated(run, "loss", *evaluated)]
        lines["accuracy"].append(_evaluated(run, "top_1_accuracy", *evaluated))
        for name, _, _ in logged:
            lines[name].append(Line(run.name, *run.values(name), *style))
    restarts: Tuple[int, ...] = ()
    if is_alone:
        (run,) = runs
        restarts = tuple(start.step for start in run.starts[1:])
        if len(run.class_names) > 5:
            top_5 = _evaluated(run, "top_5_accuracy", "top 5", COLOURS[2], "-")
            lines["accuracy"].append(top_5._replace(marker="s"))
        if run.answers and run.evaluations:
            ends = np.array([0.0, run.evaluations[-1].step])
            always = np.full(2, 100 * run.answers.majority[1])
            lines["accuracy"].append(Line("majority class", ends, always, GREY, "--"))
    charts = []
    titles = (("loss", "Loss", "from_0"), ("accuracy", "Accuracy, %", "linear"))
    for name, title, scale in (*titles, *logged):
        drawn = [line for line in lines[name] if len(line.values)]
        values = np.concatenate([line.values for line in drawn] or [[]])
        if name == "loss_scale" and not (values > 1).any() or not drawn:
            continue
        # On a linear scale, the peak would flatten the rest of the curve.
        is_steep = values.min() > 0 and values.max() / 100 > np.median(values)
        scale = "log" if is_steep and scale != "log2" else scale
        charts.append(Chart(name, title, drawn, scale, restarts))
    return charts


def _evaluated(run: History, name: str, label: str, colour: str, dash: str) -> Line:
    steps, values = run.scores(name)
    factor = 100 if name.endswith("accuracy") else 1
    return Line(label, steps, factor * values, colour, dash, marker="o")


def summarise_curve(
    steps: np.ndarray, values: np.ndarray
) -> Tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Summarise a curve in at most ``MAX_POINTS`` parts.

    Returns:
        A tuple of four float64 arrays of the shape [parts]: the mean step, and the
        mean, the lowest and the highest value of each part.
    """
    starts = np.linspace(0, len(values), min(MAX_POINTS, len(values)), False, dtype=int)
    sizes = np.diff([*starts, len(values)])
    centres, means = (np.add.reduceat(x, starts) / sizes for x in (steps, values))
    lows, highs = np.minimum.reduceat(values, starts), np.maximum.reduceat(
        values, starts
    )
    return centres, means, lows, highs


def can_draw() -> bool:
    """Return whether matplotlib is installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def draw_chart(chart: Chart) -> Drawing:
    """Draw a chart; if it has several lines, a legend is drawn below the axes."""
    named = [line for line in chart.lines if not line.is_faint]
    named = named if len(chart.lines) > 1 else []
    num_columns = 3 if all(len(line.label) <= 16 for line in named) else 1
    legend_inches = 0.22 * -(-len(named) // num_columns)
    with _new_axes(chart.title, 4.6, 2.75 + legend_inches) as axes:
        for line in sorted(chart.lines, key=lambda line: not line.is_faint):
            _plot_line(axes, line)
        for step in chart.restarts:
            axes.axvline(step, color=GREY, linestyle=":", linewidth=1)
        letters = _scale_axes(axes, chart)
        if named:
            handles, labels = axes.get_legend_handles_labels()
            axes.figure.legend(handles, labels, loc="lower left", ncol=num_columns)
        return _save(axes.figure, 0.25 + 0.085 * letters, 0.5 + legend_inches)


def draw_confusion(answers: Answers) -> Drawing:
    """Draw a confusion matrix.

    Up to ``MAX_NAMED_CLASSES`` classes, the names and the numbers are written as well.
    """
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm, to_rgb

    num_classes = len(answers.class_names)
    is_named = num_classes <= MAX_NAMED_CLASSES
    # The colour map begins with a transparent colour, so that the drawing suits light
    # and dark pages.  The square root of the shares (PowerNorm) shows rare errors.
    colour = to_rgb(COLOURS[5])
    colours = LinearSegmentedColormap.from_list("", [(*colour, 0), (*colour, 1)])
    sides = (-0.5, num_classes - 0.5, num_classes - 0.5, -0.5)
    style = {"norm": PowerNorm(0.5, 0, 1), "interpolation": "none"}
    side = 4.6 + 0.25 * num_classes * is_named
    with _new_axes("Confusion matrix", side, side) as axes:
        axes.imshow(answers.shares(MAX_CELLS), colours, extent=sides, **style)
        axes.grid(False)
        axes.set(xlabel="answer", ylabel="true class")
        if not is_named:
            return _save(axes.figure, 0.9, 0.6)
        names = [_plain(name, 16) for name in answers.class_names]
        axes.set(xticks=range(num_classes), yticks=range(num_classes))
        axes.set_xticklabels(names, rotation=90 if num_classes > 3 else 0)
        axes.set_yticklabels(names)
        for (row, column), count in np.ndenumerate(answers.matrix):
            axes.text(column, row, f"{count}", ha="center", va="center")
        margin = 0.45 + 0.09 * max(map(len, names))
        return _save(axes.figure, margin, margin if num_classes > 3 else 0.6)


def _plain(text: str, max_letters: int) -> str:
    """Return a text, shortened to ``max_letters``, that matplotlib draws as it is.

    A dollar sign would start a formula, and unprintable characters have no glyphs.
    """
    text = text if len(text) <= max_letters else text[: max_letters - 1] + "…"
    printable = "".join(letter if letter.isprintable() else "?" for letter in text)
    return printable.replace("$", r"\$")


def _plot_line(axes: Any, line: Line) -> None:
    steps, means, lows, highs = summarise_curve(line.steps, line.values)
    if line.is_long:
        axes.fill_between(steps, lows, highs, color=line.colour, alpha=0.2, linewidth=0)
    axes.plot(
        steps,
        means,
        color=line.colour,
        linestyle=line.dash,
        # A line through a single point is invisible without a marker.
        marker=line.marker or ("." if len(steps) == 1 else ""),
        markersize=4 if len(steps) < 50 else 0,
        alpha=0.4 if line.is_faint else 1,
        # matplotlib omits labels that begin with an underscore from the legend.
        label=None if line.is_faint else " " + _plain(line.label, 60),
    )


def _scale_axes(axes: Any, chart: Chart) -> int:
    """Set the scales and ticks; return the length of the longest vertical tick label.

    The length is a number of characters.
    """
    from matplotlib.ticker import LogLocator, MaxNLocator

    thousands = "{x:,.0f}"
    axes.set_xlabel("step", loc="right")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(thousands)
    if chart.scale == "log":
        axes.set_yscale("log")
        return 5
    if chart.scale == "log2":
        axes.set_yscale("log", base=2)
        axes.yaxis.set_major_locator(LogLocator(2, numticks=6))
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5))
    # From 1e9, matplotlib's own labels (powers of ten) are shorter.
    if chart.scale == "log2" or 1000 <= max(axes.get_ylim()) < 1e9:
        axes.yaxis.set_major_formatter(thousands)
    if chart.scale == "from_0":
        axes.set_ylim(bottom=0)
    ticks = axes.yaxis.get_major_formatter().format_ticks(axes.get_yticks())
    return max(map(len, ticks))


@contextlib.contextmanager
def _new_axes(title: str, width: float, height: float) -> Iterator[Any]:
    """Yield the axes of a new figure; ``width`` and ``height`` are in inches."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(fname=_STYLE_FILE), warnings.catch_warnings():
        # matplotlib warns of letters that its font lacks.  Only the PNG files lack
        # them: in the SVG they are text, which the browser draws.
        warnings.simplefilter("ignore")
        # pyplot would keep figures in global state and might need a display.
        axes = Figure(figsize=(width, height)).add_subplot()
        axes.set_title(title)
        yield axes


def _save(figure: Any, left: float, bottom: float) -> Drawing:
    """Render a figure as SVG and as PNG.

    The caller gives the margins, because measuring all texts in matplotlib
    (``tight_layout``) would double the time.

    Args:
        figure: Figure of the axes that ``_new_axes`` yields.
        left: Margin for the vertical tick labels, in inches.
        bottom: Margin for the horizontal tick labels and the legend, in inches.
    """
    width, height = figure.get_size_inches()
    figure.subplots_adjust(left / width, bottom / height, 0.97, 1 - 0.32 / height)
    svg, png = io.BytesIO(), io.BytesIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(svg, format="svg", transparent=True, metadata=nothing)
    figure.savefig(png, format="png", dpi=200, facecolor="white")
    # matplotlib 3.5 quotes the generic font family sans-serif.  Browsers look for a
    # font of that name and find none.
    scalable = svg.getvalue().replace(b"'sans-serif'", b"system-ui, sans-serif")
    return Drawing(scalable, png.getvalue())
