"""Faults of ranks, which an environment variable describes."""

import dataclasses
import json
import os
import pathlib
import signal
import time
from typing import Callable, Dict, List, Mapping, Sequence

VARIABLE = "ALEXNET_FAULTS"


@dataclasses.dataclass(frozen=True)
class Fault:
    """One fault, which happens once.

    Args:
        action: Name of the action, a key of ``ACTIONS``.
        rank: Rank on which the fault happens.
        phase: ``load`` (before TensorFlow is imported), ``train`` or ``evaluate``.
        step: Global step after which the fault happens; 0 for before the first step.
        marker: Path of a file that is created when the fault happens, so that it does
            not happen again after a restart.
    """

    action: str
    rank: int
    phase: str
    step: int = 0
    marker: str = ""

    def strike(self, phase: str, step: int) -> None:
        """Run the action if its phase and step have been reached."""
        if (phase, step) != (self.phase, self.step):
            return
        try:
            os.close(os.open(self.marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        ACTIONS[self.action]()


def write(faults: Sequence[Fault], folder: str) -> Dict[str, str]:
    """Return the environment variable that makes the faults happen.

    Args:
        faults: Faults, each with another marker in ``folder``.
        folder: Path of an existing folder.
    """
    marked = [
        dataclasses.replace(fault, marker=os.path.join(folder, f"struck_{number}"))
        for number, fault in enumerate(faults)
    ]
    return {VARIABLE: json.dumps([dataclasses.asdict(fault) for fault in marked])}


def read(environ: Mapping[str, str]) -> List[Fault]:
    """Return the faults of this process."""
    faults = [Fault(**fields) for fields in json.loads(environ.get(VARIABLE, "[]"))]
    return [fault for fault in faults if str(fault.rank) == environ["HOROVOD_RANK"]]


def _fail() -> None:
    raise RuntimeError("injected")


def _signal_all() -> None:
    """Send SIGTERM to every process and the launcher, as a service manager does."""
    launcher = os.getppid()
    children = pathlib.Path(f"/proc/{launcher}/task/{launcher}/children").read_text()
    for pid in [launcher, *map(int, children.split())]:
        os.kill(pid, signal.SIGTERM)


def _signal_twice() -> None:
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.5)  # Python handles a signal only between two instructions.


ACTIONS: Dict[str, Callable[[], None]] = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "pause": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "sleep": lambda: time.sleep(3600),
    "fail": _fail,
    "terminate": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "terminate twice": _signal_twice,
    "interrupt launcher": lambda: os.kill(os.getppid(), signal.SIGINT),
    "terminate launcher": lambda: os.kill(os.getppid(), signal.SIGTERM),
    "terminate all": _signal_all,
}
