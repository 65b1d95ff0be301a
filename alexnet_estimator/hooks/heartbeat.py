"""Tells the launcher after every step that this rank is alive."""

import json
import os
import time
from typing import Any, Optional

from alexnet_estimator.engine.graph_mode import tf

NUM_BYTES = 100


class Heartbeat:
    """A small JSON record that says when this rank last advanced, and at what.

    It holds ``phase`` (``start``, ``train``, ``evaluate``), ``count`` (of beats: what
    must grow) and ``time_secs`` (since 1970).  It is written in place into a file that
    the launcher has opened, which costs microseconds, so that no beat has to be left
    out: the counts tell which rank stopped first.
    """

    def __init__(self, descriptor: Optional[int]):
        """Write the first beat.

        Args:
            descriptor: Open file of the launcher's; None: nobody listens.
        """
        self._descriptor = descriptor
        self._count = 0
        self.beat("start")

    def beat(self, phase: str) -> None:
        """Note progress."""
        self._count += 1
        if self._descriptor is None:
            return
        record = {"phase": phase, "count": self._count, "time_secs": time.time()}
        text = json.dumps(record).ljust(NUM_BYTES)
        os.pwrite(self._descriptor, text.encode(), 0)


class HeartbeatHook(tf.train.SessionRunHook):
    """Beats after every call of ``session.run``."""

    def __init__(self, heartbeat: Heartbeat, phase: str):
        """Beat for a session.

        Args:
            heartbeat: of this process.
            phase: ``train`` or ``evaluate``.
        """
        self._heartbeat, self._phase = heartbeat, phase

    def begin(self) -> None:
        """Note that a session starts: compiling its graph may take long."""
        self._heartbeat.beat("start")

    def after_run(self, run_context: Any, run_values: Any) -> None:
        """Note a step."""
        self._heartbeat.beat(self._phase)
