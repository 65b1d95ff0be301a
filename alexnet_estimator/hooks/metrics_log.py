"""The log of a run: JSON lines and TensorBoard events."""

import importlib.util
import json
import math
import os
import socket
import struct
import textwrap
import time
from typing import Any, Dict, Mapping

from alexnet_estimator import locks
from alexnet_estimator.console import warn
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.records import tfrecord

# Tags of the numbers that TensorBoard draws; it groups them by the part before the
# slash.  Training and evaluation share them, so that their curves overlay.
TAGS = {
    "loss": "loss",
    "top_1_accuracy": "accuracy/top_1",
    "top_5_accuracy": "accuracy/top_5",
    "balanced_accuracy": "accuracy/top_1_balanced",
    "learning_rate": "optimizer/learning_rate",
    "gradient_norm": "optimizer/gradient_norm",
    "loss_scale": "optimizer/loss_scale",
    "num_skipped_steps": "optimizer/skipped_steps",
    "images_per_sec": "throughput/images_per_sec",
}
# Subfolder of the folder of the run.  TensorBoard shows it as a separate run.
EVALUATION = "eval"


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
        self._events_paths = {
            folder: os.path.join(model_dir, folder, name) for folder in ("", EVALUATION)
        }

    def write(self, event: str, step: int, **values: Any) -> None:
        """Append one line, and show its numbers that have a tag in TensorBoard.

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
            if name in TAGS:
                scalars.append(tf.Summary.Value(tag=TAGS[name], simple_value=value))
        text = json.dumps(line, ensure_ascii=False) + "\n"
        self._append(self._path, text.encode("utf-8"))
        if scalars:
            folder = EVALUATION if event == "evaluation" else ""
            summary = tf.Summary(value=scalars)
            self._write_event(folder, step=step, summary=summary)

    def write_image(self, tag: str, step: int, png: bytes) -> None:
        """Show an image in TensorBoard, given as the bytes of a PNG."""
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

    def write_hparams(self, values: Mapping[str, Any]) -> None:
        """Begin a row of TensorBoard's table of runs (HParams).

        Args:
            values: Settings of the run; the same names for every run.
        """
        if not self._is_chief or importlib.util.find_spec("tensorboard") is None:
            return  # Some vendors' builds of TensorFlow come without TensorBoard.
        from tensorboard.plugins.hparams import api

        metrics = [
            api.Metric(TAGS[name], group=EVALUATION, display_name=label)
            for name, label in (("top_1_accuracy", "accuracy"), ("loss", "loss"))
        ]
        columns = [api.HParam(name) for name in values]
        # Names of folders need not be UTF-8, which messages have to be.
        folder = os.path.dirname(self._path).encode("utf-8", "replace").decode()
        for summary in (
            api.hparams_config_pb(columns, metrics),
            api.hparams_pb(values, trial_id=folder),
        ):
            self._write_foreign(summary)

    def end_hparams(self) -> None:
        """Mark the row of this run as finished."""
        if not self._is_chief or importlib.util.find_spec("tensorboard") is None:
            return
        from tensorboard.plugins.hparams import api_pb2, summary

        self._write_foreign(summary.session_end_pb(api_pb2.STATUS_SUCCESS))

    def _write_foreign(self, summary: Any) -> None:
        """Append a summary of TensorBoard's own class."""
        self._write_event(summary=tf.Summary.FromString(summary.SerializeToString()))

    def _write_summary(self, step: int, *values: tf.Summary.Value) -> None:
        self._write_event(step=step, summary=tf.Summary(value=values))

    def _write_event(self, folder: str = "", **content: Any) -> None:
        """Append an event to the file in a folder; a new file begins with a version."""
        path = self._events_paths[folder]
        events = [tf.Event(wall_time=time.time(), **content)]
        # The file may exist and be empty, because the disk was full before.
        if not os.path.exists(path) or os.path.getsize(path) == 0:
            events.insert(0, tf.Event(file_version="brain.Event:2"))
        frames = [tfrecord.frame(event.SerializeToString()) for event in events]
        self._append(path, b"".join(frames))

    def _append(self, path: str, content: bytes) -> None:
        """Append all of the content or nothing; print one warning if this fails."""
        if not self._is_chief:
            return
        folder = os.path.dirname(path)
        try:
            # If the user has deleted the folder of the run, it must not be created.
            if os.path.basename(folder) == EVALUATION and not os.path.isdir(folder):
                os.mkdir(folder)
            locks.append_bytes(path, content)
        except OSError as error:
            if not self._has_warned:
                warn(f"lines of the log are lost, but training continues: {error}")
            self._has_warned = True
