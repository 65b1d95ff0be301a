"""The hook that counts the predicted classes of an evaluation."""

from typing import Any, List, NamedTuple

import numpy as np

from alexnet_estimator.engine.graph_mode import tf

# Graph collections in which ``model_fn`` puts tensors: [labels, answers, weights] of a
# batch, int32 [3, batch]; and [confidences, indices, images] of its mistakes.
ANSWERS, MISTAKES = "answers", "mistakes"
NUM_MISTAKES = 12


class Mistake(NamedTuple):
    """An image with a wrong prediction.

    Attributes:
        confidence: Probability of the predicted class.
        label: True class.
        answer: Predicted class.
        image: uint8 [size, size, 3], RGB.
    """

    confidence: float
    label: int
    answer: int
    image: np.ndarray


class AnswersHook(tf.train.SessionRunHook):
    """Counts the pairs of true and predicted class over the images of this rank.

    The counts are kept in Python.  A confusion matrix in the graph would have
    [num_classes, num_classes] elements, and Estimator would write it to its events.

    Attributes:
        mistakes: Most confident mistakes, in descending order of confidence.
    """

    def begin(self) -> None:
        """Find the tensors in the graph."""
        (answers,) = tf.get_collection(ANSWERS)
        self._fetches = (answers, tf.get_collection(MISTAKES))
        self._codes: List[np.ndarray] = []
        self.mistakes: List[Mistake] = []

    def before_run(self, run_context: Any) -> tf.train.SessionRunArgs:
        """Request the answers of a batch."""
        return tf.train.SessionRunArgs(self._fetches)

    def after_run(self, run_context: Any, run_values: Any) -> None:
        """Store the answers of a batch, 8 bytes for each image."""
        rows, mistakes = run_values.results
        # [3, batch] -> three arrays of [batch]
        labels, answers, weights = rows.astype(np.int64)
        # Both classes are packed into one number, which NumPy sorts faster than pairs.
        self._codes.append((labels << 32 | answers)[weights > 0])
        self.mistakes += [
            Mistake(float(confidence), labels[index], answers[index], image)
            for confidence, index, image in zip(*mistakes)
            if confidence > 0
        ]
        self.mistakes.sort(key=lambda mistake: -mistake.confidence)
        del self.mistakes[NUM_MISTAKES:]

    @property
    def rows(self) -> np.ndarray:
        """Return true class, predicted class and number of images, int64 [n, 3]."""
        # All codes are [num_images]; the different ones are [n].
        codes, counts = np.unique(np.concatenate(self._codes), return_counts=True)
        return np.stack([codes >> 32, codes & (1 << 32) - 1, counts], axis=1)
