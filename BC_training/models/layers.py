"""Layers that variants share."""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Float, Float32, Shaped

from BC_training.common.errors import UserError, require
from BC_training.common.preprocess import InputSpec
from BC_training.models.convolution import Conv

Observation = Mapping[str, Shaped[jax.Array, "B T ..."]]
Logits = Float[jax.Array, "B ..."]


def require_convolutions(features: tuple[int, ...], strides: tuple[int, ...]) -> None:
    """Raises a UserError unless ``model.conv_features`` and ``conv_strides`` describe one block or more."""
    counts = f"{len(features)} and {len(strides)} values"
    require(len(features) == len(strides) > 0, "model.conv_features, conv_strides", counts, "one stride a block")
    for name, values in {"conv_features": features, "conv_strides": strides}.items():
        require(min(values) >= 1, f"model.{name}", list(values), "1 or more each")


def require_whole_heads(key: str, width: int, heads: int) -> None:
    """Raises a UserError unless attention can split ``width``, the value of ``model.<key>``, over its heads."""
    if width % heads:
        whole = nearest_multiple(width, heads)
        raise UserError(f"config: model.{key}={width} cannot be split over model.heads={heads}: use {whole}")


def nearest_multiple(value: int, of: int) -> int:
    """The multiple of ``of``, above 0, that is nearest to ``value``."""
    return max(round(value / of), 1) * of


def refuse_previous_actions(model: str, inputs: InputSpec) -> None:
    """Raises a UserError if ``inputs`` has previous actions, which ``model`` does not take."""
    if inputs.window.action_history:
        raise UserError(
            f"model {model} takes no previous actions: set dataset.action_history=0 or choose another model"
        )


def stack_history(frames: Float[jax.Array, "B T C H W"]) -> Float[jax.Array, "B H W T*C"]:
    """Stacks a history into the channels and puts them last, where XLA convolves fastest."""
    return jnp.moveaxis(frames.reshape(frames.shape[0], -1, *frames.shape[3:]), 1, -1)


class ActionHead(nnx.Linear):
    """``InputSpec.outputs`` for each action of the chunk: [..., L], or [..., C, L] where C > 1."""

    def __init__(self, channels: int, inputs: InputSpec, action_chunk: int, *, rngs: nnx.Rngs):
        self.outputs = (inputs.outputs,) if action_chunk == 1 else (action_chunk, inputs.outputs)
        super().__init__(channels, math.prod(self.outputs), rngs=rngs)

    def __call__(self, x: Float[jax.Array, "*B channels"]) -> Float[jax.Array, "..."]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().__call__(x).reshape(*x.shape[:-1], *self.outputs)


class BatchNorm(nnx.BatchNorm):
    """``nnx.BatchNorm`` over all axes but the last, with sums that are fast on a CPU.

    XLA's CPU backend reduces over leading axes on one core, but a product with a row of ones uses
    its matrix kernels. With these and a gradient written out, a whole training step of PureCNN is
    1.5 times as fast (benchmarks/RESULTS.md).

    The momentum of the running statistics is 0.9: Flax's 0.99 takes some 500 steps to forget its
    start, which can be a whole training.
    """

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        super().__init__(features, momentum=0.9, rngs=rngs)

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x: Float[jax.Array, "*B features"], use_running_average: bool
    ) -> Float[jax.Array, "*B features"]:
        """Returns the dtype of ``x``, computes in float32, and in training updates the running statistics."""
        if use_running_average:
            return super().__call__(x, use_running_average=True).astype(x.dtype)
        assert self.scale is not None
        assert self.bias is not None
        scale, bias = self.scale[...].astype(jnp.float32), self.bias[...].astype(jnp.float32)
        y, mean, variance = _normalize(x.reshape(x.shape[0], -1, x.shape[-1]), scale, bias, self.epsilon)
        self.mean[...] = self.momentum * self.mean[...] + (1 - self.momentum) * mean
        self.var[...] = self.momentum * self.var[...] + (1 - self.momentum) * variance
        return y.reshape(x.shape)


class ConvBlock(nnx.Module):
    """Convolution, batch norm, ReLU. Batch norm has a bias and takes the convolution's away."""

    def __init__(self, channels: int, features: int, stride: int, batch_norm: bool, rngs: nnx.Rngs):
        self.conv = Conv(channels, features, 3, stride, use_bias=not batch_norm, rngs=rngs)
        self.norm = BatchNorm(features, rngs=rngs) if batch_norm else None

    def __call__(self, x: Float[jax.Array, "B H W C"], train: bool) -> Float[jax.Array, "B h w features"]:
        x = self.conv(x, train)
        if self.norm is not None:
            x = self.norm(x, use_running_average=not train)
        return nnx.relu(x)


class DenseBlock(nnx.Module):
    """Dense, batch norm, ReLU, dropout. Batch norm has a bias and takes the dense layer's away."""

    def __init__(self, channels: int, features: int, dropout: float, batch_norm: bool, rngs: nnx.Rngs):
        self.dense = nnx.Linear(channels, features, use_bias=not batch_norm, rngs=rngs)
        self.norm = BatchNorm(features, rngs=rngs) if batch_norm else None
        self.dropout = nnx.Dropout(dropout)

    def __call__(
        self, x: Float[jax.Array, "B channels"], train: bool, rngs: nnx.Rngs | None
    ) -> Float[jax.Array, "B features"]:
        x = self.dense(x)
        if self.norm is not None:
            x = self.norm(x, use_running_average=not train)
        return self.dropout(nnx.relu(x), deterministic=not train, rngs=rngs)


def _channel_means(x: Float32[jax.Array, "B N C"]) -> Float32[jax.Array, " C"]:
    """The mean of each channel.

    It sums each sample first: that is as fast as one sum over all, rounds ten times less, and
    depends little on how many devices a batch is split over.
    """
    highest = jax.lax.Precision.HIGHEST  # a GPU would round to TF32
    ones = jnp.ones(x.shape[:2])
    each = jax.lax.dot_general(ones, x, (((1,), (1,)), ((0,), (0,))), precision=highest)  # [B, C]
    return jnp.dot(ones[None, :, 0], each, precision=highest)[0] / ones.size


@jax.custom_vjp
def _normalize(
    x: Float[jax.Array, "B N C"], scale: Float32[jax.Array, " C"], bias: Float32[jax.Array, " C"], epsilon: ArrayLike
) -> tuple[Float[jax.Array, "B N C"], Float32[jax.Array, " C"], Float32[jax.Array, " C"]]:
    """``x`` normalised by its own statistics, and its mean and variance."""
    return _normalize_forward(x, scale, bias, epsilon)[0]


def _normalize_forward(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: ArrayLike):
    mean = _channel_means(x.astype(jnp.float32))
    centred = x.astype(jnp.float32) - mean[None, None]
    variance = _channel_means(centred * centred)
    inverse = jax.lax.rsqrt(variance + epsilon)
    y = (centred * (inverse * scale)[None, None] + bias[None, None]).astype(x.dtype)
    return (y, mean, variance), (x, mean, inverse, scale)


def _normalize_backward(residuals: tuple[jax.Array, ...], cotangents: tuple[jax.Array, ...]):
    # The statistics are outputs only to update running averages: zeros differentiates them.
    x, mean, inverse, scale = residuals
    dy = cotangents[0].astype(jnp.float32)
    centred = x.astype(jnp.float32) - mean[None, None]
    d_bias, d_scale = _channel_means(dy), _channel_means(dy * centred) * inverse
    along_x = centred * (inverse * d_scale)[None, None]
    dx = (scale * inverse)[None, None] * (dy - d_bias[None, None] - along_x)
    count = x.shape[0] * x.shape[1]
    return dx.astype(x.dtype), d_scale * count, d_bias * count, None


_normalize.defvjp(_normalize_forward, _normalize_backward)


class TransformerBlock(nnx.Module):
    """Attention and perceptron, each behind a layer norm and added to its input.

    Args:
        mlp_ratio: the perceptron's width, in widths.
        is_causal: a token attends only to itself and to those before it.
    """

    def __init__(
        self, width: int, heads: int, mlp_ratio: int, dropout: float, *, rngs: nnx.Rngs, is_causal: bool = False
    ):
        self.heads, self.is_causal = heads, is_causal
        self.norms = nnx.List([nnx.LayerNorm(width, rngs=rngs) for _ in range(2)])
        self.qkv = nnx.Linear(width, 3 * width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)
        self.up = nnx.Linear(width, mlp_ratio * width, rngs=rngs)
        self.down = nnx.Linear(mlp_ratio * width, width, rngs=rngs)
        self.dropout = nnx.Dropout(dropout)

    def __call__(
        self, x: Float[jax.Array, "B N width"], train: bool, rngs: nnx.Rngs | None
    ) -> Float[jax.Array, "B N width"]:
        batch, tokens, width = x.shape
        qkv = self.qkv(self.norms[0](x)).reshape(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        y = jax.nn.dot_product_attention(query, key, value, is_causal=self.is_causal)
        y = self.out(y.reshape(batch, tokens, width))
        x = x + self.dropout(y, deterministic=not train, rngs=rngs)
        y = self.down(nnx.gelu(self.up(self.norms[1](x))))
        return x + self.dropout(y, deterministic=not train, rngs=rngs)


class LSTM(nnx.Module):
    """Long short-term memory over time, which begins at 0.

    After Hochreiter and Schmidhuber 1997, with a forget gate (Gers et al. 2000) whose bias begins
    at 1. ``nnx.RNN`` is not faster, and its forget gate's bias begins at 0.
    """

    def __init__(self, channels: int, features: int, *, rngs: nnx.Rngs):
        def bias(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
            del key
            return jnp.zeros(shape, dtype).at[features : 2 * features].set(1)

        self.features = features
        self.inputs = nnx.Linear(channels, 4 * features, bias_init=bias, rngs=rngs)
        self.recurrent = nnx.Param(nnx.initializers.orthogonal()(rngs.params(), (features, 4 * features)))

    def __call__(self, x: Float[jax.Array, "B T channels"]) -> Float[jax.Array, "B T features"]:
        zeros = jnp.zeros((x.shape[0], self.features), x.dtype)
        recurrent = self.recurrent[...]

        def step(carry: tuple[jax.Array, jax.Array], gates: jax.Array):
            cell, hidden = carry
            gates = gates + hidden @ recurrent
            enter, forget, leave, new = jnp.split(gates, 4, axis=-1)
            cell = nnx.sigmoid(forget) * cell + nnx.sigmoid(enter) * jnp.tanh(new)
            hidden = nnx.sigmoid(leave) * jnp.tanh(cell)
            return (cell, hidden), hidden

        _, hidden = jax.lax.scan(step, (zeros, zeros), jnp.moveaxis(self.inputs(x), 1, 0))
        return jnp.moveaxis(hidden, 0, 1)
