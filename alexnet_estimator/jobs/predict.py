"""Prediction: pictures in, one row for each of them out."""

import collections
import concurrent.futures
import contextlib
import csv
import io
import itertools
import json
import os
import sys
import time
import warnings
import zipfile
from typing import (
    BinaryIO,
    Callable,
    Deque,
    Iterable,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Union,
)

import numpy as np
from tqdm import tqdm

from alexnet_estimator import inputs
from alexnet_estimator.errors import ConfigError, DataError
from alexnet_estimator.jobs.classifier import Classifier
from alexnet_estimator.records import layouts
from alexnet_estimator.records.layouts import PictureReader
from alexnet_estimator.records.pictures import transcode
from alexnet_estimator.records.shards import describe

STDOUT = "-"
_LIST_SUFFIX = ".txt"


class Prediction(NamedTuple):
    """What a model says about one picture.

    Attributes:
        path: as it was given; in a folder or a zip, below the path of that.
        probabilities: float32 [num_classes].
    """

    path: str
    probabilities: np.ndarray


class Reject(NamedTuple):
    """A picture that cannot be read, and why."""

    path: str
    reason: str


class Summary(NamedTuple):
    """What a batch job did.

    Attributes:
        num_images: rows written.
        rejects: pictures without a row.
        images_per_sec: reading, decoding and writing included; of all but the first
            batch, before which the model is set up, where there are more.
    """

    num_images: int
    rejects: Tuple[Reject, ...]
    images_per_sec: float


class Source(NamedTuple):
    """A picture file: its name in the results, and where it is read from."""

    name: str
    reader: PictureReader
    path: str


Ranking = List[Tuple[str, float]]
Rows = Union[Source, Reject]


def predict(
    classifier: Classifier, sources: Sequence[str], output: str = STDOUT, top_k: int = 1
) -> Summary:
    """Classify pictures and write a row for each one that can be read, in order.

    Unreadable ones are named on stderr with the reason.

    Args:
        classifier: see ``open_classifier``.
        sources: see ``find_sources``.
        output: a file, which appears when it is complete, JSON lines if its name ends
            in ``.jsonl``, else CSV; ``-``: CSV to stdout.
        top_k: classes in a row, the most probable first; at most all.

    Raises:
        ConfigError: the output cannot be written.
        DataError: there are no pictures, or none of them can be read.
    """
    if top_k < 1:
        raise ConfigError(f"top_k is {top_k}: must be at least 1")
    top_k = min(top_k, len(classifier.class_names))
    found = find_sources(sources)
    rejects: List[Reject] = []
    with _written(output) as file, _progress(len(found)) as bar:

        def reject(problem: Reject) -> None:
            rejects.append(problem)
            bar.update()
            tqdm.write(f"{problem.path}: {problem.reason}", file=sys.stderr)

        write = _json_writer if output.endswith(".jsonl") else _csv_writer
        write_row = write(file, top_k)
        clock = _Clock(_batch_size(classifier, len(found)))
        for prediction in classify(classifier, found, reject):
            write_row(prediction.path, _rank(prediction, classifier, top_k))
            clock.count()
            bar.update()
        if not clock.num_images:
            raise DataError(f"none of {len(rejects)} pictures can be read")
    return Summary(clock.num_images, tuple(rejects), clock.images_per_sec())


def classify(
    classifier: Classifier, sources: Sequence[Rows], reject: Callable[[Reject], None]
) -> Iterator[Prediction]:
    """Classify pictures one batch after the other.

    They are converted and decoded by the code that prepares those of an evaluation.

    Args:
        classifier: see ``open_classifier``.
        sources: see ``find_sources``.
        reject: called for each picture that cannot be read, from another thread.

    Yields:
        A prediction for every other picture, in order.
    """
    data = classifier.config.data
    batch_size = _batch_size(classifier, len(sources))
    names: List[str] = []

    def read_pictures() -> Iterator[bytes]:
        picture = b""
        for source, picture_or_reject in _read_ahead(sources, classifier):
            if isinstance(picture_or_reject, Reject):
                reject(picture_or_reject)
            else:
                picture = picture_or_reject
                names.append(source.name)
                yield picture
        # Shapes are static: the last batch is filled up.
        yield from itertools.repeat(picture, -len(names) % batch_size)

    batches = classifier.predict_batches(
        lambda: inputs.picture_batches(read_pictures, data, batch_size)
    )
    num_done = 0
    for batch in batches:
        for name, probabilities in zip(names[num_done:], batch):
            yield Prediction(name, probabilities)
        num_done += len(batch)
