"""ViTPolicy: a Vision Transformer over the patches of the frame.

After Dosovitskiy et al., An Image is Worth 16x16 Words (2020), with layer norm before attention
and perceptron. Each patch has a learned position, so the net knows where something is; it reads the
buttons from a learned token that attends to all patches.
"""

import math
from dataclasses import dataclass
from functools import partial

import jax.numpy as jnp
from flax import nnx

from BC_training.common.errors import UserError, require
from BC_training.common.preprocess import InputSpec
from BC_training.models.layers import (
    ActionHead,
    Logits,
    Observation,
    TransformerBlock,
    nearest_multiple,
    refuse_previous_actions,
    require_whole_heads,
)


@dataclass(frozen=True)
class Config:
    name: str
    patch_size: tuple[int, int] = (8, 8)  # H, W in pixels; they divide the frame's sides
    depth: int = 4
    width: int = 96
    heads: int = 3
    mlp_ratio: int = 2  # the perceptron's width, in widths
    dropout: float = 0.1  # after attention and perceptron
    action_chunk: int = 1  # actions predicted at once; in play the first counts

    def __post_init__(self) -> None:
        for key in ("depth", "width", "heads", "mlp_ratio", "action_chunk"):
            require(getattr(self, key) >= 1, f"model.{key}", getattr(self, key), "at least 1")
        require(min(self.patch_size) >= 1, "model.patch_size", list(self.patch_size), "sides of 1 or more")
        require_whole_heads("width", self.width, self.heads)
        require(0 <= self.dropout < 1, "model.dropout", self.dropout, "0 to below 1")


class ViTPolicy(nnx.Module):
    def __init__(self, config: Config, inputs: InputSpec, rngs: nnx.Rngs):
        self.grid = tuple(side // patch for side, patch in zip(inputs.frame_size, config.patch_size, strict=True))
        self.patch_size = config.patch_size
        pixels = inputs.frame_shape[0] * inputs.window.history * math.prod(config.patch_size)
        self.patches = nnx.Linear(pixels, config.width, rngs=rngs)
        small = nnx.initializers.normal(0.02)
        self.positions = nnx.Param(small(rngs.params(), (math.prod(self.grid), config.width)))
        self.token = nnx.Param(small(rngs.params(), (1, config.width)))
        block = partial(TransformerBlock, config.width, config.heads, config.mlp_ratio, config.dropout, rngs=rngs)
        self.blocks = nnx.List([block() for _ in range(config.depth)])
        self.norm = nnx.LayerNorm(config.width, rngs=rngs)
        self.head = ActionHead(config.width, inputs, config.action_chunk, rngs=rngs)

    def __call__(self, observation: Observation, *, train: bool, rngs: nnx.Rngs | None = None) -> Logits:
        """Makes a history part of each patch; ``models`` describes the arguments."""
        frames = observation["frames"]
        batch, (rows, columns), (height, width) = frames.shape[0], self.grid, self.patch_size
        x = frames.reshape(batch, -1, rows, height, columns, width)
        x = x.transpose(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, -1)
        x = self.patches(x) + self.positions[...][None]
        token = jnp.broadcast_to(self.token[...][None], (batch, 1, x.shape[-1]))
        x = jnp.concatenate([token, x], axis=1)
        for block in self.blocks:
            x = block(x, train, rngs)
        return self.head(self.norm(x[:, 0]))


def create_model(config: Config, inputs: InputSpec, rngs: nnx.Rngs) -> ViTPolicy:
    """ViTPolicy for the frame size, history and buttons of ``inputs``.

    Raises:
        UserError: the patches do not divide the frame, or ``inputs`` has previous actions.
    """
    for axis, side, patch in zip("HW", inputs.frame_size, config.patch_size, strict=True):
        if side % patch:
            raise UserError(
                f"the frame's {axis} of {side} cannot be cut into patches of {patch}: set model.patch_size or "
                f"dataset.frame_size, for example to {nearest_multiple(side, patch)}"
            )
    refuse_previous_actions("vit_policy", inputs)
    return ViTPolicy(config, inputs, rngs)
