"""The findings of ``doctor``: one line for each check."""

from typing import NamedTuple

OK = "ok"
WARNING = "warning"
FAILURE = "failure"


class Finding(NamedTuple):
    """The result of one check.

    Attributes:
        name: Name of the check, e.g. ``memory``.
        state: ``ok``, ``warning`` or ``failure``.
        seen: Observed value.
        remedy: Advice in a sentence; empty if nothing has to be done.
    """

    name: str
    state: str
    seen: str
    remedy: str = ""


def require(name: str, is_good: bool, seen: str, remedy: str) -> Finding:
    """Return an ``ok`` without a remedy, or a ``failure`` with it."""
    return Finding(name, OK, seen) if is_good else Finding(name, FAILURE, seen, remedy)


def advise(name: str, is_good: bool, seen: str, remedy: str) -> Finding:
    """Return an ``ok`` without a remedy, or a ``warning`` with it."""
    return Finding(name, OK, seen) if is_good else Finding(name, WARNING, seen, remedy)
