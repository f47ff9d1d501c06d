"""Convolution and pooling, written so that XLA's CPU backend trains them fast.

benchmarks/RESULTS.md has what each gains in a training step.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Float, Float32

# Winograd's minimal filtering F(3x3, 3x3) in the points 0, 1, -1, 2 and infinity: for each tile d of the input,
# y = A [(G k G^T) * (B d B^T)] A^T. Lavin and Gray 2015, "Fast Algorithms for Convolutional Neural Networks".
_SIDE, _TILE = 3, 5  # of a tile's output and input
_A = np.array([[1, 1, 1, 1, 0], [0, 1, -1, 2, 0], [0, 1, 1, 4, 1]], np.float32)
_B = np.array([[2, -1, -2, 1, 0], [0, -2, -1, 1, 0], [0, 2, -3, 1, 0], [0, -1, 0, 1, 0], [0, 2, -1, -2, 1]], np.float32)
_G = np.array([[3, 0, 0], [-3, -3, -3], [-1, 1, -1], [1, 2, 4], [0, 0, 6]], np.float32) / 6
_LEAST_CHANNELS, _LEAST_WORK = 64, 40e6  # below these the transforms take what the products save

_Tiles = Sequence[Sequence[jax.Array]]  # [i][j]: row i and column j of all tiles


class Conv(nnx.Conv):
    """``nnx.Conv`` with padding SAME, which a CPU trains faster: by ``winograd_conv`` where it is large."""

    def __init__(self, channels: int, features: int, size: int, stride: int, *, use_bias: bool = True, rngs: nnx.Rngs):
        self.stride = stride
        super().__init__(channels, features, (size, size), stride, use_bias=use_bias, rngs=rngs)

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x: Float[jax.Array, "B H W C"], train: bool
    ) -> Float[jax.Array, "B h w F"]:
        kernel = self.kernel[...]
        if not train or self.bias is not None or x.dtype != jnp.float32 or jax.default_backend() != "cpu":
            return super().__call__(x)
        work = 2 * kernel.size * x.shape[1] * x.shape[2]  # floating-point operations a frame
        is_large = min(kernel.shape[2:]) >= _LEAST_CHANNELS and work >= _LEAST_WORK
        if is_large and kernel.shape[:2] == (3, 3) and self.stride == 1:
            return winograd_conv(x, kernel)
        return conv(x, kernel, self.stride)


def _xla_conv(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv(
    x: Float32[jax.Array, "B H W C"], kernel: Float32[jax.Array, "h w C F"], stride: int
) -> Float32[jax.Array, "B i j F"]:
    """The convolution of padding SAME, with a kernel's gradient that XLA's CPU backend cannot fuse.

    For that gradient it transposes ``x``. It would fuse the transposition with what computes ``x``,
    batch norm and ReLU, into a loop that takes several times as long as both. It does not fuse a
    product, which is here one with the identity.
    """
    return _xla_conv(x, kernel, stride)


def _conv_backward(stride: int, residuals: tuple[jax.Array, jax.Array], dy: jax.Array):
    x, kernel = residuals
    same = x @ jnp.eye(x.shape[-1])
    (d_kernel,) = jax.linear_transpose(lambda kernel: _xla_conv(same, kernel, stride), kernel)(dy)
    (dx,) = jax.linear_transpose(lambda x: _xla_conv(x, kernel, stride), x)(dy)
    return dx, d_kernel


conv.defvjp(lambda x, kernel, stride: (_xla_conv(x, kernel, stride), (x, kernel)), _conv_backward)


@jax.custom_vjp
def winograd_conv(
    x: Float32[jax.Array, "B H W C"], kernel: Float32[jax.Array, "3 3 C F"]
) -> Float32[jax.Array, "B H W F"]:
    """The convolution of stride 1 and padding SAME, with 25 products for 9 outputs in place of 81."""
    return _winograd_forward(x, kernel)[0]


def _winograd_forward(x: jax.Array, kernel: jax.Array):
    batch, height, width, _ = x.shape
    rows, columns = -(-height // _SIDE), -(-width // _SIDE)
    fill = (1, rows * _SIDE + 1 - height), (1, columns * _SIDE + 1 - width)
    x = jnp.pad(x, ((0, 0), *fill, (0, 0)))
    down, right = (rows - 1) * _SIDE + 1, (columns - 1) * _SIDE + 1
    tiles = [[x[:, i : i + down : _SIDE, j : j + right : _SIDE] for j in range(_TILE)] for i in range(_TILE)]
    inputs = _flat(_transform(_B, tiles))
    products = [a @ b for a, b in zip(inputs, _flat(_transform(_G, kernel)), strict=True)]
    y = _side_by_side(_transform(_A, _tiles(products, (batch, rows, columns, -1))))
    return y[:, :height, :width], (inputs, kernel)


def _winograd_backward(residuals: tuple[list[jax.Array], jax.Array], dy: jax.Array):
    inputs, kernel = residuals
    batch, height, width, _ = dy.shape
    rows, columns = -(-height // _SIDE), -(-width // _SIDE)
    fill = (0, rows * _SIDE - height), (0, columns * _SIDE - width)
    dy = jnp.pad(dy, ((0, 0), *fill, (0, 0)))
    d_products = _flat(_transform(_A.T, [[dy[:, i::_SIDE, j::_SIDE] for j in range(_SIDE)] for i in range(_SIDE)]))

    d_kernels = [a.T @ b for a, b in zip(inputs, d_products, strict=True)]
    d_kernel = jnp.stack(_flat(_transform(_G.T, _tiles(d_kernels, kernel.shape[2:])))).reshape(kernel.shape)

    d_inputs = [a @ b.T for a, b in zip(d_products, _flat(_transform(_G, kernel)), strict=True)]
    d_tiles = _stack(_transform(_B.T, _tiles(d_inputs, (batch, rows, columns, -1))))
    dx = 0  # tiles overlap: what is below or right of a tile's first three rows or columns belongs to the next, too
    for i in (0, 1):
        for j in (0, 1):
            part = d_tiles[:, :, i * _SIDE : (i + 1) * _SIDE, :, j * _SIDE : (j + 1) * _SIDE]
            fill = (i, 1 - i), (0, _SIDE - part.shape[2]), (j, 1 - j), (0, _SIDE - part.shape[4])
            dx += jnp.pad(part, ((0, 0), *fill, (0, 0)))
    dx = dx.reshape(batch, (rows + 1) * _SIDE, (columns + 1) * _SIDE, -1)
    return dx[:, 1 : 1 + height, 1 : 1 + width], d_kernel


winograd_conv.defvjp(_winograd_forward, _winograd_backward)


def _transform(matrix: np.ndarray, tiles: _Tiles | jax.Array) -> list[list[jax.Array]]:
    """``matrix @ tile @ matrix.T`` of each tile."""
    half = [[_combine(row, column) for column in zip(*tiles, strict=True)] for row in matrix]
    return [[_combine(row, line) for row in matrix] for line in half]


def _combine(coefficients: np.ndarray, terms: Sequence[jax.Array]) -> jax.Array:
    """The sum of ``terms`` times ``coefficients``, without those whose coefficient is 0."""
    return sum(term if c == 1 else c * term for c, term in zip(coefficients, terms, strict=True) if c)  # pyright: ignore[reportReturnType]


def _flat(tiles: _Tiles) -> list[jax.Array]:
    return [part.reshape(-1, part.shape[-1]) for line in tiles for part in line]


def _tiles(flat: Sequence[jax.Array], shape: tuple[int, ...]) -> _Tiles:
    parts = [part.reshape(shape) for part in flat]
    return [parts[i : i + _TILE] for i in range(0, _TILE**2, _TILE)]


def _stack(tiles: _Tiles) -> jax.Array:
    """[B, rows, i, columns, j, C] of the tiles' [i][j]: [B, rows, columns, C]."""
    return jnp.stack([jnp.stack(line, 3) for line in tiles], 2)


def _side_by_side(tiles: _Tiles) -> jax.Array:
    """[B, rows * i, columns * j, C] of the tiles' [i][j]: [B, rows, columns, C]."""
    y = _stack(tiles)
    return y.reshape(len(y), y.shape[1] * y.shape[2], y.shape[3] * y.shape[4], -1)


def max_pool(x: Float[jax.Array, "B H W C"]) -> Float[jax.Array, "B h w C"]:
    """The maximum of 3x3 windows, stride 2, padding SAME; its gradient goes to a window's first maximum."""
    fill = lax.padtype_to_pads(x.shape, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")
    return _pool(jnp.pad(x, fill, constant_values=-jnp.inf))


@jax.custom_vjp
def _pool(x: Float[jax.Array, "B H W C"]) -> Float[jax.Array, "B h w C"]:
    return _pool_forward(x)[0]


def _pool_forward(x: jax.Array):
    down, right = x.shape[1] - 2, x.shape[2] - 2
    windows = [x[:, i : i + down : 2, j : j + right : 2] for i in range(3) for j in range(3)]
    y, winner = windows[0], jnp.zeros(windows[0].shape, jnp.uint8)
    for i, window in enumerate(windows[1:], 1):
        is_higher = window > y
        y, winner = jnp.where(is_higher, window, y), jnp.where(is_higher, jnp.uint8(i), winner)
    return y, winner


def _pool_backward(winner: jax.Array, dy: jax.Array):
    # It compares numbers: x may be computed again here and rounded otherwise, so that x == y would lose gradient.
    batch, rows, columns, channels = dy.shape
    places = np.arange(2)
    dx = 0
    for down in (0, 1):  # an even row is row 0 of the window that begins there, and row 2 of the one before it
        for right in (0, 1):
            row, column = places[:, None] + 2 * down, places + 2 * right
            number = np.where((row < 3) & (column < 3), 3 * row + column, 255).astype(np.uint8)
            fill = (0, 0), (down, 1 - down), (right, 1 - right), (0, 0)
            taken, given = (jnp.pad(v, fill)[:, :, None, :, None] for v in (winner, dy))
            dx += jnp.where(taken == number[None, None, :, None, :, None], given, 0)
    dx = jnp.asarray(dx).reshape(batch, 2 * rows + 2, 2 * columns + 2, channels)
    return (dx[:, :-1, :-1],)


_pool.defvjp(_pool_forward, _pool_backward)
