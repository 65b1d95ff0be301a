"""One shard: the work of one process, and what it reports about it."""

import json
import os
import signal
import threading
import time
import warnings
from typing import List, NamedTuple, Optional, Tuple

import numpy as np

from alexnet_estimator import files
from alexnet_estimator.records import examples, tfrecord
from alexnet_estimator.records.layouts import Picture, PictureReader
from alexnet_estimator.records.pictures import Jpeg, colour_moments, transcode

_reader: Optional[PictureReader] = None  # One for each worker process.


class ShardTask(NamedTuple):
    """What to write where.

    Attributes:
        output: the folder in which the finished shard appears.
        progress: the folder for what is not finished, and for reports.
        file: name of the shard.
        split: ``train`` or ``validation``.
        pictures: in the order of the records.
        class_names: by label.
        short_side: of the stored pictures, in pixels; 0 keeps the size.
        jpeg_quality: of the stored pictures.
    """

    output: str
    progress: str
    file: str
    split: str
    pictures: List[Picture]
    class_names: Tuple[str, ...]
    short_side: int
    jpeg_quality: int


class ShardReport(NamedTuple):
    """What became of a task, as it is kept in a JSON file beside the work.

    Attributes:
        class_counts: pictures written, by label.
        num_bytes: size of the shard; 0 where no picture was usable.
        sha256: of the file, hexadecimal.
        colour_moments: ``[4][4]``, see ``pictures.colour_moments``.
        rejects: pairs of path and reason.
    """

    class_counts: List[int]
    num_bytes: int
    sha256: str
    colour_moments: List[List[float]]
    rejects: List[List[str]]


def start_worker(parent_id: int, source: str) -> None:
    """Prepare a worker process."""
    global _reader
    _reader = PictureReader(source)
    warnings.simplefilter("ignore")  # Pillow's remarks on harmless oddities.
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent decides.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, args=[parent_id], daemon=True).start()


def _end_with_parent(parent_id: int) -> None:
    """Leave no process behind, also where the parent was killed."""
    while os.getppid() == parent_id:
        time.sleep(0.5)
    os._exit(1)


def write_shard(task: ShardTask) -> ShardReport:
    """Convert the pictures of one shard; ``publish_shard`` lets it appear."""
    partial = _partial_path(task)
    counts, moments = [0] * len(task.class_names), np.zeros([4, 4])
    rejects = []
    with tfrecord.writer(partial) as write:
        for picture in task.pictures:
            try:
                jpeg = _convert(picture, task)
            except Exception as error:  # Broken pictures raise errors of any type.
                rejects.append([picture.path, describe(error)])
                continue
            write(_example(jpeg, picture, task))
            counts[picture.label] += 1
            moments += colour_moments(jpeg.image)
    num_bytes, digest = os.path.getsize(partial), files.sha256_of(partial)
    return ShardReport(counts, num_bytes, digest, moments.tolist(), rejects)


def publish_shard(task: ShardTask, report: ShardReport) -> None:
    """Let a shard appear that is written, once it is on the disk.

    For the parent: the disk is slow, and workers have more pictures to convert.
    """
    files.sync(_partial_path(task))
    # The report first: a shard without one would not be known as ours.
    files.write_bytes(_report_path(task), files.encode_json(report._asdict()))
    os.replace(_partial_path(task), os.path.join(task.output, task.file))


def read_report(task: ShardTask) -> Optional[ShardReport]:
    """Return the report of a shard that is finished, or None."""
    try:
        with open(_report_path(task), encoding="utf-8") as file:
            report = ShardReport(**json.load(file))
        size = os.path.getsize(os.path.join(task.output, task.file))
    except (OSError, ValueError, TypeError):  # Not there, or cut off by a power cut.
        return None
    return report if size == report.num_bytes else None


def _partial_path(task: ShardTask) -> str:
    return os.path.join(task.progress, task.file)


def _report_path(task: ShardTask) -> str:
    return os.path.join(task.progress, f"{task.file}.json")


def _convert(picture: Picture, task: ShardTask) -> Jpeg:
    assert _reader is not None, "start_worker comes first"
    data = _reader.read(picture.path)
    return transcode(data, task.short_side, task.jpeg_quality)


def describe(error: Exception) -> str:
    """Say in one line what is wrong with a picture."""
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _example(jpeg: Jpeg, picture: Picture, task: ShardTask) -> bytes:
    return examples.build(
        jpeg, picture.label, task.class_names[picture.label], picture.path
    )
