"""Progress for people (a bar or plain lines) and records for programs."""

import time
from typing import Any, NamedTuple, Optional

from tqdm import tqdm

from alexnet_estimator.console import has_bars, say
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.hooks.metrics_log import MetricsLog
from alexnet_estimator.hooks.step_tensors import StepTensors


class StepClock:
    """Wall time of training steps alone: pauses for saving are taken out."""

    def __init__(self) -> None:
        self._start: Optional[float] = None
        self._paused_secs = 0.0

    def restart(self) -> None:
        """Begin a new window."""
        self._start, self._paused_secs = time.monotonic(), 0.0

    def exclude(self, secs: float) -> None:
        """Take a pause out of this window."""
        self._paused_secs += secs

    def elapsed_secs(self) -> Optional[float]:
        """Return the window's seconds without pauses; None before the first window."""
        if self._start is None:
            return None
        return time.monotonic() - self._start - self._paused_secs


class ProgressPlan(NamedTuple):
    """The numbers that progress is measured against."""

    total_steps: int
    steps_per_epoch: int
    global_batch_size: int
    log_every_steps: int


class ProgressHook(tf.train.SessionRunHook):
    """Shows and records loss, learning rate and images/s every few steps.

    Images/s is images over wall seconds in a window that begins after the first step
    (which compiles and fills buffers) and leaves out pauses for saving; evaluation is
    outside of any window.
    """

    def __init__(
        self,
        tensors: StepTensors,
        log: MetricsLog,
        clock: StepClock,
        schedule: ProgressPlan,
        is_chief: bool,
    ):
        """Watch a training graph.

        Args:
            tensors: of the training step.
            log: where records go.
            clock: shared with the hooks that pause training.
            schedule: how often, of how many.
            is_chief: other ranks show nothing.
        """
        self._tensors, self._log, self._clock = tensors, log, clock
        self._plan, self._is_chief = schedule, is_chief
        self._window_start_step = self._last_logged_step = 0
        self._bar: Optional[tqdm] = None

    def begin(self) -> None:
        """Open the bar on a terminal."""
        if self._is_chief and has_bars():
            self._bar = tqdm(total=self._plan.total_steps, unit="step", leave=False)

    def before_run(self, run_context: Any) -> tf.train.SessionRunArgs:
        """Ask for the step's scalars."""
        return tf.train.SessionRunArgs(self._tensors._asdict())

    def after_run(self, run_context: Any, run_values: Any) -> None:
        """Record every ``log_every_steps``."""
        seen = run_values.results
        # The fetch may see the step before or after this update; ask again.
        step = int(run_context.session.run(self._tensors.step))
        elapsed_secs = self._clock.elapsed_secs()
        if elapsed_secs is None:
            self._clock.restart()
            self._window_start_step = step
            self._last_logged_step = step - step % self._plan.log_every_steps
            return
        every = self._plan.log_every_steps
        # Where steps are skipped within a device's loop, a multiple may be passed over.
        is_due = step // every > self._last_logged_step // every
        num_steps = step - self._window_start_step
        if num_steps <= 0 or not (is_due or step == self._plan.total_steps):
            return
        images_per_sec = num_steps * self._plan.global_batch_size / elapsed_secs
        self._report(step, seen, images_per_sec)
        self._clock.restart()
        self._window_start_step = self._last_logged_step = step

    def end(self, session: tf.Session) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()

    def _report(self, step: int, seen: dict, images_per_sec: float) -> None:
        self._log.write(
            "train",
            step,
            epoch=round(step / self._plan.steps_per_epoch, 3),
            loss=float(seen["loss"]),
            learning_rate=float(seen["learning_rate"]),
            gradient_norm=float(seen["gradient_norm"]),
            loss_scale=float(seen["loss_scale"]),
            num_skipped_steps=int(seen["num_skipped"]),
            images_per_sec=round(images_per_sec, 2),
        )
        if not self._is_chief:
            return
        steps_left = self._plan.total_steps - step
        eta_secs = steps_left * self._plan.global_batch_size / images_per_sec
        text = f"loss {seen['loss']:.4f}  {images_per_sec:.1f} images/s"
        if seen["num_skipped"]:
            text += f"  scale {seen['loss_scale']:g}  skipped {seen['num_skipped']}"
        if self._bar is not None:
            self._bar.n = step
            self._bar.set_postfix_str(text)
        else:
            say(
                f"step {step}/{self._plan.total_steps}  "
                f"epoch {step / self._plan.steps_per_epoch:.2f}  {text}  "
                f"lr {seen['learning_rate']:.3g}  {format_secs(eta_secs)} left"
            )


def format_secs(secs: float) -> str:
    """Return a duration as people say it, e.g. ``1h 02m`` or ``3m 20s``."""
    whole = int(round(secs))
    if whole >= 3600:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 60}m {whole % 60:02d}s" if whole >= 60 else f"{whole}s"
