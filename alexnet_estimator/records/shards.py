"""Shards, written by several processes: the work of each, and what it reports."""

import concurrent.futures
import os
import signal
import threading
import time
import warnings
from concurrent.futures.process import BrokenProcessPool
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from alexnet_estimator import files, machine
from alexnet_estimator.console import open_bar
from alexnet_estimator.errors import DataError
from alexnet_estimator.records import examples, tfrecord
from alexnet_estimator.records.layouts import Picture
from alexnet_estimator.records.pictures import colour_moments, describe_error, transcode
from alexnet_estimator.records.tree import PictureReader

_reader: Optional[PictureReader] = None  # One for each worker process.


class ShardTask(NamedTuple):
    """What to write where.

    Attributes:
        partial_path: File that is written, in the folder for unfinished work; its
            report goes beside it.
        path: File that appears when the shard is complete.
        split: ``train`` or ``validation``.
        pictures: Pictures in the order of the records.
        class_names: Names by label.
        short_side: Short side of the stored pictures, in pixels; 0 keeps the size.
        jpeg_quality: Quality of the stored pictures, to 100.
    """

    partial_path: str
    path: str
    split: str
    pictures: List[Picture]
    class_names: Tuple[str, ...]
    short_side: int
    jpeg_quality: int


class ShardReport(NamedTuple):
    """What became of a task, as it is kept in a JSON file beside the work.

    Attributes:
        class_counts: Pictures written, by label.
        num_bytes: Size of the shard; 0 where no picture can be used.
        sha256: SHA-256 of the file, hexadecimal.
        colour_moments: ``[4][4]``, see ``pictures.colour_moments``.
        rejects: Pairs of path and reason.
    """

    class_counts: List[int]
    num_bytes: int
    sha256: str
    colour_moments: List[List[float]]
    rejects: List[List[str]]


def write_shards(
    tasks: List[ShardTask], source: str, num_workers: int, show_progress: bool
) -> List[ShardReport]:
    """Write the shards that are not there yet, in several processes.

    Args:
        tasks: All shards of the data.
        source: Folder or zip of the pictures.
        num_workers: Number of processes; 0 chooses.
        show_progress: Whether stderr gets a bar.

    Raises:
        DataError: A process was killed.
    """
    reports = {task.path: _read_report(task) for task in tasks}
    missing = [task for task in tasks if not reports[task.path]]
    num_workers = min(num_workers or machine.num_cores(), len(missing))
    pool = concurrent.futures.ProcessPoolExecutor(
        max_workers=max(1, num_workers),
        initializer=_start_worker,
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
            _write_and_publish(pool, missing, publish)
        except BrokenProcessPool as error:
            raise DataError(
                "a process that converts was killed, often for lack of memory; run "
                "again to continue, perhaps with --config.convert.num_workers=1",
                source,
            ) from error
    return [report for report in reports.values() if report]


def _write_and_publish(
    pool: concurrent.futures.Executor,
    tasks: List[ShardTask],
    publish: Callable[[ShardTask, ShardReport], None],
) -> None:
    unpublished: Dict[concurrent.futures.Future, ShardTask] = {}
    try:
        with pool:
            unpublished = {pool.submit(_write_shard, task): task for task in tasks}
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


def _start_worker(parent_id: int, source: str) -> None:
    global _reader
    _reader = PictureReader(source)
    warnings.simplefilter("ignore")  # Pillow's remarks on harmless oddities.
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent decides.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def end_with_parent() -> None:
        # Else processes would stay behind a parent that was killed.
        while os.getppid() == parent_id:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _write_shard(task: ShardTask) -> ShardReport:
    """Convert the pictures of one shard; ``publish_shard`` lets it appear."""
    assert _reader is not None, "_start_worker comes first"
    counts, moments = [0] * len(task.class_names), np.zeros([4, 4])
    rejects = []
    with tfrecord.writer(task.partial_path) as write:
        for picture in task.pictures:
            label, path = picture.label, picture.path
            try:
                data = _reader.read(path)
                jpeg = transcode(data, task.short_side, task.jpeg_quality)
            except Exception as error:  # Broken pictures raise errors of any type.
                rejects.append([path, describe_error(error)])
                continue
            write(examples.build(jpeg, label, task.class_names[label], path))
            counts[label] += 1
            moments += colour_moments(jpeg.image)
    num_bytes = os.path.getsize(task.partial_path)
    digest = files.sha256_of(task.partial_path)
    return ShardReport(counts, num_bytes, digest, moments.tolist(), rejects)


def publish_shard(task: ShardTask, report: ShardReport) -> None:
    """Let a shard appear that is written, once it is on the disk.

    For the parent: the disk is slow, and workers have more pictures to convert.
    """
    files.sync(task.partial_path)
    # The report first: a shard without one would not be known as ours.
    report_path = f"{task.partial_path}.json"
    files.write_bytes(report_path, files.encode_json(report._asdict()))
    os.replace(task.partial_path, task.path)


def _read_report(task: ShardTask) -> Optional[ShardReport]:
    """Return the report of a shard that is finished, or None."""
    try:
        report = ShardReport(**files.read_json(f"{task.partial_path}.json"))
        size = os.path.getsize(task.path)
    except (OSError, ValueError, TypeError):  # Not there, or cut off by a power cut.
        return None
    return report if size == report.num_bytes else None
