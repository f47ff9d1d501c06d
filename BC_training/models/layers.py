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
        """x: float32 or bfloat16 [..., features], and so the result; training updates the running statistics.

        Whatever the dtype of x, scale and bias, it computes in float32, and the statistics are float32.
        """
        if use_running_average:
            return super().__call__(x, use_running_average=True).astype(x.dtype)
        assert self.scale is not None
        assert self.bias is not None
        scale, bias = self.scale[...].astype(jnp.float32), self.bias[...].astype(jnp.float32)
        y, mean, variance = _normalize(x.reshape(-1, x.shape[-1]), scale, bias, self.epsilon)
        self.mean[...] = self.momentum * self.mean[...] + (1 - self.momentum) * mean
        self.var[...] = self.momentum * self.var[...] + (1 - self.momentum) * variance
        return y.reshape(x.shape)


def _column_sums(x: jax.Array) -> jax.Array:
    """[N, C] to [C]."""
    ones = jnp.ones((1, x.shape[0]), x.dtype)
    return jnp.dot(ones, x, precision=jax.lax.Precision.HIGHEST)[0]  # a GPU would round to TF32


@jax.custom_vjp
def _normalize(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """x [N, C] normalised by its own statistics, and those: the mean and variance, float32 [C], of x."""
    return _normalize_forward(x, scale, bias, epsilon)[0]


def _normalize_forward(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float):
    given, x, count = x, x.astype(jnp.float32), x.shape[0]
    mean = _column_sums(x) / count
    variance = jnp.maximum(_column_sums(x * x) / count - mean * mean, 0.0)
    inverse = jax.lax.rsqrt(variance + epsilon)
    y = ((x - mean[None]) * (inverse * scale)[None] + bias[None]).astype(given.dtype)
    return (y, mean, variance), (given, mean, inverse, scale)


def _normalize_backward(residuals: tuple[jax.Array, ...], cotangents: tuple[jax.Array, ...]):
    # The statistics are outputs only to update running averages: nothing differentiates them.
    given, mean, inverse, scale = residuals
    x, dy, count = given.astype(jnp.float32), cotangents[0].astype(jnp.float32), given.shape[0]
    d_bias = _column_sums(dy)
    d_scale = (_column_sums(dy * x) - mean * d_bias) * inverse
    along_x = (x - mean[None]) * (inverse * d_scale / count)[None]
    dx = (scale * inverse)[None] * (dy - (d_bias / count)[None] - along_x)
    return dx.astype(given.dtype), d_scale, d_bias, None


_normalize.defvjp(_normalize_forward, _normalize_backward)
