"""What has happened to a group, told to the user, and what follows from it."""

import dataclasses
import signal
import sys
from typing import List, Optional, Sequence

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
from alexnet_estimator.rank_table.topology import format_ranks

# A signal of its own: a rank that the user's SIGTERM has reached as well, as it does
# where all processes of a service get one, must not take ours for a second request.
STOP_SIGNAL = signal.SIGUSR2
USER_ERRORS = (EXIT_USAGE, EXIT_DATA, EXIT_DIVERGED)
# How a rank ends that is asked to stop while it loads, or twice.
CUT_SHORT = (-STOP_SIGNAL, -signal.SIGTERM, -signal.SIGINT)


@dataclasses.dataclass(frozen=True)
class End:
    """How a rank ended by itself: exit code, or minus the signal's number."""

    process: Process
    code: int


@dataclasses.dataclass(frozen=True)
class Hang:
    """Why a group was ended although no rank had failed.

    Args:
        pulses: of the ranks that all others wait for, the first to stop first.
        limit_secs: that has been exceeded.
        paused: processes that a signal or a debugger held.
        asked: processes that were asked to write their stacks.
    """

    pulses: Sequence[Pulse]
    limit_secs: float
    paused: Sequence[Process]
    asked: Sequence[Process]


@dataclasses.dataclass
class Story:
    """What has happened to a group.

    Args:
        ends: of ranks that ended before the group was ended, in this order.
        unstopped: ranks that did not stop in time when asked to.
        immortal: ranks that survived SIGKILL.
        hang: what the heart-beats said.
        has_stop_request: a signal has come to the launcher.
        is_ended: by us, before all ranks had ended by themselves.
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

    Args:
        exit_code: of ``alexnet_estimator.errors``.
        crash: what has crashed or hung, if another try may do better; else empty.
    """

    exit_code: int
    crash: str = ""


def judge(story: Story, tail_lines: int) -> Outcome:
    """Say what went wrong and return what follows.

    Args:
        story: of the group.
        tail_lines: of a failed rank's log, shown.
    """
    _tell_who_stayed(story)
    crash, cause = "", _find_cause(story.ends)
    if cause:
        crash = f"rank {cause.process.rank} {_describe(cause.code)}"
        _tell(crash, cause.process, tail_lines)
    elif story.hang:
        crash = _describe_hang(story.hang)
        _tell_hang(story.hang, crash, tail_lines)
    elif not story.unstopped and not story.immortal:
        return Outcome(_code_without_failure(story))
    # What a rank reports has a reason that another try would not mend.
    if cause and cause.code in (*USER_ERRORS, EXIT_RANK_FAILED):
        return Outcome(cause.code)
    codes = {end.code for end in story.ends}
    is_over = story.has_stop_request or story.immortal or EXIT_STOPPED in codes
    return Outcome(EXIT_RANK_FAILED, "" if is_over else crash)


def _code_without_failure(story: Story) -> int:
    codes = {end.code for end in story.ends}
    if not story.is_ended and codes <= {EXIT_DONE}:
        return EXIT_DONE
    if EXIT_STOPPED not in codes:
        say("stopped before the ranks could save; run again to resume")
    return EXIT_STOPPED


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


def _tell_who_stayed(story: Story) -> None:
    if story.unstopped:
        names = format_ranks(process.rank for process in story.unstopped)
        say(f"{names} did not stop when asked to: ended")
    if story.immortal:
        names = format_ranks(process.rank for process in story.immortal)
        say(f"{names} cannot be killed: a driver may hang; see `ps -A`")


def _tell(text: str, process: Process, tail_lines: int) -> None:
    """Say what a rank did, and the last lines of its log."""
    say(f"{text}; its log is {process.log_path}")
    if not process.is_shown:  # Else the terminal has these lines already.
        for line in process.tail(tail_lines):
            say(f"  rank {process.rank} | {line}")


def _tell_hang(hang: Hang, text: str, tail_lines: int) -> None:
    first = _suspects(hang)[0]
    _tell(text, next(p for p in hang.asked if p.rank == first), tail_lines)
    paused = {process.rank for process in hang.paused}
    if paused:
        names = format_ranks(paused)
        say(f"{names} could not write any stack: held by SIGSTOP or a debugger")
    writers = {process.rank for process in hang.asked} - paused
    if writers:
        say(f"{format_ranks(writers)} had to write their Python stacks into their logs")


def _describe_hang(hang: Hang) -> str:
    ranks, first = _suspects(hang), hang.pulses[0]
    verb = "hang" if len(ranks) > 1 else "hangs"
    text = (
        f"{format_ranks(ranks)} {verb}: no progress for {first.idle_secs:.0f} s in "
        f"phase {first.phase}, where {hang.limit_secs:g} s are allowed"
    )
    return f"{text}; rank {ranks[0]} stopped first" if len(ranks) > 1 else text


def _suspects(hang: Hang) -> List[int]:
    """Return the ranks to blame, the first to stop first."""
    ranks = [pulse.rank for pulse in hang.pulses]
    paused = {process.rank for process in hang.paused}
    return [rank for rank in ranks if rank in paused] or ranks


def _describe(code: int) -> str:
    if code >= 0:
        return f"failed with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = " (out of memory?)" if code == -signal.SIGKILL else ""
    return f"was killed by {name}{hint}"


def say(line: str) -> None:
    """Tell the user one line."""
    print(line, file=sys.stderr, flush=True)
