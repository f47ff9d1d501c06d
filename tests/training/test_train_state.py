import dataclasses
import math

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from BC_training.common.errors import UserError
from BC_training.common.schema import TrainingConfig
from BC_training.common.settings.state import StateConfig
from BC_training.common.state import StateFeatures
from BC_training.models.pure_cnn.model import create_model
from BC_training.training.losses import focal_loss
from BC_training.training.train_state import (
    SplitModel,
    TrainState,
    abstract_model,
    eval_params,
    init_state,
    make_optimizer,
    make_predict,
    make_train_step,
    split_model,
)

SIZE, ACTIONS, BATCH = (16, 16), 3, 8
TINY = {"conv_features": (4,), "conv_strides": (4,), "dense_features": (8,)}
WEIGHTS = np.array([1, 2, 5], np.float32)


def a_batch(seed: int = 0, size: int = BATCH) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    return {
        "frames": jnp.asarray(rng.integers(0, 256, (size, 1, 3, *SIZE), np.uint8)),
        "action": jnp.asarray(rng.random((size, ACTIONS)) < 0.4),
    }


def one_at_a_time(steps):
    """The jitted steps as a function of (state, batch) that takes one."""

    def step(state, batch):
        state, metrics = steps(state, (), jax.tree.map(lambda x: x[None], batch))
        return state, jax.tree.map(lambda x: x[0], metrics)

    return step


def copy(tree):
    """For a step to donate."""
    return jax.tree.map(jnp.copy, tree)


def leaves(tree) -> list[np.ndarray]:
    return [np.asarray(x) for x in jax.tree.leaves(tree)]


def by_name(tree) -> dict[str, np.ndarray]:
    return {jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree.leaves_with_path(tree)}


def same_bits(a, b) -> bool:
    return all(x.tobytes() == y.tobytes() for x, y in zip(leaves(a), leaves(b), strict=True))


def spy() -> optax.GradientTransformation:
    """Plain gradient descent that keeps the raw gradients as its state."""
    return optax.GradientTransformation(
        init=lambda params: jax.tree.map(jnp.zeros_like, params),
        update=lambda grads, state, params=None: (jax.tree.map(lambda g: -0.01 * g, grads), grads),
    )


@pytest.fixture(scope="module")
def inputs(make_inputs):
    return make_inputs(ACTIONS, SIZE, SIZE)


@pytest.fixture(scope="module")
def config(make_config):
    return make_config(TINY | {"dropout": 0.5}, {"label_smoothing": 0.1})


@pytest.fixture(scope="module")
def model(config, inputs) -> SplitModel:
    return split_model(config, inputs)


@pytest.fixture(scope="module")
def step(model, config):
    """A step that leaves its gradients in ``opt_state``, with class weights, smoothing and dropout."""
    return one_at_a_time(make_train_step(model, spy(), optax.constant_schedule(0.25), WEIGHTS, config))


@pytest.fixture
def state(model) -> TrainState:
    return copy(init_state(model, spy()))


# --- the model, split ----------------------------------------------------------------------


def test_split_model_has_the_shapes_of_the_abstract_one(model, config, inputs):
    abstract = abstract_model(config, inputs)
    for real, shape in ((model.params, abstract.params), (model.batch_stats, abstract.batch_stats)):
        assert jax.tree.map(lambda x: (x.shape, x.dtype), real) == jax.tree.map(lambda x: (x.shape, x.dtype), shape)
    assert model.parameter_count == abstract.parameter_count == sum(x.size for x in leaves(model.params))


def test_the_seed_draws_the_parameters_of_a_model_made_eagerly(model, config, inputs):
    other = dataclasses.replace(config, system=dataclasses.replace(config.system, seed=1))
    for seed, split in ((0, model), (1, split_model(other, inputs))):
        _, params, _ = nnx.split(create_model(config.model, inputs, nnx.Rngs(seed)), nnx.Param, nnx.BatchStat)
        for ours, theirs in zip(leaves(split.params), leaves(nnx.to_pure_dict(params)), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


# --- the optimizer -------------------------------------------------------------------------


def learning_rate(step: int, peak: float, warmup: int, total: int) -> float:
    if step < warmup:
        return peak * step / warmup
    return peak * (1 + math.cos(math.pi * min((step - warmup) / (total - warmup), 1))) / 2


@pytest.mark.parametrize(
    ("warmup", "total"), [(10, 50), (0, 20), (1, 2), (10, 20), (100, 1), (100, 2), (100, 5), (100, 20)]
)
def test_the_rate_warms_up_for_at_most_half_of_the_training_then_falls_along_a_cosine(warmup, total):
    _, schedule = make_optimizer(TrainingConfig(learning_rate=0.3, warmup_steps=warmup), total)
    expected = [learning_rate(step, 0.3, min(warmup, total // 2), total) for step in range(total + 3)]
    assert [float(schedule(step)) for step in range(total + 3)] == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(("warmup", "total"), [(10, 50), (0, 20), (100, 7)])
def test_a_constant_rate_warms_up_then_stays(warmup, total):
    _, schedule = make_optimizer(TrainingConfig(learning_rate=0.3, warmup_steps=warmup, schedule="constant"), total)
    expected = [0.3 * min(step / warmup, 1) if warmup else 0.3 for step in range(total + 3)]
    assert [float(schedule(step)) for step in range(total + 3)] == pytest.approx(expected, abs=1e-7)


def test_updates_are_those_of_adamw_in_float64():
    """Gradients are clipped by the global norm; matrices alone decay; each step has its rate."""
    config = TrainingConfig(learning_rate=0.1, warmup_steps=3, weight_decay=0.05, gradient_clip_norm=2.0)
    optimizer, _ = make_optimizer(config, 8)
    rng = np.random.default_rng(0)
    shapes = {"matrix": (3, 4), "kernel": (2, 2, 3, 4), "vector": (4,), "scalar": ()}
    params = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    expected = {name: x.astype(np.float64) for name, x in params.items()}
    mean, square = ({name: np.zeros(shape) for name, shape in shapes.items()} for _ in range(2))
    opt_state, update = optimizer.init(params), jax.jit(optimizer.update)
    for step in range(8):
        size = 10.0 if step % 2 else 0.01  # above and below the norm to clip at
        grads = {name: (size * rng.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()}
        updates, opt_state = update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)

        norm = math.sqrt(sum(float((g.astype(np.float64) ** 2).sum()) for g in grads.values()))
        rate = learning_rate(step, 0.1, 3, 8)
        for name, grad in grads.items():
            clipped = grad.astype(np.float64) * min(1, 2.0 / norm)
            mean[name] = 0.9 * mean[name] + 0.1 * clipped
            square[name] = 0.999 * square[name] + 0.001 * clipped**2
            direction = mean[name] / (1 - 0.9 ** (step + 1))
            direction /= np.sqrt(square[name] / (1 - 0.999 ** (step + 1))) + 1e-8
            decay = 0.05 * expected[name] if len(shapes[name]) > 1 else 0
            expected[name] = expected[name] - rate * (direction + decay)
        for name in shapes:
            np.testing.assert_allclose(params[name], expected[name], rtol=1e-4, atol=1e-5)


# --- the step ------------------------------------------------------------------------------


def test_the_state_is_donated(step, state):
    kernel = jax.tree.leaves(state.params)[-1]
    step(state, a_batch())
    assert kernel.is_deleted()


def test_a_step_counts_and_reports(step, state):
    before = leaves(state.params)
    for taken in (1, 2, 3):
        state, metrics = step(state, a_batch(taken))
        assert int(state.step) == taken
        assert state.step.dtype == jnp.int32
        norm = math.sqrt(sum(float((g.astype(np.float64) ** 2).sum()) for g in leaves(state.opt_state)))
        assert float(metrics.grad_norm) == pytest.approx(norm, rel=1e-5)
        norm = math.sqrt(sum(float((p.astype(np.float64) ** 2).sum()) for p in leaves(state.params)))
        assert float(metrics.param_norm) == pytest.approx(norm, rel=1e-5)
        assert float(metrics.learning_rate) == 0.25
        assert all(x.shape == () for x in metrics)
        assert all(x.dtype == jnp.float32 for x in metrics)
    assert not any(np.array_equal(a, b) for a, b in zip(before, leaves(state.params), strict=True) if a.ndim > 1)


def test_the_loss_is_computed_in_training_mode_with_weights_and_smoothing(step, state, model):
    batch = a_batch()
    rngs = nnx.Rngs(dropout=jax.random.fold_in(jax.random.key(0), 5))
    net = nnx.merge(model.graphdef, model.params, model.batch_stats)
    logits = net({"frames": batch["frames"].astype(jnp.float32) / 255}, train=True, rngs=rngs)
    after, metrics = step(state._replace(step=jnp.int32(5)), batch)
    loss = float(focal_loss(logits, batch["action"], WEIGHTS, 0.1, gamma=0.0))
    assert float(metrics.loss) == pytest.approx(loss, rel=1e-5)
    expected = nnx.to_pure_dict(nnx.state(net, nnx.BatchStat))
    for ours, theirs in zip(leaves(after.batch_stats), leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_predicted_state_counts_in_training_and_is_no_part_of_what_the_policy_says(make_config, inputs):
    fitted = StateFeatures(StateConfig(standardized=("b", "c")), (), (1.0, -2.0), (2.0, 4.0))
    inputs = dataclasses.replace(inputs, state_names=("a", "b", "c"), auxiliary=fitted)
    config = make_config(TINY, {"auxiliary_state": ("b", "c"), "auxiliary_weight": 3.0})
    split, batch = split_model(config, inputs), a_batch()
    batch["auxiliary"] = jnp.asarray(np.random.default_rng(1).normal(size=(BATCH, 3)), jnp.float32)
    net = nnx.merge(split.graphdef, split.params, split.batch_stats)
    outputs = net({"frames": batch["frames"].astype(jnp.float32) / 255}, train=True)
    assert outputs.shape == (BATCH, ACTIONS + 2)
    wanted = (np.asarray(batch["auxiliary"])[:, 1:] - [1, -2]) / [2, 4]
    loss = float(focal_loss(outputs[:, :ACTIONS], batch["action"], WEIGHTS, 0.0, gamma=0.0))
    loss += 3 * float(np.mean((np.asarray(outputs[:, ACTIONS:]) - wanted) ** 2))
    step = one_at_a_time(make_train_step(split, spy(), optax.constant_schedule(0.25), WEIGHTS, config))
    _, metrics = step(copy(init_state(split, spy())), batch)
    assert float(metrics.loss) == pytest.approx(loss, rel=1e-5)
    assert make_predict(split)(split.params, split.batch_stats, batch).shape == (BATCH, ACTIONS)


def test_every_parameter_has_a_finite_gradient_that_is_not_zero(step, state):
    state, _ = step(state, a_batch())
    gradients = by_name(state.opt_state)
    assert set(gradients) == set(by_name(state.params))
    for name, gradient in gradients.items():
        assert np.isfinite(gradient).all(), name
        if name.endswith("['conv']['bias']") or name.endswith("['dense']['bias']"):
            # Batch norm subtracts the mean, and with it the bias before it.
            np.testing.assert_allclose(gradient, 0, atol=1e-4, err_msg=name)
        else:
            assert np.abs(gradient).max() > 1e-5, name


def test_the_gradient_agrees_with_finite_differences(step, state):
    """The whole step is checked: the layers' own backward passes, weights, smoothing and dropout."""
    batch, rng = a_batch(), np.random.default_rng(0)
    after, _ = step(copy(state), batch)
    direction = jax.tree.map(
        lambda g: jnp.asarray(np.sign(g) + 0.3 * rng.normal(size=g.shape), jnp.float32), after.opt_state
    )

    def loss_at(distance: float) -> float:
        params = jax.tree.map(lambda p, d: p + distance * d, state.params, direction)
        return float(step(copy(state)._replace(params=params), batch)[1].loss)

    slope = (loss_at(1e-3) - loss_at(-1e-3)) / 2e-3
    expected = sum(float((g * d).sum()) for g, d in zip(leaves(after.opt_state), leaves(direction), strict=True))
    assert slope == pytest.approx(expected, rel=0.02)


def test_dropout_differs_by_step_and_only_by_it(step, state):
    def loss(at: int) -> float:
        return float(step(copy(state)._replace(step=jnp.int32(at)), a_batch())[1].loss)

    losses = [loss(at) for at in range(4)]
    assert len(set(losses)) == 4
    assert [loss(at) for at in range(4)] == losses


def test_dtypes_are_never_promoted_silently(step, state):
    """The optimizer is left out, for optax promotes in its bias correction."""
    with jax.numpy_dtype_promotion("strict"):
        after, metrics = jax.eval_shape(step, state, a_batch())
    assert {x.dtype for x in jax.tree.leaves((after.params, after.batch_stats, metrics))} == {jnp.dtype("float32")}


def test_several_steps_in_a_dispatch_are_the_same_steps(model, config):
    """The batches are gathered inside the dispatch, as from device memory."""
    data = jax.tree.map(lambda *x: jnp.stack(x), *(a_batch(i) for i in range(5)))
    steps = make_train_step(
        model, spy(), optax.constant_schedule(0.25), WEIGHTS, config, lambda data, i: jax.tree.map(lambda x: x[i], data)
    )
    one, metrics = copy(init_state(model, spy())), []
    for i in (3, 0, 4):
        one, of_step = steps(one, data, jnp.array([i]))
        metrics.append(of_step)
    three, of_all = steps(copy(init_state(model, spy())), data, jnp.array([3, 0, 4]))
    assert of_all.loss.shape == (3,)
    np.testing.assert_allclose(of_all.loss, np.concatenate([m.loss for m in metrics]), rtol=1e-5)
    for a, b in zip(leaves(three), leaves(one), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_masked_actions_do_not_train(make_config, inputs):
    config = make_config(TINY | {"action_chunk": 2})
    split = split_model(config, inputs)
    step = one_at_a_time(make_train_step(split, spy(), optax.constant_schedule(0.25), WEIGHTS, config))
    batch = a_batch()
    action = jnp.stack([batch["action"], batch["action"]], axis=1)
    mask = jnp.ones((BATCH, 2), bool).at[:, 1].set(False)
    losses = []
    for other in (action, action.at[:, 1].set(~action[:, 1])):
        _, metrics = step(copy(init_state(split, spy())), batch | {"action": other, "mask": mask})
        losses.append(float(metrics.loss))
    assert losses[0] == losses[1]


def test_the_step_augments_by_its_key_and_leaves_dropout_alone(model, config, step, state):
    """A step that augments is one without that gets the batch augmented by hand."""

    def augment(key, batch):
        return batch | {"frames": jax.random.permutation(key, batch["frames"], axis=0)}

    schedule = optax.constant_schedule(0.25)
    augmenting = one_at_a_time(make_train_step(model, spy(), schedule, WEIGHTS, config, augment=augment))
    for at in (0, 3):
        batch = a_batch(at)
        changed = augment(jax.random.fold_in(jax.random.key(config.system.seed), at), batch)
        first, second, unchanged = (
            float(take(copy(state)._replace(step=jnp.int32(at)), of)[1].loss)
            for take, of in ((augmenting, batch), (step, changed), (step, batch))
        )
        assert first == pytest.approx(second, rel=1e-5)
        assert first != pytest.approx(unchanged, rel=1e-3)


# --- gradient accumulation and averages of the parameters ----------------------------------

NO_BATCH_NORM = TINY | {"batch_norm": False}


def steps_of(make_config, inputs, model: dict, training: dict, total: int):
    """A new model's first state, with its own buffers, and its jitted steps."""
    config = make_config(model, training)
    split = split_model(config, inputs)
    optimizer, schedule = make_optimizer(config.training, total)
    state = init_state(split, optimizer, averaged=config.training.ema_decay is not None)
    return state, make_train_step(split, optimizer, schedule, WEIGHTS, config)


@pytest.mark.slow
def test_accumulating_four_batches_equals_one_four_times_as_large(make_config, inputs):
    """Some updates are clipped."""
    training = {"learning_rate": 0.01, "warmup_steps": 2, "weight_decay": 0.5, "gradient_clip_norm": 0.8}
    large, large_step = steps_of(make_config, inputs, NO_BATCH_NORM, training, 6)
    small, small_step = steps_of(make_config, inputs, NO_BATCH_NORM, training | {"gradient_accumulation": 4}, 26)
    large_step, small_step = one_at_a_time(large_step), one_at_a_time(small_step)
    norms = []
    for update in range(6):
        batch = a_batch(update, 32)
        losses, before = [], copy(small.params)
        large, of_large = large_step(large, batch)
        for i in range(4):
            assert same_bits(small.params, before)
            small, metrics = small_step(small, jax.tree.map(lambda x, i=i: x[8 * i : 8 * i + 8], batch))
            losses.append(float(metrics.loss))
            assert float(metrics.learning_rate) == float(of_large.learning_rate)
        norms.append(float(of_large.grad_norm))
        assert np.mean(losses) == pytest.approx(float(of_large.loss), abs=1e-5)
        for ours, theirs in zip(leaves(small.params), leaves(large.params), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
        assert update == 0 or not same_bits(small.params, before)  # the warm-up's first rate is 0
    assert sum(norm < 0.8 for norm in norms) == 3
    assert (int(small.step), int(large.step)) == (24, 6)


def test_without_accumulation_the_optimizer_is_not_wrapped(model):
    for accumulation, wrapped in ((1, False), (2, True)):
        optimizer, _ = make_optimizer(TrainingConfig(gradient_accumulation=accumulation), 10)
        assert isinstance(optimizer.init(model.params), optax.MultiStepsState) == wrapped


def test_a_training_too_short_for_one_update_is_refused():
    make_optimizer(TrainingConfig(gradient_accumulation=8), 8)
    with pytest.raises(UserError, match=r"training.gradient_accumulation=9 is more than .* 8 batches"):
        make_optimizer(TrainingConfig(gradient_accumulation=9), 8)


def test_averages_follow_their_formula_at_each_update(make_config, inputs, model):
    """Parameters and batch statistics are averaged, step by step or several in a dispatch."""
    plain = init_state(model, spy())
    assert plain.ema is None
    assert eval_params(plain) == (plain.params, plain.batch_stats)
    config = make_config(TINY, {"ema_decay": 0.3, "gradient_accumulation": 2})
    # Not Adam, which makes whole updates of gradients that are rounding errors.
    optimizer = optax.MultiSteps(optax.sgd(0.1), 2).gradient_transformation()
    split = split_model(config, inputs)
    steps = make_train_step(split, optimizer, optax.constant_schedule(0.1), WEIGHTS, config)
    state = copy(init_state(split, optimizer, averaged=True))
    step, several = one_at_a_time(steps), copy(state)
    assert same_bits(eval_params(state), (state.params, state.batch_stats))
    expected = [x.astype(np.float64) for x in leaves(state.ema)]
    for taken in range(1, 9):
        before = leaves(state.ema)
        state, _ = step(state, a_batch(taken))
        if taken % 2:
            assert same_bits(state.ema, before)
            continue
        updates = taken // 2
        decay = min(0.3, (1 + updates) / (10 + updates))
        now = leaves({"params": state.params, "batch_stats": state.batch_stats})
        expected = [decay * e + (1 - decay) * x for e, x in zip(expected, now, strict=True)]
        for ours, theirs in zip(leaves(state.ema), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    assert decay == 0.3  # and below in the first updates
    params, batch_stats = eval_params(state)
    assert same_bits({"params": params, "batch_stats": batch_stats}, state.ema)
    assert not same_bits(params, state.params)
    several, _ = steps(several, (), jax.tree.map(lambda *x: jnp.stack(x), *(a_batch(i) for i in range(1, 9))))
    for ours, theirs in zip(leaves(several.ema), leaves(state.ema), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


# --- precision -----------------------------------------------------------------------------


def in_precision(config, precision: str):
    return dataclasses.replace(config, training=dataclasses.replace(config.training, precision=precision))


def equations(jaxpr):
    """All equations, also of the functions called."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from equations(inner)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_convolutions_compute_in_the_precision_and_everything_kept_is_float32(config, model, state, precision):
    config = in_precision(config, precision)
    steps = make_train_step(model, spy(), optax.constant_schedule(0.25), WEIGHTS, config)
    traced = jax.make_jaxpr(steps)(state, (), jax.tree.map(lambda x: x[None], a_batch()))

    def dtypes(name: str) -> list[set]:
        found = [e for e in equations(traced.jaxpr) if e.primitive.name == name]
        return [{x.aval.dtype for x in (*e.invars, *e.outvars)} for e in found]

    convolutions = dtypes("conv_general_dilated")  # forward and the kernel's gradient; XLA drops that of the frames
    assert len(convolutions) in (2, 3)
    assert all(found == {jnp.dtype(precision)} for found in convolutions)
    assert dtypes("log1p") == [{jnp.dtype("float32")}] * 2  # in the loss
    assert {x.dtype for x in traced.out_avals} == {jnp.dtype("float32"), jnp.dtype("int32")}


def test_bfloat16_is_near_float32(config, model, state, step):

    exact, exact_metrics = step(copy(state), a_batch())
    config = in_precision(config, "bfloat16")
    rounding_step = one_at_a_time(make_train_step(model, spy(), optax.constant_schedule(0.25), WEIGHTS, config))
    ours, metrics = rounding_step(state, a_batch())
    assert float(metrics.loss) == pytest.approx(float(exact_metrics.loss), rel=0.01)
    assert float(metrics.loss) != float(exact_metrics.loss)
    assert float(metrics.grad_norm) == pytest.approx(float(exact_metrics.grad_norm), rel=0.05)
    for x in leaves((ours, metrics)):
        assert x.dtype in (np.float32, np.int32)
        assert np.isfinite(x).all()
    for ours_x, exact_x in zip(leaves(ours.batch_stats), leaves(exact.batch_stats), strict=True):
        np.testing.assert_allclose(ours_x, exact_x, rtol=0.02, atol=0.02)


def test_in_bfloat16_the_state_is_encoded_in_float32_and_then_cast(make_config, inputs):
    """Positions of thousands would be rounded to multiples of 16 and more."""
    seen = {}

    class Net(nnx.Module):
        def __init__(self):
            self.weight = nnx.Param(jnp.ones((2, ACTIONS)))

        def __call__(self, observation, *, train, rngs):
            seen.update({name: x.dtype for name, x in observation.items()}, weight=self.weight[...].dtype)
            return observation["state"][:, 0] @ self.weight[...]

    graphdef, params = nnx.split(Net(), nnx.Param)
    state = StateFeatures(StateConfig(standardized=("x", "y")), (), (10_001.0, 0.0), (1.0, 1.0))
    inputs = dataclasses.replace(inputs, state_names=("x", "y"), state=state)
    split = SplitModel(graphdef, nnx.to_pure_dict(params), {}, inputs)
    config = make_config(training={"precision": "bfloat16"})
    step = one_at_a_time(make_train_step(split, spy(), optax.constant_schedule(0.25), WEIGHTS, config))
    at = jnp.broadcast_to(jnp.array([10_003.0, 0.0]), (BATCH, 1, 2))
    after, _ = step(init_state(split, spy()), a_batch() | {"state": at})
    assert seen == {"frames": jnp.bfloat16, "state": jnp.bfloat16, "ids": jnp.int32, "weight": jnp.bfloat16}
    gradient = leaves(after.opt_state)[0]  # [2 state values, A], as large as what each of them was
    assert np.abs(gradient[0]).max() > 0
    assert not gradient[1].any()


# --- evaluation ----------------------------------------------------------------------------


def test_evaluation_uses_the_running_statistics_so_that_frames_do_not_affect_each_other(model, step, state):
    for i in range(3):
        state, _ = step(state, a_batch(i))
    predict, frames = make_predict(model), a_batch(seed=9)["frames"]
    logits = np.asarray(predict(state.params, state.batch_stats, {"frames": frames}))
    assert (logits.shape, logits.dtype) == ((BATCH, ACTIONS), np.float32)
    net = nnx.merge(model.graphdef, state.params, state.batch_stats)
    expected = net({"frames": frames.astype(jnp.float32) / 255}, train=False)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
    assert not np.allclose(logits, predict(state.params, model.batch_stats, {"frames": frames}), atol=1e-3)
    beside_others = predict(state.params, state.batch_stats, {"frames": frames.at[1:].set(255 - frames[1:])})
    np.testing.assert_allclose(beside_others[0], logits[0], rtol=1e-5, atol=1e-6)
