import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from BC_training.common.axes import AxisBins
from BC_training.common.schema import TrainingConfig
from BC_training.training.losses import focal_loss, make_loss


def oracle(logits, actions, weights, smoothing, gamma) -> float:
    """The docstring's formula in float64."""
    x = np.asarray(logits, np.float64)
    targets = np.asarray(actions, np.float64) * (1 - smoothing) + smoothing / 2
    log_p, log_not_p = -np.logaddexp(0, -x), -np.logaddexp(0, x)
    held = np.asarray(weights, np.float64) * targets * np.exp(gamma * log_not_p) * log_p
    return float(-(held + (1 - targets) * np.exp(gamma * log_p) * log_not_p).mean())


LOGITS = hnp.arrays(np.float32, (5, 3), elements=st.floats(-80, 80, width=32))
ACTIONS = hnp.arrays(bool, (5, 3))
WEIGHTS = hnp.arrays(np.float32, 3, elements=st.floats(0.0625, 16, width=32))


@given(logits=LOGITS, actions=ACTIONS)
def test_without_weights_the_loss_is_the_plain_binary_cross_entropy(logits, actions):
    ours = focal_loss(logits, actions, np.ones(3, np.float32), 0.0, gamma=0.0)
    assert (ours.dtype, ours.shape) == (jnp.float32, ())
    theirs = optax.sigmoid_binary_cross_entropy(jnp.asarray(logits), jnp.asarray(actions).astype(jnp.float32)).mean()
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_gradient_of_the_cross_entropy_follows_its_formula(smoothing):
    """The mean's gradient is ((1 - a) p - w a (1 - p)) / (B A)."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4, 3)).astype(np.float32)
    actions, weights = rng.random((4, 3)) < 0.5, np.array([1, 0.5, 4], np.float32)
    grad = jax.grad(focal_loss)(logits, actions, weights, smoothing, 0.0)
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    targets = actions * (1 - smoothing) + smoothing / 2
    np.testing.assert_allclose(grad, ((1 - targets) * p - weights * targets * (1 - p)) / 12, rtol=1e-5, atol=1e-7)


@given(logits=LOGITS, actions=ACTIONS, gamma=st.floats(0, 10))
def test_without_weights_the_loss_is_the_plain_focal_loss(logits, actions, gamma):
    ours = focal_loss(logits, actions, np.ones(3, np.float32), 0.0, gamma)
    assert (ours.dtype, ours.shape) == (jnp.float32, ())
    theirs = optax.sigmoid_focal_loss(jnp.asarray(logits), jnp.asarray(actions).astype(jnp.float32), gamma=gamma)
    np.testing.assert_allclose(ours, theirs.mean(), rtol=1e-4, atol=1e-30)


@given(LOGITS, ACTIONS, WEIGHTS, st.floats(0, 0.9), st.just(0.0) | st.floats(0, 10))
def test_the_loss_follows_its_formula_with_weights_and_smoothing(logits, actions, weights, smoothing, gamma):
    ours = focal_loss(logits, actions, weights, smoothing, gamma)
    precision = 1e-4 if gamma else 2e-6
    np.testing.assert_allclose(ours, oracle(logits, actions, weights, smoothing, gamma), rtol=precision, atol=1e-30)


@pytest.mark.parametrize("gamma", [0.0, 1e-3, 1.0, 10.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_and_gradients_are_finite_at_extreme_logits(gamma, smoothing):
    logits = np.array([[-1e4, -100, -90, -1e-30, 0, 90, 100, 1e4]], np.float32)
    for actions in (np.zeros((1, 8), bool), np.ones((1, 8), bool)):
        loss, gradient = jax.value_and_grad(focal_loss)(logits, actions, np.ones(8, np.float32), smoothing, gamma)
        assert np.isfinite(loss)
        assert np.isfinite(gradient).all()


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


@pytest.mark.parametrize("buttons", [3, 0])
def test_the_loss_of_axes_is_their_cross_entropy_beside_that_of_the_buttons(buttons):
    """Against float64; masked actions count nowhere."""
    rng, bins = np.random.default_rng(0), AxisBins((1.0, 2.0), 5, 10.0)
    logits = rng.normal(size=(4, 2, buttons + 10)).astype(np.float32)
    actions, axes = rng.random((4, 2, buttons)) < 0.5, rng.integers(0, 5, (4, 2, 2)).astype(np.int32)
    mask, weights = np.array([[1, 1], [1, 0], [0, 1], [1, 1]], bool), np.array([1, 0.5, 4], np.float32)[:buttons]
    loss = make_loss(TrainingConfig(axis_loss_weight=0.7), weights, bins)
    x = logits[..., buttons:].reshape(4, 2, 2, 5).astype(np.float64)
    log_p = x - np.log(np.exp(x).sum(axis=-1, keepdims=True))
    of_axes = -np.take_along_axis(log_p, axes[..., None], axis=-1)[..., 0].mean(axis=-1)
    expected = 0.7 * of_axes[mask].mean()
    if buttons:
        expected += oracle(logits[mask][:, :buttons], actions[mask], weights, 0.0, 0.0)
    np.testing.assert_allclose(loss(logits, actions, axes=axes, mask=mask), expected, rtol=1e-5)
