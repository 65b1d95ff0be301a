"""The updates of the weights agree with NumPy."""

from typing import Any, Dict, List

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from alexnet_estimator import engine, schema
from alexnet_estimator.networks.alexnet_graph import alexnet
from alexnet_estimator.optim.loss_scale import scale_loss
from alexnet_estimator.optim.optimizers import (
    can_decay_slots,
    clip_gradients,
    decay_weights,
    make_optimizer,
)
from tests import tiny


def test_weight_decay_is_the_gradient_of_l2_on_kernels() -> None:
    with tf.Graph().as_default(), tiny.session() as session:
        logits = alexnet(tf.ones([2, 63, 63, 3]), 3, tiny.config().model)
        variables = tf.trainable_variables()
        kernels = [v for v in variables if v.shape.ndims > 1]
        loss = tf.reduce_sum(logits**2)
        with_l2 = loss + 0.3 / 2 * sum(tf.reduce_sum(k**2) for k in kernels)
        plain = list(zip(tf.gradients(loss, variables), variables))
        found = [gradient for gradient, _ in decay_weights(plain, 0.3)]
        session.run(tf.global_variables_initializer())
        for variable in variables:  # Biases start at 0, which would hide their decay.
            session.run(tf.assign_add(variable, tf.ones_like(variable) * 0.01))
        results = session.run([found, tf.gradients(with_l2, variables), plain])
    assert len(kernels) == 8
    for variable, value, expected, (undecayed, _) in zip(variables, *results):
        scale = np.abs(expected).max()
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5 * scale)
        assert np.array_equal(value, undecayed) == (variable.shape.ndims == 1)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize("use_nesterov", [False, True])
@pytest.mark.parametrize("loss_scale, in_slots", [("none", True), ("8", False)])
def test_momentum_with_weight_decay_equals_numpy(
    momentum: float, use_nesterov: bool, loss_scale: str, in_slots: bool
) -> None:
    """With or without slots, the decay adds to the gradients of kernels only."""
    settings = tiny.config(
        optim={
            "momentum": momentum,
            "use_nesterov": use_nesterov,
            "weight_decay": 0.3,
        },
        precision={"loss_scale": loss_scale},
    )
    first = np.array([3.0, -4.0])
    kernel, bias = first.reshape(1, 2).astype("f"), first.astype("f")
    with tf.Graph().as_default(), tiny.session() as session:
        weights = [
            tf.get_variable("layer/weights", initializer=kernel),
            tf.get_variable("layer/bias", initializer=bias),
        ]
        decays_slots = in_slots and can_decay_slots(settings.optim)
        optimizer = make_optimizer(settings.optim, tf.constant(0.1), decays_slots)
        optimizer = scale_loss(optimizer, settings.precision).optimizer
        gradients = optimizer.compute_gradients(sum(map(tf.reduce_sum, weights)) * 2.0)
        if not decays_slots:
            gradients = decay_weights(gradients, settings.optim.weight_decay)
        update = optimizer.apply_gradients(gradients)
        session.run(tf.global_variables_initializer())
        for _ in range(4):
            session.run(update)
        found = session.run(weights)
    for value, decay in zip(found, (0.3, 0.0)):
        weight, velocity = first, np.zeros(2)
        for _ in range(4):
            slope = 2.0 + decay * weight
            velocity = momentum * velocity + slope
            step = slope + momentum * velocity if use_nesterov else velocity
            weight = weight - 0.1 * step
        np.testing.assert_allclose(value.reshape(2), weight, rtol=1e-5)


def test_clipping_by_global_norm() -> None:
    values = [np.array([3.0, 0.0], np.float32), np.array([[4.0]], np.float32)]
    with tf.Graph().as_default(), tiny.session() as session:
        variables = [tf.Variable(value) for value in values]
        pairs = list(zip(map(tf.constant, values), variables))
        results = [clip_gradients(pairs, max_norm) for max_norm in (0.0, 1.0, 10.0)]
        assert [variable for _, variable in results[1][0]] == variables
        infinite = [(tf.constant(np.inf), variables[0])]
        not_finite = session.run(clip_gradients(infinite, 1.0)[1])
        found = session.run([([g for g, _ in pairs], norm) for pairs, norm in results])
    assert not np.isfinite(not_finite)
    for (clipped, norm), factor in zip(found, (1.0, 0.2, 1.0)):
        assert norm == 5  # This is the norm before clipping.
        for value, original in zip(clipped, values):
            np.testing.assert_allclose(value, original * factor, rtol=1e-6)


@pytest.mark.parametrize("loss_scale", ["none", "8"])
def test_averages_equal_numpy(loss_scale: str) -> None:
    """Momentum minimizes (w - 3)^2 / 2; the average follows the updated weight."""
    settings = tiny.config(
        optim={"ema_decay": 0.9, "momentum": 0.5},
        precision={"loss_scale": loss_scale},
    )
    with tf.Graph().as_default(), tiny.session() as session:
        weight = tf.get_variable("weight", initializer=tf.constant([10.0, -2.0]))
        step = tf.train.get_or_create_global_step()
        optimizer = make_optimizer(settings.optim, tf.constant(0.1))
        optimizer = scale_loss(optimizer, settings.precision).optimizer
        gradients = optimizer.compute_gradients(tf.reduce_sum((weight - 3.0) ** 2) / 2)
        train_op = optimizer.apply_gradients(gradients, global_step=step)
        by_name = {v.op.name: v for v in tf.global_variables()}
        average = by_name["weight/ExponentialMovingAverage"]
        session.run(tf.global_variables_initializer())
        expected, velocity = np.array([10.0, -2.0]), np.zeros(2)
        expected_average = expected
        for number in range(1, 31):
            session.run(train_op)
            velocity = 0.5 * velocity + (expected - 3)
            expected = expected - 0.1 * velocity
            decay = min(
                0.9, (1 + number) / (10 + number)
            )  # The decay is smaller at first.
            expected_average = decay * expected_average + (1 - decay) * expected
            found = session.run([weight, average, step])
            np.testing.assert_allclose(found[0], expected, rtol=1e-4)
            np.testing.assert_allclose(found[1], expected_average, rtol=1e-4)
            assert found[2] == number


OPTIMIZERS: Dict[str, Dict[str, Any]] = {
    "momentum": {"learning_rate": 0.003},
    "nesterov": {"learning_rate": 0.003, "use_nesterov": True},
    "adam": {"optimizer": "adam", "learning_rate": 0.1},
    "lars": {"optimizer": "lars", "learning_rate": 1.0},
}


def losses(fields: Dict[str, Any]) -> List[float]:
    """Fit a linear function; return the loss of every step."""
    optim = tiny.config(optim=fields).optim
    random = np.random.RandomState(0)
    x = random.normal(size=[50, 8]).astype(np.float32)
    y = x @ random.normal(size=[8, 1]).astype(np.float32) + 0.5
    with tf.Graph().as_default(), tiny.session() as session:
        kernel = tf.get_variable("kernel", initializer=tf.ones([8, 1]))
        bias = tf.get_variable("bias", initializer=tf.zeros([1]))
        loss = tf.reduce_mean((tf.matmul(x, kernel) + bias - y) ** 2)
        optimizer = make_optimizer(optim, tf.constant(optim.learning_rate))
        train_op = optimizer.minimize(loss)
        slots = [v for v in tf.global_variables() if v.op.name.startswith("kernel/")]
        assert len(slots) == schema.OPTIMIZERS[optim.optimizer]
        session.run(tf.global_variables_initializer())
        return [session.run([loss, train_op])[0] for _ in range(100)]


def test_every_optimizer_lowers_the_loss_in_its_own_way() -> None:
    names = list(OPTIMIZERS)
    tested = {fields.get("optimizer", "momentum") for fields in OPTIMIZERS.values()}
    assert tested == set(schema.OPTIMIZERS)
    if not engine.is_1_15():
        names.remove("lars")
    found = {name: losses(OPTIMIZERS[name]) for name in names}
    for name in names:
        assert found[name][-1] < 0.5 * found[name][0], name
    assert len({round(values[3], 6) for values in found.values()}) == len(names)


def five_steps(optimizer: Any, variables: List[Any]) -> List[np.ndarray]:
    """Return the variables after five steps; gradients are sines of the step."""
    step = tf.train.get_or_create_global_step()
    gradient = tf.sin(1.0 + tf.cast(step, tf.float32) + tf.range(3.0))
    update = optimizer.apply_gradients([(gradient, v) for v in variables], step)
    with tiny.session() as session:
        session.run(tf.global_variables_initializer())
        for _ in range(5):
            session.run(update)
        assert session.run(step) == 5
        return session.run(variables)


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_warm_variables_have_a_rate_of_their_own(name: str) -> None:
    """The result equals, bit by bit, separate trainings with separate rates."""
    if name == "lars":
        pytest.importorskip("tensorflow.contrib.opt")
    optim = tiny.config(optim=OPTIMIZERS[name]).optim
    names = ["cold/kernel", "warm/kernel"]
    for num_warm in range(3):
        warm = names[2 - num_warm :]
        with tf.Graph().as_default():
            variables = [tf.get_variable(n, initializer=[1.0, 2.0, 3.0]) for n in names]
            optimizer = make_optimizer(
                optim, tf.constant(0.5), False, lambda v: v.op.name in warm, 0.125
            )
            found = five_steps(optimizer, variables)
        for variable, values in zip(names, found):
            with tf.Graph().as_default():
                alone = tf.get_variable(variable, initializer=[1.0, 2.0, 3.0])
                own_rate = 0.5 * (0.125 if variable in warm else 1.0)
                optimizer = make_optimizer(optim, tf.constant(own_rate))
                (expected,) = five_steps(optimizer, [alone])
            np.testing.assert_array_equal(values, expected)


def test_warm_variables_decay_like_the_others() -> None:
    """The optimizer itself applies the decay, whose step has the warm rate, too."""
    fields = {"optimizer": "momentum", "momentum": 0.5, "weight_decay": 0.4}
    optim = tiny.config(optim=fields).optim
    with tf.Graph().as_default(), tiny.session() as session:
        step = tf.train.get_or_create_global_step()
        names = ("cold", "warm")
        kernels = [tf.get_variable(n, initializer=[[1.0], [2.0]]) for n in names]
        optimizer = make_optimizer(
            optim, tf.constant(0.5), True, lambda v: v.op.name == "warm", 0.5
        )
        pairs = [(tf.zeros([2, 1]), kernel) for kernel in kernels]
        update = optimizer.apply_gradients(pairs, step)
        session.run(tf.global_variables_initializer())
        session.run(update)
        found = session.run(kernels)
    for values, rate in zip(found, (0.5, 0.25)):
        left = 1 - rate * 0.4
        np.testing.assert_allclose(values, [[left], [2 * left]], rtol=1e-6)


def test_first_steps_of_momentum_nesterov_and_adam() -> None:
    """The expected values of two steps from weight 0 were computed by hand."""
    expected = {
        "momentum": -0.1 * (1 + 2.5),
        "nesterov": -0.1 * (1.5 + (2 + 0.5 * 2.5)),
        # Bias-corrected means of beta1 = 0.5, beta2 = 0.999.
        "adam": -0.1 * (1 + (0.25 + 1.0) / 0.75 / np.sqrt(4.999 / 1.999)),
    }
    for name, value in expected.items():
        fields = {**OPTIMIZERS[name], "momentum": 0.5}
        with tf.Graph().as_default(), tiny.session() as session:
            weight = tf.get_variable("weight", initializer=0.0)
            gradient = tf.placeholder(tf.float32, [])
            optimizer = make_optimizer(tiny.config(optim=fields).optim, 0.1)
            update = optimizer.apply_gradients([(gradient, weight)])
            session.run(tf.global_variables_initializer())
            for number in (1.0, 2.0):
                session.run(update, {gradient: number})
            assert session.run(weight) == pytest.approx(value, rel=1e-4), name


@pytest.mark.skipif(not engine.is_1_15(), reason="LARS is in tf.contrib of 1.15")
def test_lars_scales_kernels_by_their_trust_ratio() -> None:
    optim = tiny.config(optim=OPTIMIZERS["lars"]).optim
    with tf.Graph().as_default(), tiny.session() as session:
        kernel = tf.get_variable("kernel", initializer=[3.0, 4.0])
        bias = tf.get_variable("bias", initializer=[3.0, 4.0])
        pairs = [(tf.constant([0.0, 2.0]), variable) for variable in (kernel, bias)]
        update = make_optimizer(optim, tf.constant(0.1)).apply_gradients(pairs)
        session.run(tf.global_variables_initializer())
        session.run(update)
        found = session.run([kernel, bias])
    # 0.001 |w| / |g|; biases move as without LARS.
    np.testing.assert_allclose(found[0], [3, 4 - 0.1 * 0.001 * 5 / 2 * 2], rtol=1e-6)
    np.testing.assert_allclose(found[1], [3, 4 - 0.1 * 2], rtol=1e-6)
