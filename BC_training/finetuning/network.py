"""A policy with a value head on its features: both from one forward pass, as it plays, without dropout.

Batch norm uses the running statistics that the clone has: so the update sees the very probabilities that were played.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
from flax import nnx
from jaxtyping import Float, Shaped

from BC_training.common.errors import UserError
from BC_training.common.preprocess import normalize
from BC_training.models.layers import ActionHead
from BC_training.training.train_state import SplitModel, Tree

Observation = Mapping[str, Shaped[jax.Array, "B ..."]]


class ValueHead(nnx.Module):
    """Dense layers with ReLU on the policy's features; it says 0 before it has learned.

    Not with tanh: features have no bound, and a return far from 0 drove its units to their ends, where they learn no
    more (CartPole: one value everywhere).
    """

    def __init__(self, features: int, layers: tuple[int, ...], rngs: nnx.Rngs):
        pairs = zip((features, *layers), layers, strict=False)
        self.layers = nnx.List([nnx.Linear(before, width, rngs=rngs) for before, width in pairs])
        last = (features, *layers)[-1]
        self.out = nnx.Linear(last, 1, kernel_init=nnx.initializers.zeros, rngs=rngs)

    def __call__(self, x: Float[jax.Array, "B F"]) -> Float[jax.Array, " B"]:
        for layer in self.layers:
            x = nnx.relu(layer(x))
        return self.out(x)[:, 0]


@dataclass(frozen=True)
class Network:
    """The functions of a policy and its value head, over pure trees: ``policy``, ``stats``, ``value``.

    Attributes:
        model: the policy; its arrays do not matter.
        value_graph: the value head's graph definition.
        is_streaming: whether each frame is encoded by itself (``Window.every_frame``).
        temperature: what logits are divided by, as where a ``Decoding`` of this temperature draws.
    """

    model: SplitModel
    value_graph: Any
    is_streaming: bool
    temperature: float

    @classmethod
    def build(cls, model: SplitModel, layers: tuple[int, ...], seed: int, temperature: float) -> tuple["Network", Tree]:
        """The network, and a value head's first parameters, drawn from ``seed``.

        Raises a UserError where the variant has no ``head``, an ``ActionHead``.
        """
        head = getattr(nnx.merge(model.graphdef, model.params, model.batch_stats), "head", None)
        if not isinstance(head, ActionHead):
            raise UserError("fine-tuning needs the model's last layer as its attribute 'head', a layers.ActionHead")

        @jax.jit
        def init() -> Tree:
            return nnx.to_pure_dict(nnx.state(ValueHead(head.in_features, layers, nnx.Rngs(seed)), nnx.Param))

        graph = nnx.split(nnx.eval_shape(lambda: ValueHead(head.in_features, layers, nnx.Rngs(seed))))[0]
        return cls(model, graph, model.inputs.window.every_frame, temperature), init()

    def __call__(
        self, policy: Tree, stats: Tree, value: Tree, observation: Observation
    ) -> tuple[Float[jax.Array, "B L"], Float[jax.Array, " B"]]:
        """The logits and the value of windows, whose parts ``preprocess.OBSERVATION`` names, before ``normalize``."""
        net, seen = self._tapped(policy, stats)
        logits = net(normalize(observation, self.model.inputs), train=False)
        return self._outputs(logits, seen[0], value)

    def encode(self, policy: Tree, stats: Tree, observation: Observation) -> Float[jax.Array, "B F"]:
        """The features of single frames, [B, 1, ...], for a policy that streams."""
        net = nnx.merge(self.model.graphdef, policy, stats)
        return net.encode(normalize(observation, self.model.inputs), train=False)[:, 0]

    def remember(
        self, policy: Tree, stats: Tree, value: Tree, features: Float[jax.Array, "B T F"]
    ) -> tuple[Float[jax.Array, "B L"], Float[jax.Array, " B"]]:
        """What ``__call__`` returns, from the features of a history's frames."""
        net, seen = self._tapped(policy, stats)
        logits = net.remember(features, train=False)[:, -1]
        return self._outputs(logits, seen[0][:, -1], value)

    def _tapped(self, policy: Tree, stats: Tree) -> tuple[Any, list[jax.Array]]:
        """The model, and a list that gets what goes into its head."""
        net, seen = nnx.merge(self.model.graphdef, policy, stats), []
        head = net.head

        def tap(x: jax.Array) -> jax.Array:
            seen.append(x)
            return head(x)

        net.head = tap
        return net, seen

    def _outputs(self, logits: jax.Array, features: jax.Array, value: Tree) -> tuple[jax.Array, jax.Array]:
        logits = logits[..., : self.model.inputs.logits] / self.temperature
        logits = logits[:, 0] if logits.ndim == 3 else logits
        return logits, nnx.merge(self.value_graph, value)(features)
