"""The evaluation job, which counts every image once on any number of ranks."""

import contextlib
import os
import pathlib
import tempfile
from typing import Any, Dict, Iterator, List, Optional, Sequence

import numpy as np

from alexnet_estimator import checkpoints, inputs, report
from alexnet_estimator.checkpoints import restore
from alexnet_estimator.checkpoints.best import best_of
from alexnet_estimator.checkpoints.names import prefix_for_tensorflow, step_of
from alexnet_estimator.config import Config
from alexnet_estimator.console import note, warn
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.errors import DataError
from alexnet_estimator.files import encode_json, read_json, write_bytes
from alexnet_estimator.hooks.answers import (
    NUM_CLASSES_SHOWN,
    Answer,
    AnswersHook,
    choose_shown,
    decode,
)
from alexnet_estimator.hooks.heartbeat import Heartbeat, HeartbeatHook
from alexnet_estimator.jobs.session import Run, check_fit, explaining_data_errors
from alexnet_estimator.model_fn import build_model_fn
from alexnet_estimator.records import manifest
from alexnet_estimator.runtime.base import Runtime

Evaluation = Dict[str, Any]


def evaluate(run: Run, checkpoint: Optional[str] = None) -> Evaluation:
    """Evaluate a checkpoint and write ``eval/<step>.json``.

    The evaluation of a checkpoint outside of ``run.model_dir`` is not written.

    Args:
        run: Opened run.
        checkpoint: Path prefix of the checkpoint; None for the one that counts, see
            ``find_checkpoint``.

    Returns:
        A mapping with ``global_step``, ``num_images``, ``loss``, ``top_1_accuracy``,
        ``top_5_accuracy`` and the counts by class, see ``report.encode_answers``.  With
        few classes, these are a ``confusion_matrix``, whose rows are the true classes.

    Raises:
        ConfigError: The model or the classes differ from those of the run.
        DataError: There is no valid checkpoint, or no image to evaluate.
    """
    check_fit(run, is_training=False)
    if run.runtime.is_chief:
        checkpoint = find_checkpoint(run.model_dir, run.config, checkpoint)
    heartbeat = HeartbeatHook(Heartbeat(run.runtime.heartbeat), "evaluate")
    with manifest.keep_unchanged(run.dataset):
        result = summarise(evaluate_sums(run, checkpoint, [heartbeat]), run)
    if run.runtime.is_chief:
        try:
            if _is_within(run.model_dir, checkpoint):
                write_evaluation(run.model_dir, result)
            else:
                warn(f"the result is not saved: {checkpoint} is not of {run.model_dir}")
        except OSError as error:  # The result is still printed.
            warn(f"the result is not saved: {error.filename}: {error.strerror}")
    return result


def _is_within(folder: str, path: Optional[str]) -> bool:
    places = [os.path.realpath(place) for place in (folder, path or folder)]
    return os.path.commonpath(places) == places[0]


def find_checkpoint(
    model_dir: str, config: Config, wanted: Optional[str] = None
) -> str:
    """Return the wanted checkpoint, or the one that counts; no file is changed.

    The newest valid checkpoint counts.  A run with ``train.patience_epochs`` continues
    after its best evaluation on purpose, so its most accurate checkpoint counts.

    Raises:
        DataError: There is no valid checkpoint.
    """
    candidates = [wanted] if wanted else checkpoints.list_checkpoints(model_dir)[::-1]
    best = None if wanted else _find_best(model_dir, config)
    if best and best != candidates[0]:
        note(f"using {best}, the most accurate checkpoint")
        candidates.insert(0, best)
    advice = "write FOLDER/model.ckpt-STEP" if wanted else "train first"
    return restore.first_valid(candidates, model_dir, advice)


def _find_best(model_dir: str, config: Config) -> Optional[str]:
    """Return the most accurate checkpoint of a run in which it counts."""
    return best_of(model_dir) if config.train.patience_epochs else None


def evaluate_sums(
    run: Run,
    checkpoint: Optional[str],
    hooks: Sequence[tf.train.SessionRunHook] = (),
    num_steps: Optional[int] = None,
) -> Dict[str, Any]:
    """Evaluate a checkpoint and return the sums over all images of all ranks.

    Args:
        run: Opened run.
        checkpoint: Path prefix of the checkpoint; None for new weights, or on a rank
            without a checkpoint, for the weights that rank 0 sends.
        hooks: Hooks of the evaluation session.
        num_steps: Number of steps, in which the images are repeated; None to evaluate
            every image once.

    Returns:
        The sums of ``model_fn.batch_sums``, ``global_step``, ``answers``, int64 [n, 3]:
        true class, predicted class and number of images, and ``shown``, a list of
        answers of all ranks, see ``hooks.answers.choose_shown``.

    Raises:
        DataError: There is no image to evaluate.
    """
    require_held_out(run)
    split = run.dataset.splits["validation"]
    data, reader = run.config.data, evaluation_reader(run)
    model_fn = build_model_fn(
        run.config, run.dataset.num_classes, run.runtime, checkpoint=checkpoint
    )

    def input_fn() -> tf.data.Dataset:
        batches = inputs.eval_batches(run.dataset, data, reader)
        return batches.repeat() if num_steps else batches

    counting = AnswersHook(run.runtime.rank)
    with contextlib.ExitStack() as stack:
        stack.enter_context(restore.noticing_deletion(checkpoint))
        stack.enter_context(explaining_data_errors(run))
        folder = stack.enter_context(_events_folder())
        estimator = run.runtime.make_estimator(model_fn, folder, run.config)
        sums = estimator.evaluate(
            input_fn,
            steps=num_steps or inputs.num_eval_steps(split.num_images, reader),
            checkpoint_path=checkpoint and prefix_for_tensorflow(checkpoint),
            hooks=[*hooks, counting],
        )
    answers = _gather_rows(counting.rows, 3, run.runtime).astype(np.int64)
    return {**sums, "answers": answers, "shown": _gather_shown(counting.shown, run)}


def require_held_out(run: Run) -> None:
    """Check that there are images to evaluate.

    Raises:
        DataError: There are none.
    """
    if run.dataset.splits["validation"].num_images == 0:
        raise DataError(
            "no picture is held out for the evaluation: raise convert.eval_fraction "
            f"(now {run.config.convert.eval_fraction:g}), set convert.eval_images to 1 "
            "or more, or add pictures",
            run.dataset.directory,
        )


def _gather_shown(shown: List[Answer], run: Run) -> List[Answer]:
    """Choose from the answers of all ranks."""
    own = np.array([answer.encode() for answer in shown])
    num_columns = 3 + 2 * min(NUM_CLASSES_SHOWN, run.dataset.num_classes)
    rows = _gather_rows(own, num_columns, run.runtime)
    return choose_shown([decode(row) for row in rows])


def _gather_rows(rows: np.ndarray, num_columns: int, runtime: Runtime) -> np.ndarray:
    """Gather the rows of all ranks: [rows of this rank, columns] to [rows, columns].

    The result is float64, which is exact for counts and for float32 probabilities.
    """
    counts = runtime.gather([len(rows)]).ravel().astype(int)
    # Gathering requires equal sizes, so that shorter arrays are padded.
    padded = np.zeros([counts.max(), num_columns])
    padded[: len(rows)] = rows.reshape([-1, num_columns])
    # [longest, columns] -> [longest * columns]; [ranks, longest * columns] -> 3 axes
    shape = [len(counts), -1, num_columns]
    gathered = runtime.gather(padded.ravel()).reshape(shape)
    return np.concatenate([part[:count] for part, count in zip(gathered, counts)])


@contextlib.contextmanager
def _events_folder() -> Iterator[str]:
    """Yield a folder for the events that Estimator writes of an evaluation.

    In the folder of the run they would repeat those of ``MetricsLog`` in TensorBoard.
    """
    with tempfile.TemporaryDirectory(prefix="alexnet-evaluate-") as folder:
        yield folder
        # TensorFlow keeps a writer, which is a thread and an open file, per folder.
        tf.summary.FileWriterCache.clear()


def evaluation_reader(run: Run) -> inputs.Reader:
    """Return the reader of this rank's shard, with the batch size of evaluation."""
    batch_size = inputs.eval_batch_size(run.config.data, run.reader.batch_size)
    return run.reader._replace(batch_size=batch_size)


def summarise(sums: Dict[str, Any], run: Run) -> Evaluation:
    """Convert the sums over all images to means.

    Raises:
        DataError: Not every image was counted once.
    """
    num_images = int(sums["num_images"])
    expected = run.dataset.splits["validation"].num_images
    if num_images != expected:
        raise DataError(
            f"{num_images} images were evaluated, but dataset.json counts {expected}: "
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
        **report.encode_answers(answers),
    }


def path_of_evaluation(model_dir: str, step: int) -> str:
    """Return the path of the evaluation of a step."""
    return os.path.join(model_dir, "eval", f"{step}.json")


def write_evaluation(model_dir: str, result: Evaluation) -> str:
    """Write ``eval/<step>.json`` atomically, and return its path."""
    path = path_of_evaluation(model_dir, result["global_step"])
    os.makedirs(os.path.dirname(path), exist_ok=True)
    write_bytes(path, encode_json(result))
    return path


def read_evaluations(model_dir: str) -> List[Evaluation]:
    """Return all evaluations of a run, ordered by step.

    Raises:
        DataError: The file of an evaluation is damaged.
    """
    results = []
    for file in pathlib.Path(model_dir, "eval").glob("*.json"):
        try:
            result = read_json(str(file))
            result["global_step"] = int(result["global_step"])
            result["top_1_accuracy"] = float(result["top_1_accuracy"])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"damaged ({error!r}): delete it", str(file)) from error
        results.append(result)
    return sorted(results, key=lambda result: result["global_step"])


def find_evaluation(model_dir: str, step: Optional[int]) -> Optional[Evaluation]:
    """Return the evaluation of a step of a run; None if there is none.

    Raises:
        DataError: The file of an evaluation is damaged.
    """
    found = (r for r in read_evaluations(model_dir) if r["global_step"] == step)
    return next(found, None)


def choose_result(run: Run, last: Evaluation) -> Evaluation:
    """Return the evaluation of the checkpoint that counts, see ``find_checkpoint``.

    Args:
        run: Trained run.
        last: Evaluation of its last step.
    """
    best = _find_best(run.model_dir, run.config)
    # The checkpoint of the last step has just been verified.
    if best is None or step_of(best) == last["global_step"]:
        return last
    problem = restore.find_problem(best)
    if problem:
        warn(f"the most accurate checkpoint does not count: {best}: {problem}")
        return last
    return find_evaluation(run.model_dir, step_of(best)) or last


def majority_share(run: Run) -> float:
    """Return the accuracy of always predicting the most frequent class."""
    split = run.dataset.splits["validation"]
    return max(split.class_counts) / split.num_images
