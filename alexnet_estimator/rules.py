"""Rules for the values of configuration fields, each as a text and a predicate."""

import dataclasses
import math
from typing import Any, Callable

MAX_NUMBER = 2.0**63


@dataclasses.dataclass(frozen=True)
class Rule:
    """A rule for values, as a text and as a predicate."""

    text: str
    accepts: Callable[[Any], bool]


def anything() -> Rule:
    """Return a rule that accepts every value."""
    return Rule("any value", lambda value: True)


PATH = Rule("a path", lambda value: True)


def one_of(*choices: Any) -> Rule:
    """Return a rule that accepts some values only."""
    names = [str(choice) or "''" for choice in choices]
    return Rule("one of " + ", ".join(names), lambda v: v in choices)


def at_least(low: float) -> Rule:
    """Return a rule for numbers that are ``low`` or more."""
    return Rule(f"at least {low}", lambda v: _is_number(v) and v >= low)


def above(low: float) -> Rule:
    """Return a rule for numbers that are more than ``low``."""
    return Rule(f"above {low}", lambda v: _is_number(v) and v > low)


def between(low: float, high: float) -> Rule:
    """Return a rule for numbers from ``low`` to ``high``, both included."""
    return Rule(f"from {low} to {high}", lambda v: low <= v <= high)


def from_to_below(low: float, high: float) -> Rule:
    """Return a rule for numbers from ``low``, included, to ``high``, excluded."""
    return Rule(f"at least {low} and below {high}", lambda v: low <= v < high)


def increasing_epochs() -> Rule:
    """Return a rule for a list of epochs in increasing order."""
    return Rule(
        "increasing positive numbers of epochs, e.g. (30, 60, 80)",
        lambda v: all(_is_number(x) and x > 0 for x in v)
        and all(a < b for a, b in zip(v, v[1:])),
    )


def rgb_or_empty() -> Rule:
    """Return a rule for a mean colour."""
    return Rule(
        "three numbers from 0 to 255, or () to take them from dataset.json",
        lambda v: len(v) in (0, 3) and all(_is_number(x) and 0 <= x <= 255 for x in v),
    )


def ordered_pair(low: float, high: float, example: str) -> Rule:
    """Return a rule for two ordered numbers from ``low`` to ``high``."""
    return Rule(
        f"two numbers, {low} <= smallest <= largest <= {high}, e.g. {example}",
        lambda v: len(v) == 2
        and all(_is_number(x) for x in v)
        and low <= v[0] <= v[1] <= high,
    )


def class_weights() -> Rule:
    """Return a rule for factors of classes."""
    return Rule(
        "none, balanced or a positive number for each class, e.g. 1,2.5",
        lambda v: v in ("none", "balanced")
        or all(_parse_number(number) > 0 for number in v.split(",")),
    )


def percentages() -> Rule:
    """Return a rule for parts of a whole in percent."""
    return Rule(
        "up to 8 positive numbers with the sum 100, or ()",
        lambda v: len(v) <= 8
        and all(_is_number(x) and x > 0 for x in v)
        and sum(v) in (0, 100),
    )


def loss_scale() -> Rule:
    """Return a rule for a loss scale."""
    return Rule(
        "auto, dynamic, none or a number from 1 to 1e38",
        lambda v: v in ("auto", "dynamic", "none") or 1 <= _parse_number(v) <= 1e38,
    )


def is_count(value: Any) -> bool:
    """Return whether a value is a whole number, 0 or more, that a float64 can hold."""
    return type(value) is int and 0 <= value < 1 << 53


def _is_number(value: Any) -> bool:
    is_real = isinstance(value, (int, float)) and not isinstance(value, bool)
    # This refuses NaN, Inf, and integers that neither a float nor an int64 can hold.
    return is_real and abs(value) < MAX_NUMBER


def _parse_number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        return -math.inf
    return number if math.isfinite(number) else -math.inf
