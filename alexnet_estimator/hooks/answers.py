"""The hook that counts the predicted classes of an evaluation."""

from typing import Any, List

import numpy as np

from alexnet_estimator.engine.graph_mode import tf

# The graph collection in which ``model_fn`` puts the tensor, int32 [3, batch].
COLLECTION = "answers"


class AnswersHook(tf.train.SessionRunHook):
    """Counts the pairs of true and predicted class over the images of this rank.

    The counts are kept in Python.  A confusion matrix in the graph would have
    [num_classes, num_classes] elements, and Estimator would write it to its events.
    """

    def begin(self) -> None:
        """Find the tensor in the graph."""
        (self._answers,) = tf.get_collection(COLLECTION)
        self._codes: List[np.ndarray] = []

    def before_run(self, run_context: Any) -> tf.train.SessionRunArgs:
        """Request the answers of a batch."""
        return tf.train.SessionRunArgs(self._answers)

    def after_run(self, run_context: Any, run_values: Any) -> None:
        """Store the answers of a batch, 8 bytes for each image."""
        # [3, batch] -> three arrays of [batch]
        labels, answers, weights = run_values.results.astype(np.int64)
        # Both classes are packed into one number, which NumPy sorts faster than pairs.
        self._codes.append((labels << 32 | answers)[weights > 0])

    @property
    def rows(self) -> np.ndarray:
        """Return true class, predicted class and number of images, int64 [n, 3]."""
        # All codes are [num_images]; the different ones are [n].
        codes, counts = np.unique(np.concatenate(self._codes), return_counts=True)
        return np.stack([codes >> 32, codes & (1 << 32) - 1, counts], axis=1)
