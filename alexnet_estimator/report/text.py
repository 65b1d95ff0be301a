"""Template filters that format numbers, durations and times for readers."""

import datetime
import math
from typing import Any

UNKNOWN = "–"


def number(value: float, digits: int = 0) -> str:
    """Return a number with a separator of thousands, e.g. ``1,234.5``."""
    return f"{value:,.{digits}f}" if math.isfinite(value) else UNKNOWN


def percent(share: float, digits: int = 1) -> str:
    """Return a share in percent with a narrow space, e.g. ``98.1 %``."""
    return f"{100 * share:.{digits}f}\u202f%" if math.isfinite(share) else UNKNOWN


def duration(secs: float) -> str:
    """Return a duration, e.g. ``3 min 29 s``."""
    if not math.isfinite(secs):
        return UNKNOWN
    minutes, seconds = divmod(round(secs), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes:02d} min"
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


def time(secs: float) -> str:
    """Return a time in UTC; ``secs`` is in seconds since 1970."""
    try:
        moment = datetime.datetime.fromtimestamp(secs, datetime.timezone.utc)
    except (ValueError, OverflowError, OSError):
        return UNKNOWN
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")


def plain(value: Any) -> str:
    """Return a JSON value as a short text."""
    try:
        if isinstance(value, (list, tuple)):
            return "(" + ", ".join(map(plain, value)) + ")"
        if isinstance(value, float):
            return f"{value:g}"
        return UNKNOWN if value is None else str(value) or "(empty)"
    except RecursionError:  # JSON can be nested more deeply than Python can recurse.
        return "…"
