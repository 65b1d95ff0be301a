"""The loss scale agrees with an implementation in plain Python."""

from typing import Any, Dict, Iterator, List, NamedTuple, Tuple

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet_estimator.config import Config
from alexnet_estimator.optim.loss_scale import resolve_loss_scale, scale_loss
from alexnet_estimator.optim.optimizers import make_optimizer
from tests import tiny

OVERFLOWS = (np.inf, -np.inf, np.nan)


class State(NamedTuple):
    """The state that a step may change."""

    step: int
    weight: float
    slot: float
    average: float
    scale: float
    num_skipped: int


class Training:
    """One weight, whose gradient is fed."""

    def __init__(self, precision: Config):
        with tf.Graph().as_default():
            self.gradient = tf.placeholder(tf.float32, [])
            weight = tf.get_variable("weight", initializer=1.0)
            step = tf.train.get_or_create_global_step()
            optim = tiny.config(optim={"ema_decay": 0.5}).optim
            scaled = scale_loss(make_optimizer(optim, 0.01), precision)
            pairs = scaled.optimizer.compute_gradients(weight * self.gradient)
            self.unscaled = pairs[0][0]
            self.train_op = scaled.optimizer.apply_gradients(pairs, global_step=step)
            by_name = {v.op.name: v for v in tf.global_variables()}
            slots = [by_name["weight/Momentum"]]
            slots += [by_name["weight/ExponentialMovingAverage"]]
            self.state = [step, weight, *slots, scaled.scale, scaled.num_skipped]
            self.saver = tf.train.Saver()
            self.session = tiny.session()
            self.session.run(tf.global_variables_initializer())
            initial = self.session.run(list(by_name.values()))
            self._restart = [
                tf.assign(variable, value)
                for variable, value in zip(by_name.values(), initial)
            ]

    def restart(self) -> State:
        # The initializers would start the average at the current weight.
        self.session.run(self._restart)
        return self.read()

    def read(self) -> State:
        return State(*self.session.run(self.state))

    def run(self, gradient: float) -> State:
        self.session.run(self.train_op, {self.gradient: gradient})
        return self.read()


def oracle(overflows: List[bool], precision: Config) -> Iterator[Tuple[float, int]]:
    """Yield the scale and the skipped steps after every step of a dynamic scale."""
    scale, num_good, num_bad, num_skipped = precision.initial_loss_scale, 0, 0, 0
    for is_overflow in overflows:
        if is_overflow:
            num_skipped, num_good, num_bad = num_skipped + 1, 0, num_bad + 1
            if num_bad == precision.decrease_after_overflows:
                scale = max(scale * precision.decrease_factor, precision.min_loss_scale)
                num_bad = 0
        else:
            num_good += 1
            if num_good == precision.growth_steps:
                scale = min(scale * precision.growth_factor, precision.max_loss_scale)
                num_good = num_bad = 0
        yield scale, num_skipped


VARIANTS: List[Dict[str, Any]] = [
    {"growth_steps": 3},
    {"growth_steps": 2, "growth_factor": 4.0, "max_loss_scale": 2.0**17},
    {"growth_steps": 4, "decrease_after_overflows": 2, "decrease_factor": 0.25},
    {"growth_steps": 1, "initial_loss_scale": 8.0, "min_loss_scale": 4.0},
]


@pytest.fixture(scope="module")
def trainings() -> Iterator[List[Tuple[Config, Training]]]:
    made = []
    for variant in VARIANTS:
        precision = tiny.config(
            precision={"loss_scale": "dynamic", **variant}
        ).precision
        made.append((precision, Training(precision)))
    yield made
    for _, training in made:
        training.session.close()


@settings(max_examples=40)
@given(
    variant=st.integers(0, len(VARIANTS) - 1),
    overflows=st.lists(st.booleans(), min_size=1, max_size=30),
    kind=st.sampled_from(OVERFLOWS),
)
def test_trace_equals_the_oracle(
    trainings: Any, variant: int, overflows: List[bool], kind: float
) -> None:
    precision, training = trainings[variant]
    before = training.restart()
    expected = oracle(overflows, precision)
    for is_overflow, (scale, num_skipped) in zip(overflows, expected):
        after = training.run(kind if is_overflow else 1.0)
        assert (after.scale, after.num_skipped) == (scale, num_skipped)
        # A skipped step changes only the scale and the count.
        if is_overflow:
            assert after[:4] == before[:4]
        else:
            assert after.step == before.step + 1
            assert all(a != b for a, b in zip(after[1:4], before[1:4]))
        before = after


# An overflow ends the count of finite steps; both limits are reached.
@pytest.mark.parametrize(
    "variant,script",
    [(2, "001001001000010000100"), (3, "111" + 25 * "0" + "101010")],
)
def test_traces_that_need_every_rule(trainings: Any, variant: int, script: str) -> None:
    precision, training = trainings[variant]
    training.restart()
    overflows = [digit == "1" for digit in script]
    found = [training.run(np.inf if overflow else 1.0) for overflow in overflows]
    assert [s.scale for s in found] == [s for s, _ in oracle(overflows, precision)]
    if variant == 3:
        assert min(s.scale for s in found) == precision.min_loss_scale
        assert max(s.scale for s in found) == precision.max_loss_scale


def test_fixed_scale_skips_and_stays() -> None:
    training = Training(tiny.config(precision={"loss_scale": "1024"}).precision)
    with training.session:
        before = training.run(1.0)
        for count, overflow in enumerate(OVERFLOWS, 1):
            after = training.run(overflow)
            assert after == before._replace(num_skipped=count)
        assert training.run(1.0).step == 2
        assert before.scale == 1024


@pytest.mark.parametrize("loss_scale", ["none", "4096", "dynamic"])
def test_gradients_are_unscaled(loss_scale: str) -> None:
    training = Training(tiny.config(precision={"loss_scale": loss_scale}).precision)
    with training.session as session:
        feeds = {training.gradient: 0.3}
        assert session.run(training.unscaled, feeds) == pytest.approx(0.3)
        assert training.run(0.3).weight == pytest.approx(1 - 0.01 * 0.3)


def test_without_scaling_overflow_reaches_the_weights() -> None:
    """For this reason, the guard must stop such a run."""
    training = Training(tiny.config(precision={"loss_scale": "none"}).precision)
    with training.session:
        after = training.run(np.inf)
    assert (after.scale, after.num_skipped, after.step) == (1, 0, 1)
    assert not np.isfinite(after.weight)


def test_small_float16_gradients_need_a_scale() -> None:
    """A gradient of 1e-8 is zero in float16, and 2 ** 15 times that is not."""
    found = []
    for loss_scale in ("none", "dynamic"):
        precision = tiny.config(precision={"loss_scale": loss_scale}).precision
        with tf.Graph().as_default(), tiny.session() as session:
            weight = tf.get_variable("weight", initializer=1.0)
            half = tf.cast(weight, tf.float16) * tf.constant(1.0, tf.float16)
            loss = tf.cast(half, tf.float32) * 1e-8
            optimizer = tf.train.GradientDescentOptimizer(1e8)
            scaled = scale_loss(optimizer, precision).optimizer
            train_op = scaled.apply_gradients(scaled.compute_gradients(loss))
            session.run(tf.global_variables_initializer())
            session.run(train_op)
            found.append(session.run(weight))
    assert found[0] == 1
    assert found[1] == pytest.approx(0, abs=0.01)


def test_scale_and_counters_survive_a_restart(tmp_path: Any) -> None:
    precision = tiny.config(
        precision={
            "loss_scale": "dynamic",
            "growth_steps": 4,
            "decrease_after_overflows": 2,
        }
    ).precision
    overflows = [bool(int(digit)) for digit in "001001000011000100"]
    gradients = [np.inf if overflow else 1.0 for overflow in overflows]
    for stop in (3, 5, 6, 10):  # The run stops in the middle of both counts.
        training = Training(precision)
        for gradient in gradients[:stop]:
            training.run(gradient)
        training.saver.save(training.session, str(tmp_path / "state"))
        training.session.close()
        resumed = Training(precision)
        resumed.saver.restore(resumed.session, str(tmp_path / "state"))
        found = [resumed.run(gradient) for gradient in gradients[stop:]]
        resumed.session.close()
        expected = list(oracle(overflows, precision))[stop:]
        assert [(s.scale, s.num_skipped) for s in found] == expected


def test_auto_scales_only_mixed_precision() -> None:
    def resolved(mode: str, loss_scale: str) -> str:
        fields = {"mode": mode, "loss_scale": loss_scale}
        return resolve_loss_scale(tiny.config(precision=fields).precision)

    assert resolved("mixed", "auto") == "dynamic"
    assert resolved("float32", "auto") == "none"
    assert resolved("float32", "dynamic") == "dynamic"
    assert resolved("mixed", "128") == "128"
