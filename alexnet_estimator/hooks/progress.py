"""The progress of training: a bar or lines on the terminal, and the log."""

import time
from typing import Any, NamedTuple, Optional

from alexnet_estimator.console import has_bars, open_bar, say
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.hooks.metrics_log import MetricsLog
from alexnet_estimator.hooks.step_tensors import StepTensors


class StepClock:
    """Measures the wall time of training steps without the pauses for saving."""

    def __init__(self) -> None:
        self._start: Optional[float] = None
        self._paused_secs = 0.0

    def restart(self) -> None:
        """Begin a new time window."""
        self._start, self._paused_secs = time.monotonic(), 0.0

    def exclude(self, secs: float) -> None:
        """Exclude a pause from the current window."""
        self._paused_secs += secs

    def elapsed_secs(self) -> Optional[float]:
        """Return the seconds of the window without pauses; None before the first."""
        if self._start is None:
            return None
        return time.monotonic() - self._start - self._paused_secs


class TrainingAmounts(NamedTuple):
    """The sizes of a training that progress is computed from.

    Attributes:
        total_steps: Number of global steps of the whole run.
        steps_per_epoch: Number of global steps in an epoch.
        global_batch_size: Number of images in a step of all ranks.
        log_every_steps: Number of global steps between two lines.
    """

    total_steps: int
    steps_per_epoch: int
    global_batch_size: int
    log_every_steps: int


class ProgressHook(tf.train.SessionRunHook):
    """Shows and logs loss, learning rate and images/s every few steps.

    The rate is the number of images of a window over its wall time in seconds.  The
    first window begins after the first step, which compiles the graph and fills
    buffers.  Pauses for saving and evaluation do not count.
    """

    def __init__(
        self,
        tensors: StepTensors,
        log: MetricsLog,
        clock: StepClock,
        amounts: TrainingAmounts,
        is_chief: bool,
    ):
        """Watch a training graph.

        Args:
            tensors: Scalars of the training step.
            log: Log of the run.
            clock: Clock that is shared with the hooks that pause training.
            amounts: Sizes of the training.
            is_chief: Whether this is rank 0; the other ranks show nothing.
        """
        self._tensors, self._log, self._clock = tensors, log, clock
        self._amounts, self._is_chief = amounts, is_chief
        self._window_start_step = self._last_logged_step = 0
        self._bar: Optional[Any] = None

    def before_run(self, run_context: Any) -> tf.train.SessionRunArgs:
        """Request the scalars of the step."""
        return tf.train.SessionRunArgs(self._tensors._asdict())

    def after_run(self, run_context: Any, run_values: Any) -> None:
        """Show and log the step every ``log_every_steps``."""
        step = int(run_values.results["step"])
        elapsed_secs = self._clock.elapsed_secs()
        if elapsed_secs is None:
            self._clock.restart()
            self._window_start_step = step
            self._last_logged_step = step - step % self._amounts.log_every_steps
            if self._is_chief and has_bars():
                # A session after an evaluation continues the bar of the last one.
                self._bar = open_bar("", self._amounts.total_steps, "steps", step)
            return
        every = self._amounts.log_every_steps
        # The step may jump over a multiple of log_every_steps if a device takes several
        # steps in one call, some of which overflow.
        is_due = step // every > self._last_logged_step // every
        num_steps = step - self._window_start_step
        if num_steps <= 0 or not (is_due or step == self._amounts.total_steps):
            return
        images_per_sec = num_steps * self._amounts.global_batch_size / elapsed_secs
        self._report(step, run_values.results, images_per_sec)
        self._clock.restart()
        self._window_start_step = self._last_logged_step = step

    def end(self, session: tf.Session) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()

    def _report(self, step: int, seen: dict, images_per_sec: float) -> None:
        self._log.write(
            "train",
            step,
            epoch=round(step / self._amounts.steps_per_epoch, 3),
            loss=float(seen["loss"]),
            top_1_accuracy=round(float(seen["accuracy"]), 4),
            learning_rate=float(seen["learning_rate"]),
            gradient_norm=float(seen["gradient_norm"]),
            loss_scale=float(seen["loss_scale"]),
            num_skipped_steps=int(seen["num_skipped"]),
            images_per_sec=round(images_per_sec, 2),
        )
        if not self._is_chief:
            return
        steps_left = self._amounts.total_steps - step
        eta_secs = steps_left * self._amounts.global_batch_size / images_per_sec
        text = f"loss {seen['loss']:.4f}  {images_per_sec:.1f} images/s"
        if seen["num_skipped"]:
            text += f"  scale {seen['loss_scale']:g}  skipped {seen['num_skipped']}"
        if self._bar is not None:
            self._bar.n = step
            self._bar.set_postfix_str(text)
        else:
            say(
                f"step {step}/{self._amounts.total_steps}  "
                f"epoch {step / self._amounts.steps_per_epoch:.2f}  {text}  "
                f"lr {seen['learning_rate']:.3g}  {format_secs(eta_secs)} left"
            )


def format_secs(secs: float) -> str:
    """Return a duration in words, e.g. ``1h 02m`` or ``3m 20s``."""
    whole = int(round(secs))
    if whole >= 3600:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 60}m {whole % 60:02d}s" if whole >= 60 else f"{whole}s"
