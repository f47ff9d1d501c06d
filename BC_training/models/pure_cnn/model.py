"""PureCNN: the vision-only baseline.

Four 3x3 convolution blocks, global average pooling, two dense blocks, one logit a button.
The pooling discards *where* things are in the frame, which is why this is the floor that
other variants are measured against.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from BC_training.common.errors import UserError
from BC_training.common.preprocess import InputSpec
from BC_training.models.layers import ConvBlock, DenseBlock


@dataclass(frozen=True)
class Config:
    name: str
    conv_features: tuple[int, ...] = (32, 64, 128, 256)
    conv_strides: tuple[int, ...] = (2, 2, 2, 1)
    dense_features: tuple[int, ...] = (512, 256)
    dropout: float = 0.3  # after each dense block
    batch_norm: bool = True
    action_chunk: int = 1  # actions predicted at once; in play the first counts

    def __post_init__(self) -> None:
        if len(self.conv_features) != len(self.conv_strides) or not self.conv_features:
            raise UserError(
                f"config: model.conv_features has {len(self.conv_features)} values and model.conv_strides "
                f"{len(self.conv_strides)}: give one stride a block, at least one block"
            )
        if min(*self.conv_features, *self.conv_strides, *self.dense_features, 1) < 1:
            raise UserError("config: model.conv_features, conv_strides and dense_features must be 1 or more")
        if self.action_chunk < 1:
            raise UserError(f"config: model.action_chunk={self.action_chunk} is out of range: at least 1")
        if not 0 <= self.dropout < 1:
            raise UserError(f"config: model.dropout={self.dropout} is out of range: 0 to below 1")


class PureCNN(nnx.Module):
    def __init__(self, config: Config, inputs: InputSpec, rngs: nnx.Rngs):
        self.convs = nnx.List([])
        channels = inputs.frame_shape[0] * inputs.window.history
        for features, stride in zip(config.conv_features, config.conv_strides, strict=True):
            self.convs.append(ConvBlock(channels, features, stride, config.batch_norm, rngs))
            channels = features
        self.denses = nnx.List([])
        for features in config.dense_features:
            self.denses.append(DenseBlock(channels, features, config.dropout, config.batch_norm, rngs))
            channels = features
        self.outputs = (config.action_chunk, len(inputs.action_names))
        self.head = nnx.Linear(channels, math.prod(self.outputs), rngs=rngs)

    def __call__(self, observation: Mapping[str, jax.Array], *, train: bool, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Logits before the sigmoid.

        Args:
            observation: "frames", float32 [B, T, 3, H, W] in [0, 1]; a history is stacked into
                the channels.
            train: batch statistics of this batch and dropout; otherwise running statistics.
            rngs: the "dropout" stream; needed when ``train`` and dropout is above 0.

        Returns:
            float32 [B, A]; [B, C, A] where ``action_chunk`` is C > 1.
        """
        frames = observation["frames"]
        x = frames.reshape(frames.shape[0], -1, *frames.shape[3:])
        x = jnp.moveaxis(x, 1, -1)  # channels last, as XLA convolves fastest
        for conv in self.convs:
            x = conv(x, train)
        x = x.mean(axis=(1, 2))
        for dense in self.denses:
            x = dense(x, train, rngs)
        logits = self.head(x)
        return logits.reshape(-1, *self.outputs) if self.outputs[0] > 1 else logits


def create_model(config: Config, inputs: InputSpec, rngs: nnx.Rngs) -> PureCNN:
    """PureCNN for the frame size, history and buttons of ``inputs``; it ignores the state.

    Raises:
        UserError: previous actions are asked for, which it does not take.
    """
    if inputs.window.action_history:
        raise UserError(
            "model pure_cnn takes no previous actions: set dataset.action_history=0 or choose another model"
        )
    return PureCNN(config, inputs, rngs)
