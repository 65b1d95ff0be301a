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
        problems: One message, or all problems of one input; none where the advice
            says everything.
        heading: Input that the problems are about, e.g. ``configs/x.py``.
        advice: What to do about all of them; it is not counted as a problem.
    """

    exit_code = EXIT_USAGE

    def __init__(
        self,
        problems: Union[str, Sequence[str]],
        heading: str = "",
        advice: str = "",
    ):
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        self.heading, self.advice = heading, advice
        super().__init__(self.message())

    def message(self) -> str:
        """Return the whole text: heading, problems and advice."""
        start = f"{self.heading}: " if self.heading else ""
        end = [self.advice] if self.advice else []
        if len(self.problems) < 2:
            return start + "; ".join([*self.problems, *end])
        lines = [f"{start}{len(self.problems)} problems"]
        lines += [f"  - {problem}" for problem in self.problems]
        return "\n".join([*lines, *end])


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
