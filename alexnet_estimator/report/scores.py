"""Counts of right and wrong answers for each class, and their format in files."""

import math
from typing import Any, Dict, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np

# The size of a confusion matrix is the square of the number of classes, so matrices of
# more classes are not written.
MAX_MATRIX_CLASSES = 256
MAX_CONFUSIONS = 10_000


class Answers(NamedTuple):
    """Counted answers to the images of an evaluation.

    Attributes:
        class_names: Names of the classes, in the order of the labels.
        num_images: Number of images of each class, int64 ``[num_classes]``.
        num_answers: Number of times that each class was answered, int64
            ``[num_classes]``.
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
        """Return the recall of each class; NaN for a class without images."""
        return _divide(self.num_right, self.num_images)

    @property
    def precisions(self) -> np.ndarray:
        """Return the precision of each class; NaN for a class without answers."""
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
        """Return the labels sorted by recall, lowest first, int64 ``[num_classes]``."""
        # NumPy sorts NaN last, which is the recall of classes without images.
        return np.lexsort([-self.num_images, self.recalls])

    @property
    def cells(self) -> np.ndarray:
        """Return the rows true class, answer and number of images, int64 ``[3, n]``."""
        labels = np.arange(len(self.num_right))
        # [3, num_classes] and [3, n] -> [3, num_classes + n]
        return np.hstack([[labels, labels, self.num_right], self.confusions.T])

    @property
    def matrix(self) -> np.ndarray:
        """Return the confusion matrix, int64 ``[num_classes, num_classes]``.

        Its memory grows with the square of the number of classes.
        """
        matrix = np.zeros([len(self.num_images)] * 2, np.int64)
        labels, answers, counts = self.cells
        matrix[labels, answers] = counts
        return matrix

    def shares(self, max_side: int) -> np.ndarray:
        """Return the confusion matrix as shares of the images of the true class.

        If there are more than ``max_side`` classes, each cell stands for a square of
        neighbouring cells.  It holds the largest of their shares, so that rare
        confusions stay visible.

        Returns:
            float64 ``[side, side]``.  The rows are the true classes.
        """
        labels, answers, counts = self.cells
        factor = -(-len(self.num_images) // max_side)
        cells = np.zeros([-(-len(self.num_images) // factor)] * 2)
        shares = counts / np.maximum(self.num_images[labels], 1)
        np.maximum.at(cells, (labels // factor, answers // factor), shares)
        return cells


def count_answers(
    rows: np.ndarray, class_names: Sequence[str], step: int = 0
) -> Answers:
    """Add up counts of answers.

    Args:
        rows: True class, class of the answer and number of images, int64 ``[n, 3]``;
            a pair of classes may occur in several rows.
        class_names: Names of the classes, in the order of the labels.
        step: Global step of the evaluation.
    """
    num_classes = len(class_names)
    codes, places = np.unique(
        rows[:, 0] * num_classes + rows[:, 1], return_inverse=True
    )
    labels, answers = np.divmod(codes, num_classes)
    counts = np.zeros(len(codes), np.int64)
    np.add.at(counts, places, rows[:, 2])
    images, answered, right = np.zeros([3, num_classes], np.int64)
    np.add.at(images, labels, counts)
    np.add.at(answered, answers, counts)
    np.add.at(right, labels, counts * (labels == answers))
    wrong = np.column_stack([labels, answers, counts])
    wrong = wrong[(labels != answers) & (counts > 0)]
    wrong = wrong[np.argsort(-wrong[:, 2], kind="stable")]
    return Answers(tuple(class_names), images, answered, right, wrong, step)


def encode_answers(answers: Answers) -> Dict[str, Any]:
    """Return counted answers as JSON values; see ``decode_answers``.

    Up to ``MAX_MATRIX_CLASSES`` classes, the result has the whole confusion matrix.
    With more classes it has the exact counts of each class instead, and only the
    ``MAX_CONFUSIONS`` largest entries beside the diagonal as ``confusions``.
    """
    f1_scores = [None if math.isnan(f1) else round(f1, 6) for f1 in answers.f1_scores]
    values: Dict[str, Any] = {
        "balanced_accuracy": answers.balanced_accuracy,
        "f1_per_class": f1_scores,
        "class_names": list(answers.class_names),
    }
    if len(answers.class_names) <= MAX_MATRIX_CLASSES:
        return {"confusion_matrix": answers.matrix.tolist(), **values}
    return {
        "images_per_class": answers.num_images.tolist(),
        "answers_per_class": answers.num_answers.tolist(),
        "right_per_class": answers.num_right.tolist(),
        "confusions": answers.confusions[:MAX_CONFUSIONS].tolist(),
        **values,
    }


def decode_answers(values: Mapping[str, Any], step: int = 0) -> Optional[Answers]:
    """Return the counted answers of an evaluation, or None if they are damaged.

    Args:
        values: Content of ``eval/<step>.json``, which need not be trusted.
        step: Global step of the evaluation.
    """
    try:
        names = tuple(map(str, values["class_names"]))
        num_classes = len(names)
        if "confusion_matrix" in values:
            matrix = _read_counts(values["confusion_matrix"], num_classes, num_classes)
            places = np.nonzero(matrix)
            rows = np.column_stack([*places, matrix[places]])
            found = count_answers(rows, names, step)
        else:
            images, answered, right = (
                _read_counts(values[f"{counted}_per_class"], num_classes)
                for counted in ("images", "answers", "right")
            )
            wrong = _read_counts(values["confusions"], len(values["confusions"]), 3)
            found = Answers(names, images, answered, right, wrong, step)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    is_possible = found.num_right <= np.minimum(found.num_images, found.num_answers)
    labels, answers, _ = found.confusions.T
    is_known = (labels < num_classes) & (answers < num_classes) & (labels != answers)
    is_whole = is_possible.all() and is_known.all() and found.num_images.sum() > 0
    return found if is_whole else None


def _read_counts(value: Any, *shape: int) -> np.ndarray:
    """Return JSON values as an int64 array of the given shape.

    Raises:
        TypeError, ValueError, OverflowError: The values are not counts of this shape.
    """
    counts = np.array(value, np.float64)
    if counts.size and counts.shape != shape:
        raise ValueError(f"the shape is {counts.shape}")
    is_finite = np.isfinite(counts).all()
    if not is_finite or counts.min(initial=0) < 0 or counts.sum() >= 1 << 53:
        raise ValueError("these are not counts")
    return counts.astype(np.int64).reshape(shape)


def wilson_interval(share: float, num_images: int) -> Tuple[float, float]:
    """Return the 95 % confidence interval of a share (Wilson 1927)."""
    z_squared = 1.96**2
    centre = share + z_squared / (2 * num_images)
    variance = share * (1 - share) / num_images + z_squared / (4 * num_images**2)
    half = math.sqrt(z_squared * variance)
    scale = 1 + z_squared / num_images
    return (centre - half) / scale, (centre + half) / scale


def _divide(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return the quotients, float64; NaN where the divisor is 0."""
    return np.where(whole > 0, part / np.maximum(whole, 1), math.nan)
