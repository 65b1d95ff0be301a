"""Tells the launcher after every step that this rank is alive."""

import json
import os
import time
from typing import Any

import tensorflow.compat.v1 as tf

MIN_INTERVAL_SECS = 1.0


class Heartbeat:
    """A small JSON file that says when this rank last advanced, and at what.

    The file holds ``phase`` (``start``, ``train``, ``evaluate``), ``count`` (of beats:
    what must grow) and ``time_secs`` (since 1970).  Without a path nothing is written.
    """

    def __init__(self, path: str):
        """Write the first beat.

        Args:
            path: of the file; empty: nobody listens.
        """
        self._path, self._count, self._last_secs = path, 0, float("-inf")
        self.beat("start")

    def beat(self, phase: str) -> None:
        """Note progress; the file is written once a second at most."""
        self._count += 1
        now = time.monotonic()
        if not self._path or now - self._last_secs < MIN_INTERVAL_SECS:
            return
        self._last_secs = now
        record = {"phase": phase, "count": self._count, "time_secs": time.time()}
        temporary = self._path + ".tmp"
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(record, file)
        os.replace(temporary, self._path)


class HeartbeatHook(tf.train.SessionRunHook):
    """Beats after every call of ``session.run``."""

    def __init__(self, heartbeat: Heartbeat, phase: str):
        """Beat for a session.

        Args:
            heartbeat: of this process.
            phase: ``train`` or ``evaluate``.
        """
        self._heartbeat, self._phase = heartbeat, phase

    def after_run(self, run_context: Any, run_values: Any) -> None:
        """Note a step."""
        self._heartbeat.beat(self._phase)
