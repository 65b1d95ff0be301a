"""Which records a rank reads, and in which order."""

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


def part_edges(num_records: int, num_parts: int) -> List[int]:
    """Return where parts begin, whose sizes differ by one at most, and the last ends.

    Args:
        num_records: cut into parts.
        num_parts: one less than there are edges.
    """
    return [num_records * part // num_parts for part in range(num_parts + 1)]


def slices_of_rank(
    shards: Sequence[Tuple[str, int]], rank: int, num_ranks: int
) -> List[Slice]:
    """Return this rank's part of the files.

    The records of all files, in order, are cut at ``part_edges``, so parts are
    disjoint, complete and even for any number of ranks and files.  A rank opens only
    the files that its part touches.

    Args:
        shards: (path, number of records) of every file.
        rank: from 0.
        num_ranks: parts.
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
    """Return the steps in which every rank has read its part: the same on all."""
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
    """Return the records (string scalars) of slices, several files at a time."""

    def read_slice(
        path: tf.Tensor, skip: tf.Tensor, take: tf.Tensor
    ) -> tf.data.Dataset:
        records = tf.data.TFRecordDataset(path, buffer_size=1 << 20)
        return records.skip(skip).take(take)

    return slices.interleave(
        read_slice, cycle_length=data.interleave_files, block_length=1
    )


def shuffled_records(
    slices: Sequence[Slice], data: Config, seed: int, epoch: tf.Tensor
) -> tf.data.Dataset:
    """Return one epoch's records: files shuffled, interleaved, records shuffled."""
    epoch_seed = seed + epoch
    files = as_dataset(slices).shuffle(
        max(len(slices), 1), seed=epoch_seed, reshuffle_each_iteration=False
    )
    return read(files, data).shuffle(
        data.shuffle_images, seed=epoch_seed, reshuffle_each_iteration=False
    )


def parse(record: tf.Tensor, label_offset: int) -> Tuple[tf.Tensor, tf.Tensor]:
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


def mix(seed: int, rank: int) -> int:
    """Return a seed that differs for every (seed, rank), below 2 ** 31."""
    return int(np.random.RandomState([seed, rank]).randint(0, 2**31 - 1))
