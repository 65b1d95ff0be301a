"""What the ranks' heart-beats say: who goes on, and who stands still."""

import dataclasses
import json
import os
import time
from typing import Dict, Iterable, List, Sequence

from alexnet_estimator.launch.environment import Rank
from alexnet_estimator.launch.options import Options

VARIABLE = "ALEXNET_HEARTBEAT"  # The runtime reads it: the file to beat in.
POLL_SECS = 1.0
START = "start"


@dataclasses.dataclass
class Pulse:
    """The last that was seen of a rank.

    Args:
        rank: whose.
        path: of its heart-beat.
        count: of its beats; 0 before the first.
        phase: ``start``, or what it takes steps of.
        time_secs: of the last beat, by its clock.
        idle_secs: since the count has changed, by ours.
    """

    rank: int
    path: str
    count: int = 0
    phase: str = START
    time_secs: float = 0.0
    idle_secs: float = 0.0


class Watchdog:
    """Finds the ranks for which all others wait.

    Args:
        directory: gets ``heartbeat_<n>.json``.
        ranks: of this server.
        options: the limits; where both are 0, nobody beats.
    """

    def __init__(self, directory: str, ranks: Sequence[Rank], options: Options):
        self._limits = (options.hang_timeout_secs, options.start_timeout_secs)
        self._pulses: Dict[int, Pulse] = {}
        if any(self._limits):
            for rank in ranks:
                path = os.path.join(directory, f"heartbeat_{rank.rank}.json")
                self._pulses[rank.rank] = Pulse(rank.rank, os.path.abspath(path))
        self._last_poll = time.monotonic()
        self.remove_files()  # Of a launcher that was killed.

    def introduce(self, rank: Rank) -> Rank:
        """Return a rank that knows where to beat."""
        if rank.rank not in self._pulses:
            return rank
        environment = {**rank.environment, VARIABLE: self._pulses[rank.rank].path}
        return dataclasses.replace(rank, environment=environment)

    def find_hang(self, running: Iterable[int]) -> List[Pulse]:
        """Return the ranks that all others wait for, if they have to for too long.

        Ranks advance in step, so all wait for those with the fewest beats; their limit
        counts, as they may still compile what others have compiled.  Time in which
        this process did not run either, as in a paused container, does not count.

        Args:
            running: the ranks to look at.

        Returns:
            The first to stop first; empty while the ranks advance.
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
        """Return the seconds for which a rank may stand still; 0: for ever."""
        return self._limits[pulse.phase == START]

    def remove_files(self) -> None:
        """Leave no heart-beat behind."""
        for pulse in self._pulses.values():
            if os.path.exists(pulse.path):
                os.remove(pulse.path)


def _update(pulse: Pulse, secs: float) -> None:
    """Read a rank's heart-beat, ``secs`` after the last time."""
    pulse.idle_secs += secs
    try:
        with open(pulse.path, encoding="utf-8") as file:
            record = json.load(file)
        count, phase = int(record["count"]), str(record["phase"])
        time_secs = float(record["time_secs"])
    except (OSError, ValueError, KeyError, TypeError):
        if pulse.count and not os.path.exists(pulse.path):
            pulse.idle_secs = 0.0  # Somebody removed it: no reason to end a job.
        return  # Not there yet, or just being written.
    if count != pulse.count:
        pulse.count, pulse.phase, pulse.time_secs = count, phase, time_secs
        pulse.idle_secs = 0.0
