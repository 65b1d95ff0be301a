"""The records that a rank reads, and their order."""

import os
from typing import List, NamedTuple, Sequence, Tuple

import numpy as np

from alexnet_estimator.config import Config
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.records.dataset import Dataset


class Slice(NamedTuple):
    """Consecutive records of a file."""

    path: str
    skip: int
    take: int


class Reader(NamedTuple):
    """A rank that reads its part of the data in batches.

    Attributes:
        rank: Number of the rank, from 0.
        num_ranks: Number of ranks that share the data.
        batch_size: Number of images in a batch of this rank.
        seed: Seed of shuffling, augmentation and synthetic images.
    """

    rank: int
    num_ranks: int
    batch_size: int
    seed: int = 0


def part_edges(num_records: int, num_parts: int) -> List[int]:
    """Return the edges (one more than parts) of parts whose sizes differ by at most 1.

    Args:
        num_records: Number of records that are cut into parts.
        num_parts: Number of parts.
    """
    return [num_records * part // num_parts for part in range(num_parts + 1)]


def slices_of_rank(
    shards: Sequence[Tuple[str, int]], rank: int, num_ranks: int
) -> List[Slice]:
    """Return this rank's part of the files.

    The records of all files, in order, are cut at ``part_edges``, so the parts are
    disjoint, complete and even for any number of ranks and files.  A rank opens only
    the files that contain records of its part.

    Args:
        shards: Path and number of records of every file.
        rank: Number of the rank, from 0.
        num_ranks: Number of parts.
    """
    total = sum(count for _, count in shards)
    first, end = part_edges(total, num_ranks)[rank : rank + 2]
    slices, start = [], 0
    for path, count in shards:
        low, high = max(first, start), min(end, start + count)
        if low < high:
            slices.append(Slice(path, low - start, high - low))
        start += count
    return slices


def num_eval_steps(num_images: int, reader: Reader) -> int:
    """Return the number of steps, equal on all ranks, in which each reads its part."""
    largest_part = -(-num_images // reader.num_ranks)
    return -(-largest_part // reader.batch_size)


def slices_of(dataset: Dataset, split_name: str, reader: Reader) -> List[Slice]:
    """Return this rank's part of a split."""
    shards = dataset.splits[split_name].shards
    counts = [shard.num_images for shard in shards]
    paths = dataset.shard_paths(split_name)
    return slices_of_rank(list(zip(paths, counts)), reader.rank, reader.num_ranks)


def as_dataset(slices: Sequence[Slice]) -> tf.data.Dataset:
    """Return a dataset of (path, skip, take), scalars."""
    columns = (
        tf.constant([os.fsencode(part.path) for part in slices], tf.string),
        np.array([part.skip for part in slices], np.int64),
        np.array([part.take for part in slices], np.int64),
    )
    return tf.data.Dataset.from_tensor_slices(columns)


def read(slices: tf.data.Dataset, data: Config) -> tf.data.Dataset:
    """Return the records (string scalars) of slices, several files at a time.

    A file that has lost records since its manifest was written delivers empty ones
    instead, which ``parse`` refuses.  Without them an epoch would silently be shorter,
    and an epoch without any record would be repeated for ever.
    """

    def read_slice(
        path: tf.Tensor, skip: tf.Tensor, take: tf.Tensor
    ) -> tf.data.Dataset:
        records = tf.data.TFRecordDataset(path, buffer_size=1 << 20)
        empty = tf.data.Dataset.from_tensors(b"").repeat()
        return records.skip(skip).concatenate(empty).take(take)

    return slices.interleave(
        read_slice, cycle_length=data.interleave_files, block_length=1
    )


def shuffled_records(
    slices: Sequence[Slice], data: Config, seed: int, epoch: tf.Tensor
) -> tf.data.Dataset:
    """Return the records of one epoch: files shuffled, interleaved, and shuffled."""
    epoch_seed = seed + epoch
    files = as_dataset(slices).shuffle(
        max(len(slices), 1), seed=epoch_seed, reshuffle_each_iteration=False
    )
    return read(files, data).shuffle(
        data.shuffle_images, seed=epoch_seed, reshuffle_each_iteration=False
    )


def parse(record: tf.Tensor, dataset: Dataset) -> Tuple[tf.Tensor, tf.Tensor]:
    """Return the encoded picture of a record and its label from 0 (int32 scalar).

    A label that is not one of the classes is an error: it would silently add nothing
    to the loss.
    """
    parsed = tf.io.parse_single_example(
        record,
        {
            "image/encoded": tf.io.FixedLenFeature([], tf.string),
            "image/class/label": tf.io.FixedLenFeature([], tf.int64),
        },
    )
    label = parsed["image/class/label"] - dataset.label_offset
    is_class = tf.logical_and(label >= 0, label < dataset.num_classes)
    # tf.debugging.assert_* would add a branch, which takes longer than all the rest.
    check = tf.raw_ops.Assert(condition=is_class, data=["label of no class", label])
    with tf.control_dependencies([check]):
        return parsed["image/encoded"], tf.cast(label, tf.int32)


def mix(seed: int, rank: int) -> int:
    """Return a seed that differs for every (seed, rank), below 2 ** 31."""
    return int(np.random.RandomState([seed, rank]).randint(0, 2**31 - 1))
