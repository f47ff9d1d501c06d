import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from BC_training.models.layers import BatchNorm

MOMENTUM = 0.9


def pair(features: int) -> tuple[BatchNorm, nnx.BatchNorm]:
    """Ours and Flax's, with the same scale, bias and running statistics, none of them trivial."""
    ours, flax = BatchNorm(features, rngs=nnx.Rngs(0)), nnx.BatchNorm(features, momentum=MOMENTUM, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(1)
    for name in ("scale", "bias", "mean", "var"):
        value = jnp.asarray(rng.uniform(0.5, 2, features), jnp.float32)
        for layer in (ours, flax):
            getattr(layer, name)[...] = value
    return ours, flax


def backward(layer, x, cotangent, dtype=jnp.float32):
    """Returns (gradients of the parameters and of x), (y, statistics) of a training pass."""
    graphdef, *states = nnx.split(layer, nnx.Param, nnx.BatchStat)
    params, stats = map(nnx.to_pure_dict, states)

    def run(params, x):
        net = nnx.merge(graphdef, jax.tree.map(lambda p: p.astype(dtype), params), stats)
        y = net(x, use_running_average=False)
        return (y.astype(jnp.float32) * cotangent).sum(), (y, nnx.to_pure_dict(nnx.state(net, nnx.BatchStat)))

    return jax.jit(jax.grad(run, argnums=(0, 1), has_aux=True))(params, x)


@pytest.mark.parametrize(
    ("shape", "mean", "spread"), [((6, 5), 0.0, 1.0), ((4, 3, 7, 5), 3.0, 0.5), ((2, 5), -2.0, 10.0)]
)
def test_forward_gradients_and_statistics_equal_flax(shape, mean, spread):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(mean, spread, shape), jnp.float32)
    cotangent = jnp.asarray(rng.normal(size=shape), jnp.float32)
    found = []
    for layer in pair(5):
        (d_params, d_x), (y, after) = backward(layer, x, cotangent)
        assert (set(d_params), set(after)) == ({"scale", "bias"}, {"mean", "var"})
        found.append({"x": d_x, "y": y, **d_params, **after})
    for name, ours in found[0].items():
        np.testing.assert_allclose(ours, found[1][name], rtol=1e-4, atol=1e-4)


def test_running_statistics_are_used_and_kept_in_evaluation():
    ours, flax = pair(3)
    before = {name: np.asarray(getattr(ours, name)[...]) for name in ("mean", "var")}
    x = jnp.asarray(np.random.default_rng(0).normal(2, 3, (10, 3)), jnp.float32)
    y = ours(x, use_running_average=True)
    np.testing.assert_allclose(y, flax(x, use_running_average=True), rtol=1e-6)
    np.testing.assert_allclose(ours(x[:1], use_running_average=True)[0], y[0], rtol=1e-6)
    for name, value in before.items():
        np.testing.assert_array_equal(getattr(ours, name)[...], value)
    rounded = ours(x.astype(jnp.bfloat16), use_running_average=True)
    assert rounded.dtype == jnp.bfloat16
    np.testing.assert_allclose(rounded.astype(jnp.float32), y, rtol=0.02, atol=0.02)


def test_constant_inputs_stay_finite():
    """A variance of 0, which rounding must not make negative."""
    values = np.random.default_rng(0).uniform(100, 1000, 64).astype(np.float32)
    layer = BatchNorm(64, rngs=nnx.Rngs(0))
    y = layer(jnp.broadcast_to(values, (37, 64)), use_running_average=False)
    assert np.isfinite(y).all()
    assert (np.asarray(layer.var[...]) >= 0).all()


@pytest.mark.parametrize(("shape", "mean", "spread"), [((4, 30, 40, 5), 3.0, 0.5), ((64, 5), -20.0, 1.0)])
def test_bfloat16_inputs_are_normalised_in_float32(shape, mean, spread):
    """Only rounded on the way in and out, for all that the sums are long and the means far from 0."""
    rng = np.random.default_rng(0)
    rounded = jnp.asarray(rng.normal(mean, spread, shape), jnp.bfloat16)
    cotangent = jnp.asarray(rng.normal(size=shape), jnp.bfloat16).astype(jnp.float32)
    results = []
    for dtype in (jnp.bfloat16, jnp.float32):
        layer, _ = pair(5)
        before = np.asarray(layer.mean[...])
        results.append(backward(layer, rounded.astype(dtype), cotangent, dtype))
    (gradients, (y, after)), (expected_gradients, (expected_y, expected_after)) = results
    assert (y.dtype, gradients[1].dtype) == (jnp.bfloat16, jnp.bfloat16)
    assert {x.dtype for x in jax.tree.leaves((gradients[0], after))} == {jnp.dtype("float32")}
    for name, value in expected_after.items():
        np.testing.assert_allclose(after[name], value, rtol=1e-6)
    x = np.asarray(rounded, np.float64).reshape(-1, 5)
    np.testing.assert_allclose(after["mean"], 0.9 * before + 0.1 * x.mean(axis=0), rtol=1e-5)
    pairs = zip(jax.tree.leaves((gradients, y)), jax.tree.leaves((expected_gradients, expected_y)), strict=True)
    for ours, theirs in pairs:
        scale = float(jnp.abs(theirs).max())
        np.testing.assert_allclose(ours.astype(jnp.float32), theirs, atol=0.02 * scale)
