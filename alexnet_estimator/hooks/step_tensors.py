"""The scalars of a training step that hooks look at."""

from typing import NamedTuple

from alexnet_estimator.engine.graph_mode import tf


class StepTensors(NamedTuple):
    """Scalar tensors of the training graph.

    Attributes:
        step: int64, the global step.
        loss: float32, mean cross-entropy of this rank's batch.
        learning_rate: float32.
        gradient_norm: float32, over all weights, averaged over ranks, before clipping
            and weight decay.
        loss_scale: float32, 1 without loss scaling.
        num_skipped: int64, steps skipped for overflow so far.
    """

    step: tf.Tensor
    loss: tf.Tensor
    learning_rate: tf.Tensor
    gradient_norm: tf.Tensor
    loss_scale: tf.Tensor
    num_skipped: tf.Tensor
