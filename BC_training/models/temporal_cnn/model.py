"""TemporalCNN: an encoder of single frames, and a memory of the frames before.

A convolutional encoder keeps position; an LSTM or a small causal transformer reads its features of
the last T frames. In training the loss counts at each of the T frames. In play each step encodes
one frame and keeps the features of those before.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from BC_training.common.errors import require
from BC_training.common.preprocess import InputSpec
from BC_training.models.layers import (
    LSTM,
    ActionHead,
    ConvBlock,
    Logits,
    Observation,
    TransformerBlock,
    require_convolutions,
    require_whole_heads,
)


@dataclass(frozen=True)
class Config:
    name: str
    conv_features: tuple[int, ...] = (16, 32, 64, 64)
    conv_strides: tuple[int, ...] = (2, 2, 2, 1)
    position_features: int = 16  # channels left at each position after the convolutions
    features: int = 128  # numbers that describe a frame, and numbers that the memory holds
    temporal: Literal["lstm", "transformer"] = "lstm"
    depth: int = 1  # LSTMs, or transformer blocks, one on the other
    heads: int = 4  # of the transformer
    dropout: float = 0.1  # of a frame's features, and in the transformer
    action_dropout: float = 0.5  # chance that a sample's previous actions are hidden in training
    action_chunk: int = 1  # actions predicted at once; in play the first counts
    every_frame: ClassVar[bool] = True  # the loss counts at each frame of the history

    def __post_init__(self) -> None:
        require_convolutions(self.conv_features, self.conv_strides)
        for key in ("position_features", "features", "depth", "heads", "action_chunk"):
            require(getattr(self, key) >= 1, f"model.{key}", getattr(self, key), "at least 1")
        if self.temporal == "transformer":
            require_whole_heads("features", self.features, self.heads)
        require(0 <= self.dropout < 1, "model.dropout", self.dropout, "0 to below 1")
        rule = "0 to below 1; without previous actions: dataset.action_history=0"
        require(0 <= self.action_dropout < 1, "model.action_dropout", self.action_dropout, rule)


class TemporalCNN(nnx.Module):
    def __init__(self, config: Config, inputs: InputSpec, rngs: nnx.Rngs):
        self.convs = nnx.List([])
        channels, (height, width) = inputs.frame_shape[0], inputs.frame_size
        for features, stride in zip(config.conv_features, config.conv_strides, strict=True):
            self.convs.append(ConvBlock(channels, features, stride, True, rngs))
            channels, height, width = features, -(-height // stride), -(-width // stride)
        self.position = ConvBlock(channels, config.position_features, 1, True, rngs)
        pressed = inputs.window.action_history * inputs.action_size
        known = height * width * config.position_features + pressed
        self.dense = nnx.Linear(known, config.features, rngs=rngs)
        self.dropout, self.action_dropout = nnx.Dropout(config.dropout), config.action_dropout
        self.is_lstm = config.temporal == "lstm"
        if self.is_lstm:
            layers: list[Any] = [LSTM(config.features, config.features, rngs=rngs) for _ in range(config.depth)]
        else:
            shape = (inputs.window.history, config.features)
            self.times = nnx.Param(nnx.initializers.normal(0.02)(rngs.params(), shape))
            layers = [
                TransformerBlock(config.features, config.heads, 2, config.dropout, rngs=rngs, is_causal=True)
                for _ in range(config.depth)
            ]
        self.layers = nnx.List(layers)
        self.head = ActionHead(config.features, inputs, config.action_chunk, rngs=rngs)

    def __call__(self, observation: Observation, *, train: bool, rngs: nnx.Rngs | None = None) -> Logits:
        """Logits at each frame, from the frames up to it, in training; those of the last frame otherwise."""
        logits = self.remember(self.encode(observation, train=train, rngs=rngs), train=train, rngs=rngs)
        return logits if train else logits[:, -1]

    def encode(
        self, observation: Observation, *, train: bool, rngs: nnx.Rngs | None = None
    ) -> Float[jax.Array, "B T F"]:
        """The features of each frame by itself; "previous_actions" [B, T, K, A + X] are part of them."""
        frames = observation["frames"]
        batch, times = frames.shape[:2]
        x = jnp.moveaxis(frames.reshape(batch * times, *frames.shape[2:]), 1, -1)
        for conv in self.convs:
            x = conv(x, train)
        x = self.position(x, train).reshape(batch, times, -1)
        if "previous_actions" in observation:
            pressed = observation["previous_actions"].reshape(batch, times, -1).astype(x.dtype)
            if train and self.action_dropout > 0:
                assert rngs is not None
                seen = jax.random.bernoulli(rngs.dropout(), 1 - self.action_dropout, (batch, 1, 1))
                pressed = jnp.where(seen, pressed, jnp.zeros_like(pressed))
            x = jnp.concatenate([x, pressed], axis=-1)
        return self.dropout(nnx.relu(self.dense(x)), deterministic=not train, rngs=rngs)

    def remember(
        self, features: Float[jax.Array, "B T F"], *, train: bool, rngs: nnx.Rngs | None = None
    ) -> Float[jax.Array, "B T ..."]:
        """Logits at each frame, from the features of the frames up to it, oldest first."""
        if self.is_lstm:
            x = features
            for layer in self.layers:
                x = layer(x)
        else:
            x = features + self.times[...][None]
            for layer in self.layers:
                x = layer(x, train, rngs)
        return self.head(x)


def create_model(config: Config, inputs: InputSpec, rngs: nnx.Rngs) -> TemporalCNN:
    """TemporalCNN for the frame size, history, previous actions and buttons of ``inputs``."""
    return TemporalCNN(config, inputs, rngs)
