"""Losses over button logits."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def binary_cross_entropy(
    logits: ArrayLike,
    actions: ArrayLike,
    class_weights: ArrayLike,
    label_smoothing: float,
    mask: ArrayLike | None = None,
) -> jax.Array:
    """Mean over batch and buttons of -w a log p - (1 - a) log(1 - p), with p = sigmoid(logits).

    Label smoothing s first moves the targets a towards 1/2: a (1 - s) + s / 2.

    Args:
        logits: float32 [..., A].
        actions: bool [..., A].
        class_weights: float32 [A], w: the weight of the side where the button is held.
        label_smoothing: s in [0, 1).
        mask: bool [...], False where there is no action to match; None for nowhere.

    Returns:
        float32 scalar.
    """
    logits = jnp.asarray(logits)
    targets = jnp.asarray(actions).astype(logits.dtype) * (1 - label_smoothing) + label_smoothing / 2
    log_p, log_not_p = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    weights = jnp.asarray(class_weights).reshape(*(1,) * (targets.ndim - 1), -1)
    losses = -(weights * targets * log_p + (1 - targets) * log_not_p).mean(axis=-1)
    return losses.mean(where=None if mask is None else jnp.asarray(mask))


def make_loss(config, class_weights):
    return lambda logits, actions, mask=None: binary_cross_entropy(logits, actions, class_weights, config.label_smoothing, mask)
