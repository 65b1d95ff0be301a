"""Learning-rate schedules as pure functions of the global step.

The same formulas compute with plain numbers (``ops=numpy``, in tests, cards and
reports) and in the graph (``ops=tensorflow``), since both modules have ``cos``,
``minimum``, ``maximum`` and ``where``.  The rate depends on the step alone, so that a
resumed run continues it.
"""

import dataclasses
import math
from typing import Any, Sequence, Tuple

import numpy as np

from alexnet_estimator.config import Config


@dataclasses.dataclass(frozen=True)
class LearningRatePlan:
    """A schedule with all durations in global steps."""

    schedule: str
    peak: float
    total_steps: int
    warmup_steps: int = 0
    boundaries: Tuple[int, ...] = ()
    decay_factor: float = 0.1
    end: float = 0.0
    power: float = 1.0


def plan_learning_rate(
    optim: Config, steps_per_epoch: int, total_steps: int, num_ranks: int = 1
) -> LearningRatePlan:
    """Turn the configuration's epochs into steps and scale the peak with the ranks.

    Args:
        optim: Section ``optim`` of the configuration.
        steps_per_epoch: Global steps of an epoch.
        total_steps: Global steps of the whole run.
        num_ranks: Number of ranks, by which ``learning_rate_scaling`` scales.
    """
    scale = {"none": 1.0, "linear": num_ranks, "sqrt": math.sqrt(num_ranks)}
    return LearningRatePlan(
        schedule=optim.schedule,
        peak=optim.learning_rate * scale[optim.learning_rate_scaling],
        total_steps=total_steps,
        warmup_steps=round(optim.warmup_epochs * steps_per_epoch),
        boundaries=tuple(round(e * steps_per_epoch) for e in optim.decay_epochs),
        decay_factor=optim.decay_factor,
        end=optim.end_learning_rate,
        power=optim.polynomial_power,
    )


def learning_rate(step: Any, plan: LearningRatePlan, ops: Any = np) -> Any:
    """Return the learning rate of a global step (from 0).

    With ``p`` the part of the steps after warm-up that is done, from 0 to 1:

    * constant, plateau: ``peak`` (the plateau's factor multiplies it from outside)
    * step: ``peak * decay_factor ** (boundaries passed)``
    * cosine: ``end + (peak - end) * (1 + cos(pi * p)) / 2``
    * polynomial: ``end + (peak - end) * (1 - p) ** power``

    During warm-up it is at most ``peak * (step + 1) / warmup_steps``.

    Args:
        step: Global step: a float, or with ``ops=tensorflow`` a float32 scalar tensor.
        plan: Schedule with durations in steps.
        ops: Module that computes.
    """
    after_warmup = max(plan.total_steps - plan.warmup_steps, 1)
    done = ops.minimum(ops.maximum((step - plan.warmup_steps) / after_warmup, 0.0), 1.0)
    span = plan.peak - plan.end
    rate = plan.peak + 0.0 * step
    if plan.schedule == "step":
        for boundary in plan.boundaries:
            rate = ops.where(step >= boundary, rate * plan.decay_factor, rate)
    elif plan.schedule == "cosine":
        rate = plan.end + span * 0.5 * (1.0 + ops.cos(math.pi * done))
    elif plan.schedule == "polynomial":
        rate = plan.end + span * (1.0 - done) ** plan.power
    if plan.warmup_steps:
        rate = ops.minimum(rate, plan.peak * (step + 1.0) / plan.warmup_steps)
    return rate


def plateau_factor(history: Sequence[Tuple[float, float]], optim: Config) -> float:
    """Return the factor by which a plateau schedule multiplies the learning rate.

    Whenever the best accuracy has not risen by ``plateau_min_gain`` within
    ``plateau_patience_epochs``, the rate is multiplied by ``decay_factor`` and the wait
    starts again.

    Args:
        history: Epoch and accuracy of every evaluation so far, in order.
        optim: Section ``optim`` of the configuration.
    """
    if optim.schedule != "plateau":
        return 1.0
    factor, best, since = 1.0, -math.inf, 0.0
    for epoch, accuracy in history:
        if accuracy >= best + optim.plateau_min_gain:
            best, since = accuracy, epoch
        elif epoch - since >= optim.plateau_patience_epochs:
            factor, since = factor * optim.decay_factor, epoch
    return factor
