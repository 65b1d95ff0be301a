"""TFRecords that other tools made of ImageNet: ``train-00000-of-01024`` and so on.

They come without a manifest, so it is made on opening.  Records are found by their
lengths and labels by the layout of the Example: pictures are skipped, but for a few
that tell the colours.
"""

import collections
import concurrent.futures
import itertools
import os
import re
from typing import Counter, Dict, Iterable, List, NamedTuple, Tuple

import numpy as np

from alexnet_estimator.errors import DataError
from alexnet_estimator.records import examples, tfrecord
from alexnet_estimator.records.dataset import (
    SPLITS,
    Dataset,
    Rgb,
    Shard,
    Split,
    with_digest,
)
from alexnet_estimator.records.pictures import (
    colour_moments,
    decode,
    mean_and_covariance,
)

_NAME = re.compile(r"(train|validation)-(\d{5})-of-(\d{5})")
_NUM_THREADS = 16  # They wait for the disk.
_BUFFER_BYTES = 1024
_MAX_CLASSES = 1 << 20
_COLOUR_SHARDS = 32
_COLOUR_IMAGES_PER_SHARD = 8


class _Scan(NamedTuple):
    shard: Shard
    labels: Counter[int]
    problem: str


def is_foreign(directory: str) -> bool:
    """Say whether there are files named as ImageNet's TFRecords are."""
    return os.path.isdir(directory) and any(_list_names(directory).values())


def load(directory: str, label_offset: int) -> Dataset:
    """Describe the TFRecords of a folder; classes are named by their numbers.

    A record takes 30 to 50 microseconds and two small reads: a minute for ImageNet.

    Args:
        directory: the folder of the shards.
        label_offset: what the labels have to be reduced by to start at 0.

    Raises:
        DataError: no such files, missing or damaged ones, or labels below the offset.
    """
    if not is_foreign(directory):
        raise DataError(
            "no dataset.json and no train-00000-of-01024 and so on: give what "
            "'convert' made, or pictures",
            directory,
        )
    names = _list_names(directory)
    scans = {split: _scan_all(directory, names[split]) for split in SPLITS}
    problems = _find_missing(names) + [
        f"{scan.shard.file}: {scan.problem}"
        for split in SPLITS
        for scan in scans[split]
        if scan.problem
    ]
    if problems:
        raise DataError(problems, directory)
    labels: Dict[str, Counter[int]] = {
        split: sum((scan.labels for scan in scans[split]), collections.Counter())
        for split in SPLITS
    }
    return _describe(directory, label_offset, scans, labels)


def _list_names(directory: str) -> Dict[str, List[str]]:
    names: Dict[str, List[str]] = {split: [] for split in SPLITS}
    for name in sorted(os.listdir(directory)):
        match = _NAME.fullmatch(name)
        if match:
            names[match.group(1)].append(name)
    return names


def _find_missing(names: Dict[str, List[str]]) -> List[str]:
    """Compare the files with the total that their names tell."""
    problems = []
    for split, present in names.items():
        totals = sorted({name[-5:] for name in present})
        for total in totals:
            wanted = {f"{split}-{i:05d}-of-{total}" for i in range(int(total))}
            missing = sorted(wanted - set(present))
            if missing:
                problems.append(
                    f"{len(missing)} of {int(total)} {split} files are missing, such "
                    f"as {missing[0]}; to use a part, rename its files"
                )
    return problems


def _scan_all(directory: str, names: Iterable[str]) -> List[_Scan]:
    paths = [os.path.join(directory, name) for name in names]
    with concurrent.futures.ThreadPoolExecutor(_NUM_THREADS) as pool:
        return list(pool.map(_scan, paths))


def _scan(path: str) -> _Scan:
    """Count the labels of a file."""
    labels: Counter[int] = collections.Counter()
    problem = ""
    with open(path, "rb", buffering=_BUFFER_BYTES) as file:
        try:
            for end in tfrecord.walk(file):
                labels[examples.read_label(file, end)] += 1
        except ValueError as error:
            problem = str(error)
    shard = Shard(
        file=os.path.basename(path),
        num_images=sum(labels.values()),
        num_bytes=os.path.getsize(path),
        sha256="",
    )
    return _Scan(shard, labels, problem)


def _describe(
    directory: str,
    label_offset: int,
    scans: Dict[str, List[_Scan]],
    labels: Dict[str, Counter[int]],
) -> Dataset:
    seen = set().union(*labels.values())
    num_classes = max(seen, default=0) - label_offset + 1
    if not seen or min(seen) < label_offset or num_classes > _MAX_CLASSES:
        raise DataError(
            f"labels from {min(seen, default=None)} to {max(seen, default=None)} do "
            f"not go with label_offset {label_offset} and {_MAX_CLASSES} classes",
            directory,
        )
    splits = {
        split: Split(
            shards=tuple(scan.shard for scan in scans[split]),
            class_counts=tuple(
                labels[split][label + label_offset] for label in range(num_classes)
            ),
        )
        for split in SPLITS
    }
    mean, covariance = _measure_colours(directory, scans)
    return with_digest(
        Dataset(
            directory=directory,
            class_names=tuple(str(label) for label in range(num_classes)),
            splits=splits,
            mean_rgb=mean,
            rgb_covariance=covariance,
            digest="",
            label_offset=label_offset,
        )
    )


def _measure_colours(
    directory: str, scans: Dict[str, List[_Scan]]
) -> Tuple[Rgb, Tuple[Rgb, Rgb, Rgb]]:
    """Measure a sample: the first pictures of some shards, evenly spaced."""
    shards = scans["train"] or scans["validation"]
    moments = np.zeros([4, 4])
    for scan in shards[:: -(-len(shards) // _COLOUR_SHARDS)]:
        records = tfrecord.read_records(os.path.join(directory, scan.shard.file))
        for record in itertools.islice(records, _COLOUR_IMAGES_PER_SHARD):
            try:
                moments += colour_moments(decode(examples.parse(record.data)[0]))
            except Exception:  # Damage is for verify and training to report.
                continue
    if not moments.any():
        raise DataError("none of the first pictures can be decoded", directory)
    return mean_and_covariance(moments)
