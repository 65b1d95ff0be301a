"""How a process of this program takes signals before any training listens to them."""

import faulthandler
import os
import signal

from alexnet_estimator.launch.supervision import STACKS_SIGNAL
from alexnet_estimator.rank_environment import is_rank

STDERR = 2


def prepare_signals() -> None:
    """Write stacks when the launcher asks; take SIGTERM for Ctrl-C, except in ranks.

    SIGTERM has to end a rank that loads also where Python cannot act, in C code.
    """
    faulthandler.register(STACKS_SIGNAL, file=STDERR, all_threads=True)
    if not is_rank(os.environ):
        signal.signal(signal.SIGTERM, signal.default_int_handler)
