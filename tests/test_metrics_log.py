"""TensorBoard finds the right content in the events of a run."""

import io
import pathlib
from typing import Any

import pytest
import tensorflow.compat.v1 as tf
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.plugins.hparams.api_pb2 import STATUS_SUCCESS

from alexnet_estimator.hooks.metrics_log import MetricsLog

TEXT = "a  b\n  <i>c</i>"


def png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def events(tmp_path: pathlib.Path) -> Any:
    """Write an event of each kind, and return what TensorBoard reads."""
    log = MetricsLog(str(tmp_path), is_chief=True)
    log.write("train", 3, loss=0.5, changes=["x"])
    log.write_image("kernels", 3, png(7, 5))
    log.write("evaluation", 3, loss=0.25, top_1_accuracy=0.75)
    log.write("end", 3, seconds=60.0)
    log.write_hparams({"optimizer": "adam", "learning rate": 0.5})
    log.end_hparams()
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
    # A duration would give a chart with one point.
    assert tags["scalars"] == ["loss"] and tags["images"] == ["kernels"]
    image = events.Images("kernels")[0]
    assert (image.step, image.width, image.height) == (3, 7, 5)


def test_evaluations_are_a_run_with_the_same_tags(
    events: Any, tmp_path: pathlib.Path
) -> None:
    evaluations = EventAccumulator(str(tmp_path / "eval"))
    evaluations.Reload()
    assert set(evaluations.Tags()["scalars"]) == {"loss", "accuracy/top_1"}
    assert [event.value for event in evaluations.Scalars("loss")] == [0.25]
    assert [event.value for event in events.Scalars("loss")] == [0.5]


def test_runs_are_compared_by_settings_and_accuracy(events: Any) -> None:
    contents = events.PluginTagToContent("hparams").values()
    parsed = [plugin_data_pb2.HParamsPluginData.FromString(c) for c in contents]
    by_kind = {each.WhichOneof("data"): each for each in parsed}
    values = by_kind["session_start_info"].session_start_info.hparams
    assert values["optimizer"].string_value == "adam"
    assert values["learning rate"].number_value == 0.5
    assert by_kind["session_end_info"].session_end_info.status == STATUS_SUCCESS
    columns = by_kind["experiment"].experiment
    assert {column.name for column in columns.hparam_infos} == set(values)
    shown = {(m.name.group, m.name.tag) for m in columns.metric_infos}
    assert shown == {("eval", "accuracy/top_1"), ("eval", "loss")}


def test_a_deleted_run_does_not_come_back(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "run"
    MetricsLog(str(folder), is_chief=True).write("evaluation", 3, loss=0.25)
    assert not folder.exists()


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
    log.write("evaluation", 3, loss=0.5)
    log.write_image("kernels", 3, png(7, 5))
    log.write_text("card", 3, TEXT)
    log.write_graph(tf.Graph())
    log.write_hparams({"seed": 1})
    log.end_hparams()
    assert not list(tmp_path.iterdir())
