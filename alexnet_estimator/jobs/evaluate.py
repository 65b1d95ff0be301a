"""Evaluation: every image once, on any number of ranks, one result."""

import contextlib
import json
import os
import pathlib
import tempfile
from typing import Any, Dict, Iterator, List, Optional, Sequence

import numpy as np

from alexnet_estimator import checkpoints, inputs, report
from alexnet_estimator.checkpoints import restore
from alexnet_estimator.checkpoints.names import for_tensorflow, prefix_for_tensorflow
from alexnet_estimator.console import warn
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.errors import DataError
from alexnet_estimator.files import encode_json, write_bytes
from alexnet_estimator.hooks.answers import AnswersHook
from alexnet_estimator.hooks.heartbeat import Heartbeat, HeartbeatHook
from alexnet_estimator.jobs.session import Run, check_fit, explaining_data_errors
from alexnet_estimator.model_fn import build_model_fn
from alexnet_estimator.runtime.base import Runtime

Evaluation = Dict[str, Any]


def evaluate(run: Run, checkpoint: Optional[str] = None) -> Evaluation:
    """Evaluate a checkpoint and write ``eval/<step>.json``.

    Args:
        run: an opened run.
        checkpoint: path prefix; None: the newest valid one in ``model_dir``.

    Returns:
        ``global_step, num_images, loss, top_1_accuracy, top_5_accuracy`` and counts by
        class, see ``report.encode``: a whole ``confusion_matrix`` (rows are true
        classes) where there are few.

    Raises:
        ConfigError: the model or the classes are not those of the run.
        DataError: there is no checkpoint or no image to evaluate.
    """
    check_fit(run, is_training=False)
    if run.runtime.is_chief:
        checkpoint = find_checkpoint(run.model_dir, checkpoint)
    heartbeat = HeartbeatHook(Heartbeat(run.runtime.heartbeat), "evaluate")
    result = summarise(evaluate_sums(run, checkpoint, [heartbeat]), run)
    if run.runtime.is_chief:
        try:
            write_evaluation(run.model_dir, result)
        except OSError as error:  # The result is worth more than its file.
            warn(f"the result is not kept: {error.strerror}: {error.filename}")
    return result


def find_checkpoint(model_dir: str, wanted: Optional[str] = None) -> str:
    """Return the wanted checkpoint, or else the newest valid one; change nothing.

    Raises:
        DataError: there is none.
    """
    candidates = [wanted] if wanted else checkpoints.list_checkpoints(model_dir)[::-1]
    advice = "write FOLDER/model.ckpt-STEP" if wanted else "train first"
    return restore.first_valid(candidates, model_dir, advice)


def evaluate_sums(
    run: Run,
    checkpoint: Optional[str],
    hooks: Sequence[tf.train.SessionRunHook] = (),
    num_steps: Optional[int] = None,
) -> Dict[str, Any]:
    """Return the sums over all images of all ranks, see ``model_fn``.

    ``answers`` among them is int64 [n, 3]: true class, class of the answer, number of
    images.

    Args:
        run: an opened run.
        checkpoint: path prefix; None: the newest, or on a rank that has none in
            reach, the weights that rank 0 sends.
        hooks: of the evaluation session.
        num_steps: over the images again and again; None: every image once.

    Raises:
        DataError: there is no image to evaluate.
    """
    split = run.dataset.splits["validation"]
    if split.num_images == 0:
        raise DataError("the split validation has no images", run.dataset.directory)
    data, reader = run.config.data, evaluation_reader(run)
    model_fn = build_model_fn(
        run.config, run.dataset.num_classes, run.runtime, checkpoint=checkpoint
    )

    def input_fn() -> tf.data.Dataset:
        batches = inputs.eval_batches(run.dataset, data, reader)
        return batches.repeat() if num_steps else batches

    counting = AnswersHook()
    with explaining_data_errors(run), _events_folder(run, checkpoint) as folder:
        estimator = run.runtime.make_estimator(model_fn, folder, run.config)
        sums = estimator.evaluate(
            input_fn,
            steps=num_steps or inputs.num_eval_steps(split.num_images, reader),
            checkpoint_path=checkpoint and prefix_for_tensorflow(checkpoint),
            hooks=[*hooks, counting],
        )
    return {**sums, "answers": _gather_rows(counting.rows, run.runtime)}


def _gather_rows(rows: np.ndarray, runtime: Runtime) -> np.ndarray:
    """Return the rows of all ranks, int64 [n, 3]."""
    # Every rank must give as many numbers: short ones add rows of 0 images.
    longest = int(runtime.gather([len(rows)]).max())
    padded = np.zeros([longest, 3])
    padded[: len(rows)] = rows
    return runtime.gather(padded.ravel()).reshape(-1, 3).astype(np.int64)


@contextlib.contextmanager
def _events_folder(run: Run, checkpoint: Optional[str]) -> Iterator[str]:
    """Yield the folder that Estimator looks into and writes events of its own to."""
    if checkpoint is None or os.access(run.model_dir, os.W_OK):
        yield for_tensorflow(run.model_dir)
    else:  # A run on a disk that takes no events can be evaluated all the same.
        with tempfile.TemporaryDirectory(prefix="alexnet-evaluate-") as folder:
            yield folder


def evaluation_reader(run: Run) -> inputs.Reader:
    """Return this rank's part of the data, in batches that evaluation holds at once."""
    batch_size = inputs.eval_batch_size(run.config.data, run.reader.batch_size)
    return run.reader._replace(batch_size=batch_size)


def summarise(sums: Dict[str, Any], run: Run) -> Evaluation:
    """Turn sums over all images into means.

    Raises:
        DataError: not every image was counted once.
    """
    num_images = int(sums["num_images"])
    expected = run.dataset.splits["validation"].num_images
    if num_images != expected:
        raise DataError(
            f"evaluated {num_images} images, but dataset.json counts {expected}: "
            "run `python -m alexnet_estimator verify` on the data",
            run.dataset.directory,
        )
    answers = report.count_answers(sums["answers"], run.dataset.class_names)
    return {
        "global_step": int(sums["global_step"]),
        "num_images": num_images,
        "loss": float(sums["loss_sum"]) / num_images,
        "top_1_accuracy": float(answers.num_right.sum()) / num_images,
        "top_5_accuracy": float(sums["num_top_5"]) / num_images,
        **report.encode(answers),
    }


def path_of_evaluation(model_dir: str, step: int) -> str:
    """Return the path of the result of evaluating a step."""
    return os.path.join(model_dir, "eval", f"{step}.json")


def write_evaluation(model_dir: str, result: Evaluation) -> str:
    """Write ``eval/<step>.json`` atomically; return its path."""
    path = path_of_evaluation(model_dir, result["global_step"])
    os.makedirs(os.path.dirname(path), exist_ok=True)
    write_bytes(path, encode_json(result))
    return path


def read_evaluations(model_dir: str) -> List[Evaluation]:
    """Return all evaluations of a run, by step."""
    files = pathlib.Path(model_dir, "eval").glob("*.json")
    return sorted(map(_read_evaluation, files), key=lambda r: r["global_step"])


def _read_evaluation(file: pathlib.Path) -> Evaluation:
    """Read what ``write_evaluation`` wrote.

    Raises:
        DataError: it is damaged.
    """
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
        result["global_step"] = int(result["global_step"])
        result["top_1_accuracy"] = float(result["top_1_accuracy"])
        return result
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"damaged ({error!r}): delete it", str(file)) from error


def majority_share(run: Run) -> float:
    """Return the accuracy of always answering the most frequent class."""
    split = run.dataset.splits["validation"]
    return max(split.class_counts) / split.num_images
