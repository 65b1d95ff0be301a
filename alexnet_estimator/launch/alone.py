"""The watchdog of a rank without a launcher."""

import contextlib
import faulthandler
import os
import select
import threading
from typing import Iterator, Optional

from alexnet_estimator.console import tell
from alexnet_estimator.errors import EXIT_RANK_FAILED
from alexnet_estimator.launch import heartbeats
from alexnet_estimator.launch.options import Options

STDERR = 2


@contextlib.contextmanager
def watching_alone(
    descriptor: Optional[int], options: Options
) -> Iterator[Optional[int]]:
    """End this process with exit code 5 if it hangs, as the launcher would do.

    Before that, the stacks of all threads are printed.

    Args:
        descriptor: Descriptor for the heartbeats to a launcher; None without a
            launcher, so that the rank has to watch itself.
        options: Time limits.

    Yields:
        The descriptor to which this rank has to write heartbeats, or None.
    """
    watchdog = heartbeats.Watchdog([] if descriptor is not None else [0], options)
    # Closing the sink ends the watch.  A threading.Event would not do: Python 3.7 waits
    # for it until a time of the wall clock, for hours if that clock is set back.
    source, sink = os.pipe()

    def watch() -> None:
        while not select.select([source], [], [], heartbeats.POLL_SECS)[0]:
            for pulse in watchdog.find_hang([0]):
                tell(f"this process {watchdog.describe(pulse)}; its stacks:")
                faulthandler.dump_traceback(STDERR, all_threads=True)
                os._exit(EXIT_RANK_FAILED)  # The main thread hangs and cannot exit.

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield next(iter(watchdog.descriptors_of(0)), descriptor)
    finally:
        os.close(sink)
        thread.join()
        os.close(source)
        watchdog.close()
