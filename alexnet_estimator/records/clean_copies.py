"""Data without its damaged records.

TensorFlow's reader cannot pass a damaged record, and ``ignore_errors`` would drop the
rest of its file in silence.  So the data are verified once; then a folder gets copies
of the damaged files without these records and links to all other files.
"""

import dataclasses
import os
from typing import Any, Dict

from alexnet_estimator import files, locks
from alexnet_estimator.errors import DataError
from alexnet_estimator.records import findings, tfrecord
from alexnet_estimator.records.dataset import Dataset, Shard, Split, with_digest
from alexnet_estimator.records.verify import check_shards, count_labels


def leave_out_damaged(
    dataset: Dataset, cache_directory: str, max_bad_records: int
) -> Dataset:
    """Return a data set without its damaged records, and counted without them.

    Processes of one machine may call this at the same time: one verifies, the others
    wait.  Files that change get another folder, since a job may read the old one.

    Args:
        dataset: Data set whose files are all there.
        cache_directory: Folder in which the folder of the copies is made.
        max_bad_records: Number of records that may be lost.

    Raises:
        DataError: More records are lost, or copies cannot be written.
    """
    source = os.path.realpath(dataset.directory)
    paths = [path for name in dataset.splits for path in dataset.shard_paths(name)]
    name = f"{os.path.basename(source)}-clean"
    try:
        report = findings.keep(
            cache_directory, name, paths, lambda: _report_damage(dataset)
        )
        # A damaged length hides the records behind it: they are lost, too.
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
        folder = os.path.join(cache_directory, f"{name}-{findings.stamp(paths)[:16]}")
        os.makedirs(folder, exist_ok=True)
        with locks.wait_for_folder(folder):
            return _clean(dataset, folder, report, num_bad)
    except OSError as error:
        heading = os.path.join(cache_directory, name)
        raise DataError(f"clean copies cannot be made: {error}", heading) from error


def _report_damage(dataset: Dataset) -> Dict[str, Any]:
    report: Dict[str, Any] = {"damages": []}
    report.update(bad_records={}, num_images={}, class_counts={})
    for name, split in dataset.splits.items():
        # Without the hash of the file: every record is checked by itself.
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
    """Fill the folder where that has not been done yet, and describe it."""

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
