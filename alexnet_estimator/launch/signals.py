"""Signals between users, the launcher and its ranks."""

import contextlib
import ctypes
import faulthandler
import os
import signal
from typing import Any, Callable, Tuple

from alexnet_estimator.console import note
from alexnet_estimator.rank_environment import is_rank

# The launcher asks a rank to save and stop by a signal of its own: a rank that the
# user's SIGTERM has reached as well, as it does where all processes of a service get
# one, must not take the launcher's for a second request.
STOP_SIGNAL = signal.SIGUSR2
STACKS_SIGNAL = signal.SIGUSR1
STDERR = 2


def stop_signals() -> Tuple[int, ...]:
    """Return the signals by which users, or a closed ssh, ask to stop."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # By nohup.
        return numbers
    return (*numbers, signal.SIGHUP)


def prepare_signals() -> None:
    """Write stacks when the launcher asks; take all requests to stop for Ctrl-C.

    Ranks leave these requests as they are, so that each ends a rank that still loads,
    also where Python cannot act, in C code.
    """
    faulthandler.register(STACKS_SIGNAL, file=STDERR, all_threads=True)
    for number in stop_signals():
        if not is_rank(os.environ) and signal.getsignal(number) != signal.SIG_IGN:
            handle_once(number, _interrupt)


def _interrupt(number: int, frame: Any) -> None:
    """Acknowledge a request at once: to end what has begun may take a while."""
    with contextlib.suppress(RuntimeError):  # The signal came within another message.
        note("stopping; once more ends this at once")
    raise KeyboardInterrupt


def handle_once(number: int, handler: Callable[[int, Any], Any]) -> None:
    """Let the first signal call a handler, and the second one end the process.

    Python calls handlers between its own instructions.  Within a call into C++ that
    does not come back, no signal would ever be answered.  The kernel, however, forgets
    a handler when it delivers a signal, if that is wished (``SA_RESETHAND``, set by
    ``sysv_signal`` of the C library), and the next one ends the process anywhere.
    """
    signal.signal(number, handler)
    sysv_signal = getattr(ctypes.CDLL(None), "sysv_signal", None)
    if sysv_signal is not None:  # Other C libraries than glibc may lack it.
        sysv_signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
        sysv_signal.restype = ctypes.c_void_p
        sysv_signal(number, sysv_signal(number, None))
