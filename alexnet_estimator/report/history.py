"""A run's files, read with patience: what is missing or damaged becomes a note."""

import dataclasses
import json
import math
import os
import pathlib
import re
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from alexnet_estimator.config import RECORD_FILE
from alexnet_estimator.errors import ConfigError

_MAX_FILE_BYTES = 64 << 20
_PNG_START = b"\x89PNG\r\n\x1a\n"


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One evaluation; numbers are NaN where nothing was recorded."""

    step: int
    num_images: int
    loss: float
    top_1_accuracy: float
    top_5_accuracy: float


@dataclasses.dataclass(frozen=True)
class Confusion:
    """The newest confusion matrix: int64 ``[num_classes, num_classes]``, true rows."""

    step: int
    matrix: np.ndarray
    class_names: Tuple[str, ...]


@dataclasses.dataclass
class Start:
    """One start of the run and how far it came."""

    step: int
    time_secs: float
    values: Dict[str, Any]
    last_step: int
    last_time_secs: float
    outcome: str = ""

    @property
    def duration_secs(self) -> float:
        """Return the wall time up to the last record."""
        return self.last_time_secs - self.time_secs


@dataclasses.dataclass(frozen=True)
class Sample:
    """A picture that was evaluated.

    Attributes:
        label: its class.
        answers: classes and their probabilities, the likeliest first.
        file: where the picture comes from; may be empty.
        jpeg: base64.
    """

    label: int
    answers: List[Tuple[int, float]]
    file: str
    jpeg: str

    @property
    def is_right(self) -> bool:
        """Tell whether the likeliest class is the true one."""
        return self.answers[0][0] == self.label


@dataclasses.dataclass
class History:
    """Everything that a run has left.

    Attributes:
        name: short, different for every run of a page.
        model_dir: as it was given.
        record: ``config.json``: configuration, class names, versions.
        train: the ``train`` lines of ``metrics.jsonl`` that later starts did not undo.
        evaluations: by step.
        confusion: of the newest evaluation that has one.
        starts: in order.
        samples: evaluated pictures, most confident mistakes first.
        samples_about: the step and the numbers of pictures that they were taken from.
        kernels: a PNG of the first layer, or nothing.
        notes: what could not be read.
    """

    name: str
    model_dir: str
    record: Dict[str, Any] = dataclasses.field(default_factory=dict)
    train: List[Dict[str, Any]] = dataclasses.field(default_factory=list)
    evaluations: List[Evaluation] = dataclasses.field(default_factory=list)
    confusion: Optional[Confusion] = None
    starts: List[Start] = dataclasses.field(default_factory=list)
    samples: List[Sample] = dataclasses.field(default_factory=list)
    samples_about: Dict[str, int] = dataclasses.field(default_factory=dict)
    kernels: bytes = b""
    notes: List[str] = dataclasses.field(default_factory=list)

    @property
    def class_names(self) -> Tuple[str, ...]:
        """Return the names in the order of the labels; empty where unknown."""
        if self.confusion:
            return self.confusion.class_names
        return _names(self.record.get("class_names"))

    @property
    def best(self) -> Optional[Evaluation]:
        """Return the first of the most accurate evaluations."""
        known = [e for e in self.evaluations if math.isfinite(e.top_1_accuracy)]
        # Of equal ones, max returns the first.
        return max(known, key=lambda e: e.top_1_accuracy) if known else None

    @property
    def last(self) -> Optional[Evaluation]:
        """Return the newest evaluation whose accuracy is known."""
        known = [e for e in self.evaluations if math.isfinite(e.top_1_accuracy)]
        return known[-1] if known else None

    @property
    def duration_secs(self) -> float:
        """Return the wall time of all starts together, NaN where it is unknown."""
        if not self.starts:
            return math.nan
        return sum(start.duration_secs for start in self.starts)

    def values(self, name: str) -> Tuple[np.ndarray, np.ndarray]:
        """Return steps and values of what was logged while training, float64."""
        rows = [row for row in self.train if name in row]
        steps = np.array([row["step"] for row in rows], float)
        return steps, np.array([number(row[name]) for row in rows], float)


def read_runs(model_dirs: Sequence[str]) -> List[History]:
    """Read runs.

    Raises:
        ConfigError: folders that hold no run, all of them.
    """
    problems = [
        f"{model_dir} holds no run; give the --model_dir of train"
        for model_dir in model_dirs
        if not any(
            os.path.exists(os.path.join(model_dir, file))
            for file in (RECORD_FILE, "metrics.jsonl", "eval")
        )
    ]
    if problems or not model_dirs:
        raise ConfigError(problems or "name the folder of a run")
    names = [os.path.basename(os.path.abspath(path)) for path in model_dirs]
    if len(set(names)) < len(names):
        names = [os.path.normpath(path) for path in model_dirs]
    return [_read_run(*pair) for pair in zip(names, model_dirs)]


def number(value: Any) -> float:
    """Return a JSON value as a finite number, or NaN."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return math.nan
    try:
        result = float(value)
    except OverflowError:
        return math.nan
    return result if math.isfinite(result) else math.nan


def section(value: Any) -> Dict[str, Any]:
    """Return a JSON value where it is an object, or else an empty one."""
    return value if isinstance(value, dict) else {}


def _read_run(name: str, model_dir: str) -> History:
    run = History(name, model_dir)
    folder = pathlib.Path(model_dir)
    run.record = _read_json(folder / RECORD_FILE, run.notes)
    logged = _read_metrics(folder / "metrics.jsonl", run)
    _read_evaluations(folder / "eval", run, logged)
    _read_samples(folder / "samples.json", run)
    kernels = folder / "conv1_kernels.png"
    if kernels.is_file() and kernels.stat().st_size < _MAX_FILE_BYTES:
        data = kernels.read_bytes()
        run.kernels = data if data.startswith(_PNG_START) else b""
    return run


def _read_json(file: pathlib.Path, notes: List[str]) -> Dict[str, Any]:
    """Return the object in a file; a note says why there is none."""
    try:
        if file.stat().st_size > _MAX_FILE_BYTES:
            raise ValueError(f"larger than {_MAX_FILE_BYTES >> 20} MiB")
        value = json.loads(file.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        notes.append(f"{file.name} cannot be read: {error}")
        return {}
    if not isinstance(value, dict):
        notes.append(f"{file.name} holds no object")
    return section(value)


def _read_metrics(file: pathlib.Path, run: History) -> Dict[int, Evaluation]:
    """Read the log into ``run``; return its evaluations by step."""
    evaluations: Dict[int, Evaluation] = {}
    num_strange = 0
    for line in file.read_bytes().splitlines() if file.is_file() else []:
        event = _parse_event(line)
        if event is None:
            num_strange += bool(line.strip())
            continue
        step, time_secs = event["step"], number(event.get("time_secs"))
        if event["event"] == "start":
            run.starts.append(Start(step, time_secs, event, step, time_secs))
            # What was trained after the checkpoint is trained again.
            run.train = [row for row in run.train if row["step"] <= step]
        elif run.starts:
            start = run.starts[-1]
            start.last_step, start.last_time_secs = step, time_secs
            start.outcome = event["event"]
        if event["event"] == "train":
            run.train.append(event)
        if event["event"] == "evaluation":
            evaluations[step] = _evaluation(event, step)
    if num_strange:
        run.notes.append(f"{num_strange} lines of {file.name} could not be read")
    return evaluations


def _parse_event(line: bytes) -> Optional[Dict[str, Any]]:
    try:
        event = section(json.loads(line.decode("utf-8")))
    except (ValueError, RecursionError):
        return None
    is_whole = isinstance(event.get("event"), str) and _is_step(event.get("step"))
    return event if is_whole else None


def _is_step(value: Any) -> bool:
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    return is_integer and 0 <= value < 1 << 53


def _evaluation(values: Dict[str, Any], step: int) -> Evaluation:
    num_images = number(values.get("num_images"))
    return Evaluation(
        step,
        0 if math.isnan(num_images) else int(num_images),
        *(number(values.get(n)) for n in ("loss", "top_1_accuracy", "top_5_accuracy")),
    )


def _read_evaluations(
    folder: pathlib.Path, run: History, logged: Dict[int, Evaluation]
) -> None:
    """Read ``eval/<step>.json`` where the log lacks it, and the newest confusion.

    With many classes the files are large, so the others are not opened.
    """
    found = {
        int(file.stem): file
        for file in folder.glob("*.json")
        if re.fullmatch(r"[0-9]{1,15}", file.stem)
    }
    for step in sorted(found, reverse=True):
        if run.confusion and step in logged:
            continue
        values = _read_json(found[step], run.notes)
        if not values:
            continue
        logged[step] = _evaluation(values, step)
        if run.confusion is None:
            run.confusion = _confusion(values, step)
    run.evaluations = [logged[step] for step in sorted(logged)]


def _confusion(values: Dict[str, Any], step: int) -> Optional[Confusion]:
    names = _names(values.get("class_names"))
    try:
        matrix = np.array(values.get("confusion_matrix"), np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    if not names or matrix.shape != (len(names),) * 2:
        return None
    is_whole = np.isfinite(matrix).all() and (matrix >= 0).all()
    if not is_whole or not 0 < matrix.sum() < 1 << 53:
        return None
    return Confusion(step, matrix.astype(np.int64), names)


def _names(value: Any) -> Tuple[str, ...]:
    return tuple(str(name) for name in value) if isinstance(value, list) else ()


def _read_samples(file: pathlib.Path, run: History) -> None:
    content = _read_json(file, run.notes)
    if not content:
        return
    pictures = content.get("pictures")
    listed = pictures if isinstance(pictures, list) else []
    samples = [_sample(section(item), len(run.class_names)) for item in listed]
    run.samples = [sample for sample in samples if sample]
    run.samples_about = {
        name: value for name, value in content.items() if _is_step(value)
    }
    if len(run.samples) < len(samples):
        run.notes.append(f"some pictures of {file.name} could not be read")


def _sample(item: Dict[str, Any], num_classes: int) -> Optional[Sample]:
    """Return a picture, or None where anything about it is wrong."""
    jpeg = str(item.get("jpeg"))
    try:
        label = _label(item["label"], num_classes)
        answers = [
            (_label(answer, num_classes), number(probability))
            for answer, probability in item["answers"]
        ]
    except (KeyError, TypeError, ValueError):
        return None
    if not answers or not re.fullmatch(r"[A-Za-z0-9+/]+=*", jpeg):
        return None
    return Sample(label, answers, str(item.get("file", "")), jpeg)


def _label(value: Any, num_classes: int) -> int:
    if not _is_step(value) or value >= num_classes:
        raise ValueError(f"no label: {value!r}")
    return int(value)
