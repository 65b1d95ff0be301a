"""What the model answers: by class, in pictures, and what its first layer looks for."""

import base64
import math
from typing import Any, List, Optional, Sequence

import numpy as np

from alexnet_estimator.report import scores, text
from alexnet_estimator.report.drawings import MAX_NAMED_CLASSES, Drawing
from alexnet_estimator.report.history import Confusion, History, Sample
from alexnet_estimator.report.markup import Markup, details, element, join, table

MAX_ROWS = 15
_NOT_WRITTEN = "None in this folder: they are written when the training ends."


def classes(confusion: Optional[Confusion], drawing: Optional[Drawing]) -> Markup:
    """Show the confusion matrix, precision and recall.

    Args:
        confusion: of the newest evaluation.
        drawing: of it; shown where there are too many classes for a table.
    """
    if confusion is None:
        return element("p", "No confusion matrix in the folder eval/.")
    matrix, names = confusion.matrix, confusion.class_names
    about = (
        f"Evaluated at step {confusion.step:,}. Recall is the share of a class that is "
        "recognised; precision is the share of the answers naming it that are right."
    )
    confusions = []
    if len(names) <= MAX_NAMED_CLASSES:
        confusions.append(_matrix(matrix, names))
    elif drawing:
        caption = "The stronger, the larger the share of the true class."
        figure = element("figure", Markup(drawing.svg), element("figcaption", caption))
        confusions.append(element("div", figure, class_="charts"))
    if len(names) > 2:
        confusions.append(_pairs(matrix, names))
    columns = [
        element("div", *confusions),
        element("div", _class_scores(matrix, names)),
    ]
    return join([element("p", about), element("div", *columns, class_="columns")])


def _matrix(matrix: np.ndarray, names: Sequence[str]) -> Markup:
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    rows = [
        (name, *(_heat(matrix[label, i], shares[label, i]) for i in range(len(names))))
        for label, name in enumerate(names)
    ]
    class_ = "matrix many" if len(names) > 6 else "matrix"
    return table("Confusion matrix", ("true class", *names), rows, class_)


def _heat(count: int, share: float) -> Markup:
    """Return a cell whose colour shows the share of its row."""
    mixed = f"color-mix(in srgb, var(--heat) {100 * share:.0f}%, var(--panel))"
    colour = "page" if share > 0.55 else "text" if count else "muted"
    style = f"background: {mixed}; color: var(--{colour})"
    return element("td", f"{count:,}", style=style)


def _class_scores(matrix: np.ndarray, names: Sequence[str]) -> Markup:
    header = ("class", "images", "recall", "precision")
    ranked = scores.class_scores(matrix)
    if len(ranked) <= MAX_NAMED_CLASSES:
        rows = [_class_score(score, names) for score in ranked]
        return table("Recall and precision", header, rows)
    # Classes without images say nothing and go last.
    ranked.sort(key=lambda s: (math.isnan(s.recall), s.recall, -s.num_images))
    rows = [_class_score(score, names) for score in ranked]
    lowest = table("The classes of lowest recall", header, rows[:MAX_ROWS])
    every = table("Recall and precision, lowest recall first", header, rows)
    return join([lowest, details(f"All {len(rows):,} classes", every)])


def _class_score(score: scores.ClassScore, names: Sequence[str]) -> Sequence[str]:
    return (
        names[score.label],
        f"{score.num_images:,}",
        text.percent(score.recall),
        text.percent(score.precision),
    )


def _pairs(matrix: np.ndarray, names: Sequence[str]) -> Markup:
    num_images = matrix.sum(axis=1)
    rows = [
        (
            f"{names[pair.label]} → {names[pair.answer]}",
            f"{pair.num_images:,}",
            text.percent(pair.num_images / num_images[pair.label]),
        )
        for pair in scores.confused_pairs(matrix, MAX_ROWS)
    ]
    header = ("class → answer", "images", "of the class")
    return table("Most frequent confusions", header, rows) if rows else Markup()


def samples(run: History) -> Markup:
    """Show the most confident mistakes and some right answers."""
    if not run.samples:
        return element("p", _NOT_WRITTEN)
    about = {
        name: f"{run.samples_about.get(name, 0):,}"
        for name in ("global_step", "num_images", "num_mistakes")
    }
    summary = (
        f"Of {about['num_images']} validation pictures looked at (step "
        f"{about['global_step']}), {about['num_mistakes']} are mistaken."
    )
    mistakes = [sample for sample in run.samples if not sample.is_right]
    right = [sample for sample in run.samples if sample.is_right]
    parts = [element("p", summary)]
    for title, listed in (("Most confident mistakes", mistakes), ("Right", right)):
        if listed:
            figures = [_sample(sample, run.class_names) for sample in listed]
            parts.append(element("h3", title))
            parts.append(element("div", *figures, class_="samples"))
    return join(parts)


def _sample(sample: Sample, names: Sequence[str]) -> Markup:
    truth = names[sample.label]
    answer, *others = [
        f"{names[label]} {text.percent(probability)}"
        for label, probability in sample.answers
        if probability >= 0.0005 or label == sample.answers[0][0]
    ]
    lines: List[Any] = [element("b", answer)]
    if not sample.is_right:
        lines.append(f"in truth {truth}")
    if others and len(names) > 2:
        lines.append(f"or {', '.join(others)}")
    if sample.file:
        lines.append(sample.file)
    picture = element(
        "img",
        src=f"data:image/jpeg;base64,{sample.jpeg}",
        alt=f"A picture of class {truth}; the answer is {answer}",
        loading="lazy",
    )
    caption = element("figcaption", *(element("div", line) for line in lines))
    return element("figure", picture, caption)


def kernels(run: History) -> Markup:
    """Show what the first layer looks for."""
    if not run.kernels:
        return element("p", _NOT_WRITTEN)
    picture = element(
        "img",
        src=f"data:image/png;base64,{base64.b64encode(run.kernels).decode()}",
        alt="The kernels of the first convolution as small coloured squares in a grid",
    )
    caption = (
        "Each kernel of conv1, stretched to the full range of colours. After long "
        "training they show edges, gratings and blobs of colour; at first, noise."
    )
    return element("figure", picture, element("figcaption", caption), class_="kernels")
