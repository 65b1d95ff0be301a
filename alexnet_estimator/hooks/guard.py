"""The hook that ends a diverged run before its weights are saved."""

import math
from typing import Any, Dict

from alexnet_estimator import checkpoints
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.errors import DivergedError
from alexnet_estimator.hooks.step_tensors import StepTensors


class FiniteGuard(tf.train.SessionRunHook):
    """Ends the run if loss or gradient norm is NaN or Inf, or if all steps overflow.

    This hook must come before the saving hook.  TensorFlow's ``NanTensorHook`` ignores
    Inf, and it acts after a checkpoint with NaN weights has been written.
    """

    def __init__(
        self,
        tensors: StepTensors,
        skips_overflow: bool,
        max_skipped: int,
        model_dir: str,
    ):
        """Watch a training graph.

        Args:
            tensors: Scalars of the training step.
            skips_overflow: Whether loss scaling skips steps that overflow.
            max_skipped: Largest number of overflowed steps in a row.
            model_dir: Folder of the run, whose last checkpoint the error names.
        """
        self._tensors = tensors
        self._skips_overflow = skips_overflow
        self._max_skipped, self._model_dir = max_skipped, model_dir
        self._last_step = -1
        self._num_stuck = 0

    def before_run(self, run_context: Any) -> tf.train.SessionRunArgs:
        """Request the scalars of the step."""
        return tf.train.SessionRunArgs(self._tensors._asdict())

    def after_run(self, run_context: Any, run_values: Any) -> None:
        """Raise DivergedError if the run cannot recover."""
        seen = run_values.results
        # With loss scaling, an overflowed step is skipped and lowers the scale.  Only
        # many in a row, during which the global step does not change, are divergence.
        is_finite = math.isfinite(seen["loss"]) and math.isfinite(seen["gradient_norm"])
        if not is_finite and not self._skips_overflow:
            raise self._diverged(
                seen,
                "loss or gradient is not a finite number",
                "lower the learning rate, or use --loss_scale=dynamic",
            )
        is_stuck = seen["step"] == self._last_step
        self._num_stuck = self._num_stuck + 1 if is_stuck else 0
        self._last_step = seen["step"]
        if self._num_stuck > self._max_skipped:
            raise self._diverged(
                seen,
                f"{self._num_stuck} steps in a row overflowed",
                "lower the learning rate",
            )

    def _diverged(self, seen: Dict[str, Any], what: str, advice: str) -> DivergedError:
        return DivergedError(
            f"step {seen['step']}: {what} (loss {seen['loss']:g}, gradient norm "
            f"{seen['gradient_norm']:g}, loss scale {seen['loss_scale']:g}, learning "
            f"rate {seen['learning_rate']:g}); {advice}; "
            + checkpoints.describe_latest(self._model_dir)
        )
