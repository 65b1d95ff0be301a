"""What TensorBoard finds in the events of a run."""

import io
import pathlib
from typing import Any

import pytest
import tensorflow.compat.v1 as tf
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from alexnet_estimator.hooks.metrics_log import MetricsLog

TEXT = "a  b\n  <i>c</i>"


def png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def events(tmp_path: pathlib.Path) -> Any:
    """Write one of everything; return TensorBoard's own view of it."""
    log = MetricsLog(str(tmp_path), is_chief=True)
    log.write("train", 3, loss=0.5, changes=["x"])
    log.write_image("kernels", 3, png(7, 5))
    log.write_image("nothing", 3, None)
    log.write_text("card", 3, TEXT)
    for name in ("first", "second"):
        with tf.Graph().as_default() as graph:
            tf.constant(1, name=name)
        log.write_graph(graph)
    accumulator = EventAccumulator(str(tmp_path))
    accumulator.Reload()
    return accumulator


def test_scalars_and_pictures_are_found(events: Any) -> None:
    tags = events.Tags()
    assert tags["scalars"] == ["train/loss"] and tags["images"] == ["kernels"]
    image = events.Images("kernels")[0]
    assert (image.step, image.width, image.height) == (3, 7, 5)


def test_texts_are_found_by_the_text_dashboard(events: Any) -> None:
    assert set(events.PluginTagToContent("text")) == {"card"}
    value = tf.make_ndarray(events.Tensors("card")[0].tensor_proto).item().decode()
    # Markdown shows indented lines as they are.
    assert value == "    a  b\n      <i>c</i>"


def test_the_first_graph_is_shown(events: Any) -> None:
    graph = tf.GraphDef.FromString(events.Graph().SerializeToString())
    assert [node.name for node in graph.node] == ["first"]


def test_other_ranks_write_nothing(tmp_path: pathlib.Path) -> None:
    log = MetricsLog(str(tmp_path), is_chief=False)
    log.write("train", 3, loss=0.5)
    log.write_image("kernels", 3, png(7, 5))
    log.write_text("card", 3, TEXT)
    log.write_graph(tf.Graph())
    assert not list(tmp_path.iterdir())
