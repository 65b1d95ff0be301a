"""Fixed and dynamic loss scales."""

from typing import Any

import tensorflow as tf
from npu_bridge import device
from npu_bridge.facts import released

MODULE = "npu_bridge.estimator.npu.npu_loss_scale_manager."


class FixedLossScaleManager:
    """A manager whose scale never changes."""

    @released(MODULE + "FixedLossScaleManager")
    def __init__(self, loss_scale: float, **_: Any):
        if loss_scale < 1:
            raise ValueError("loss scale must be at least 1.")
        self._loss_scale = tf.constant(loss_scale, tf.float32)

    def get_loss_scale(self) -> tf.Tensor:
        """Return the scale."""
        return self._loss_scale

    def update_loss_scale(self, finite_grads: tf.Tensor) -> tf.Operation:
        """Do nothing."""
        return tf.no_op()


class ExponentialUpdateLossScaleManager:
    """A scale that grows after some finite steps and falls after some overflows."""

    @released(MODULE + "ExponentialUpdateLossScaleManager")
    def __init__(self, **rule: Any):
        if tf.get_default_graph()._control_dependencies_for_inputs([]):
            raise device.Refused(
                "Placeholder not support: made in control_dependencies"
            )
        self._rule = rule
        self._loss_scale = _variable("loss_scale", float(rule["init_loss_scale"]))
        self._num_good_steps = _variable("good_steps", 0)
        self._num_bad_steps = _variable("bad_steps", 0)

    def get_loss_scale(self) -> tf.Variable:
        """Return the scale's variable."""
        return self._loss_scale

    def update_loss_scale(self, finite_grads: tf.Tensor) -> tf.Operation:
        """Count the step, and change the scale if it is due."""
        return tf.cond(finite_grads, self._after_good_step, self._after_bad_step)

    def _after_good_step(self) -> tf.Operation:
        scale = self._loss_scale * self._rule["incr_ratio"]
        return tf.cond(
            self._num_good_steps + 1 >= self._rule["incr_every_n_steps"],
            lambda: self._set(scale, 0, 0),
            lambda: tf.assign_add(self._num_good_steps, 1).op,
        )

    def _after_bad_step(self) -> tf.Operation:
        scale = tf.maximum(1.0, self._loss_scale * self._rule["decr_ratio"])
        num_bad_steps = self._num_bad_steps + 1
        return tf.cond(
            num_bad_steps >= self._rule["decr_every_n_nan_or_inf"],
            lambda: self._set(scale, 0, 0),
            lambda: self._set(tf.identity(self._loss_scale), 0, num_bad_steps),
        )

    def _set(self, scale: tf.Tensor, good_steps: Any, bad_steps: Any) -> tf.Operation:
        return tf.group(
            tf.assign(self._loss_scale, scale),
            tf.assign(self._num_good_steps, good_steps),
            tf.assign(self._num_bad_steps, bad_steps),
        )


def _variable(name: str, value: Any) -> tf.Variable:
    return tf.Variable(value, name=name, trainable=False)
