"""The prediction job, which writes one row for each picture, in order."""

import collections
import concurrent.futures
import itertools
import time
import warnings
from typing import (
    Any,
    Callable,
    Deque,
    Iterator,
    List,
    NamedTuple,
    Sequence,
    Tuple,
    Union,
)

from alexnet_estimator import console, inputs, machine
from alexnet_estimator.errors import ConfigError, DataError
from alexnet_estimator.jobs.predict import rows
from alexnet_estimator.jobs.predict.classifier import Classifier
from alexnet_estimator.jobs.predict.rows import ROW_FORMATS, Prediction
from alexnet_estimator.jobs.predict.sources import Found, Reject, find_sources
from alexnet_estimator.records.pictures import describe_error, transcode


class Summary(NamedTuple):
    """The result of a prediction job.

    Attributes:
        num_images: Number of rows that were written.
        rejects: Pictures that could not be read and have no row.
        images_per_sec: Rate in images/s, including reading and decoding.  The first
            batch, which waits for the model, does not count if there are others.
    """

    num_images: int
    rejects: Tuple[Reject, ...]
    images_per_sec: float


def predict(
    classifier: Classifier,
    sources: Sequence[str],
    output: str = console.STDOUT,
    top_k: int = 1,
    row_format: str = "",
) -> Summary:
    """Classify pictures and write a row for each one that can be read, in order.

    A warning on stderr names each picture that cannot be read, with the reason.

    Args:
        classifier: Model, see ``open_classifier``.
        sources: Pictures, see ``find_sources``.
        output: Path of the file, which appears when it is complete; ``-`` for standard
            output.
        top_k: Number of classes in a row, the most probable one first.
        row_format: One of ``ROW_FORMATS``; empty for JSON lines if the name of the
            output ends with ``.jsonl``, and otherwise CSV.

    Raises:
        ConfigError: The output cannot be written or is a file of another kind, or an
            argument is wrong.
        DataError: There are no pictures, or none of them can be read.
    """
    row_format = row_format or ("jsonl" if output.endswith(".jsonl") else "csv")
    problems = [f"top_k is {top_k}: must be at least 1"] if top_k < 1 else []
    if row_format not in ROW_FORMATS:
        known = ", ".join(ROW_FORMATS)
        problems.append(f"the format is {row_format!r}: must be one of {known}")
    if problems:
        raise ConfigError(problems)
    found = find_sources(sources)
    with rows.open_output(output) as file:
        begin = rows.write_csv if row_format == "csv" else rows.write_json_lines
        names = classifier.class_names
        write = begin(file, names, min(top_k, len(names)))
        return _write_rows(classifier, found, write)


def _write_rows(
    classifier: Classifier, found: Sequence[Found], write: Callable[[Prediction], None]
) -> Summary:
    rejects: List[Reject] = []
    num_images, start_secs, first_secs = 0, time.monotonic(), 0.0
    bar = console.open_bar("predicting", len(found), "images")

    def reject(picture: Reject) -> None:
        rejects.append(picture)
        bar.update()
        console.warn(f"{picture.path}: {picture.reason}")

    with bar, warnings.catch_warnings():
        # Pillow warns about pictures that are unusual, although it can read them.
        warnings.filterwarnings("ignore", module="PIL")
        for prediction in classify(classifier, found, reject):
            write(prediction)
            bar.update()
            num_images += 1
            first_secs = first_secs or time.monotonic()
    if not num_images:
        pictures = console.count(len(rejects), "picture")
        raise DataError(f"none of {pictures} can be read: see the warnings above")
    now_secs, num_first = time.monotonic(), _batch_size(classifier, found)
    rate = measure_rate(
        num_images, num_first, now_secs - start_secs, now_secs - first_secs
    )
    return Summary(num_images, tuple(rejects), rate)


def measure_rate(
    num_images: int, batch_size: int, secs: float, secs_after_first: float
) -> float:
    """Return images/s, without the first batch if there are several.

    Args:
        num_images: Number of all pictures.
        batch_size: Number of pictures in the first batch.
        secs: Wall time of all pictures in seconds.
        secs_after_first: Wall time after the first batch in seconds.
    """
    if num_images <= batch_size:
        return num_images / secs
    return (num_images - batch_size) / secs_after_first


def classify(
    classifier: Classifier, found: Sequence[Found], reject: Callable[[Reject], None]
) -> Iterator[Prediction]:
    """Classify pictures, which are converted and decoded as in an evaluation.

    Args:
        classifier: Model, see ``open_classifier``.
        found: Pictures, see ``find_sources``.
        reject: Function that is called in another thread with each picture that cannot
            be read.

    Yields:
        A prediction for each of the other pictures, in order.
    """
    batch_size = _batch_size(classifier, found)
    paths: List[str] = []

    def read_pictures() -> Iterator[bytes]:
        for picture in _read_ahead(classifier, found):
            if isinstance(picture, Reject):
                reject(picture)
                continue
            path, jpeg = picture
            paths.append(path)
            yield jpeg

    batches = classifier.predict_batches(
        lambda: inputs.picture_batches(
            read_pictures, classifier.config.data, batch_size
        )
    )
    for index, probabilities in enumerate(itertools.chain.from_iterable(batches)):
        if index < len(paths):  # The padding of the last batch gets no row.
            yield Prediction(paths[index], probabilities)


def _batch_size(classifier: Classifier, found: Sequence[Found]) -> int:
    config = classifier.config
    batch_size = inputs.eval_batch_size(config.data, config.train.batch_size_per_rank)
    return min(batch_size, len(found))


def _read_ahead(
    classifier: Classifier, found: Sequence[Found]
) -> Iterator[Union[Tuple[str, bytes], Reject]]:
    """Yield paths and JPEGs in order, which several threads read and convert."""
    num_threads = classifier.config.data.decode_threads or machine.num_cores()
    pending: Deque[Any] = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
        for picture in found:
            pending.append(pool.submit(_read, picture, classifier.conversion))
            if len(pending) > 4 * num_threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _read(picture: Found, conversion: dict) -> Union[Tuple[str, bytes], Reject]:
    if isinstance(picture, Reject):
        return picture
    # TFRecords of other programs hold the original pictures, so nothing is resized.
    short_side = conversion.get("short_side", 0)
    quality = conversion.get("jpeg_quality", 95)
    try:
        data = picture.reader.read(picture.path_in_reader)
        return picture.path, transcode(data, short_side, quality).data
    except Exception as error:  # A damaged picture can raise any error.
        return Reject(picture.path, describe_error(error))
