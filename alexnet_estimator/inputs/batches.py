"""Batches of training, evaluation and prediction.

The batch of a rank at a step depends only on seed, rank and step: the epoch seeds the
shuffling, and the position of an image in the stream seeds its augmentation.  A resumed
run therefore continues with the same images as a run without interruption.

| batch | content |
|---|---|
| training | ``({"image"}, labels)``; augmentation adds features |
| evaluation | ``({"image", "weight"}, labels)`` |
| prediction | ``{"image"}`` |

* ``image``: uint8 [batch, size, size, 3], RGB.  With ``data.use_ten_crop``, evaluation
  and prediction have the views of each picture: uint8 [batch, 10, size, size, 3].
* ``labels``: int32 [batch].
* ``colour_offset``: float32 [batch, 3], RGB, which is added to the pixels.  This is the
  paper's colour noise; ``augmentation.add_draws`` describes the features of the others.
* ``weight``: float32 [batch].  In evaluation, it is 1 for an image and 0 for padding.
  In training, it is the factor of the loss, and only data with weights have it.

All batches are full: NPUs need static shapes, and the batch size would be unknown if a
smaller last batch were possible (``drop_remainder``).
"""

from typing import Callable, Iterator, Sequence, Tuple, Union

import numpy as np

from alexnet_estimator import engine, machine
from alexnet_estimator.config import Config
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.errors import DataError
from alexnet_estimator.inputs import augmentation
from alexnet_estimator.inputs.augmentation import Features
from alexnet_estimator.inputs.pictures import (
    crop,
    decode_for_eval,
    decode_views,
    views_shape,
)
from alexnet_estimator.inputs.shards import (
    Reader,
    as_dataset,
    mix,
    num_eval_steps,
    parse,
    read,
    shuffled_records,
    slices_of,
)
from alexnet_estimator.inputs.synthetic import synthetic_batches, with_weights
from alexnet_estimator.records.dataset import Dataset

MAX_EPOCHS = 1 << 31
# The functions below use graph operations for conditions, so there is nothing for
# AutoGraph to convert.  Trying would take more than a second.
_without_autograph = tf.autograph.experimental.do_not_convert


@_without_autograph
def train_batches(
    dataset: Dataset, data: Config, reader: Reader, start_step: int
) -> tf.data.Dataset:
    """Return an endless dataset of training batches; see the module for their content.

    Args:
        dataset: Data set that ``records`` has opened, or ``synthetic_dataset``.
        data: Section ``data`` of the configuration.
        reader: Rank and batch size.
        start_step: Global step of the first batch.

    Raises:
        DataError: There are fewer images than ranks.
    """
    if data.synthetic:
        return synthetic_batches(dataset, data, reader)
    num_images = dataset.splits["train"].num_images
    if num_images < reader.num_ranks:
        raise DataError(
            f"there are {num_images} training images for {reader.num_ranks} ranks, but "
            "every rank needs at least one: use fewer ranks",
            dataset.directory,
        )
    slices = slices_of(dataset, "train", reader)
    # A resumed run starts in the epoch of its first step, and skips the images of this
    # epoch that it has used before, without decoding them.
    first_image = start_step * reader.batch_size
    epoch, position = divmod(first_image, sum(part.take for part in slices))
    seed = mix(reader.seed, reader.rank)

    def decode(index: tf.Tensor, record: tf.Tensor) -> Tuple[Features, tf.Tensor]:
        return _training_example(record, [seed, index], dataset, data)

    images = (
        tf.data.Dataset.range(epoch, MAX_EPOCHS)
        .flat_map(lambda epoch: shuffled_records(slices, data, seed, epoch))
        .skip(position)
        .apply(tf.data.experimental.enumerate_dataset(first_image))
        .map(decode, num_parallel_calls=_decode_threads(data))
    )
    batches = images.batch(reader.batch_size, drop_remainder=True)
    if data.use_augmentation and augmentation.is_drawn(data):
        numbering = tf.data.experimental.enumerate_dataset(start_step)
        batches = batches.apply(numbering).map(
            lambda step, batch: augmentation.add_draws(batch, [seed, step], data)
        )
    return _prefetch(batches, data)


@_without_autograph
def eval_batches(
    dataset: Dataset, data: Config, reader: Reader, split_name: str = "validation"
) -> tf.data.Dataset:
    """Return batches that contain every image of this rank's shard exactly once.

    Black images of weight 0 pad the last batches.  Without them, shapes would not be
    static, and ranks with fewer steps would leave the others waiting in a collective.

    Args:
        dataset: Data set that ``records`` has opened, or ``synthetic_dataset``.
        data: Section ``data`` of the configuration.
        reader: Rank and batch size.
        split_name: Name of the split.
    """
    num_images = dataset.splits[split_name].num_images
    num_steps = num_eval_steps(num_images, reader)
    slices = slices_of(dataset, split_name, reader)
    num_padding = num_steps * reader.batch_size - sum(part.take for part in slices)
    if data.synthetic:
        batches = synthetic_batches(dataset, data, reader)
        return with_weights(batches, num_steps, num_padding, reader.batch_size)
    image = np.zeros(views_shape(data), np.uint8)
    padding = {"image": image, "weight": np.float32(0)}

    def decode(record: tf.Tensor) -> Tuple[Features, tf.Tensor]:
        encoded, label, _ = parse(record, dataset)
        return {
            "image": decode_views(encoded, data, dataset.short_side),
            "weight": tf.constant(1.0),
        }, label

    images = read(as_dataset(slices), data).map(
        decode, num_parallel_calls=_decode_threads(data)
    )
    if num_padding:
        filler = tf.data.Dataset.from_tensors((padding, np.int32(0)))
        images = images.concatenate(filler.repeat(num_padding))
    return _prefetch(images.batch(reader.batch_size, drop_remainder=True), data)


@_without_autograph
def picture_batches(
    read_pictures: Callable[[], Iterator[bytes]], data: Config, batch_size: int
) -> tf.data.Dataset:
    """Return batches of pictures without labels, decoded as those of an evaluation.

    Black images pad the last batch, so that shapes are static.

    Args:
        read_pictures: Function that yields the content of picture files.
        data: Section ``data`` of the configuration.
        batch_size: Number of pictures in a batch.
    """

    def decode(encoded: tf.Tensor) -> Features:
        return {"image": decode_views(encoded, data)}

    # If the last picture is the first of a batch, batch_size - 1 images complete it.
    black = {"image": np.zeros(views_shape(data), np.uint8)}
    filler = tf.data.Dataset.from_tensors(black).repeat(batch_size - 1)
    images = (
        tf.data.Dataset.from_generator(read_pictures, tf.string, [])
        .map(decode, num_parallel_calls=_decode_threads(data))
        .concatenate(filler)
    )
    return _prefetch(images.batch(batch_size, drop_remainder=True), data)


def normalise(features: Features, mean_rgb: Sequence[float], data: Config) -> tf.Tensor:
    """Convert the images of a batch to the input of the network.

    Args:
        features: Batch with uint8 ``image``, and perhaps features of augmentation.
        mean_rgb: Mean of R, G, B, 0 to 255, which is subtracted.
        data: Section ``data`` of the configuration.

    Returns:
        float32 [batch, size, size, 3], augmented, divided by ``pixel_scale``, in
        ``channel_order``.  With ten-crop, float32 [batch * 10, size, size, 3], in which
        the views of a picture are consecutive.
    """
    # The model function calls this on the device, because uint8 images take a quarter
    # of the memory and of the transfer of float32 images.
    images = tf.cast(features["image"], tf.float32)
    if images.shape.ndims == 5:
        # [batch, 10, size, size, 3] -> [batch * 10, size, size, 3]
        images = tf.reshape(images, [-1, *images.shape.as_list()[2:]])
    images = augmentation.change_colours(images, features)
    pixels = images - tf.constant(mean_rgb, tf.float32)
    if "colour_offset" in features:
        # [batch, 3] -> [batch, 1, 1, 3], which is broadcast over the pixels.
        pixels += features["colour_offset"][:, tf.newaxis, tf.newaxis, :]
    if data.channel_order == "bgr":
        pixels = tf.reverse(pixels, axis=[3])
    return augmentation.erase_and_mix(pixels / data.pixel_scale, features)


def _training_example(
    record: tf.Tensor, seed: list, dataset: Dataset, data: Config
) -> Tuple[Features, tf.Tensor]:
    """Decode and augment one record, with two integers that seed this image."""
    encoded, label, weight = parse(record, dataset)
    weights = {} if weight is None else {"weight": weight}
    if not data.use_augmentation:
        image = decode_for_eval(encoded, data.image_size, dataset.short_side)
        return {"image": image, **weights}, label
    # Four independent numbers in [0, 1): position of the crop (y, x), flip, its size.
    random = tf.random.stateless_uniform([4], seed)
    least, most = data.crop_fractions
    fraction = least if least == most else least + (most - least) * random[3]
    aspect: Union[float, tf.Tensor] = 1.0
    if data.crop_aspects != (1.0, 1.0):
        # Another seed, because equal seeds give related numbers.
        uniform = tf.random.stateless_uniform([], [seed[0] + (2 << 32), seed[1]])
        aspect = augmentation.draw_aspect(data.crop_aspects, uniform)
    image = crop(
        encoded, random[:2], data.image_size, fraction, dataset.short_side, aspect
    )
    image = tf.cond(random[2] < 0.5, lambda: tf.reverse(image, [1]), lambda: image)
    if data.use_quarter_turns:
        image = augmentation.turn(image, seed)
    features = {"image": image, **weights}
    if data.colour_noise_std > 0:
        features["colour_offset"] = _colour_offset(seed, dataset, data)
    return features, label


def _colour_offset(seed: list, dataset: Dataset, data: Config) -> tf.Tensor:
    """Return a random colour along the principal components of RGB, float32 [3].

    Krizhevsky et al., 2012, section 4.1: each component is multiplied by the standard
    deviation of the training colours along it (on the scale from 0 to 255) and by a
    normally distributed number.
    """
    # The covariance is [3, 3]; column i of the components belongs to variance i.
    variances, components = np.linalg.eigh(np.array(dataset.rgb_covariance))
    # Builds of NumPy differ in the sign of a component.  Without a fixed sign, the same
    # seed would give other colours on another machine.
    largest = np.abs(components).argmax(axis=0)
    components = components * np.sign(components[largest, range(3)])
    deviations = np.sqrt(np.maximum(variances, 0)) * data.colour_noise_std
    # This seed differs from that of crop and flip, because equal seeds give correlated
    # numbers.
    normal = tf.random.stateless_normal([3], [-1 - seed[0], seed[1]])
    weighted = normal * tf.constant(deviations, tf.float32)
    return tf.linalg.matvec(tf.constant(components, tf.float32), weighted)


def _prefetch(batches: tf.data.Dataset, data: Config) -> tf.data.Dataset:
    """Return the batches, which are computed in the background."""
    options = tf.data.Options()
    threads = options.experimental_threading if engine.is_1_15() else options.threading
    # The pool of the session may have a single thread, on which decoding and the
    # training step would wait for each other.
    threads.private_threadpool_size = data.decode_threads or machine.num_cores()
    return batches.prefetch(data.prefetch_batches).with_options(options)


def _decode_threads(data: Config) -> int:
    return data.decode_threads or tf.data.experimental.AUTOTUNE
