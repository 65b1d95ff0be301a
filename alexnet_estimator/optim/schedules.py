"""Learning-rate schedules as pure functions of the global step.

The same formulas work on numbers (``ops=numpy``, in tests, cards and reports) and in
the graph (``ops=tensorflow``), because both modules have ``cos``, ``minimum``,
``maximum`` and ``where``.  The learning rate depends only on the step, so that a
resumed run continues the schedule.
"""

import dataclasses
import math
from typing import Any, Sequence, Tuple

import numpy as np

from alexnet_estimator.config import Config


@dataclasses.dataclass(frozen=True)
class LearningRatePlan:
    """A learning-rate schedule with all durations in global steps."""

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
    """Convert epochs to steps, and scale the peak with the number of ranks.

    Args:
        optim: Section ``optim`` of the configuration.
        steps_per_epoch: Number of global steps in an epoch.
        total_steps: Number of global steps of the whole run.
        num_ranks: Number of ranks, see ``optim.learning_rate_scaling``.
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
    """Return the learning rate of a global step.

    ``p``, from 0 to 1, is the fraction of the steps after warm-up that are done.

    * constant, plateau: ``peak`` (the caller multiplies by ``plateau_factor``)
    * step: ``peak * decay_factor ** (number of boundaries passed)``
    * cosine: ``end + (peak - end) * (1 + cos(pi * p)) / 2``
    * polynomial: ``end + (peak - end) * (1 - p) ** power``

    During warm-up, the rate is at most ``peak * (step + 1) / warmup_steps``.

    Args:
        step: Global step from 0: a float, or a float32 scalar with ``ops=tensorflow``.
        plan: Schedule.
        ops: Module of the mathematical functions.
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
    """Return the factor of the learning rate; 1 for other schedules than plateau.

    The factor is multiplied by ``decay_factor`` whenever the best accuracy has not
    risen by ``plateau_min_gain`` for ``plateau_patience_epochs``.

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
