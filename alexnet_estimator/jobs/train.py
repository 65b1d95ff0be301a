"""Training: steps until the next evaluation, evaluation, and on until the end."""

import os
import time
from typing import List, Optional, Tuple

from alexnet_estimator import checkpoints, inputs
from alexnet_estimator.errors import DataError
from alexnet_estimator.hooks.guard import FiniteGuard
from alexnet_estimator.hooks.metrics_log import MetricsLog
from alexnet_estimator.hooks.progress import ProgressHook, ProgressPlan, StepClock
from alexnet_estimator.hooks.saving import SaveHook
from alexnet_estimator.hooks.step_tensors import StepTensors
from alexnet_estimator.jobs import cards, pictures
from alexnet_estimator.jobs.evaluate import Evaluation, evaluate, read_evaluations
from alexnet_estimator.jobs.run import Run, explain_data_errors, record_run
from alexnet_estimator.model_fn import Training, build_model_fn
from alexnet_estimator.optim import schedules
from alexnet_estimator.optim.loss_scale import resolve_loss_scale


def train(run: Run) -> Evaluation:
    """Train up to ``run.total_steps``, evaluating on the way and at the end.

    Resumes from the newest valid checkpoint of ``run.model_dir``; a run that is already
    finished is only evaluated.

    Returns:
        The last evaluation, see ``evaluate``.
    """
    start_secs = time.monotonic()
    if run.runtime.is_chief:
        os.makedirs(run.model_dir, exist_ok=True)
        record_run(run)
    restored = agree_on_start(run)
    log = MetricsLog(run.model_dir, run.runtime.is_chief)
    if run.runtime.is_chief:
        print(cards.start_card(run, restored), flush=True)
    log.write("start", restored or 0, num_ranks=run.runtime.num_ranks)
    result = _train_and_evaluate(run, restored or 0, log)
    log.write(
        "end", result["global_step"], seconds=round(time.monotonic() - start_secs, 1)
    )
    log.close()
    if run.runtime.is_chief:
        print(cards.end_card(run, result, time.monotonic() - start_secs), flush=True)
    return result


def agree_on_start(run: Run) -> Optional[int]:
    """Return the global step that all ranks start from; None: from scratch."""
    step = -1
    if run.runtime.is_chief:
        newest = checkpoints.newest_valid(run.model_dir)
        step = -1 if newest is None else checkpoints.step_of(newest) or 0
    chief_step = int(
        run.runtime.sum_over_ranks([step if run.runtime.is_chief else 0])[0]
    )
    return None if chief_step < 0 else chief_step


def _train_and_evaluate(run: Run, step: int, log: MetricsLog) -> Evaluation:
    """Alternate training and evaluation until the last step or the target."""
    history = _read_history(run)
    while step < run.total_steps:
        target = _next_evaluation(run, step)
        _train_steps(run, step, target, log, history)
        step = target
        result = _evaluate_and_log(run, log)
        history.append((step / run.steps_per_epoch, result["top_1_accuracy"]))
        if 0 < run.config.train.target_accuracy <= result["top_1_accuracy"]:
            return result
    if not history or history[-1][0] * run.steps_per_epoch != step:
        return _evaluate_and_log(run, log)
    return result


def _next_evaluation(run: Run, step: int) -> int:
    """Return the global step at which to stop and evaluate."""
    every_epochs = run.config.train.eval_every_epochs
    if every_epochs == 0:
        return run.total_steps
    every_steps = max(1, round(every_epochs * run.steps_per_epoch))
    return min(run.total_steps, (step // every_steps + 1) * every_steps)


def _train_steps(
    run: Run,
    step: int,
    target: int,
    log: MetricsLog,
    history: List[Tuple[float, float]],
) -> None:
    training = Training(
        plan=run.learning_rate_plan,
        plateau_factor=_agreed_plateau_factor(run, history),
        make_hooks=lambda tensors: _make_hooks(run, tensors, log),
    )
    model_fn = build_model_fn(
        run.config, run.dataset.num_classes, run.runtime, training
    )
    estimator = run.runtime.make_estimator(model_fn, run.model_dir, run.config)
    with explain_data_errors(run):
        estimator.train(
            lambda: inputs.train_batches(
                run.dataset, run.config.data, run.reader, step
            ),
            max_steps=target,
        )
    reached = checkpoints.latest(run.model_dir)
    if run.runtime.is_chief and (
        reached is None or checkpoints.step_of(reached) < step
    ):
        raise DataError(f"training ended before step {target} without a checkpoint")


def _make_hooks(run: Run, tensors: StepTensors, log: MetricsLog) -> list:
    """Return the hooks of a training session; the guard stands before the saver."""
    train, precision = run.config.train, run.config.precision
    clock = StepClock()
    plan = ProgressPlan(
        run.total_steps,
        run.steps_per_epoch,
        run.global_batch_size,
        train.log_every_steps,
    )
    is_chief = run.runtime.is_chief
    return [
        FiniteGuard(
            tensors,
            resolve_loss_scale(precision) != "none",
            precision.max_skipped_steps,
        ),
        ProgressHook(tensors, log, clock, plan, is_chief),
        SaveHook(run.model_dir, train, clock, is_chief),
    ]


def _evaluate_and_log(run: Run, log: MetricsLog) -> Evaluation:
    start_secs = time.monotonic()
    result = evaluate(run)
    step = result["global_step"]
    log.write(
        "evaluation",
        step,
        epoch=round(step / run.steps_per_epoch, 3),
        loss=result["loss"],
        top_1_accuracy=result["top_1_accuracy"],
        top_5_accuracy=result["top_5_accuracy"],
        num_images=result["num_images"],
        seconds=round(time.monotonic() - start_secs, 2),
    )
    if run.runtime.is_chief:
        checkpoints.note_best(run.model_dir, step, result["top_1_accuracy"])
        kernels = pictures.draw_conv1_kernels(checkpoints.latest(run.model_dir))
        log.write_image("conv1_kernels", step, kernels)
        print(
            f"step {step}/{run.total_steps}  evaluated {result['num_images']} images: "
            f"accuracy {result['top_1_accuracy']:.4f}  loss {result['loss']:.4f}",
            flush=True,
        )
    return result


def _read_history(run: Run) -> List[Tuple[float, float]]:
    """Return (epoch, accuracy) of the evaluations before this start."""
    return [
        (result["global_step"] / run.steps_per_epoch, result["top_1_accuracy"])
        for result in read_evaluations(run.model_dir)
    ]


def _agreed_plateau_factor(run: Run, history: List[Tuple[float, float]]) -> float:
    """Return rank 0's factor: other servers may not see its evaluations."""
    factor = schedules.plateau_factor(history, run.config.optim)
    return run.runtime.sum_over_ranks([factor if run.runtime.is_chief else 0.0])[0]
