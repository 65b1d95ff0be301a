"""The errors that a user sees: one message, no traceback, one exit code each.

Every message says what was wrong, the value seen and what to do.  Where one input
has several problems, all of them are in one error.
"""

from typing import Sequence, Union

EXIT_DONE = 0
EXIT_USAGE = 2
EXIT_DATA = 3
EXIT_DIVERGED = 4
EXIT_RANK_FAILED = 5
EXIT_STOPPED = 75  # EX_TEMPFAIL: stopped on request, run again to resume.


class UserError(Exception):
    """A problem that the user can mend.

    Args:
        problems: one message, or all problems of one input.
        heading: what the problems are about, e.g. ``configs/x.py``.
    """

    exit_code = EXIT_USAGE

    def __init__(self, problems: Union[str, Sequence[str]], heading: str = ""):
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        self.heading = heading
        super().__init__(self.message())

    def message(self) -> str:
        """Return the whole text: the heading, then a line for each problem."""
        if len(self.problems) == 1:
            start = f"{self.heading}: " if self.heading else ""
            return start + self.problems[0]
        count = f"{len(self.problems)} problems"
        start = f"{self.heading}: {count}" if self.heading else count
        return "\n".join([start, *(f"  - {problem}" for problem in self.problems)])


class ConfigError(UserError):
    """A flag, a configuration field or a rank table is wrong."""

    exit_code = EXIT_USAGE


class DataError(UserError):
    """Pictures, records or checkpoints cannot be used."""

    exit_code = EXIT_DATA


class DivergedError(UserError):
    """Loss, gradients or weights stopped being finite numbers."""

    exit_code = EXIT_DIVERGED


class RankError(UserError):
    """A rank failed, never started or hung."""

    exit_code = EXIT_RANK_FAILED


class StopRequested(UserError):
    """The run was asked to stop, has saved its state and can be resumed."""

    exit_code = EXIT_STOPPED
