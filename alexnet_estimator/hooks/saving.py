"""The hook that saves checkpoints after steps, after seconds and at the end."""

import time
from typing import Any, Optional

from alexnet_estimator.checkpoints import store
from alexnet_estimator.config import Config
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.hooks.progress import StepClock


class SaveHook(tf.train.SessionRunHook):
    """Saves checkpoints on rank 0.

    Every rank creates this hook, because its saver adds operations to the graph, and
    the graphs of all ranks must be equal.
    """

    def __init__(self, model_dir: str, train: Config, clock: StepClock, is_chief: bool):
        """Save a training session.

        Args:
            model_dir: Folder of the run.
            train: Section ``train`` of the configuration.
            clock: Clock of the steps, which excludes the time of saving.
            is_chief: Whether this is rank 0; the other ranks never save.
        """
        self._model_dir, self._train = model_dir, train
        self._clock, self._is_chief = clock, is_chief
        self._last_saved: Optional[int] = None
        self._last_time = time.monotonic()

    def begin(self) -> None:
        """Add the saver to the graph, which keeps all checkpoints.

        ``store.delete_old`` deletes old ones: unlike a saver, it keeps the best.
        """
        self._saver = tf.train.Saver(max_to_keep=None)
        self._step = tf.train.get_or_create_global_step()

    def after_create_session(self, session: tf.Session, coord: Any) -> None:
        """Record the restored step, which does not have to be saved again."""
        start = self._read_step(session)
        self._last_saved = start if start > 0 else None
        self._last_time = time.monotonic()

    def before_run(self, run_context: Any) -> tf.train.SessionRunArgs:
        """Request the step."""
        return tf.train.SessionRunArgs(self._step)

    def after_run(self, run_context: Any, run_values: Any) -> None:
        """Save a checkpoint if it is due."""
        session = run_context.session
        if self._is_chief and self._is_due(session, int(run_values.results)):
            self._save(session, self._read_step(session))

    def end(self, session: tf.Session) -> None:
        """Save the last step."""
        if self._is_chief:
            self._save(session, self._read_step(session))

    def _read_step(self, session: tf.Session) -> int:
        return int(session.run(self._step))

    def _is_due(self, session: tf.Session, seen_step: int) -> bool:
        every_secs = self._train.save_every_secs
        if every_secs and time.monotonic() - self._last_time >= every_secs:
            return True
        next_step = (self._last_saved or 0) + self._train.save_every_steps
        # The fetched step may be that before the update.  Reading it again takes a call
        # of session.run, so this is done only if a checkpoint may be due.
        if not self._train.save_every_steps or seen_step + 1 < next_step:
            return False
        return self._read_step(session) >= next_step

    def _save(self, session: tf.Session, step: int) -> None:
        if step == self._last_saved:
            return
        start = time.monotonic()
        store.save(session, self._saver, self._model_dir, step)
        store.delete_old(self._model_dir, self._train.keep_checkpoints)
        self._last_saved, self._last_time = step, time.monotonic()
        self._clock.exclude(self._last_time - start)
