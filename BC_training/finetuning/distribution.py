"""What a policy's logits say of actions: buttons are independent Bernoullis, axes are categoricals over their bins."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int32

from BC_training.common.preprocess import InputSpec


class Choice(NamedTuple):
    """An action as the policy draws it."""

    buttons: Bool[jax.Array, "*B A"]
    bins: Int32[jax.Array, "*B X"]


def sample(key: jax.Array, logits: Float[jax.Array, "*B L"], inputs: InputSpec) -> Choice:
    """Draws an action for each row of logits."""
    buttons, axes = inputs.split_logits(logits)
    of_buttons, of_axes = jax.random.split(key)
    if not inputs.axis_names:  # a categorical of no bins has no draw
        bins = jnp.zeros((*logits.shape[:-1], 0), jnp.int32)
    else:
        bins = jax.random.categorical(of_axes, axes).astype(jnp.int32)
    return Choice(jax.random.bernoulli(of_buttons, jax.nn.sigmoid(buttons)), bins)


def log_probability(logits: Float[jax.Array, "*B L"], choice: Choice, inputs: InputSpec) -> Float[jax.Array, "*B"]:
    """The logarithm of the probability of an action: the sum over its buttons and axes."""
    buttons, axes = inputs.split_logits(logits)
    of_buttons = jax.nn.log_sigmoid(jnp.where(choice.buttons, buttons, -buttons)).sum(-1)
    if not inputs.axis_names:
        return of_buttons
    of_axes = jnp.take_along_axis(jax.nn.log_softmax(axes), choice.bins[..., None], axis=-1)
    return of_buttons + of_axes.sum((-2, -1))


def entropy(logits: Float[jax.Array, "*B L"], inputs: InputSpec) -> Float[jax.Array, "*B"]:
    """In nats."""
    buttons, axes = inputs.split_logits(logits)
    # H = log(1 + e^-l) + l (1 - p), which stays exact where p is near 0 or 1.
    of_buttons = (jax.nn.softplus(-buttons) + buttons * jax.nn.sigmoid(-buttons)).sum(-1)
    if not inputs.axis_names:
        return of_buttons
    logs = jax.nn.log_softmax(axes)
    return of_buttons - (jnp.exp(logs) * logs).sum((-2, -1))


def divergence(
    logits: Float[jax.Array, "*B L"], of_clone: Float[jax.Array, "*B L"], inputs: InputSpec
) -> Float[jax.Array, "*B"]:
    """The KL divergence of the policy from the clone, KL(policy || clone), in nats."""
    ours, axes = inputs.split_logits(logits)
    theirs, clone_axes = inputs.split_logits(of_clone)
    p = jax.nn.sigmoid(ours)
    held = p * (jax.nn.log_sigmoid(ours) - jax.nn.log_sigmoid(theirs))
    free = (1 - p) * (jax.nn.log_sigmoid(-ours) - jax.nn.log_sigmoid(-theirs))
    of_buttons = (held + free).sum(-1)
    if not inputs.axis_names:
        return of_buttons
    logs, others = jax.nn.log_softmax(axes), jax.nn.log_softmax(clone_axes)
    return of_buttons + (jnp.exp(logs) * (logs - others)).sum((-2, -1))
