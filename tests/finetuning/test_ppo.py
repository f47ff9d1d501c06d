"""The mathematics of the update, against NumPy in float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from BC_training.common.axes import AxisBins
from BC_training.common.preprocess import InputSpec
from BC_training.common.settings.finetune import FinetuneConfig
from BC_training.finetuning.distribution import Choice, divergence, entropy, log_probability, sample
from BC_training.finetuning.experience import RewardScale, advantages
from BC_training.finetuning.network import ValueHead
from BC_training.finetuning.ppo import Played, loss_of, next_kl_weight

BUTTONS, AXES, BINS = 2, 2, 3
INPUTS = InputSpec(
    ("a", "b"), (), (24, 32), (24, 32), 10.0, axis_names=("x", "y"), axis_bins=AxisBins((1.0, 2.0), BINS, 10.0)
)
L = BUTTONS + AXES * BINS


class _Net:
    """What ``loss_of`` takes of a network."""

    class model:
        inputs = INPUTS


def actions() -> list[tuple[np.ndarray, np.ndarray]]:
    """Every action there is."""
    return [
        (np.array(held), np.array(bins))
        for held in itertools.product((False, True), repeat=BUTTONS)
        for bins in itertools.product(range(BINS), repeat=AXES)
    ]


def probability(logits: np.ndarray, held: np.ndarray, bins: np.ndarray) -> float:
    """By the definition, in float64."""
    p = 1 / (1 + np.exp(-logits[:BUTTONS]))
    axes = np.exp(logits[BUTTONS:].reshape(AXES, BINS))
    axes /= axes.sum(-1, keepdims=True)
    return float(np.where(held, p, 1 - p).prod() * axes[np.arange(AXES), bins].prod())


@pytest.fixture
def logits() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(2, L)) * 2


def test_probabilities_entropy_and_divergence_are_sums_over_all_actions(logits):
    ours, theirs = logits
    p = np.array([probability(ours, *action) for action in actions()])
    q = np.array([probability(theirs, *action) for action in actions()])
    assert p.sum() == pytest.approx(1)
    held, bins = (jnp.array(np.stack(part)) for part in zip(*actions(), strict=True))
    every = jnp.broadcast_to(jnp.array(ours, jnp.float32), (len(p), L))
    np.testing.assert_allclose(log_probability(every, Choice(held, bins), INPUTS), np.log(p), rtol=1e-4)
    assert float(entropy(jnp.array(ours), INPUTS)) == pytest.approx(-(p * np.log(p)).sum(), rel=1e-5)
    found = divergence(jnp.array(ours), jnp.array(theirs), INPUTS)
    assert float(found) == pytest.approx((p * np.log(p / q)).sum(), rel=1e-5)


def test_a_certain_policy_has_no_entropy_and_an_endless_logit_no_nan():
    certain = jnp.array([40.0, -40.0] + [60.0, 0, 0] * AXES)
    assert float(entropy(certain, INPUTS)) == pytest.approx(0, abs=1e-5)
    grads = jax.grad(lambda x: entropy(x, INPUTS) + divergence(x, jnp.zeros(L), INPUTS))(certain)
    assert np.isfinite(grads).all()


def test_actions_are_drawn_as_often_as_they_are_probable(logits):
    n = 20_000
    drawn = sample(jax.random.key(1), jnp.broadcast_to(jnp.array(logits[0]), (n, L)), INPUTS)
    code = np.asarray(drawn.buttons) @ [2, 1] * BINS**2 + np.asarray(drawn.bins) @ [BINS, 1]
    p = np.array([probability(logits[0], *action) for action in actions()])
    off = (np.bincount(code, minlength=len(p)) - n * p) / np.sqrt(n * p * (1 - p))
    assert np.abs(off).max() < 5


def plain_loss(logits: np.ndarray, value: np.ndarray, played: dict[str, np.ndarray], options: FinetuneConfig) -> float:
    """The loss by its definition, in float64, step by step."""
    gains = (played["advantage"] - played["advantage"].mean()) / (played["advantage"].std() + 1e-8)
    total = 0.0
    for i, gain in enumerate(gains):
        p = np.array([probability(logits[i], *action) for action in actions()])
        q = np.array([probability(played["of_clone"][i], *action) for action in actions()])
        ratio = probability(logits[i], played["buttons"][i], played["bins"][i]) / np.exp(played["log_probability"][i])
        near = min(max(ratio, 1 - options.clip), 1 + options.clip)
        total -= min(ratio * gain, near * gain)
        total += options.value_weight * 0.5 * (value[i] - played["returns"][i]) ** 2
        total += options.entropy * (p * np.log(p)).sum() + options.kl * (p * np.log(p / q)).sum()
    return total / len(gains)


def test_the_gradient_of_the_loss_is_that_of_its_definition():
    rng, steps = np.random.default_rng(1), 6
    options = FinetuneConfig("clone", clip=0.2, entropy=0.05, kl=0.3, value_weight=0.7)
    logits, value = rng.normal(size=(steps, L)), rng.normal(size=steps)
    played = {
        "buttons": rng.random((steps, BUTTONS)) < 0.5,
        "bins": rng.integers(0, BINS, (steps, AXES)),
        "advantage": rng.normal(size=steps),
        "returns": rng.normal(size=steps),
        "of_clone": rng.normal(size=(steps, L)),
    }
    chosen = list(zip(logits, played["buttons"], played["bins"], strict=True))
    # Ratios from 0.74 to 1.35: some are clipped, some not, on either side.
    off = np.linspace(-0.3, 0.3, steps)
    played["log_probability"] = np.log([probability(*one) for one in chosen]) + off

    choice = Choice(jnp.array(played["buttons"]), jnp.array(played["bins"]))
    rest = [jnp.array(played[name], jnp.float32) for name in ("log_probability", "advantage", "returns", "of_clone")]

    def ours(logits, value):
        return loss_of(logits, value, Played(choice, *rest), jnp.float32(options.kl), options, _Net)[0]

    arguments = jnp.array(logits, jnp.float32), jnp.array(value, jnp.float32)
    assert float(ours(*arguments)) == pytest.approx(plain_loss(logits, value, played, options), rel=1e-4)
    found = jax.grad(ours, argnums=(0, 1))(*arguments)
    step = 1e-6
    for which, array in enumerate((logits, value)):
        wanted = np.zeros(array.shape)
        for index in np.ndindex(*array.shape):
            sides = []
            for sign in (1, -1):
                moved = [logits.copy(), value.copy()]
                moved[which][index] += sign * step
                sides.append(plain_loss(*moved, played, options))
            wanted[index] = (sides[0] - sides[1]) / (2 * step)
        np.testing.assert_allclose(found[which], wanted, atol=2e-5)


def test_advantages_are_discounted_sums_of_surprises():
    """The definition, sum of (gamma lambda)^k delta_{t+k} up to the end of the episode."""
    rng, steps, games, gamma, lam = np.random.default_rng(2), 12, 3, 0.9, 0.8
    rewards, values = rng.normal(size=(steps, games)), rng.normal(size=(steps + 1, games))
    ended = rng.random((steps, games)) < 0.25
    found = advantages(rewards, values, ended, gamma, lam)
    for t, n in np.ndindex(steps, games):
        wanted, weight = 0.0, 1.0
        for k in range(t, steps):
            following = 0.0 if ended[k, n] else values[k + 1, n]
            wanted += weight * (rewards[k, n] + gamma * following - values[k, n])
            if ended[k, n]:
                break
            weight *= gamma * lam
        assert found[t, n] == pytest.approx(wanted)


def test_rewards_are_divided_by_the_deviation_of_their_discounted_sums():
    rng, games, gamma = np.random.default_rng(3), 4, 0.9
    scale, sums, seen = RewardScale(games, gamma, clip=3.0), np.zeros(games), []
    for _ in range(200):
        rewards, ended = rng.normal(size=games) * 50, rng.random(games) < 0.1
        found = scale(rewards, ended)
        sums = sums * gamma + rewards
        seen.append(sums.copy())
        wanted = np.clip(rewards / np.std(seen), -3, 3)
        sums[ended] = 0
    np.testing.assert_allclose(found, wanted, rtol=1e-3)
    again = RewardScale(games, gamma, 3.0, scale.moments)
    np.testing.assert_array_equal(again.moments, scale.moments)


def test_a_reward_scale_that_is_set_divides_rewards_as_they_are():
    scale = RewardScale(2, 0.9, clip=3.0, fixed=20.0)
    for _ in range(3):
        np.testing.assert_allclose(scale(np.array([10.0, -90.0]), np.zeros(2, bool)), [0.5, -3])


def test_a_value_head_that_has_learned_returns_far_from_zero_still_learns_what_tells_them_apart():
    head = ValueHead(8, (32,), nnx.Rngs(0))
    features = jnp.asarray(np.abs(np.random.default_rng(0).normal(size=(256, 8))) * 3, jnp.float32)  # of a ReLU
    optimizer = nnx.Optimizer(head, optax.adam(1e-3), wrt=nnx.Param)

    @nnx.jit
    def learn(head: ValueHead, optimizer: nnx.Optimizer, returns: jax.Array) -> None:
        optimizer.update(head, nnx.grad(lambda head: jnp.square(head(features) - returns).mean())(head))

    assert np.all(np.asarray(head(features)) == 0)
    apart = 5 * features[:, 0]
    for returns in (jnp.full(256, 45.0), 45 + apart):
        for _ in range(2000):
            learn(head, optimizer, returns)
    assert np.var(np.asarray(head(features) - apart)) < 0.05 * np.var(np.asarray(apart))


def test_the_weight_of_the_divergence_decays_or_holds_its_target():
    decays = FinetuneConfig("clone", kl=0.2, kl_decay=0.5)
    assert float(next_kl_weight(jnp.float32(0.2), 9.0, decays)) == pytest.approx(0.1)
    holds = FinetuneConfig("clone", kl=0.2, kl_target=0.01)
    weights = [float(next_kl_weight(jnp.float32(0.2), kl, holds)) for kl in (0.1, 0.01, 0.001)]
    assert weights[0] > weights[1] == pytest.approx(0.2)
    assert weights[2] < weights[1]
    assert float(next_kl_weight(jnp.float32(0), 1.0, holds)) > 0
