"""The scalars of a training step that hooks read."""

from typing import NamedTuple

from alexnet_estimator.engine.graph_mode import tf


class StepTensors(NamedTuple):
    """Scalar tensors of the training graph.

    Attributes:
        step: Global step after the update, int64.
        loss: Mean cross-entropy of this rank's batch, float32.
        accuracy: Accuracy on this rank's batch, float32.
        learning_rate: Learning rate of the step, float32.
        gradient_norm: Global norm of the averaged gradients, before clipping and weight
            decay, float32.
        loss_scale: Loss scale, 1 without loss scaling, float32.
        num_skipped: Number of steps skipped so far because of overflow, int64.
    """

    step: tf.Tensor
    loss: tf.Tensor
    accuracy: tf.Tensor
    learning_rate: tf.Tensor
    gradient_norm: tf.Tensor
    loss_scale: tf.Tensor
    num_skipped: tf.Tensor
