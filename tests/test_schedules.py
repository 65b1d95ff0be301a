"""Learning rates agree with closed forms, on numbers and in the graph."""

import math
from typing import Any, Callable, Dict, List, Tuple

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from hypothesis import given
from hypothesis import strategies as st

from alexnet_estimator.optim.schedules import (
    LearningRatePlan,
    learning_rate,
    plan_learning_rate,
    plateau_factor,
)
from tests import tiny

TOTAL = 100


def plan(schedule: str, **fields: Any) -> LearningRatePlan:
    return LearningRatePlan(schedule, peak=0.4, total_steps=TOTAL, **fields)


CLOSED_FORMS: List[Tuple[LearningRatePlan, Callable[[int], float]]] = [
    (plan("constant"), lambda step: 0.4),
    (plan("plateau"), lambda step: 0.4),
    (
        plan("step", boundaries=(30, 60), decay_factor=0.5),
        lambda step: 0.4 if step < 30 else 0.2 if step < 60 else 0.1,
    ),
    (plan("cosine"), lambda step: 0.2 * (1 + math.cos(math.pi * step / 100))),
    (
        plan("cosine", warmup_steps=20, end=0.1),
        lambda step: (
            0.4 * (step + 1) / 20
            if step < 20
            else 0.1 + 0.15 * (1 + math.cos(math.pi * (step - 20) / 80))
        ),
    ),
    (plan("polynomial"), lambda step: 0.4 * (100 - step) / 100),
    (
        plan("polynomial", power=2.0, end=0.04, warmup_steps=10),
        lambda step: (
            0.04 * (step + 1) if step < 10 else 0.04 + 0.36 * ((100 - step) / 90) ** 2
        ),
    ),
    (
        plan(
            "step", boundaries=(5,), warmup_steps=10
        ),  # The rate decays during the warm-up.
        lambda step: min(0.04 * (step + 1), 0.4 if step < 5 else 0.04),
    ),
]


@pytest.mark.parametrize("case", range(len(CLOSED_FORMS)))
def test_rates_equal_their_closed_forms(case: int) -> None:
    settings, closed_form = CLOSED_FORMS[case]
    expected = [closed_form(step) for step in range(TOTAL)]
    found = [float(learning_rate(step, settings)) for step in range(TOTAL)]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)


def test_graph_and_numbers_agree_at_every_step() -> None:
    steps = np.arange(TOTAL + 20, dtype=np.float32)  # Some steps are beyond the end.
    plans = [settings for settings, _ in CLOSED_FORMS]
    with tf.Graph().as_default(), tiny.session() as session:
        tensor = tf.constant(steps)
        in_graph = session.run([learning_rate(tensor, p, ops=tf) for p in plans])
    for settings, rates in zip(plans, in_graph):
        expected = [float(learning_rate(float(step), settings)) for step in steps]
        np.testing.assert_allclose(rates, expected, rtol=1e-5, atol=1e-7)


@given(
    schedule=st.sampled_from(["constant", "step", "cosine", "polynomial"]),
    total=st.integers(1, 10**6),
    warmup=st.integers(0, 10**6),
    step=st.integers(0, 2 * 10**6),
)
def test_rates_stay_between_end_and_peak(
    schedule: str, total: int, warmup: int, step: int
) -> None:
    settings = LearningRatePlan(schedule, 0.4, total, warmup, (7, 70), 0.5, 0.01)
    rate = float(learning_rate(step, settings))
    assert 0 < rate <= 0.4 * (1 + 1e-12)
    if step >= warmup:
        assert rate >= 0.01 * (1 - 1e-9)
    if step >= max(total, warmup + 1) and schedule in ("cosine", "polynomial"):
        assert rate == pytest.approx(0.01, rel=1e-9)


def test_warmup_ends_at_the_peak() -> None:
    for schedule in ("constant", "cosine", "polynomial"):
        settings = plan(schedule, warmup_steps=20)
        assert learning_rate(19, settings) == pytest.approx(0.4)
        assert learning_rate(20, settings) == pytest.approx(0.4)


def test_epochs_become_steps_and_ranks_scale_the_peak() -> None:
    optim = tiny.config(
        optim={
            "schedule": "step",
            "learning_rate": 0.1,
            "warmup_epochs": 0.5,
            "decay_epochs": (2, 3.5),
            "decay_factor": 0.2,
            "end_learning_rate": 0.01,
            "polynomial_power": 3.0,
        }
    ).optim
    expected = LearningRatePlan("step", 0.1, 70, 5, (20, 35), 0.2, 0.01, 3.0)
    assert plan_learning_rate(optim, 10, 70, num_ranks=4) == expected
    for scaling, peak in (("linear", 0.4), ("sqrt", 0.2)):
        optim.learning_rate_scaling = scaling
        assert plan_learning_rate(optim, 10, 70, num_ranks=4).peak == peak


def factor(history: List[Tuple[float, float]], **changes: Any) -> float:
    fields: Dict[str, Any] = {
        "schedule": "plateau",
        "decay_factor": 0.1,
        "plateau_patience_epochs": 3.0,
        "plateau_min_gain": 0.02,
    }
    return plateau_factor(history, tiny.config(optim={**fields, **changes}).optim)


def each_epoch(*accuracies: float) -> List[Tuple[float, float]]:
    return [(float(epoch), value) for epoch, value in enumerate(accuracies, 1)]


def test_plateau_divides_when_accuracy_stalls() -> None:
    assert factor([]) == 1
    assert factor(each_epoch(0.5, 0.6, 0.7, 0.8, 0.9)) == 1
    assert factor(each_epoch(0.5, 0.51, 0.51)) == 1  # Two epochs are not enough.
    assert factor(each_epoch(0.5, 0.51, 0.51, 0.51)) == pytest.approx(0.1)
    # The wait starts again after it.
    assert factor(each_epoch(*[0.5] * 6)) == pytest.approx(0.1)
    assert factor(each_epoch(*[0.5] * 7)) == pytest.approx(0.01)
    # Small gains that add up in time count as progress; a fall does not.
    assert factor(each_epoch(0.5, 0.51, 0.53, 0.54, 0.56)) == 1
    assert factor(each_epoch(0.5, 0.3, 0.4, 0.45)) == pytest.approx(0.1)
    # A gain of exactly plateau_min_gain is enough.
    assert factor(each_epoch(0.5, 0.5, 0.5, 0.75), plateau_min_gain=0.25) == 1
    # Epochs count, whatever the number of evaluations is.
    assert factor([(1.0, 0.5), (2.5, 0.5), (4.0, 0.5)]) == pytest.approx(0.1)
    assert factor(each_epoch(*[0.5] * 9), schedule="cosine") == 1


@given(accuracies=st.lists(st.floats(0, 1), max_size=30), split=st.integers(0, 30))
def test_plateau_after_resuming_has_the_same_history(
    accuracies: List[float], split: int
) -> None:
    """The factor never rises, and falls at most once in the patience."""
    before, after = (factor(each_epoch(*a)) for a in (accuracies[:split], accuracies))
    assert 0 < after <= before
    num_more = max(0, len(accuracies) - split)
    assert after >= before * 0.1 ** (num_more // 3 + 1) * (1 - 1e-9)
