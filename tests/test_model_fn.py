"""Loss, metrics and training steps of the model function."""

import os
from typing import Any, Dict, Iterator, List, NamedTuple, Tuple
from unittest import mock

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from alexnet_estimator import checkpoints, inputs
from alexnet_estimator.config import Config
from alexnet_estimator.errors import ConfigError
from alexnet_estimator.hooks.answers import NUM_SHOWN, AnswersHook, decode
from alexnet_estimator.hooks.step_tensors import StepTensors
from alexnet_estimator.inputs import Reader
from alexnet_estimator.model_fn import _answers, build_model_fn, cross_entropy
from alexnet_estimator.optim.schedules import learning_rate
from alexnet_estimator.records.dataset import Dataset
from alexnet_estimator.runtime.base import Runtime
from alexnet_estimator.runtime.local import LocalRuntime
from tests import tiny

NUM_CLASSES = 7
ModeKeys = tf.estimator.ModeKeys
Arrays = Dict[str, np.ndarray]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: Any) -> Dataset:
    """Return 22 pictures of seven classes in two files."""
    records = [(tiny.encode(tiny.noise(i)), i % NUM_CLASSES) for i in range(22)]
    shards = [records[:15], records[15:]]
    return tiny.write_dataset(tmp_path_factory.mktemp("data"), shards, NUM_CLASSES)


class Step(NamedTuple):
    """A training graph with an initialised session."""

    session: tf.Session
    spec: tf.estimator.EstimatorSpec
    tensors: StepTensors
    features: Dict[str, tf.Tensor]
    labels: tf.Tensor

    def feeds(self, seed: int = 0, colour_offset: float = 0.0) -> Dict[Any, Any]:
        """Return a batch whose labels are its colours."""
        random = np.random.RandomState(seed)
        batch_size = self.labels.shape[0].value
        labels = random.randint(0, NUM_CLASSES, [batch_size])
        colours = np.stack([labels & 1, labels >> 1 & 1, labels >> 2], axis=1) * 128
        image = random.randint(0, 128, [batch_size, 63, 63, 3])
        return {
            self.features["image"]: image + colours[:, None, None],
            self.features["colour_offset"]: np.full([batch_size, 3], colour_offset),
            self.labels: labels,
        }

    def run(self, seed: int = 0, colour_offset: float = 0.0) -> StepTensors:
        fetches = [self.spec.train_op, list(self.tensors)]
        return StepTensors(
            *self.session.run(fetches, self.feeds(seed, colour_offset))[1]
        )

    def variables(self) -> Arrays:
        by_name = {v.op.name: v for v in tf.global_variables()}
        return self.session.run(by_name)


def make_step(
    settings: Config,
    runtime: Runtime = LocalRuntime("cpu"),
    plateau: float = 1.0,
    batch_size: int = 4,
) -> Step:
    """Build a training graph in the default graph."""
    tf.set_random_seed(settings.train.seed)
    caught: List[StepTensors] = []

    def make_hooks(tensors: StepTensors) -> list:
        caught.append(tensors)
        return []

    training = tiny.make_training(settings, make_hooks)
    training = training._replace(plateau_factor=plateau)
    features = {
        "image": tf.placeholder(tf.uint8, [batch_size, 63, 63, 3]),
        "colour_offset": tf.placeholder(tf.float32, [batch_size, 3]),
    }
    labels = tf.placeholder(tf.int32, [batch_size])
    model_fn = build_model_fn(settings, NUM_CLASSES, runtime, training)
    spec = model_fn(features, labels, ModeKeys.TRAIN)
    session = tiny.session(num_threads=1)
    session.run(tf.global_variables_initializer())
    return Step(session, spec, caught[0], features, labels)


@pytest.fixture
def graph() -> Iterator[tf.Graph]:
    with tf.Graph().as_default() as fresh:
        yield fresh


# Evaluation.


class Evaluator:
    """Evaluation and prediction with the same random weights."""

    def __init__(self, runtime: Runtime):
        model_fn = build_model_fn(tiny.config(), NUM_CLASSES, runtime)
        with tf.Graph().as_default():
            tf.set_random_seed(1)
            self.image = tf.placeholder(tf.uint8, [None, 63, 63, 3])
            self.weight = tf.placeholder(tf.float32, [None])
            self.labels = tf.placeholder(tf.int32, [None])
            features = {"image": self.image, "weight": self.weight}
            metrics = model_fn(features, self.labels, ModeKeys.EVAL).eval_metric_ops
            self.values = {name: value for name, (value, _) in metrics.items()}
            self.updates = [update for _, update in metrics.values()]
            tf.get_variable_scope().reuse_variables()
            features = {"image": self.image}
            self.predictions = model_fn(features, None, ModeKeys.PREDICT).predictions
            self.start = tf.local_variables_initializer()
            self.session = tiny.session()
            self.session.run(tf.global_variables_initializer())

    def evaluate(self, batches: List[Any]) -> Arrays:
        self.session.run(self.start)
        counting = AnswersHook(rank=0)
        with self.session.graph.as_default():
            counting.begin()
        fetches = counting.before_run(None).fetches
        for features, labels in batches:
            feeds = {self.image: features["image"], self.weight: features["weight"]}
            _, answers = self.session.run(
                [self.updates, fetches], {**feeds, self.labels: labels}
            )
            counting.after_run(None, mock.Mock(results=answers))
        self.shown = counting.shown
        confusion = np.zeros([NUM_CLASSES, NUM_CLASSES])
        confusion[tuple(counting.rows[:, :2].T)] = counting.rows[:, 2]
        return {**self.session.run(self.values), "confusion_matrix": confusion}


def read_eval(dataset: Dataset, reader: Reader) -> List[Any]:
    data = tiny.config().data
    return tiny.read(lambda: inputs.eval_batches(dataset, data, reader))


def test_shown_classes_are_those_that_are_counted(graph: tf.Graph) -> None:
    # In float32, the softmax of these logits has three equal values.
    logits = tf.constant([[0.0, 1e-9, 0.0]])
    rows, probabilities = _answers(logits, tf.constant([1]), tf.constant([1.0]))
    with tf.Session() as session:
        answers, shares = session.run([rows, probabilities])
    assert answers.tolist() == [[1, 1, 1, 1, 0, 2]]
    np.testing.assert_allclose(shares, [[1 / 3] * 3], rtol=1e-6)


def test_masked_evaluation_equals_image_by_image(dataset: Dataset) -> None:
    evaluator = Evaluator(LocalRuntime("cpu"))
    ((features, labels),) = read_eval(dataset, Reader(0, 1, 22))
    feeds = {evaluator.image: features["image"]}
    predictions = evaluator.session.run(evaluator.predictions, feeds)
    logits = predictions["logits"].astype(np.float64)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(predictions["probabilities"], shares, rtol=1e-4)
    confusion = np.zeros([NUM_CLASSES, NUM_CLASSES])
    num_top_5 = 0
    for label, row in zip(labels, logits):
        confusion[label, row.argmax()] += 1
        num_top_5 += (row > row[label]).sum() < 5
    # Neither figure is trivial, so that a wrong implementation would be noticed.
    assert 0 < np.trace(confusion) and num_top_5 < 22
    expected = {
        "num_images": 22,
        "loss_sum": -np.log(shares[np.arange(22), labels]).sum(),
        "num_top_5": num_top_5,
        "confusion_matrix": confusion,
    }
    # 22 = 4 * 5 + 2: the last batch is padded with 3 black images of class 0.
    for batch_size in (22, 5, 1):
        found = evaluator.evaluate(read_eval(dataset, Reader(0, 1, batch_size)))
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-4, err_msg=name)
    is_wrong = logits.argmax(1) != labels
    worst = np.argsort(np.where(is_wrong, -shares.max(1), 0))[:NUM_SHOWN]
    assert len(worst) == NUM_SHOWN and is_wrong[worst].all()
    right = np.flatnonzero(~is_wrong)[:NUM_SHOWN]
    positions = [answer.position for answer in evaluator.shown]
    assert positions == [*worst, *right]
    for answer in evaluator.shown:
        likeliest = np.argsort(-logits[answer.position])[:3]
        assert answer.classes == tuple(likeliest)
        assert answer.label == labels[answer.position]
        np.testing.assert_allclose(
            answer.probabilities, shares[answer.position, likeliest], rtol=1e-4
        )
        assert decode(np.array(answer.encode())) == answer
    padding = {
        "image": np.zeros([NUM_CLASSES, 63, 63, 3]),
        "weight": np.zeros([NUM_CLASSES]),
    }
    nothing = evaluator.evaluate([(padding, np.arange(NUM_CLASSES))])
    assert not any(value.any() for value in nothing.values())
    assert evaluator.shown == []
    parts = [
        evaluator.evaluate(read_eval(dataset, Reader(rank, 3, 5))) for rank in range(3)
    ]
    for name, value in expected.items():
        total = sum(part[name] for part in parts)
        np.testing.assert_allclose(total, value, rtol=1e-4, err_msg=name)


def test_views_of_a_picture_are_averaged() -> None:
    images = np.random.RandomState(0).randint(0, 256, [3, 10, 63, 63, 3])
    model_fn = build_model_fn(tiny.config(), NUM_CLASSES, LocalRuntime("cpu"))
    with tf.Graph().as_default(), tiny.session() as session:
        views = tf.constant(images, tf.uint8)
        found = model_fn({"image": views}, None, ModeKeys.PREDICT).predictions
        tf.get_variable_scope().reuse_variables()
        single = {"image": tf.reshape(views, [30, 63, 63, 3])}
        each = model_fn(single, None, ModeKeys.PREDICT).predictions["probabilities"]
        session.run(tf.global_variables_initializer())
        averaged, separate = session.run([found["probabilities"], each])
    expected = separate.reshape([3, 10, NUM_CLASSES]).mean(1)
    np.testing.assert_allclose(averaged, expected, rtol=1e-4)


def test_evaluation_sums_over_ranks(dataset: Dataset) -> None:
    """Ranks add up the final value, and not the update of every batch."""

    class Threefold(LocalRuntime):
        def all_reduce_sum(self, tensor: tf.Tensor) -> tf.Tensor:
            return 3 * tensor

    batches = read_eval(dataset, Reader(0, 1, 5))
    once = Evaluator(LocalRuntime("cpu")).evaluate(batches)
    thrice = Evaluator(Threefold("cpu")).evaluate(batches)
    for name in ("loss_sum", "num_images", "num_top_5"):
        np.testing.assert_allclose(thrice[name], 3 * once[name], rtol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_with_label_smoothing(smoothing: float) -> None:
    logits = np.random.RandomState(0).normal(0, 2, [3, 4]).astype(np.float32)
    labels = [2, 0, 3]
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    expected = -(1 - smoothing) * logs[range(3), labels] - smoothing * logs.mean(1)
    with tf.Graph().as_default(), tiny.session() as session:
        targets = tf.one_hot(labels, 4)
        found = session.run(cross_entropy(targets, tf.constant(logits), smoothing))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


# One training step.


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_a_step_clips_the_gradient_and_decays_weights(
    momentum: float, graph: tf.Graph
) -> None:
    settings = tiny.config(
        model={"keep_prob": 1.0},
        optim={
            "momentum": momentum,
            "weight_decay": 0.02,
            "gradient_clip_norm": 0.5,
            "label_smoothing": 0.1,
            "schedule": "polynomial",
            "learning_rate": 0.2,
            "warmup_epochs": 0.8,
        },
    )
    step = make_step(settings, plateau=0.25)
    tf.get_variable_scope().reuse_variables()
    predict = build_model_fn(settings, NUM_CLASSES, LocalRuntime("cpu"))
    logits = predict(step.features, None, ModeKeys.PREDICT).predictions["logits"]
    targets = tf.one_hot(step.labels, NUM_CLASSES)
    loss = tf.reduce_mean(cross_entropy(targets, logits, 0.1))
    gradients = tf.gradients(loss, tf.trainable_variables())
    plan = tiny.make_training(settings).plan
    velocities: List[Any] = [0.0] * len(gradients)
    for number in range(6):
        before = step.session.run(tf.trainable_variables())
        expected_loss, slopes = step.session.run([loss, gradients], step.feeds(number))
        seen = step.run(number)
        norm = np.sqrt(sum((slope.astype(np.float64) ** 2).sum() for slope in slopes))
        rate = 0.25 * float(learning_rate(number, plan))
        assert norm > 0.5 and rate > 0
        assert seen.loss == pytest.approx(expected_loss, rel=1e-5)
        assert seen.gradient_norm == pytest.approx(norm, rel=1e-4)
        assert seen.learning_rate == pytest.approx(rate, rel=1e-5)
        assert (seen.loss_scale, seen.num_skipped) == (1, 0)
        after = step.session.run(tf.trainable_variables())
        for i, (old, new, slope) in enumerate(zip(before, after, slopes)):
            decay = 0.02 * old * (old.ndim > 1)
            velocities[i] = momentum * velocities[i] + slope * 0.5 / norm + decay
            np.testing.assert_allclose(
                new - old, -rate * velocities[i], rtol=1e-2, atol=1e-7
            )


@pytest.mark.parametrize("loss_scale", ["dynamic", "512"])
def test_an_overflowed_step_changes_nothing(loss_scale: str, graph: tf.Graph) -> None:
    settings = tiny.config(
        optim={"ema_decay": 0.9, "gradient_clip_norm": 1.0},
        precision={"loss_scale": loss_scale},
    )
    step = make_step(settings)
    step.run()
    for number, value in enumerate((np.inf, np.nan), 1):
        before = step.variables()
        seen = step.run(colour_offset=value)
        assert not np.isfinite(seen.gradient_norm)
        after = step.variables()
        assert after["loss_scale/num_skipped"] == number
        for name in before:
            if not name.startswith("loss_scale/"):
                np.testing.assert_array_equal(after[name], before[name], err_msg=name)
        assert step.session.run(step.spec.loss, step.feeds(0, value)) == 0  # See there.
    before = after
    step.run(1)
    for name, value in step.variables().items():
        is_counter = name.startswith("loss_scale/")
        assert is_counter or not np.array_equal(value, before[name]), name


class RecordingRank(tiny.SimulatedRank):
    """Records the arguments of dropout."""

    def __init__(self, rank: int, num_ranks: int):
        super().__init__(rank, num_ranks)
        self.seeds: List[tf.Tensor] = []

    def dropout(self, x: tf.Tensor, keep_prob: float, seed: tf.Tensor) -> tf.Tensor:
        self.seeds.append(seed)
        return super().dropout(x, keep_prob, seed)


def test_the_graph_has_named_parts_and_variables_keep_their_names() -> None:
    with tf.Graph().as_default() as graph:
        step = make_step(tiny.config(optim={"optimizer": "adam"}))
        scopes = {op.name.split("/")[0] for op in graph.get_operations()}
        assert {"loss", "metrics", "schedule", "optimizer"} <= scopes
        names = {name.split("/")[0] for name in step.variables()}
        assert names == {"alexnet", "beta1_power", "beta2_power", "global_step"}
        updates = [op.name for op in graph.get_operations() if "update_" in op.name]
        assert {name.split("/")[0] for name in updates} == {"optimizer"}


def test_all_but_the_frozen_layers_are_trained() -> None:
    frozen = {"path": "x", "frozen_until": "conv5"}
    with tf.Graph().as_default():
        step = make_step(tiny.config(warm_start=frozen))
        before = step.variables()
        step.run()
        after = step.variables()
        step.session.close()
    weights = [name for name in after if name.endswith(("/kernel", "/bias"))]
    changed = [n for n in weights if not np.array_equal(before[n], after[n])]
    layers = {name.split("/")[1] for name in changed}
    assert len(weights) == 16 and layers == {"fc6", "fc7", "fc8"}


def test_dropout_differs_by_layer_rank_and_step_alone() -> None:
    def seeds(rank: int, seed: int = 0) -> List[Tuple[int, ...]]:
        runtime = RecordingRank(rank, 4)
        settings = tiny.config(train={"seed": seed})
        with tf.Graph().as_default():
            step = make_step(settings, runtime)
            found = []
            for number in range(3):
                found += step.session.run(runtime.seeds, step.feeds())
                step.run(number)
            step.session.close()
        assert len(runtime.seeds) == 2
        return [tuple(seed) for seed in found]

    ranks = [seeds(rank) for rank in range(2)]
    assert len({seed for found in ranks for seed in found}) == 2 * 3 * 2
    assert seeds(1) == ranks[1]
    assert seeds(0, seed=2**31 - 1) != ranks[0]


def test_dropout_keeps_the_mean() -> None:
    runtime = LocalRuntime("cpu")
    ones = np.ones([100, 200], np.float32)
    with tf.Graph().as_default(), tiny.session() as session:
        first, same, other, all_kept, half = session.run(
            [
                runtime.dropout(tf.constant(ones), 0.8, tf.constant([1, 2])),
                runtime.dropout(tf.constant(ones), 0.8, tf.constant([1, 2])),
                runtime.dropout(tf.constant(ones), 0.8, tf.constant([1, 3])),
                runtime.dropout(tf.constant(ones), 1.0, tf.constant([1, 2])),
                runtime.dropout(tf.ones([9], tf.float16), 0.5, tf.constant([1, 2])),
            ]
        )
    np.testing.assert_allclose(np.unique(first), [0, 1.25])
    assert abs(first.mean() - 1) < 5 * 0.5 / np.sqrt(first.size)
    np.testing.assert_array_equal(first, same)
    assert 0.2 < (first != other).mean() < 0.44  # 2 * 0.2 * 0.8 = 0.32.
    np.testing.assert_array_equal(all_kept, ones)
    assert half.dtype == np.float16


# Whole runs.


def run_steps(settings: Config, num_steps: int) -> List[StepTensors]:
    with tf.Graph().as_default():
        step = make_step(settings)
        seen = [step.run(number % 4) for number in range(num_steps)]
        step.session.close()
    return seen


def test_equal_seeds_give_equal_runs() -> None:
    first, same = (run_steps(tiny.config(), 5) for _ in range(2))
    other = run_steps(tiny.config(train={"seed": 1}), 5)
    assert [seen.loss for seen in first] == [seen.loss for seen in same]
    assert all(a.loss != b.loss for a, b in zip(first, other))


def test_mixed_precision_learns_as_float32_does() -> None:
    """The first losses agree within 2 %, and both runs learn four batches."""
    losses, weights = [], []  # type: List[List[float]], List[np.ndarray]
    for mode in ("float32", "mixed"):
        settings = tiny.config(
            model={"keep_prob": 1.0},
            optim={"learning_rate": 0.002},
            precision={"mode": mode},
        )
        with tf.Graph().as_default():
            step = make_step(settings, batch_size=2)
            variables = tf.trainable_variables()
            weights = weights or step.session.run(variables)
            step.session.run([tf.assign(*pair) for pair in zip(variables, weights)])
            by_step: Dict[int, float] = {}
            while len(by_step) < 100:
                # A skipped step is repeated with the same batch.
                number = int(step.session.run(tf.train.get_global_step()))
                by_step[number] = step.run(number % 4).loss
            losses.append(list(by_step.values()))
            step.session.close()
    exact, mixed = np.array(losses)
    assert (exact != mixed).any()
    np.testing.assert_allclose(mixed[:10], exact[:10], rtol=0.02)
    assert exact[:4].mean() > 1.5
    assert exact[-4:].mean() < 0.05 and mixed[-4:].mean() < 0.05


def test_evaluation_restores_the_averages(dataset: Dataset, tmp_path: Any) -> None:
    settings = tiny.config(optim={"ema_decay": 0.9, "learning_rate": 0.05})
    tiny.train(settings, dataset, tmp_path, 4)
    prefix = checkpoints.latest(str(tmp_path))
    reader = tf.train.load_checkpoint(prefix)
    model_fn = build_model_fn(settings, NUM_CLASSES, LocalRuntime("cpu"))
    for mode in (ModeKeys.EVAL, ModeKeys.PREDICT):
        with tf.Graph().as_default(), tiny.session() as session:
            features = {
                "image": tf.zeros([1, 63, 63, 3], tf.uint8),
                "weight": tf.ones([1]),
            }
            spec = model_fn(features, tf.zeros([1], tf.int32), mode)
            spec.scaffold.saver.restore(session, prefix)
            assert session.run(tf.train.get_global_step()) == 4
            for variable in tf.trainable_variables():
                name = variable.op.name
                average = reader.get_tensor(name + "/ExponentialMovingAverage")
                assert not np.array_equal(average, reader.get_tensor(name))
                np.testing.assert_array_equal(session.run(variable), average)


def test_resumed_training_equals_uninterrupted(dataset: Dataset, tmp_path: Any) -> None:
    """The run uses augmentation, colour noise, dropout, averages and a loss scale."""
    settings = tiny.config(
        data={"colour_noise_std": 0.1},
        optim={"schedule": "cosine", "ema_decay": 0.9, "learning_rate": 0.02},
        precision={"loss_scale": "dynamic", "growth_steps": 3},
    )
    whole, parts = str(tmp_path / "whole"), str(tmp_path / "parts")
    tiny.train(settings, dataset, whole, 9)
    for start, stop in ((0, 4), (4, 9)):
        tiny.train(settings, dataset, parts, stop, start)
    names = sorted(os.path.basename(p) for p in checkpoints.list_checkpoints(parts))
    assert names == ["model.ckpt-4", "model.ckpt-9"]
    first, second, middle = (
        tf.train.load_checkpoint(os.path.join(folder, name))
        for folder, name in (
            (whole, "model.ckpt-9"),
            (parts, "model.ckpt-9"),
            (parts, "model.ckpt-4"),
        )
    )
    shapes = first.get_variable_to_shape_map()
    assert shapes == second.get_variable_to_shape_map()
    assert first.get_tensor("loss_scale/scale") == 32768 * 8
    for name in shapes:
        np.testing.assert_array_equal(
            second.get_tensor(name), first.get_tensor(name), err_msg=name
        )
    kernel = "alexnet/fc7/kernel"
    assert not np.array_equal(first.get_tensor(kernel), middle.get_tensor(kernel))


def test_precision_may_change_where_a_run_goes_on(
    dataset: Dataset, tmp_path: Any
) -> None:
    def train(first_step: int, last_step: int, **changes: Any) -> Any:
        settings = tiny.config(**changes)
        tiny.train(settings, dataset, tmp_path, last_step, first_step)
        return tf.train.load_checkpoint(checkpoints.latest(str(tmp_path)))

    dynamic = {"loss_scale": "dynamic", "initial_loss_scale": 64.0, "growth_steps": 2}
    train(0, 2)
    second = train(2, 4, precision=dynamic)
    assert second.get_tensor("loss_scale/scale") == 128  # The initial value.
    third = train(4, 5)
    assert not third.has_tensor("loss_scale/scale")
    # And no weight or slot did: a step at a rate of almost 0 changes nothing.
    still = train(5, 6, precision=dynamic, optim={"learning_rate": 1e-30})
    for name in third.get_variable_to_shape_map():
        if "Momentum" not in name and name != "global_step":
            np.testing.assert_allclose(
                still.get_tensor(name), third.get_tensor(name), 0, 1e-20, err_msg=name
            )
    with pytest.raises(ConfigError, match="ExponentialMovingAverage.*another"):
        train(6, 7, optim={"ema_decay": 0.9})
    assert checkpoints.step_of(checkpoints.latest(str(tmp_path)) or "") == 6
