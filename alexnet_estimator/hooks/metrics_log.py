"""The log of a run: JSON lines and TensorBoard events."""

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
    named values, whose names include the unit.  NaN and Inf become null, because JSON
    does not have them.

    A line that cannot be written, for example because the disk is full, is lost.  The
    training continues.
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
        # TensorBoard looks for this name.  A FileWriter is not used: on a full disk it
        # writes part of an event, and TensorBoard reads nothing after a damaged event.
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}"
        self._events_path = os.path.join(model_dir, name)
        self._write_event(file_version="brain.Event:2")

    def write(self, event: str, step: int, **values: Any) -> None:
        """Append one line, and show its numbers in TensorBoard.

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
        """Show an image in TensorBoard, given as the bytes of a PNG; ignore None."""
        if png is None:
            return
        # Bytes 16 to 24 of a PNG are its width and height, as big-endian integers.
        width, height = struct.unpack(">II", png[16:24])
        image = tf.Summary.Image(encoded_image_string=png, width=width, height=height)
        self._write_summary(step, tf.Summary.Value(tag=tag, image=image))

    def write_text(self, tag: str, step: int, text: str) -> None:
        """Show a text in TensorBoard without changing its lines."""
        # Markdown does not reformat lines that are indented by four spaces.
        lines = textwrap.indent(text, " " * 4).encode("utf-8", "replace")
        content = tf.make_tensor_proto(lines, tf.string)
        value = tf.Summary.Value(tag=tag, tensor=content)
        value.metadata.plugin_data.plugin_name = "text"
        self._write_summary(step, value)

    def write_graph(self, graph: tf.Graph) -> None:
        """Show a graph in TensorBoard; only the first call has an effect."""
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
        """Append all of the content or nothing; print one warning if this fails."""
        if not self._is_chief:
            return
        try:
            locks.append_bytes(path, content)
        except OSError as error:
            if not self._has_warned:
                warn(f"lines of the log are lost, but training continues: {error}")
            self._has_warned = True
