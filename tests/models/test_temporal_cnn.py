"""TemporalCNN remembers earlier frames and knows nothing of later ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from BC_training.common.preprocess import InputSpec, Window
from BC_training.models.layers import LSTM
from BC_training.models.temporal_cnn.model import Config, create_model

HISTORY, SIZE = 5, (8, 16)
SMALL = {"conv_features": (4,), "conv_strides": (2,), "position_features": 2, "features": 8, "heads": 2, "dropout": 0.0}


def make(action_history: int = 0, **fields):
    window = Window(HISTORY, action_history=action_history, every_frame=True)
    inputs = InputSpec(("a", "b", "c"), (), SIZE, SIZE, 17.0, window)
    return create_model(Config("temporal_cnn", **(SMALL | fields)), inputs, nnx.Rngs(0))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_an_lstm_follows_its_equations():
    layer, x = LSTM(3, 4, rngs=nnx.Rngs(0)), np.random.default_rng(0).normal(size=(2, 6, 3)).astype(np.float32)
    kernel, bias, recurrent = (np.asarray(p[...]) for p in (layer.inputs.kernel, layer.inputs.bias, layer.recurrent))
    np.testing.assert_array_equal(bias, [*[0] * 4, *[1] * 4, *[0] * 8])
    cell, hidden = np.zeros((2, 4)), np.zeros((2, 4))
    for t, found in enumerate(np.moveaxis(np.asarray(layer(jnp.asarray(x))), 1, 0)):
        gates = x[:, t] @ kernel + bias + hidden @ recurrent
        enter, forget, leave = (sigmoid(gates[:, 4 * i : 4 * i + 4]) for i in range(3))
        cell = forget * cell + enter * np.tanh(gates[:, 12:])
        hidden = leave * np.tanh(cell)
        np.testing.assert_allclose(found, hidden, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("temporal", ["lstm", "transformer"])
def test_a_frame_changes_the_memory_from_it_on_and_not_before(temporal):
    model = make(temporal=temporal)
    features = np.random.default_rng(0).normal(size=(1, HISTORY, 8)).astype(np.float32)
    changed = features.copy()
    changed[:, 2] += 1
    remember = jax.jit(lambda x: model.remember(x, train=False))
    before, after = (np.asarray(remember(jnp.asarray(x))) for x in (features, changed))
    np.testing.assert_array_equal(before[:, :2], after[:, :2])
    assert (before[:, 2:] != after[:, 2:]).any(axis=-1).all()


def knows(model, **options) -> np.ndarray:
    """bool [B, T]: whether the features of a frame depend on the previous actions."""
    frames = jnp.asarray(np.random.default_rng(0).random((300, HISTORY, 3, *SIZE), np.float32))
    pressed, released = (jnp.full((300, HISTORY, 2, 3), value) for value in (True, False))
    first, second = (
        np.asarray(model.encode({"frames": frames, "previous_actions": a}, rngs=nnx.Rngs(dropout=1), **options))
        for a in (pressed, released)
    )
    return (first != second).any(axis=-1)


@pytest.mark.parametrize(("rate", "low", "high"), [(0.0, 1, 1), (0.5, 0.4, 0.6), (0.9, 0.05, 0.15)])
def test_previous_actions_are_hidden_for_whole_samples_and_never_in_play(rate, low, high):
    model = make(action_history=2, action_dropout=rate)
    with jax.numpy_rank_promotion("allow"):
        known = knows(model, train=True)
        assert knows(model, train=False).all()
    assert (known == known[:, :1]).all()
    assert low <= known.mean() <= high
