"""Session hook that injects faults."""

from typing import Any, Sequence

import tensorflow.compat.v1 as tf

from tests.faults.fault import Fault


class FaultHook(tf.train.SessionRunHook):
    """Hook that lets the faults happen at their steps.

    Args:
        faults: Faults of this process.
        phase: ``train`` or ``evaluate``.
    """

    def __init__(self, faults: Sequence[Fault], phase: str):
        self._faults, self._phase = faults, phase

    def begin(self) -> None:
        self._step = tf.train.get_or_create_global_step()

    def after_create_session(self, session: tf.Session, coord: Any) -> None:
        self._strike(session)

    def after_run(self, run_context: Any, run_values: Any) -> None:
        self._strike(run_context.session)

    def _strike(self, session: tf.Session) -> None:
        step = int(session.run(self._step))
        for fault in self._faults:
            fault.strike(self._phase, step)
