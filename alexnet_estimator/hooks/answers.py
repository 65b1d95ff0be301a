"""Answers to the images of an evaluation, taken from its batches."""

from typing import Any, List

import numpy as np

from alexnet_estimator.engine.graph_mode import tf

# Of the tensor that ``model_fn`` puts into an evaluation's graph.
COLLECTION = "answers"


class AnswersHook(tf.train.SessionRunHook):
    """Counts how the images of this rank are answered.

    The counts are kept outside of the graph: a confusion matrix in it would have the
    square of the number of classes, and Estimator would write it into its events.
    """

    def begin(self) -> None:
        """Find the tensor in the graph."""
        (self._answers,) = tf.get_collection(COLLECTION)
        self._codes: List[np.ndarray] = []

    def before_run(self, run_context: Any) -> tf.train.SessionRunArgs:
        """Ask for the answers of a batch."""
        return tf.train.SessionRunArgs(self._answers)

    def after_run(self, run_context: Any, run_values: Any) -> None:
        """Keep them: 8 bytes for an image."""
        labels, answers, weights = run_values.results.astype(np.int64)
        # One number for both classes, which NumPy sorts faster than pairs.
        self._codes.append((labels << 32 | answers)[weights > 0])

    @property
    def rows(self) -> np.ndarray:
        """Return true class, class of the answer and number of images, int64 [n, 3]."""
        codes, counts = np.unique(np.concatenate(self._codes), return_counts=True)
        return np.stack([codes >> 32, codes & (1 << 32) - 1, counts], axis=1)
