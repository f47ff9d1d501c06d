"""StateCNN: vision that keeps *where* things are, fused with the game state.

Convolution blocks, then a 1x1 convolution to few channels whose grid is flattened and not pooled,
so that each place has its own weights. With ``glances`` it is not flattened: each of so many heads
looks at one place (a softmax over all, as in Levine et al., End-to-End Training of Deep Visuomotor
Policies, 2016), and what counts is where that is and what the convolutions see there. So a small thing
that moves about, and leans, needs to be learned only once. The state's features and the embedded ids of all frames of
the history go through their own dense blocks and join the image before the last dense blocks.

With ``modulate`` they also scale and shift the channels of the last convolution, at all places alike
(Perez et al., FiLM: Visual Reasoning with a General Conditioning Layer, 2018): so a policy that is told
what to look for needs to learn only once, and not at each place, how that looks.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float, Int32

from BC_training.common.errors import UserError, require
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
    use_state: bool = True  # false: the vision-only twin, which ignores dataset.state
    conv_features: tuple[int, ...] = (32, 64, 128)
    conv_strides: tuple[int, ...] = (2, 2, 2)
    grid_features: int = 16  # channels of the grid that is flattened
    vision_features: tuple[int, ...] = (256,)  # dense blocks on the flattened grid
    embedding_features: int = 8  # numbers that an id of dataset.state.categories becomes
    state_features: tuple[int, ...] = (64,)  # dense blocks on the state
    dense_features: tuple[int, ...] = (256,)  # dense blocks on both
    dropout: float = 0.3  # after each dense block
    batch_norm: bool = True
    action_chunk: int = 1  # actions predicted at once; in play the first counts
    glances: int = 0  # places that it looks at, instead of a flattened grid; 0: the grid
    modulate: bool = False  # the state scales and shifts the channels of the last convolution, too

    def __post_init__(self) -> None:
        require_convolutions(self.conv_features, self.conv_strides)
        for name in ("vision_features", "state_features", "dense_features"):
            values = getattr(self, name)
            require(min(*values, 1, 1) >= 1, f"model.{name}", list(values), "1 or more each")
        for name in ("grid_features", "embedding_features", "action_chunk"):
            require(getattr(self, name) >= 1, f"model.{name}", getattr(self, name), "at least 1")
        require(self.glances >= 0, "model.glances", self.glances, "0 or more")
        require(0 <= self.dropout < 1, "model.dropout", self.dropout, "0 to below 1")
        require(self.use_state or not self.modulate, "model.modulate", True, "false where model.use_state is false")


class StateEncoder(nnx.Module):
    """Encodes the state's features and ids."""

    def __init__(self, config: Config, inputs: InputSpec, rngs: nnx.Rngs):
        assert inputs.state is not None
        sizes, features = inputs.state.vocabulary_sizes, config.embedding_features
        self.tables = nnx.List([nnx.Param(jax.random.normal(rngs.params(), (n, features)) * 0.1) for n in sizes])
        self.channels = inputs.window.history * (inputs.state.size + len(sizes) * features)
        self.denses = nnx.List(_dense_blocks(config, self.channels, config.state_features, rngs))

    def __call__(
        self,
        features: Float[jax.Array, "B T F"],
        ids: Int32[jax.Array, "B T C"],
        train: bool,
        rngs: nnx.Rngs | None,
    ) -> Float[jax.Array, "B features"]:
        parts = [features]
        for i, table in enumerate(self.tables):
            index = ids[..., i]
            # An unknown id adds nothing: training never changes its random row.
            parts.append(jnp.where(index[..., None] > 0, table[...][index], 0))
        x = jnp.concatenate(parts, axis=-1).reshape(-1, self.channels)
        for dense in self.denses:
            x = dense(x, train, rngs)
        return x


def glance(
    x: Float[jax.Array, "B H W C"], attention: Float[jax.Array, "B H W heads"]
) -> Float[jax.Array, "B heads*(C+2)"]:
    """The mean of the channels, and of the place's row and column in [-1, 1], under each head's softmax."""
    batch, height, width, _ = x.shape
    rows, columns = jnp.meshgrid(jnp.linspace(-1, 1, height), jnp.linspace(-1, 1, width), indexing="ij")
    places = jnp.broadcast_to(jnp.stack([rows, columns], -1).astype(x.dtype), (batch, height, width, 2))
    values = jnp.concatenate([x, places], -1).reshape(batch, height * width, -1)
    weights = nnx.softmax(attention.reshape(batch, height * width, -1), axis=1)
    return jnp.einsum("bph,bpc->bhc", weights, values).reshape(batch, -1)


class StateCNN(nnx.Module):
    def __init__(self, config: Config, inputs: InputSpec, rngs: nnx.Rngs):
        self.convs = nnx.List([])
        channels, (height, width) = inputs.frame_shape[0] * inputs.window.history, inputs.frame_size
        for features, stride in zip(config.conv_features, config.conv_strides, strict=True):
            self.convs.append(ConvBlock(channels, features, stride, config.batch_norm, rngs))
            channels, height, width = features, -(-height // stride), -(-width // stride)
        self.glances = config.glances
        self.grid = nnx.Conv(channels, config.glances or config.grid_features, (1, 1), rngs=rngs)
        grid = config.glances * (channels + 2) or height * width * config.grid_features
        self.vision = nnx.List(_dense_blocks(config, grid, config.vision_features, rngs))
        self.state = StateEncoder(config, inputs, rngs) if config.use_state else None
        of_state = (self.state.channels, *config.state_features)[-1] if self.state is not None else 0
        self.modulation = nnx.Linear(of_state, 2 * channels, rngs=rngs) if config.modulate else None
        channels = (grid, *config.vision_features)[-1] + of_state
        self.denses = nnx.List(_dense_blocks(config, channels, config.dense_features, rngs))
        self.head = ActionHead((channels, *config.dense_features)[-1], inputs, config.action_chunk, rngs=rngs)

    def __call__(self, observation: Observation, *, train: bool, rngs: nnx.Rngs | None = None) -> Logits:
        """Stacks a history into the channels, and its state and ids likewise; ``models`` describes the arguments."""
        x = stack_history(observation["frames"])
        for conv in self.convs:
            x = conv(x, train)
        state = None
        if self.state is not None and self.modulation is not None:
            state = self.state(observation["state"], observation["ids"], train, rngs)
            scale, shift = jnp.split(self.modulation(state)[:, None, None], 2, axis=-1)
            x = nnx.relu(x * (1 + scale) + shift)
        grid = self.grid(x)
        x = glance(x, grid) if self.glances else nnx.relu(grid).reshape(x.shape[0], -1)
        for dense in self.vision:
            x = dense(x, train, rngs)
        if self.state is not None:
            # Without modulation only here: the order decides which random numbers dropout draws.
            state = self.state(observation["state"], observation["ids"], train, rngs) if state is None else state
            x = jnp.concatenate([x, state], axis=-1)
        for dense in self.denses:
            x = dense(x, train, rngs)
        return self.head(x)


def _dense_blocks(config: Config, channels: int, widths: tuple[int, ...], rngs: nnx.Rngs) -> list[DenseBlock]:
    pairs = zip((channels, *widths), widths, strict=False)
    return [DenseBlock(before, width, config.dropout, config.batch_norm, rngs) for before, width in pairs]


def create_model(config: Config, inputs: InputSpec, rngs: nnx.Rngs) -> StateCNN:
    """StateCNN for the frame size, history, state features and buttons of ``inputs``.

    Raises:
        UserError: ``inputs`` has previous actions, which it does not take, or no state for ``use_state``.
    """
    refuse_previous_actions("state_cnn", inputs)
    if config.use_state and inputs.state is None:
        raise UserError(
            "model state_cnn sees the game state, but none of it is described: write a dataset.state section, or set "
            "model.use_state=false"
        )
    return StateCNN(config, inputs, rngs)
