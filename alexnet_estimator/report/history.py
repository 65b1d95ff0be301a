"""Reading of a run's files; a missing or damaged file gives a note, not an error."""

import dataclasses
import json
import math
import os
import pathlib
import re
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from alexnet_estimator import run_record
from alexnet_estimator.errors import ConfigError
from alexnet_estimator.files import naming, read_at_most, read_json
from alexnet_estimator.networks import DEFAULT, find_network
from alexnet_estimator.report.scores import Answers, decode_answers, wilson_interval
from alexnet_estimator.report.text import plain

_MAX_PNG_BYTES = 64 << 20
_PNG_START = b"\x89PNG\r\n\x1a\n"
_BASE64 = re.compile(r"[A-Za-z0-9+/]+=*")


class Score(NamedTuple):
    """Result of one evaluation; a value that was not recorded is NaN."""

    step: int
    num_images: int
    loss: float
    top_1_accuracy: float
    top_5_accuracy: float

    @property
    def interval(self) -> Tuple[float, float]:
        """Return the 95 % confidence interval of the top-1 accuracy."""
        return wilson_interval(self.top_1_accuracy, self.num_images)


@dataclasses.dataclass
class Start:
    """One start of the run, and the log until the next start.

    Attributes:
        step: Global step at which the run started.
        time_secs: Time of the start in seconds since 1970; NaN if it is unknown.
        num_ranks: Number of ranks, as it was logged.
        notes: Other logged values, such as changes of the configuration.
        last_step: Global step of the last line before the next start.
        last_time_secs: Time of the last line before the next start.
        outcome: Event of the last line before the next start, such as ``end`` or
            ``stop``.
    """

    step: int
    time_secs: float
    num_ranks: Any
    notes: List[str]
    last_step: int
    last_time_secs: float
    outcome: str = ""

    @property
    def duration_secs(self) -> float:
        """Return the wall time from the start to the last line."""
        return self.last_time_secs - self.time_secs


class Sample(NamedTuple):
    """A picture that was evaluated.

    Attributes:
        label: True class.
        answers: Predicted classes and their probabilities, the likeliest first.
        file: Path of the original picture; may be empty.
        jpeg: JPEG file of the picture in base64.
    """

    label: int
    answers: List[Tuple[int, float]]
    file: str
    jpeg: str

    @property
    def is_right(self) -> bool:
        """Return whether the likeliest class is the true one."""
        return self.answers[0][0] == self.label


@dataclasses.dataclass
class History:
    """The content of the files of a run.

    Attributes:
        name: Short name, unique among the runs of a page.
        model_dir: Folder of the run, as the user gave it.
        record: Content of ``config.json``; empty if the file is missing or damaged.
        class_names: Names of the classes in the order of the labels; empty if they are
            unknown.
        train: ``train`` lines of ``metrics.jsonl``, without the steps that were
            repeated after a restart.
        evaluations: Results of the evaluations, sorted by step.
        answers: Counted answers of the newest evaluation that has them.
        starts: Starts of the run, in the order of the log.
        samples: Evaluated pictures, the most confident mistakes first.
        samples_about: Global step of the samples, number of the pictures that they
            were chosen from, and number of the mistakes among these.
        kernels: PNG file of the kernels of the first layer; may be empty.
        notes: Messages about files that could not be read.
    """

    name: str
    model_dir: str
    record: Dict[str, Any] = dataclasses.field(default_factory=dict)
    class_names: Tuple[str, ...] = ()
    train: List[Dict[str, Any]] = dataclasses.field(default_factory=list)
    evaluations: List[Score] = dataclasses.field(default_factory=list)
    answers: Optional[Answers] = None
    starts: List[Start] = dataclasses.field(default_factory=list)
    samples: List[Sample] = dataclasses.field(default_factory=list)
    samples_about: Dict[str, int] = dataclasses.field(default_factory=dict)
    kernels: bytes = b""
    notes: List[str] = dataclasses.field(default_factory=list)

    @property
    def network(self) -> str:
        """Return the title of the network.

        Old versions did not record it, but they had the default network only.
        """
        title = self.record.get("network", {}).get("title")
        return plain(title) if title else find_network(DEFAULT).title

    @property
    def config(self) -> Dict[str, Dict[str, Any]]:
        """Return the sections of the configuration; empty if it is unknown."""
        return self.record.get("config", {})

    @property
    def data_digest(self) -> str:
        """Return the SHA-256 of the data; empty if it is unknown."""
        return self.record.get("data_digest", "")

    @property
    def class_counts(self) -> Dict[str, List[int]]:
        """Return the number of pictures of each class for each split."""
        return {
            split: counts
            for split, counts in self.record.get("class_counts", {}).items()
            if counts
        }

    @property
    def scored(self) -> List[Score]:
        """Return the evaluations whose accuracy is known, sorted by step."""
        return [e for e in self.evaluations if math.isfinite(e.top_1_accuracy)]

    @property
    def best(self) -> Optional[Score]:
        """Return the most accurate evaluation; of equal ones, the earliest."""
        # max returns the first of equal items.
        scored = self.scored
        return max(scored, key=lambda e: e.top_1_accuracy) if scored else None

    @property
    def last(self) -> Optional[Score]:
        """Return the newest evaluation whose accuracy is known."""
        return self.scored[-1] if self.scored else None

    @property
    def images_per_sec(self) -> float:
        """Return the median throughput; NaN if none was logged."""
        speeds = self.values("images_per_sec")[1]
        return float(np.median(speeds)) if len(speeds) else math.nan

    def values(self, name: str) -> Tuple[np.ndarray, np.ndarray]:
        """Return the steps and the finite values of a training metric.

        Args:
            name: Field of the ``train`` lines.

        Returns:
            Two float64 arrays of the shape [n].
        """
        return _finite([(row["step"], _number(row.get(name))) for row in self.train])

    def scores(self, name: str) -> Tuple[np.ndarray, np.ndarray]:
        """Return the steps and the finite values of an evaluation metric.

        Args:
            name: Field of ``Score``.

        Returns:
            Two float64 arrays of the shape [n].
        """
        return _finite([(e.step, getattr(e, name)) for e in self.evaluations])


def read_runs(model_dirs: Sequence[str]) -> List[History]:
    """Read the files of runs.

    Raises:
        ConfigError: A folder holds no run; the message names all such folders.
    """
    files = (run_record.FILE_NAME, "metrics.jsonl", "eval")
    problems = [
        f"{model_dir} holds no run; give the --model_dir of train"
        for model_dir in model_dirs
        if not any(os.path.exists(os.path.join(model_dir, file)) for file in files)
    ]
    if problems or not model_dirs:
        raise ConfigError(problems or "name the folder of a run")
    names = [os.path.basename(os.path.abspath(path)) for path in model_dirs]
    if len(set(names)) < len(names):
        names = [os.path.normpath(path) for path in model_dirs]
    return [_read_run(*pair) for pair in zip(names, model_dirs)]


def _read_run(name: str, model_dir: str) -> History:
    run = History(name, model_dir)
    folder = pathlib.Path(model_dir)
    record = folder / run_record.FILE_NAME
    run.record = _read(run_record.read_values, record, run.notes) or {}
    run.class_names = tuple(run.record.get("class_names", ()))
    logged = _read_metrics(folder / "metrics.jsonl", run)
    _read_evaluations(folder / "eval", run, logged)
    _read_samples(folder / "samples.json", run)
    for file in sorted(folder.glob("*_kernels.png"))[:1]:  # Named after their layer.
        png = _read(lambda path: read_at_most(path, _MAX_PNG_BYTES), file, run.notes)
        run.kernels = png if png and png.startswith(_PNG_START) else b""
    return run


def _read(read: Callable[[str], Any], file: pathlib.Path, notes: List[str]) -> Any:
    """Return what a function reads from a file; None if the file is not there.

    If the file cannot be read, the result is None as well, and a note is added.
    """
    try:
        return read(str(file)) if file.exists() else None
    except ConfigError as error:
        notes += [f"{file.name} cannot be used: {each}" for each in error.problems]
    except (OSError, ValueError) as error:
        notes.append(f"{file.name} cannot be read: {error}")
    return None


def _object(value: Any) -> Dict[str, Any]:
    """Return a JSON value if it is an object, or an empty object otherwise."""
    return value if isinstance(value, dict) else {}


def _read_metrics(file: pathlib.Path, run: History) -> Dict[int, Score]:
    """Read ``metrics.jsonl`` into ``run``; return its evaluations by step."""
    evaluations: Dict[int, Score] = {}
    num_strange = 0
    with naming(str(file)):
        content = file.read_bytes() if file.is_file() else b""
    for line in content.splitlines():
        try:
            event = _object(json.loads(line.decode("utf-8")))
        except (ValueError, RecursionError):
            event = {}
        kind, step = event.get("event"), _count(event.get("step"))
        if not isinstance(kind, str) or step < 0:
            num_strange += bool(line.strip())
            continue
        time_secs = _number(event.get("time_secs"))
        if kind == "start":
            usual = ("event", "step", "time_secs", "num_ranks")
            notes = [
                f"{name}: {plain(value)}"
                for name, value in event.items()
                if name not in usual and value
            ]
            num_ranks = event.get("num_ranks")
            start = Start(step, time_secs, num_ranks, notes, step, time_secs)
            run.starts.append(start)
            # A restarted run repeats the steps after its checkpoint, so their first
            # lines are dropped: the curves would go back and forth otherwise.
            run.train = [row for row in run.train if row["step"] <= step]
        elif run.starts:
            start = run.starts[-1]
            start.last_step, start.last_time_secs = step, time_secs
            start.outcome = kind
        if kind == "train":
            run.train.append(event)
        if kind == "evaluation":
            evaluations[step] = _score(event, step)
    if num_strange:
        run.notes.append(f"{num_strange} lines of {file.name} could not be read")
    return evaluations


def _score(values: Dict[str, Any], step: int) -> Score:
    shares = [_number(values.get(f"top_{k}_accuracy")) for k in (1, 5)]
    return Score(
        step,
        max(0, _count(values.get("num_images"))),
        _number(values.get("loss")),
        *(share if 0 <= share <= 1 else math.nan for share in shares),
    )


def _read_evaluations(
    folder: pathlib.Path, run: History, logged: Dict[int, Score]
) -> None:
    """Read the evaluations that the log lacks, and the newest counted answers.

    The other files ``eval/<step>.json`` are not opened, because they are large if there
    are many classes.
    """
    found = {
        int(file.stem): file
        for file in folder.glob("*.json")
        if re.fullmatch(r"[0-9]{1,15}", file.stem)
    }
    for step in sorted(found, reverse=True):
        if run.answers and step in logged:
            continue
        values = _object(_read(read_json, found[step], run.notes))
        if values:
            logged[step] = _score(values, step)
            run.answers = run.answers or decode_answers(values, step)
    run.evaluations = [logged[step] for step in sorted(logged)]
    if run.answers:
        run.class_names = run.answers.class_names


def _read_samples(file: pathlib.Path, run: History) -> None:
    content = _object(_read(read_json, file, run.notes))
    pictures = content.get("pictures")
    for item in pictures if isinstance(pictures, list) else []:
        try:
            label, jpeg = item["label"], item["jpeg"]
            answers = [(answer, _number(share)) for answer, share in item["answers"]]
            labels = [label, *(answer for answer, _ in answers)]
            are_known = all(0 <= _count(x) < len(run.class_names) for x in labels)
            if not answers or not are_known or not _BASE64.fullmatch(jpeg):
                raise ValueError("something of it is wrong")
        except (KeyError, TypeError, ValueError):
            run.notes.append(f"a picture of {file.name} could not be read")
        else:
            run.samples.append(Sample(label, answers, str(item.get("file", "")), jpeg))
    run.samples_about = {n: value for n, value in content.items() if _count(value) >= 0}


def _finite(pairs: List[Tuple[int, float]]) -> Tuple[np.ndarray, np.ndarray]:
    # n pairs -> [n, 2] -> two arrays of [n]; also if there are no pairs.
    steps, values = np.array(pairs, float).reshape(-1, 2).T
    return steps[np.isfinite(values)], values[np.isfinite(values)]


def _number(value: Any) -> float:
    """Return a JSON value as a finite number, or NaN."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return math.nan
    try:
        result = float(value)
    except OverflowError:
        return math.nan
    return result if math.isfinite(result) else math.nan


def _count(value: Any) -> int:
    """Return a JSON value as a count, or -1 if it is none."""
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    return value if is_integer and 0 <= value < 1 << 53 else -1
