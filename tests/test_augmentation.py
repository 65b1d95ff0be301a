"""Augmentation beyond the paper's: the random numbers, and the changed pixels."""

import collections
import dataclasses
import pathlib
from typing import Any, Dict, List
from unittest import mock

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from alexnet_estimator import inputs
from alexnet_estimator.errors import ConfigError
from alexnet_estimator.inputs import augmentation
from alexnet_estimator.inputs.shards import Reader
from alexnet_estimator.jobs import evaluate, train
from alexnet_estimator.model_fn import build_model_fn
from alexnet_estimator.records.dataset import Dataset
from alexnet_estimator.runtime.local import LocalRuntime
from tests import tiny, training

EVERYTHING: Dict[str, Any] = {
    "brightness": 0.3,
    "contrast": 0.4,
    "saturation": 0.5,
    "erasing_probability": 0.25,
    "mixup_alpha": 0.4,
    "cutmix_alpha": 1.0,
}
SIZE = tiny.IMAGE_SIZE


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Return 24 pictures of 2 classes in one file."""
    records = [(tiny.encode(tiny.noise(i)), i % 2) for i in range(24)]
    return tiny.write_dataset(tmp_path_factory.mktemp("noisy"), [records], 2)


def read(dataset: Dataset, num_steps: int, start: int = 0, **data: Any) -> List[Any]:
    settings, reader = tiny.config(data=data).data, Reader(0, 1, 6, seed=1)
    return tiny.read(
        lambda: inputs.train_batches(dataset, settings, reader, start), num_steps
    )


def test_draws_depend_on_the_position_in_the_stream(noisy: Dataset) -> None:
    data: Dict[str, Any] = {**EVERYTHING, "crop_aspects": (0.5, 2.0)}
    whole, resumed = read(noisy, 5, **data), read(noisy, 2, start=3, **data)
    for (features, labels), (again, labels_again) in zip(whole[3:], resumed):
        np.testing.assert_array_equal(labels, labels_again)
        assert set(features) == set(again) and len(features) == 5
        for name, values in features.items():
            np.testing.assert_array_equal(values, again[name])
    for name in set(whole[0][0]) - {"image"}:
        rows = np.concatenate([features[name] for features, _ in whole])
        assert len(np.unique(rows, axis=0)) > 6, name


def test_draws_have_the_distributions_of_the_papers(noisy: Dataset) -> None:
    batches = [features for features, _ in read(noisy, 100, **EVERYTHING)]
    drawn = {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}
    for i, name in enumerate(("brightness", "contrast", "saturation")):
        factors, amplitude = drawn["colour_factors"][:, i], EVERYTHING[name]
        assert abs(factors.mean() - 1) < 0.05 and abs(factors - 1).max() <= amplitude
        assert factors.std() == pytest.approx(amplitude / 3**0.5, rel=0.1)
    erased = drawn["erased_box"]
    areas = (erased[:, 2] - erased[:, 0]) * (erased[:, 3] - erased[:, 1]) / SIZE**2
    assert (areas > 0).mean() == pytest.approx(0.25, abs=0.06)
    assert 0.015 < areas[areas > 0].min() and areas.max() < 0.42
    assert erased.min() >= 0 and erased.max() <= SIZE
    # The place of a box depends neither on its shape nor on whether it is drawn.
    smaller = erased[(areas > 0) & ((erased[:, 2:] - erased[:, :2]) < SIZE).all(axis=1)]
    sides = smaller[:, 2:] - smaller[:, :2]
    places = smaller[:, :2] / (SIZE - sides)
    np.testing.assert_allclose(places.mean(axis=0), [0.5, 0.5], atol=0.12)
    aspects, sizes = np.log(sides[:, 1] / sides[:, 0]), sides.prod(axis=1)
    related = np.corrcoef([*places.T, aspects, sizes]) - np.eye(4)
    assert np.abs(related[:2]).max() < 0.35
    # Each image is mixed in one of the two ways.
    is_mixup, is_cutmix = drawn["mixup_share"] < 1, drawn["cutmix_box"].any(axis=1)
    assert is_mixup.mean() == pytest.approx(0.5, abs=0.08)
    assert not (is_mixup & is_cutmix).any()
    shares = drawn["mixup_share"][is_mixup]
    assert shares.mean() == pytest.approx(0.5, abs=0.08)
    # The variance of Beta(a, a) is 1 / (4 (2a + 1)).
    assert shares.var() == pytest.approx(1 / (4 * 1.8), rel=0.2)


def test_crops_have_several_shapes(tmp_path: pathlib.Path) -> None:
    """The slopes of two ramps in an image show the height and the width of its crop."""
    ramp = np.broadcast_to(np.arange(80, dtype=np.uint8) * 3, [80, 80])
    pixels = np.stack([ramp.T, ramp, ramp], axis=2)
    data = tiny.write_dataset(tmp_path, [[(tiny.encode(pixels), 0)] * 24], 1)
    batches = read(data, 40, crop_fractions=(0.5, 0.5), crop_aspects=(0.5, 2.0))
    images = np.concatenate([features["image"] for features, _ in batches])
    heights = np.ptp(images[:, :, 0, 0].astype(float), axis=1) / 240
    widths = np.ptp(images[:, 0, :, 1].astype(float), axis=1) / 240
    assert np.log(widths / heights).mean() == pytest.approx(0, abs=0.08)
    assert (widths / heights).min() < 0.6 and (widths / heights).max() > 1.7
    areas = widths * heights
    # The crops are 0.5 x 0.5 of the picture.
    assert areas.min() > 0.2 and areas.max() < 0.3


def test_all_eight_orientations_are_equally_likely(tmp_path: pathlib.Path) -> None:
    pixels = np.zeros([80, 80, 3], np.uint8)
    pixels[:40, 40:], pixels[40:, :40], pixels[40:, 40:] = 80, 160, 240
    data = tiny.write_dataset(tmp_path, [[(tiny.encode(pixels), 0)] * 24], 1)
    settings: Dict[str, Any] = {"use_quarter_turns": True, "crop_fractions": (1, 1)}
    batches = read(data, 200, **settings)
    images = np.concatenate([features["image"] for features, _ in batches])
    corners = images[:, :: SIZE - 1, :: SIZE - 1, 0].round(-1)  # [images, 2, 2]
    upright = np.array([[0, 80], [160, 240]])
    turned = [np.rot90(upright, turns) for turns in range(4)]
    expected = {side.tobytes() for square in turned for side in (square, square.T)}
    counts = collections.Counter(c.astype(upright.dtype).tobytes() for c in corners)
    assert len(expected) == 8 and set(counts) == expected
    for count in counts.values():
        assert abs(count - 150) < 5 * 150**0.5
    ((resumed, _),) = read(data, 1, start=199, **settings)
    np.testing.assert_array_equal(resumed["image"], batches[-1][0]["image"])


def box_mask(box: np.ndarray) -> np.ndarray:
    mask = np.zeros([SIZE, SIZE, 1])
    top, left, bottom, right = box.astype(int)
    mask[top:bottom, left:right] = 1
    return mask


def test_pixels_and_targets_are_those_of_numpy(noisy: Dataset) -> None:
    data = {**EVERYTHING, "erasing_probability": 0.8}
    settings = tiny.config(data=data).data
    ((features, labels),) = read(noisy, 1, **data)
    assert features["erased_box"].any() and features["cutmix_box"].any()
    targets = np.eye(2)[labels]
    with tf.Graph().as_default(), tiny.session() as session:
        constants = {name: tf.constant(value) for name, value in features.items()}
        found, mixed = session.run(
            [
                inputs.normalise(constants, (100.0, 110.0, 120.0), settings),
                inputs.mix_targets(tf.constant(targets, tf.float32), constants),
            ]
        )
    images, own_parts = [], []
    for i, picture in enumerate(features["image"].astype(float)):
        brightness, contrast, saturation = features["colour_factors"][i]
        picture *= brightness
        mean = (picture @ [0.299, 0.587, 0.114]).mean()
        picture = mean + contrast * (picture - mean)
        grey = (picture @ [0.299, 0.587, 0.114])[:, :, np.newaxis]
        picture = np.clip(grey + saturation * (picture - grey), 0, 255)
        picture = (picture - [100, 110, 120]) / settings.pixel_scale
        images.append(picture * (1 - box_mask(features["erased_box"][i])))
        outside = 1 - box_mask(features["cutmix_box"][i])
        own_parts.append(features["mixup_share"][i] * outside)
    own, images = np.array(own_parts), np.array(images)
    np.testing.assert_allclose(
        found, own * images + (1 - own) * images[::-1], rtol=1e-3, atol=1e-4
    )
    shares = own.mean(axis=(1, 2))
    np.testing.assert_allclose(
        mixed, shares * targets + (1 - shares) * targets[::-1], rtol=1e-5
    )
    assert ((0.01 < shares) & (shares < 0.9)).any()


def test_without_it_nothing_is_added(noisy: Dataset) -> None:
    off: Dict[str, Any] = {"use_augmentation": False, "mixup_alpha": 1.0}
    none: Dict[str, Any] = {}
    for data in (none, off):
        ((features, _),) = read(noisy, 1, **data)
        assert set(features) == {"image"}
    # The weights of the pictures are no augmentation.
    weighted = dataclasses.replace(noisy, conversion={"mean_weight": 2.0})
    ((features, _),) = read(weighted, 1, use_augmentation=False)
    np.testing.assert_array_equal(features["weight"], [0.5] * 6)
    targets = object()
    assert augmentation.mix_targets(targets, {}) is targets


def test_the_loss_is_weighted_by_class_share_and_picture() -> None:
    settings = tiny.config(model={"keep_prob": 1.0})
    weights, labels = (0.5, 3.0), np.array([0, 1, 1, 0], np.int32)
    images = np.stack([tiny.noise(i, SIZE, SIZE) for i in range(4)])
    share = np.array([1, 0.25, 0.5, 1], np.float32)
    by_picture = np.array([0.3, 1, 2, 0.7], np.float32)
    with tf.Graph().as_default(), tiny.session() as session:
        features = {"image": tf.constant(images), "mixup_share": tf.constant(share)}
        features["weight"] = tf.constant(by_picture)
        needed = tiny.make_training(settings)._replace(class_weights=weights)
        model_fn = build_model_fn(settings, 2, LocalRuntime("cpu"), needed)
        spec = model_fn(features, tf.constant(labels), tf.estimator.ModeKeys.TRAIN)
        tf.get_variable_scope().reuse_variables()
        predicted = model_fn(features, None, tf.estimator.ModeKeys.PREDICT)
        session.run(tf.global_variables_initializer())
        loss, odds = session.run([spec.loss, predicted.predictions["probabilities"]])
    targets = np.eye(2)[labels]
    targets = share[:, None] * targets + (1 - share[:, None]) * targets[::-1]
    losses = -(targets * np.log(odds)).sum(axis=1) * (targets @ weights)
    losses *= share * by_picture + (1 - share) * by_picture[::-1]
    assert loss == pytest.approx(losses.mean(), rel=1e-4)


def test_balanced_weights_give_classes_the_same_share(
    tmp_path: pathlib.Path, data_dir: str
) -> None:
    run = training.open_job(data_dir, tmp_path, optim={"class_weights": "balanced"})
    counts = np.array(run.dataset.splits["train"].class_counts)
    shares = counts * run.class_weights
    np.testing.assert_allclose(shares, [counts.sum() / 3] * 3)
    given = training.open_job(data_dir, tmp_path, optim={"class_weights": "1,2,0.5"})
    assert given.class_weights == (1, 2, 0.5)
    with pytest.raises(ConfigError, match="2 numbers: the data has 3 classes"):
        training.open_job(data_dir, tmp_path, optim={"class_weights": "1,2"})


def test_patience_ends_a_run_whose_best_weights_count(
    data_dir: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    """The learning rate is so small that the first evaluation stays the best."""
    settings = {"steps": 1000, "eval_every_epochs": 1.0, "patience_epochs": 2.0}
    run = training.open_job(
        data_dir, tmp_path, train=settings, optim={"learning_rate": 1e-12}
    )
    evaluating = mock.patch.object(train, "evaluate_sums", wraps=train.evaluate_sums)
    with mock.patch.object(train, "write_outcome", return_value=None) as written:
        with evaluating as evaluated:
            result = train.train(run)
    assert len(evaluated.call_args_list) == 3
    # The report shows answers of the best weights, not of the last ones.
    _, shown, _, _ = written.call_args[0]
    assert shown["global_step"] == run.steps_per_epoch
    steps = [record["step"] for record in training.metrics(tmp_path, "evaluation")]
    first = run.steps_per_epoch
    assert steps == [first, 2 * first, 3 * first]
    assert result["global_step"] == first
    assert f"steps           {3 * first}; step {first} was the best" in (
        capsys.readouterr().out
    )
    assert evaluate.evaluate(run)["global_step"] == first
    assert f"model.ckpt-{first}, the most accurate" in capsys.readouterr().err
    with mock.patch.object(train, "write_outcome", return_value=None) as written:
        with evaluating as evaluated:
            assert train.train(run)["global_step"] == first
    # A repeated command has no answers of the best weights, and counts them again.
    _, shown, answers, _ = written.call_args[0]
    assert shown["global_step"] == first
    checkpoints = [call[0][1] for call in evaluated.call_args_list]
    assert checkpoints == [f"{tmp_path}/model.ckpt-{n}" for n in (3 * first, first)]
    assert len(answers) == 11
    # The run was only evaluated again.
    assert len(training.metrics(tmp_path, "evaluation")) == 4

    data = tmp_path / f"model.ckpt-{first}.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-8])
    capsys.readouterr()
    with mock.patch.object(train, "write_outcome", return_value=None):
        assert train.train(run)["global_step"] == 3 * first
    problem = f"the most accurate checkpoint does not count: {tmp_path}/model.ckpt-"
    assert problem in capsys.readouterr().err
