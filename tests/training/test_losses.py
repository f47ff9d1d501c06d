from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from BC_training.common.schema import TrainingConfig
from BC_training.training.losses import focal_loss, make_loss

binary_cross_entropy = partial(focal_loss, gamma=0.0)


def oracle(logits, actions, weights, smoothing, gamma=0.0) -> float:
    """The docstrings' formula in float64."""
    x = np.asarray(logits, np.float64)
    targets = np.asarray(actions, np.float64) * (1 - smoothing) + smoothing / 2
    log_p, log_not_p = -np.logaddexp(0, -x), -np.logaddexp(0, x)
    held = np.asarray(weights, np.float64) * targets * np.exp(gamma * log_not_p) * log_p
    return float(-(held + (1 - targets) * np.exp(gamma * log_p) * log_not_p).mean())


LOGITS = hnp.arrays(np.float32, (5, 3), elements=st.floats(-80, 80, width=32))
ACTIONS = hnp.arrays(bool, (5, 3))
WEIGHTS = hnp.arrays(np.float32, 3, elements=st.floats(0.0625, 16, width=32))


@given(logits=LOGITS, actions=ACTIONS)
def test_without_weights_it_is_the_plain_binary_cross_entropy(logits, actions):
    ours = binary_cross_entropy(logits, actions, np.ones(3, np.float32), 0.0)
    assert (ours.dtype, ours.shape) == (jnp.float32, ())
    theirs = optax.sigmoid_binary_cross_entropy(jnp.asarray(logits), jnp.asarray(actions).astype(jnp.float32)).mean()
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@given(logits=LOGITS, actions=ACTIONS, weights=WEIGHTS, smoothing=st.floats(0, 0.9))
def test_weights_and_smoothing(logits, actions, weights, smoothing):
    ours = binary_cross_entropy(logits, actions, weights, smoothing)
    np.testing.assert_allclose(ours, oracle(logits, actions, weights, smoothing), rtol=2e-6)


def test_a_weight_counts_only_where_its_button_is_held():
    logits = np.array([[0.5, -1.0], [2.0, 0.0]], np.float32)
    held, released = np.array([[True, False], [True, False]]), np.zeros((2, 2), bool)
    one, heavy = np.ones(2, np.float32), np.array([3, 1], np.float32)
    assert binary_cross_entropy(logits, released, heavy, 0.0) == binary_cross_entropy(logits, released, one, 0.0)
    first_column = -np.log(1 / (1 + np.exp(-logits[:, 0].astype(np.float64)))).sum() / 4
    difference = binary_cross_entropy(logits, held, heavy, 0.0) - binary_cross_entropy(logits, held, one, 0.0)
    np.testing.assert_allclose(difference, 2 * first_column, rtol=1e-6)


def test_extreme_logits_are_finite():
    logits = np.array([[-1e4, 1e4]], np.float32)
    for actions in ([[True, False]], [[False, True]]):
        loss = binary_cross_entropy(logits, np.array(actions), np.ones(2, np.float32), 0.1)
        assert np.isfinite(loss)
        assert np.isfinite(
            jax.grad(lambda x, a=actions: binary_cross_entropy(x, np.array(a), np.ones(2, np.float32), 0.1))(logits)
        ).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_gradient_is_that_of_the_formula(smoothing):
    """The mean's gradient is ((1 - a) p - w a (1 - p)) / (B A)."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4, 3)).astype(np.float32)
    actions, weights = rng.random((4, 3)) < 0.5, np.array([1, 0.5, 4], np.float32)
    grad = jax.grad(binary_cross_entropy)(logits, actions, weights, smoothing)
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    targets = actions * (1 - smoothing) + smoothing / 2
    np.testing.assert_allclose(grad, ((1 - targets) * p - weights * targets * (1 - p)) / 12, rtol=1e-5, atol=1e-7)


def test_dtypes_are_never_promoted_silently():
    with jax.numpy_dtype_promotion("strict"):
        loss = binary_cross_entropy(np.ones((2, 3), np.float32), np.ones((2, 3), bool), np.ones(3, np.float32), 0.1)
    assert loss.dtype == jnp.float32


# --- focal loss ----------------------------------------------------------------------------


@given(logits=LOGITS, actions=ACTIONS, gamma=st.floats(0, 10))
def test_without_weights_it_is_the_plain_focal_loss(logits, actions, gamma):
    ours = focal_loss(logits, actions, np.ones(3, np.float32), 0.0, gamma)
    assert (ours.dtype, ours.shape) == (jnp.float32, ())
    theirs = optax.sigmoid_focal_loss(jnp.asarray(logits), jnp.asarray(actions).astype(jnp.float32), gamma=gamma)
    np.testing.assert_allclose(ours, theirs.mean(), rtol=1e-4, atol=1e-30)


@given(logits=LOGITS, actions=ACTIONS, weights=WEIGHTS, smoothing=st.floats(0, 0.9), gamma=st.floats(0, 10))
def test_focal_loss_with_weights_and_smoothing(logits, actions, weights, smoothing, gamma):
    ours = focal_loss(logits, actions, weights, smoothing, gamma)
    np.testing.assert_allclose(ours, oracle(logits, actions, weights, smoothing, gamma), rtol=1e-4, atol=1e-30)


@given(logits=LOGITS, actions=ACTIONS, weights=WEIGHTS, smoothing=st.floats(0, 0.9))
def test_focal_loss_with_gamma_0_is_exactly_the_binary_cross_entropy(logits, actions, weights, smoothing):
    focal = focal_loss(logits, actions, weights, smoothing, 0.0)
    assert float(focal) == float(binary_cross_entropy(logits, actions, weights, smoothing))


@pytest.mark.parametrize("gamma", [1e-3, 0.5, 1.0, 2.0, 10.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_gradients_of_the_focal_loss_are_finite_at_extreme_logits(gamma, smoothing):
    logits = np.array([[-1e4, -100, -90, -1e-30, 0, 90, 100, 1e4]], np.float32)
    for actions in (np.zeros((1, 8), bool), np.ones((1, 8), bool)):
        loss, gradient = jax.value_and_grad(focal_loss)(logits, actions, np.ones(8, np.float32), smoothing, gamma)
        assert np.isfinite(loss)
        assert np.isfinite(gradient).all()


def test_focal_loss_counts_what_is_predicted_well_less():
    """At a probability of 0.9 for the truth, (1 - 0.9)^2 = 1/100 of the cross-entropy."""
    logits, held = np.log([[9.0]]).astype(np.float32), np.array([[True]])
    one = np.ones(1, np.float32)
    ratio = focal_loss(logits, held, one, 0.0, 2.0) / binary_cross_entropy(logits, held, one, 0.0)
    np.testing.assert_allclose(ratio, 0.01, rtol=1e-4)


@pytest.mark.parametrize("name", ["bce", "focal"])
def test_make_loss_follows_the_config(name):
    rng = np.random.default_rng(0)
    logits, actions = rng.normal(size=(4, 2, 3)).astype(np.float32), rng.random((4, 2, 3)) < 0.5
    weights, mask = np.array([1, 0.5, 4], np.float32), np.array([[1, 1], [1, 0], [0, 1], [1, 1]], bool)
    loss = make_loss(TrainingConfig(loss=name, focal_gamma=1.5, label_smoothing=0.2), weights)
    gamma = {"bce": 0.0, "focal": 1.5}[name]
    np.testing.assert_allclose(loss(logits, actions), oracle(logits, actions, weights, 0.2, gamma), rtol=1e-5)
    expected = oracle(logits[mask], actions[mask], weights, 0.2, gamma)
    np.testing.assert_allclose(loss(logits, actions, mask=mask), expected, rtol=1e-5)
