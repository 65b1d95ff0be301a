"""Copies of a data set without its damaged records.

TensorFlow's reader stops at a damaged record, and ``ignore_errors`` would silently drop
the rest of the file.  Therefore the data are verified once.  A new folder then gets
copies of the damaged files without these records, and links to all other files.
"""

import dataclasses
import os
from typing import Any, Dict

from alexnet_estimator import files, locks
from alexnet_estimator.errors import DataError
from alexnet_estimator.records import result_cache, tfrecord
from alexnet_estimator.records.dataset import Dataset, Shard, Split, with_digest
from alexnet_estimator.records.verify import check_shards, count_labels


def leave_out_damaged(
    dataset: Dataset, cache_directory: str, max_bad_records: int
) -> Dataset:
    """Return the data set without its damaged records, in its files and its counts.

    Several processes of one machine may call this at the same time: one of them
    verifies, and the others wait.  If the files change later, their copies are made in
    another folder, because a job may still read the old one.

    Args:
        dataset: Data set whose files all exist.
        cache_directory: Folder in which the folder of the copies is created.
        max_bad_records: Largest number of records that may be lost.

    Raises:
        DataError: More records are lost, or the copies cannot be written.
    """
    source = os.path.realpath(dataset.directory)
    paths = [path for name in dataset.splits for path in dataset.shard_paths(name)]
    name = f"{os.path.basename(source)}-clean"
    try:
        report = result_cache.keep(
            cache_directory, name, paths, lambda: _report_damage(dataset)
        )
        # The records after a damaged length cannot be found, so they are lost as well.
        num_images = sum(split.num_images for split in dataset.splits.values())
        num_bad = num_images - sum(report["num_images"].values())
        if num_bad > max_bad_records:
            advice = (
                f"{num_bad} records are lost, more than data.max_bad_records = "
                f"{max_bad_records}: copy the data again, or convert it again"
            )
            raise DataError(report["damages"], dataset.directory, advice)
        if not num_bad:
            return dataset
        folder = os.path.join(
            cache_directory, f"{name}-{result_cache.stamp(paths)[:16]}"
        )
        os.makedirs(folder, exist_ok=True)
        with locks.wait_for_folder(folder):
            return _clean(dataset, folder, report, num_bad)
    except OSError as error:
        heading = os.path.join(cache_directory, name)
        raise DataError(f"clean copies cannot be created: {error}", heading) from error


def _report_damage(dataset: Dataset) -> Dict[str, Any]:
    report: Dict[str, Any] = {"damages": []}
    report.update(bad_records={}, num_images={}, class_counts={})
    for name, split in dataset.splits.items():
        # The hash of the file is not compared.  Every record has its own checksum, and
        # a wrong hash would not tell which record to leave out.
        shards = [dataclasses.replace(shard, sha256="") for shard in split.shards]
        checks = check_shards(dataset, shards)
        for shard, check in zip(shards, checks):
            report["num_images"][shard.file] = sum(check.labels.values())
            if check.damages:
                bad = [damage.record_index for damage in check.damages]
                report["bad_records"][shard.file] = bad
                report["damages"] += map(str, check.damages)
        report["class_counts"][name] = count_labels(dataset, checks)
    return report


def _clean(
    dataset: Dataset, folder: str, report: Dict[str, Any], num_bad: int
) -> Dataset:
    """Write the files that the folder lacks, and return its data set."""

    def clean(shard: Shard) -> Shard:
        source = os.path.join(os.path.realpath(dataset.directory), shard.file)
        target = os.path.join(folder, shard.file)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if shard.file not in report["bad_records"]:
            if not os.path.lexists(target):
                os.symlink(source, target)
            return shard
        if not os.path.exists(target):
            with files.replacing(target) as file:
                for record in tfrecord.read_records(source):
                    if record.record_index not in report["bad_records"][shard.file]:
                        file.write(tfrecord.frame(record.data))
        num_images = report["num_images"][shard.file]
        return Shard(shard.file, num_images, os.path.getsize(target), sha256="")

    splits = {
        name: Split(
            tuple(map(clean, split.shards)), tuple(report["class_counts"][name])
        )
        for name, split in dataset.splits.items()
    }
    clean_one = dataclasses.replace(dataset, directory=folder, splits=splits)
    return with_digest(dataclasses.replace(clean_one, num_bad_records=num_bad))
