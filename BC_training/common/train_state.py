"""The functional core: a model split into pure pytrees, and the jitted steps over them.

Only this module splits and merges NNX modules. A model is split once into a
graph definition and pure dicts of arrays; each step merges them *inside* the differentiated
function, because batch statistics merged outside belong to another trace and cannot change.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.typing import ArrayLike

from BC_training import models
from BC_training.common.loader import Batch
from BC_training.common.losses import binary_cross_entropy
from BC_training.common.preprocess import OBSERVATION, InputSpec, normalize
from BC_training.common.schema import Config, TrainingConfig

Tree = Any  # a pytree of arrays


class TrainState(NamedTuple):
    """Everything a training step changes."""

    step: jax.Array  # int32 scalar, steps taken
    params: Tree
    batch_stats: Tree
    opt_state: Tree


class StepMetrics(NamedTuple):
    """What a training step reports; float32 scalars on the device."""

    loss: jax.Array
    grad_norm: jax.Array  # global norm before clipping
    learning_rate: jax.Array


@dataclasses.dataclass(frozen=True)
class SplitModel:
    """A model as a graph definition and pure dicts of float32 arrays."""

    graphdef: Any
    params: Tree
    batch_stats: Tree

    @property
    def parameter_count(self) -> int:
        return sum(x.size for x in jax.tree.leaves(self.params))


def abstract_model(config: Config, inputs: InputSpec) -> SplitModel:
    """The configured model with shapes in place of arrays; costs nothing to make."""
    model = nnx.eval_shape(lambda: _create(config, inputs))
    return _split(model)


def split_model(config: Config, inputs: InputSpec) -> SplitModel:
    """Creates the configured model, its parameters drawn from ``system.seed``."""

    @jax.jit  # one compilation instead of one for every initialiser
    def init() -> tuple[Tree, Tree]:
        model = _split(_create(config, inputs))
        return model.params, model.batch_stats

    return SplitModel(abstract_model(config, inputs).graphdef, *init())


def _create(config: Config, inputs: InputSpec) -> nnx.Module:
    variant = models.find(config.model.name)
    return variant.create_model(config.model, inputs, nnx.Rngs(config.system.seed))


def _split(model: nnx.Module) -> SplitModel:
    graphdef, params, batch_stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    return SplitModel(graphdef, nnx.to_pure_dict(params), nnx.to_pure_dict(batch_stats))


def make_optimizer(config: TrainingConfig, total_steps: int) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """AdamW behind global-norm clipping; a linear warm-up, then a cosine to 0 at ``total_steps``.

    The warm-up takes ``warmup_steps``, but at most half of the training. Weight decay spares
    vectors (biases and batch-norm scales).
    """
    warmup_steps = min(config.warmup_steps, total_steps // 2)
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.0 if warmup_steps else config.learning_rate,
        peak_value=config.learning_rate,
        warmup_steps=warmup_steps,
        decay_steps=total_steps,
    )
    optimizer = optax.chain(
        optax.clip_by_global_norm(config.gradient_clip_norm),
        optax.adamw(
            schedule,
            weight_decay=config.weight_decay,
            mask=lambda params: jax.tree.map(lambda x: x.ndim > 1, params),
        ),
    )
    return optimizer, schedule


def init_state(model: SplitModel, optimizer: optax.GradientTransformation) -> TrainState:
    return TrainState(jnp.zeros((), jnp.int32), model.params, model.batch_stats, optimizer.init(model.params))


def make_train_step(
    model: SplitModel,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    class_weights: np.ndarray,
    config: Config,
    gather: Callable[[Any, Any], Batch] = lambda data, item: item,
    augment: Callable[[jax.Array, Batch], Batch] = lambda key, batch: batch,
) -> Any:
    """The jitted training steps. They donate the state: keep only the one they return.

    Args:
        gather: makes a step's batch inside the jitted function; see ``loader.Tier``.
        augment: changes it there, with a key that follows from seed and step.

    Returns:
        A ``jax.jit`` function of (state, data, items) to (state, metrics). ``items`` has a
        leading axis [K]: it takes K steps in one dispatch, and metrics [K] come back.
    """
    key = jax.random.key(config.system.seed)
    weights = jnp.asarray(class_weights)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
        step_key = jax.random.fold_in(key, state.step)
        batch = augment(step_key, batch)
        observation = {name: batch[name] for name in OBSERVATION if name in batch}

        def loss_of(params: Tree) -> tuple[jax.Array, Tree]:
            rngs = nnx.Rngs(dropout=step_key)
            net = nnx.merge(model.graphdef, params, state.batch_stats)
            logits = net(normalize(observation), train=True, rngs=rngs)
            smoothing = config.training.label_smoothing
            loss = binary_cross_entropy(logits, batch["action"], weights, smoothing, batch.get("mask"))
            return loss, nnx.to_pure_dict(nnx.state(net, nnx.BatchStat))

        (loss, batch_stats), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = StepMetrics(loss, optax.tree.norm(grads), jnp.asarray(schedule(state.step)))
        return TrainState(state.step + 1, params, batch_stats, opt_state), metrics

    def train_steps(state: TrainState, data: Any, items: Any) -> tuple[TrainState, StepMetrics]:
        if jax.tree.leaves(items)[0].shape[0] > 1:
            return jax.lax.scan(lambda state, item: train_step(state, gather(data, item)), state, items)
        state, metrics = train_step(state, gather(data, jax.tree.map(lambda x: x[0], items)))
        return state, jax.tree.map(lambda x: x[None], metrics)

    return jax.jit(train_steps, donate_argnums=0)


def make_predict(graphdef: Any) -> Callable[[Tree, Tree, Mapping[str, ArrayLike]], jax.Array]:
    """The jitted forward pass for evaluation and play, with running statistics, no dropout.

    Returns:
        A function of (params, batch_stats, observation) to logits float32 [B, A]. Of a batch it
        takes what ``preprocess.OBSERVATION`` names; of a chunk it returns the first action's.
    """

    def predict(params: Tree, batch_stats: Tree, observation: Mapping[str, jax.Array]) -> jax.Array:
        net = nnx.merge(graphdef, params, batch_stats)
        logits = net(normalize(observation), train=False)
        return logits[:, 0] if logits.ndim == 3 else logits

    jitted = jax.jit(predict)
    return lambda params, batch_stats, batch: jitted(
        params, batch_stats, {name: batch[name] for name in OBSERVATION if name in batch}
    )
