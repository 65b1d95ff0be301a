"""An orderly stop of all ranks at the same step."""

import contextlib
import ctypes
import os
import signal
import threading
from typing import Any, Callable, Iterator, Sequence

import numpy as np

from alexnet_estimator.engine.graph_mode import tf

Gather = Callable[[Sequence[float]], np.ndarray]


class StopRequest:
    """Whether somebody has asked this process, or any rank, to stop.

    Attributes:
        is_received: Whether a signal has reached this process.
        is_agreed: Whether all ranks know, since the same step, that one of them has
            received a signal.
    """

    def __init__(self) -> None:
        self.is_received = False
        self.is_agreed = False

    @contextlib.contextmanager
    def listening(self) -> Iterator["StopRequest"]:
        """Note SIGINT, SIGTERM and SIGHUP; a second one ends the process at once.

        The launcher asks with SIGUSR2, which does not count as a second request: it may
        follow a SIGTERM that all processes have received.
        """
        numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2]
        if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
            numbers.remove(signal.SIGHUP)  # The job was started with nohup.
        previous = [signal.signal(number, self._receive) for number in numbers]
        # Python calls handlers between two of its instructions only, which may never
        # come inside of TensorFlow.  The interpreter writes the number of every signal
        # into this pipe at once, so the second request is seen by a thread.
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        wakeup = signal.set_wakeup_fd(writing)
        threading.Thread(target=_end_at_second, args=[reading], daemon=True).start()
        try:
            yield self
        finally:
            signal.set_wakeup_fd(wakeup)
            os.close(writing)
            for number, handler in zip(numbers, previous):
                signal.signal(number, handler)

    def _receive(self, number: int, frame: Any) -> None:
        self.is_received = True


def _end_at_second(reading: int) -> None:
    """End the process when the pipe delivers the second request of a user."""
    num_requests = 0
    with open(reading, "rb", buffering=0) as pipe:
        for (number,) in iter(lambda: pipe.read(1), b""):
            num_requests += number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
            if num_requests == 2:
                # Only the main thread may call signal.signal.
                ctypes.CDLL(None).signal(number, None)
                os.kill(os.getpid(), number)


class AgreedStop(tf.train.SessionRunHook):
    """Asks all ranks after every step whether one of them has to stop.

    Gathering is a barrier, so all ranks see the request after the same step.  The
    session then ends in an orderly way, and its saving hook saves that step.
    """

    def __init__(self, request: StopRequest, gather: Gather):
        """Watch a session.

        Args:
            request: Request of this process.
            gather: Function ``gather`` of the runtime.
        """
        self._request, self._gather = request, gather

    def after_run(self, run_context: Any, run_values: Any) -> None:
        """End the session if any rank has been asked to stop."""
        if self._gather([float(self._request.is_received)]).any():
            self._request.is_agreed = True
            run_context.request_stop()
