"""Every exported format gives the answers of the checkpoint."""

import base64
import dataclasses
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
from typing import Any, Callable, List, Optional, Set, Tuple

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from alexnet_estimator import inputs, run_record
from alexnet_estimator.config import Config
from alexnet_estimator.errors import ConfigError, DataError
from alexnet_estimator.jobs.export import graphs, job
from alexnet_estimator.jobs.export.card import describe_model
from alexnet_estimator.jobs.export.trial import MAX_DIFFERENCE, Trial, compare
from alexnet_estimator.jobs.predict.classifier import open_classifier
from alexnet_estimator.jobs.predict.job import classify, predict
from alexnet_estimator.jobs.predict.sources import find_sources
from alexnet_estimator.records import examples, manifest, tfrecord
from alexnet_estimator.report import wilson_interval
from tests import tiny, training
from tests.training import evaluation

CLASS_NAMES = ("apple", "ocean", "tree")
# The files are those that serving needs, and no others.
SERVING_OPS = {
    *("Placeholder", "Const", "Identity", "Sub", "RealDiv", "Conv2D", "BiasAdd"),
    *("Relu", "LRN", "MaxPool", "Split", "ConcatV2", "Reshape", "MatMul", "Softmax"),
}


def _run_folder(folder: Any, data_dir: str, **optim: float) -> str:
    model_dir = os.path.join(str(folder), "run")
    optim = {"learning_rate": 0.02, **optim}
    training.run_job(data_dir, model_dir, optim=optim, train={"steps": 10})
    return model_dir


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory, data_dir: str) -> str:
    """Return a run with averaged weights that differ from the last ones."""
    return _run_folder(tmp_path_factory.mktemp("export"), data_dir, ema_decay=0.9)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, model_dir: str) -> str:
    """Return a folder with a SavedModel and a frozen graph."""
    output = str(tmp_path_factory.mktemp("exported") / "model")
    result = job.export(_config(model_dir), model_dir, output)
    assert result == (output, 10, 11, result.max_difference)
    assert result.max_difference <= MAX_DIFFERENCE
    return output


@pytest.fixture(scope="module")
def held_out(data_dir: str) -> List[bytes]:
    """Return the pictures of the validation split, encoded."""
    shards = manifest.load(data_dir).shard_paths("validation")
    records = (record for shard in shards for record in tfrecord.read_records(shard))
    return [examples.parse(record.data)[0] for record in records]


@pytest.fixture(scope="module")
def images(held_out: List[bytes]) -> np.ndarray:
    """Return the same pictures as evaluation decodes them."""
    with tf.Graph().as_default(), tiny.session() as session:
        decode = inputs.decode_for_eval
        tensors = [decode(tf.constant(picture), 63) for picture in held_out]
        return np.stack(session.run(tensors))


@pytest.fixture
def tampered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write exports whose last bias differs from the checkpoint's."""
    restore = graphs._restore

    def tamper(model: Any, images: Any, session: tf.Session) -> Any:
        result = restore(model, images, session)
        (bias,) = [
            v for v in tf.trainable_variables() if v.op.name.endswith("fc8/bias")
        ]
        bias.load(session.run(bias) + [0.001, 0.0, 0.0], session)
        return result

    monkeypatch.setattr(graphs, "_restore", tamper)


def _config(model_dir: str) -> Config:
    return Config(run_record.read(run_record.path_of(model_dir)).config.to_dict())


def _photos(data_dir: str) -> str:
    return os.path.join(os.path.dirname(data_dir), "pictures")


def _probabilities(folder: str, photos: str) -> np.ndarray:
    """Return the probabilities of a run or an export for the pictures of a folder."""

    def refuse(reject: Any) -> None:
        raise AssertionError(reject)

    found = find_sources([photos])
    predictions = classify(open_classifier(folder), found, refuse)
    return np.stack([prediction.probabilities for prediction in predictions])


def _ops(graph: tf.GraphDef) -> Set[str]:
    return {node.op for node in graph.node}


def _dtypes(graph: tf.GraphDef) -> Set[int]:
    return {
        value.type
        for node in graph.node
        for value in node.attr.values()
        if value.WhichOneof("value") == "type"
    }


def test_saved_model_predicts_as_the_checkpoint(
    model_dir: str, exported: str, data_dir: str, tmp_path: Any
) -> None:
    of_run = _probabilities(model_dir, _photos(data_dir))
    of_export = _probabilities(exported, _photos(data_dir))
    assert of_run.shape == (60, 3) and np.ptp(of_run, axis=0).min() > 0.01
    np.testing.assert_allclose(of_export, of_run, atol=1e-4)
    # A SavedModel without the folder around it can be used as well.
    saved_model = os.path.join(exported, "saved_model")
    alone = shutil.copytree(saved_model, str(tmp_path / "m"))
    # Exports of version 1.0 have it in "saved_model" itself.
    shutil.copytree(os.path.join(saved_model, "1"), str(tmp_path / "old/saved_model"))
    for folder in (alone, os.path.join(alone, "1"), str(tmp_path / "old")):
        classifier = open_classifier(folder)
        summary = predict(classifier, [_photos(data_dir)], str(tmp_path / "out.csv"))
        assert summary.num_images == 60


def test_signatures_agree(
    exported: str, held_out: List[bytes], images: np.ndarray
) -> None:
    folder = os.path.join(exported, "saved_model", "1")
    by_bytes = graphs.run_saved_model(folder, "serving_default", held_out)
    by_images = graphs.run_saved_model(folder, "images", images)
    for outputs in (by_bytes, by_images):
        index = outputs["probabilities"].argmax(axis=1)
        np.testing.assert_array_equal(outputs["class_index"], index)
        names = [CLASS_NAMES[i].encode() for i in index]
        assert list(outputs["class_name"]) == names
    np.testing.assert_allclose(
        by_bytes["probabilities"], by_images["probabilities"], atol=1e-6
    )
    # PNG files and single pictures are accepted as well.
    png = tiny.encode(tiny.noise(0))
    crop = tiny.noise(0)[4:67, 4:67]
    np.testing.assert_allclose(
        graphs.run_saved_model(folder, "serving_default", [png])["probabilities"],
        graphs.run_saved_model(folder, "images", [crop])["probabilities"],
        atol=1e-6,
    )


def test_the_request_of_the_card_is_answered(
    exported: str, held_out: List[bytes], tmp_path: Any
) -> None:
    """Find the version and decode base64, as TensorFlow Serving does."""
    card = pathlib.Path(exported, "README.md").read_text()
    command = re.findall("(?ms)^printf .*?(?= \\|$)", card)[-1]
    (tmp_path / "photo.jpg").write_bytes(held_out[0])
    request = subprocess.check_output(["bash", "-c", command], cwd=str(tmp_path))
    ((name, value),) = json.loads(request)["instances"][0].items()
    # Other servers know from the name that the value is base64.
    assert name.endswith("_bytes") and list(value) == ["b64"]
    (version,) = os.listdir(os.path.join(exported, "saved_model"))
    folder = os.path.join(exported, "saved_model", str(int(version)))
    with graphs.loaded(folder) as (session, signatures):
        signature = signatures["serving_default"]
        feeds = {signature.inputs[name].name: [base64.b64decode(value["b64"])]}
        found = session.run(signature.outputs["probabilities"].name, feeds)
    expected = graphs.run_saved_model(folder, "serving_default", held_out[:1])
    np.testing.assert_array_equal(found, expected["probabilities"])


def test_the_card_says_how_good_the_model_is(
    exported: str, model_dir: str, data_dir: str
) -> None:
    card = pathlib.Path(exported, "README.md").read_text()
    result = evaluation(model_dir, 10)
    low, high = wilson_interval(result["top_1_accuracy"], 11)
    assert f"{result['top_1_accuracy']:.4f} on 11 pictures" in card
    assert f"interval {low:.4f} to {high:.4f}" in card
    assert "Trained on 49 pictures" in card and "63 x 63 pixels" in card
    num_trained = manifest.load(data_dir).splits["train"].class_counts[1]
    assert f'- "ocean": {num_trained} for training' in card
    assert model_dir not in card and "does not know the licence" in card
    record = run_record.read(run_record.path_of(model_dir))
    config = Config(record.config.to_dict())
    config.data.path = "sample:mono_poly"
    names = ("a\nb", "c")
    record = dataclasses.replace(record, config=config, class_names=names)
    card = describe_model(record, None, None, ["frozen"])
    assert "CC BY-NC-SA 4.0" in card and '- "a\\nb": ' in card
    assert "was not evaluated" in card and "docker run" not in card


def test_frozen_graph_predicts_as_the_checkpoint(
    exported: str, images: np.ndarray
) -> None:
    probabilities = graphs.run_frozen(os.path.join(exported, "model.pb"), images)
    folder = os.path.join(exported, "saved_model", "1")
    expected = graphs.run_saved_model(folder, "images", images)["probabilities"]
    np.testing.assert_allclose(probabilities, expected, atol=1e-4)


def test_graphs_are_for_serving_and_float32(exported: str) -> None:
    frozen = tf.GraphDef.FromString(pathlib.Path(exported, "model.pb").read_bytes())
    assert _ops(frozen) == SERVING_OPS
    # Defaults are left out: other TensorFlows may not know the attribute.
    assert not [node for node in frozen.node if "explicit_paddings" in node.attr]
    assert tf.float16.as_datatype_enum not in _dtypes(frozen)
    placeholders = [node for node in frozen.node if node.op == "Placeholder"]
    assert [node.name for node in placeholders] == ["images"]
    (output,) = [node for node in frozen.node if node.name == "probabilities"]
    assert output.op == "Softmax"
    with graphs.loaded(os.path.join(exported, "saved_model", "1")) as (session, _):
        names = {v.op.name for v in tf.global_variables()}
        # There is no momentum and no operation of training.
        assert {name.split("/")[0] for name in names} == {"alexnet", "global_step"}
        ops = {op.type for op in session.graph.get_operations()}
    assert not [op for op in ops if "Random" in op or op.startswith("Apply")]


def test_averaged_weights_are_exported(exported: str, model_dir: str) -> None:
    frozen = tf.GraphDef.FromString(pathlib.Path(exported, "model.pb").read_bytes())
    (node,) = [node for node in frozen.node if node.name == "alexnet/fc8/kernel"]
    kernel = tf.make_ndarray(node.attr["value"].tensor)
    stored = training.variables(model_dir)
    averages = stored["alexnet/fc8/kernel/ExponentialMovingAverage"]
    np.testing.assert_array_equal(kernel, averages)
    assert not np.allclose(kernel, stored["alexnet/fc8/kernel"], atol=1e-4)


def test_mixed_precision_is_exported_as_float32(model_dir: str, tmp_path: Any) -> None:
    config = _config(model_dir)
    config.precision.mode = "allow_mix_precision"
    config.data.use_ten_crop = True
    output = tmp_path / "model"
    job.export(config, model_dir, str(output), ["frozen"], batch_size=4)
    frozen = tf.GraphDef.FromString((output / "model.pb").read_bytes())
    assert tf.float16.as_datatype_enum not in _dtypes(frozen)
    (placeholder,) = [node for node in frozen.node if node.op == "Placeholder"]
    shape = [dim.size for dim in placeholder.attr["shape"].shape.dim]
    assert shape == [4, 63, 63, 3]
    assert config.precision.mode == "allow_mix_precision"
    assert sorted(os.listdir(output)) == [
        "README.md",
        *("class_names.txt", "model.pb", "to_om.sh"),
    ]


def test_onnx_predicts_as_the_checkpoint(
    model_dir: str, images: np.ndarray, tmp_path: Any
) -> None:
    pytest.importorskip("tf2onnx", reason="the extra onnx is not installed")
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    output = str(tmp_path / "model")
    job.export(_config(model_dir), model_dir, output, ["frozen", "onnx"])
    np.testing.assert_allclose(
        graphs.run_onnx(os.path.join(output, "model.onnx"), images),
        graphs.run_frozen(os.path.join(output, "model.pb"), images),
        atol=1e-4,
    )


@pytest.mark.parametrize("name", list(job.FORMATS))
def test_other_weights_are_not_exported(
    model_dir: str, tmp_path: Any, tampered: None, name: str
) -> None:
    if name == "onnx":
        pytest.importorskip("tf2onnx", reason="the extra onnx is not installed")
        pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    with pytest.raises(DataError, match="differs from the checkpoint's") as caught:
        job.export(_config(model_dir), model_dir, str(tmp_path / "model"), [name])
    assert "nothing was exported" in caught.value.message()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("value", [0.34, np.nan])
def test_difference_and_nan_are_refused(value: float) -> None:
    expected = np.full([2, 3], 1 / 3, np.float32)
    trial = Trial([], np.zeros([2, 63, 63, 3], np.uint8), expected)
    assert compare("same", expected + 1e-6, trial) < MAX_DIFFERENCE
    with pytest.raises(DataError):
        compare("other", np.where(expected > 0, value, 0), trial)


def test_class_names_go_with_every_format(exported: str) -> None:
    text = "\n".join(CLASS_NAMES) + "\n"
    for folder in (
        exported,
        os.path.join(exported, "saved_model", "1", "assets.extra"),
    ):
        assert pathlib.Path(folder, "class_names.txt").read_text() == text
    classifier = open_classifier(exported)
    assert classifier.class_names == CLASS_NAMES
    # Pictures are prepared as those of the run, but its paths are not exported.
    assert classifier.conversion["short_side"] == 32
    assert classifier.config.data.path == ""


def test_damaged_exports_are_refused(
    exported: str, data_dir: str, tmp_path: Any
) -> None:
    def damage(change: Callable[[pathlib.Path], None]) -> str:
        copy = tmp_path / change.__name__
        shutil.copytree(exported, copy)
        change(copy / "saved_model" / "1")
        return str(copy)

    def no_assets(folder: pathlib.Path) -> None:
        shutil.rmtree(folder / "assets.extra")

    def no_variables(folder: pathlib.Path) -> None:
        shutil.rmtree(folder / "variables")

    def cut_graph(folder: pathlib.Path) -> None:
        data = (folder / "saved_model.pb").read_bytes()
        (folder / "saved_model.pb").write_bytes(data[: len(data) // 2])

    with pytest.raises(DataError, match="assets.extra/config.json"):
        open_classifier(damage(no_assets))
    for change in (no_variables, cut_graph):
        classifier = open_classifier(damage(change))
        with pytest.raises(DataError, match="cannot be loaded"):
            predict(classifier, [_photos(data_dir)], str(tmp_path / "out.csv"))
    assert not (tmp_path / "out.csv").exists()
    with pytest.raises(ConfigError, match="no checkpoint"):
        open_classifier(exported, checkpoint="model.ckpt-10")


def test_wrong_arguments_are_refused(
    model_dir: str, exported: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, file = _config(model_dir), tmp_path / "file"
    file.write_text("")
    cases: List[Tuple[str, List[str], Optional[int], str]] = [
        (exported, ["frozen"], None, "exists"),
        (str(file), ["frozen"], None, "exists"),
        (str(file / "model"), ["frozen"], None, "cannot be created"),
        (str(tmp_path / "new"), ["tflite"], None, "no format 'tflite'"),
        (str(tmp_path / "new"), [], None, "no format ''"),
        (str(tmp_path / "new"), ["frozen"], 0, "batch size is 0"),
    ]
    for output, formats, batch_size, message in cases:
        with pytest.raises(ConfigError, match=message):
            job.export(config, model_dir, output, formats, batch_size)
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(ConfigError, match="setup_env.sh --with-onnx"):
        job.export(config, model_dir, str(tmp_path / "new"), ["onnx"])
    assert os.listdir(tmp_path) == ["file"]


def test_a_run_on_made_up_data_needs_no_pictures(model_dir: str, tmp_path: Any) -> None:
    config = _config(model_dir)
    config.data.path, config.data.synthetic = "", True
    result = job.export(config, model_dir, str(tmp_path / "model"), ["frozen"])
    assert result.num_pictures == 2


def test_the_atc_script(exported: str, tmp_path: Any) -> None:
    """Run it with an ``atc`` that only prints its arguments."""
    atc = tmp_path / "atc"
    atc.write_text('#!/bin/sh\nls model.pb\nprintf "%s\\n" "$@"\n')
    atc.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    script = os.path.join(exported, "to_om.sh")
    for chip, command in (
        ("Ascend310", ["sh", script]),
        ("Ascend910A", ["sh", script, "Ascend910A"]),
    ):
        shown = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            env=environment,
            check=True,
        )
        assert shown.stdout.decode().splitlines() == [
            "model.pb",
            "--framework=3",
            "--model=model.pb",
            "--output=model",
            "--input_format=NHWC",
            "--input_shape=images:1,63,63,3",
            "--out_nodes=probabilities:0",
            "--output_type=FP32",
            f"--soc_version={chip}",
        ]
