"""Picture folders to sharded TFRecords and ``dataset.json``.

The result depends on the pictures and the options alone: not on the machine, the number
of processes or how often the conversion was interrupted.
"""

import concurrent.futures
import dataclasses
import hashlib
import json
import os
import re
import shutil
from concurrent.futures.process import BrokenProcessPool
from typing import Callable, Dict, List, Optional, Tuple

import numpy as np

from alexnet_estimator import files, locks, machine
from alexnet_estimator.config import Config
from alexnet_estimator.console import list_some, note, open_bar, warn
from alexnet_estimator.errors import DataError
from alexnet_estimator.records import layouts, manifest, splits
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
from alexnet_estimator.records.shards import (
    ShardReport,
    ShardTask,
    publish_shard,
    read_report,
    start_worker,
    write_shard,
)
from alexnet_estimator.records.tree import summarise

REJECTS_FILE = "rejects.csv"
_PROGRESS_PREFIX = ".convert-"
_SHARD_NAME = re.compile(r"(train|validation)-\d{5,}-of-\d{5,}\.tfrecord")
_VERSION = 2  # Another one makes other files of the same pictures and options.
OPTIONS = (
    # What the result depends on; the number of processes is not among it.
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
    """Convert pictures to TFRecords; run again, it continues or returns at once.

    Pictures that cannot be decoded, and what the layout leaves out, are listed in
    ``rejects.csv``.

    Args:
        source: Folder or zip, see ``layouts.KNOWN_LAYOUTS``.
        output: New folder, or one that an earlier conversion made.
        settings: Section ``convert`` of the configuration.
        show_progress: Whether stderr gets a bar and a summary.

    Raises:
        DataError: There are no usable pictures, or the output cannot be written.
    """
    pictures = find_pictures(source, settings)
    wanted = fingerprint(pictures, settings)
    return convert_pictures(pictures, wanted, output, settings, show_progress)


def find_pictures(source: str, settings: Config) -> PictureSet:
    """List the pictures of a source; see ``layouts.find_pictures``."""
    return layouts.find_pictures(
        source, settings.train_folder, settings.validation_folder
    )


def convert_pictures(
    pictures: PictureSet,
    wanted: str,
    output: str,
    settings: Config,
    show_progress: bool = True,
) -> Dataset:
    """Convert pictures that have been found; see ``convert``.

    Args:
        pictures: Pictures of the source.
        wanted: Their fingerprint, which takes seconds to compute for a million.
        output: New folder, or one that an earlier conversion made.
        settings: Section ``convert`` of the configuration.
        show_progress: Whether stderr gets a bar and a summary.
    """
    progress = os.path.join(output, _PROGRESS_PREFIX + wanted[:16])
    try:
        finished = load_finished(output, wanted)
        # Complete data are only read: ranks that start together need not wait.
        if not finished or os.path.isdir(progress):
            os.makedirs(output, exist_ok=True)
            with locks.wait_for_folder(output):
                finished = load_finished(output, wanted)
                if not finished:
                    if show_progress:
                        _tell_layout(pictures)
                    finished = _convert(
                        pictures, wanted, output, settings, show_progress
                    )
                shutil.rmtree(progress, ignore_errors=True)
    except OSError as error:
        raise DataError(f"cannot write the data: {error}", output) from error
    # What lies beside the pictures may have changed since.
    conversion = {**finished.conversion, "left_out": summarise(pictures.left_out)}
    return dataclasses.replace(finished, conversion=conversion)


def _convert(
    pictures: PictureSet,
    wanted: str,
    output: str,
    settings: Config,
    show_progress: bool,
) -> Dataset:
    progress = os.path.join(output, _PROGRESS_PREFIX + wanted[:16])
    tasks = _plan(pictures, output, progress, settings)
    _make_room(output, progress)
    reports = _run(tasks, pictures.source, settings.num_workers, show_progress)
    rejects = [tuple(reject) for report in reports for reject in report.rejects]
    left_out = [item[:2] for item in pictures.left_out]
    rows = [("path", "reason"), *sorted([*rejects, *left_out])]
    content = b"".join(map(files.encode_csv, rows))
    files.write_bytes(os.path.join(output, REJECTS_FILE), content)
    dataset = _assemble(output, pictures.class_names, tasks, reports)
    conversion = {
        **{name: settings[name] for name in OPTIONS},
        "fingerprint": wanted,
        "num_rejects": len(rejects),
        "left_out": summarise(pictures.left_out),
    }
    dataset = dataclasses.replace(dataset, conversion=conversion)
    manifest.write(dataset)
    if show_progress:
        num_train, num_held_out = (dataset.splits[x].num_images for x in SPLITS)
        note(
            f"{output}: {num_train} pictures to train and {num_held_out} to validate, "
            f"{dataset.num_classes} classes"
        )
        if rejects:
            note(f"{len(rejects)} unusable pictures, listed in {REJECTS_FILE}")
    return dataset


def preview(pictures: PictureSet, output: str, settings: Config) -> Dataset:
    """Return what converting would make if every picture can be decoded.

    It has no colours, and its files are not there.
    """
    tasks = _plan(pictures, output, "", settings)
    num_classes = len(pictures.class_names)
    reports = []
    for task in tasks:
        labels = [picture.label for picture in task.pictures]
        counts = np.bincount(labels, minlength=num_classes).tolist()
        reports.append(ShardReport(counts, 0, "", np.eye(4).tolist(), []))
    dataset = _assemble(output, pictures.class_names, tasks, reports)
    left_out = {"left_out": summarise(pictures.left_out)}
    return dataclasses.replace(dataset, conversion=left_out)


def _tell_layout(pictures: PictureSet) -> None:
    """Say what was understood, before hours of work go into it."""
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
        for line in summarise(items):
            tell(f"left out: {line}")


def fingerprint(pictures: PictureSet, settings: Config) -> str:
    """Return what changes with the pictures or the options."""
    options = {name: settings[name] for name in OPTIONS}
    digest = hashlib.sha256(json.dumps(options, sort_keys=True).encode())
    digest.update(f"version {_VERSION}".encode())
    for picture in pictures.pictures:
        digest.update(ascii(picture).encode())
    return digest.hexdigest()


def load_finished(output: str, wanted: str) -> Optional[Dataset]:
    """Return the data set if the very same conversion has been completed.

    Args:
        output: Folder of the conversion.
        wanted: Fingerprint that it must have.
    """
    if not os.path.isfile(os.path.join(output, manifest.FILE_NAME)):
        return None
    try:
        dataset = manifest.load(output)
        manifest.check_files(dataset)
    except (DataError, FileNotFoundError):  # Damaged since: converting is the cure.
        return None
    is_same = dataset.conversion.get("fingerprint") == wanted
    return dataset if is_same else None


def _make_room(output: str, progress: str) -> None:
    """Remove what conversions with other options or pictures have left.

    What shows that the folder is a conversion's goes last, so that the removal itself
    can be interrupted.
    """
    if os.path.isdir(progress):
        return
    names = os.listdir(output)
    unfinished = [name for name in names if name.startswith(_PROGRESS_PREFIX)]
    has_files = any(not name.startswith(".") for name in names)
    if has_files and not unfinished and manifest.FILE_NAME not in names:
        raise DataError(
            "holds files that convert has not made: choose a new folder", output
        )
    old = [name for name in names if _SHARD_NAME.fullmatch(name)]
    for name in [*old, REJECTS_FILE, manifest.FILE_NAME]:
        if name in names:
            os.remove(os.path.join(output, name))
    for name in unfinished:
        shutil.rmtree(os.path.join(output, name))
    os.mkdir(progress)


def _plan(
    pictures: PictureSet, output: str, progress: str, settings: Config
) -> List[ShardTask]:
    """Cut the splits, shuffled, into shards of nearly equal numbers of pictures."""
    tasks = []
    for split, members in splits.split_pictures(pictures, settings).items():
        num_shards = splits.count_shards(len(members), settings.images_per_shard)
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


def _run(
    tasks: List[ShardTask], source: str, num_workers: int, show_progress: bool
) -> List[ShardReport]:
    """Write the shards that are not there yet, in several processes."""
    reports = {task.path: read_report(task) for task in tasks}
    missing = [task for task in tasks if not reports[task.path]]
    num_workers = min(num_workers or machine.num_cores(), len(missing))
    pool = concurrent.futures.ProcessPoolExecutor(
        max_workers=max(1, num_workers),
        initializer=start_worker,
        initargs=(os.getpid(), source),
    )
    total = sum(len(task.pictures) for task in missing)
    bar = open_bar("converting", total, "images", is_wanted=show_progress)

    def publish(task: ShardTask, report: ShardReport) -> None:
        publish_shard(task, report)
        reports[task.path] = report
        bar.update(len(task.pictures))

    with bar:
        try:
            _write_shards(pool, missing, publish)
        except BrokenProcessPool as error:
            raise DataError(
                "a process that converts was killed, often for lack of memory; run "
                "again to continue, perhaps with --config.convert.num_workers=1",
                source,
            ) from error
    return [report for report in reports.values() if report]


def _write_shards(
    pool: concurrent.futures.Executor,
    tasks: List[ShardTask],
    publish: Callable[[ShardTask, ShardReport], None],
) -> None:
    """Write shards in a pool's processes and publish each that is complete."""
    unpublished: Dict[concurrent.futures.Future, ShardTask] = {}
    try:
        with pool:
            unpublished = {pool.submit(write_shard, task): task for task in tasks}
            try:
                for future in concurrent.futures.as_completed(list(unpublished)):
                    publish(unpublished.pop(future), future.result())
            finally:
                for future in unpublished:
                    future.cancel()
    finally:
        # After an error or Ctrl-C: what workers had begun is complete by now.
        for future, task in unpublished.items():
            if not future.cancelled() and not future.exception():
                publish(task, future.result())


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
        num_images = sum(report.class_counts)
        file = os.path.basename(task.path)
        shard = Shard(file, num_images, report.num_bytes, report.sha256)
        shards[task.split].append(shard)
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
