"""Signs of life of a rank, which the launcher watches."""

import json
import os
import time
from typing import Any, Optional

from alexnet_estimator.engine.graph_mode import tf

NUM_BYTES = 100


class Heartbeat:
    """A small JSON record that says when this rank last made progress, and in what.

    The record holds ``phase`` (``start``, ``train``, ``evaluate``), ``count`` (the
    number of beats, which must grow) and ``time_secs`` (since 1970).  It is overwritten
    in place in a file that the launcher has opened, which takes microseconds, so that
    every step can be noted: the counts tell which rank stopped first.
    """

    def __init__(self, descriptor: Optional[int]):
        """Write the first beat.

        Args:
            descriptor: Descriptor of the launcher's open file; None: nothing is
                written.
        """
        self._descriptor = descriptor
        self._count = 0
        self.beat("start")

    def beat(self, phase: str) -> None:
        """Note progress in a phase."""
        self._count += 1
        if self._descriptor is None:
            return
        record = {"phase": phase, "count": self._count, "time_secs": time.time()}
        text = json.dumps(record).ljust(NUM_BYTES)
        os.pwrite(self._descriptor, text.encode(), 0)


class HeartbeatHook(tf.train.SessionRunHook):
    """Writes a heartbeat after every call of ``session.run``."""

    def __init__(self, heartbeat: Heartbeat, phase: str):
        """Watch a session.

        Args:
            heartbeat: Heartbeat of this process.
            phase: ``train`` or ``evaluate``.
        """
        self._heartbeat, self._phase = heartbeat, phase

    def begin(self) -> None:
        """Note that a session starts; compiling its graph may take minutes."""
        self._heartbeat.beat("start")

    def after_run(self, run_context: Any, run_values: Any) -> None:
        """Note a step."""
        self._heartbeat.beat(self._phase)
