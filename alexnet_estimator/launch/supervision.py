"""All ranks of this server: started together, watched, ended together."""

import contextlib
import dataclasses
import enum
import math
import os
import queue
import signal
import sys
import time
from typing import Dict, Iterator, List, Sequence, Union

from alexnet_estimator.errors import (
    EXIT_DATA,
    EXIT_DIVERGED,
    EXIT_DONE,
    EXIT_RANK_FAILED,
    EXIT_STOPPED,
    EXIT_USAGE,
    ConfigError,
)
from alexnet_estimator.launch.environment import Rank
from alexnet_estimator.launch.process import Process
from alexnet_estimator.rank_table.topology import format_ranks

USER_ERRORS = (EXIT_USAGE, EXIT_DATA, EXIT_DIVERGED)


@dataclasses.dataclass(frozen=True)
class Options:
    """How patient the supervision is.

    Args:
        settle_secs: after a failure, time for others to fail with a better reason.
        end_secs: from SIGTERM to SIGKILL where ranks are ended.
        stop_secs: for ranks to save and stop after a request.
        tail_lines: of a failed rank's log, shown.
    """

    settle_secs: float = 2.0
    end_secs: float = 6.0
    stop_secs: float = 600.0
    tail_lines: int = 20


@dataclasses.dataclass(frozen=True)
class End:
    """How a rank ended by itself: exit code, or minus the signal's number."""

    process: Process
    code: int


class _Phase(enum.IntEnum):
    """What has been done to end the group."""

    RUNNING = 0
    TERMINATED = 1
    KILLED = 2
    LOST = 3  # Some process survived SIGKILL, as it does while a driver holds it.


def supervise(
    command: Sequence[str],
    ranks: Sequence[Rank],
    log_directory: str,
    options: Options = Options(),
) -> int:
    """Run a command once for each rank, until all have ended.

    Each process writes to ``rank_<n>.log``; what the first one writes is shown, too.
    When one fails, the others are ended.  SIGINT and SIGTERM reach the ranks as
    SIGTERM, which asks them to save and stop; a second one kills them.  To be called
    in the main thread.

    Args:
        command: the program and its arguments.
        ranks: the processes of this server.
        log_directory: made where missing.
        options: durations in seconds.

    Returns:
        An exit code of ``alexnet_estimator.errors``: 0 all done, 2, 3, 4 or 75 as the
        ranks reported, 5 one crashed, was killed or did not stop.

    Raises:
        ConfigError: the logs cannot be written.
    """
    try:
        os.makedirs(log_directory, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot be made: {error.strerror}", log_directory) from error
    group = _Group(options)
    with _signals_to(group.events):
        try:
            group.start(command, ranks, log_directory)
            group.watch()
        finally:
            group.kill()
    return group.report()


class _Group:
    """The processes and what has happened to them.

    All that happens arrives in ``events`` and is acted on in ``watch`` alone: a
    process that ended, the number of a signal that came, or nothing until a deadline.
    """

    def __init__(self, options: Options) -> None:
        # A SimpleQueue may be filled by a signal handler that interrupts its get().
        self.events: "queue.SimpleQueue[Union[Process, int]]" = queue.SimpleQueue()
        self._options = options
        self._running: Dict[int, Process] = {}
        self._ends: List[End] = []
        self._unstopped: List[Process] = []
        self._has_stop_request = False
        self._phase = _Phase.RUNNING
        self._deadline = math.inf

    def start(
        self, command: Sequence[str], ranks: Sequence[Rank], log_directory: str
    ) -> None:
        """Start all processes."""
        for rank in ranks:
            log_path = os.path.join(log_directory, f"rank_{rank.rank}.log")
            try:
                process = Process(rank, command, log_path, is_shown=rank is ranks[0])
            except OSError as error:
                text = f"rank {rank.rank} cannot be started: {error.strerror}"
                raise ConfigError(text, log_path) from error
            self._running[rank.rank] = process
            process.call_at_end(self.events.put)

    def watch(self) -> None:
        """Return when all processes have ended or cannot be ended."""
        while self._running and self._phase < _Phase.LOST:
            event = self._next_event()
            if event is None:
                self._escalate()
            elif isinstance(event, Process):
                self._note_end(event)
            else:
                self._note_stop_request()

    def kill(self) -> None:
        """Kill what is left of the group, at once."""
        if self._running and self._phase < _Phase.KILLED:
            self._enter(_Phase.KILLED)
            self.watch()

    def report(self) -> int:
        """Say what went wrong and return the exit code of the group."""
        if self._unstopped:
            names = format_ranks(process.rank for process in self._unstopped)
            self._say(f"{names} did not stop when asked to: ended")
        if self._running:
            names = format_ranks(self._running)
            self._say(f"{names} cannot be killed: a driver may hang; see `ps -A`")
        failures = [end for end in self._ends if self._is_failure(end)]
        if failures:
            return self._report_failure(_cause(failures))
        if self._unstopped or self._running:
            return EXIT_RANK_FAILED
        if self._phase == _Phase.RUNNING and not any(end.code for end in self._ends):
            return EXIT_DONE
        if not any(end.code == EXIT_STOPPED for end in self._ends):
            self._say("stopped before the ranks could save; run again to resume")
        return EXIT_STOPPED

    def _next_event(self) -> Union[Process, int, None]:
        timeout = None
        if self._deadline < math.inf:
            timeout = max(0.0, self._deadline - time.monotonic())
        try:
            return self.events.get(timeout=timeout)
        except queue.Empty:
            return None

    def _note_end(self, process: Process) -> None:
        del self._running[process.rank]
        end = End(process, process.reap())
        if self._phase > _Phase.RUNNING:
            return
        self._ends.append(end)
        if end.code == EXIT_STOPPED:
            self._set_deadline(self._options.stop_secs)
        elif end.code != EXIT_DONE:
            self._set_deadline(self._options.settle_secs)

    def _note_stop_request(self) -> None:
        if self._has_stop_request:
            self._enter(_Phase.KILLED)
            return
        self._has_stop_request = True
        self._send(signal.SIGTERM)
        self._set_deadline(self._options.stop_secs)

    def _escalate(self) -> None:
        if self._phase == _Phase.RUNNING and all(
            end.code in (EXIT_DONE, EXIT_STOPPED) for end in self._ends
        ):
            self._unstopped = list(self._running.values())
        self._enter(_Phase(self._phase + 1))

    def _enter(self, phase: _Phase) -> None:
        if phase == _Phase.TERMINATED:
            self._send(signal.SIGTERM)
        elif phase == _Phase.KILLED:
            self._send(signal.SIGKILL)
        self._phase = phase
        self._deadline = time.monotonic() + self._options.end_secs

    def _send(self, signal_number: int) -> None:
        for process in self._running.values():
            process.send(signal_number)

    def _set_deadline(self, secs: float) -> None:
        self._deadline = min(self._deadline, time.monotonic() + secs)

    def _is_failure(self, end: End) -> bool:
        # A rank that is still loading has no handler yet: SIGTERM just ends it.
        is_stopped = self._has_stop_request and end.code == -signal.SIGTERM
        return not is_stopped and end.code not in (EXIT_DONE, EXIT_STOPPED)

    def _report_failure(self, cause: End) -> int:
        process, text = cause.process, _describe_code(cause.code)
        self._say(f"rank {process.rank} {text}; its log is {process.log_path}")
        if not process.is_shown:  # Else the terminal has these lines already.
            for line in process.tail(self._options.tail_lines):
                self._say(f"  rank {process.rank} | {line}")
        return cause.code if cause.code in USER_ERRORS else EXIT_RANK_FAILED

    def _say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


def _cause(failures: Sequence[End]) -> End:
    """Return the failure that explains the others.

    A rank's own report of a user's mistake does; the ranks that waited for it may
    have ended before it.  Else it is the first that does not just miss another.
    """
    reported = [end for end in failures if end.code in USER_ERRORS]
    others = [end for end in failures if end.code != EXIT_RANK_FAILED]
    first = (reported or others or failures)[0]
    same = [end for end in reported if end.code == first.code]
    return next((end for end in same if end.process.is_shown), first)


def _describe_code(code: int) -> str:
    if code >= 0:
        return f"failed with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = " (out of memory?)" if code == -signal.SIGKILL else ""
    return f"was killed by {name}{hint}"


@contextlib.contextmanager
def _signals_to(events: "queue.SimpleQueue[Union[Process, int]]") -> Iterator[None]:
    """Put SIGINT and SIGTERM into a queue instead of acting on them."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = [
        signal.signal(number, lambda received, _: events.put(received))
        for number in numbers
    ]
    try:
        yield
    finally:
        for number, handler in zip(numbers, previous):
            signal.signal(number, handler)
