"""Training steps in one session and their hooks, for ``train`` and ``benchmark``."""

from typing import List, Optional

from alexnet_estimator import inputs
from alexnet_estimator.checkpoints.names import for_tensorflow
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.hooks.guard import FiniteGuard
from alexnet_estimator.hooks.heartbeat import Heartbeat, HeartbeatHook
from alexnet_estimator.hooks.metrics_log import MetricsLog
from alexnet_estimator.hooks.progress import ProgressHook, StepClock, TrainingAmounts
from alexnet_estimator.hooks.step_tensors import StepTensors
from alexnet_estimator.hooks.stopping import AgreedStop, StopRequest
from alexnet_estimator.jobs.session import Run, explaining_data_errors
from alexnet_estimator.model_fn import Training, build_model_fn
from alexnet_estimator.optim.loss_scale import resolve_loss_scale


def run_steps(
    run: Run, training: Training, first_batch: int, last_step: Optional[int]
) -> None:
    """Take training steps in one session.

    Args:
        run: Opened run.
        training: Arguments of mode TRAIN, see ``build_model_fn``.
        first_batch: Number of batches that this rank has read before.
        last_step: Last global step; None to train until a hook ends the session.
    """
    model_fn = build_model_fn(
        run.config, run.dataset.num_classes, run.runtime, training
    )
    estimator = run.runtime.make_estimator(
        model_fn, for_tensorflow(run.model_dir), run.config
    )
    data, reader = run.config.data, run.reader
    with explaining_data_errors(run):
        estimator.train(
            lambda: inputs.train_batches(run.dataset, data, reader, first_batch),
            max_steps=last_step,
        )


def watching_hooks(
    run: Run, tensors: StepTensors, log: MetricsLog, clock: StepClock, is_shown: bool
) -> List[tf.train.SessionRunHook]:
    """Return the hooks that check and show the scalars of every training step.

    Args:
        run: Opened run.
        tensors: Scalars of the training step.
        log: Log of the run.
        clock: Clock that is shared with the hooks that pause training.
        is_shown: Whether the progress is shown.
    """
    precision = run.config.precision
    amounts = TrainingAmounts(
        run.total_steps,
        run.steps_per_epoch,
        run.global_batch_size,
        run.config.train.log_every_steps,
    )
    skips_overflow = resolve_loss_scale(precision) != "none"
    max_skipped = max(1, precision.max_skipped_steps // run.loop.num_steps)
    return [
        FiniteGuard(tensors, skips_overflow, max_skipped, run.model_dir),
        ProgressHook(tensors, log, clock, amounts, is_shown),
    ]


def group_hooks(
    run: Run, heartbeat: Heartbeat, request: StopRequest, phase: str
) -> List[tf.train.SessionRunHook]:
    """Return the hooks of training and evaluation for heartbeats and for stopping."""
    return [
        HeartbeatHook(heartbeat, phase),
        AgreedStop(request, run.runtime.gather, run.loop.calls_between_agreements),
    ]
