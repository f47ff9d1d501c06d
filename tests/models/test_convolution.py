"""The convolution and pooling that are written for a CPU, beside float64 and Flax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from BC_training.models import convolution
from BC_training.models.convolution import Conv, conv, max_pool, winograd_conv

SIDES = [(1, 1), (2, 7), (8, 6)]  # every remainder of a division by 2 and by 3


def with_gradients(f, *inputs):
    """Returns [output, gradient of each input] inside one compiled program, for a random last cotangent."""

    def run(cotangent, *inputs):
        y, pull = jax.vjp(f, *inputs)
        return [y, *pull(cotangent)]

    shape = jax.eval_shape(f, *inputs).shape
    cotangent = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    return cotangent, jax.jit(run)(cotangent, *inputs)


def exact_conv(x, kernel, cotangent):
    """[y, dx, d_kernel] in float64, tap by tap."""
    x, kernel, cotangent = (np.asarray(v, np.float64) for v in (x, kernel, cotangent))
    _, height, width, _ = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    y, d_padded, d_kernel = np.zeros(cotangent.shape), np.zeros(padded.shape), np.zeros(kernel.shape)
    for i, j in np.ndindex(3, 3):
        seen = np.s_[:, i : i + height, j : j + width]
        y += padded[seen] @ kernel[i, j]
        d_padded[seen] += cotangent @ kernel[i, j].T
        d_kernel[i, j] = np.einsum("bhwc,bhwf->cf", padded[seen], cotangent)
    return [y, d_padded[:, 1:-1, 1:-1], d_kernel]


def conv_case(height, width, channels, features, batch=2):
    rng = np.random.default_rng(0)
    shapes = (batch, height, width, channels), (3, 3, channels, features)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize(("height", "width"), SIDES)
def test_winograd_computes_the_convolution_and_its_gradients_for_any_sides(height, width):
    x, kernel = conv_case(height, width, 2, 3)
    cotangent, found = with_gradients(winograd_conv, x, kernel)
    for ours, exact in zip(found, exact_conv(x, kernel, cotangent), strict=True):
        np.testing.assert_allclose(ours, exact, atol=1e-4 * max(np.abs(exact).max(), 1))


def test_winograd_rounds_at_most_ten_times_more_than_xla():
    x, kernel = conv_case(9, 16, 64, 64, batch=8)

    def xla(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    cotangent, ours = with_gradients(winograd_conv, x, kernel)
    _, theirs = with_gradients(xla, x, kernel)
    for a, b, exact in zip(ours, theirs, exact_conv(x, kernel, cotangent), strict=True):
        error, usual = (np.sqrt(np.mean((np.asarray(v) - exact) ** 2)) for v in (a, b))
        print(error / usual)
        assert error < 10 * usual


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [1, 3, 7])
def test_conv_and_its_gradients_are_those_of_xla(size, stride):
    rng = np.random.default_rng(0)
    x, kernel = (rng.normal(size=shape).astype(np.float32) for shape in ((2, 9, 16, 3), (size, size, 3, 4)))

    def xla(x, kernel):
        strides = (stride, stride)
        return jax.lax.conv_general_dilated(x, kernel, strides, "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    _, ours = with_gradients(lambda x, kernel: conv(x, kernel, stride), x, kernel)
    _, theirs = with_gradients(xla, x, kernel)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("features", "stride", "sides", "dtype", "options", "is_winograd"),
    [
        (64, 1, (24, 24), jnp.float32, {}, True),
        (64, 1, (24, 24), jnp.float32, {"train": False}, False),  # a frame in play: XLA is as fast
        (64, 1, (24, 24), jnp.bfloat16, {}, False),
        (64, 2, (24, 24), jnp.float32, {}, False),
        (64, 1, (4, 4), jnp.float32, {}, False),
        (8, 1, (200, 200), jnp.float32, {}, False),
        (64, 1, (24, 24), jnp.float32, {"use_bias": True}, False),
    ],
)
def test_a_layer_uses_winograd_only_for_large_convolutions_in_training(
    monkeypatch, features, stride, sides, dtype, options, is_winograd
):
    calls = []
    monkeypatch.setattr(convolution, "winograd_conv", lambda x, kernel: calls.append(1) or x)
    layer = Conv(features, features, 3, stride, use_bias=options.get("use_bias", False), rngs=nnx.Rngs(0))
    jax.eval_shape(lambda x: layer(x, options.get("train", True)), jax.ShapeDtypeStruct((1, *sides, features), dtype))
    assert bool(calls) == is_winograd


@pytest.mark.parametrize(("height", "width"), SIDES)
def test_max_pool_equals_flax_with_its_gradient_for_any_sides(height, width):
    x = np.random.default_rng(height).normal(size=(2, height, width, 3)).astype(np.float32)
    _, ours = with_gradients(max_pool, x)
    _, theirs = with_gradients(lambda x: nnx.max_pool(x, (3, 3), (2, 2), "SAME"), x)
    np.testing.assert_array_equal(ours[0], theirs[0])
    np.testing.assert_allclose(ours[1], theirs[1], atol=1e-6)


def test_max_pool_passes_all_gradient_on_where_its_input_is_computed_again():
    x = np.random.default_rng(0).normal(size=(4, 18, 32, 16)).astype(np.float32)

    def pooled(x, shift):
        return max_pool((x - x.mean((0, 1, 2))[None, None, None]) / 3 + shift)

    cotangent, (_, _, d_shift) = with_gradients(pooled, x, np.zeros((4, 18, 32, 16), np.float32))
    assert np.isclose(d_shift.sum(), cotangent.sum(), rtol=1e-4)


def test_max_pool_gives_a_tie_s_gradient_to_its_first_maximum():
    _, (_, dx) = with_gradients(max_pool, np.zeros((1, 6, 6, 1), np.float32))
    assert np.count_nonzero(dx) == 9
    assert np.count_nonzero(dx[:, ::2, ::2]) == 9
