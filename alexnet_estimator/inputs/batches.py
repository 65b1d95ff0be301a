"""From records to batches: sharded by rank, augmented, reproducible at every step.

What a rank reads at a step is a function of (seed, rank, step) alone: the epoch seeds
the shuffling, and the position of the image in the stream seeds its augmentation, so
that an interrupted run continues with the images that it would have seen.

A training batch is ``({"image": uint8 [batch, size, size, 3], RGB}, int32 [batch])``;
with colour noise there is also ``"colour_offset"``, float32 [batch, 3].  An evaluation
batch has ``"weight"`` as well, float32 [batch]: 1 for an image, 0 for padding.  With
``data.use_ten_crop`` the images of evaluation and prediction are uint8
[batch, 10, size, size, 3]: the views of each picture.
"""

from typing import Callable, Dict, Iterator, Sequence, Tuple

import numpy as np

from alexnet_estimator import engine, machine
from alexnet_estimator.config import Config
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.errors import DataError
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
Features = Dict[str, tf.Tensor]
# The functions below write conditions as graph operations, so AutoGraph has nothing to
# convert; left to itself, it would read the whole pipeline for more than a second.
_without_autograph = tf.autograph.experimental.do_not_convert


@_without_autograph
def train_batches(
    dataset: Dataset, data: Config, reader: Reader, start_step: int
) -> tf.data.Dataset:
    """Return endless training batches from a global step on.

    Args:
        dataset: Data set that ``records`` opened, or ``synthetic_dataset``.
        data: Section ``data`` of the configuration.
        reader: This rank and its batch size.
        start_step: Global step of the first batch.

    Raises:
        DataError: There are fewer images than ranks.
    """
    if data.synthetic:
        return synthetic_batches(dataset, data, reader)
    num_images = dataset.splits["train"].num_images
    if num_images < reader.num_ranks:
        raise DataError(
            f"{num_images} training images for {reader.num_ranks} ranks: every rank "
            "needs one, use fewer ranks",
            dataset.directory,
        )
    slices = slices_of(dataset, "train", reader)
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
    return _batch_ahead(images, reader.batch_size, data)


@_without_autograph
def eval_batches(
    dataset: Dataset, data: Config, reader: Reader, split_name: str = "validation"
) -> tf.data.Dataset:
    """Return batches that hold every image of this rank's part exactly once.

    Black images of weight 0 fill up the last batches, so that shapes are static and all
    ranks make the same number of steps.
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
        encoded, label = parse(record, dataset)
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
    return _batch_ahead(images, reader.batch_size, data)


@_without_autograph
def picture_batches(
    read_pictures: Callable[[], Iterator[bytes]], data: Config, batch_size: int
) -> tf.data.Dataset:
    """Return batches ``{"image"}`` of pictures without labels, as evaluation sees them.

    Black images fill up the last batch, so that shapes are static.

    Args:
        read_pictures: Function that yields encoded pictures.
        data: Section ``data`` of the configuration.
        batch_size: Number of pictures in a batch.
    """

    def decode(encoded: tf.Tensor) -> Features:
        return {"image": decode_views(encoded, data)}

    black = {"image": np.zeros(views_shape(data), np.uint8)}
    filler = tf.data.Dataset.from_tensors(black).repeat(batch_size - 1)
    images = (
        tf.data.Dataset.from_generator(read_pictures, tf.string, [])
        .map(decode, num_parallel_calls=_decode_threads(data))
        .concatenate(filler)
    )
    return _batch_ahead(images, batch_size, data)


def normalise(features: Features, mean_rgb: Sequence[float], data: Config) -> tf.Tensor:
    """Turn the images of a batch into the input of the network.

    Returns:
        float32 [batch, size, size, 3]: mean subtracted, divided by ``pixel_scale``, in
        ``channel_order``.  With ten views of each picture, they follow each other.
    """
    # This runs in the model function, on the device: uint8 images take a quarter of
    # the memory and of the transfer.
    images = tf.cast(features["image"], tf.float32)
    if images.shape.ndims == 5:
        # [batch, 10, size, size, 3] -> [batch * 10, size, size, 3]
        images = tf.reshape(images, [-1, *images.shape.as_list()[2:]])
    pixels = images - tf.constant(mean_rgb, tf.float32)
    if "colour_offset" in features:
        pixels += features["colour_offset"][:, tf.newaxis, tf.newaxis, :]
    if data.channel_order == "bgr":
        pixels = tf.reverse(pixels, axis=[3])
    return pixels / data.pixel_scale


def _training_example(
    record: tf.Tensor, seed: list, dataset: Dataset, data: Config
) -> Tuple[Features, tf.Tensor]:
    """Decode and augment one record; ``seed`` belongs to this image (2 integers)."""
    encoded, label = parse(record, dataset)
    if not data.use_augmentation:
        image = decode_for_eval(encoded, data.image_size, dataset.short_side)
        return {"image": image}, label
    # Four independent numbers: place of the crop (y, x), flip, size of the crop.
    random = tf.random.stateless_uniform([4], seed)
    least, most = data.crop_fractions
    fraction = least if least == most else least + (most - least) * random[3]
    image = crop(encoded, random[:2], data.image_size, fraction, dataset.short_side)
    image = tf.cond(random[2] < 0.5, lambda: tf.reverse(image, [1]), lambda: image)
    features = {"image": image}
    if data.colour_noise_std > 0:
        features["colour_offset"] = _colour_offset(seed, dataset, data)
    return features, label


def _colour_offset(seed: list, dataset: Dataset, data: Config) -> tf.Tensor:
    """Return a random colour along the principal components of RGB, float32 [3].

    Krizhevsky et al., 2012, section 4.1: each component is multiplied by the standard
    deviation of the training colours along it (in [0, 255]) and by a normal number.
    """
    variances, components = np.linalg.eigh(np.array(dataset.rgb_covariance))
    # Builds of numpy differ in the sign of a component, which would change the colours.
    largest = np.abs(components).argmax(axis=0)
    components = components * np.sign(components[largest, range(3)])
    deviations = np.sqrt(np.maximum(variances, 0)) * data.colour_noise_std
    # Crop and flip have another seed, because equal seeds give related numbers.
    normal = tf.random.stateless_normal([3], [-1 - seed[0], seed[1]])
    weighted = normal * tf.constant(deviations, tf.float32)
    return tf.linalg.matvec(tf.constant(components, tf.float32), weighted)


def _batch_ahead(
    images: tf.data.Dataset, batch_size: int, data: Config
) -> tf.data.Dataset:
    """Return full batches that are prepared before the step needs them."""
    options = tf.data.Options()
    threads = options.experimental_threading if engine.is_1_15() else options.threading
    # With the threads of the session, which may be one, decoding and the step would
    # wait for each other.
    threads.private_threadpool_size = data.decode_threads or machine.num_cores()
    batches = images.batch(batch_size, drop_remainder=True)
    return batches.prefetch(data.prefetch_batches).with_options(options)


def _decode_threads(data: Config) -> int:
    return data.decode_threads or tf.data.experimental.AUTOTUNE
