"""The hook that counts the answers of an evaluation, and keeps some of them."""

from typing import Any, List, NamedTuple, Tuple

import numpy as np

from alexnet_estimator.engine.graph_mode import tf

# Graph collection in which ``model_fn`` puts two tensors: int32 [batch, 3 + n], which
# are the label, 1 for an image and 0 for padding, the predicted class, and the n most
# probable classes; and the probabilities of these n classes, float32 [batch, n].
ANSWERS = "answers"
NUM_CLASSES_SHOWN = 3  # Largest n.
NUM_SHOWN = 12  # Number of mistakes, and of right answers, that are kept.


class Answer(NamedTuple):
    """The prediction for an image.

    Attributes:
        rank: Rank that has evaluated the image.
        position: Number of the image in the order in which the rank reads its shard.
        label: True class.
        classes: Most probable classes, in descending order of probability.
        probabilities: Probabilities of these classes.
    """

    rank: int
    position: int
    label: int
    classes: Tuple[int, ...]
    probabilities: Tuple[float, ...]

    @property
    def is_right(self) -> bool:
        """Return whether the most probable class is the true one."""
        return self.classes[0] == self.label

    def encode(self) -> List[float]:
        """Return all numbers of the answer in one list."""
        given = [self.rank, self.position, self.label]
        return [*given, *self.classes, *self.probabilities]


def decode(numbers: np.ndarray) -> Answer:
    """Return the answer of the numbers that ``Answer.encode`` returns."""
    rank, position, label = map(int, numbers[:3])
    classes, probabilities = np.split(numbers[3:], 2)
    return Answer(
        rank,
        position,
        label,
        tuple(map(int, classes)),
        tuple(map(float, probabilities)),
    )


def choose_shown(answers: List[Answer]) -> List[Answer]:
    """Return mistakes, the most confident first, followed by some right answers."""
    mistakes = [answer for answer in answers if not answer.is_right]
    mistakes.sort(key=lambda mistake: -mistake.probabilities[0])
    right = [answer for answer in answers if answer.is_right]
    return mistakes[:NUM_SHOWN] + right[:NUM_SHOWN]


class AnswersHook(tf.train.SessionRunHook):
    """Counts the pairs of true and predicted class over the images of this rank.

    The counts are kept in Python.  A confusion matrix in the graph would have
    [num_classes, num_classes] elements, and Estimator would write it to its events.

    Attributes:
        shown: Most confident mistakes and some right answers, see ``choose_shown``.
    """

    def __init__(self, rank: int):
        """Create the hook of a rank."""
        self._rank = rank

    def begin(self) -> None:
        """Find the tensors in the graph."""
        self._fetches = tf.get_collection(ANSWERS)
        self._codes: List[np.ndarray] = []
        self._num_images = 0
        self.shown: List[Answer] = []

    def before_run(self, run_context: Any) -> tf.train.SessionRunArgs:
        """Request the answers of a batch."""
        return tf.train.SessionRunArgs(self._fetches)

    def after_run(self, run_context: Any, run_values: Any) -> None:
        """Store both classes of each image in 8 bytes, and keep the answers to show."""
        rows, probabilities = run_values.results
        is_image = rows[:, 1] > 0
        rows, probabilities = rows[is_image].astype(np.int64), probabilities[is_image]
        # Both classes are packed into one number, which NumPy sorts faster than pairs.
        self._codes.append(rows[:, 0] << 32 | rows[:, 2])
        # Only the candidates of ``choose_shown`` become Python objects: there may be
        # millions of images.
        is_right = rows[:, 3] == rows[:, 0]
        wrong = np.flatnonzero(~is_right)
        worst = wrong[np.argsort(-probabilities[wrong, 0], kind="stable")[:NUM_SHOWN]]
        candidates = [*worst.tolist(), *np.flatnonzero(is_right)[:NUM_SHOWN].tolist()]
        answers = [
            Answer(
                self._rank,
                self._num_images + index,
                int(rows[index, 0]),
                tuple(rows[index, 3:].tolist()),
                tuple(probabilities[index].tolist()),
            )
            for index in candidates
        ]
        self.shown = choose_shown(self.shown + answers)
        self._num_images += len(rows)

    @property
    def rows(self) -> np.ndarray:
        """Return true class, predicted class and number of images, int64 [n, 3]."""
        # All codes are [num_images]; the different ones are [n].
        codes, counts = np.unique(np.concatenate(self._codes), return_counts=True)
        return np.stack([codes >> 32, codes & (1 << 32) - 1, counts], axis=1)
