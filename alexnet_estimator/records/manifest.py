"""``dataset.json``: reading it as from a stranger, writing it whole, checking files."""

import collections
import json
import os
import re
import reprlib
from typing import Any, Callable, Dict, List

from alexnet_estimator import files
from alexnet_estimator.errors import DataError
from alexnet_estimator.records import findings, foreign, tfrecord
from alexnet_estimator.records.dataset import SPLITS, Dataset, Shard, Split, with_digest
from alexnet_estimator.schema import Rule

FILE_NAME = "dataset.json"
FORMAT_VERSION = 1
_MAX_BYTES = 1 << 24
_COPY_AGAIN = "copy the data again, or convert it again"
_MANY_IMAGES = 100_000  # Looking at their lengths takes about a second.


def is_dataset(directory: str) -> bool:
    """Say whether ``load`` finds something there: a manifest or foreign TFRecords."""
    manifest = os.path.join(directory, FILE_NAME)
    return os.path.isfile(manifest) or foreign.is_foreign(directory)


def load(directory: str, label_offset: int = 0, cache_directory: str = "") -> Dataset:
    """Read the description of converted data or of foreign ImageNet TFRecords.

    Args:
        directory: the folder of the shards.
        label_offset: Number by which the labels of foreign data are reduced.
        cache_directory: Folder in which counts of foreign data are kept; empty: not.

    Raises:
        DataError: no data there, or a manifest that is damaged or names other places.
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
    record = _read_json(path)
    problems = _find_problems(record)
    if problems:
        raise DataError(problems, path)
    return _build(directory, record)


def write(dataset: Dataset) -> None:
    """Write ``dataset.json`` into the folder of the data set, whole or not at all."""
    record = {
        "format_version": FORMAT_VERSION,
        **dataset.content(),
        "conversion": dataset.conversion,
    }
    path = os.path.join(dataset.directory, FILE_NAME)
    files.write_bytes(path, files.encode_json(record, indent=1))


def check_files(dataset: Dataset) -> None:
    """Check quickly that every shard is there and has its size.

    Raises:
        DataError: naming all that are missing or of another size.
    """
    problems = []
    for split in dataset.splits.values():
        for shard in split.shards:
            path = os.path.join(dataset.directory, shard.file)
            if not os.path.isfile(path):
                problems.append(f"{shard.file} is missing")
            elif os.path.getsize(path) != shard.num_bytes:
                problems.append(
                    f"{shard.file} has {os.path.getsize(path)} bytes instead of "
                    f"{shard.num_bytes}"
                )
    if problems:
        raise DataError(problems, dataset.directory, _COPY_AGAIN)


def check_lengths(dataset: Dataset, cache_directory: str) -> None:
    """Check that no record claims to be longer than its file.

    Args:
        dataset: Data set that ``convert`` has made; of others, records were counted.
        cache_directory: Folder in which it is kept that large data are in order.

    Raises:
        DataError: Naming file and record.
    """
    paths = [path for name in SPLITS for path in dataset.shard_paths(name)]
    num_images = sum(split.num_images for split in dataset.splits.values())

    def find() -> List[str]:
        found = ((path, tfrecord.find_huge_record(path)) for path in paths)
        return [f"{os.path.basename(path)}: {text}" for path, text in found if text]

    place = cache_directory if num_images > _MANY_IMAGES else ""
    try:
        problems = findings.keep(place, "lengths", paths, find)
    except OSError:
        problems = find()  # Where nothing can be kept, it is looked for every time.
    if problems:
        raise DataError(problems, dataset.directory, _COPY_AGAIN)


def _read_json(path: str) -> Any:
    try:
        text = files.read_at_most(path, _MAX_BYTES)
    except ValueError as error:
        problem = f"larger than {_MAX_BYTES} bytes: not a manifest"
        raise DataError(problem, path) from error
    try:
        return json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # Recursion: "[[[[[..."
        raise DataError(f"not JSON ({error}); convert the data again", path) from error


def _build(directory: str, record: Any) -> Dataset:
    """Build the data set from a record without problems."""
    splits = {
        name: Split(
            shards=tuple(
                Shard(**{field: shard[field] for field in _SHARD_RULES})
                for shard in record["splits"][name]["shards"]
            ),
            class_counts=tuple(record["splits"][name]["class_counts"]),
        )
        for name in SPLITS
    }
    return with_digest(
        Dataset(
            directory=directory,
            class_names=tuple(record["class_names"]),
            splits=splits,
            mean_rgb=_tuples(record["mean_rgb"]),
            rgb_covariance=_tuples(record["rgb_covariance"]),
            digest="",
            conversion=record["conversion"],
        )
    )


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else float(value)


def _find_problems(record: Any) -> List[str]:
    """Check types, then numbers that must agree; show all problems at once."""
    if not isinstance(record, dict) or record.get("format_version") != FORMAT_VERSION:
        return [f'no "format_version": {FORMAT_VERSION} in it; convert the data again']
    problems = _check(record, _MANIFEST_RULES, "")
    if problems:
        return problems
    for name, split in record["splits"].items():
        where = f"splits.{name}."
        problems += _check(split, _SPLIT_RULES, where)
        shards = split.get("shards") if isinstance(split, dict) else None
        for index, shard in enumerate(shards if isinstance(shards, list) else []):
            problems += _check(shard, _SHARD_RULES, f"{where}shards[{index}].")
    return problems or _find_disagreements(record)


def _check(owner: Any, rules: Dict[str, Rule], where: str) -> List[str]:
    if not isinstance(owner, dict):
        return [f"{where[:-1]} is {reprlib.repr(owner)}; it must be an object"]
    return [
        f"{where}{name} is {reprlib.repr(owner.get(name))}; it must be {rule.text}"
        for name, rule in rules.items()
        if not rule.accepts(owner.get(name))
    ]


def _find_disagreements(record: Any) -> List[str]:
    problems = []
    num_classes = len(record["class_names"])
    for name, split in record["splits"].items():
        num_counts, num_images = len(split["class_counts"]), sum(split["class_counts"])
        if num_counts != num_classes:
            problems.append(f"{name} counts {num_counts} classes of {num_classes}")
        in_shards = sum(shard["num_images"] for shard in split["shards"])
        if in_shards != num_images:
            problems.append(
                f"{name} counts {num_images} pictures by class but {in_shards} by shard"
            )
    uses = collections.Counter(
        shard["file"]
        for split in record["splits"].values()
        for shard in split["shards"]
    )
    problems += [f"{name} is there {n} times" for name, n in uses.items() if n > 1]
    return problems if uses else ["there are no shards"]


def _is_list(value: Any, accepts: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(accepts(item) for item in value)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_names(value: Any) -> bool:
    return _is_list(value, _is_name) and len(value) == len(set(value)) > 0


def _is_rgb(value: Any) -> bool:
    return _is_list(value, _is_number) and len(value) == 3


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e6


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 53


def _is_text(value: Any, pattern: str) -> bool:
    return isinstance(value, str) and re.fullmatch(pattern, value) is not None


_COUNT = Rule("a count", _is_count)
_MANIFEST_RULES = {
    "class_names": Rule("a list of distinct names", _is_names),
    "mean_rgb": Rule("three numbers", _is_rgb),
    "rgb_covariance": Rule(
        "three rows of three numbers", lambda v: _is_list(v, _is_rgb) and len(v) == 3
    ),
    "conversion": Rule(
        "an object with counts as short_side and num_rejects, texts as left_out",
        lambda v: isinstance(v, dict)
        and _is_count(v.get("short_side", 0))
        and _is_count(v.get("num_rejects", 0))
        and _is_list(v.get("left_out", []), _is_name),
    ),
    "splits": Rule(
        " and ".join(SPLITS), lambda v: isinstance(v, dict) and set(v) == set(SPLITS)
    ),
}
_SPLIT_RULES = {
    "class_counts": Rule("counts", lambda v: _is_list(v, _is_count)),
    "shards": Rule("a list", lambda v: isinstance(v, list)),
}
_SHARD_RULES = {
    # No separators: a manifest from elsewhere must not lead out of its folder.
    "file": Rule("a plain file name", lambda v: _is_text(v, r"\w[\w.-]{0,200}")),
    "num_images": _COUNT,
    "num_bytes": _COUNT,
    "sha256": Rule("64 hexadecimal digits", lambda v: _is_text(v, "[0-9a-f]{64}")),
}
