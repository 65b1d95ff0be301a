"""The orderly stop of all ranks after the same step."""

import contextlib
import signal
from typing import Any, Callable, Iterator, Sequence

import numpy as np

from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.launch.signals import STOP_SIGNAL, handle_once, stop_signals

Gather = Callable[[Sequence[float]], np.ndarray]


class StopRequest:
    """A request to stop this process or any other rank.

    Attributes:
        is_received: Whether this process has received a signal.
        is_agreed: Whether all ranks have agreed to stop after the same step.
    """

    def __init__(self) -> None:
        self.is_received = False
        self.is_agreed = False

    @contextlib.contextmanager
    def listening(self) -> Iterator["StopRequest"]:
        """Handle SIGINT, SIGTERM and SIGHUP; a second signal ends the process at once.

        The launcher sends SIGUSR2, which does not count as a second signal: a scheduler
        may have sent SIGTERM to all processes before.
        """
        numbers = stop_signals()
        previous = {n: signal.getsignal(n) for n in (*numbers, STOP_SIGNAL)}
        for number in numbers:
            handle_once(number, self._receive)
        signal.signal(STOP_SIGNAL, self._receive)
        try:
            yield self
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _receive(self, number: int, frame: Any) -> None:
        self.is_received = True
        if number != STOP_SIGNAL:
            for other in stop_signals():
                signal.signal(other, signal.SIG_DFL)


class AgreedStop(tf.train.SessionRunHook):
    """Asks all ranks after every step whether one of them has to stop.

    Gathering is a barrier, so that all ranks see the request after the same step.  A
    rank that stopped alone would leave the others waiting in an all-reduce.  The
    session then ends regularly, and the saving hook saves the step.
    """

    def __init__(self, request: StopRequest, gather: Gather, every_calls: int = 1):
        """Watch a session.

        Args:
            request: Request of this process.
            gather: Function ``gather`` of the runtime.
            every_calls: Number of calls of ``session.run`` from one gathering to the
                next, which is equal on all ranks.
        """
        self._request, self._gather = request, gather
        self._every_calls, self._num_calls = every_calls, 0

    def after_run(self, run_context: Any, run_values: Any) -> None:
        """End the session if any rank has been asked to stop."""
        self._num_calls += 1
        if self._num_calls % self._every_calls:
            return
        if self._gather([float(self._request.is_received)]).any():
            self._request.is_agreed = True
            run_context.request_stop()
