"""The log of a run: JSON lines for programs, events for TensorBoard."""

import json
import math
import os
import socket
import struct
import textwrap
import time
from typing import Any, Dict, Optional

from alexnet_estimator import locks
from alexnet_estimator.console import warn
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.records import tfrecord


class MetricsLog:
    """Writes ``metrics.jsonl`` and the TensorBoard events of one run.

    Each line is an object with ``event``, ``step``, ``time_secs`` (since 1970) and
    named values; names carry their unit.  Numbers that are not finite become null,
    because JSON has none.

    If a line cannot be written, for example because the disk is full, it is lost and
    training goes on.
    """

    def __init__(self, model_dir: str, is_chief: bool):
        """Open the log.

        Args:
            model_dir: Folder of the run.
            is_chief: Whether this is rank 0; the other ranks write nothing.
        """
        self._is_chief = is_chief
        self._has_graph = self._has_warned = False
        self._path = os.path.join(model_dir, "metrics.jsonl")
        # TensorBoard looks for this name.  A FileWriter is not used because on a full
        # disk it stops in the middle of an event, and TensorBoard reads nothing that
        # comes after a broken one.
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}"
        self._events_path = os.path.join(model_dir, name)
        self._write_event(file_version="brain.Event:2")

    def write(self, event: str, step: int, **values: Any) -> None:
        """Append one line, and its numbers to TensorBoard.

        Args:
            event: Kind of the line, e.g. ``train`` or ``evaluation``.
            step: Global step.
            **values: JSON values.
        """
        line: Dict[str, Any] = {"event": event, "step": step}
        line["time_secs"] = round(time.time(), 3)
        scalars = []
        for name, value in values.items():
            is_infinite = isinstance(value, float) and not math.isfinite(value)
            line[name] = None if is_infinite else value
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                tag = f"{event}/{name}"
                scalars.append(tf.Summary.Value(tag=tag, simple_value=value))
        text = json.dumps(line, ensure_ascii=False) + "\n"
        self._append(self._path, text.encode("utf-8"))
        if scalars:
            self._write_summary(step, *scalars)

    def write_image(self, tag: str, step: int, png: Optional[bytes]) -> None:
        """Show an image (PNG bytes) in TensorBoard; None shows nothing."""
        if png is None:
            return
        # A PNG starts with a signature of 8 bytes, and its first chunk with the size.
        width, height = struct.unpack(">II", png[16:24])
        image = tf.Summary.Image(encoded_image_string=png, width=width, height=height)
        self._write_summary(step, tf.Summary.Value(tag=tag, image=image))

    def write_text(self, tag: str, step: int, text: str) -> None:
        """Show a text in TensorBoard without changing its lines."""
        # Markdown shows lines that are indented by four spaces as they are.
        lines = textwrap.indent(text, " " * 4).encode("utf-8", "replace")
        content = tf.make_tensor_proto(lines, tf.string)
        value = tf.Summary.Value(tag=tag, tensor=content)
        value.metadata.plugin_data.plugin_name = "text"
        self._write_summary(step, value)

    def write_graph(self, graph: tf.Graph) -> None:
        """Show the first graph that is given in TensorBoard."""
        if self._is_chief and not self._has_graph:
            definition = graph.as_graph_def(add_shapes=True)
            self._write_event(graph_def=definition.SerializeToString())
            self._has_graph = True

    def _write_summary(self, step: int, *values: tf.Summary.Value) -> None:
        self._write_event(step=step, summary=tf.Summary(value=values))

    def _write_event(self, **content: Any) -> None:
        event = tf.Event(wall_time=time.time(), **content)
        self._append(self._events_path, tfrecord.frame(event.SerializeToString()))

    def _append(self, path: str, content: bytes) -> None:
        """Append to a file, whole or not at all; warn once if that fails."""
        if not self._is_chief:
            return
        try:
            locks.append_bytes(path, content)
        except OSError as error:
            if not self._has_warned:
                warn(f"records are lost, training goes on: {error}")
            self._has_warned = True
