"""PureCNN: the vision-only baseline.

Four 3x3 convolution blocks, global average pooling, two dense blocks, one logit a button.
The pooling discards *where* things are in the frame, so this is the floor that other variants
are measured against.
"""

from dataclasses import dataclass

from flax import nnx

from BC_training.common.errors import require
from BC_training.common.preprocess import InputSpec
from BC_training.models.layers import (
    ActionHead,
    ConvBlock,
    DenseBlock,
    Logits,
    Observation,
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
        dense = list(self.dense_features)
        require(min(dense, default=1) >= 1, "model.dense_features", dense, "1 or more each")
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

    def __call__(self, observation: Observation, *, train: bool, rngs: nnx.Rngs | None = None) -> Logits:
        """Stacks a history into the channels; ``models`` describes the arguments."""
        x = stack_history(observation["frames"])
        for conv in self.convs:
            x = conv(x, train)
        x = x.mean(axis=(1, 2))
        for dense in self.denses:
            x = dense(x, train, rngs)
        return self.head(x)


def create_model(config: Config, inputs: InputSpec, rngs: nnx.Rngs) -> PureCNN:
    """PureCNN for the frame size, history and buttons of ``inputs``.

    Raises:
        UserError: ``inputs`` has previous actions, which it does not take.
    """
    refuse_previous_actions("pure_cnn", inputs)
    return PureCNN(config, inputs, rngs)
