"""Proximal policy optimisation (Schulman et al. 2017), held near the clone that it begins at.

The loss is the clipped objective, the squared error of the value, an entropy bonus, and the KL divergence from the
frozen clone. At first only the value head learns: as it starts from nothing, its advantages would ruin the policy.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int32

from BC_training.common.settings.finetune import FinetuneConfig
from BC_training.finetuning.distribution import Choice, divergence, entropy, log_probability, sample
from BC_training.finetuning.experience import RewardScale
from BC_training.finetuning.network import Network
from BC_training.training.train_state import TrainState, Tree


class Played(NamedTuple):
    """What a minibatch of M steps learns from."""

    choice: Choice
    log_probability: Float[jax.Array, " M"]  # of the choice, when it was made
    advantage: Float[jax.Array, " M"]
    returns: Float[jax.Array, " M"]  # what the value should have said
    of_clone: Float[jax.Array, "M L"]  # the clone's logits


class UpdateMetrics(NamedTuple):
    """What an update reports; float32 scalars on the device."""

    loss: jax.Array
    policy_loss: jax.Array
    value_loss: jax.Array
    entropy: jax.Array  # nats a step
    kl: jax.Array  # from the clone, nats a step
    moved: jax.Array  # the KL divergence from what played, an estimate that is 0 or more
    clipped: jax.Array  # share of steps
    grad_norm: jax.Array  # of the policy, before clipping


def make_optimizer(config: FinetuneConfig) -> optax.GradientTransformation:
    """Adam behind global-norm clipping, with the rate that the config's schedule says."""
    updates = config.iterations * config.epochs * config.minibatches
    rate = config.learning_rate
    schedule = optax.linear_schedule(rate, 0.0, updates) if config.schedule == "linear" else rate
    return optax.chain(optax.clip_by_global_norm(config.gradient_clip_norm), optax.adam(schedule, eps=1e-5))


def begin(policy: Tree, stats: Tree, value: Tree, optimizer: optax.GradientTransformation, kl: float) -> TrainState:
    """The state before the first update; what no policy needs to play is in ``opt_state``."""
    learner = {
        "policy": optimizer.init(policy),
        "value": optimizer.init(value),
        "value_head": value,
        "clone": jax.tree.map(jnp.copy, policy),
        "kl": jnp.asarray(kl, jnp.float32),
        "rewards": jnp.asarray(RewardScale.START, jnp.float32),  # its moments
        "episodes": jnp.zeros((), jnp.int32),  # begun so far, of all games
    }
    return TrainState(jnp.zeros((), jnp.int32), policy, stats, learner)


def loss_of(
    logits: Float[jax.Array, "M L"],
    value: Float[jax.Array, " M"],
    played: Played,
    kl_weight: jax.Array,
    config: FinetuneConfig,
    network: Network,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The loss of a minibatch, and its parts by the names of ``UpdateMetrics``."""
    inputs = network.model.inputs
    now = log_probability(logits, played.choice, inputs)
    ratio = jnp.exp(now - played.log_probability)
    advantage = (played.advantage - played.advantage.mean()) / (played.advantage.std() + 1e-8)
    near = jnp.clip(ratio, 1 - config.clip, 1 + config.clip)
    parts = {
        "policy_loss": -jnp.minimum(ratio * advantage, near * advantage).mean(),
        "value_loss": 0.5 * jnp.square(value - played.returns).mean(),
        "entropy": entropy(logits, inputs).mean(),
        "kl": divergence(logits, played.of_clone, inputs).mean(),
        "moved": (ratio - 1 - (now - played.log_probability)).mean(),
        "clipped": (jnp.abs(ratio - 1) > config.clip).mean(),
    }
    loss = parts["policy_loss"] + config.value_weight * parts["value_loss"]
    return loss - config.entropy * parts["entropy"] + kl_weight * parts["kl"], parts


def make_update(
    network: Network, optimizer: optax.GradientTransformation, config: FinetuneConfig, *, only_value: bool
) -> Callable[..., tuple[TrainState, UpdateMetrics]]:
    """The jitted update by a minibatch.

    Returns:
        A function of (state, data, where, played) to (state, UpdateMetrics); ``data`` and ``where`` are those of
        ``Forward``. The state is not donated: one that is interrupted begins again at the last.
    """
    forward = partial(look, network)

    def update(state: TrainState, data: Any, where: Any, played: Played) -> tuple[TrainState, UpdateMetrics]:
        learner = state.opt_state

        def loss(trees: tuple[Tree, Tree]) -> tuple[jax.Array, dict[str, jax.Array]]:
            policy = jax.lax.stop_gradient(trees[0]) if only_value else trees[0]
            logits, value = forward(policy, state.batch_stats, trees[1], data, where)
            return loss_of(logits, value, played, learner["kl"], config, network)

        trees = state.params, learner["value_head"]
        (total, parts), (of_policy, of_value) = jax.value_and_grad(loss, has_aux=True)(trees)
        steps, value_optimizer = optimizer.update(of_value, learner["value"], trees[1])
        value, policy, policy_optimizer = optax.apply_updates(trees[1], steps), state.params, learner["policy"]
        if not only_value:
            steps, policy_optimizer = optimizer.update(of_policy, policy_optimizer, policy)
            policy = optax.apply_updates(policy, steps)
        learner = learner | {"policy": policy_optimizer, "value": value_optimizer, "value_head": value}
        metrics = UpdateMetrics(loss=total, grad_norm=optax.tree.norm(of_policy), **parts)
        return TrainState(state.step + 1, policy, state.batch_stats, learner), metrics

    return jax.jit(update)


def look(
    network: Network, policy: Tree, stats: Tree, value: Tree, data: dict[str, jax.Array], where: dict[str, jax.Array]
) -> tuple[Float[jax.Array, "M L"], Float[jax.Array, " M"]]:
    """Logits and values of M steps whose frames are in ``data``.

    Args:
        data: "frames" uint8 [rows, N, 3, h, w].
        where: "rows" int32 [M, T] and "games" int32 [M], and the rest of the observation. Of a policy that streams
            "encode" has the rows and games [2, n] of the n frames to be encoded, each once, the rest is of these, and
            "rows" are [M, T] among the n.
    """
    rest = {name: part for name, part in where.items() if name not in ("rows", "games", "encode")}
    if not network.is_streaming:
        frames = data["frames"][where["rows"], where["games"][:, None]]
        return network(policy, stats, value, {"frames": frames} | rest)
    rows, games = where["encode"]
    features = network.encode(policy, stats, {"frames": data["frames"][rows, games][:, None]} | rest)
    return network.remember(policy, stats, value, features[where["rows"]])


def make_look(network: Network) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """The jitted ``look``."""
    return jax.jit(partial(look, network))


def make_act(network: Network, seed: int) -> Callable[..., tuple[Choice, jax.Array, jax.Array]]:
    """The jitted choice of an action for each of N games.

    Returns:
        A function of (policy, stats, value, seen, step) to the choice, its log probability and the value, [N] each.
        ``seen`` is an observation of windows or, of a policy that streams, features [N, T, F]; the draws follow from
        ``seed`` and ``step``, the steps played so far.
    """
    key = jax.random.key(seed)

    def act(policy: Tree, stats: Tree, value: Tree, seen: Any, step: Int32[jax.Array, ""]):
        outputs = network.remember if network.is_streaming else network
        logits, values = outputs(policy, stats, value, seen)
        choice = sample(jax.random.fold_in(key, step), logits, network.model.inputs)
        return choice, log_probability(logits, choice, network.model.inputs), values

    return jax.jit(act)


def next_kl_weight(weight: jax.Array, kl: float, config: FinetuneConfig) -> jax.Array:
    """The weight of the divergence after an iteration in which it was ``kl``.

    It decays, or goes up and down by half where the divergence is more than 1.5 times off its target.
    """
    if config.kl_target is None:
        return weight * config.kl_decay
    if kl > 1.5 * config.kl_target:
        return jnp.maximum(weight, 1e-4) * 1.5
    return weight / 1.5 if kl < config.kl_target / 1.5 else weight


def mean_of(metrics: Sequence[UpdateMetrics]) -> dict[str, float]:
    """The means over several updates."""
    columns = zip(*metrics, strict=True)
    return {name: float(np.mean(values)) for name, values in zip(UpdateMetrics._fields, columns, strict=True)}
