"""The verdict on a group of ranks that has ended: messages and the exit code."""

import dataclasses
import signal
from typing import List, Optional, Sequence

from alexnet_estimator.console import tell
from alexnet_estimator.errors import (
    EXIT_DATA,
    EXIT_DIVERGED,
    EXIT_DONE,
    EXIT_RANK_FAILED,
    EXIT_STOPPED,
    EXIT_USAGE,
)
from alexnet_estimator.launch.heartbeats import Pulse
from alexnet_estimator.launch.process import Process
from alexnet_estimator.launch.signals import STOP_SIGNAL
from alexnet_estimator.rank_table.topology import format_ranks

USER_ERRORS = (EXIT_USAGE, EXIT_DATA, EXIT_DIVERGED)
# The exit codes of a rank that is asked to stop twice, or while it loads.
CUT_SHORT = tuple(
    -n for n in (STOP_SIGNAL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
)


@dataclasses.dataclass(frozen=True)
class End:
    """The end of a rank: its exit code, or minus the number of a signal."""

    process: Process
    code: int


@dataclasses.dataclass(frozen=True)
class Hang:
    """A hang, for which a group was ended although no rank had failed.

    Attributes:
        pulses: Last heartbeats of the ranks for which all others wait, ordered by time.
        text: Description of the hang.
        paused: Processes that are held by SIGSTOP or a debugger.
        asked: Processes that were asked to write their stacks.
    """

    pulses: Sequence[Pulse]
    text: str
    paused: Sequence[Process]
    asked: Sequence[Process]


@dataclasses.dataclass
class Story:
    """The events of a group.

    Attributes:
        ends: Ends of ranks before the group was ended, in the order of time.
        unstopped: Ranks that did not stop in time on request.
        immortal: Ranks that survived SIGKILL.
        hang: Hang that the heartbeats showed; None without one.
        has_stop_request: Whether the launcher has received a signal to stop.
        is_ended: Whether the launcher has ended the group.
    """

    ends: List[End] = dataclasses.field(default_factory=list)
    unstopped: List[Process] = dataclasses.field(default_factory=list)
    immortal: List[Process] = dataclasses.field(default_factory=list)
    hang: Optional[Hang] = None
    has_stop_request: bool = False
    is_ended: bool = False


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of a group.

    Attributes:
        exit_code: Exit code of ``alexnet_estimator.errors``.
        crash: Description of a crash or hang after which a restart may help, or empty.
    """

    exit_code: int
    crash: str = ""


def judge(story: Story, tail_lines: int) -> Outcome:
    """Print what went wrong, and return the result of the group.

    Args:
        story: Events of the group.
        tail_lines: Number of lines of a failed rank's log that are shown.
    """
    if story.unstopped:
        tell(
            f"{_name(story.unstopped)} did not stop on request, so the group was ended"
        )
    if story.immortal:
        tell(
            f"{_name(story.immortal)} cannot be killed: a driver may hang; see `ps -A`"
        )
    codes = {end.code for end in story.ends}
    crash, cause = "", _find_cause(story.ends)
    if cause:
        crash = f"rank {cause.process.rank} {_describe_end(cause.code)}"
        _tell_of_log(crash, cause.process, tail_lines)
    elif story.hang:
        crash = _tell_of_hang(story.hang, tail_lines)
    elif not story.unstopped and not story.immortal:
        if not story.is_ended and codes <= {EXIT_DONE}:
            return Outcome(EXIT_DONE)
        if EXIT_STOPPED not in codes:
            tell(
                "stopped before the ranks could save; run the same command again to "
                "resume"
            )
        return Outcome(EXIT_STOPPED)
    # A restart does not help if a rank has reported an error itself.
    if cause and cause.code in (*USER_ERRORS, EXIT_RANK_FAILED):
        return Outcome(cause.code)
    is_over = story.has_stop_request or story.immortal or EXIT_STOPPED in codes
    return Outcome(EXIT_RANK_FAILED, "" if is_over else crash)


def _find_cause(ends: Sequence[End]) -> Optional[End]:
    """Return the failure that has caused the others, if there is one.

    An error that a rank has reported is the cause, even if ranks that waited for it
    have ended before.  Otherwise the cause is the first failure of a rank that did not
    only lose the connection to another rank.
    """
    reports = [end for end in ends if end.code in USER_ERRORS]
    if reports:
        same = [end for end in reports if end.code == reports[0].code]
        return next((end for end in same if end.process.is_shown), reports[0])
    codes = [end.code for end in ends]
    num_before = next((i for i, code in enumerate(codes) if code in CUT_SHORT), None)
    failures = [e for e in ends[:num_before] if e.code not in (EXIT_DONE, EXIT_STOPPED)]
    crashes = [end for end in failures if end.code != EXIT_RANK_FAILED]
    return next(iter(crashes or failures), None)


def _tell_of_log(text: str, process: Process, tail_lines: int) -> None:
    """Print a text and the last lines of the log of a rank."""
    tell(f"{text}; its log is {process.log_path}")
    if not process.is_shown:  # The output of a shown rank is on the terminal already.
        for line in process.tail(tail_lines):
            tell(f"  rank {process.rank} | {line}")


def _tell_of_hang(hang: Hang, tail_lines: int) -> str:
    """Print which ranks hang, and return this text.

    If some ranks are paused, only they are named, because the others wait for them.
    """
    ranks = [pulse.rank for pulse in hang.pulses]
    paused = {process.rank for process in hang.paused}
    ranks = [rank for rank in ranks if rank in paused] or ranks
    text = f"{format_ranks(ranks)} {hang.text}"
    if len(ranks) > 1:
        text = f"{text.replace(' hangs:', ' hang:')}; rank {ranks[0]} stopped first"
    process = next(process for process in hang.asked if process.rank == ranks[0])
    _tell_of_log(text, process, tail_lines)
    if paused:
        names = format_ranks(paused)
        tell(f"{names} could not write stacks: paused by SIGSTOP or a debugger")
    writers = [process for process in hang.asked if process.rank not in paused]
    if writers:
        tell(f"the logs of {_name(writers)} contain their Python stacks")
    return text


def _name(processes: Sequence[Process]) -> str:
    return format_ranks(process.rank for process in processes)


def _describe_end(code: int) -> str:
    if code >= 0:
        return f"failed with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = " (out of memory?)" if code == -signal.SIGKILL else ""
    return f"was killed by {name}{hint}"
