"""A warm start takes over the right weights, which compute the same as before."""

import codecs
import io
import json
import os
import pathlib
import pickle
import re
import shutil
import struct
import tracemalloc
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Sequence, Tuple

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from alexnet_estimator import __main__ as cli
from alexnet_estimator import rank_table, warm_start
from alexnet_estimator.checkpoints import best
from alexnet_estimator.config import Config, config_from, default_config
from alexnet_estimator.errors import ConfigError, DataError
from alexnet_estimator.jobs.first_weights import (
    choose_first_weights,
    read_first_weights,
)
from alexnet_estimator.model_fn import build_model_fn
from alexnet_estimator.networks import find_network
from alexnet_estimator.networks.graphs import variable_shapes
from alexnet_estimator.runtime.local import LocalRuntime
from alexnet_estimator.warm_start import Source, takeover
from alexnet_estimator.warm_start.caffe_file import read_caffe_file
from tests import pictures, tiny
from tests.ranks import train_two_ranks
from tests.training import open_job, train, variables

TINY = str(pathlib.Path(__file__).resolve().parents[1] / "configs" / "tiny.py")
CLASSES = ("apple", "ocean", "tree")  # The classes of `data_dir`.
CAFFE_LRN = {"lrn_radius": 2, "lrn_bias": 1.0, "lrn_alpha": 2e-5, "lrn_beta": 0.75}
AVERAGE = "/ExponentialMovingAverage"
ALEXNET = find_network("alexnet")
LAYER_NAMES = ALEXNET.layer_names

Layers = Dict[str, Dict[str, np.ndarray]]


def make_layers(config: Config, num_classes: int = 3) -> Layers:
    """Return random weights that keep the size of the activations."""
    random = np.random.default_rng(len(LAYER_NAMES))
    shapes, _ = variable_shapes(num_classes, config.data.image_size, config.model)
    layers = {}
    for layer in LAYER_NAMES:
        shape = shapes[f"alexnet/{layer}/kernel"]
        kernel = random.standard_normal(shape, np.float32)
        kernel *= np.float32(np.sqrt(2 / np.prod(shape[:-1])))
        bias = random.standard_normal(shape[-1], np.float32)
        layers[layer] = {"kernel": kernel, "bias": bias}
    return layers


PurePickler: Any = getattr(
    pickle, "_Pickler"
)  # Subclasses can change it, unlike the one in C.


class Python2Pickler(PurePickler):
    """Writes byte strings and names as Python 2 did, as in the published file."""

    dispatch = dict(PurePickler.dispatch)

    def save_string(self, text: Any) -> None:
        content = text.encode("latin1") if isinstance(text, str) else text
        self.write(b"T" + struct.pack("<i", len(content)) + content)
        self.memoize(text)

    dispatch[str] = dispatch[bytes] = save_string


def write_npy(
    file: pathlib.Path,
    content: Any,
    pickler: Any = pickle.Pickler,
    protocol: int = 3,
) -> str:
    """Write an object as ``numpy.save`` does."""
    header = {"descr": "|O", "fortran_order": False, "shape": ()}
    array = np.empty((), object)
    array[()] = content
    with file.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        pickler(stream, protocol=protocol).dump(array)
    return str(file)


def assert_same(found: Mapping[str, Any], expected: Layers) -> None:
    assert set(found) == set(expected)
    for layer, values in expected.items():
        assert set(found[layer]) == set(values)
        for name, value in values.items():
            np.testing.assert_array_equal(found[layer][name], value)


def as_lists(layers: Layers) -> Dict[str, List[np.ndarray]]:
    return {name: [layer["kernel"], layer["bias"]] for name, layer in layers.items()}


def caffe_logits(pixels: np.ndarray, layers: Layers) -> np.ndarray:
    """Return Caffe's logits for pictures, uint8 [batch, size, size, 3] in RGB."""
    bgr = pixels[..., ::-1].astype(np.float32) - np.array([104, 117, 123], np.float32)
    with tf.Graph().as_default(), tiny.session() as session:
        x = tf.placeholder(tf.float32, bgr.shape)
        feeds: Dict[Any, Any] = {x: bgr}

        def weights(layer: str) -> List[tf.Tensor]:
            values = [layers[layer]["kernel"], layers[layer]["bias"]]
            placeholders = [tf.placeholder(tf.float32, w.shape) for w in values]
            feeds.update(zip(placeholders, values))
            return placeholders

        for number, groups in enumerate((1, 2, 1, 2, 2), 1):
            kernel, bias = weights(f"conv{number}")
            stride, padding = (4, "VALID") if number == 1 else (1, "SAME")
            parts = zip(tf.split(x, groups, 3), tf.split(kernel, groups, 3))
            towers = [
                tf.nn.conv2d(a, b, [1, stride, stride, 1], padding) for a, b in parts
            ]
            x = tf.nn.relu(tf.concat(towers, 3) + bias)
            if number <= 2:
                x = tf.nn.lrn(x, 2, 1.0, 1e-4 / 5, 0.75)
            if number in (1, 2, 5):
                x = tf.nn.max_pool(x, [1, 3, 3, 1], [1, 2, 2, 1], "VALID")
        x = tf.reshape(x, [len(pixels), -1])
        for layer in ("fc6", "fc7", "fc8"):
            kernel, bias = weights(layer)
            x = tf.matmul(x, kernel) + bias
            x = tf.nn.relu(x) if layer != "fc8" else x
        return session.run(x, feeds)


def logits_of(
    source: Source, config: Config, num_classes: int, pixels: np.ndarray
) -> np.ndarray:
    """Return the logits of a new network that takes over all layers of a source."""
    shapes, _ = variable_shapes(num_classes, config.data.image_size, config.model)
    chosen = warm_start.choose_layers(source, shapes, source.class_names, config)
    assert chosen.restored == list(LAYER_NAMES) and chosen.new == {}
    model_fn = build_model_fn(config, num_classes, LocalRuntime("cpu"))
    with tf.Graph().as_default(), tiny.session() as session:
        images = tf.placeholder(tf.uint8, pixels.shape)
        spec = model_fn({"image": images}, None, tf.estimator.ModeKeys.PREDICT)
        scaffold = warm_start.initializing_scaffold(
            lambda: warm_start.weights_to_assign(source, chosen, config)
        )
        scaffold.init_fn(session)  # No other operation initializes a variable.
        return session.run(spec.predictions["logits"], {images: pixels})


def test_five_bytes_of_a_pickle_do_not_take_gigabytes(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "weights.npy"
    header = io.BytesIO()
    np.save(header, np.array(None), allow_pickle=True)
    start = header.getvalue().index(b"\n") + 1
    # The pickle stores a list under the number 2 ** 27 of its memo.
    pickled = b"\x80\x02]r" + struct.pack("<I", 2**27) + b"."
    path.write_bytes(header.getvalue()[:start] + pickled)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="expected a pickled dictionary"):
            read_caffe_file(str(path), ["conv1"])
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_bvlc_alexnet_computes_what_it_did_in_caffe(tmp_path: pathlib.Path) -> None:
    """The network has full size, and the file is written as by Python 2."""
    layers = make_layers(default_config(), 1000)
    layers["conv1"]["kernel"][:] /= 58  # Caffe does not scale its pixels.
    assert layers["conv2"]["kernel"].shape == (5, 5, 48, 256)
    assert layers["fc6"]["kernel"].shape == (9216, 4096)
    file = write_npy(tmp_path / "bvlc.npy", as_lists(layers), Python2Pickler, 2)
    source = warm_start.read_source(file, ALEXNET)
    assert_same(source.layers, layers)
    pixels = np.stack([tiny.noise(seed, 227, 227) for seed in (1, 2)])
    expected = caffe_logits(pixels, layers)
    assert np.std(expected) > 1 and np.abs(expected[0] - expected[1]).max() > 0.1
    for order in ("rgb", "bgr"):
        data = {"channel_order": order, "mean_rgb": (120.0, 110.0, 90.0)}
        config = config_from({"data": data, "model": CAFFE_LRN})
        found = logits_of(source, config, 1000, pixels)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_python_3_writes_bytes_in_several_ways(
    protocol: int, tmp_path: pathlib.Path
) -> None:
    layers = make_layers(tiny.config())
    file = write_npy(tmp_path / "a.npy", as_lists(layers), protocol=protocol)
    if protocol == 2:
        assert b"_codecs" in pathlib.Path(file).read_bytes()
    assert_same(warm_start.read_source(file, ALEXNET).layers, layers)


@pytest.mark.parametrize("theirs", ["rgb", "bgr"])
@pytest.mark.parametrize("ours", ["rgb", "bgr"])
def test_pixels_are_folded_into_conv1(theirs: str, ours: str) -> None:
    data = {"mean_rgb": (10.0, 120.0, 200.0), "pixel_scale": 40.0}
    first = tiny.config(data={**data, "channel_order": theirs})
    second = tiny.config(data={"channel_order": ours})
    source = Source(__file__, make_layers(first), first.data, first.model)
    pixels = np.stack([tiny.noise(seed, 63, 63) for seed in range(3)])
    expected = logits_of(source, first, 3, pixels)
    found = logits_of(source, second, 3, pixels)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    if ours == theirs:  # Nothing is computed, so no value may be rounded.
        assert np.abs(found - expected).max() > 0
        before = source.layers["conv1"]
        unchanged = takeover.fold_pixels(before, first.data, first.data)
        for name, value in before.items():
            assert unchanged[name].tobytes() == value.tobytes()


# The layers that are taken over.


def choose(
    source: Source, class_names: Sequence[str] = CLASSES, **changes: Any
) -> warm_start.WarmStart:
    config = tiny.config(**changes)
    shapes, _ = variable_shapes(len(class_names), config.data.image_size, config.model)
    return warm_start.choose_layers(source, shapes, class_names, config)


@pytest.fixture
def known() -> Source:
    """Return a small network that knows its classes."""
    config = tiny.config()
    layers = make_layers(config)
    return Source(__file__, layers, config.data, config.model, CLASSES)


def test_the_head_is_new_for_other_classes(known: Source) -> None:
    assert choose(known).new == {}
    for names, reason in (
        (("cat", "dog"), "has 2 classes, 3 in the source"),
        (
            ("apple", "tree", "ocean"),
            "is for apple, tree, ocean and not apple, ocean, tree",
        ),
    ):
        found = choose(known, names)
        assert found.restored == list(LAYER_NAMES[:-1])
        assert found.left_out == ["fc8"]
        assert found.new["fc8"].startswith(reason)
    unnamed = known._replace(class_names=())
    found = choose(unnamed, ("a", "b", "c"))
    assert found.new == {} and "does not name its classes" in found.notes[0]


def test_nothing_stands_on_a_new_layer(known: Source) -> None:
    found = choose(known, data={"image_size": 95})
    assert found.restored == list(LAYER_NAMES[:5])
    assert found.new["fc6"] == "has the shape (64, 256), (16, 256) in the source"
    assert found.new["fc7"] == found.new["fc8"] == "follows fc6, which is new"
    layers = {name: known.layers[name] for name in LAYER_NAMES if name != "conv3"}
    found = choose(known._replace(layers=layers))
    assert found.restored == ["conv1", "conv2"]
    assert found.new["conv3"] == "is not in the source"
    assert found.left_out == ["conv4", "conv5", "fc6", "fc7", "fc8"]
    with pytest.raises(DataError, match="no layer of it fits: conv1 has the shape"):
        choose(known, model={"width_multiplier": 0.125})


def test_only_what_is_taken_over_can_be_frozen(known: Source) -> None:
    frozen = {"path": "x", "frozen_until": "fc6"}
    assert choose(known, warm_start=frozen).new == {}
    with pytest.raises(ConfigError, match="'fc6', but fc6 is new: .*is conv5"):
        choose(known, data={"image_size": 95}, warm_start=frozen)


def test_another_normalisation_is_noted(known: Source) -> None:
    assert choose(known).notes == []
    (note,) = choose(known, model={"lrn_bias": 1.0, "lrn_alpha": 2e-5}).notes
    assert "model.lrn_bias is 1, 2 in the source" in note
    assert "model.lrn_alpha is 2e-05, 0.0001 in the source" in note


# A run that starts from another run.


class Story(NamedTuple):
    """A run with averaged weights, and a run that starts from it and is resumed."""

    source: str
    model_dir: str
    taken: Dict[str, np.ndarray]
    early: Dict[str, np.ndarray]
    late: Dict[str, np.ndarray]
    card: str


WARM_JOB: Dict[str, Dict[str, Any]] = {
    "optim": {"ema_decay": 0.9, "gradient_clip_norm": 5.0, "optimizer": "adam"},
    "precision": {"loss_scale": "dynamic"},
    "warm_start": {"frozen_until": "conv2", "learning_rate_factor": 0.1},
}


def files_of(folder: Any) -> Dict[str, Tuple[int, int]]:
    paths = [path for path in pathlib.Path(folder).rglob("*") if path.is_file()]
    return {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for p in paths}


def warm_job(data: str, model_dir: Any, source: str, steps: int) -> Any:
    changes = {name: dict(fields) for name, fields in WARM_JOB.items()}
    changes["warm_start"]["path"] = source
    return open_job(data, model_dir, train={"steps": steps}, **changes)


@pytest.fixture(scope="module")
def source_run(tmp_path_factory: pytest.TempPathFactory, data_dir: str) -> str:
    """Return a run of six steps whose best checkpoint is that of step 3."""
    folder = str(tmp_path_factory.mktemp("source") / "run")
    data = {"channel_order": "bgr", "pixel_scale": 20.0, "mean_rgb": (90.0, 80.0, 70.0)}
    training = {"steps": 6, "save_every_steps": 3}
    optim = {"ema_decay": 0.5, "learning_rate": 0.05}
    train(open_job(data_dir, folder, data=data, optim=optim, train=training))
    os.remove(os.path.join(folder, "best.json"))
    best.note_best(folder, 3, 0.9)
    return folder


@pytest.fixture(scope="module")
def story(
    tmp_path_factory: pytest.TempPathFactory, source_run: str, data_dir: str
) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("warm")
    data = pictures.make_dataset(folder, ("bee", "cow"), 12).directory
    model_dir = folder / "run"
    before = files_of(source_run)
    job = warm_job(data, model_dir, source_run, 4)
    source = warm_start.read_source(warm_start.locate(source_run), ALEXNET)
    train(job)
    assert files_of(source_run) == before
    early = variables(model_dir)
    made = warm_start.read_record(str(model_dir), ALEXNET)
    taken = warm_start.weights_to_assign(source, made, job.config)
    shutil.move(source_run, source_run + ".away")
    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", output)
        train(warm_job(data, model_dir, source_run, 8))
    shutil.move(source_run + ".away", source_run)
    late = variables(model_dir)
    yield Story(source_run, str(model_dir), taken, early, late, output.getvalue())


def test_the_averages_of_the_best_checkpoint_are_taken(story: Story) -> None:
    record = json.loads(pathlib.Path(story.model_dir, "warm_start.json").read_text())
    assert record["source"] == os.path.join(story.source, "model.ckpt-3")
    assert record["restored"] == list(LAYER_NAMES[:-1])
    assert set(record["new"]) == {"fc8"} and len(record["sha256"]) == 64
    assert record["left_out"] == ["fc8", "global step and optimizer state"]
    assert any("averages" in note for note in record["notes"])
    stored = variables(story.source, 3)
    for layer in LAYER_NAMES[1:-1]:
        name = f"alexnet/{layer}/kernel"
        np.testing.assert_array_equal(story.taken[name], stored[name + AVERAGE])
        assert not np.array_equal(stored[name], stored[name + AVERAGE])


def test_frozen_layers_stay_bit_for_bit(story: Story) -> None:
    for step in (story.early, story.late):
        for name, value in story.taken.items():
            is_frozen = name.startswith(("alexnet/conv1/", "alexnet/conv2/"))
            assert (step[name].tobytes() == value.tobytes()) == is_frozen, name
            assert (
                (name + AVERAGE in step) == (name + "/Adam" in step) == (not is_frozen)
            )
    assert story.early["alexnet/fc8/kernel"].shape == (256, 2)


def test_a_resumed_run_does_not_need_the_source(story: Story) -> None:
    assert story.early["global_step"] == 4 and story.late["global_step"] == 8
    assert set(story.early) == set(story.late)
    name = "alexnet/fc6/kernel"
    assert not np.array_equal(story.early[name], story.late[name])
    assert "starts from    step 4" in story.card
    assert (
        "restored       conv1 conv2 conv3 conv4 conv5 fc6 fc7, learning rate x 0.1"
        in (story.card)
    )
    assert "frozen         conv1 conv2" in story.card


def test_the_rates_of_adam_differ_by_the_factor(story: Story) -> None:
    """The size of a step of Adam is about the rate, for any gradient."""
    moved = np.abs(story.early["alexnet/fc7/bias"] - story.taken["alexnet/fc7/bias"])
    head = np.abs(story.early["alexnet/fc8/bias"])  # The bias starts from 0.
    assert 0 < moved.max() <= 4 * 0.001 * 1.05
    assert 0.004 < head.max() <= 4 * 0.01 * 1.05


def test_only_a_new_run_takes_weights_over(story: Story, source_run: str) -> None:
    record = json.loads(pathlib.Path(story.model_dir, "config.json").read_text())
    data = record["config"]["data"]["path"]
    with pytest.raises(ConfigError, match="warm_start.path is '/another', but"):
        train(warm_job(data, story.model_dir, "/another", 8))
    with pytest.raises(ConfigError, match="warm_start.path is .*, but '' in the"):
        train(open_job(data, source_run, warm_start={"path": story.model_dir}))
    other = {**WARM_JOB, "warm_start": {"path": story.source, "frozen_until": "conv1"}}
    with pytest.raises(ConfigError, match="frozen_until is 'conv1', but 'conv2' in"):
        train(open_job(data, story.model_dir, train={"steps": 8}, **other))


def test_training_from_python_needs_a_source(
    data_dir: str, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(ConfigError, match="'conv1' but warm_start.path is ''"):
        open_job(data_dir, tmp_path / "run", warm_start={"frozen_until": "conv1"})
    assert not (tmp_path / "run").exists()


def first_step(source: Source, config: Config) -> List[Dict[str, np.ndarray]]:
    """Return all variables before and after one step with two other classes."""
    weights = warm_start.weights_to_assign(source, choose(source, "ab"), config)
    assert len(weights) == 14
    training = tiny.make_training(config)._replace(
        num_warm_layers=7, read_weights=lambda: weights
    )
    model_fn = build_model_fn(config, 2, LocalRuntime("cpu"), training)
    with tf.Graph().as_default(), tiny.session() as session:
        images = tf.constant(np.stack([tiny.noise(seed, 63, 63) for seed in (1, 2)]))
        labels = tf.constant([0, 1])
        spec = model_fn({"image": images}, labels, tf.estimator.ModeKeys.TRAIN)
        spec.scaffold.finalize()
        session.run(spec.scaffold.init_op)
        spec.scaffold.init_fn(session)
        by_name = {v.op.name: v for v in tf.global_variables()}
        before = session.run(by_name)
        for name, value in weights.items():
            np.testing.assert_array_equal(before[name], value, err_msg=name)
        session.run(spec.train_op)
        return [before, session.run(by_name)]


def test_moving_averages_start_with_the_weights(known: Source) -> None:
    optim = {"ema_decay": 0.9}
    config = tiny.config(optim=optim, precision={"loss_scale": "dynamic"})
    before, _ = first_step(known, config)
    names = [name for name in before if name.endswith(("kernel", "bias"))]
    assert len(names) == 16
    for name in names:
        np.testing.assert_array_equal(before[name + AVERAGE], before[name])


def test_the_factor_is_of_the_rate_alone(known: Source) -> None:
    """Decay, clipping and loss scaling do not change, and neither does the head."""
    moves = []
    for factor in (1.0, 0.125):
        config = tiny.config(
            optim={"gradient_clip_norm": 0.5, "weight_decay": 0.02},
            precision={"loss_scale": "1024"},
            warm_start={"path": "x", "learning_rate_factor": factor},
        )
        before, after = first_step(known, config)
        assert after["global_step"] == 1
        moves.append({name: after[name] - before[name] for name in before})
    for name in (name for name in moves[0] if name.endswith(("kernel", "bias"))):
        factor = 1.0 if name.startswith("alexnet/fc8/") else 0.125
        scale = np.abs(moves[0][name]).max()
        assert scale > 0, name
        np.testing.assert_allclose(
            moves[1][name], factor * moves[0][name], rtol=0.01, atol=0.01 * scale
        )


# Mistakes.


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_source_must_stay_until_it_is_read(
    is_gone: bool, tmp_path: pathlib.Path, data_dir: str
) -> None:
    layers = make_layers(tiny.config())
    file = write_npy(tmp_path / "a.npy", as_lists(layers))
    job = open_job(data_dir, tmp_path / "run", warm_start={"path": file})
    planned = choose_first_weights(job)
    assert planned is not None
    assert set(read_first_weights(job, planned)) > {"alexnet/conv1/kernel"}
    if is_gone:
        os.remove(file)
    else:
        layers["conv1"]["kernel"][0, 0, 0, 0] += 1
        write_npy(tmp_path / "a.npy", as_lists(layers))
    with pytest.raises(DataError, match="a.npy: .*restore it"):
        read_first_weights(job, planned)


class Mischief:
    """Calls a function when it is unpickled by NumPy."""

    def __init__(self, function: Any, *arguments: Any):
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory, source_run: str) -> Dict[str, str]:
    """Return sources that cannot be used, by name."""
    folder = tmp_path_factory.mktemp("wrong")
    layers = as_lists(make_layers(tiny.config()))
    good = pathlib.Path(write_npy(folder / "good.npy", layers))
    evil = {**layers, "conv1": Mischief(os.mkdir, str(folder / "harm"))}
    write_npy(folder / "evil.npy", evil)
    bomb = {**layers, "conv1": Mischief(codecs.encode, b"0" * 99, "zlib_codec")}
    write_npy(folder / "bomb.npy", bomb)
    write_npy(
        folder / "nan.npy",
        {**layers, "fc7": [layers["fc7"][0], np.inf * layers["fc7"][1]]},
    )
    write_npy(folder / "one.npy", {**layers, "fc7": layers["fc7"][:1], "fc6": "text"})
    write_npy(folder / "list.npy", [1, 2])
    write_npy(folder / "other.npy", {"dense": layers["fc7"]})
    write_npy(folder / "kind.npy", {"conv1": [np.array(["text"])] * 2})
    np.save(str(folder / "plain.npy"), np.zeros(3))
    (folder / "short.npy").write_bytes(good.read_bytes()[:10000])
    (folder / "text.npy").write_text("weights")
    (folder / "weights.caffemodel").write_text("weights")
    (folder / "empty").mkdir()
    (folder / "bare").mkdir()
    for file in pathlib.Path(source_run).glob("model.ckpt-6.*"):
        shutil.copy(str(file), str(folder / "bare"))
    shutil.copytree(str(folder / "bare"), str(folder / "damaged"))
    with next((folder / "damaged").glob("*.data-*")).open("r+b") as stream:
        stream.truncate(100)
    shutil.copytree(str(folder / "bare"), str(folder / "odd"))
    record = json.loads(pathlib.Path(source_run, "config.json").read_text())
    record["config"]["data"]["mean_rgb"] = [90.0, 80.0]
    (folder / "odd" / "config.json").write_text(json.dumps(record))
    paths = {path.name: str(path) for path in folder.iterdir()}
    return {**paths, "missing": str(folder / "missing"), "harm": str(folder / "harm")}


@pytest.mark.parametrize(
    "source, code, message",
    [
        ("missing", 2, "is not there: --warm_start_from takes"),
        ("weights.caffemodel", 2, "is neither a run, a checkpoint nor a .npy file"),
        ("bare/model.ckpt-6.index", 2, "path prefix RUN/model.ckpt-STEP"),
        ("bare/model.ckpt-7", 2, "is not there"),
        ("bare/model.ckpt-6", 3, "no config.json beside it"),
        ("damaged", 3, "no valid checkpoint"),
        ("odd/model.ckpt-6", 3, r"mean_rgb is \[90.0, 80.0\]; it must be three num"),
        ("empty", 3, "no valid checkpoint: give the folder of a run"),
        ("evil.npy", 3, "it refers to posix.mkdir, .*do not trust"),
        ("bomb.npy", 3, "a text in the encoding 'zlib_codec'"),
        ("nan.npy", 3, "fc7: has values that are not finite"),
        ("one.npy", 3, r"2 problems\n  - fc6: is not .*\n  - fc7: is not \[weights"),
        ("list.npy", 3, "expected a pickled dictionary"),
        ("other.npy", 3, "has none of the layers conv1, conv2"),
        ("kind.npy", 3, "an array of .*U4"),
        ("plain.npy", 3, r"an array of float64 \(3,\)"),
        ("short.npy", 3, "expected a pickled dictionary"),
        ("text.npy", 3, "expected a pickled dictionary"),
    ],
)
def test_wrong_sources_get_one_message(
    source: str,
    code: int,
    message: str,
    wrong: Dict[str, str],
    data_dir: str,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture,
) -> None:
    name, _, rest = source.partition("/")
    path = os.path.join(wrong[name], rest).rstrip("/")
    words = ["train", f"--config={TINY}", f"--data_path={data_dir}", "--dry_run"]
    words += [f"--model_dir={tmp_path / 'run'}", f"--warm_start_from={path}"]
    assert cli.main(words) == code
    shown = capsys.readouterr().err
    assert re.search(message, shown), shown
    notes = ("warning: ", "loading TensorFlow")
    errors = [line for line in shown.splitlines() if not line.startswith(notes)]
    assert errors[0].startswith(f"error: {wrong[name]}")
    assert len(errors) <= 3 and "Traceback" not in shown
    assert not os.path.exists(wrong["harm"]) and not list(tmp_path.iterdir())


def test_dry_run_shows_what_would_be_taken_over(
    wrong: Dict[str, str], data_dir: str, tmp_path: pathlib.Path, capsys: Any
) -> None:
    words = ["train", f"--config={TINY}", f"--data_path={data_dir}", "--dry_run"]
    words += [
        f"--model_dir={tmp_path / 'run'}",
        f"--warm_start_from={wrong['good.npy']}",
    ]
    assert cli.main(words) == 0
    card = capsys.readouterr().out
    assert f"starts from    {wrong['good.npy']}\n" in card
    assert "restored       conv1 conv2 conv3 conv4 conv5 fc6 fc7 fc8\n" in card
    assert "note           model.lrn_bias is 2, 1 in the source" in card
    # Caffe divides alpha by the five channels of the sum.
    assert "model.lrn_alpha is 0.0001, 2e-05 in the source" in card
    assert cli.main([*words, "--config.warm_start.frozen_until=fc8"]) == 2
    words = [word for word in words if "warm_start" not in word]
    assert cli.main([*words, "--config.warm_start.frozen_until=conv1"]) == 2
    assert "give --warm_start_from" in capsys.readouterr().err


def test_dry_run_of_servers_that_lack_the_source(
    wrong: Dict[str, str], data_dir: str, tmp_path: pathlib.Path, capsys: Any
) -> None:
    table = str(tmp_path / "table.json")
    rank_table.write(rank_table.make(["10.0.0.1", "10.0.0.2"], 2), table)
    words = ["train", f"--config={TINY}", f"--data_path={data_dir}", "--dry_run"]
    words += [f"--model_dir={tmp_path / 'run'}", f"--rank_table={table}"]
    assert cli.main([*words, f"--warm_start_from={wrong['missing']}"]) == 0
    assert (
        f"{wrong['missing']} is not on this machine: rank 0" in capsys.readouterr().out
    )
    assert cli.main([*words, f"--warm_start_from={wrong['good.npy']}"]) == 0
    shown = capsys.readouterr().out
    assert "restored       conv1" in shown and "is not on this machine" not in shown


def test_two_ranks_start_with_what_rank_0_reads(
    wrong: Dict[str, str], tmp_path: pathlib.Path
) -> None:
    pytest.importorskip("horovod", reason="Horovod is not installed")
    data = pictures.make_dataset(tmp_path / "data", ("bee", "cow"), 12).directory
    changes = {name: dict(fields) for name, fields in WARM_JOB.items()}
    changes["warm_start"]["path"] = wrong["good.npy"]
    config = tiny.config(data={"path": data}, train={"steps": 2}, **changes)
    (tmp_path / "config.json").write_text(json.dumps({"config": config.to_dict()}))
    words = ["train", f"--config={tmp_path / 'config.json'}"]
    weights = train_two_ranks(words, tmp_path)
    assert weights["global_step"] == 2
    for name, value in make_layers(tiny.config())["conv2"].items():
        np.testing.assert_array_equal(weights[f"alexnet/conv2/{name}"], value)
