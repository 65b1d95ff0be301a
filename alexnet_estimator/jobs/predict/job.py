"""Prediction: pictures in, one row for each of them out."""

import collections
import concurrent.futures
import contextlib
import io
import itertools
import json
import os
import sys
import time
import warnings
import zipfile
from typing import (
    Any,
    BinaryIO,
    Callable,
    Deque,
    Iterator,
    List,
    NamedTuple,
    Sequence,
    Tuple,
    Union,
)

import numpy as np
from tqdm import tqdm

from alexnet_estimator import inputs, machine
from alexnet_estimator.console import STDOUT, has_bars, writing_results
from alexnet_estimator.errors import ConfigError, DataError
from alexnet_estimator.files import encode_csv, replacing
from alexnet_estimator.jobs.predict.classifier import Classifier
from alexnet_estimator.records import layouts
from alexnet_estimator.records.pictures import transcode
from alexnet_estimator.records.shards import describe

ROW_FORMATS = ("csv", "jsonl")
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


class Source(NamedTuple):
    """A picture that may be readable: its path in the results, and where it is."""

    path: str
    reader: layouts.PictureReader
    path_in_reader: str


class Summary(NamedTuple):
    """What a batch job did.

    Attributes:
        num_images: rows written.
        rejects: pictures without a row.
        images_per_sec: reading and decoding included, without the first batch, which
            waits for the model, if there are more.
    """

    num_images: int
    rejects: Tuple[Reject, ...]
    images_per_sec: float


class _Encoded(NamedTuple):
    path: str
    jpeg: bytes


Found = Union[Source, Reject]
Ranking = List[Tuple[str, float]]


def predict(
    classifier: Classifier,
    sources: Sequence[str],
    output: str = STDOUT,
    top_k: int = 1,
    row_format: str = "",
) -> Summary:
    """Classify pictures and write a row for each one that can be read, in order.

    The others are named on stderr, with the reason.

    Args:
        classifier: see ``open_classifier``.
        sources: see ``find_sources``.
        output: a file, which appears when it is complete; ``-``: stdout.
        top_k: classes in a row, the most probable first; at most all.
        row_format: of ``ROW_FORMATS``; default: by the name of the output, or CSV.

    Raises:
        ConfigError: the output cannot be written, or an argument is wrong.
        DataError: there are no pictures, or none of them can be read.
    """
    row_format = row_format or ("jsonl" if output.endswith(".jsonl") else "csv")
    if top_k < 1 or row_format not in ROW_FORMATS:
        raise ConfigError(
            f"top_k is {top_k}: must be at least 1; the format is {row_format!r}: "
            f"must be one of {', '.join(ROW_FORMATS)}"
        )
    found = find_sources(sources)
    rejects: List[Reject] = []
    with _complete_file(output) as file, _progress_bar(len(found)) as bar:

        def reject(picture: Reject) -> None:
            rejects.append(picture)
            bar.update()
            tqdm.write(f"{picture.path}: {picture.reason}", file=sys.stderr)

        rows = _Rows(file, row_format, classifier.class_names, top_k)
        watch = _Stopwatch(_batch_size(classifier, found))
        for prediction in classify(classifier, found, reject):
            rows.write(prediction)
            watch.count()
            bar.update()
        if not watch.num_images:
            raise DataError(f"none of {len(rejects)} pictures can be read")
    return Summary(watch.num_images, tuple(rejects), watch.images_per_sec())


def classify(
    classifier: Classifier, found: Sequence[Found], reject: Callable[[Reject], None]
) -> Iterator[Prediction]:
    """Classify pictures, converted and decoded as those of an evaluation.

    Args:
        classifier: see ``open_classifier``.
        found: see ``find_sources``.
        reject: called for each picture that cannot be read, in another thread.

    Yields:
        A prediction for every other picture, in order.
    """
    batch_size = _batch_size(classifier, found)
    paths: List[str] = []

    def read_pictures() -> Iterator[bytes]:
        for picture in _read_ahead(classifier, found):
            if isinstance(picture, Reject):
                reject(picture)
                continue
            paths.append(picture.path)
            yield picture.jpeg

    batches = classifier.predict_batches(
        lambda: inputs.picture_batches(
            read_pictures, classifier.config.data, batch_size
        )
    )
    for index, probabilities in enumerate(itertools.chain.from_iterable(batches)):
        if index < len(paths):  # What fills the last batch up gets no row.
            yield Prediction(paths[index], probabilities)


def find_sources(sources: Sequence[str]) -> List[Found]:
    """Find pictures, in order; those of a folder or a zip sorted by path.

    Args:
        sources: files, folders, zips, and ``.txt`` files that name one of these in
            each line; or one of these alone.

    Returns:
        All pictures; what a list names and is not there, and links that lead out of a
        folder, are rejected.

    Raises:
        DataError: a source does not exist, or there are no pictures.
    """
    found: List[Found] = []
    problems: List[str] = []
    for source in [sources] if isinstance(sources, str) else sources:
        if not source.lower().endswith(_LIST_SUFFIX) or os.path.isdir(source):
            found += _find(source, problems)
            continue
        for line in _read_list(source):
            try:
                found += _find(line, problems)
            except DataError as error:
                found.append(Reject(line, error.problems[0]))
    if not found:
        raise DataError(problems or "no pictures: name files, folders, zips or a list")
    return found


def _read_list(path: str) -> List[str]:
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
            return [line.rstrip("\n") for line in file if line.strip()]
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", path) from error


def _find(source: str, problems: List[str]) -> List[Found]:
    """Return the pictures of one source; say in ``problems`` why there are none."""
    is_picture = os.path.splitext(source)[1].lower() in layouts.SUFFIXES
    is_file = os.path.isfile(source)
    if is_file and (is_picture or not zipfile.is_zipfile(source)):
        folder, name = os.path.split(source)
        return [Source(source, layouts.PictureReader(folder or os.curdir), name)]
    if not is_file and not os.path.isdir(source):
        raise DataError("there is no such file, folder or zip", source)
    files = layouts.list_files(source)
    if not files.pictures:
        problems.append(f"{source}: {files.describe_lack()}")
    reader = layouts.PictureReader(source)
    pictures = [
        Source(os.path.join(source, path), reader, path) for path, _ in files.pictures
    ]
    links = [
        Reject(os.path.join(source, path), "leads out of the folder: not followed")
        for path in files.not_followed
    ]
    return [*pictures, *links]


def _read_ahead(
    classifier: Classifier, found: Sequence[Found]
) -> Iterator[Union[_Encoded, Reject]]:
    """Read and convert pictures in several threads; yield them in order."""
    num_threads = classifier.config.data.decode_threads or machine.num_cores()
    pending: Deque[Any] = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
        for picture in found:
            pending.append(pool.submit(_read, picture, classifier.conversion))
            if len(pending) > 4 * num_threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _read(picture: Found, conversion: dict) -> Union[_Encoded, Reject]:
    if isinstance(picture, Reject):
        return picture
    # TFRecords from elsewhere hold pictures as they were.
    short_side = conversion.get("short_side", 0)
    quality = conversion.get("jpeg_quality", 95)
    try:
        data = picture.reader.read(picture.path_in_reader)
        return _Encoded(picture.path, transcode(data, short_side, quality).data)
    except Exception as error:  # Broken pictures raise errors of any type.
        return Reject(picture.path, describe(error))


def _batch_size(classifier: Classifier, found: Sequence[Found]) -> int:
    config = classifier.config
    batch_size = inputs.eval_batch_size(config.data, config.train.batch_size_per_rank)
    return min(batch_size, len(found))


class _Rows:
    """Writes predictions as CSV or JSON lines."""

    def __init__(
        self, file: BinaryIO, row_format: str, class_names: Sequence[str], top_k: int
    ):
        self._file, self._class_names = file, class_names
        self._top_k = min(top_k, len(class_names))
        self._encode = _encode_json if row_format == "jsonl" else _encode_csv
        if row_format == "csv":
            names = [("class", "probability")]
            names += [(f"class_{i}", f"probability_{i}") for i in range(2, top_k + 1)]
            file.write(_encode_csv("path", names[: self._top_k]))

    def write(self, prediction: Prediction) -> None:
        """Write one row."""
        probabilities = prediction.probabilities
        # Of equal ones the first, as argmax does.
        best = np.argsort(-probabilities, kind="stable")[: self._top_k]
        ranking = [
            (self._class_names[i], round(float(probabilities[i]), 6)) for i in best
        ]
        self._file.write(self._encode(prediction.path, ranking))


def _encode_csv(path: str, ranking: Sequence[Tuple[str, Any]]) -> bytes:
    return encode_csv([path, *itertools.chain.from_iterable(ranking)])


def _encode_json(path: str, ranking: Sequence[Tuple[str, Any]]) -> bytes:
    classes = [{"class": name, "probability": value} for name, value in ranking]
    row = {"path": path, **classes[0]}
    if len(classes) > 1:
        row["top_k"] = classes
    # What is not Unicode becomes an escape that JSON has as well.
    return (
        json.dumps(row, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
    )


class _Stopwatch:
    """Measures images/s without the first batch, if there are more."""

    def __init__(self, batch_size: int):
        self.num_images = 0
        self._batch_size = batch_size
        self._start_secs = self._first_secs = time.monotonic()

    def count(self) -> None:
        """Note that a picture has been classified."""
        self.num_images += 1
        if self.num_images == 1:
            self._first_secs = time.monotonic()

    def images_per_sec(self) -> float:
        """Return the rate until now."""
        now = time.monotonic()
        if self.num_images <= self._batch_size:
            return self.num_images / (now - self._start_secs)
        return (self.num_images - self._batch_size) / (now - self._first_secs)


@contextlib.contextmanager
def _progress_bar(num_images: int) -> Iterator[tqdm]:
    """Show a bar on a terminal, and keep Pillow's remarks on oddities out of it."""
    with warnings.catch_warnings(), tqdm(
        desc="predicting", total=num_images, unit=" images", disable=not has_bars()
    ) as bar:
        warnings.filterwarnings("ignore", module="PIL")
        yield bar


@contextlib.contextmanager
def _complete_file(path: str) -> Iterator[BinaryIO]:
    """Open a file that appears when it is complete; ``-``: stdout.

    Raises:
        ConfigError: it cannot be opened.
        DataError: it cannot be written to its end.
    """
    if path == STDOUT:
        with writing_results():
            buffer: Any = getattr(sys.stdout, "buffer", None) or io.BytesIO()
            yield buffer
            if isinstance(buffer, io.BytesIO):  # A notebook's stdout takes text only.
                sys.stdout.write(buffer.getvalue().decode("utf-8", "replace"))
            sys.stdout.flush()
        return
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(replacing(path))
        except OSError as error:
            raise ConfigError(f"cannot be written: {error.strerror}", path) from error
        try:
            yield file
            stack.close()
        except OSError as error:
            raise DataError(f"cannot be written: {error.strerror}", path) from error
