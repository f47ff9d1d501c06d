"""Layers that variants share."""

import jax
import jax.numpy as jnp
from flax import nnx


class BatchNorm(nnx.BatchNorm):
    """``nnx.BatchNorm`` over all axes but the last, with sums that XLA runs fast on a CPU.

    XLA's CPU backend reduces over leading axes on one core; the same sums as a product with a
    row of ones use its matrix kernels. That, with the gradient written out, makes a whole
    PureCNN training step 1.5 times as fast (benchmarks/RESULTS.md).

    The momentum of the running statistics is 0.9: Flax's 0.99 needs some 500 steps to forget
    where it started, which can be a whole training.
    """

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        super().__init__(features, momentum=0.9, rngs=rngs)

    def __call__(self, x: jax.Array, use_running_average: bool) -> jax.Array:  # pyright: ignore[reportIncompatibleMethodOverride]
        """x: float32 [..., features]; training updates the running statistics."""
        if use_running_average:
            return super().__call__(x, use_running_average=True)
        assert self.scale is not None
        assert self.bias is not None
        y, mean, variance = _normalize(x.reshape(x.shape[0], -1, x.shape[-1]), self.scale[...], self.bias[...], self.epsilon)
        self.mean[...] = self.momentum * self.mean[...] + (1 - self.momentum) * mean
        self.var[...] = self.momentum * self.var[...] + (1 - self.momentum) * variance
        return y.reshape(x.shape)


def _channel_sums(x: jax.Array) -> jax.Array:
    """[B, N, C] to [C].

    Each sample's sums first: that is as fast, rounds ten times less than one sum over all, and
    makes the result nearly independent of how many devices a batch is split over.
    """
    highest = jax.lax.Precision.HIGHEST  # a GPU would round to TF32
    ones = jnp.ones(x.shape[:2], x.dtype)
    each = jax.lax.dot_general(ones, x, (((1,), (1,)), ((0,), (0,))), precision=highest)  # [B, C]
    return jnp.dot(ones[:, :1].T, each, precision=highest)[0]


@jax.custom_vjp
def _normalize(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """x [B, N, C] normalised by its own statistics, and those: the mean and variance [C] of x."""
    return _normalize_forward(x, scale, bias, epsilon)[0]


def _normalize_forward(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float):
    count = x.shape[0] * x.shape[1]
    mean = _channel_sums(x) / count
    centred = x - mean[None, None]
    variance = _channel_sums(centred * centred) / count
    inverse = jax.lax.rsqrt(variance + epsilon)
    return (centred * (inverse * scale)[None, None] + bias[None, None], mean, variance), (x, mean, inverse, scale)


def _normalize_backward(residuals: tuple[jax.Array, ...], cotangents: tuple[jax.Array, ...]):
    # The statistics are outputs only to update running averages: nothing differentiates them.
    x, mean, inverse, scale = residuals
    dy, count = cotangents[0], x.shape[0] * x.shape[1]
    centred = x - mean[None, None]
    d_bias = _channel_sums(dy)
    d_scale = _channel_sums(dy * centred) * inverse
    along_x = centred * (inverse * d_scale / count)[None, None]
    dx = (scale * inverse)[None, None] * (dy - (d_bias / count)[None, None] - along_x)
    return dx, d_scale, d_bias, None


_normalize.defvjp(_normalize_forward, _normalize_backward)
