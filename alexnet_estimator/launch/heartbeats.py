"""The heartbeats of the ranks, and the detection of hangs."""

import dataclasses
import json
import os
import tempfile
import time
from typing import IO, Dict, Iterable, List, Tuple

from alexnet_estimator.launch.options import Options

POLL_SECS = 1.0
START = "start"
MAX_BYTES = 1000  # A heartbeat has 100 bytes.


@dataclasses.dataclass
class Pulse:
    """The last heartbeat of a rank.

    Attributes:
        rank: Number of the rank.
        file: File without a name to which the rank writes its heartbeats.
        count: Number of heartbeats; 0 before the first.
        phase: ``start``, ``train``, ``evaluate`` or ``report``.
        time_secs: Time of the last heartbeat, by the machine's monotonic clock.
        idle_secs: Seconds since the count last changed, by the same clock.
    """

    rank: int
    file: IO[bytes]
    count: int = 0
    phase: str = START
    time_secs: float = 0.0
    idle_secs: float = 0.0


class Watchdog:
    """Finds the ranks for which all others wait.

    Args:
        ranks: Numbers of the ranks to watch.
        options: Time limits; if both are 0, there are no heartbeats.
    """

    def __init__(self, ranks: Iterable[int], options: Options):
        self._limits = (options.hang_timeout_secs, options.start_timeout_secs)
        self._pulses: Dict[int, Pulse] = {}
        if any(self._limits):
            self._pulses = {r: Pulse(r, tempfile.TemporaryFile()) for r in ranks}
        self._last_poll = time.monotonic()

    def descriptors_of(self, rank: int) -> Tuple[int, ...]:
        """Return the descriptor for the heartbeats of a rank; () for no heartbeats."""
        pulse = self._pulses.get(rank)
        return (pulse.file.fileno(),) if pulse else ()

    def find_hang(self, running: Iterable[int]) -> List[Pulse]:
        """Return the ranks that hang, ordered by the time of their last heartbeats.

        Ranks advance in lockstep, so that all wait for those with the fewest
        heartbeats.  The limit is that of their phase, because they may still compile
        when others have finished.  Time in which this process did not run, e.g. in a
        paused container, does not count.

        Args:
            running: Numbers of the running ranks.

        Returns:
            The ranks that hang; empty while the ranks advance.
        """
        now = time.monotonic()
        secs = min(now - self._last_poll, 2 * POLL_SECS)
        self._last_poll = now
        pulses = [self._pulses[rank] for rank in running if rank in self._pulses]
        for pulse in pulses:
            _update(pulse, secs)
        fewest = min((pulse.count for pulse in pulses), default=0)
        last = [pulse for pulse in pulses if pulse.count == fewest]
        last.sort(key=lambda pulse: pulse.time_secs)
        is_hang = last and 0 < self.limit_of(last[0]) <= last[0].idle_secs
        return last if is_hang else []

    def limit_of(self, pulse: Pulse) -> float:
        """Return the seconds that a rank may be idle; 0 for no limit."""
        return self._limits[pulse.phase == START]

    def describe(self, pulse: Pulse) -> str:
        """Return the description of a hang."""
        return (
            f"hangs: no progress for {pulse.idle_secs:.0f} s in phase {pulse.phase}, "
            f"where {self.limit_of(pulse):g} s are allowed"
        )

    def close(self) -> None:
        """Close the files of the heartbeats."""
        for pulse in self._pulses.values():
            pulse.file.close()


def _update(pulse: Pulse, secs: float) -> None:
    """Read the heartbeat of a rank, which was last read ``secs`` seconds ago."""
    pulse.idle_secs += secs
    try:
        record = json.loads(os.pread(pulse.file.fileno(), MAX_BYTES, 0).decode())
        count, phase = int(record["count"]), str(record["phase"])
        time_secs = float(record["time_secs"])
    except (ValueError, KeyError, TypeError):
        return  # The rank has not written it yet, or is writing it.
    if count != pulse.count:
        pulse.count, pulse.phase, pulse.time_secs = count, phase, time_secs
        pulse.idle_secs = 0.0
