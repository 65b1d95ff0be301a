"""Signals between users, the launcher and its ranks."""

import contextlib
import ctypes
import faulthandler
import os
import signal
from typing import Any, Callable, Tuple

from alexnet_estimator.console import note
from alexnet_estimator.rank_environment import is_rank

# The launcher uses a separate signal to ask a rank to save and stop.  A service manager
# may send SIGTERM to all processes, and a rank must not take the signal of the launcher
# for a second request.
STOP_SIGNAL = signal.SIGUSR2
STACKS_SIGNAL = signal.SIGUSR1
STDERR = 2


def stop_signals() -> Tuple[int, ...]:
    """Return the signals with which a user or a closed ssh session asks to stop."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # The user has used nohup.
        return numbers
    return (*numbers, signal.SIGHUP)


def prepare_signals() -> None:
    """Print stacks on request of the launcher, and treat requests to stop like Ctrl-C.

    In a rank, requests to stop keep their default action until training starts.  They
    end a rank that is still loading, even in C code, where Python cannot act.
    """
    faulthandler.register(STACKS_SIGNAL, file=STDERR, all_threads=True)
    for number in stop_signals():
        if not is_rank(os.environ) and signal.getsignal(number) != signal.SIG_IGN:
            handle_once(number, _interrupt)


def _interrupt(number: int, frame: Any) -> None:
    """Acknowledge a request at once, because stopping may take a while."""
    with contextlib.suppress(RuntimeError):  # Another message was being printed.
        note("stopping; a second signal ends this process at once")
    raise KeyboardInterrupt


def handle_once(number: int, handler: Callable[[int, Any], Any]) -> None:
    """Let the first signal call a handler, and the second one end the process.

    Python only calls handlers between its own instructions, so that it would ignore all
    signals during a call into C++ that does not return.  With ``SA_RESETHAND``, which
    ``sysv_signal`` of the C library sets, the kernel removes the handler when it
    delivers the first signal, and the second one ends the process in any case.
    """
    signal.signal(number, handler)
    sysv_signal = getattr(ctypes.CDLL(None), "sysv_signal", None)
    if sysv_signal is not None:  # Only glibc is sure to have it.
        sysv_signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
        sysv_signal.restype = ctypes.c_void_p
        sysv_signal(number, sysv_signal(number, None))
