"""One thing that goes wrong in a rank, described in an environment variable."""

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
    """What happens, once, to whom and when.

    Args:
        action: a name of ``ACTIONS``.
        rank: in which process.
        phase: ``load`` (before TensorFlow is imported), ``train`` or ``evaluate``.
        step: after which global step; 0: before the first one.
        marker: a file that says that it has happened.
    """

    action: str
    rank: int
    phase: str
    step: int = 0
    marker: str = ""

    def strike(self, phase: str, step: int) -> None:
        """Act if this is the moment."""
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
        faults: each with a marker of its own in ``folder``.
        folder: must exist.
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
    """Do what a service manager does: ask each process, the launcher as well."""
    launcher = os.getppid()
    children = pathlib.Path(f"/proc/{launcher}/task/{launcher}/children").read_text()
    for pid in [launcher, *map(int, children.split())]:
        os.kill(pid, signal.SIGTERM)


def _signal_twice() -> None:
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.5)  # Python acts on a signal between two instructions.


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
