"""The decision whether a crashed or hung group of ranks is restarted."""

import json
import os
import time

from alexnet_estimator import checkpoints
from alexnet_estimator.console import tell
from alexnet_estimator.locks import append_bytes

FIRST_PAUSE_SECS = 1.0
LONGEST_PAUSE_SECS = 60.0


class Restarts:
    """Counts the restarts of one job.

    A restart is in vain if the job crashes again before it saves a checkpoint of a
    higher step.  At most ``max_restarts`` in a row may be in vain.  The next useful
    restart resets the count, so that a job that advances is restarted as often as
    necessary.  The pause before a restart doubles while restarts are in vain.

    Args:
        model_dir: Folder of the run with the checkpoints and ``metrics.jsonl``.
        max_restarts: Largest number of restarts in a row without a new checkpoint.
    """

    def __init__(self, model_dir: str, max_restarts: int):
        self._model_dir, self._max_restarts = model_dir, max_restarts
        self._step = newest_step(model_dir)
        self._num_restarts = self._num_in_vain = 0

    def grant(self, crash: str) -> bool:
        """Return whether to restart the group, after the pause.

        Args:
            crash: Description of the crash or hang.
        """
        step = newest_step(self._model_dir)
        if step > self._step:
            self._step, self._num_in_vain = step, 0
        if self._num_in_vain >= self._max_restarts:
            if self._num_restarts:
                tell(
                    f"not restarted: {self._num_in_vain} restarts in a row brought no "
                    "new checkpoint"
                )
            return False
        pause_secs = min(FIRST_PAUSE_SECS * 2**self._num_in_vain, LONGEST_PAUSE_SECS)
        self._num_restarts += 1
        self._num_in_vain += 1
        tell(
            f"restart {self._num_restarts} from step {step} in {pause_secs:g} s "
            f"({self._num_in_vain} of at most {self._max_restarts} in a row without "
            "a new checkpoint)"
        )
        self._record(step, crash)
        time.sleep(pause_secs)
        return True

    def _record(self, step: int, crash: str) -> None:
        record = {
            "event": "restart",
            "step": step,
            "time_secs": round(time.time(), 3),
            "num_restarts": self._num_restarts,
            "reason": crash,
        }
        path = os.path.join(self._model_dir, "metrics.jsonl")
        try:
            append_bytes(path, json.dumps(record).encode() + b"\n")
        except OSError as error:  # Training can continue without this line.
            tell(f"{path} cannot be written: {error.strerror}")


def newest_step(model_dir: str) -> int:
    """Return the highest step in the names of checkpoints; 0 without checkpoints."""
    newest = checkpoints.latest(model_dir)
    return (newest and checkpoints.step_of(newest)) or 0
