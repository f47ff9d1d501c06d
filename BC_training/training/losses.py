"""Losses over the logits of buttons and axes."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Bool, Float, Int32

from BC_training.common.axes import AxisBins
from BC_training.common.schema import TrainingConfig

Array = jax.Array | np.ndarray
Loss = Callable[..., jax.Array]  # (logits, actions, axes=None, mask=None) to a float32 scalar


def make_loss(config: TrainingConfig, class_weights: Float[Array, " A"], bins: AxisBins | None = None) -> Loss:
    """The loss of ``training.loss``, for training and validation alike.

    With axes, their mean cross-entropy is added, ``training.axis_loss_weight`` times.
    """
    gamma = config.focal_gamma if config.loss == "focal" else 0.0
    of_buttons = partial(focal_loss, class_weights=class_weights, label_smoothing=config.label_smoothing, gamma=gamma)
    if bins is None:
        return lambda logits, actions, axes=None, mask=None, known=None: of_buttons(
            logits, actions, mask=mask, known=known
        )
    buttons = len(class_weights)

    def loss(
        logits: Array, actions: Array, axes: Array, mask: Array | None = None, known: Array | None = None
    ) -> jax.Array:
        logits = jnp.asarray(logits)
        of_axes = logits[..., buttons:].reshape(*logits.shape[:-1], -1, bins.count)
        total = config.axis_loss_weight * axis_loss(of_axes, axes, mask)
        return total + of_buttons(logits[..., :buttons], actions, mask=mask, known=known) if buttons else total

    return loss


def axis_loss(
    logits: Float[Array, "*batch X bins"], axes: Int32[Array, "*batch X"], mask: Bool[Array, "*batch"] | None = None
) -> Float[jax.Array, ""]:
    """Mean cross-entropy over batch and axes, ``axes`` being the right bins; ``mask`` as in ``focal_loss``."""
    losses = optax.softmax_cross_entropy_with_integer_labels(jnp.asarray(logits), jnp.asarray(axes))
    return losses.mean(axis=-1).mean(where=None if mask is None else jnp.asarray(mask))


def focal_loss(
    logits: Float[Array, "*batch A"],
    actions: Bool[Array, "*batch A"],
    class_weights: Float[Array, " A"],
    label_smoothing: float,
    gamma: float,
    mask: Bool[Array, "*batch"] | None = None,
    known: Bool[Array, "*batch A"] | None = None,
) -> Float[jax.Array, ""]:
    """Mean over batch and buttons of -w a (1 - p)^g log p - (1 - a) p^g log(1 - p), p = sigmoid(logits).

    The focal loss is equation 5 of Lin et al. 2017, "Focal Loss for Dense Object Detection". Label smoothing s first
    moves the targets a towards 1/2: a (1 - s) + s / 2.

    Args:
        class_weights: w, the weight of the side where the button is held.
        label_smoothing: s in [0, 1).
        gamma: g, 0 or more: how much less a frame counts the surer and righter its logit; 0 is the binary
            cross-entropy.
        mask: False where there is no action to match; None where there is one everywhere.
        known: False where a button was not recorded, of each action at most all but one; None where all were.
    """
    logits = jnp.asarray(logits)
    targets = jnp.asarray(actions).astype(logits.dtype) * (1 - label_smoothing) + label_smoothing / 2
    log_p, log_not_p = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    weights = jnp.asarray(class_weights).reshape(*(1,) * (targets.ndim - 1), -1)
    held, released = weights * targets * log_p, (1 - targets) * log_not_p
    if gamma > 0:
        # As exponentials of logarithms, whose gradients are finite where p is 0 or 1.
        held, released = held * jnp.exp(gamma * log_not_p), released * jnp.exp(gamma * log_p)
    losses = -(held + released).mean(axis=-1, where=None if known is None else jnp.asarray(known))
    return losses.mean(where=None if mask is None else jnp.asarray(mask))
