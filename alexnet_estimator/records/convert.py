"""Converts folders of pictures to sharded TFRecords and ``dataset.json``.

The result depends only on the pictures and the options.  It does not depend on the
machine, on the number of processes, or on how often the conversion was interrupted.
"""

import dataclasses
import hashlib
import json
import os
import re
import shutil
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from alexnet_estimator import files, locks
from alexnet_estimator.config import Config
from alexnet_estimator.console import count, list_some, note, warn
from alexnet_estimator.errors import ConfigError, DataError
from alexnet_estimator.records import layouts, manifest
from alexnet_estimator.records.dataset import (
    SPLITS,
    TRAIN,
    VALIDATION,
    Dataset,
    Shard,
    Split,
    with_digest,
)
from alexnet_estimator.records.layouts import PictureSet
from alexnet_estimator.records.pictures import mean_and_covariance
from alexnet_estimator.records.shards import ShardReport, ShardTask, write_shards
from alexnet_estimator.records.splits import FOLD_OPTIONS, split_pictures
from alexnet_estimator.records.tree import list_reasons

REJECTS_FILE = "rejects.csv"
_PROGRESS_PREFIX = ".convert-"
_SHARD_NAME = re.compile(r"(train|validation)-\d{5,}-of-\d{5,}\.tfrecord")
_IMAGES_PER_SHARD = 512
# This number is incremented when the same pictures and options give other files than
# before.  It is part of the fingerprint, so that older conversions are not reused.
_VERSION = 2
# Options on which the result depends.  The number of processes is not one of them.
_OPTIONS = (
    "short_side",
    "jpeg_quality",
    "images_per_shard",
    "eval_fraction",
    "eval_images",
    "split_seed",
)


def convert(
    source: str, output: str, settings: Config, show_progress: bool = True
) -> Dataset:
    """Convert pictures to TFRecords.

    A second call continues an interrupted conversion, and returns at once if the
    conversion is complete.  Pictures that cannot be decoded, and files that the layout
    leaves out, are listed in ``rejects.csv``.

    Args:
        source: Folder or zip file of pictures, see ``layouts.KNOWN_LAYOUTS``.
        output: New folder, or the folder of an earlier conversion.
        settings: Section ``convert`` of the configuration.
        show_progress: Whether a progress bar and a summary are written to stderr.

    Raises:
        ConfigError: The output is a file or has other files, or a job reads the data of
            an earlier conversion in it.
        DataError: There are no usable pictures, or the output cannot be written.
    """
    pictures, wanted = find_pictures(source, settings)
    return convert_pictures(pictures, wanted, output, settings, show_progress)


def find_pictures(source: str, settings: Config) -> Tuple[PictureSet, str]:
    """List the pictures of a source; see ``layouts.find_pictures``.

    Returns:
        The pictures, and a fingerprint that changes with the pictures or the options.
    """
    pictures = layouts.find_pictures(
        source, settings.train_folder, settings.validation_folder
    )
    options = options_of(settings)
    digest = hashlib.sha256(json.dumps(options, sort_keys=True).encode())
    digest.update(f"version {_VERSION}".encode())
    for picture in pictures.pictures:
        digest.update(ascii(picture).encode())
    return pictures, digest.hexdigest()


def options_of(settings: Config) -> Dict[str, Any]:
    """Return the options on which the result depends.

    Without folds, their options are left out, so that conversions of older versions
    keep their fingerprints.
    """
    names = _OPTIONS + (FOLD_OPTIONS if settings.num_folds else ())
    return {name: settings[name] for name in names}


def convert_pictures(
    pictures: PictureSet,
    wanted: str,
    output: str,
    settings: Config,
    show_progress: bool = True,
) -> Dataset:
    """Convert the pictures that ``find_pictures`` has found; see ``convert``.

    Args:
        pictures: Pictures of the source.
        wanted: Fingerprint of the pictures and the options.
        output: New folder, or the folder of an earlier conversion.
        settings: Section ``convert`` of the configuration.
        show_progress: Whether a progress bar and a summary are written to stderr.
    """
    if os.path.exists(output) and not os.path.isdir(output):
        raise ConfigError("it is a file: name a folder for the converted data", output)
    progress = os.path.join(output, _PROGRESS_PREFIX + wanted[:16])
    try:
        dataset = load_finished(output, wanted)
        # Complete data are only read, without the lock, so that ranks that start
        # together do not wait for each other.
        if not dataset or os.path.isdir(progress):
            tasks = _make_tasks(pictures, output, progress, settings)
            os.makedirs(output, exist_ok=True)
            with locks.wait_for_folder(output):
                dataset = load_finished(output, wanted)
                if not dataset:
                    locks.refuse_if_read(os.path.join(output, manifest.FILE_NAME))
                    if show_progress:
                        _tell_layout(pictures)
                    _make_room(output, progress)
                    reports = write_shards(
                        tasks, pictures.source, settings.num_workers, show_progress
                    )
                    options = {**options_of(settings), "fingerprint": wanted}
                    dataset = _finish(pictures, tasks, reports, output, options)
                    if show_progress:
                        _tell_result(dataset)
                shutil.rmtree(progress, ignore_errors=True)
    except OSError as error:
        raise DataError(f"cannot write the data: {error}", output) from error
    # Files beside the pictures may have changed since the conversion.
    conversion = {**dataset.conversion, "left_out": list_reasons(pictures.left_out)}
    return dataclasses.replace(dataset, conversion=conversion)


def _finish(
    pictures: PictureSet,
    tasks: List[ShardTask],
    reports: List[ShardReport],
    output: str,
    options: Dict[str, Any],
) -> Dataset:
    """Write ``rejects.csv`` and ``dataset.json`` when all shards are complete.

    ``dataset.json`` is written last, because its presence means that the conversion is
    complete.
    """
    rejects = [tuple(reject) for report in reports for reject in report.rejects]
    left_out = [item[:2] for item in pictures.left_out]
    rows = [("path", "reason"), *sorted([*rejects, *left_out])]
    content = b"".join(map(files.encode_csv, rows))
    files.write_bytes(os.path.join(output, REJECTS_FILE), content)
    dataset = _assemble(output, pictures.class_names, tasks, reports)
    about = {"num_rejects": len(rejects), "left_out": list_reasons(pictures.left_out)}
    unusable = {path for path, _ in rejects}
    trained = [p for task in tasks if task.split == TRAIN for p in task.pictures]
    weights = [p.weight for p in trained if p.path not in unusable]
    if set(weights) - {1.0}:
        about["mean_weight"] = sum(weights) / len(weights)
    dataset = dataclasses.replace(dataset, conversion={**options, **about})
    manifest.write(dataset)
    return dataset


def preview(pictures: PictureSet, output: str, settings: Config) -> Dataset:
    """Return the data set that a conversion would make if all pictures can be decoded.

    Its files do not exist, and its colours are not measured.
    """
    tasks = _make_tasks(pictures, output, "", settings)
    reports = []
    for task in tasks:
        labels = [picture.label for picture in task.pictures]
        counts = np.bincount(labels, minlength=len(pictures.class_names)).tolist()
        reports.append(ShardReport(counts, 0, "", np.eye(4).tolist(), []))
    dataset = _assemble(output, pictures.class_names, tasks, reports)
    left_out = {"left_out": list_reasons(pictures.left_out)}
    return dataclasses.replace(dataset, conversion=left_out)


def _tell_layout(pictures: PictureSet) -> None:
    """Print how the folders were understood.

    A conversion can take hours, so that the user should see a mistake before it starts.
    """
    names = pictures.class_names
    num_held_out = sum(picture.split == VALIDATION for picture in pictures.pictures)
    note(
        f"{pictures.source}: {pictures.layout}: {len(names)} classes "
        f"({list_some(names, 10, is_counted=False)}), "
        f"{len(pictures.pictures) - num_held_out} pictures"
        + (f" and {num_held_out} to validate" if pictures.has_validation else "")
    )
    for is_loss, tell in ((False, note), (True, warn)):
        items = [item for item in pictures.left_out if item.is_loss == is_loss]
        for line in list_reasons(items):
            tell(f"left out: {line}")


def _tell_result(dataset: Dataset) -> None:
    num_train, num_held_out = (dataset.splits[name].num_images for name in SPLITS)
    note(
        f"{dataset.directory}: {num_train} pictures to train and {num_held_out} to "
        f"validate, {dataset.num_classes} classes"
    )
    if dataset.conversion["num_rejects"]:
        num_rejects = dataset.conversion["num_rejects"]
        note(f"{count(num_rejects, 'unusable picture')}, listed in {REJECTS_FILE}")


def load_finished(output: str, wanted: str) -> Optional[Dataset]:
    """Return the data set of a complete conversion with this fingerprint, or None.

    Args:
        output: Folder of the conversion.
        wanted: Fingerprint that the conversion must have.
    """
    if not os.path.isfile(os.path.join(output, manifest.FILE_NAME)):
        return None
    try:
        dataset = manifest.load(output)
        manifest.check_files(dataset)
    except (DataError, FileNotFoundError):  # Damaged data are converted again.
        return None
    is_same = dataset.conversion.get("fingerprint") == wanted
    return dataset if is_same else None


def _make_room(output: str, progress: str) -> None:
    """Remove the files of conversions with other options or pictures.

    ``dataset.json`` and unfinished work show that the folder belongs to a conversion.
    They are removed last: if the removal is interrupted, the next call continues it
    instead of refusing the folder.
    """
    if os.path.isdir(progress):
        return
    names = os.listdir(output)
    unfinished = [name for name in names if name.startswith(_PROGRESS_PREFIX)]
    has_files = any(not name.startswith(".") for name in names)
    if has_files and not unfinished and manifest.FILE_NAME not in names:
        raise ConfigError(
            "contains files that convert has not written: choose a new folder", output
        )
    old = [name for name in names if _SHARD_NAME.fullmatch(name)]
    for name in [*old, REJECTS_FILE, manifest.FILE_NAME]:
        if name in names:
            os.remove(os.path.join(output, name))
    for name in unfinished:
        shutil.rmtree(os.path.join(output, name))
    os.mkdir(progress)


def _make_tasks(
    pictures: PictureSet, output: str, progress: str, settings: Config
) -> List[ShardTask]:
    """Divide the shuffled splits into shards with nearly equal numbers of pictures."""
    tasks = []
    for split, members in split_pictures(pictures, settings).items():
        num_shards = count_shards(len(members), settings.images_per_shard)
        for index in range(num_shards):
            start = index * len(members) // num_shards
            end = (index + 1) * len(members) // num_shards
            file = f"{split}-{index:05d}-of-{num_shards:05d}.tfrecord"
            task = ShardTask(
                partial_path=os.path.join(progress, file),
                path=os.path.join(output, file),
                split=split,
                pictures=members[start:end],
                class_names=pictures.class_names,
                short_side=settings.short_side,
                jpeg_quality=settings.jpeg_quality,
            )
            tasks.append(task)
    return tasks


def count_shards(num_images: int, images_per_shard: int) -> int:
    """Return the number of files into which a split is divided.

    Args:
        num_images: Number of pictures of the split.
        images_per_shard: Largest number of pictures in a file; 0 for an automatic
            choice.
    """
    if images_per_shard:
        return -(-num_images // images_per_shard)
    # A small split gets up to 8 shards, so that several processes share the work.
    return max(-(-num_images // _IMAGES_PER_SHARD), min(8, -(-num_images // 128)))


def _assemble(
    output: str,
    class_names: Tuple[str, ...],
    tasks: List[ShardTask],
    reports: List[ShardReport],
) -> Dataset:
    shards: Dict[str, List[Shard]] = {name: [] for name in SPLITS}
    counts = {name: np.zeros(len(class_names), np.int64) for name in SPLITS}
    moments = np.zeros([4, 4])
    for task, report in zip(tasks, reports):
        shards[task.split].append(
            Shard(
                os.path.basename(task.path),
                sum(report.class_counts),
                report.num_bytes,
                report.sha256,
            )
        )
        counts[task.split] += report.class_counts
        if task.split == TRAIN:
            moments += report.colour_moments
    empty = [name for name, count in zip(class_names, counts[TRAIN]) if count == 0]
    if empty:
        raise DataError(
            f"no usable training pictures of {', '.join(empty)}; see {REJECTS_FILE}",
            output,
        )
    mean, covariance = mean_and_covariance(moments)
    parts = {
        name: Split(tuple(shards[name]), tuple(counts[name].tolist()))
        for name in SPLITS
    }
    return with_digest(Dataset(output, class_names, parts, mean, covariance, ""))
