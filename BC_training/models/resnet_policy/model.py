"""ResNetPolicy: a residual network whose head keeps what is where.

The backbone is that of He et al., Deep Residual Learning for Image Recognition (2015), with basic
blocks: by default as deep as their 18 layers, at a quarter of the width. They then average over the
image; here a 1x1 convolution leaves few channels, which are flattened position by position.
"""

from dataclasses import dataclass

import jax
from flax import nnx
from jaxtyping import Float

from BC_training.common.errors import require
from BC_training.common.preprocess import InputSpec
from BC_training.models.convolution import Conv, max_pool
from BC_training.models.layers import ActionHead, BatchNorm, Logits, Observation, refuse_previous_actions, stack_history


@dataclass(frozen=True)
class Config:
    name: str
    width: int = 16  # channels of the first stage; each stage doubles them
    stage_blocks: tuple[int, ...] = (2, 2, 2, 2)  # basic blocks a stage; each stage but the first halves the sides
    position_features: int = 16  # channels left at each position of the last stage
    dense_features: int = 256
    dropout: float = 0.2  # before and after the dense layer
    action_chunk: int = 1  # actions predicted at once; in play the first counts

    def __post_init__(self) -> None:
        require(min(self.stage_blocks, default=0) >= 1, "model.stage_blocks", list(self.stage_blocks), "1 or more each")
        for key in ("width", "position_features", "dense_features", "action_chunk"):
            require(getattr(self, key) >= 1, f"model.{key}", getattr(self, key), "at least 1")
        require(0 <= self.dropout < 1, "model.dropout", self.dropout, "0 to below 1")


class ConvNorm(nnx.Module):
    """Convolution without bias, batch norm."""

    def __init__(self, channels: int, features: int, size: int, stride: int, rngs: nnx.Rngs):
        self.conv = Conv(channels, features, size, stride, use_bias=False, rngs=rngs)
        self.norm = BatchNorm(features, rngs=rngs)

    def __call__(self, x: Float[jax.Array, "B H W C"], train: bool) -> Float[jax.Array, "B h w features"]:
        return self.norm(self.conv(x, train), use_running_average=not train)


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions, and the input, or its 1x1 convolution, added to their result."""

    def __init__(self, channels: int, features: int, stride: int, rngs: nnx.Rngs):
        self.first = ConvNorm(channels, features, 3, stride, rngs)
        self.second = ConvNorm(features, features, 3, 1, rngs)
        is_same = stride == 1 and channels == features
        self.shortcut = None if is_same else ConvNorm(channels, features, 1, stride, rngs)

    def __call__(self, x: Float[jax.Array, "B H W C"], train: bool) -> Float[jax.Array, "B h w features"]:
        y = self.second(nnx.relu(self.first(x, train)), train)
        return nnx.relu(y + (x if self.shortcut is None else self.shortcut(x, train)))


class ResNetPolicy(nnx.Module):
    def __init__(self, config: Config, inputs: InputSpec, rngs: nnx.Rngs):
        channels = inputs.frame_shape[0] * inputs.window.history
        self.stem = ConvNorm(channels, config.width, 7, 2, rngs)
        channels, self.blocks = config.width, nnx.List([])
        for stage, blocks in enumerate(config.stage_blocks):
            features = config.width * 2**stage
            for i in range(blocks):
                self.blocks.append(BasicBlock(channels, features, 2 if stage and not i else 1, rngs))
                channels = features
        self.position = ConvNorm(channels, config.position_features, 1, 1, rngs)
        # The stem, its pooling and each stage but the first halve the sides, rounding up.
        halvings = len(config.stage_blocks) + 1
        height, width = (-(-side // 2**halvings) for side in inputs.frame_size)
        self.dense = nnx.Linear(height * width * config.position_features, config.dense_features, rngs=rngs)
        self.dropout = nnx.Dropout(config.dropout)
        self.head = ActionHead(config.dense_features, inputs, config.action_chunk, rngs=rngs)

    def __call__(self, observation: Observation, *, train: bool, rngs: nnx.Rngs | None = None) -> Logits:
        """Stacks a history into the channels; ``models`` describes the arguments."""
        x = max_pool(nnx.relu(self.stem(stack_history(observation["frames"]), train)))
        for block in self.blocks:
            x = block(x, train)
        x = nnx.relu(self.position(x, train)).reshape(x.shape[0], -1)
        x = nnx.relu(self.dense(self.dropout(x, deterministic=not train, rngs=rngs)))
        return self.head(self.dropout(x, deterministic=not train, rngs=rngs))


def create_model(config: Config, inputs: InputSpec, rngs: nnx.Rngs) -> ResNetPolicy:
    """ResNetPolicy for the frame size, history and buttons of ``inputs``.

    Raises:
        UserError: ``inputs`` has previous actions, which it does not take.
    """
    refuse_previous_actions("resnet_policy", inputs)
    return ResNetPolicy(config, inputs, rngs)
