"""The functional core: a model split into pure pytrees, and the jitted steps over them.

Only this module splits and merges NNX modules. A model is split once into a graph definition and pure dicts of arrays;
each step merges them *inside* the differentiated function, because batch statistics merged outside belong to another
trace and cannot change.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Float, Float32, Int32

from BC_training.common.errors import UserError
from BC_training.common.preprocess import OBSERVATION, InputSpec, normalize
from BC_training.common.schema import Config, TrainingConfig
from BC_training.common.settings import variants
from BC_training.data.loader import Batch
from BC_training.training.losses import make_loss

Tree = Any  # a pytree of arrays


class TrainState(NamedTuple):
    """Everything a training step changes."""

    step: Int32[jax.Array, ""]  # steps taken: batches, not updates
    params: Tree
    batch_stats: Tree
    opt_state: Tree
    ema: Tree = None  # with training.ema_decay, the averages of {"params", "batch_stats"}


class StepMetrics(NamedTuple):
    """What a training step reports; float32 scalars on the device."""

    loss: jax.Array
    grad_norm: jax.Array  # global norm of the batch's gradient, before clipping
    param_norm: jax.Array  # global norm of the new parameters
    learning_rate: jax.Array  # in the update that the batch belongs to


@dataclasses.dataclass(frozen=True)
class SplitModel:
    """A model as a graph definition and pure dicts of float32 arrays, and what it was made for."""

    graphdef: Any
    params: Tree
    batch_stats: Tree
    inputs: InputSpec

    @property
    def parameter_count(self) -> int:
        return sum(x.size for x in jax.tree.leaves(self.params))


def abstract_model(config: Config, inputs: InputSpec) -> SplitModel:
    """The configured model with shapes in place of arrays; costs nothing to make."""
    return SplitModel(*_split(nnx.eval_shape(lambda: _create(config, inputs))), inputs)


def split_model(config: Config, inputs: InputSpec) -> SplitModel:
    """Creates the configured model, its parameters drawn from ``system.seed``."""

    @jax.jit  # one compilation instead of one for every initialiser
    def init() -> tuple[Tree, Tree]:
        return _split(_create(config, inputs))[1:]

    params, batch_stats = init()
    return dataclasses.replace(abstract_model(config, inputs), params=params, batch_stats=batch_stats)


def _create(config: Config, inputs: InputSpec) -> nnx.Module:
    variant = variants.find(config.model.name)
    return variant.create_model(config.model, inputs, nnx.Rngs(config.system.seed))


def _split(model: nnx.Module) -> tuple[Any, Tree, Tree]:
    graphdef, params, batch_stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    return graphdef, nnx.to_pure_dict(params), nnx.to_pure_dict(batch_stats)


def make_optimizer(config: TrainingConfig, total_steps: int) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """AdamW behind global-norm clipping; a linear warm-up, then a cosine to 0 or a constant rate.

    The warm-up takes ``warmup_steps`` updates; before a cosine it takes at most half of the training, while before a
    constant rate it does not depend on the training's length, so that a training can be prolonged. Weight decay spares
    vectors (biases and batch-norm scales).

    With ``gradient_accumulation`` k the mean gradient of k consecutive batches is clipped and makes one update. Batches
    that an epoch leaves over begin the first update of the next epoch; those that the training leaves over are lost.

    Returns:
        The optimizer, to be called for every batch of ``total_steps``, and the schedule, a function of updates taken.

    Raises:
        UserError: the training is too short for one update.
    """
    updates = total_steps // config.gradient_accumulation
    if not updates:
        raise UserError(
            f"training.gradient_accumulation={config.gradient_accumulation} is more than the training's "
            f"{total_steps} batches, so that no update would be made: lower it, or train for more epochs"
        )
    peak, is_cosine = config.learning_rate, config.schedule == "cosine"
    warmup = min(config.warmup_steps, updates // 2) if is_cosine else config.warmup_steps
    start = 0.0 if warmup else peak
    if is_cosine:
        schedule = optax.warmup_cosine_decay_schedule(start, peak, warmup, decay_steps=updates)
    else:
        schedule = optax.warmup_constant_schedule(start, peak, warmup)
    adamw = optax.adamw(schedule, weight_decay=config.weight_decay, mask=partial(jax.tree.map, lambda x: x.ndim > 1))
    optimizer = optax.chain(optax.clip_by_global_norm(config.gradient_clip_norm), adamw)
    if config.gradient_accumulation > 1:
        optimizer = optax.MultiSteps(optimizer, config.gradient_accumulation).gradient_transformation()
    return optimizer, schedule


def init_state(model: SplitModel, optimizer: optax.GradientTransformation, averaged: bool = False) -> TrainState:
    """The state before the first step; ``averaged`` keeps moving averages, which ``training.ema_decay`` needs."""
    ema = {"params": model.params, "batch_stats": model.batch_stats} if averaged else None
    ema = jax.tree.map(jnp.copy, ema)  # a step donates the state: no buffer may be in it twice
    return TrainState(jnp.zeros((), jnp.int32), model.params, model.batch_stats, optimizer.init(model.params), ema)


def eval_params(state: TrainState) -> tuple[Tree, Tree]:
    """Parameters and batch statistics to validate, save and play: the averages where they are kept."""
    if state.ema is None:
        return state.params, state.batch_stats
    return state.ema["params"], state.ema["batch_stats"]


def abstract_state(model: SplitModel, optimizer: optax.GradientTransformation, averaged: bool = False) -> TrainState:
    """``init_state`` with shapes in place of arrays; costs nothing to make."""

    def init(params: Tree, batch_stats: Tree) -> TrainState:
        return init_state(dataclasses.replace(model, params=params, batch_stats=batch_stats), optimizer, averaged)

    return jax.eval_shape(init, model.params, model.batch_stats)


def make_train_step(
    model: SplitModel,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    class_weights: Float[np.ndarray, " A"],
    config: Config,
    gather: Callable[[Any, Any], Batch] = lambda data, item: item,
    augment: Callable[[jax.Array, Batch], Batch] = lambda key, batch: batch,
    placement: jax.sharding.Sharding | None = None,
) -> Any:
    """The jitted training steps. They donate the state: keep only the one they return.

    With ``training.precision`` bfloat16 the parameters, the frames and the features of the state are cast to it before
    the model, and the logits back to float32 before the loss; so are the gradients, by the cast of the parameters.

    Args:
        optimizer, schedule: as ``make_optimizer`` returns them.
        gather: makes a step's batch inside the jitted function; see ``loader.Tier``.
        augment: changes it there, with a key that follows from seed and step.
        placement: where the state and the metrics are, with several devices.

    Returns:
        A ``jax.jit`` function of (state, data, items [K, ...]) to (state, metrics [K]); one dispatch takes K steps.
    """
    key = jax.random.key(config.system.seed)
    loss_function = make_loss(config.training, jnp.asarray(class_weights), model.inputs.axis_bins)
    accumulation, ema_decay = config.training.gradient_accumulation, config.training.ema_decay
    compute = partial(jax.tree.map, lambda x: x.astype(config.training.precision))

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
        step_key = jax.random.fold_in(key, state.step)
        batch = augment(step_key, batch)
        observation = {name: batch[name] for name in OBSERVATION if name in batch}

        def loss_of(params: Tree) -> tuple[jax.Array, Tree]:
            rngs = nnx.Rngs(dropout=step_key)
            net = nnx.merge(model.graphdef, compute(params), state.batch_stats)
            seen = normalize(observation, model.inputs, config.training.precision)
            logits = net(seen, train=True, rngs=rngs).astype(jnp.float32)
            state_loss = None
            if model.inputs.auxiliary is not None:
                logits, predicted = jnp.split(logits, [model.inputs.logits], axis=-1)
                wanted, _ = model.inputs.auxiliary.encode(model.inputs.state_names, batch["auxiliary"], None)
                errors = jnp.square(predicted - wanted).mean(axis=-1)
                state_loss = config.training.auxiliary_weight * errors.mean(where=batch.get("mask"))
            given = {name: batch.get(name) for name in ("axes", "mask", "known")}
            loss = loss_function(logits, batch["action"], **given)
            loss = loss if state_loss is None else loss + state_loss
            return loss, nnx.to_pure_dict(nnx.state(net, nnx.BatchStat))

        (loss, batch_stats), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        rate = jnp.asarray(schedule(state.step // accumulation))
        metrics = StepMetrics(loss, optax.tree.norm(grads), optax.tree.norm(params), rate)
        taken, ema = state.step + 1, state.ema
        if ema_decay is not None:
            share = jnp.where(taken % accumulation == 0, _ema_share(ema_decay, taken // accumulation), 0.0)
            ema = optax.incremental_update({"params": params, "batch_stats": batch_stats}, ema, share)
        return TrainState(taken, params, batch_stats, opt_state, ema), metrics

    def train_steps(state: TrainState, data: Any, items: Any) -> tuple[TrainState, StepMetrics]:
        if jax.tree.leaves(items)[0].shape[0] > 1:
            return jax.lax.scan(lambda state, item: train_step(state, gather(data, item)), state, items)
        state, metrics = train_step(state, gather(data, jax.tree.map(lambda x: x[0], items)))
        return state, jax.tree.map(lambda x: x[None], metrics)

    return jax.jit(train_steps, donate_argnums=0, out_shardings=placement)


def _ema_share(decay: float, updates: Int32[jax.Array, ""]) -> Float32[jax.Array, ""]:
    """The weight of the newest values in the moving average.

    The decay is smaller at the start, min(decay, (1 + updates) / (10 + updates)), as in TensorFlow's
    tf.train.ExponentialMovingAverage, so that the initial values are soon forgotten.
    """
    t = updates.astype(jnp.float32)
    return 1 - jnp.minimum(decay, (1 + t) / (10 + t))


def make_predict(
    model: SplitModel, placement: jax.sharding.Sharding | None = None
) -> Callable[[Tree, Tree, Mapping[str, ArrayLike]], jax.Array]:
    """The jitted forward pass for evaluation and play, with running statistics and no dropout.

    The arrays of ``model`` do not matter. With several devices the logits are where ``placement`` says.

    Returns:
        A function of (params, batch_stats, observation) to logits float32 [B, L], those of the first action of a chunk.
        It takes what ``preprocess.OBSERVATION`` names from a batch.
    """

    def predict(params: Tree, batch_stats: Tree, observation: Mapping[str, jax.Array]) -> jax.Array:
        net = nnx.merge(model.graphdef, params, batch_stats)
        logits = net(normalize(observation, model.inputs), train=False)[..., : model.inputs.logits]
        return logits[:, 0] if logits.ndim == 3 else logits

    jitted = jax.jit(predict, out_shardings=placement)
    return lambda params, batch_stats, batch: jitted(
        params, batch_stats, {name: batch[name] for name in OBSERVATION if name in batch}
    )


def make_stream(
    model: SplitModel,
) -> tuple[Callable[[Tree, Tree, Mapping[str, ArrayLike]], jax.Array], Callable[[Tree, Tree, ArrayLike], jax.Array]]:
    """``make_predict`` in two jitted parts, for a model that encodes each frame by itself (``Window.every_frame``).

    Returns:
        A function of (params, batch_stats, observation of one frame [1, 1, ...]) to its features float32 [F], and one
        of (params, batch_stats, features of the history [1, T, F]) to logits float32 [1, L].
    """

    def encode(params: Tree, batch_stats: Tree, observation: Mapping[str, jax.Array]) -> jax.Array:
        net = nnx.merge(model.graphdef, params, batch_stats)
        return net.encode(normalize(observation, model.inputs), train=False)[0, 0]

    def remember(params: Tree, batch_stats: Tree, features: jax.Array) -> jax.Array:
        logits = nnx.merge(model.graphdef, params, batch_stats).remember(features, train=False)[:, -1]
        logits = logits[..., : model.inputs.logits]
        return logits[:, 0] if logits.ndim == 3 else logits

    return jax.jit(encode), jax.jit(remember)
