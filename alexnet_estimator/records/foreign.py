"""TFRecords of other tools, with file names such as ``train-00000-of-01024``.

Such data have no manifest.  The records are therefore counted when the data are opened,
and the counts are cached.  To save time, only the length and the label of each record
are read.  Only a few pictures are decoded, in order to measure the colours.
"""

import collections
import concurrent.futures
import itertools
import os
import re
from typing import Any, Counter, Dict, List, NamedTuple, Tuple

import numpy as np

from alexnet_estimator.console import note, warn
from alexnet_estimator.errors import DataError
from alexnet_estimator.records import examples, result_cache, tfrecord
from alexnet_estimator.records.dataset import (
    SPLITS,
    TRAIN,
    VALIDATION,
    Dataset,
    Rgb,
    Shard,
    Split,
    as_tuples,
    with_digest,
)
from alexnet_estimator.records.folders import split_of
from alexnet_estimator.records.pictures import (
    colour_moments,
    decode,
    mean_and_covariance,
)

# This matches the names of ImageNet, those of slim (with another word in front), those
# of TFDS (with the suffix in the middle), and files that are not divided into shards.
_NAME = re.compile(
    r"(?:(?P<data>.*?)[-_.])?(?P<split>train|validation|val|valid|test)"
    r"(?P<suffix>\.(?:tf_?records?|records?))?"
    r"(?:[-_](?P<index>\d{5})-of-(?P<total>\d{5}))?"
    r"(?P<end>\.(?:tf_?records?|records?|gz|zlib))*",
    re.IGNORECASE,
)
_EXPECTED = (
    "train-00000-of-01024 and validation-00000-of-00128, also with a name in front, "
    "with .tfrecord, and in folders train/ and validation/"
)
# The threads mostly wait for the disk, so that more of them than cores are useful.
_NUM_THREADS = 16
_MAX_CLASSES = 1 << 20
_COLOUR_SHARDS = 32
_COLOUR_IMAGES_PER_SHARD = 8


class _Name(NamedTuple):
    """The parsed name of a file.

    Attributes:
        file: Path relative to the folder of the data.
        group: Part of the name that the files of one split share.
        number: Number of the shard; 0 if the names have no numbers.
        total: Number of shards.
    """

    file: str
    group: str
    number: int
    total: int


def is_foreign(directory: str) -> bool:
    """Return whether a folder contains files with the names of TFRecords."""
    return os.path.isdir(directory) and any(_list_names(directory).values())


def load(directory: str, label_offset: int, cache_directory: str = "") -> Dataset:
    """Return the data set of a folder of TFRecords.

    The name of each class is its number.  Each record takes two small reads and 30 to
    50 microseconds, so that ImageNet takes a minute.  The counts are cached until a
    file changes.

    Args:
        directory: Folder of the shards, or the folder that contains ``train`` and
            ``validation``.
        label_offset: Number that is subtracted from the labels so that they start at 0.
        cache_directory: Folder in which the counts are cached; empty for no cache.

    Raises:
        DataError: No file has such a name, a file is missing or damaged, a record lacks
            the expected features, or a label is out of range.
    """
    if not is_foreign(directory):
        seen = sorted(os.listdir(directory))[:5] if os.path.isdir(directory) else []
        raise DataError(
            "no dataset.json and no TFRecords: give the output of convert, pictures "
            f"or files named {_EXPECTED}; there are: {', '.join(seen) or 'no files'}",
            directory,
        )
    names = _list_names(directory)
    files = {split: [name.file for name in names[split]] for split in SPLITS}
    paths = [os.path.join(directory, file) for split in SPLITS for file in files[split]]

    def find() -> Dict[str, Any]:
        return _find(directory, files, _find_name_problems(names))

    try:
        found = result_cache.keep(cache_directory, "foreign", paths, find)
    except OSError as error:
        note(f"the counts of records cannot be stored: {error}")
        found = find()
    return _describe(directory, label_offset, files, found)


def _list_names(directory: str) -> Dict[str, List[_Name]]:
    """Return the files of each split, in order."""
    found: Dict[str, List[_Name]] = {}
    # Other folders are not listed: a class folder may contain a million pictures.
    parts = (name for name in os.listdir(directory) if split_of(name)[0])
    for place in ["", *sorted(parts)]:
        folder = os.path.join(directory, place)
        names = os.listdir(folder) if os.path.isdir(folder) else []
        # An unfinished conversion is not opened, because its records are incomplete.
        # The user has to open the pictures again, which continues the conversion.
        if any(name.startswith(".convert-") for name in names):
            continue
        for name in sorted(names):
            match = _NAME.fullmatch(name)
            is_record = match and (match["index"] or match["suffix"] or match["end"])
            if match and is_record and os.path.isfile(os.path.join(folder, name)):
                split = match["split"].lower()
                split = VALIDATION if split.startswith("val") else split
                group = f"{place}/{match['data'] or ''}/{match['total'] or ''}"
                number, total = int(match["index"] or 0), int(match["total"] or 1)
                file = os.path.join(place, name)
                found.setdefault(split, []).append(_Name(file, group, number, total))
    # Without a split for validation, the test set is used for it.
    return {
        TRAIN: found.get(TRAIN, []),
        VALIDATION: found.get(VALIDATION, found.get("test", [])),
    }


def _find_name_problems(names: Dict[str, List[_Name]]) -> List[str]:
    """Return a message for each set of files that is incomplete or ambiguous."""
    problems = []
    for split, present in names.items():
        groups: Dict[str, List[_Name]] = {}
        for name in present:
            groups.setdefault(name.group, []).append(name)
        if len(groups) > 1 and len({name.group.split("/")[1] for name in present}) > 1:
            firsts = ", ".join(group[0].file for group in groups.values())
            problems.append(
                f"several sets of {split} files, such as {firsts}: put each into a "
                "folder of its own"
            )
        for group in groups.values():
            total = group[0].total
            missing = sorted(set(range(total)) - {name.number for name in group})
            if missing:
                first = group[0].file.replace(
                    f"{group[0].number:05d}-of", f"{missing[0]:05d}-of"
                )
                problems.append(
                    f"{len(missing)} of {total} {split} files are missing, such as "
                    f"{first}; to use a part, rename its files"
                )
    return problems


def _find(
    directory: str, files: Dict[str, List[str]], name_problems: List[str]
) -> Dict[str, Any]:
    """Count the records of each file and the labels of each split.

    Raises:
        DataError: Files are damaged, compressed, or have other features.
    """
    found: Dict[str, Any] = {"num_images": {}, "labels": {}}
    problems = list(name_problems)
    for split in SPLITS:
        labels: Counter[int] = collections.Counter()
        paths = [os.path.join(directory, file) for file in files[split]]
        with concurrent.futures.ThreadPoolExecutor(_NUM_THREADS) as pool:
            scans = list(pool.map(examples.count_labels, paths))
        for file, path, (labels_of_file, problem) in zip(files[split], paths, scans):
            num_images = sum(labels_of_file.values())
            found["num_images"][file] = num_images
            labels.update(labels_of_file)
            if problem:
                problems.append(f"{file}: {_explain(path, problem, num_images)}")
        found["labels"][split] = sorted(labels.items())
    if problems:
        raise DataError(problems, directory)
    mean, covariance = _measure_colours(directory, files)
    return {**found, "mean_rgb": mean, "rgb_covariance": covariance}


def _explain(path: str, problem: str, index: int) -> str:
    """Return a message about a file that cannot be scanned to its end.

    Args:
        path: Path of the file.
        problem: Message of the error.
        index: Number of the record at which the scan failed, from 0.
    """
    with open(path, "rb") as file:
        head = file.read(2)
    compression, command = "", ""
    if head == b"\x1f\x8b":
        compression, command = "gzip", "gunzip -c FILE"
    elif head[:1] == b"\x78" and int.from_bytes(head, "big") % 31 == 0:
        compression, command = "zlib", "zlib-flate -uncompress < FILE"
    if compression:
        return (
            f"compressed with {compression}, which is not supported: decompress every "
            f"file, for example with `{command} > OTHER_FOLDER/FILE`"
        )
    try:
        records = tfrecord.read_records(path)
        record = next(itertools.islice(records, index, None), None)
        names = examples.list_features(record.data) if record else []
    except Exception:  # The record is not an Example.
        names = []
    if names and examples.LABEL in problem:
        return (
            f"record {index}: {problem}; it must have {examples.ENCODED} and "
            f"{examples.LABEL} (int64), but has {', '.join(names)}"
        )
    return problem if problem.startswith("record") else f"record {index}: {problem}"


def _describe(
    directory: str, label_offset: int, files: Dict[str, List[str]], found: Any
) -> Dataset:
    labels: Dict[str, Dict[int, int]] = {x: dict(found["labels"][x]) for x in SPLITS}
    seen = set().union(*labels.values())
    num_classes = max(seen, default=0) - label_offset + 1
    if not seen or min(seen) < label_offset or num_classes > _MAX_CLASSES:
        raise DataError(
            f"labels from {min(seen, default=None)} to {max(seen, default=None)} do "
            f"not go with label_offset {label_offset} and {_MAX_CLASSES} classes",
            directory,
        )
    if min(seen) > label_offset:
        warn(
            f"{directory}: labels go from {min(seen)} to {max(seen)}, so that class 0 "
            "has no pictures; if the first class has label "
            f"{min(seen)}, give --config.data.label_offset={min(seen)}"
        )
    elif labels[TRAIN] and max(seen) not in labels[TRAIN]:
        warn(
            f"{directory}: label {max(seen)}, the last one, does not occur in training"
        )
    splits = {}
    for split in SPLITS:
        shards = []
        for file in files[split]:
            num_bytes = os.path.getsize(os.path.join(directory, file))
            shards.append(Shard(file, found["num_images"][file], num_bytes, sha256=""))
        numbers = range(label_offset, label_offset + num_classes)
        counts = tuple(labels[split].get(number, 0) for number in numbers)
        splits[split] = Split(tuple(shards), counts)
    return with_digest(
        Dataset(
            directory=directory,
            class_names=tuple(str(label) for label in range(num_classes)),
            splits=splits,
            mean_rgb=as_tuples(found["mean_rgb"]),
            rgb_covariance=as_tuples(found["rgb_covariance"]),
            digest="",
            label_offset=label_offset,
        )
    )


def _measure_colours(
    directory: str, files: Dict[str, List[str]]
) -> Tuple[Rgb, Tuple[Rgb, Rgb, Rgb]]:
    """Measure the colours of the first pictures of some evenly spaced shards."""
    shards = files[TRAIN] or files[VALIDATION]
    moments = np.zeros([4, 4])
    reason = ""
    for file in shards[:: -(-len(shards) // _COLOUR_SHARDS)]:
        records = tfrecord.read_records(os.path.join(directory, file))
        for record in itertools.islice(records, _COLOUR_IMAGES_PER_SHARD):
            try:
                moments += colour_moments(decode(examples.parse(record.data)[0]))
            except Exception as error:  # Verification and training report damage.
                reason = str(error)
    if not moments.any():
        raise DataError(
            f"none of the first pictures can be decoded: {reason}", directory
        )
    return mean_and_covariance(moments)
