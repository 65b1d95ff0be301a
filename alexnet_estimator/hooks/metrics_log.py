"""One call per record: a JSON line for programs, scalars for TensorBoard.

TensorBoard also gets pictures, texts and the graph.
"""

import json
import math
import os
import socket
import struct
import sys
import textwrap
import time
from typing import Any, Dict, Optional

from alexnet_estimator import files
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.records import tfrecord


class MetricsLog:
    """Writes ``metrics.jsonl`` and TensorBoard events of one run.

    Each line is an object with ``event``, ``step``, ``time_secs`` (since 1970) and
    named values; names carry their unit.  Numbers that are not finite become null,
    because JSON has none.

    Where a record cannot be written, say because the disk is full, it is lost: a run
    is worth more than its log.
    """

    def __init__(self, model_dir: str, is_chief: bool):
        """Open the log.

        Args:
            model_dir: where ``metrics.jsonl`` is appended to.
            is_chief: other ranks write nothing.
        """
        self._is_chief = is_chief
        self._has_graph = self._has_warned = False
        self._path = os.path.join(model_dir, "metrics.jsonl")
        # What TensorBoard looks for.  Not a FileWriter: what it writes on a full disk
        # breaks off in a record, and TensorBoard reads nothing behind that.
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}"
        self._events_path = os.path.join(model_dir, name)
        self._write_event(file_version="brain.Event:2")

    def write(self, event: str, step: int, **values: Any) -> None:
        """Append one record.

        Args:
            event: what happened, e.g. ``train`` or ``evaluation``.
            step: the global step.
            **values: JSON values; the numbers among them go to TensorBoard as well.
        """
        record: Dict[str, Any] = {"event": event, "step": step}
        record["time_secs"] = round(time.time(), 3)
        record.update({name: _json_value(value) for name, value in values.items()})
        line = json.dumps(record, ensure_ascii=False) + "\n"
        self._append(self._path, line.encode("utf-8"))
        self._write_summary(event, step, values)

    def _write_summary(self, event: str, step: int, values: Dict[str, Any]) -> None:
        scalars = [
            tf.Summary.Value(tag=f"{event}/{name}", simple_value=value)
            for name, value in values.items()
            if isinstance(value, (int, float)) and not isinstance(value, bool)
        ]
        if scalars:
            self._add(step, *scalars)

    def write_image(self, tag: str, step: int, png: Optional[bytes]) -> None:
        """Show a picture (PNG bytes) in TensorBoard; None shows nothing."""
        if png is None:
            return
        # A PNG starts with a signature of 8 bytes, and its first chunk with the size.
        width, height = struct.unpack(">II", png[16:24])
        image = tf.Summary.Image(encoded_image_string=png, width=width, height=height)
        self._add(step, tf.Summary.Value(tag=tag, image=image))

    def write_text(self, tag: str, step: int, text: str) -> None:
        """Show a text in TensorBoard, its lines as they are."""
        # Markdown takes lines that are indented by four as they are.
        content = tf.make_tensor_proto(textwrap.indent(text, " " * 4), tf.string)
        value = tf.Summary.Value(tag=tag, tensor=content)
        value.metadata.plugin_data.plugin_name = "text"
        self._add(step, value)

    def write_graph(self, graph: tf.Graph) -> None:
        """Show a graph in TensorBoard; of several, the first."""
        if self._is_chief and not self._has_graph:
            definition = graph.as_graph_def(add_shapes=True)
            self._write_event(graph_def=definition.SerializeToString())
            self._has_graph = True

    def _add(self, step: int, *values: tf.Summary.Value) -> None:
        self._write_event(step=step, summary=tf.Summary(value=values))

    def _write_event(self, **content: Any) -> None:
        event = tf.Event(wall_time=time.time(), **content)
        self._append(self._events_path, tfrecord.frame(event.SerializeToString()))

    def _append(self, path: str, content: bytes) -> None:
        """Append to a file, whole or not at all; warn once where that fails."""
        if not self._is_chief:
            return
        try:
            files.append_bytes(path, content)
        except OSError as error:
            if not self._has_warned:
                text = f"warning: records are lost, training goes on: {error}"
                print(text, file=sys.stderr, flush=True)
            self._has_warned = True


def _json_value(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def last_step(path: str) -> Optional[int]:
    """Return the step of the last whole line of a ``metrics.jsonl``, or None."""
    step = None
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            for line in file:
                if line.endswith("\n"):
                    step = json.loads(line)["step"]
    return step
