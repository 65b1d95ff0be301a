"""Reads and writes ``dataset.json``, and checks the files that it names.

The manifest may come from anywhere, so that every value is checked before it is used.
"""

import collections
import os
import re
from typing import Any, Callable, ContextManager, Counter, List

from alexnet_estimator import files, locks
from alexnet_estimator.config import find_breaches
from alexnet_estimator.errors import DataError
from alexnet_estimator.records import foreign, result_cache, tfrecord
from alexnet_estimator.records.dataset import (
    SPLITS,
    Dataset,
    Shard,
    Split,
    as_tuples,
    with_digest,
)
from alexnet_estimator.rules import Rule, is_count

FILE_NAME = "dataset.json"
FORMAT_VERSION = 1
_MAX_BYTES = 1 << 24
_COPY_AGAIN = "copy the data again, or convert it again"
_MANY_IMAGES = 100_000  # Checking the lengths of this many records takes a second.


def is_dataset(directory: str) -> bool:
    """Return whether a folder contains a manifest or foreign TFRecords for ``load``."""
    manifest = os.path.join(directory, FILE_NAME)
    return os.path.isfile(manifest) or foreign.is_foreign(directory)


def load(directory: str, label_offset: int = 0, cache_directory: str = "") -> Dataset:
    """Return the data set of a folder of converted data or foreign ImageNet TFRecords.

    Args:
        directory: Folder of the shards.
        label_offset: Number that is subtracted from the labels of foreign data.
        cache_directory: Folder in which the counts of foreign data are cached; empty
            for no cache.

    Raises:
        DataError: There are no data, or the manifest is damaged or names a file outside
            of its folder.
    """
    path = os.path.join(directory, FILE_NAME)
    if not os.path.isfile(path):
        return foreign.load(directory, label_offset, cache_directory)
    if label_offset:
        raise DataError(
            f"label_offset is {label_offset}, but the labels of converted data start "
            "at 0: leave it out",
            path,
        )
    try:
        record = files.read_json(path, _MAX_BYTES)
    except ValueError as error:
        raise DataError(f"{error}; convert the data again", path) from error
    problems = _find_problems(record)
    if problems:
        raise DataError(problems, path)
    return _build(directory, record)


def keep_unchanged(dataset: Dataset) -> ContextManager[None]:
    """Return a context in which ``convert`` refuses to replace the data set's files."""
    # A data set without its damaged records has links to the files of another one.
    shards = [path for name in SPLITS for path in dataset.shard_paths(name)]
    folders = {os.path.dirname(os.path.realpath(path)) for path in shards}
    return locks.keep_unchanged(os.path.join(folder, FILE_NAME) for folder in folders)


def write(dataset: Dataset) -> None:
    """Write ``dataset.json`` into the folder of the data set.

    Readers see either the old file or the whole new one.
    """
    about = {"format_version": FORMAT_VERSION, "conversion": dataset.conversion}
    path = os.path.join(dataset.directory, FILE_NAME)
    files.write_bytes(path, files.encode_json({**about, **dataset.content()}, indent=1))


def check_files(dataset: Dataset) -> None:
    """Check that every shard exists and has the right size, without reading it.

    Raises:
        DataError: Shards are missing or have another size.  The error names all of
            them.
    """
    problems = []
    for split in dataset.splits.values():
        for shard in split.shards:
            path = os.path.join(dataset.directory, shard.file)
            if not os.path.isfile(path):
                problems.append(f"{shard.file} is missing")
                continue
            size = os.path.getsize(path)
            if size != shard.num_bytes:
                problems.append(
                    f"{shard.file} has {size} bytes instead of {shard.num_bytes}"
                )
    if problems:
        raise DataError(problems, dataset.directory, _COPY_AGAIN)


def check_lengths(dataset: Dataset, cache_directory: str) -> None:
    """Check that no record has a length beyond the end of its file.

    TensorFlow would allocate memory for such a length, and C++ would abort the process
    without a message.  A length whose checksum is wrong is not reported here, because
    TensorFlow itself raises an error about it.

    Args:
        dataset: Data set that ``convert`` has written.  Foreign data need no check,
            because their records are counted when they are opened.
        cache_directory: Folder in which the result for a large data set is cached.

    Raises:
        DataError: A record is too long.  The error names the file and the record.
    """
    paths = [path for name in SPLITS for path in dataset.shard_paths(name)]

    def find() -> List[str]:
        problems = []
        for path in paths:
            try:
                with files.naming(path), open(path, "rb", buffering=0) as file:
                    collections.deque(tfrecord.walk(file), maxlen=0)
            except ValueError as error:
                if "checksum" not in str(error):
                    problems.append(f"{os.path.basename(path)}: {error}")
        return problems

    num_images = sum(split.num_images for split in dataset.splits.values())
    place = cache_directory if num_images > _MANY_IMAGES else ""
    try:
        problems = result_cache.keep(place, "lengths", paths, find)
    except OSError:
        problems = find()  # Without a cache, the lengths are read every time.
    if problems:
        raise DataError(problems, dataset.directory, _COPY_AGAIN)


def _build(directory: str, record: Any) -> Dataset:
    """Build the data set from the content of a manifest without problems."""
    splits = {}
    for name in SPLITS:
        split = record["splits"][name]
        rows = ([shard[field] for field in _SHARD_RULES] for shard in split["shards"])
        shards = tuple(Shard(*row) for row in rows)
        splits[name] = Split(shards, tuple(split["class_counts"]))
    return with_digest(
        Dataset(
            directory=directory,
            class_names=tuple(record["class_names"]),
            splits=splits,
            mean_rgb=as_tuples(record["mean_rgb"]),
            rgb_covariance=as_tuples(record["rgb_covariance"]),
            digest="",
            conversion=record["conversion"],
        )
    )


def _find_problems(record: Any) -> List[str]:
    """Return all problems of a manifest.

    The numbers are compared with each other only if all values have the right types.
    """
    if not isinstance(record, dict) or record.get("format_version") != FORMAT_VERSION:
        return [f'it has no "format_version": {FORMAT_VERSION}; convert the data again']
    problems = find_breaches(record, _MANIFEST_RULES)
    if problems:
        return problems
    for name, split in record["splits"].items():
        problems += find_breaches(split, _SPLIT_RULES, f"splits.{name}.")
        shards = split.get("shards") if isinstance(split, dict) else None
        for index, shard in enumerate(shards if isinstance(shards, list) else []):
            problems += find_breaches(
                shard, _SHARD_RULES, f"splits.{name}.shards[{index}]."
            )
    if problems:
        return problems
    files_seen: Counter[str] = collections.Counter()
    num_classes = len(record["class_names"])
    for name, split in record["splits"].items():
        num_counts, num_images = len(split["class_counts"]), sum(split["class_counts"])
        if num_counts != num_classes:
            problems.append(
                f"{name} counts {num_counts} classes instead of {num_classes}"
            )
        in_shards = sum(shard["num_images"] for shard in split["shards"])
        if in_shards != num_images:
            problems.append(
                f"{name} counts {num_images} pictures by class but {in_shards} by shard"
            )
        files_seen.update(shard["file"] for shard in split["shards"])
    problems += [
        f"{file} is listed {n} times" for file, n in files_seen.items() if n > 1
    ]
    return problems if files_seen else ["there are no shards"]


def _is_list(value: Any, accepts: Callable[[Any], bool], length: int = 0) -> bool:
    """Return whether a value is a list of accepted items.

    Args:
        value: Value from JSON.
        accepts: Function that returns whether an item is accepted.
        length: Required length of the list; 0 for any length.
    """
    is_list = isinstance(value, list) and all(map(accepts, value))
    return is_list and length in (0, len(value))


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_rgb(value: Any) -> bool:
    return _is_list(value, lambda x: type(x) in (int, float) and abs(x) < 1e6, 3)


def _is_text(value: Any, pattern: str) -> bool:
    return isinstance(value, str) and re.fullmatch(pattern, value) is not None


_COUNT = Rule("a whole number, 0 or more", is_count)
_MANIFEST_RULES = {
    "class_names": Rule(
        "a list of distinct names",
        lambda v: _is_list(v, _is_name) and len(v) == len(set(v)) > 0,
    ),
    "mean_rgb": Rule("three numbers", _is_rgb),
    "rgb_covariance": Rule(
        "three rows of three numbers", lambda v: _is_list(v, _is_rgb, 3)
    ),
    "conversion": Rule(
        "an object in which short_side and num_rejects are whole numbers, left_out is "
        "a list of strings and mean_weight is a number above 0",
        lambda v: isinstance(v, dict)
        and is_count(v.get("short_side", 0))
        and is_count(v.get("num_rejects", 0))
        and _is_list(v.get("left_out", []), _is_name)
        and type(v.get("mean_weight", 1)) in (int, float)
        and 0 < v.get("mean_weight", 1) < 1000,
    ),
    "splits": Rule(
        " and ".join(SPLITS), lambda v: isinstance(v, dict) and set(v) == set(SPLITS)
    ),
}
_SPLIT_RULES = {
    "class_counts": Rule("a list of whole numbers", lambda v: _is_list(v, is_count)),
    "shards": Rule("a list", lambda v: isinstance(v, list)),
}
_SHARD_RULES = {
    # Path separators are not allowed: a manifest from elsewhere must not name files
    # outside of its folder.
    "file": Rule("a plain file name", lambda v: _is_text(v, r"\w[\w.-]{0,200}")),
    "num_images": _COUNT,
    "num_bytes": _COUNT,
    "sha256": Rule("64 hexadecimal digits", lambda v: _is_text(v, "[0-9a-f]{64}")),
}
