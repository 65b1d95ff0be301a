"""The errors that a user can correct; each has a message and an exit code.

A message says what was wrong, which value was seen, and what to do.  If one input has
several problems, one error reports all of them.
"""

from typing import Sequence, Union

EXIT_DONE = 0
EXIT_USAGE = 2
EXIT_DATA = 3
EXIT_DIVERGED = 4
EXIT_RANK_FAILED = 5
EXIT_STOPPED = 75  # EX_TEMPFAIL of sysexits.h: run the same command again to resume.


class UserError(Exception):
    """An error that the user can correct.

    Args:
        problems: One message, or all problems of one input; empty if the advice says
            everything.
        heading: Name of the input, e.g. ``configs/x.py``.
        advice: Remedy for all problems; it is not counted as a problem.
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
        """Return the whole message: heading, problems and advice."""
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
    """The loss, gradients or weights are not finite."""

    exit_code = EXIT_DIVERGED


class RankError(UserError):
    """A rank crashed, hung or did not start."""

    exit_code = EXIT_RANK_FAILED


class StopRequested(UserError):
    """The run was stopped on request; it has saved its state and can be resumed."""

    exit_code = EXIT_STOPPED
