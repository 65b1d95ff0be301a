"""Whole training jobs in this process, and readers of their files."""

import contextlib
import json
import os
import pathlib
from typing import Any, Dict, Iterator, List, Optional
from unittest import mock

import numpy as np
import tensorflow.compat.v1 as tf

from alexnet_estimator import checkpoints
from alexnet_estimator.config import Config
from alexnet_estimator.jobs import train as train_job
from alexnet_estimator.jobs.evaluate import Evaluation
from alexnet_estimator.jobs.session import Run, open_run
from tests import tiny

# The values that depend on a clock or a folder.
UNSTEADY = ("time_secs", "seconds", "images_per_sec")


def open_job(data_dir: str, model_dir: Any, **changes: Dict[str, Any]) -> Run:
    """Return a job of 20 steps on small pictures, evaluated at its end.

    Args:
        data_dir: Folder of converted data.
        model_dir: Folder of the run.
        **changes: Sections of the configuration with some fields.
    """
    data = {"path": data_dir, "shuffle_images": 64, **changes.pop("data", {})}
    training = {
        "batch_size_per_rank": 8,
        "steps": 20,
        "eval_every_epochs": 0.0,
        "log_every_steps": 1,
        **changes.pop("train", {}),
    }
    config = tiny.config(data=data, train=training, **changes)
    return open_run(config, str(model_dir))


def train_words(config: Config, folder: pathlib.Path) -> List[str]:
    """Write a configuration into a folder; return the command line to train with it."""
    path = folder / "config.json"
    path.write_text(json.dumps({"config": config.to_dict()}))
    return ["train", f"--config={path}"]


def run_job(data_dir: str, model_dir: Any, **changes: Dict[str, Any]) -> Evaluation:
    """Train, see ``open_job``; return the last evaluation."""
    return train(open_job(data_dir, model_dir, **changes))


def train(run: Run) -> Evaluation:
    """Train without the report and the drawings."""
    with without_report():
        return train_job.train(run)


@contextlib.contextmanager
def without_report() -> Iterator[None]:
    """Leave out the report and the drawings, which take longer than a few steps."""
    patch = mock.patch.object
    with patch(train_job, "write_outcome", return_value=None), patch(
        train_job.pictures, "draw_evaluation", return_value={}
    ):
        yield


def metrics(model_dir: Any, event: str = "") -> List[Dict[str, Any]]:
    """Return the records of ``metrics.jsonl``, those of one event or all."""
    text = pathlib.Path(str(model_dir), "metrics.jsonl").read_text(encoding="utf-8")
    assert text.endswith("\n")
    records = [json.loads(line) for line in text.splitlines()]
    return [record for record in records if event in ("", record["event"])]


def steady_metrics(model_dir: Any) -> List[Dict[str, Any]]:
    """Return all records without the values that depend on a clock."""
    return [
        {name: value for name, value in record.items() if name not in UNSTEADY}
        for record in metrics(model_dir)
    ]


def variables(model_dir: Any, step: Optional[int] = None) -> Dict[str, np.ndarray]:
    """Return all variables of a checkpoint, by default of the newest."""
    if step is None:
        prefix = checkpoints.latest(str(model_dir))
    else:
        prefix = checkpoints.path_of(str(model_dir), step)
    assert prefix is not None
    reader = tf.train.load_checkpoint(prefix)
    return {n: reader.get_tensor(n) for n in reader.get_variable_to_shape_map()}


def evaluation(model_dir: Any, step: int) -> Evaluation:
    """Return the content of ``eval/<step>.json``."""
    path = os.path.join(str(model_dir), "eval", f"{step}.json")
    with open(path, encoding="utf-8") as file:
        return json.load(file)
