"""What a benchmark is asked to measure, and whether that is possible."""

import contextlib
import os
from typing import List, NamedTuple, Sequence

from alexnet_estimator import locks
from alexnet_estimator.console import STDOUT, STDOUT_NAME
from alexnet_estimator.errors import ConfigError

MODES = ("train", "evaluate", "input")
NUM_WARMUP_STEPS = 5
NUM_STEPS = 20


class BenchmarkRequest(NamedTuple):
    """What is to be measured.

    Attributes:
        modes: Some of ``MODES``; none: all.
        num_steps: Number of measured steps; rounded up to whole loops of a device.
        num_warmup_steps: Number of steps before them; rounded up as well.
        output: File to append lines of JSON to; ``-``: print these alone; or empty.
        has_profile: Whether timelines go into ``profile/`` beside the output.
    """

    modes: Sequence[str] = MODES
    num_steps: int = NUM_STEPS
    num_warmup_steps: int = NUM_WARMUP_STEPS
    output: str = ""
    has_profile: bool = False

    @property
    def profile_dir(self) -> str:
        """Folder of the timelines."""
        folder = "" if self.output == STDOUT else os.path.dirname(self.output)
        return os.path.join(os.path.abspath(folder), "profile")


def check_request(request: BenchmarkRequest) -> None:
    """Refuse what cannot be measured or written.

    Raises:
        ConfigError: All problems.
    """
    problems = [
        f"{mode!r} cannot be measured: choose of {', '.join(MODES)}"
        for mode in request.modes
        if mode not in MODES
    ]
    # The first step compiles, and the window begins at the end of a step.
    counts = {
        "train_steps": request.num_steps,
        "warmup_steps": request.num_warmup_steps,
    }
    problems += [
        f"--{flag} is {count}: must be at least 1"
        for flag, count in counts.items()
        if count < 1
    ]
    if request.output not in ("", STDOUT):
        problems += _check_output(request.output)
    if problems:
        raise ConfigError(problems, "benchmark")


def _check_output(path: str) -> List[str]:
    """Append nothing to the file: its permissions alone do not tell that one can."""
    is_new = not os.path.exists(path)
    try:
        locks.append_bytes(path, b"")
    except OSError as error:
        return [
            f"--output is {path}: {error.strerror}: must be a file that lines can be "
            f"appended to, or {STDOUT} for {STDOUT_NAME}"
        ]
    if is_new:
        with contextlib.suppress(FileNotFoundError):  # Another rank was faster.
            os.remove(os.path.realpath(path))
    return []
