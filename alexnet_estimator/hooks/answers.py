"""The hook that counts the predicted classes of an evaluation."""

from typing import Any, List, NamedTuple, Tuple

import numpy as np

from alexnet_estimator.engine.graph_mode import tf

# Graph collection in which ``model_fn`` puts two tensors: int32 [batch, 2 + n], which
# are the label, 1 or 0 for padding, and the n most probable classes of each image; and
# the probabilities of these classes, float32 [batch, n].
ANSWERS = "answers"
NUM_ANSWERS = 3  # Largest n.
NUM_SHOWN = 12  # Number of mistakes, and of right answers, that are kept.


class Answer(NamedTuple):
    """The prediction for an image.

    Attributes:
        position: Number of the image in the order in which this rank reads its shard.
        label: True class.
        classes: Most probable classes, in descending order of probability.
        probabilities: Probabilities of these classes.
    """

    position: int
    label: int
    classes: Tuple[int, ...]
    probabilities: Tuple[float, ...]


class AnswersHook(tf.train.SessionRunHook):
    """Counts the pairs of true and predicted class over the images of this rank.

    The counts are kept in Python.  A confusion matrix in the graph would have
    [num_classes, num_classes] elements, and Estimator would write it to its events.

    Attributes:
        num_images: Number of images of this rank.
        num_mistakes: Number of wrong answers among them.
        mistakes: Most confident mistakes, in descending order of confidence.
        right: First right answers.
    """

    def begin(self) -> None:
        """Find the tensors in the graph."""
        self._fetches = tf.get_collection(ANSWERS)
        self._codes: List[np.ndarray] = []
        self.num_images = self.num_mistakes = 0
        self.mistakes: List[Answer] = []
        self.right: List[Answer] = []

    def before_run(self, run_context: Any) -> tf.train.SessionRunArgs:
        """Request the answers of a batch."""
        return tf.train.SessionRunArgs(self._fetches)

    def after_run(self, run_context: Any, run_values: Any) -> None:
        """Store the answers of a batch, 8 bytes for each image."""
        rows, probabilities = run_values.results
        is_image = rows[:, 1] > 0
        rows, probabilities = rows[is_image].astype(np.int64), probabilities[is_image]
        labels, answers = rows[:, 0], rows[:, 2]
        # Both classes are packed into one number, which NumPy sorts faster than pairs.
        self._codes.append(labels << 32 | answers)

        def answer(index: int) -> Answer:
            classes, shares = rows[index, 2:].tolist(), probabilities[index].tolist()
            position = self.num_images + int(index)
            return Answer(position, int(labels[index]), tuple(classes), tuple(shares))

        wrong = np.flatnonzero(labels != answers)
        worst = np.argsort(-probabilities[wrong, 0], kind="stable")[:NUM_SHOWN]
        self.mistakes += map(answer, wrong[worst])
        self.mistakes.sort(key=lambda mistake: -mistake.probabilities[0])
        del self.mistakes[NUM_SHOWN:]
        num_lacking = NUM_SHOWN - len(self.right)
        self.right += map(answer, np.flatnonzero(labels == answers)[:num_lacking])
        self.num_images += len(rows)
        self.num_mistakes += len(wrong)

    @property
    def rows(self) -> np.ndarray:
        """Return true class, predicted class and number of images, int64 [n, 3]."""
        # All codes are [num_images]; the different ones are [n].
        codes, counts = np.unique(np.concatenate(self._codes), return_counts=True)
        return np.stack([codes >> 32, codes & (1 << 32) - 1, counts], axis=1)
