"""Hooks that NPUEstimator adds."""

from typing import Any

import tensorflow as tf
from npu_bridge import device
from npu_bridge.facts import released
from npu_bridge.hccl import hccl_ops


class NPUBroadcastGlobalVariablesHook(tf.train.SessionRunHook):
    """Sends the trainable variables of one rank, and no others, to all ranks."""

    @released("npu_bridge.estimator.npu.npu_hook.NPUBroadcastGlobalVariablesHook")
    def __init__(self, root_rank: int, index: Any):
        self._root_rank = root_rank

    def begin(self) -> None:
        """Add the operators."""
        self._broadcast = tf.group(
            *(
                tf.assign(variable, hccl_ops.broadcast([variable], self._root_rank)[0])
                for variable in tf.trainable_variables()
            )
        )

    def after_create_session(self, session: tf.Session, coord: Any) -> None:
        """Send or receive the variables."""
        session.run(self._broadcast)


class NPUCheckpointSaverHook(tf.train.CheckpointSaverHook):
    """TensorFlow's own hook, under the name of the vendor's."""

    @released("npu_bridge.estimator.npu.npu_hook.NPUCheckpointSaverHook")
    def __init__(self, **arguments: Any):
        super().__init__(**arguments)


class SetIterationsVarHook(tf.train.SessionRunHook):
    """Makes each ``session.run`` take N steps, of which other hooks see the last."""

    @released("npu_bridge.estimator.npu.npu_hook.SetIterationsVarHook")
    def __init__(self, iterations_per_loop: int):
        self._num_steps = iterations_per_loop

    def begin(self) -> None:
        """Find the operator that is looped."""
        self._step = tf.get_default_graph().get_operation_by_name("IterationOp")

    def before_run(self, run_context: Any) -> None:
        """Take all steps of the loop except the last one."""
        if run_context.original_args.feed_dict:
            raise device.Refused("feed_dict with iterations_per_loop > 1")
        device.is_looping = True
        for _ in range(self._num_steps - 1):
            run_context.session.run(self._step)
        device.is_looping = False
