"""Tests that every variant has to pass."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from untrained import save_run

from BC_training.common.config import load_config
from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.errors import UserError
from BC_training.common.preprocess import OBSERVATION, InputSpec, Window, normalize
from BC_training.common.schema import Config, DatasetConfig, TrainingConfig
from BC_training.common.settings import variants
from BC_training.common.settings.state import StateConfig
from BC_training.common.state import StateFeatures
from BC_training.data.samples import Samples
from BC_training.inference import Policy
from BC_training.training import checkpoint
from BC_training.training.train_state import (
    SplitModel,
    abstract_model,
    abstract_state,
    init_state,
    make_optimizer,
    make_predict,
    make_train_step,
    split_model,
)

SIZE = (24, 32)
CONFIGS = Path(variants.__file__).parents[2] / "configs"
# Small settings of each variant, which compile in seconds, without dropout.
CONVS = {"conv_features": (8, 16), "conv_strides": (2, 2)}
SMALL: dict[str, dict[str, Any]] = {
    "pure_cnn": CONVS | {"dense_features": (32,)},
    "resnet_policy": {"width": 4, "stage_blocks": (1, 1), "position_features": 4, "dense_features": 32},
    "state_cnn": CONVS
    | {"grid_features": 4, "vision_features": (32,), "embedding_features": 4}
    | {"state_features": (8,), "dense_features": (32,)},
    "temporal_cnn": CONVS | {"position_features": 4, "features": 32, "action_dropout": 0.0},
    "vit_policy": {"patch_size": (8, 8), "depth": 2, "width": 32, "heads": 2},
}
VARIANTS = sorted(SMALL)
STATE = StateConfig(ratios=(("s0", "s1"),), categories=("s2",), since_change=("s2",), standardized=("s1",))
FITTED = StateFeatures(STATE, ((1.0, 2.0),), (0.5,), (2.0,))
KINDS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in VARIANTS),
    ("temporal_cnn", {"temporal": "transformer"}),
    ("state_cnn", {"glances": 3}),
]
each_variant = pytest.mark.parametrize(
    ("name", "fields"), KINDS, ids=[*VARIANTS, "temporal_cnn-transformer", "state_cnn-glances"]
)


def test_every_variant_is_tested():
    assert variants.names() == VARIANTS


# The history and the number of previous actions of variants that look back.
LOOKS_BACK = {"temporal_cnn": (4, 2)}


def a_config(name: str, training: dict[str, Any] | None = None, **fields: Any) -> Config:
    variant = variants.find(name)
    return Config(
        dataset=DatasetConfig(path="unused", state=STATE if name == "state_cnn" else None),
        model=variant.Config(**({"name": name, "dropout": 0.0} | SMALL[name] | fields)),
        training=TrainingConfig(**(training or {})),
    )


def inputs_of(config: Config, history: int | None = None, size: tuple[int, int] = SIZE) -> InputSpec:
    usual, action_history = LOOKS_BACK.get(config.model.name, (1, 0))
    history, every = history or usual, getattr(config.model, "every_frame", False)
    chunk = config.model.action_chunk
    window = Window(history, action_history=action_history, action_chunk=chunk, every_frame=every)
    if config.uses_state:
        window = dataclasses.replace(window, state=True, since_change=STATE.since_change)
    names, state = (("s0", "s1", "s2"), FITTED) if config.uses_state else ((), None)
    return InputSpec(("a", "b", "c"), names, size, size, 17.0, window, state)


def a_batch(inputs: InputSpec, size: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng, window = np.random.default_rng(seed), inputs.window
    times = (size, window.history) if window.every_frame else (size,)
    places = times if window.action_chunk == 1 else (*times, window.action_chunk)
    batch = {
        "frames": rng.integers(0, 256, (size, window.history, *inputs.frame_shape), np.uint8),
        "action": rng.random((*places, 3)) < 0.5,
    }
    if window.action_history:
        batch["previous_actions"] = rng.random((*times, window.action_history, 3)) < 0.5
    if window.state:
        batch["state"] = rng.normal(size=(size, window.history, 3)).astype(np.float32)
        batch["state"][..., 2] = rng.integers(1, 4, (size, window.history))
        batch["since_change"] = rng.integers(0, 20, (size, window.history, 1)).astype(np.float32)
    return batch if places == (size,) else batch | {"mask": rng.random(places) < 0.8}


def untrained(config: Config, inputs: InputSpec) -> SplitModel:
    """A model with random parameters and statistics; unlike ``split_model`` it compiles nothing."""
    rng, model = np.random.default_rng(0), abstract_model(config, inputs)

    def draw(tree: Any, low: float) -> Any:
        return jax.tree.map(lambda x: jnp.asarray(rng.uniform(low, 0.4, x.shape), x.dtype), tree)

    return dataclasses.replace(model, params=draw(model.params, -0.3), batch_stats=draw(model.batch_stats, 0.1))


@each_variant
@pytest.mark.parametrize(("history", "chunk"), [(1, 1), (3, 1), (2, 4)])
@pytest.mark.parametrize("train", [False, True])
def test_logits_have_the_promised_shape_and_dtype(name, fields, history, chunk, train):
    config = a_config(name, action_chunk=chunk, **fields, dropout=0.5)
    inputs = inputs_of(config, history)

    def run(batch):
        model = variants.find(name).create_model(config.model, inputs, nnx.Rngs(0))
        observation = {name: batch[name] for name in OBSERVATION if name in batch}
        return model(normalize(observation, inputs), train=train, rngs=nnx.Rngs(dropout=1))

    with jax.numpy_dtype_promotion("strict"):
        logits = jax.eval_shape(run, a_batch(inputs, 5))
    times = (history,) if train and inputs.window.every_frame else ()
    assert (logits.shape, logits.dtype) == ((5, *times, *(() if chunk == 1 else (chunk,)), 3), jnp.float32)
    model = abstract_model(config, inputs)
    assert {x.dtype for x in jax.tree.leaves((model.params, model.batch_stats))} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("name", "fields"), [KINDS[0], *(pytest.param(*kind, marks=pytest.mark.slow) for kind in KINDS[1:])]
)
def test_a_model_learns_16_samples_by_heart_with_all_its_parameters(name, fields):
    config = a_config(name, **fields)
    inputs = inputs_of(config)
    batch = {name: values for name, values in a_batch(inputs, 16).items() if name != "mask"}
    model, optimizer = split_model(config, inputs), optax.adam(5e-3)
    step = make_train_step(model, optimizer, lambda _: 5e-3, np.ones(3, np.float32), config)
    predict, state = make_predict(model), init_state(model, optimizer)
    first, item = jax.tree.map(np.array, state.params), jax.tree.map(lambda x: x[None], batch)
    wanted = batch["action"][:, -1] if inputs.window.every_frame else batch["action"]
    for number in range(1, 301):
        state, metrics = step(state, (), item)
        assert np.isfinite(metrics.loss[0])
        if number % 20 == 0 and metrics.loss[0] < 0.1:
            logits = predict(state.params, state.batch_stats, batch)
            if ((np.asarray(logits) > 0) == wanted).all():
                break
    else:
        pytest.fail("300 steps were not enough")
    for (path, x), before in zip(jax.tree.leaves_with_path(state.params), jax.tree.leaves(first), strict=True):
        assert np.isfinite(x).all(), jax.tree_util.keystr(path)
        assert (np.asarray(x) != before).any(), jax.tree_util.keystr(path)


FRAMES = 9


@pytest.fixture(scope="module")
def recorded(tmp_path_factory, make_dataset) -> ZarrGameplayDataset:
    path = tmp_path_factory.mktemp("recorded") / "x.zarr"
    make_dataset(path, [FRAMES], actions=3, state=3, size=SIZE)
    dataset = ZarrGameplayDataset(path)
    dataset.load_labels()
    return dataset


@pytest.mark.parametrize(
    ("name", "fields", "skip"),
    [
        *((name, {}, 2) for name in VARIANTS),
        ("temporal_cnn", {}, 1),
        ("temporal_cnn", {"temporal": "transformer", "depth": 2, "action_chunk": 2}, 2),
    ],
)
def test_play_is_the_forward_pass_of_training(tmp_path, recorded, name, fields, skip):
    """The checkpoint is saved, loaded and played frame by frame, from the episode's start."""
    config = a_config(name, **fields)
    inputs = inputs_of(config, history=4 if name in LOOKS_BACK else 2)
    inputs = dataclasses.replace(inputs, window=dataclasses.replace(inputs.window, frame_skip=skip))
    model = untrained(config, inputs)
    state = init_state(model, optax.adam(1e-3))
    save_run(tmp_path / "run", config, inputs, state=state)
    policy, samples = Policy.load(tmp_path / "run"), Samples(recorded, [0], inputs.window)
    frames, actions, state = recorded.frames(0, range(FRAMES)), recorded.actions(0), recorded.state(0)
    every = np.arange(FRAMES)
    batch = {"frames": frames[samples.rows(every)], **samples.labels(every)}
    predict, loaded = make_predict(model), checkpoint.read_model(checkpoint.read(tmp_path / "run"))
    logits = predict(model.params, model.batch_stats, batch)
    np.testing.assert_array_equal(predict(loaded.params, loaded.batch_stats, batch), logits)
    expected = jax.nn.sigmoid(logits)
    for _ in range(2):
        policy.reset()
        for t in range(FRAMES):
            np.testing.assert_allclose(policy.probabilities(frames[t], state[t]), expected[t], atol=1e-5)
            policy._done.append(actions[t])  # as if it had pressed the recorded buttons


@each_variant
def test_all_but_pure_cnn_tell_a_mirrored_frame_from_the_original(name, fields):
    """The frame shows an object that is its own mirror image, away from the border."""
    config = a_config(name, **fields, **({"batch_norm": False} if name == "pure_cnn" else {}))
    size = (32, 64)
    inputs = inputs_of(config, size=size)
    model = untrained(config, inputs)
    observation = {name: x for name, x in a_batch(inputs, 1).items() if name in OBSERVATION}
    frames = np.zeros((1, inputs.window.history, 3, *size), np.uint8)
    frames[..., 12:16, 16:20] = 255
    predict = make_predict(model)
    here, there = (
        np.asarray(predict(model.params, model.batch_stats, observation | {"frames": x}))
        for x in (frames, frames[..., ::-1])
    )
    assert np.allclose(here, there, rtol=1e-4, atol=1e-6) == (name == "pure_cnn")


def trace_step(config: Config, inputs: InputSpec, batch: dict[str, Any]) -> None:
    """Checks that a step keeps the shapes and dtypes of the state; computes nothing."""
    model, (optimizer, schedule) = abstract_model(config, inputs), make_optimizer(config.training, 1000)
    ones = np.ones(len(inputs.action_names), np.float32)
    step, before = make_train_step(model, optimizer, schedule, ones, config), abstract_state(model, optimizer)
    item = {name: jax.ShapeDtypeStruct((1, *x.shape), x.dtype) for name, x in batch.items()}
    after, metrics = jax.eval_shape(step, before, (), item)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), before)
    assert metrics.loss.dtype == jnp.float32


def doom_inputs(config: Config) -> InputSpec:
    """The inputs of the config's training in Doom, with the ids of the quickstart's recording."""
    size, state = config.dataset.frame_size or config.dataset.record.frame_size, config.dataset.state
    names, features = (), None
    if state is not None:
        seen = ((-1.0, 2.0), (0.0, 1.0, 2.0, 3.0), (0.0,))[: len(state.categories)]
        zeros, ones = ((value,) * len(state.standardized) for value in (0.0, 1.0))
        names, features = state.names, StateFeatures(state, seen, zeros, ones)
    return InputSpec(tuple("abcdefg"), names, size, size, 17.5, config.window(), features)


@pytest.mark.parametrize(
    "name", [*VARIANTS, *(f"{name}_full" for name in ("resnet_policy", "temporal_cnn", "vit_policy"))]
)
def test_a_configs_header_gives_the_number_of_parameters(name):
    header = (CONFIGS / f"{name}.yaml").read_text().split("\ndataset:")[0]
    (count,) = re.findall(r"([\d,]+) parameters", header)
    config = load_config(f"configs/{name}.yaml", [])
    assert abstract_model(config, doom_inputs(config)).parameter_count == int(count.replace(",", ""))


FULL_SIZE = ["pure_cnn", "state_cnn_elden_ring", *sorted(path.stem for path in CONFIGS.glob("*_full.yaml"))]


@pytest.mark.parametrize("name", FULL_SIZE)
def test_a_step_at_full_size_traces(name):
    config = load_config(f"configs/{name}.yaml", [])
    inputs, training = doom_inputs(config), config.training
    windows, since = (training.batch_size, inputs.window.history), inputs.window.since_change
    shapes: dict[str, tuple[tuple[int, ...], Any]] = {"frames": ((*windows, *inputs.frame_shape), np.uint8)}
    shapes["action"] = ((*(windows if inputs.window.every_frame else windows[:1]), 7), np.bool_)
    if inputs.window.every_frame:
        shapes["mask"] = (windows, np.bool_)
    if inputs.window.state:
        shapes["state"] = ((*windows, len(inputs.state_names)), np.float32)
        shapes["since_change"] = ((*windows, len(since)), np.float32)
    trace_step(config, inputs, {key: jax.ShapeDtypeStruct(*found) for key, found in shapes.items()})


@each_variant
def test_a_step_in_bfloat16_with_chunks_traces(name, fields):
    config = a_config(name, {"precision": "bfloat16"}, action_chunk=3, **fields, dropout=0.1)
    trace_step(config, inputs_of(config), a_batch(inputs_of(config), 8))


@pytest.mark.parametrize("name", sorted({*VARIANTS} - {"temporal_cnn"}))
def test_previous_actions_are_refused(name):
    config = a_config(name)
    inputs = InputSpec(("a", "b", "c"), (), SIZE, SIZE, 17.0, Window(action_history=2))
    with pytest.raises(UserError, match="action_history=0"):
        abstract_model(config, inputs)


BOTH = {"dense_features": (0,), "dropout": 1.0, "action_chunk": 0}
OUT_OF_RANGE = {
    "pure_cnn": BOTH | {"conv_features": (4, 8, 16, 0), "conv_strides": (2, 2, 2, 0)},
    "state_cnn": BOTH | {"grid_features": 0, "vision_features": (0,), "embedding_features": 0, "state_features": (0,)},
}


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("vit_policy", {"width": 32, "heads": 3}, "model.width=32 cannot be split over model.heads=3: use 33"),
        *((name, {key: value}, key) for name, fields in OUT_OF_RANGE.items() for key, value in fields.items()),
        ("pure_cnn", {"conv_features": (), "conv_strides": ()}, "conv_strides"),
        ("pure_cnn", {"conv_features": (4, 8)}, "conv_features"),
        ("pure_cnn", {"dropout": -0.1}, "dropout"),
        ("state_cnn", {"glances": -1}, "model.glances=-1"),
        ("vit_policy", {"patch_size": (8, 0)}, "model.patch_size"),
        ("vit_policy", {"depth": 0}, "model.depth=0"),
        ("vit_policy", {"dropout": 1.0}, "model.dropout=1.0"),
        ("resnet_policy", {"stage_blocks": ()}, "model.stage_blocks"),
        ("resnet_policy", {"stage_blocks": (2, 0)}, "model.stage_blocks"),
        ("resnet_policy", {"width": 0}, "model.width=0"),
        ("resnet_policy", {"dropout": -0.1}, "model.dropout=-0.1"),
        ("temporal_cnn", {"temporal": "transformer", "features": 30}, "model.features=30 cannot be split over"),
        ("temporal_cnn", {"conv_features": (8,)}, "model.conv_features, conv_strides=1 and 4 values"),
        ("temporal_cnn", {"features": 0}, "model.features=0"),
        ("temporal_cnn", {"action_dropout": 1.0}, "model.action_dropout=1.0"),
    ],
)
def test_a_setting_out_of_range_is_refused(name, fields, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        variants.find(name).Config(name=name, **fields)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("size", "message"), [((20, 32), "H of 20 .* patches of 8.* 16"), ((24, 30), "W of 30 .* 32")])
def test_patches_that_do_not_divide_the_frame_are_refused(size, message):
    config = a_config("vit_policy")
    with pytest.raises(UserError, match=message):
        abstract_model(config, inputs_of(config, size=size))
