"""Picture folders to sharded TFRecords and ``dataset.json``.

The result depends on the pictures and the options alone: not on the machine, the number
of processes or how often the conversion was interrupted.
"""

import collections
import concurrent.futures
import dataclasses
import hashlib
import itertools
import json
import os
import re
import shutil
from concurrent.futures.process import BrokenProcessPool
from typing import Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np
import tqdm

from alexnet_estimator import files, locks, machine
from alexnet_estimator.config import Config
from alexnet_estimator.console import has_bars, note
from alexnet_estimator.errors import DataError
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
from alexnet_estimator.records.layouts import Picture, PictureSet
from alexnet_estimator.records.pictures import mean_and_covariance
from alexnet_estimator.records.shards import (
    ShardReport,
    ShardTask,
    publish_shard,
    read_report,
    start_worker,
    write_shard,
)

REJECTS_FILE = "rejects.csv"
_PROGRESS_PREFIX = ".convert-"
_SHARD_NAME = re.compile(r"(train|validation)-\d{5,}-of-\d{5,}\.tfrecord")
_VERSION = 2  # Another one makes other files of the same pictures and options.
_IMAGES_PER_SHARD = 512
_OPTIONS = (
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

    Pictures that cannot be decoded are left out and listed in ``rejects.csv``.

    Args:
        source: a folder or a zip, see ``layouts.KNOWN_LAYOUTS``.
        output: a new folder, or one that an earlier conversion made.
        settings: the section ``convert`` of the configuration.
        show_progress: a bar and a summary on stderr.

    Raises:
        DataError: no usable pictures, or the output cannot be written.
    """
    pictures = layouts.find_pictures(source)
    options = {name: settings[name] for name in _OPTIONS}
    fingerprint = _fingerprint(pictures, options)
    progress = os.path.join(output, _PROGRESS_PREFIX + fingerprint[:16])
    try:
        finished = _load_finished(output, fingerprint)
        # Complete data are only read: ranks that start together need not wait.
        if finished and not os.path.isdir(progress):
            return finished
        os.makedirs(output, exist_ok=True)
        with locks.wait_for_folder(output):
            dataset = _load_finished(output, fingerprint)
            if not dataset:
                tasks = _plan(pictures, output, progress, settings)
                _make_room(output, progress)
                reports = _run(tasks, source, settings.num_workers, show_progress)
                _write_rejects(output, reports)
                dataset = _assemble(output, pictures.class_names, tasks, reports)
                conversion = {**options, "fingerprint": fingerprint}
                dataset = dataclasses.replace(dataset, conversion=conversion)
                manifest.write(dataset)
                if show_progress:
                    _print_summary(dataset, pictures, reports)
            shutil.rmtree(progress, ignore_errors=True)
    except OSError as error:
        raise DataError(f"cannot write the data: {error}", output) from error
    return dataset


def count_held_out(class_counts: Sequence[int], num_held_out: int) -> List[int]:
    """Spread held-out pictures over the classes in proportion, exactly.

    Every class keeps a picture for training.

    Args:
        class_counts: pictures of each class, at least 1.
        num_held_out: in all, at most ``sum(class_counts) - len(class_counts)``.
    """
    total = sum(class_counts)
    held_out = [count * num_held_out // total for count in class_counts]
    by_remainder = sorted(
        range(len(class_counts)),
        key=lambda label: (-(class_counts[label] * num_held_out % total), label),
    )
    num_left = num_held_out - sum(held_out)
    for label in itertools.cycle(by_remainder):
        if num_left == 0:
            break
        if held_out[label] < class_counts[label] - 1:
            held_out[label] += 1
            num_left -= 1
    return held_out


def count_shards(num_images: int, images_per_shard: int) -> int:
    """Return into how many files a split goes.

    Args:
        num_images: of the split.
        images_per_shard: at most; 0 chooses.
    """
    if images_per_shard:
        return -(-num_images // images_per_shard)
    # Up to 8 of a small split, so that several processes can share the work evenly.
    return max(-(-num_images // _IMAGES_PER_SHARD), min(8, -(-num_images // 128)))


def _fingerprint(pictures: PictureSet, options: Dict[str, float]) -> str:
    """Return what changes with the pictures or the options."""
    digest = hashlib.sha256(json.dumps(options, sort_keys=True).encode())
    digest.update(f"version {_VERSION}".encode())
    for picture in pictures.pictures:
        digest.update(ascii(picture).encode())
    return digest.hexdigest()


def _load_finished(output: str, fingerprint: str) -> Optional[Dataset]:
    """Return the data set if the very same conversion has been completed."""
    if not os.path.isfile(os.path.join(output, manifest.FILE_NAME)):
        return None
    try:
        dataset = manifest.load(output)
        manifest.check_files(dataset)
    except (DataError, FileNotFoundError):  # Damaged since: converting is the cure.
        return None
    is_same = dataset.conversion.get("fingerprint") == fingerprint
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
    for split, members in _split(pictures, settings).items():
        num_shards = count_shards(len(members), settings.images_per_shard)
        for index in range(num_shards):
            start = index * len(members) // num_shards
            end = (index + 1) * len(members) // num_shards
            task = ShardTask(
                output=output,
                progress=progress,
                file=f"{split}-{index:05d}-of-{num_shards:05d}.tfrecord",
                split=split,
                pictures=members[start:end],
                class_names=pictures.class_names,
                short_side=settings.short_side,
                jpeg_quality=settings.jpeg_quality,
            )
            tasks.append(task)
    return tasks


def _split(pictures: PictureSet, settings: Config) -> Dict[str, List[Picture]]:
    """Shuffle and split by a hash of seed and path, the same on every machine."""

    def place(picture: Picture) -> bytes:
        text = f"{settings.split_seed}:{picture.path}"
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()

    splits: Dict[str, List[Picture]] = {name: [] for name in SPLITS}
    left = _held_out(pictures, settings)
    for picture in sorted(pictures.pictures, key=place):
        is_held_out = left[picture.label] > 0
        left[picture.label] -= is_held_out
        splits[VALIDATION if is_held_out else picture.split].append(picture)
    return splits


def _held_out(pictures: PictureSet, settings: Config) -> List[int]:
    """Return how many pictures of each class go from training to validation."""
    num_classes, total = len(pictures.class_names), len(pictures.pictures)
    if pictures.has_validation:
        return [0] * num_classes
    counts = collections.Counter(picture.label for picture in pictures.pictures)
    most = total - num_classes
    if settings.eval_images > most:
        raise DataError(
            f"convert.eval_images is {settings.eval_images}, but of {total} pictures "
            f"of {num_classes} classes at most {most} can be held out",
            pictures.source,
        )
    wanted = settings.eval_images or round(total * settings.eval_fraction)
    class_counts = [counts[label] for label in range(num_classes)]
    return count_held_out(class_counts, min(wanted, most))


def _run(
    tasks: List[ShardTask], source: str, num_workers: int, show_progress: bool
) -> List[ShardReport]:
    """Write the shards that are not there yet, in several processes."""
    reports = {task.file: read_report(task) for task in tasks}
    missing = [task for task in tasks if not reports[task.file]]
    num_workers = min(num_workers or machine.num_cores(), len(missing))
    pool = concurrent.futures.ProcessPoolExecutor(
        max_workers=max(1, num_workers),
        initializer=start_worker,
        initargs=(os.getpid(), source),
    )
    bar = tqdm.tqdm(
        desc="converting",
        total=sum(len(task.pictures) for task in missing),
        unit=" images",
        disable=not (show_progress and has_bars()),
    )

    def publish(task: ShardTask, report: ShardReport) -> None:
        publish_shard(task, report)
        reports[task.file] = report
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


def _write_rejects(output: str, reports: List[ShardReport]) -> None:
    rejects = sorted(reject for report in reports for reject in report.rejects)
    rows = map(files.encode_csv, [("path", "reason"), *rejects])
    files.write_bytes(os.path.join(output, REJECTS_FILE), b"".join(rows))


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
        shard = Shard(task.file, num_images, report.num_bytes, report.sha256)
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
    splits = {
        name: Split(tuple(shards[name]), tuple(counts[name].tolist()))
        for name in SPLITS
    }
    return with_digest(Dataset(output, class_names, splits, mean, covariance, ""))


def _print_summary(
    dataset: Dataset, pictures: PictureSet, reports: List[ShardReport]
) -> None:
    num_rejects = sum(len(report.rejects) for report in reports)
    lines = [
        f"{dataset.directory}: {dataset.splits[TRAIN].num_images} pictures to train "
        f"and {dataset.splits[VALIDATION].num_images} to validate, "
        f"{dataset.num_classes} classes"
    ]
    if num_rejects:
        lines.append(f"{num_rejects} unusable pictures, listed in {REJECTS_FILE}")
    if pictures.num_ignored:
        lines.append(f"{pictures.num_ignored} pictures outside the layout ignored")
    note("\n".join(lines))
