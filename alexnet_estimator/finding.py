"""What ``doctor`` finds: one line for each thing that it has looked at."""

from typing import NamedTuple

OK = "ok"
WARNING = "warning"
FAILURE = "failure"


class Finding(NamedTuple):
    """One thing that was looked at.

    Attributes:
        name: Name of the thing, e.g. ``memory``.
        state: ``ok``, ``warning`` or ``failure``.
        seen: What was found.
        remedy: What to do, in a sentence; empty where nothing has to be done.
    """

    name: str
    state: str
    seen: str
    remedy: str = ""


def judge(name: str, is_good: bool, seen: str, remedy: str) -> Finding:
    """Return an ``ok`` without a remedy, or a ``failure`` with it."""
    return Finding(name, OK, seen) if is_good else Finding(name, FAILURE, seen, remedy)


def advise(name: str, is_good: bool, seen: str, remedy: str) -> Finding:
    """Return an ``ok`` without a remedy, or a ``warning`` with it."""
    return Finding(name, OK, seen) if is_good else Finding(name, WARNING, seen, remedy)
