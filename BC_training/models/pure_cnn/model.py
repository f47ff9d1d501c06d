"""PureCNN: the vision-only baseline.

Four 3x3 convolution blocks, global average pooling, two dense blocks, one logit a button.
The pooling discards *where* things are in the frame, which is why this is the floor that
other variants are measured against.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
from flax import nnx

from BC_training.common.errors import require
from BC_training.common.preprocess import InputSpec
from BC_training.models.layers import (
    ActionHead,
    ConvBlock,
    DenseBlock,
    refuse_previous_actions,
    require_convolutions,
    stack_history,
)


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
        require_convolutions(self.conv_features, self.conv_strides)
        require(
            min((*self.dense_features, 1)) >= 1, "model.dense_features", list(self.dense_features), "1 or more each"
        )
        require(self.action_chunk >= 1, "model.action_chunk", self.action_chunk, "at least 1")
        require(0 <= self.dropout < 1, "model.dropout", self.dropout, "0 to below 1")


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
        self.head = ActionHead(channels, inputs, config.action_chunk, rngs=rngs)

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
        x = stack_history(observation["frames"])
        for conv in self.convs:
            x = conv(x, train)
        x = x.mean(axis=(1, 2))
        for dense in self.denses:
            x = dense(x, train, rngs)
        return self.head(x)


def create_model(config: Config, inputs: InputSpec, rngs: nnx.Rngs) -> PureCNN:
    """PureCNN for the frame size, history and buttons of ``inputs``; it ignores the state.

    Raises:
        UserError: previous actions are asked for, which it does not take.
    """
    refuse_previous_actions("pure_cnn", inputs)
    return PureCNN(config, inputs, rngs)
