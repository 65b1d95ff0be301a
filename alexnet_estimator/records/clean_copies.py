"""Data without its damaged records.

TensorFlow's reader cannot pass a damaged record, and ``ignore_errors`` would drop the
rest of its file in silence.  So the data are verified once; then a folder gets copies
of the damaged files without these records and links to all other files.
"""

import collections
import dataclasses
import hashlib
import itertools
import json
import os
from typing import Any, Counter, Dict, List

from alexnet_estimator import files, locks
from alexnet_estimator.errors import DataError
from alexnet_estimator.records import tfrecord
from alexnet_estimator.records.dataset import Dataset, Shard, Split, with_digest
from alexnet_estimator.records.verify import check_shards

_REPORT_FILE = "report.json"


def leave_out_damaged(
    dataset: Dataset, cache_directory: str, max_bad_records: int
) -> Dataset:
    """Return a data set without its damaged records, and counted without them.

    Processes of one machine may call this at the same time: one verifies, the others
    wait.  What was found is kept until a file changes.

    Args:
        dataset: all of its files are there.
        cache_directory: where the clean copies go.
        max_bad_records: that may be lost.

    Raises:
        DataError: more are lost, or copies cannot be written.
    """
    path = os.path.realpath(dataset.directory)
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()
    name = f"{os.path.basename(path)}-clean-{digest[:8]}"
    folder = os.path.join(cache_directory, name)
    try:
        os.makedirs(folder, exist_ok=True)
        with locks.wait_for_folder(folder):
            report = _load_report(dataset, folder) or _write_report(dataset, folder)
            num_bad = _count_bad(dataset, report)
            if num_bad > max_bad_records:
                advice = (
                    f"{num_bad} records are lost, more than data.max_bad_records = "
                    f"{max_bad_records}: copy the data again, or convert it again"
                )
                raise DataError(report["damages"], dataset.directory, advice)
            return _clean(dataset, folder, report, num_bad) if num_bad else dataset
    except OSError as error:
        raise DataError(f"clean copies cannot be made: {error}", folder) from error


def _load_report(dataset: Dataset, folder: str) -> Dict[str, Any]:
    """Return what was found before; empty if there is nothing about these files."""
    try:
        with open(os.path.join(folder, _REPORT_FILE), encoding="utf-8") as file:
            report = json.load(file)
    except FileNotFoundError:
        return {}
    return report if report["stamp"] == _stamp(dataset) else {}


def _stamp(dataset: Dataset) -> List[Any]:
    """Return what changes with the files: size and time of each."""
    states = map(os.stat, itertools.chain(*map(dataset.shard_paths, dataset.splits)))
    return [dataset.digest, *([state.st_size, state.st_mtime_ns] for state in states)]


def _write_report(dataset: Dataset, folder: str) -> Dict[str, Any]:
    """Verify all files; forget the copies of what was there before."""
    for name in os.listdir(folder):
        os.remove(os.path.join(folder, name))
    report: Dict[str, Any] = {"stamp": _stamp(dataset), "damages": []}
    report.update(bad_records={}, num_images={}, class_counts={})
    for name, split in dataset.splits.items():
        labels: Counter[int] = collections.Counter()
        # Without the hash of the file: every record is checked by itself.
        shards = [dataclasses.replace(shard, sha256="") for shard in split.shards]
        for shard, check in zip(shards, check_shards(dataset, shards)):
            labels.update(check.labels)
            report["num_images"][shard.file] = sum(check.labels.values())
            if check.damages:
                bad = [damage.record_index for damage in check.damages]
                report["bad_records"][shard.file] = bad
                report["damages"] += map(str, check.damages)
        counts = [labels[label] for label in range(dataset.num_classes)]
        report["class_counts"][name] = counts
    path = os.path.join(folder, _REPORT_FILE)
    files.write_bytes(path, files.encode_json(report))
    return report


def _count_bad(dataset: Dataset, report: Dict[str, Any]) -> int:
    """Count lost records, also those that cannot be found behind a damaged length."""
    num_images = sum(split.num_images for split in dataset.splits.values())
    return num_images - sum(report["num_images"].values())


def _clean(
    dataset: Dataset, folder: str, report: Dict[str, Any], num_bad: int
) -> Dataset:
    """Fill the folder where that has not been done yet, and describe it."""

    def clean(shard: Shard) -> Shard:
        source = os.path.join(os.path.realpath(dataset.directory), shard.file)
        target = os.path.join(folder, shard.file)
        if shard.file not in report["bad_records"]:
            if not os.path.lexists(target):
                os.symlink(source, target)
            return shard
        if not os.path.exists(target):
            _copy(source, target, report["bad_records"][shard.file])
        num_images = report["num_images"][shard.file]
        return Shard(shard.file, num_images, os.path.getsize(target), sha256="")

    splits = {
        name: Split(
            tuple(map(clean, split.shards)), tuple(report["class_counts"][name])
        )
        for name, split in dataset.splits.items()
    }
    copied = dataclasses.replace(
        dataset, directory=folder, splits=splits, num_bad_records=num_bad
    )
    return with_digest(copied)


def _copy(source: str, target: str, bad_records: List[int]) -> None:
    """Write a file without its damaged records."""
    with files.replacing(target) as file:
        for record in tfrecord.read_records(source):
            if record.record_index not in bad_records:
                file.write(tfrecord.frame(record.data))
