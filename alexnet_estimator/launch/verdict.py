"""What has happened to a group, told to the user, and what follows from it."""

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
# How a rank ends that is asked to stop while it loads, or twice.
CUT_SHORT = tuple(
    -n for n in (STOP_SIGNAL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
)


@dataclasses.dataclass(frozen=True)
class End:
    """How a rank ended by itself: exit code, or minus the signal's number."""

    process: Process
    code: int


@dataclasses.dataclass(frozen=True)
class Hang:
    """Why a group was ended although no rank had failed.

    Attributes:
        pulses: Heart-beats of the ranks that all others wait for, the first to stop
            first.
        text: What the first one does, in words.
        paused: Processes that a signal or a debugger held.
        asked: Processes that were asked to write their stacks.
    """

    pulses: Sequence[Pulse]
    text: str
    paused: Sequence[Process]
    asked: Sequence[Process]


@dataclasses.dataclass
class Story:
    """What has happened to a group.

    Attributes:
        ends: Ends of ranks before the group was ended, in this order.
        unstopped: Ranks that did not stop in time when asked to.
        immortal: Ranks that survived SIGKILL.
        hang: What the heart-beats said.
        has_stop_request: Whether a signal has come to the launcher.
        is_ended: Whether we ended the group before all ranks had ended by themselves.
    """

    ends: List[End] = dataclasses.field(default_factory=list)
    unstopped: List[Process] = dataclasses.field(default_factory=list)
    immortal: List[Process] = dataclasses.field(default_factory=list)
    hang: Optional[Hang] = None
    has_stop_request: bool = False
    is_ended: bool = False


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a group has ended.

    Attributes:
        exit_code: Exit code of ``alexnet_estimator.errors``.
        crash: What has crashed or hung, if another try may do better; else empty.
    """

    exit_code: int
    crash: str = ""


def judge(story: Story, tail_lines: int) -> Outcome:
    """Say what went wrong and return what follows.

    Args:
        story: What has happened to the group.
        tail_lines: Lines of a failed rank's log that are shown.
    """
    if story.unstopped:
        tell(f"{_name(story.unstopped)} did not stop when asked to: ended")
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
            tell("stopped before the ranks could save; run again to resume")
        return Outcome(EXIT_STOPPED)
    # What a rank reports has a reason that another try would not mend.
    if cause and cause.code in (*USER_ERRORS, EXIT_RANK_FAILED):
        return Outcome(cause.code)
    is_over = story.has_stop_request or story.immortal or EXIT_STOPPED in codes
    return Outcome(EXIT_RANK_FAILED, "" if is_over else crash)


def _find_cause(ends: Sequence[End]) -> Optional[End]:
    """Return the failure that explains the others, if there is one.

    A rank's own report of a user's mistake does; the ranks that waited for it may
    have ended before it.  Else it is the first that does not just miss another rank,
    as those do that wait for a rank that was cut short.
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
    """Say what a rank did, and the last lines of its log."""
    tell(f"{text}; its log is {process.log_path}")
    if not process.is_shown:  # Else the terminal has these lines already.
        for line in process.tail(tail_lines):
            tell(f"  rank {process.rank} | {line}")


def _tell_of_hang(hang: Hang, tail_lines: int) -> str:
    """Say which ranks hang, and return it; a paused one explains the others."""
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
        tell(f"{names} could not write any stack: held by SIGSTOP or a debugger")
    writers = [process for process in hang.asked if process.rank not in paused]
    if writers:
        tell(f"{_name(writers)} had to write their Python stacks into their logs")
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
