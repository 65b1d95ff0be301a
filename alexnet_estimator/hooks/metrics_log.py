"""One call per record: a JSON line for programs, scalars for TensorBoard.

TensorBoard also gets pictures, texts and the graph.
"""

import contextlib
import errno
import json
import math
import os
import struct
import sys
import textwrap
import time
from typing import Any, Dict, Iterator, Optional

import tensorflow.compat.v1 as tf


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
        self._path = os.path.join(model_dir, "metrics.jsonl") if is_chief else None
        self._events = tf.summary.FileWriter(model_dir) if is_chief else None
        self._has_graph = self._has_warned = False

    def write(self, event: str, step: int, **values: Any) -> None:
        """Append one record.

        Args:
            event: what happened, e.g. ``train`` or ``evaluation``.
            step: the global step.
            **values: JSON values; the numbers among them go to TensorBoard as well.
        """
        if self._path is None:
            return
        record: Dict[str, Any] = {"event": event, "step": step}
        record["time_secs"] = round(time.time(), 3)
        record.update({name: _json_value(value) for name, value in values.items()})
        with self._warning_once():
            _append_line(self._path, json.dumps(record, ensure_ascii=False))
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
        if self._events is None or self._has_graph:
            return
        with self._warning_once():
            self._events.add_graph(graph)
        self._has_graph = True

    def _add(self, step: int, *values: tf.Summary.Value) -> None:
        if self._events is not None:
            with self._warning_once():
                self._events.add_summary(tf.Summary(value=values), step)
                self._events.flush()

    def close(self) -> None:
        """Close the event file."""
        if self._events is not None:
            with self._warning_once():
                self._events.close()

    @contextlib.contextmanager
    def _warning_once(self) -> Iterator[None]:
        try:
            yield
        except (OSError, tf.errors.OpError) as error:
            if not self._has_warned:
                text = f"warning: records are lost, training goes on: {error}"
                print(text, file=sys.stderr, flush=True)
            self._has_warned = True


def _append_line(path: str, line: str) -> None:
    """Append a line to a UTF-8 file, whole or not at all."""
    content = (line + "\n").encode("utf-8")
    with open(path, "ab", buffering=0) as file:
        start = file.tell()
        if file.write(content) < len(content):  # The disk is full.
            file.truncate(start)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


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
