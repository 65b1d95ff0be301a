"""Numbers from a confusion matrix, int64 ``[num_classes, num_classes]``, true rows."""

import math
from typing import List, NamedTuple, Tuple

import numpy as np


class ClassScore(NamedTuple):
    """How one class is recognised; NaN where there is nothing to divide by.

    Attributes:
        label: from 0.
        num_images: that are of this class.
        num_answers: that name this class.
        precision: the share of the answers that are right.
        recall: the share of the images that are recognised.
    """

    label: int
    num_images: int
    num_answers: int
    precision: float
    recall: float


class Confusion(NamedTuple):
    """How often images of one class are taken for another."""

    label: int
    answer: int
    num_images: int


def majority(matrix: np.ndarray) -> Tuple[int, float]:
    """Return the most frequent class and the accuracy of always answering it."""
    num_images = matrix.sum(axis=1)
    label = int(num_images.argmax())
    return label, float(num_images[label] / max(1, num_images.sum()))


def wilson_interval(share: float, num_images: int) -> Tuple[float, float]:
    """Return the 95 % confidence interval of a share (Wilson 1927)."""
    z_squared = 1.96**2
    centre = share + z_squared / (2 * num_images)
    variance = share * (1 - share) / num_images + z_squared / (4 * num_images**2)
    half = math.sqrt(z_squared * variance)
    scale = 1 + z_squared / num_images
    return (centre - half) / scale, (centre + half) / scale


def class_scores(matrix: np.ndarray) -> List[ClassScore]:
    """Return precision and recall of every class, by label."""
    rows = zip(np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0))
    return [
        ClassScore(
            label,
            int(num_images),
            int(num_answers),
            precision=num_right / num_answers if num_answers else math.nan,
            recall=num_right / num_images if num_images else math.nan,
        )
        for label, (num_right, num_images, num_answers) in enumerate(rows)
    ]


def confused_pairs(matrix: np.ndarray, limit: int) -> List[Confusion]:
    """Return the most frequent confusions, the most frequent first."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:limit]
    labels, answers = np.unravel_index(order, wrong.shape)
    return [
        Confusion(int(label), int(answer), int(wrong[label, answer]))
        for label, answer in zip(labels, answers)
        if wrong[label, answer] > 0
    ]
