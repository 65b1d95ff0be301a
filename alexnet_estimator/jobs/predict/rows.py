"""Writing of predictions as CSV or JSON lines, to a file or to standard output."""

import contextlib
import json
import os
from typing import Any, BinaryIO, Callable, Iterator, NamedTuple, Sequence, TextIO

import numpy as np

from alexnet_estimator import disk
from alexnet_estimator.console import STDOUT, escape, require_stdout, writing_results
from alexnet_estimator.errors import ConfigError, DataError
from alexnet_estimator.files import encode_csv, is_formula, replacing

ROW_FORMATS = ("csv", "jsonl")
# The beginnings of the files, which have the same length.
_CSV_START, _JSON_START = b"path,cla", b'{"path":'


class Prediction(NamedTuple):
    """The prediction for one picture.

    Attributes:
        path: Path of the picture, which starts with the path that the user gave.
        probabilities: float32 [num_classes].
    """

    path: str
    probabilities: np.ndarray


def write_csv(
    file: BinaryIO, class_names: Sequence[str], top_k: int
) -> Callable[[Prediction], Any]:
    """Write the header of a CSV file, and return a function that writes a row.

    A spreadsheet must not evaluate a path as a formula: ``=1.jpg`` is written as
    ``./=1.jpg``, which is the same file.  Names of classes are not changed, but quoted.
    """
    header = ["path", "class", "probability"]
    for place in range(2, top_k + 1):
        header += [f"class_{place}", f"probability_{place}"]
    file.write(encode_csv(header))

    def write(prediction: Prediction) -> None:
        path = prediction.path
        row = [os.path.join(os.curdir, path) if is_formula(path) else path]
        for index in _rank_classes(prediction, top_k):
            row += [class_names[index], _round(prediction, index)]
        file.write(encode_csv(row))

    return write


def write_json_lines(
    file: BinaryIO, class_names: Sequence[str], top_k: int
) -> Callable[[Prediction], Any]:
    """Return a function that writes a prediction as one line of JSON."""

    def write(prediction: Prediction) -> None:
        ranking = [
            {"class": class_names[index], "probability": _round(prediction, index)}
            for index in _rank_classes(prediction, top_k)
        ]
        row = {"path": prediction.path, **ranking[0]}
        if len(ranking) > 1:
            row["top_k"] = ranking
        # Bytes that are not UTF-8 become escapes, which are valid JSON.
        text = json.dumps(row, ensure_ascii=False)
        file.write(text.encode("utf-8", "backslashreplace") + b"\n")

    return write


def _rank_classes(prediction: Prediction, top_k: int) -> np.ndarray:
    """Return the most probable classes, int [top_k]; ties are ordered as by argmax."""
    return np.argsort(-prediction.probabilities, kind="stable")[:top_k]


def _round(prediction: Prediction, index: int) -> Any:
    return round(float(prediction.probabilities[index]), 6)


class _EscapingFile:
    """A binary file that writes its rows as escaped text to a stream."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, row: bytes) -> None:
        """Write one row."""
        self._stream.write(escape(row.decode("utf-8", "surrogateescape")))


def _refuse_other_files(path: str) -> None:
    if not os.path.isfile(path):
        return
    with open(path, "rb") as file:
        start = file.read(len(_CSV_START))
    if start and not any(row.startswith(start) for row in (_CSV_START, _JSON_START)):
        raise ConfigError(
            "exists and does not hold predictions: give another --output", path
        )


@contextlib.contextmanager
def open_output(path: str) -> Iterator[Any]:
    """Open a file that appears when it is complete, or standard output for ``-``.

    Only a file of predictions is replaced.  In ``--output dogs/*.jpg``, the shell makes
    the first picture the output.

    Raises:
        UserError: The file cannot be opened, cannot be written to its end, or has
            another content.
        OSError: Standard output cannot be written.
    """
    if path == STDOUT:
        with writing_results():
            stdout = require_stdout()
            # The output of a notebook takes text only.  On a terminal, names of files
            # must be escaped.
            has_bytes = hasattr(stdout, "buffer") and not stdout.isatty()
            yield stdout.buffer if has_bytes else _EscapingFile(stdout)
            stdout.flush()
        return
    with contextlib.ExitStack() as stack:
        try:
            _refuse_other_files(path)
            # A symbolic link stays, and its target is replaced.
            file = stack.enter_context(replacing(os.path.realpath(path)))
        except OSError as error:
            raise disk.error_at(path, "cannot be written", error) from error
        try:
            yield file
            stack.close()
        except OSError as error:
            raise DataError(f"cannot be written: {error.strerror}", path) from error
