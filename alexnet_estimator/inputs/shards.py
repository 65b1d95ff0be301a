"""The shard of each rank, and the order of its records."""

import itertools
import os
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from alexnet_estimator.config import Config
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.records.dataset import Dataset
from alexnet_estimator.records.examples import ENCODED, LABEL, WEIGHT


class Slice(NamedTuple):
    """A range of consecutive records in a file: ``take`` records after ``skip``."""

    path: str
    skip: int
    take: int


class Reader(NamedTuple):
    """A rank that reads its shard of the data in batches.

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
    """Return the edges of equal parts, whose sizes differ by at most one record.

    Args:
        num_records: Number of records.
        num_parts: Number of parts.

    Returns:
        ``num_parts + 1`` indices; part ``i`` lies between edges ``i`` and ``i + 1``.
    """
    return [num_records * part // num_parts for part in range(num_parts + 1)]


def slices_of_rank(
    shards: Sequence[Tuple[str, int]], rank: int, num_ranks: int
) -> List[Slice]:
    """Return the records of a rank as slices of files.

    The records of all files, in order, are divided at ``part_edges``.  The parts are
    disjoint, complete and of equal size for any number of ranks and files.  A rank
    opens only the files that contain its records.

    Args:
        shards: Path and number of records of every file.
        rank: Number of the rank, from 0.
        num_ranks: Number of ranks.
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
    """Return the number of evaluation steps, which is equal on all ranks."""
    largest_part = -(-num_images // reader.num_ranks)
    return -(-largest_part // reader.batch_size)


def slices_of(dataset: Dataset, split_name: str, reader: Reader) -> List[Slice]:
    """Return the records of this rank in a split, as slices of files."""
    shards = dataset.splits[split_name].shards
    counts = [shard.num_images for shard in shards]
    paths = dataset.shard_paths(split_name)
    return slices_of_rank(list(zip(paths, counts)), reader.rank, reader.num_ranks)


def as_dataset(slices: Sequence[Slice]) -> tf.data.Dataset:
    """Return a dataset of scalars (path, skip, take): string, int64, int64."""
    columns = (
        tf.constant([os.fsencode(part.path) for part in slices], tf.string),
        np.array([part.skip for part in slices], np.int64),
        np.array([part.take for part in slices], np.int64),
    )
    return tf.data.Dataset.from_tensor_slices(columns)


def read(slices: tf.data.Dataset, data: Config) -> tf.data.Dataset:
    """Return the records of slices, string scalars, interleaved from several files.

    If a file has fewer records than its manifest says, empty records replace the
    missing ones, and ``parse`` raises an error.  Otherwise an epoch would silently be
    shorter, and an epoch without any record would be repeated for ever.
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


def reading_order(slices: Sequence[Slice], data: Config) -> Iterator[Tuple[str, int]]:
    """Yield the file and the number of each record, in the order of ``read``.

    Like TensorFlow's ``interleave``, this takes one record from each open file in turn.
    The place of a finished file stays empty for one round.
    """
    waiting = (
        zip(itertools.repeat(part.path), itertools.count(part.skip), range(part.take))
        for part in slices
    )
    places: List[Optional[Iterator[Tuple[str, int, int]]]]
    places = [None] * min(data.interleave_files, len(slices))
    num_left = sum(part.take for part in slices)
    while num_left:
        for place, opened in enumerate(places):
            records = opened or next(waiting, None)
            record = next(records, None) if records else None
            places[place] = records if record else None
            if record:
                num_left -= 1
                yield record[:2]


def shuffled_records(
    slices: Sequence[Slice], data: Config, seed: int, epoch: tf.Tensor
) -> tf.data.Dataset:
    """Return the records of one epoch.

    The files are shuffled and interleaved, and then the records are shuffled.
    """
    epoch_seed = seed + epoch
    files = as_dataset(slices).shuffle(
        max(len(slices), 1), seed=epoch_seed, reshuffle_each_iteration=False
    )
    return read(files, data).shuffle(
        data.shuffle_images, seed=epoch_seed, reshuffle_each_iteration=False
    )


def parse(
    record: tf.Tensor, dataset: Dataset
) -> Tuple[tf.Tensor, tf.Tensor, Optional[tf.Tensor]]:
    """Parse a record.

    Args:
        record: Serialized Example, string scalar.
        dataset: Data set of the record.

    Returns:
        The content of the picture file, string scalar; the label from 0, int32 scalar;
        and the weight in the training loss, float32 scalar with a mean of 1 over the
        training pictures, or None for data without weights.  A label that is not one of
        the classes raises an error in the graph: ``tf.one_hot`` would turn it into
        zeros, which add nothing to the loss.
    """
    wanted: Dict[str, Any] = {
        ENCODED: tf.io.FixedLenFeature([], tf.string),
        LABEL: tf.io.FixedLenFeature([], tf.int64),
    }
    weight = None
    if dataset.mean_weight:
        wanted[WEIGHT] = tf.io.FixedLenFeature([], tf.float32, default_value=1.0)
    parsed = tf.io.parse_single_example(record, wanted)
    if dataset.mean_weight:
        weight = parsed[WEIGHT] / dataset.mean_weight
    label = parsed[LABEL] - dataset.label_offset
    is_class = tf.logical_and(label >= 0, label < dataset.num_classes)
    # tf.debugging.assert_* would add a branch, which takes longer than the parsing.
    check = tf.raw_ops.Assert(condition=is_class, data=["label of no class", label])
    with tf.control_dependencies([check]):
        return parsed[ENCODED], tf.cast(label, tf.int32), weight


def mix(seed: int, rank: int) -> int:
    """Return a seed below 2 ** 31 for a rank; it differs for every (seed, rank)."""
    return int(np.random.RandomState([seed, rank]).randint(0, 2**31 - 1))
