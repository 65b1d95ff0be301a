"""The network agrees with independent arithmetic that follows the paper."""

from typing import Any, Dict, List, Set, Tuple

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from alexnet_estimator.config import Config, default_config
from alexnet_estimator.networks import find_network
from alexnet_estimator.networks.alexnet_graph import (
    alexnet,
    local_response_normalization,
)
from alexnet_estimator.networks.graphs import count_parameters, variable_shapes
from tests import tiny

Weights = Dict[str, np.ndarray]
GROUPED = ("conv2", "conv4", "conv5")


def build(size: int, num_classes: int = 10, batch: int = 2, **model: Any) -> tf.Tensor:
    images = tf.zeros([batch, size, size, 3])
    return alexnet(images, num_classes, tiny.config(model=model).model)


def shapes() -> Dict[str, List[int]]:
    """Return the shapes of the graph's variables by their name in the network."""
    return {
        v.op.name.replace("alexnet/", ""): v.shape.as_list()
        for v in tf.trainable_variables()
    }


# The network in NumPy, written from the paper.


def lrn(x: np.ndarray, model: Config) -> np.ndarray:
    channels = x.shape[3]
    result = np.empty_like(x)
    for i in range(channels):
        low, high = max(0, i - model.lrn_radius), min(
            channels - 1, i + model.lrn_radius
        )
        energy = sum(x[..., j] ** 2 for j in range(low, high + 1))
        denominator = (model.lrn_bias + model.lrn_alpha * energy) ** model.lrn_beta
        result[..., i] = x[..., i] / denominator
    return result


def convolve(x: np.ndarray, kernel: np.ndarray, stride: int, pad: int) -> np.ndarray:
    x = np.pad(x, [(0, 0), (pad, pad), (pad, pad), (0, 0)])
    size = kernel.shape[0]
    output = (x.shape[1] - size) // stride + 1
    reach = (output - 1) * stride + 1
    return sum(
        x[:, i : i + reach : stride, j : j + reach : stride] @ kernel[i, j]
        for i in range(size)
        for j in range(size)
    )


def pool(x: np.ndarray) -> np.ndarray:
    """Pool maxima of 3x3 with stride 2; the last window may exceed the edge."""
    output = -(-(x.shape[1] - 3) // 2) + 1
    rows = [
        [x[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((1, 2)) for j in range(output)]
        for i in range(output)
    ]
    return np.array(rows).transpose(2, 0, 1, 3)


def forward(x: np.ndarray, weights: Weights, model: Config) -> np.ndarray:
    def conv(x: np.ndarray, name: str, stride: int, pad: int) -> np.ndarray:
        kernel, bias = weights[name + "/kernel"], weights[name + "/bias"]
        if model.groups == 2 and name in GROUPED:
            inside, outside = x.shape[3] // 2, kernel.shape[3] // 2
            assert kernel.shape[2] == inside
            first = convolve(x[..., :inside], kernel[..., :outside], stride, pad)
            second = convolve(x[..., inside:], kernel[..., outside:], stride, pad)
            return np.maximum(np.concatenate([first, second], 3) + bias, 0)
        return np.maximum(convolve(x, kernel, stride, pad) + bias, 0)

    x = pool(lrn(conv(x, "conv1", 4, 0), model))
    x = pool(lrn(conv(x, "conv2", 1, 2), model))
    x = conv(conv(x, "conv3", 1, 1), "conv4", 1, 1)
    x = pool(conv(x, "conv5", 1, 1)).reshape(len(x), -1)
    for name in ("fc6", "fc7"):
        x = np.maximum(x @ weights[name + "/kernel"] + weights[name + "/bias"], 0)
    return x @ weights["fc8/kernel"] + weights["fc8/bias"]


# With 63 and 71 pixels, pooling windows exceed the edge; with 99, only some do.
@pytest.mark.parametrize("groups,size", [(2, 63), (1, 71), (2, 99)])
def test_network_equals_numpy(groups: int, size: int) -> None:
    config = tiny.config(model={"groups": groups, "lrn_alpha": 0.1})
    random = np.random.RandomState(size)
    images = random.normal(size=[2, size, size, 3]).astype(np.float32)
    with tf.Graph().as_default(), tiny.session() as session:
        logits = alexnet(tf.constant(images), 10, config.model)
        variables = tf.trainable_variables()
        values = [random.normal(0.05, 0.1, v.shape.as_list()) for v in variables]
        session.run([tf.assign(v, value) for v, value in zip(variables, values)])
        found = session.run(logits)
        weights = dict(zip(shapes(), values))
    expected = forward(images.astype(np.float64), weights, config.model)
    assert np.std(expected) > 0.01
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.std(expected))


def test_lrn_equals_its_formula() -> None:
    x = np.random.RandomState(0).normal(0, 100, [2, 3, 3, 12]).astype(np.float32)
    variants: List[Dict[str, float]] = [
        {},  # The paper has radius 2, its n = 5.
        {"lrn_radius": 5},  # The reference implementation has this radius.
        {"lrn_radius": 0, "lrn_bias": 1.0},
        {"lrn_alpha": 0.1, "lrn_beta": 0.5},
        {"lrn_bias": 7.0, "lrn_alpha": 0.01, "lrn_beta": 1.0},
    ]
    models = [tiny.config(model=variant).model for variant in variants]
    with tf.Graph().as_default(), tiny.session() as session:
        found = session.run([local_response_normalization(x, m) for m in models])
    for value, model in zip(found, models):
        expected = lrn(x.astype(np.float64), model)
        np.testing.assert_allclose(value, expected, rtol=1e-4)
        assert np.abs(value / x - 1).max() > 0.1  # It changes the values.


def parameters_of_the_paper(groups: int, num_classes: int) -> int:
    convolutions = [(11, 3, 96, 1), (5, 96, 256, groups), (3, 256, 384, 1)]
    convolutions += [(3, 384, 384, groups), (3, 384, 256, groups)]
    dense = [(6 * 6 * 256, 4096), (4096, 4096), (4096, num_classes)]
    return sum(k * k * i * o // g + o for k, i, o, g in convolutions) + sum(
        i * o + o for i, o in dense
    )


@pytest.mark.parametrize("groups,num_classes", [(2, 1000), (1, 1000), (2, 2)])
def test_number_of_parameters(groups: int, num_classes: int) -> None:
    settings = default_config()
    settings.model.groups = groups
    found = count_parameters(num_classes, 227, settings.model)
    assert found == parameters_of_the_paper(groups, num_classes)
    if (groups, num_classes) == (2, 1000):
        assert found == 60_965_224


def test_variables_have_the_names_of_the_layers() -> None:
    weights, others = variable_shapes(2, 63, tiny.config().model)
    assert list(weights) == [
        f"alexnet/{layer}/{part}"
        for layer in find_network("alexnet").layer_names
        for part in ("kernel", "bias")
    ]
    assert others == {}


def test_every_size_builds() -> None:
    # conv1 has stride 4: other sizes give the same shapes as these.
    for size in range(63, 228, 4):
        with tf.Graph().as_default():
            assert build(size).shape.as_list() == [2, 10]
            side = (size - 11) // 4 + 1
            for _ in range(3):
                side = -(-(side - 3) // 2) + 1
            assert shapes()["fc6/kernel"] == [side * side * 16, 256], size


def test_sides_must_be_equal() -> None:
    with tf.Graph().as_default(), pytest.raises(ValueError, match="square"):
        alexnet(tf.zeros([1, 63, 67, 3]), 2, tiny.config().model)


def test_width_multiplier_scales_every_layer_to_multiples_of_8() -> None:
    with tf.Graph().as_default():
        build(63, num_classes=3, width_multiplier=0.3, fc6_units=100)
        found = [shape[0] for name, shape in shapes().items() if name.endswith("bias")]
    assert found == [32, 80, 112, 112, 80, 32, 1232, 3]


def test_channels_of_convolutions_can_be_chosen() -> None:
    channels = (64, 192, 384, 384, 256)
    with tf.Graph().as_default():
        build(63, num_classes=3, conv_channels=channels, width_multiplier=0.5)
        found = [shape for name, shape in shapes().items() if name.endswith("kernel")]
    assert [shape[3] for shape in found[:5]] == [32, 96, 192, 192, 128]
    assert [shape[2] for shape in found[:5]] == [3, 16, 96, 96, 96]  # Two groups.


@pytest.mark.parametrize("groups", [1, 2])
def test_gradients_reach_every_variable(groups: int) -> None:
    images = np.random.RandomState(0).normal(size=[4, 63, 63, 3])
    config = tiny.config(model={"groups": groups})
    with tf.Graph().as_default(), tiny.session() as session:
        tf.set_random_seed(1)
        logits = alexnet(tf.constant(images, tf.float32), 5, config.model)
        loss = tf.reduce_sum(logits * tf.random_normal([4, 5]))
        variables = tf.trainable_variables()
        session.run(tf.global_variables_initializer())
        gradients = session.run(tf.gradients(loss, variables))
    assert len(gradients) == 16
    for variable, gradient in zip(variables, gradients):
        assert np.isfinite(gradient).all()
        # Each channel of each tower learns, so all of them are in the graph.
        by_output = np.abs(gradient).reshape(-1, gradient.shape[-1]).sum(0)
        assert (by_output > 0).mean() > 0.4, variable.op.name


def initial_weights(initializer: str) -> Weights:
    with tf.Graph().as_default(), tiny.session() as session:
        tf.set_random_seed(3)
        build(63, initializer=initializer, width_multiplier=0.25)
        session.run(tf.global_variables_initializer())
        return dict(zip(shapes(), session.run(tf.trainable_variables())))


def ungrouped(kernel: np.ndarray) -> np.ndarray:
    """Return the kernel over all channels that is equivalent to two towers."""
    height, width, inputs, outputs = kernel.shape
    result = np.zeros([height, width, 2 * inputs, outputs], np.float32)
    half = outputs // 2
    result[:, :, :inputs, :half] = kernel[..., :half]
    result[:, :, inputs:, half:] = kernel[..., half:]
    return result


@pytest.mark.parametrize("tower", [8, 16, 24, 32])
def test_gradients_of_towers_are_those_of_one_network_with_holes(tower: int) -> None:
    """Builds of TensorFlow use other layouts and fusions for other widths."""
    channels = (16, 2 * tower, 16, 2 * tower, 2 * tower)
    images = np.random.RandomState(0).normal(0, 1, [4, 63, 63, 3]).astype(np.float32)
    slopes: List[List[np.ndarray]] = []
    kernels: List[np.ndarray] = []
    for groups in (2, 1):
        model = tiny.config(
            model={"groups": groups, "conv_channels": channels, "width_multiplier": 1.0}
        ).model
        with tf.Graph().as_default(), tiny.session() as session:
            logits = alexnet(tf.constant(images), 4, model)
            weights = tf.trainable_variables()
            gradients = tf.gradients(logits[:, 0], weights)
            session.run(tf.global_variables_initializer())
            for variable, kernel in zip(weights, kernels):
                wide = kernel if kernel.shape == variable.shape else ungrouped(kernel)
                session.run(tf.assign(variable, wide))
            kernels = session.run(weights)
            slopes.append(session.run(gradients))
    for variable, found, expected in zip(weights, *slopes):
        if found.shape != expected.shape:
            inside = ungrouped(np.ones_like(found)) > 0
            found, expected = ungrouped(found)[inside], expected[inside]
        scale = np.abs(expected).max()
        np.testing.assert_allclose(
            found, expected, rtol=1e-3, atol=1e-4 * scale, err_msg=variable.op.name
        )


def test_paper_initializer() -> None:
    weights = initial_weights("paper")
    with_ones = ("conv2", "conv4", "conv5", "fc6", "fc7")  # Section 5.
    for name, value in weights.items():
        layer, kind = name.split("/")
        if kind == "bias":
            assert (value == (1 if layer in with_ones else 0)).all(), name
        else:
            bound = 5 / np.sqrt(value.size)
            assert abs(value.std() / 0.01 - 1) < bound, name
            assert abs(value.mean()) < 0.01 * bound, name


def test_he_initializer_keeps_the_variance() -> None:
    for name, value in initial_weights("he_normal").items():
        if name.endswith("bias"):
            assert (value == 0).all(), name
            continue
        fan_in = value.size // value.shape[-1]
        bound = 5 / np.sqrt(value.size)
        assert abs(value.var() * fan_in / 2 - 1) < 2 * bound, name
        assert abs(value.mean()) < np.sqrt(2 / fan_in) * bound, name


def test_dropout_is_called_after_fc6_and_fc7_only() -> None:
    calls: List[Tuple[str, float, List[int]]] = []

    def drop_all(x: tf.Tensor, keep_prob: float, name: str) -> tf.Tensor:
        calls.append((name, keep_prob, x.shape.as_list()))
        assert x.op.type == "Relu"
        return x * 0.0 if name == "fc7" else x

    config = tiny.config(model={"keep_prob": 0.7})
    with tf.Graph().as_default(), tiny.session() as session:
        logits = alexnet(tf.ones([2, 63, 63, 3]), 5, config.model, drop_all)
        session.run(tf.global_variables_initializer())
        assert not session.run(logits).any()  # Its only input is dropped.
    assert calls == [("fc6", 0.7, [2, 256]), ("fc7", 0.7, [2, 256])]


def test_float16_computes_products_and_keeps_weights_and_logits() -> None:
    images = np.random.RandomState(0).normal(size=[2, 63, 63, 3]).astype(np.float32)
    model = tiny.config(model={"lrn_alpha": 0.1}).model
    with tf.Graph().as_default() as graph, tiny.session() as session:
        with tf.variable_scope("net"):
            exact = alexnet(tf.constant(images), 10, model)
        num_operations = len(graph.get_operations())
        with tf.variable_scope("net", reuse=True):
            half = alexnet(tf.constant(images), 10, model, compute_dtype=tf.float16)
        assert half.dtype == tf.float32
        assert {v.dtype.base_dtype for v in tf.global_variables()} == {tf.float32}
        kinds = ("Conv2D", "MatMul", "LRN")
        dtypes: Dict[str, Set[tf.DType]] = {kind: set() for kind in kinds}
        for operation in graph.get_operations()[num_operations:]:
            if operation.type in kinds:
                dtypes[operation.type].add(operation.outputs[0].dtype)
        session.run(tf.global_variables_initializer())
        expected, found = session.run([exact, half])
    assert dtypes == {
        "Conv2D": {tf.float16},
        "MatMul": {tf.float16},
        "LRN": {tf.float32},
    }
    assert not np.array_equal(found, expected)
    np.testing.assert_allclose(found, expected, atol=0.02 * np.std(expected))
