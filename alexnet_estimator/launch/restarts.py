"""Whether, and when, a group that has crashed or hung is started again."""

import json
import os
import time

from alexnet_estimator import checkpoints
from alexnet_estimator.console import tell
from alexnet_estimator.locks import append_bytes

FIRST_PAUSE_SECS = 1.0
LONGEST_PAUSE_SECS = 60.0


class Restarts:
    """Counts restarts of one job.

    A restart is in vain if, until the next crash, no checkpoint of a higher step than
    all before has been saved.  At most ``max_restarts`` in a row may be in vain; as
    soon as one is not, the count begins anew, so a job that advances is restarted as
    often as needed.  Pauses double while restarts are in vain.

    Args:
        model_dir: has the checkpoints and ``metrics.jsonl``.
        max_restarts: 0 for none at all.
    """

    def __init__(self, model_dir: str, max_restarts: int):
        self._model_dir, self._max_restarts = model_dir, max_restarts
        self._step = newest_step(model_dir)
        self._num_restarts = self._num_in_vain = 0

    def grant(self, crash: str) -> bool:
        """Wait and return True if the group is to be started again.

        Args:
            crash: what has happened, in words.
        """
        step = newest_step(self._model_dir)
        if step > self._step:
            self._step, self._num_in_vain = step, 0
        if self._num_in_vain >= self._max_restarts:
            if self._num_restarts:
                tell(f"not restarted: {self._num_in_vain} in a row were in vain")
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
        except OSError as error:  # No reason to lose the training as well.
            tell(f"{path} cannot be written: {error.strerror}")


def newest_step(model_dir: str) -> int:
    """Return the highest step of a checkpoint, by its name; 0 where there is none."""
    newest = checkpoints.latest(model_dir)
    return (newest and checkpoints.step_of(newest)) or 0
