"""How well each class is recognised, from counted answers."""

import math
from typing import NamedTuple, Sequence, Tuple

import numpy as np


class Answers(NamedTuple):
    """Counted answers to the images of an evaluation.

    Attributes:
        class_names: Names of the classes, in the order of the labels.
        num_images: Number of images of each class, int64 ``[num_classes]``.
        num_answers: Number of answers that name each class, int64 ``[num_classes]``.
        num_right: Number of right answers of each class, int64 ``[num_classes]``.
        confusions: Wrong answers, int64 ``[n, 3]``.  A row holds the true class, the
            class of the answer and the number of images, the largest number first.
        step: Global step of the evaluation.
    """

    class_names: Tuple[str, ...]
    num_images: np.ndarray
    num_answers: np.ndarray
    num_right: np.ndarray
    confusions: np.ndarray
    step: int = 0

    @property
    def recalls(self) -> np.ndarray:
        """Return the share of each class that is recognised; NaN without images."""
        return _divide(self.num_right, self.num_images)

    @property
    def precisions(self) -> np.ndarray:
        """Return the share of answers of each class that are right; NaN without any."""
        return _divide(self.num_right, self.num_answers)

    @property
    def f1_scores(self) -> np.ndarray:
        """Return the harmonic mean of precision and recall of each class."""
        return _divide(2 * self.num_right, self.num_images + self.num_answers)

    @property
    def balanced_accuracy(self) -> float:
        """Return the mean recall of all classes that have images."""
        return float(np.mean(self.recalls[self.num_images > 0]))

    @property
    def majority(self) -> Tuple[int, float]:
        """Return the most frequent class and the accuracy of always answering it."""
        label = int(self.num_images.argmax())
        return label, float(self.num_images[label] / max(1, self.num_images.sum()))

    @property
    def by_recall(self) -> np.ndarray:
        """Return the labels, lowest recall first, int64 ``[num_classes]``."""
        # NumPy sorts NaN last: classes without images say nothing.
        return np.lexsort([-self.num_images, self.recalls])

    @property
    def cells(self) -> np.ndarray:
        """Return true class, answer and number of images, int64 ``[3, n]``."""
        labels = np.arange(len(self.num_right))
        right = np.stack([labels, labels, self.num_right], axis=1)
        return np.concatenate([right, self.confusions]).T

    @property
    def matrix(self) -> np.ndarray:
        """Return the confusion matrix; only small ones are worth their memory."""
        matrix = np.zeros([len(self.num_images)] * 2, np.int64)
        labels, answers, counts = self.cells
        matrix[labels, answers] = counts
        return matrix

    def shares(self, max_side: int) -> np.ndarray:
        """Return the confusion matrix as shares of the true class.

        Where there are more than ``max_side`` classes, each cell stands for a square of
        neighbouring cells and holds the largest of them, so that rare confusions show.

        Returns:
            float64 ``[side, side]``, rows are true classes.
        """
        labels, answers, counts = self.cells
        factor = -(-len(self.num_images) // max_side)
        shares = np.zeros([-(-len(self.num_images) // factor)] * 2)
        place = (labels // factor, answers // factor)
        np.maximum.at(shares, place, counts / np.maximum(self.num_images[labels], 1))
        return shares


def count_matrix(
    matrix: np.ndarray, class_names: Sequence[str], step: int = 0
) -> Answers:
    """Return what a confusion matrix holds.

    Args:
        matrix: Number of images, int64 ``[num_classes, num_classes]``.  Rows are true
            classes, columns are answers.
        class_names: Names of the classes, in the order of the labels.
        step: Global step of the evaluation.
    """
    labels, answers = np.nonzero(matrix * (1 - np.eye(len(matrix), dtype=np.int64)))
    confusions = np.stack([labels, answers, matrix[labels, answers]], axis=1)
    return Answers(
        tuple(class_names),
        num_images=matrix.sum(axis=1),
        num_answers=matrix.sum(axis=0),
        num_right=np.diag(matrix),
        confusions=confusions[np.argsort(-confusions[:, 2], kind="stable")],
        step=step,
    )


def wilson_interval(share: float, num_images: int) -> Tuple[float, float]:
    """Return the 95 % confidence interval of a share (Wilson 1927)."""
    z_squared = 1.96**2
    centre = share + z_squared / (2 * num_images)
    variance = share * (1 - share) / num_images + z_squared / (4 * num_images**2)
    half = math.sqrt(z_squared * variance)
    scale = 1 + z_squared / num_images
    return (centre - half) / scale, (centre + half) / scale


def _divide(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return quotients, float64; NaN where the divisor is 0."""
    return np.where(whole > 0, part / np.maximum(whole, 1), math.nan)
