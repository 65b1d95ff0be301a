"""Charts as SVG for the page and as PNG, where matplotlib is installed."""

import io
import re
import warnings
from typing import Any, Callable, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from alexnet_estimator.report.charts import Chart, Line, describe, is_long, summarise
from alexnet_estimator.report.markup import element
from alexnet_estimator.report.style import LIGHT

# A confusion matrix of more classes is drawn without names and numbers.
MAX_NAMED_CLASSES = 20
# Rows of a confusion matrix that can be told apart in a picture.
MAX_CELLS = 200
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


class Drawing(NamedTuple):
    """A drawn chart.

    Attributes:
        svg: an element for the page, in its colours, without a key.
        png: the same with title and key, on white.
    """

    svg: str
    png: bytes


def draw_chart(chart: Chart) -> Optional[Drawing]:
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
    side = 4.6 + 0.25 * num_classes * (num_classes <= MAX_NAMED_CLASSES)
    return _draw(plot, "Confusion matrix", name, description, (side, side))


def _pool(shares: np.ndarray) -> np.ndarray:
    """Take the largest of neighbours where single cells would be too small to see."""
    factor = -(-len(shares) // MAX_CELLS)
    missing = -len(shares) % factor
    padded = np.pad(shares, (0, missing), mode="constant")
    side = len(padded) // factor
    return padded.reshape(side, factor, side, factor).max(axis=(1, 3))


def _name_classes(axes: Any, matrix: np.ndarray, class_names: Sequence[str]) -> None:
    labels = range(len(class_names))
    names = [
        _plain(name if len(name) <= 16 else name[:15] + "…") for name in class_names
    ]
    axes.set_xticks(labels)
    axes.set_xticklabels(names, rotation=90 if len(names) > 3 else 0)
    axes.set_yticks(labels)
    axes.set_yticklabels(names)
    for row in labels:
        for column in labels:
            count = f"{matrix[row][column]}"
            axes.text(column, row, count, ha="center", va="center", size=9)


def _plain(text: str) -> str:
    """Return text in which matplotlib finds no formula and nothing unprintable."""
    printable = "".join(letter if letter.isprintable() else "?" for letter in text)
    return printable.replace("$", r"\$")


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
    plot: Callable[[Any], None],
    title: str,
    name: str,
    description: str,
    size: Tuple[float, float] = (4.6, 2.9),
) -> Optional[Drawing]:
    """Draw on new axes.

    Args:
        plot: called with the axes.
        title: of the PNG.
        name: makes ids unique on the page.
        description: the alternative text.
        size: width and height in inches.
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
        figure = Figure(figsize=size, constrained_layout=True)
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
    return Drawing(_for_page(svg.getvalue(), name, description), png.getvalue())


def _for_page(svg: str, name: str, description: str) -> str:
    """Return matplotlib's SVG as an element: ids of its own, the page's colours."""
    view = re.search(r'viewBox="[-0-9. ]+"', svg)
    assert view is not None, "matplotlib's SVG has no viewBox"
    body = svg[svg.index(">", view.end()) + 1 : svg.rindex("</svg>")]
    body = re.sub(r"<style.*?</style>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{name}-", body)
    for colour, value in LIGHT.items():
        body = body.replace(value, f"var(--{colour})")
    start = element("svg", role="img", aria_label=description)[: -len("></svg>")]
    return f"{start} {view.group()}>{body}</svg>"
