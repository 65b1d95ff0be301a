"""The heartbeat of a rank, by which the launcher detects hangs."""

import json
import os
import time
from typing import Any, Optional

from alexnet_estimator.engine.graph_mode import tf

NUM_BYTES = 100


class Heartbeat:
    """A small JSON record of the last progress of this rank.

    The record has the fields ``phase`` (``start``, ``train``, ``evaluate`` or
    ``report``), ``count`` (number of heartbeats) and ``time_secs`` (of the machine's
    monotonic clock, which is the same for all ranks of a server).  Each heartbeat
    overwrites it in a file that the launcher has opened.  This takes microseconds, so
    that every step is recorded, and the counts tell which rank stopped first.
    """

    def __init__(self, descriptor: Optional[int]):
        """Write the first heartbeat.

        Args:
            descriptor: Descriptor of the launcher's open file; None to write nothing.
        """
        self._descriptor = descriptor
        self._count = 0
        self.beat("start")

    def beat(self, phase: str) -> None:
        """Record progress in a phase."""
        self._count += 1
        if self._descriptor is None:
            return
        record = {"phase": phase, "count": self._count, "time_secs": time.monotonic()}
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
        """Record that a session starts, which may take minutes to compile its graph."""
        self._heartbeat.beat("start")

    def after_run(self, run_context: Any, run_values: Any) -> None:
        """Record a step."""
        self._heartbeat.beat(self._phase)
