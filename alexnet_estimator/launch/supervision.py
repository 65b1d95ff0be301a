"""Supervision of the ranks of this server, which start and end together."""

import contextlib
import enum
import math
import os
import queue
import select
import signal
import socket
import time
from typing import Dict, Iterator, Sequence, Union

from alexnet_estimator import disk
from alexnet_estimator.errors import EXIT_DONE, EXIT_STOPPED
from alexnet_estimator.launch.group import Rank
from alexnet_estimator.launch.heartbeats import POLL_SECS, Watchdog
from alexnet_estimator.launch.options import Options
from alexnet_estimator.launch.process import Process
from alexnet_estimator.launch.signals import STACKS_SIGNAL, STOP_SIGNAL, stop_signals
from alexnet_estimator.launch.verdict import CUT_SHORT, End, Hang, Outcome, Story, judge


class _Phase(enum.IntEnum):
    """The phases of ending a group."""

    RUNNING = 0
    HUNG = 1  # The ranks write their stacks.  SIGTERM would not end them.
    TERMINATED = 2
    KILLED = 3
    LOST = 4  # A process has survived SIGKILL, e.g. because a driver blocks it.


NEXT = {
    _Phase.RUNNING: _Phase.TERMINATED,
    _Phase.HUNG: _Phase.KILLED,
    _Phase.TERMINATED: _Phase.KILLED,
    _Phase.KILLED: _Phase.LOST,
}


def supervise(
    command: Sequence[str],
    ranks: Sequence[Rank],
    log_directory: str,
    options: Options = Options(),
) -> Outcome:
    """Run a command once for each rank, until all have ended.

    Each process writes to ``rank_<n>.log``, and the output of the first one is also
    shown.  If a rank fails or hangs, the others are ended.  On SIGINT, SIGTERM or
    SIGHUP, the ranks get SIGUSR2, which asks them to save and stop; a second signal
    kills them.  Ranks that hang get SIGUSR1, which makes them write their stacks.  This
    function must be called in the main thread.

    Args:
        command: Program and its arguments.
        ranks: Ranks of this server.
        log_directory: Existing folder of the logs.
        options: Options of the launcher.

    Returns:
        The outcome, whose exit code is 0 if all ranks are done; 2, 3, 4 or 75 if a rank
        has reported it; and 5 if a rank crashed, was killed, hung or did not stop.

    Raises:
        UserError: The logs cannot be written.
    """
    watchdog = Watchdog([rank.rank for rank in ranks], options)
    supervisor = _Supervisor(options, watchdog)
    with _signals_to(supervisor.events):
        try:
            supervisor.start(command, ranks, log_directory)
            supervisor.watch()
        finally:
            supervisor.kill()
            watchdog.close()
            supervisor.events.close()
    return supervisor.judge()


class _Events:
    """A queue of events: processes that have ended, and numbers of signals.

    The wait uses a socket, for which the kernel counts seconds.  Python 3.7 waits for a
    queue until a time of the wall clock, for hours if that clock is set back.
    """

    def __init__(self) -> None:
        # A SimpleQueue may be filled by a signal handler that interrupts its get().
        self._queue: "queue.SimpleQueue[Union[Process, int]]" = queue.SimpleQueue()
        self._source, self._sink = socket.socketpair()

    def put(self, event: Union[Process, int]) -> None:
        """Add an event, which is ignored if the queue was closed."""
        self._queue.put(event)
        with contextlib.suppress(OSError):
            self._sink.send(b".")

    def get(self, timeout_secs: float) -> Union[Process, int, None]:
        """Wait for the next event and return it, or None if there is none in time."""
        if not select.select([self._source], [], [], timeout_secs)[0]:
            return None
        self._source.recv(1)
        return self._queue.get()

    def close(self) -> None:
        """Close the sockets; later events are ignored."""
        self._source.close()
        self._sink.close()


class _Supervisor:
    """The processes of a group and their events.

    Other threads and signal handlers only put events into ``events``, and ``watch``
    handles them in the main thread.
    """

    def __init__(self, options: Options, watchdog: Watchdog) -> None:
        self.events = _Events()
        self._options, self._watchdog = options, watchdog
        self._running: Dict[int, Process] = {}
        self._story = Story()
        self._phase = _Phase.RUNNING
        self._deadline = math.inf

    def start(
        self, command: Sequence[str], ranks: Sequence[Rank], log_directory: str
    ) -> None:
        """Start all processes."""
        for rank in ranks:
            log_path = os.path.join(log_directory, f"rank_{rank.rank}.log")
            try:
                heartbeat = self._watchdog.descriptors_of(rank.rank)
                process = Process(rank, command, log_path, rank is ranks[0], heartbeat)
            except OSError as error:
                what = f"rank {rank.rank} cannot be started"
                raise disk.error_at(log_path, what, error) from error
            self._running[rank.rank] = process
            process.call_at_end(self.events.put)

    def watch(self) -> None:
        """Handle events until all processes have ended, or one cannot be ended."""
        while self._running and self._phase < _Phase.LOST:
            left_secs = self._deadline - time.monotonic()
            event = self.events.get(min(POLL_SECS, max(0.0, left_secs)))
            if isinstance(event, Process):
                self._note_end(event)
            elif event is not None:
                self._note_stop_request()
            elif time.monotonic() >= self._deadline:
                self._escalate()
            elif self._deadline == math.inf:
                self._check_heartbeats()

    def kill(self) -> None:
        """Kill all processes of the group that are still running."""
        if self._running and self._phase < _Phase.KILLED:
            self._enter(_Phase.KILLED)
            self.watch()

    def judge(self) -> Outcome:
        """Print what went wrong, and return the outcome."""
        self._story.immortal = list(self._running.values())
        self._story.is_ended = self._phase > _Phase.RUNNING
        return judge(self._story, self._options.tail_lines)

    def _note_end(self, process: Process) -> None:
        del self._running[process.rank]
        end = End(process, process.reap())
        if self._phase > _Phase.RUNNING:
            return
        self._story.ends.append(end)
        if end.code == EXIT_STOPPED:
            self._set_deadline(self._options.stop_secs)
        elif end.code != EXIT_DONE:
            self._set_deadline(self._options.settle_secs)
        if end.code in CUT_SHORT and not self._story.has_stop_request:
            self._ask_to_stop()

    def _note_stop_request(self) -> None:
        if self._story.has_stop_request:
            self._enter(_Phase.KILLED)
        else:
            self._ask_to_stop()

    def _ask_to_stop(self) -> None:
        self._story.has_stop_request = True
        for process in self._running.values():
            process.ask(STOP_SIGNAL)
        self._set_deadline(self._options.stop_secs)

    def _check_heartbeats(self) -> None:
        pulses = self._watchdog.find_hang(self._running)
        if not pulses:
            return
        asked = list(self._running.values())
        paused = [process for process in asked if process.is_paused()]
        text = self._watchdog.describe(pulses[0])
        self._story.hang = Hang(pulses, text, paused, asked)
        for process in asked:
            process.ask(STACKS_SIGNAL)
        self._enter(_Phase.HUNG)

    def _escalate(self) -> None:
        if self._phase == _Phase.RUNNING and all(
            end.code in (EXIT_DONE, EXIT_STOPPED) for end in self._story.ends
        ):
            self._story.unstopped = list(self._running.values())
        self._enter(NEXT[self._phase])

    def _enter(self, phase: _Phase) -> None:
        if phase in (_Phase.TERMINATED, _Phase.KILLED):
            number = signal.SIGKILL if phase == _Phase.KILLED else signal.SIGTERM
            for process in self._running.values():
                process.send(number)
        self._phase = phase
        options = self._options
        secs = options.dump_secs if phase == _Phase.HUNG else options.end_secs
        self._deadline = time.monotonic() + secs

    def _set_deadline(self, secs: float) -> None:
        self._deadline = min(self._deadline, time.monotonic() + secs)


@contextlib.contextmanager
def _signals_to(events: _Events) -> Iterator[None]:
    """Turn signals that request a stop into events during a ``with`` block."""
    numbers = stop_signals()
    previous = [
        signal.signal(number, lambda received, _: events.put(received))
        for number in numbers
    ]
    try:
        yield
    finally:
        for number, handler in zip(numbers, previous):
            signal.signal(number, handler)
