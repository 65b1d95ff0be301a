"""Predictions as rows of CSV or JSON lines, and the file or pipe that takes them."""

import contextlib
import io
import json
import sys
from typing import Any, BinaryIO, Callable, Iterator, NamedTuple, Sequence

import numpy as np

from alexnet_estimator.console import STDOUT, writing_results
from alexnet_estimator.errors import ConfigError, DataError
from alexnet_estimator.files import encode_csv, replacing

ROW_FORMATS = ("csv", "jsonl")


class Prediction(NamedTuple):
    """What a model says about one picture.

    Attributes:
        path: Path of the picture as it was given; in a folder or a zip below that.
        probabilities: float32 [num_classes].
    """

    path: str
    probabilities: np.ndarray


def write_csv(
    file: BinaryIO, class_names: Sequence[str], top_k: int
) -> Callable[[Prediction], Any]:
    """Write the header of a CSV file; return a function that writes a row."""
    header = ["path", "class", "probability"]
    for place in range(2, top_k + 1):
        header += [f"class_{place}", f"probability_{place}"]
    file.write(encode_csv(header))

    def write(prediction: Prediction) -> None:
        row = [prediction.path]
        for index in _rank_classes(prediction, top_k):
            row += [class_names[index], _round(prediction, index)]
        file.write(encode_csv(row))

    return write


def write_json_lines(
    file: BinaryIO, class_names: Sequence[str], top_k: int
) -> Callable[[Prediction], Any]:
    """Return a function that writes a prediction as a line of JSON."""

    def write(prediction: Prediction) -> None:
        ranking = [
            {"class": class_names[index], "probability": _round(prediction, index)}
            for index in _rank_classes(prediction, top_k)
        ]
        row = {"path": prediction.path, **ranking[0]}
        if len(ranking) > 1:
            row["top_k"] = ranking
        # Bytes that are not UTF-8 become escapes that JSON has as well.
        text = json.dumps(row, ensure_ascii=False)
        file.write(text.encode("utf-8", "backslashreplace") + b"\n")

    return write


def _rank_classes(prediction: Prediction, top_k: int) -> np.ndarray:
    """Return class indices, int [top_k]; of equal ones the first, as argmax does."""
    return np.argsort(-prediction.probabilities, kind="stable")[:top_k]


def _round(prediction: Prediction, index: int) -> Any:
    return round(float(prediction.probabilities[index]), 6)


@contextlib.contextmanager
def open_output(path: str) -> Iterator[BinaryIO]:
    """Open a file that appears when it is complete, or standard output for ``-``.

    Raises:
        ConfigError: The file cannot be opened.
        DataError: The file cannot be written to its end.
        OSError: Standard output takes no more.
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
