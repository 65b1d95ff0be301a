"""The request for a benchmark, and its checks."""

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
    """The measurements to make.

    Attributes:
        modes: Modes to measure, of ``MODES``; empty for all.
        num_steps: Number of measured steps, which is rounded up to whole loops.
        num_warmup_steps: Number of steps of the warm-up, also rounded up.
        output: File to which lines of JSON are appended; ``-`` to print these lines
            instead of a table; empty for a table only.
        has_profile: Whether timelines are written to ``profile/`` beside the output.
    """

    modes: Sequence[str] = MODES
    num_steps: int = NUM_STEPS
    num_warmup_steps: int = NUM_WARMUP_STEPS
    output: str = ""
    has_profile: bool = False

    @property
    def profile_dir(self) -> str:
        """Return the folder of the timelines."""
        folder = "" if self.output == STDOUT else os.path.dirname(self.output)
        return os.path.join(os.path.abspath(folder), "profile")


def check_request(request: BenchmarkRequest) -> None:
    """Check a request.

    Raises:
        ConfigError: The request is wrong; the message lists all problems.
    """
    problems = [
        f"{mode!r} cannot be measured: must be one of {', '.join(MODES)}"
        for mode in request.modes
        if mode not in MODES
    ]
    # The warm-up needs a step, because the first one compiles the graph, and the window
    # begins at the end of a step.
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
    """Return a problem if lines cannot be appended to the output."""
    is_new = not os.path.exists(path)
    # Permissions alone do not tell whether appending works, so 0 bytes are appended.
    try:
        locks.append_bytes(path, b"")
    except OSError as error:
        return [
            f"--output is {path}: {error.strerror}: must be a file to which lines can "
            f"be appended, or {STDOUT} for {STDOUT_NAME}"
        ]
    if is_new:
        with contextlib.suppress(FileNotFoundError):  # Another rank has removed it.
            os.remove(os.path.realpath(path))
    return []
