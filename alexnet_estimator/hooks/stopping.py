"""Stops all ranks at the same step when any of them is asked to."""

import contextlib
import signal
from typing import Any, Callable, Iterator, List, Sequence

from alexnet_estimator.engine.graph_mode import tf

SumOverRanks = Callable[[Sequence[float]], List[float]]


class StopRequest:
    """Whether this process has been asked to stop, and whether all ranks know.

    Attributes:
        is_received: a signal has come to this rank.
        is_agreed: all ranks have learned of some rank's signal, at the same step.
    """

    def __init__(self) -> None:
        self.is_received = False
        self.is_agreed = False

    @contextlib.contextmanager
    def listening(self) -> Iterator["StopRequest"]:
        """Note SIGINT and SIGTERM; the second one ends the process at once.

        The launcher asks with SIGUSR2, since its request may follow a SIGTERM that all
        processes have got, and is no second one.
        """
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
        previous = [signal.signal(number, self._receive) for number in numbers]
        try:
            yield self
        finally:
            for number, handler in zip(numbers, previous):
                signal.signal(number, handler)

    def _receive(self, number: int, frame: Any) -> None:
        self.is_received = True
        if number == signal.SIGUSR2:
            return
        for other in (signal.SIGINT, signal.SIGTERM):
            signal.signal(other, signal.SIG_DFL)


class AgreedStop(tf.train.SessionRunHook):
    """After every step, asks all ranks whether one of them has to stop.

    The sum over ranks is a barrier, so all see the request after the same step; the
    session ends in an orderly way, and its saving hook saves that step.
    """

    def __init__(self, request: StopRequest, sum_over_ranks: SumOverRanks):
        """Stop a session.

        Args:
            request: of this process.
            sum_over_ranks: of the runtime.
        """
        self._request, self._sum_over_ranks = request, sum_over_ranks

    def after_run(self, run_context: Any, run_values: Any) -> None:
        """End the session where any rank has been asked to stop."""
        if self._sum_over_ranks([float(self._request.is_received)])[0] > 0:
            self._request.is_agreed = True
            run_context.request_stop()
