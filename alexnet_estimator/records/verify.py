"""Reads all files of a data set and reports every damaged file and record.

``convert`` has decoded every picture that it wrote.  A file with the SHA-256 of the
manifest is therefore undamaged, and only its labels are read, which is about as fast as
the disk.  All records of the other files are checked one by one.
"""

import collections
import concurrent.futures
import os
from typing import Counter, List, NamedTuple, Optional, Sequence, Tuple

from alexnet_estimator import files, machine
from alexnet_estimator.console import open_bar
from alexnet_estimator.records import examples, manifest, tfrecord
from alexnet_estimator.records.dataset import Dataset, Shard
from alexnet_estimator.records.pictures import decode as decode_picture


class Damage(NamedTuple):
    """Damage of a record, of a whole file or of a split.

    Attributes:
        file: Name of the shard, or name of the split if its counts are wrong.
        record_index: Number of the record, from 0; None if the damage does not concern
            a single record.
        reason: Description of the damage.
    """

    file: str
    record_index: Optional[int]
    reason: str

    def __str__(self) -> str:
        record = "" if self.record_index is None else f" record {self.record_index}:"
        return f"{self.file}:{record} {self.reason}"


class ShardCheck(NamedTuple):
    """The result of checking a file.

    Attributes:
        damages: All damages of the file.
        labels: Number of undamaged records with each label, from 0.
    """

    damages: List[Damage]
    labels: Counter[int]


def verify(
    directory: str,
    label_offset: int = 0,
    decode: bool = True,
    show_progress: bool = True,
) -> List[Damage]:
    """Read every record and compare the data with the manifest.

    Args:
        directory: Folder of converted data or of foreign ImageNet TFRecords.
        label_offset: Number that is subtracted from the labels in the records.
        decode: Whether every picture is decoded as well.
        show_progress: Whether a progress bar is written to stderr.

    Returns:
        All damages, in the order of files and records; empty if there are none.

    Raises:
        DataError: There is no manifest, or it is damaged.
    """
    dataset = manifest.load(directory, label_offset)
    damages: List[Damage] = []
    for name, split in dataset.splits.items():
        checks = check_shards(dataset, split.shards, decode, show_progress)
        found = [damage for check in checks for damage in check.damages]
        counts = count_labels(dataset, checks)
        if not found and counts != split.class_counts:
            reason = f"pictures by class are {counts} instead of {split.class_counts}"
            found.append(Damage(name, None, reason))
        damages += found
    return damages


def count_labels(dataset: Dataset, checks: Sequence[ShardCheck]) -> Tuple[int, ...]:
    """Return the number of undamaged records of each class."""
    labels: Counter[int] = collections.Counter()
    for check in checks:
        labels.update(check.labels)
    return tuple(labels[label] for label in range(dataset.num_classes))


def check_shards(
    dataset: Dataset,
    shards: Sequence[Shard],
    decode: bool = True,
    show_progress: bool = True,
) -> List[ShardCheck]:
    """Read all records of shards, several shards at a time.

    Args:
        dataset: Data set of the shards.
        shards: Shards in the order of the result.
        decode: Whether every picture is decoded as well.
        show_progress: Whether a progress bar is written to stderr.
    """
    bar = open_bar("verifying", len(shards), "shards", is_wanted=show_progress)
    # Threads are enough here: decoding and hashing release the interpreter lock.
    pool = concurrent.futures.ThreadPoolExecutor(machine.num_cores())
    with manifest.keep_unchanged(dataset), pool, bar:
        checks = []
        for check in pool.map(lambda x: _check_shard(dataset, x, decode), shards):
            checks.append(check)
            bar.update()
        return checks


def _check_shard(dataset: Dataset, shard: Shard, decode: bool) -> ShardCheck:
    path = os.path.join(dataset.directory, shard.file)
    damages: List[Damage] = []
    labels: Counter[int] = collections.Counter()
    num_records, classes = 0, set(range(dataset.num_classes))
    try:
        is_same = shard.sha256 != "" and shard.sha256 == files.sha256_of(path)
        if is_same:
            counts, problem = examples.count_labels(path, dataset.label_offset)
            is_counted = sum(counts.values()) == shard.num_images
            if not problem and is_counted and set(counts) <= classes:
                return ShardCheck([], counts)
        for record in tfrecord.read_records(path):
            num_records += 1
            try:
                labels[_check_record(dataset, record, decode)] += 1
            except Exception as error:  # Broken pictures raise errors of any type.
                reason = str(error) or type(error).__name__
                damages.append(Damage(shard.file, record.record_index, reason))
        if num_records != shard.num_images:
            reason = f"{num_records} records instead of {shard.num_images}"
            damages.append(Damage(shard.file, None, reason))
        if not damages and shard.sha256 and not is_same:
            reason = (
                "SHA-256 differs, although no record is damaged: it is another file"
            )
            damages.append(Damage(shard.file, None, reason))
    except OSError as error:
        damages.append(Damage(shard.file, None, error.strerror or str(error)))
    return ShardCheck(damages, labels)


def _check_record(dataset: Dataset, record: tfrecord.Record, decode: bool) -> int:
    """Return the label of a record, from 0.

    Raises:
        Exception: The record is damaged.  Broken pictures raise errors of any type.
    """
    if record.problem:
        raise ValueError(record.problem)
    encoded, label = examples.parse(record.data)
    label -= dataset.label_offset
    if not 0 <= label < dataset.num_classes:
        raise ValueError(f"label {label}, but {dataset.num_classes} classes")
    if decode:
        decode_picture(encoded, dataset.short_side)
    return label
