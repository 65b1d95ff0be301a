"""From records to batches: sharded by rank, augmented, reproducible at every step.

What a rank reads at a step is a function of (seed, rank, step) alone: shuffling is
seeded by the epoch and augmentation by the position of the image, so that an
interrupted run continues with the images that it would have seen.

A training batch is ``({"image": uint8 [batch, size, size, 3], RGB}, int32 [batch])``;
with colour noise there is also ``"colour_offset"``, float32 [batch, 3].  An evaluation
batch has ``"weight"`` as well, float32 [batch]: 1 for an image, 0 for padding.  With
``data.use_ten_crop`` the images of evaluation and prediction are uint8
[batch, 10, size, size, 3]: the views of each picture.
"""

import os
from typing import Callable, Dict, Iterator, List, NamedTuple, Sequence, Tuple

import numpy as np
import tensorflow.compat.v1 as tf

from alexnet_estimator.config import Config
from alexnet_estimator.errors import DataError
from alexnet_estimator.records.dataset import Dataset, Shard, Split
from alexnet_estimator.records.pictures import MAX_PIXELS

# The part of the picture's short side that a crop covers: the paper's 227 of 256.
CROP_FRACTION = 227 / 256
# Of crops between top and bottom, left and right: the corners and the centre.
_CROP_POSITIONS = ((0, 0), (0, 0.9999), (0.9999, 0), (0.9999, 0.9999), (0.5, 0.5))
_NUM_VIEWS = 10
NUM_SYNTHETIC_IMAGES = 10_000
MAX_EPOCHS = 1 << 31

Features = Dict[str, tf.Tensor]


class Slice(NamedTuple):
    """Consecutive records of a file."""

    path: str
    skip: int
    take: int


class Reader(NamedTuple):
    """Who reads: one rank's part and how it is batched.

    Attributes:
        rank: from 0.
        num_ranks: that share the split.
        batch_size: images in a batch of this rank.
        seed: of shuffling, augmentation and synthetic images.
    """

    rank: int
    num_ranks: int
    batch_size: int
    seed: int = 0


def slices_of_rank(
    shards: Sequence[Tuple[str, int]], rank: int, num_ranks: int
) -> List[Slice]:
    """Return this rank's part of the files.

    The records of all files, in order, are cut into ``num_ranks`` equal parts (sizes
    differ by one at most), so parts are disjoint, complete and even for any number of
    ranks and files.  A rank opens only the files that its part touches.

    Args:
        shards: (path, number of records) of every file.
        rank: from 0.
        num_ranks: parts.
    """
    total = sum(count for _, count in shards)
    first = total * rank // num_ranks
    end = total * (rank + 1) // num_ranks
    slices, start = [], 0
    for path, count in shards:
        low, high = max(first, start), min(end, start + count)
        if low < high:
            slices.append(Slice(path, low - start, high - low))
        start += count
    return slices


def num_eval_steps(num_images: int, reader: Reader) -> int:
    """Return the steps in which every rank has read its part: the same on all."""
    largest_part = -(-num_images // reader.num_ranks)
    return -(-largest_part // reader.batch_size)


def train_batches(
    dataset: Dataset, data: Config, reader: Reader, start_step: int
) -> tf.data.Dataset:
    """Return endless training batches from a global step on.

    Args:
        dataset: what ``records`` opened, or ``synthetic_dataset``.
        data: the configuration's ``data`` section.
        reader: this rank.
        start_step: the global step of the first batch.

    Raises:
        DataError: there are fewer images than ranks.
    """
    if data.synthetic:
        return _synthetic_batches(dataset, data, reader)
    num_images = dataset.splits["train"].num_images
    if num_images < reader.num_ranks:
        raise DataError(
            f"{num_images} training images for {reader.num_ranks} ranks: every rank "
            "needs one, use fewer ranks",
            dataset.directory,
        )
    slices = _slices(dataset, "train", reader)
    first_image = start_step * reader.batch_size
    epoch, position = divmod(first_image, sum(part.take for part in slices))
    seed = _mix(reader.seed, reader.rank)

    def read_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        return _shuffled_records(slices, data, seed, epoch)

    def decode(index: tf.Tensor, record: tf.Tensor) -> Tuple[Features, tf.Tensor]:
        return _training_example(record, [seed, index], dataset, data)

    return (
        tf.data.Dataset.range(epoch, MAX_EPOCHS)
        .flat_map(read_epoch)
        .skip(position)
        .apply(tf.data.experimental.enumerate_dataset(first_image))
        .map(decode, num_parallel_calls=_decode_threads(data))
        .batch(reader.batch_size, drop_remainder=True)
        .prefetch(data.prefetch_batches)
    )


def eval_batches(
    dataset: Dataset, data: Config, reader: Reader, split_name: str = "validation"
) -> tf.data.Dataset:
    """Return batches that hold every image of this rank's part exactly once.

    The last ones are filled up with black images of weight 0, so that shapes are static
    and all ranks make the same number of steps.
    """
    num_images = dataset.splits[split_name].num_images
    num_steps = num_eval_steps(num_images, reader)
    slices = _slices(dataset, split_name, reader)
    num_padding = num_steps * reader.batch_size - sum(part.take for part in slices)
    if data.synthetic:
        batches = _synthetic_batches(dataset, data, reader)
        return _with_weights(batches, num_steps, num_padding, reader.batch_size)
    image = np.zeros(_views_shape(data), np.uint8)
    padding = {"image": image, "weight": np.float32(0)}

    def decode(record: tf.Tensor) -> Tuple[Features, tf.Tensor]:
        encoded, label = _parse(record, dataset.label_offset)
        return {
            "image": _decode_views(encoded, data),
            "weight": tf.constant(1.0),
        }, label

    images = _read(_as_dataset(slices), data).map(
        decode, num_parallel_calls=_decode_threads(data)
    )
    if num_padding:
        filler = tf.data.Dataset.from_tensors((padding, np.int32(0)))
        images = images.concatenate(filler.repeat(num_padding))
    return images.batch(reader.batch_size, drop_remainder=True).prefetch(
        data.prefetch_batches
    )


def picture_batches(
    read_pictures: Callable[[], Iterator[bytes]], data: Config, batch_size: int
) -> tf.data.Dataset:
    """Return batches ``{"image"}`` of pictures without labels, as evaluation sees them.

    Args:
        read_pictures: yields encoded pictures; a last batch that is not full is left
            out.
        data: the configuration's ``data`` section.
        batch_size: pictures in a batch.
    """

    def decode(encoded: tf.Tensor) -> Features:
        return {"image": _decode_views(encoded, data)}

    return (
        tf.data.Dataset.from_generator(read_pictures, tf.string, [])
        .map(decode, num_parallel_calls=_decode_threads(data))
        .batch(batch_size, drop_remainder=True)
        .prefetch(data.prefetch_batches)
    )


def eval_batch_size(data: Config, batch_size: int) -> int:
    """Return the pictures in a batch that has ``batch_size`` images, views included."""
    if not data.use_ten_crop:
        return batch_size
    return max(1, batch_size // _NUM_VIEWS)


def synthetic_dataset(data: Config) -> Dataset:
    """Return the description of made-up data, in the form of a real one's."""
    counts = [NUM_SYNTHETIC_IMAGES // data.synthetic_classes] * data.synthetic_classes
    counts[0] += NUM_SYNTHETIC_IMAGES - sum(counts)
    shard = Shard(file="synthetic", num_images=sum(counts), num_bytes=0, sha256="")
    split = Split(shards=(shard,), class_counts=tuple(counts))
    return Dataset(
        directory="synthetic",
        class_names=tuple(str(label) for label in range(data.synthetic_classes)),
        splits={"train": split, "validation": split},
        mean_rgb=(127.5, 127.5, 127.5),
        rgb_covariance=((0.0,) * 3,) * 3,
        digest="synthetic",
    )


def normalise(features: Features, mean_rgb: Sequence[float], data: Config) -> tf.Tensor:
    """Turn a batch's images into the model's input, on the device that computes.

    Returns:
        float32 [batch, size, size, 3]: mean subtracted, divided by ``pixel_scale``, in
        ``channel_order``.  The views of a picture follow each other.
    """
    images = tf.cast(features["image"], tf.float32)
    if images.shape.ndims == 5:
        images = tf.reshape(images, [-1, *images.shape.as_list()[2:]])
    pixels = images - tf.constant(mean_rgb, tf.float32)
    if "colour_offset" in features:
        pixels += features["colour_offset"][:, tf.newaxis, tf.newaxis, :]
    if data.channel_order == "bgr":
        pixels = tf.reverse(pixels, axis=[3])
    return pixels / data.pixel_scale


def decode_for_eval(encoded: tf.Tensor, size: int) -> tf.Tensor:
    """Decode one picture's bytes (string scalar) as evaluation does.

    Returns:
        uint8 [size, size, 3], the central crop.
    """
    return _crop(encoded, tf.constant([0.5, 0.5]), size)


def _decode_views(encoded: tf.Tensor, data: Config) -> tf.Tensor:
    """Decode one picture's bytes for evaluation or prediction.

    Returns:
        uint8 of ``_views_shape``: the central crop, or with ``use_ten_crop`` those of
        the corners and the centre, and their mirror images (section 4.1).
    """
    if not data.use_ten_crop:
        return decode_for_eval(encoded, data.image_size)
    crops = [
        _crop(encoded, tf.constant(position, tf.float32), data.image_size)
        for position in _CROP_POSITIONS
    ]
    return tf.stack(crops + [tf.reverse(crop, [1]) for crop in crops])


def _views_shape(data: Config) -> List[int]:
    views = [_NUM_VIEWS] if data.use_ten_crop else []
    return [*views, data.image_size, data.image_size, 3]


def _slices(dataset: Dataset, split_name: str, reader: Reader) -> List[Slice]:
    shards = dataset.splits[split_name].shards
    counts = [shard.num_images for shard in shards]
    paths = dataset.shard_paths(split_name)
    return slices_of_rank(list(zip(paths, counts)), reader.rank, reader.num_ranks)


def _as_dataset(slices: Sequence[Slice]) -> tf.data.Dataset:
    columns = (
        tf.constant([os.fsencode(part.path) for part in slices], tf.string),
        np.array([part.skip for part in slices], np.int64),
        np.array([part.take for part in slices], np.int64),
    )
    return tf.data.Dataset.from_tensor_slices(columns)


def _read(slices: tf.data.Dataset, data: Config) -> tf.data.Dataset:
    """Return the records (string scalars) of slices, several files at a time."""

    def read_slice(
        path: tf.Tensor, skip: tf.Tensor, take: tf.Tensor
    ) -> tf.data.Dataset:
        records = tf.data.TFRecordDataset(path, buffer_size=1 << 20)
        return records.skip(skip).take(take)

    return slices.interleave(
        read_slice, cycle_length=data.interleave_files, block_length=1
    )


def _shuffled_records(
    slices: Sequence[Slice], data: Config, seed: int, epoch: tf.Tensor
) -> tf.data.Dataset:
    """Return one epoch's records: files shuffled, interleaved, records shuffled."""
    epoch_seed = seed + epoch
    files = _as_dataset(slices).shuffle(
        max(len(slices), 1), seed=epoch_seed, reshuffle_each_iteration=False
    )
    return _read(files, data).shuffle(
        data.shuffle_images, seed=epoch_seed, reshuffle_each_iteration=False
    )


def _parse(record: tf.Tensor, label_offset: int) -> Tuple[tf.Tensor, tf.Tensor]:
    """Return a record's encoded picture and its label from 0 (int32 scalar)."""
    parsed = tf.io.parse_single_example(
        record,
        {
            "image/encoded": tf.io.FixedLenFeature([], tf.string),
            "image/class/label": tf.io.FixedLenFeature([], tf.int64),
        },
    )
    label = parsed["image/class/label"] - label_offset
    return parsed["image/encoded"], tf.cast(label, tf.int32)


def _training_example(
    record: tf.Tensor, seed: list, dataset: Dataset, data: Config
) -> Tuple[Features, tf.Tensor]:
    """Decode and augment one record; ``seed`` is this image's own (2 integers)."""
    encoded, label = _parse(record, dataset.label_offset)
    if not data.use_augmentation:
        return {"image": decode_for_eval(encoded, data.image_size)}, label
    # Three independent numbers: where the crop is (y, x), and whether to flip.
    random = tf.random.stateless_uniform([3], seed)
    image = _crop(encoded, random[:2], data.image_size)
    image = tf.cond(random[2] < 0.5, lambda: tf.reverse(image, [1]), lambda: image)
    features = {"image": image}
    if data.colour_noise_std > 0:
        features["colour_offset"] = _colour_offset(seed, dataset, data)
    return features, label


def _colour_offset(seed: list, dataset: Dataset, data: Config) -> tf.Tensor:
    """Return multiples of the principal components of RGB (section 4.1), float32 [3].

    Each component is multiplied by its eigenvalue (of colours in [0, 255], as in the
    paper's reference: the standard deviation along it) and a normal number.
    """
    variances, components = np.linalg.eigh(np.array(dataset.rgb_covariance))
    deviations = np.sqrt(np.maximum(variances, 0)) * data.colour_noise_std
    # Not the seed of crop and flip: equal seeds give related numbers.
    normal = tf.random.stateless_normal([3], [-1 - seed[0], seed[1]])
    weighted = normal * tf.constant(deviations, tf.float32)
    return tf.linalg.matvec(tf.constant(components, tf.float32), weighted)


def _crop(encoded: tf.Tensor, position: tf.Tensor, size: int) -> tf.Tensor:
    """Cut a square out of an encoded picture, decoding no more than needed.

    Args:
        encoded: string scalar, JPEG (or PNG, GIF, BMP in records from elsewhere).
        position: float32 [2] in [0, 1): where between top and bottom, left and right.
        size: of the result.

    Returns:
        uint8 [size, size, 3].  The square's side is ``CROP_FRACTION`` of the picture's
        short side; it is resized only where that is not ``size``.
    """
    is_jpeg = tf.io.is_jpeg(encoded)

    def cut_jpeg() -> tf.Tensor:
        window = _window(_bounded(tf.io.extract_jpeg_shape(encoded)[:2]), position)
        # The fast DCT differs from the exact one by a grey level or two.
        return tf.io.decode_and_crop_jpeg(
            encoded, window, channels=3, dct_method="INTEGER_FAST"
        )

    def cut_other() -> tf.Tensor:
        with tf.control_dependencies([_bounded(_declared_sides(encoded))]):
            checked = tf.identity(encoded)
        picture = tf.io.decode_image(checked, channels=3, expand_animations=False)
        top, left, side, _ = tf.unstack(_window(tf.shape(picture)[:2], position))
        return picture[top : top + side, left : left + side]

    image = tf.cond(is_jpeg, cut_jpeg, cut_other)
    fits = tf.equal(tf.shape(image)[0], size)
    image = tf.cond(fits, lambda: image, lambda: _resize(image, size))
    image.set_shape([size, size, 3])
    return image


def _declared_sides(encoded: tf.Tensor) -> tf.Tensor:
    """Return the sides, int64 [2], that the header of a PNG or GIF declares.

    A BMP has zeros there: it cannot be larger than its file.
    """
    # Not tf.strings.substr: TF 1.15 crashes where it reports that a string is short.
    content = tf.io.decode_raw(encoded, tf.uint8)
    header = tf.concat([content, tf.zeros([24], tf.uint8)], axis=0)[:24]
    header = tf.cast(header, tf.int64)
    is_png = tf.reduce_all(tf.equal(header[:4], np.array(list(b"\x89PNG"))))
    big_endian = tf.reshape(header[16:24], [2, 4]) * [1 << 24, 1 << 16, 1 << 8, 1]
    little_endian = tf.reshape(header[6:10], [2, 2]) * [1, 1 << 8]
    return tf.cond(
        is_png,
        lambda: tf.reduce_sum(big_endian, axis=1),
        lambda: tf.reduce_sum(little_endian, axis=1),
    )


def _bounded(sides: tf.Tensor) -> tf.Tensor:
    """Return a picture's sides; fail where it would not fit into memory."""
    num_pixels = tf.reduce_prod(tf.cast(sides, tf.int64))
    check = tf.debugging.assert_less_equal(
        num_pixels, np.int64(MAX_PIXELS), message="too many pixels"
    )
    with tf.control_dependencies([check]):
        return tf.identity(sides)


def _window(sides: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
    """Return the crop window (top, left, side, side), int32 [4]."""
    free_side = tf.cast(tf.reduce_min(sides), tf.float32) * CROP_FRACTION
    side = tf.cast(tf.round(free_side), tf.int32)
    room = tf.cast(sides - side + 1, tf.float32)
    top_left = tf.cast(tf.floor(position * room), tf.int32)
    return tf.concat([top_left, [side, side]], axis=0)


def _resize(image: tf.Tensor, size: int) -> tf.Tensor:
    """Resize to ``size``; averaging areas, which leaves no aliases when shrinking."""
    resized = tf.image.resize_area(image[tf.newaxis], [size, size])[0]
    return tf.cast(tf.round(resized), tf.uint8)


def _synthetic_batches(
    dataset: Dataset, data: Config, reader: Reader
) -> tf.data.Dataset:
    """Return one made-up batch again and again."""
    generator = np.random.RandomState(_mix(reader.seed, reader.rank))
    shape = [reader.batch_size, data.image_size, data.image_size, 3]
    features = {"image": generator.randint(0, 256, shape).astype(np.uint8)}
    labels = generator.randint(0, dataset.num_classes, shape[:1]).astype(np.int32)
    return tf.data.Dataset.from_tensors((features, labels)).repeat()


def _with_weights(
    batches: tf.data.Dataset, num_steps: int, num_padding: int, batch_size: int
) -> tf.data.Dataset:
    """Return the first batches; the last ``num_padding`` images have weight 0."""
    weights = np.ones([num_steps * batch_size], np.float32)
    weights[len(weights) - num_padding :] = 0
    weights = tf.data.Dataset.from_tensor_slices(weights.reshape([-1, batch_size]))
    return tf.data.Dataset.zip((batches, weights)).map(
        lambda batch, weight: (dict(batch[0], weight=weight), batch[1])
    )


def _mix(seed: int, rank: int) -> int:
    """Return a seed that differs for every (seed, rank), below 2 ** 31."""
    return int(np.random.RandomState([seed, rank]).randint(0, 2**31 - 1))


def _decode_threads(data: Config) -> int:
    return data.decode_threads or tf.data.experimental.AUTOTUNE
