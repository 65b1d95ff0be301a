"""The order of the images of each rank, their augmentation and their decoding."""

import collections
import dataclasses
import io
import sys
from typing import Any, Callable, Dict, List, NamedTuple, Set, Tuple

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from alexnet_estimator import engine, inputs, machine
from alexnet_estimator.errors import DataError
from alexnet_estimator.inputs import Reader, batches, pictures
from alexnet_estimator.records.dataset import Dataset, synthetic_dataset
from tests import tiny

NUM_IMAGES = 23
CROP_POSITIONS = tiny.PICTURE_SIZE - tiny.IMAGE_SIZE + 1


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: Any) -> Dataset:
    """Return pictures in files of 11, 5 and 7; the label is the picture's number."""
    records = [(tiny.encode(tiny.noise(i)), i) for i in range(NUM_IMAGES)]
    shards = [records[:11], records[11:16], records[16:]]
    return tiny.write_dataset(tmp_path_factory.mktemp("data"), shards, NUM_IMAGES)


def read_train(
    dataset: Dataset, reader: Reader, num_steps: int, start: int = 0, **data: Any
) -> List[Any]:
    settings = tiny.config(data=data).data
    return tiny.read(
        lambda: inputs.train_batches(dataset, settings, reader, start), num_steps
    )


def read_eval(dataset: Dataset, reader: Reader, **data: Any) -> List[Any]:
    settings = tiny.config(data=data).data
    batches = tiny.read(lambda: inputs.eval_batches(dataset, settings, reader))
    num_images = dataset.splits["validation"].num_images
    assert len(batches) == inputs.num_eval_steps(num_images, reader)
    return batches


def read_some(dataset: Dataset, reader: Reader, **data: Any) -> List[Any]:
    return read_train(dataset, reader, 2, **data)


def labels_of(batches: List[Any]) -> List[int]:
    return [int(label) for _, labels in batches for label in labels]


# Sharding.


@given(
    counts=st.lists(st.integers(0, 20), max_size=12),
    num_ranks=st.sampled_from([1, 2, 3, 8]) | st.integers(1, 40),
)
def test_parts_are_disjoint_complete_and_even(
    counts: List[int], num_ranks: int
) -> None:
    files = [(f"file-{i}", count) for i, count in enumerate(counts)]
    all_records = [(path, i) for path, count in files for i in range(count)]
    parts = []
    for rank in range(num_ranks):
        slices = inputs.slices_of_rank(files, rank, num_ranks)
        assert all(part.take > 0 for part in slices)  # No file is opened without need.
        parts.append([(s.path, s.skip + i) for s in slices for i in range(s.take)])
    assert [record for part in parts for record in part] == all_records
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("num_ranks", [1, 3])
def test_ranks_together_see_every_image_of_an_epoch_once(
    dataset: Dataset, num_ranks: int
) -> None:
    seen: List[int] = []
    for rank in range(num_ranks):
        share = NUM_IMAGES * (rank + 1) // num_ranks - NUM_IMAGES * rank // num_ranks
        batches = read_train(dataset, Reader(rank, num_ranks, 1), 2 * share)
        first, second = labels_of(batches[:share]), labels_of(batches[share:])
        assert sorted(first) == sorted(second)
        seen += first
    assert sorted(seen) == list(range(NUM_IMAGES))


def test_fewer_images_than_ranks_is_an_error_on_every_rank(dataset: Dataset) -> None:
    for rank in (0, 23):
        with pytest.raises(DataError, match="23 training images for 24 ranks"):
            read_train(dataset, Reader(rank, 24, 1), 1)


def test_folders_may_have_any_name(tmp_path: Any) -> None:
    shards = [[(tiny.encode(tiny.noise(0)), 0)]]
    chinese = tiny.write_dataset(tmp_path / "猫 和 狗", shards, 2)
    assert labels_of(read_train(chinese, Reader(0, 1, 1), 2)) == [0, 0]


# Order.


def test_order_differs_between_epochs_seeds_and_ranks(dataset: Dataset) -> None:
    def orders(seed: int) -> List[Tuple[int, ...]]:
        labels = labels_of(read_train(dataset, Reader(0, 1, NUM_IMAGES, seed), 3))
        return [tuple(labels[i : i + NUM_IMAGES]) for i in (0, NUM_IMAGES, 46)]

    found = orders(seed=0) + orders(seed=1) + [tuple(range(NUM_IMAGES))]
    assert len(set(found)) == 7
    assert orders(seed=0) == found[:3]


def test_the_order_of_the_files_differs_between_epochs(dataset: Dataset) -> None:
    """The images are not shuffled in addition, so that only the files can differ."""
    plain: Dict[str, Any] = {"shuffle_images": 1, "interleave_files": 1}
    batches = read_train(dataset, Reader(0, 1, NUM_IMAGES), 6, **plain)
    assert len({tuple(labels_of([batch])) for batch in batches}) > 1


@pytest.mark.parametrize("num_open", [1, 2, 3, 8])
def test_the_order_of_an_evaluation_is_known(dataset: Dataset, num_open: int) -> None:
    """The files have 11, 5 and 7 pictures, so that some end before the others."""
    data = tiny.config(data={"interleave_files": num_open}).data
    paths = dataset.shard_paths("validation")
    firsts = dict(zip(paths, (0, 11, 16)))
    for reader in (Reader(0, 1, 5), Reader(1, 2, 5)):
        read = read_eval(dataset, reader, interleave_files=num_open)
        slices = inputs.slices_of(dataset, "validation", reader)
        order = [firsts[f] + i for f, i in inputs.reading_order(slices, data)]
        weights = np.concatenate([features["weight"] for features, _ in read])
        assert labels_of(read)[: int(weights.sum())] == order


def test_augmentation_differs_between_epochs_and_ranks(dataset: Dataset) -> None:
    """The same picture, alone in its file, for two ranks in two epochs."""
    same = tiny.noise(0)
    shards = [[(tiny.encode(same), 0)], [(tiny.encode(same), 1)]]
    one_each = tiny.write_dataset(dataset.directory + "/same", shards, 2)
    images = [
        features["image"].tobytes()
        for rank in range(2)
        for features, _ in read_train(one_each, Reader(rank, 2, 1), 4)
    ]
    assert len(set(images)) >= 7  # One of the 162 possible images may occur twice.


# 23 images, 2 ranks, batches of 4: epochs end inside of batches.
@pytest.mark.parametrize("rank, starts", [(0, (1, 6)), (1, (2, 3))])
def test_resuming_continues_the_stream(
    dataset: Dataset, rank: int, starts: Tuple[int, ...]
) -> None:
    reader = Reader(rank, 2, 4, seed=5)
    noise: Dict[str, Any] = {"colour_noise_std": 0.1, "shuffle_images": 6}
    whole = read_train(dataset, reader, 8, **noise)
    for start in starts:
        rest = read_train(dataset, reader, 8 - start, start, **noise)
        for (features, labels), (expected, expected_labels) in zip(rest, whole[start:]):
            np.testing.assert_array_equal(labels, expected_labels)
            assert features.keys() == expected.keys() == {"image", "colour_offset"}
            for name in features:
                np.testing.assert_array_equal(features[name], expected[name])


def test_resuming_at_the_end_of_an_epoch(dataset: Dataset) -> None:
    whole = read_train(dataset, Reader(0, 1, NUM_IMAGES), 3)
    rest = read_train(dataset, Reader(0, 1, NUM_IMAGES), 2, start=1)
    assert labels_of(rest) == labels_of(whole[1:])
    np.testing.assert_array_equal(rest[1][0]["image"], whole[2][0]["image"])


# Augmentation: every output is traced to its crop, which noise makes unique.


class Drawn(NamedTuple):
    """The crop, the flip and the colour offset of an image."""

    label: int
    top: int
    left: int
    is_flipped: bool


@pytest.fixture(scope="module")
def augmented(dataset: Dataset) -> Tuple[List[Drawn], np.ndarray]:
    """Return how 2,070 images were cropped and flipped, and their colour offsets."""
    origins: Dict[bytes, Drawn] = {}
    size = tiny.IMAGE_SIZE
    for label in range(NUM_IMAGES):
        picture = tiny.noise(label)
        for top in range(CROP_POSITIONS):
            for left in range(CROP_POSITIONS):
                crop = picture[top : top + size, left : left + size]
                drawn = Drawn(label, top, left, False)
                origins[crop.tobytes()] = drawn
                origins[crop[:, ::-1].tobytes()] = drawn._replace(is_flipped=True)
    reader = Reader(0, 1, NUM_IMAGES, seed=3)
    batches = read_train(dataset, reader, 90, colour_noise_std=0.1)
    found = []
    for features, labels in batches:
        for image, label in zip(features["image"], labels):
            found.append(origins[image.tobytes()])
            assert found[-1].label == label
    return found, np.concatenate([f["colour_offset"] for f, _ in batches])


def test_crop_and_flip_are_drawn_for_each_image(augmented: Any) -> None:
    drawn, _ = augmented
    first_batch = drawn[:NUM_IMAGES]
    assert len({(d.top, d.left) for d in first_batch}) > 10
    assert {d.is_flipped for d in first_batch} == {True, False}
    flips = np.array([d.is_flipped for d in drawn])
    assert abs(flips.mean() - 0.5) < 5 * 0.5 / np.sqrt(len(drawn))
    expected = len(drawn) / CROP_POSITIONS
    for places in ([d.top for d in drawn], [d.left for d in drawn]):
        counts = collections.Counter(places)
        assert set(counts) == set(range(CROP_POSITIONS))
        for count in counts.values():
            assert abs(count - expected) < 5 * np.sqrt(expected)


def test_colour_noise_has_the_covariance_of_its_formula(
    dataset: Dataset, augmented: Any
) -> None:
    _, offsets = augmented
    expected = 0.1**2 * np.array(dataset.rgb_covariance)
    deviations = np.sqrt(np.diag(expected))
    assert (np.abs(offsets.mean(0)) < 5 * deviations / np.sqrt(len(offsets))).all()
    scale = np.outer(deviations, deviations)
    assert (np.abs(np.cov(offsets.T) - expected) < 0.15 * scale).all()


def test_random_numbers_of_an_image_are_independent(augmented: Any) -> None:
    drawn, offsets = augmented
    placed = np.array(drawn)[:, 1:].astype(float)  # top, left, is_flipped
    numbers = np.concatenate([placed, offsets], axis=1)
    numbers -= numbers.mean(0)
    # Also of the squares: numbers from one source may be related by a curve.
    for columns in (numbers, numbers**2):
        correlation = np.corrcoef(np.concatenate([numbers[:, :3], columns], 1).T)
        np.fill_diagonal(correlation[:3, 3:], 0)
        assert np.abs(correlation[:3, 3:]).max() < 0.12


def test_crops_of_several_sizes(tmp_path: Any) -> None:
    ramp = np.tile(np.arange(80, dtype=np.uint8)[:, np.newaxis] * 3, [1, 80])
    pixels = np.stack([ramp] * 3, axis=2)
    ramps = tiny.write_dataset(tmp_path, [[(tiny.encode(pixels, "png"), 0)] * 50], 1)
    batches = read_train(ramps, Reader(0, 1, 50, seed=3), 4, crop_fractions=(0.5, 1.0))
    images = np.concatenate([features["image"] for features, _ in batches])
    # The range of the ramp in a crop shows its height, and the middle its place.
    heights = np.ptp(images[:, :, 0, 0].astype(float), axis=1) / (3 * 80)
    assert 0.48 < heights.min() < 0.55 and 0.94 < heights.max() < 1
    assert abs(heights.mean() - 0.74) < 0.05
    middles = images[:, :, 0, 0].mean(axis=1) / (3 * 80)
    assert abs(middles.mean() - 0.5) < 0.03 and middles.std() > 0.03


# Decoding.


def write_one(tmp_path: Any, pixels: np.ndarray, kind: str = "png") -> Dataset:
    return tiny.write_dataset(tmp_path, [[(tiny.encode(pixels, kind), 0)]], 2)


@pytest.mark.parametrize("height,width", [(71, 71), (71, 100), (100, 71)])
def test_evaluation_takes_the_centre(tmp_path: Any, height: int, width: int) -> None:
    picture = tiny.noise(0, height, width)
    data = write_one(tmp_path, picture)
    top, left = (height - 63 + 1) // 2, (width - 63 + 1) // 2
    expected = picture[top : top + 63, left : left + 63]
    for ((features, _),) in (
        read_eval(data, Reader(0, 1, 1)),
        read_train(data, Reader(0, 1, 1), 1, use_augmentation=False),
    ):
        np.testing.assert_array_equal(features["image"][0], expected)


def test_ten_views_are_corners_centre_and_their_mirror_images(tmp_path: Any) -> None:
    picture = tiny.noise(0, 71, 100)
    data = write_one(tmp_path, picture)
    padding, whole = (
        read_eval(data, Reader(rank, 2, 1), use_ten_crop=True)[0][0]["image"]
        for rank in (0, 1)
    )
    places = [(0, 0), (0, 37), (8, 0), (8, 37), (4, 19)]
    crops = [picture[top : top + 63, left : left + 63] for top, left in places]
    expected = crops + [crop[:, ::-1] for crop in crops]
    np.testing.assert_array_equal(whole, [expected])
    assert padding.shape == whole.shape and not padding.any()


def test_jpeg_equals_pillow(tmp_path: Any) -> None:
    smooth = Image.fromarray(tiny.noise(0, 6, 6)).resize((90, 71), Image.BICUBIC)
    data = write_one(tmp_path, np.array(smooth), "jpeg")
    ((features, _),) = read_eval(data, Reader(0, 1, 1))
    stored = Image.open(io.BytesIO(tiny.encode(np.array(smooth), "jpeg")))
    expected = np.array(stored)[4:67, 14:77].astype(int)
    shifts = [(0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)]
    differences = [
        np.abs(np.roll(features["image"][0].astype(int), shift, (0, 1)) - expected)
        for shift in shifts
    ]
    means = [difference.mean() for difference in differences]
    assert means[0] < 2.5 < min(means[1:])  # Decoders differ by a grey level or two.


@pytest.mark.parametrize("kind", ["png", "bmp", "gif"])
def test_other_formats_are_decoded(tmp_path: Any, kind: str) -> None:
    """A GIF has 256 colours, and only the first picture of an animation is decoded."""
    first, second = (
        Image.fromarray(np.full([71, 71, 3], value, np.uint8)) for value in (40, 200)
    )
    first.paste((10, 20, 30), (0, 0, 71, 30))
    more = {"save_all": True, "append_images": [second]} if kind == "gif" else {}
    encoded = io.BytesIO()
    first.save(encoded, kind, **more)
    data = tiny.write_dataset(tmp_path, [[(encoded.getvalue(), 0)]], 2)
    ((features, _),) = read_eval(data, Reader(0, 1, 1))
    np.testing.assert_array_equal(features["image"][0], np.array(first)[4:67, 4:67])


def test_larger_pictures_are_averaged_down(tmp_path: Any) -> None:
    picture = tiny.noise(0, 142, 142)
    ((features, _),) = read_eval(write_one(tmp_path, picture), Reader(0, 1, 1))
    crop = picture[8:134, 8:134].astype(float)  # 126 = round(142 * 227 / 256)
    expected = crop.reshape(63, 2, 63, 2, 3).mean((1, 3))
    assert np.abs(features["image"][0] - expected).max() <= 0.51


def test_smaller_pictures_are_enlarged(tmp_path: Any) -> None:
    picture = np.full([20, 30, 3], [10, 20, 30], np.uint8)
    ((features, _),) = read_eval(write_one(tmp_path, picture), Reader(0, 1, 1))
    np.testing.assert_array_equal(
        features["image"][0], np.full([63, 63, 3], [10, 20, 30])
    )


@pytest.mark.parametrize(
    "read, data",
    [
        (read_some, {}),
        (read_some, {"use_augmentation": False}),
        (read_some, {"crop_fractions": (0.5, 1.0)}),
        (read_eval, {}),
        (read_eval, {"use_ten_crop": True}),
    ],
)
def test_what_is_known_of_converted_pictures_changes_no_pixel(
    tmp_path: Any, read: Callable[..., List[Any]], data: Dict[str, Any]
) -> None:
    noisy = [tiny.noise(i, *sides) for i, sides in enumerate([(71, 90), (83, 71)])]
    records = [(tiny.encode(picture, "jpeg"), 0) for picture in noisy]
    unknown = tiny.write_dataset(tmp_path, [records], 2)
    assert unknown.short_side == 0
    expected = read(unknown, Reader(0, 1, 2), **data)
    # 71: crops fit; 100 is not true of these pictures, and must not be relied on.
    for short_side in (71, 100):
        known = dataclasses.replace(unknown, conversion={"short_side": short_side})
        for (features, _), (others, _) in zip(
            read(known, Reader(0, 1, 2), **data), expected
        ):
            np.testing.assert_array_equal(features["image"], others["image"])


@pytest.mark.parametrize(
    "short_side,fraction,others",
    [
        (71, 227 / 256, set()),
        (0, 227 / 256, {"ResizeArea", "DecodePng"}),
        (71, 0.5, {"ResizeArea", "DecodePng"}),
        (80, 0.9, {"ResizeArea", "DecodePng"}),
    ],
)
def test_only_what_is_known_goes_unchecked(
    short_side: int, fraction: float, others: Set[str]
) -> None:
    with tf.Graph().as_default() as graph:
        encoded, place = tf.placeholder(tf.string, []), tf.zeros([2])
        pictures.crop(encoded, place, 63, fraction, short_side)
        kinds = {operation.type for operation in graph.get_operations()}
    assert "Assert" in kinds  # No picture may fill the memory.
    assert {"ResizeArea", "DecodePng"} & kinds == others


def test_autograph_does_not_read_the_pipeline(
    dataset: Dataset, monkeypatch: Any
) -> None:
    parse, callers = batches.parse, []

    def noting_caller(*arguments: Any) -> Any:
        callers.append(sys._getframe(1).f_code.co_filename)
        return parse(*arguments)

    monkeypatch.setattr(batches, "parse", noting_caller)
    data, reader = tiny.config().data, Reader(0, 1, 4, seed=1)
    with tf.Graph().as_default():
        inputs.train_batches(dataset, data, reader, 0)
        inputs.eval_batches(dataset, data, reader)
    # The code of AutoGraph itself is in another folder.
    assert callers == [batches.__file__] * 2


def test_label_offset_is_subtracted(tmp_path: Any) -> None:
    records = [(tiny.encode(tiny.noise(i)), i) for i in range(4)]
    data = tiny.write_dataset(tmp_path, [records], 4, label_offset=1)
    assert sorted(labels_of(read_train(data, Reader(0, 1, 4), 1))) == [0, 1, 2, 3]
    assert labels_of(read_eval(data, Reader(0, 1, 4))) == [0, 1, 2, 3]


@pytest.mark.parametrize("label", [-3, 4])
@pytest.mark.parametrize("read", [read_some, read_eval])
def test_a_label_of_no_class_is_an_error(
    tmp_path: Any, read: Callable[..., List[Any]], label: int
) -> None:
    data = tiny.write_dataset(tmp_path, [[(tiny.encode(tiny.noise(0)), label)]], 4)
    with pytest.raises(tf.errors.InvalidArgumentError, match="label of no class"):
        read(data, Reader(0, 1, 1))


# Files that have lost records after their manifest was written.


@pytest.mark.parametrize("num_left", [0, 5])
@pytest.mark.parametrize("read", [read_some, read_eval])
def test_a_file_with_too_few_records_is_an_error(
    tmp_path: Any, read: Callable[..., List[Any]], num_left: int
) -> None:
    """An epoch without any record was repeated for ever."""
    records = [(tiny.encode(tiny.noise(i)), i) for i in range(8)]
    whole = tiny.write_dataset(tmp_path, [records], 8)
    tiny.write_dataset(tmp_path, [records[:num_left]], 8)
    with pytest.raises(tf.errors.InvalidArgumentError, match="could not be found"):
        read(whole, Reader(0, 1, 8))


# Evaluation batches.


@pytest.mark.parametrize("num_ranks,batch_size", [(1, 23), (3, 4)])
def test_evaluation_counts_every_image_once(
    dataset: Dataset, num_ranks: int, batch_size: int
) -> None:
    counted: List[int] = []
    for rank in range(num_ranks):
        for features, labels in read_eval(dataset, Reader(rank, num_ranks, batch_size)):
            assert features["image"].shape == (batch_size, 63, 63, 3)
            weights = features["weight"]
            assert set(weights) <= {0.0, 1.0}
            assert not features["image"][weights == 0].any()
            counted += labels[weights == 1].tolist()
    assert sorted(counted) == list(range(NUM_IMAGES))


def test_a_rank_without_images_evaluates_padding(tmp_path: Any) -> None:
    data = write_one(tmp_path, tiny.noise(0))
    weights = [read_eval(data, Reader(rank, 2, 2))[0][0]["weight"] for rank in (0, 1)]
    assert [weight.tolist() for weight in weights] == [[0, 0], [1, 0]]


# Synthetic data, and the normalisation of images.


def test_synthetic_data_has_the_signature_of_real_data(dataset: Dataset) -> None:
    settings = tiny.config(data={"synthetic": True, "synthetic_classes": 7}).data
    made_up = synthetic_dataset(settings)
    reader = Reader(0, 1, 8)
    real = tiny.config().data
    with tf.Graph().as_default():
        pairs = [
            (
                inputs.train_batches(made_up, settings, reader, 0),
                inputs.train_batches(dataset, real, reader, 0),
            ),
            (
                inputs.eval_batches(made_up, settings, reader),
                inputs.eval_batches(dataset, real, reader),
            ),
        ]
        for ours, theirs in pairs:
            for describe in (
                tf.data.get_output_types,
                tf.data.get_output_shapes,
                tf.data.get_output_classes,
            ):
                assert repr(describe(ours)) == repr(describe(theirs))
    ((features, labels),) = tiny.read(
        lambda: inputs.train_batches(made_up, settings, reader, 0), 1
    )
    assert features["image"].std() > 50 and labels.max() < 7


def test_synthetic_evaluation_counts_its_images() -> None:
    settings = tiny.config(data={"synthetic": True}).data
    made_up = synthetic_dataset(settings)
    num_images = made_up.splits["validation"].num_images
    reader = Reader(2, 3, 512)  # 512 does not divide the images of a rank.
    batches = tiny.read(lambda: inputs.eval_batches(made_up, settings, reader))
    assert len(batches) == inputs.num_eval_steps(num_images, reader)
    counted = sum(features["weight"].sum() for features, _ in batches)
    assert counted == num_images - num_images * 2 // 3


@pytest.mark.filterwarnings("ignore:.*options value:UserWarning")
@pytest.mark.parametrize("make", [inputs.train_batches, inputs.eval_batches])
def test_decoding_does_not_wait_for_the_threads_of_the_session(
    make: Any, dataset: Dataset
) -> None:
    for decode_threads, expected in ((0, machine.num_cores()), (3, 3)):
        settings = tiny.config(data={"decode_threads": decode_threads}).data
        position = [0] if make is inputs.train_batches else []
        with tf.Graph().as_default():
            options = make(dataset, settings, Reader(0, 1, 8), *position).options()
        name = "experimental_threading" if engine.is_1_15() else "threading"
        assert getattr(options, name).private_threadpool_size == expected


def test_normalise() -> None:
    image = np.random.RandomState(0).randint(0, 256, [2, 5, 5, 3]).astype(np.uint8)
    offset = np.array([[1.0, 2, 3], [-4, 5, 0]], np.float32)
    mean, features = [100.0, 110, 120], {"image": image, "colour_offset": offset}
    bgr = tiny.config(data={"channel_order": "bgr", "pixel_scale": 10.0}).data
    with tf.Graph().as_default(), tiny.session() as session:
        found, plain = session.run(
            [
                inputs.normalise(features, mean, bgr),
                inputs.normalise({"image": image}, mean, tiny.config().data),
            ]
        )
    np.testing.assert_allclose(plain, (image - np.array(mean)) / 58, rtol=1e-5)
    expected = (image - np.array(mean) + offset[:, None, None]) / 10
    np.testing.assert_allclose(found, expected[..., ::-1], rtol=1e-4, atol=1e-5)
