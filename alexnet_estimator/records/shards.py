"""Writes the shards of a data set with several worker processes."""

import concurrent.futures
import importlib
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

_reader: Optional[PictureReader] = None  # Each worker process opens its own.


class ShardTask(NamedTuple):
    """A shard to write.

    Attributes:
        partial_path: Path of the file while it is written, in the folder for unfinished
            work.  The report is written beside it.
        path: Path of the complete shard.
        split: Name of the split, ``train`` or ``validation``.
        pictures: Pictures in the order of the records.
        class_names: Names of the classes, by label.
        short_side: Short side of the stored pictures in pixels; 0 to keep their size.
        jpeg_quality: Quality of the stored pictures, up to 100.
    """

    partial_path: str
    path: str
    split: str
    pictures: List[Picture]
    class_names: Tuple[str, ...]
    short_side: int
    jpeg_quality: int


class ShardReport(NamedTuple):
    """The result of a task, which is stored in a JSON file beside the unfinished work.

    Attributes:
        class_counts: Number of written pictures, by label.
        num_bytes: Size of the shard; 0 if no picture can be used.
        sha256: SHA-256 (hex) of the file.
        colour_moments: Sums of the colours, [4][4], see ``pictures.colour_moments``.
        rejects: Path and reason of each picture that cannot be used.
    """

    class_counts: List[int]
    num_bytes: int
    sha256: str
    colour_moments: List[List[float]]
    rejects: List[List[str]]


def write_shards(
    tasks: List[ShardTask], source: str, num_workers: int, show_progress: bool
) -> List[ShardReport]:
    """Write the missing shards with several processes.

    Args:
        tasks: All shards of the data.
        source: Folder or zip file of the pictures.
        num_workers: Number of processes; 0 for one per core.
        show_progress: Whether a progress bar is written to stderr.

    Returns:
        Reports of all shards, in the order of the tasks.

    Raises:
        DataError: A process was killed.
    """
    reports = {task.path: _read_report(task) for task in tasks}
    missing = [task for task in tasks if not reports[task.path]]
    num_workers = min(num_workers or machine.num_cores(), len(missing))
    if missing:
        # The workers are forks and share it.  Otherwise each one would load its own.
        importlib.import_module("alexnet_estimator.engine.graph_mode")
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
                "a converting process was killed, often because memory is short: run "
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
        # After an error or Ctrl-C, the shards that the workers had begun are complete
        # now.  They are published, so that the next call need not write them again.
        for future, task in unpublished.items():
            if not future.cancelled() and not future.exception():
                publish(task, future.result())


def _start_worker(parent_id: int, source: str) -> None:
    global _reader
    _reader = PictureReader(source)
    warnings.simplefilter("ignore")  # Pillow warns about harmless oddities of files.
    # The parent handles Ctrl-C: workers complete the shards that they have begun.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def end_with_parent() -> None:
        # Otherwise the workers would continue after their parent was killed.
        while os.getppid() == parent_id:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _write_shard(task: ShardTask) -> ShardReport:
    """Write a shard to ``partial_path``, from which ``publish_shard`` moves it."""
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
            name = task.class_names[label]
            write(examples.build(jpeg, label, name, path, picture.weight))
            counts[label] += 1
            moments += colour_moments(jpeg.image)
    num_bytes = os.path.getsize(task.partial_path)
    digest = files.sha256_of(task.partial_path)
    return ShardReport(counts, num_bytes, digest, moments.tolist(), rejects)


def publish_shard(task: ShardTask, report: ShardReport) -> None:
    """Move a written shard to its final path when its content is on the disk.

    The parent process calls this function: the disk is slow, and the workers have more
    pictures to convert.
    """
    files.sync(task.partial_path)
    # The report is written first, because a shard without a report would be written
    # again.
    report_path = f"{task.partial_path}.json"
    files.write_bytes(report_path, files.encode_json(report._asdict()))
    os.replace(task.partial_path, task.path)


def _read_report(task: ShardTask) -> Optional[ShardReport]:
    """Return the report of a shard; None if the shard is not complete."""
    try:
        report = ShardReport(**files.read_json(f"{task.partial_path}.json"))
        size = os.path.getsize(task.path)
    except (OSError, ValueError, TypeError):  # Missing, or incomplete.
        return None
    return report if size == report.num_bytes else None
