"""A model sees the game state of a dataset, and the same in play."""

import json
from io import StringIO
from pathlib import Path

import jax
import numpy as np
import pytest
import trainings
import zarr
from rich.console import Console
from rich.progress import Progress
from untrained import save_run

from BC_training import train as training
from BC_training.common.config import load_config
from BC_training.common.errors import UserError
from BC_training.common.mirror import MirrorTable
from BC_training.common.schema import AugmentationConfig, DatasetConfig
from BC_training.data.augment import make_augment
from BC_training.data.loader import make_tier
from BC_training.games.doom.game import STATE_NAMES
from BC_training.inference import Policy
from BC_training.runtime.sharding import one_device
from BC_training.training import checkpoint
from BC_training.training.setup import Setup
from BC_training.training.train_state import init_state, make_optimizer, make_predict, split_model

LENGTHS = (9, 12, 7, 10)
QUIET = Console(file=StringIO())
SMALL = [
    *("dataset.history=3", "dataset.frame_skip=2", "training.batch_size=8", "training.num_epochs=1"),
    *("model.conv_features=[4]", "model.conv_strides=[4]", "model.grid_features=2", "model.vision_features=[8]"),
    *("model.state_features=[8]", "model.dense_features=[8]"),
]


def config_of(folder: Path, data: Path, **changes):
    overrides = [f"{key}={json.dumps(value)}" for key, value in changes.items()]
    return load_config("configs/state_cnn.yaml", trainings.settings(folder, data, *SMALL, *overrides))


def doom_states() -> list[np.ndarray]:
    """float32 [N, 14] for each episode: ids last for some frames, and each episode has its own weapon and ammo."""
    rng, states = np.random.default_rng(0), []
    for episode, length in enumerate(LENGTHS):
        state = rng.normal(size=(length, len(STATE_NAMES))) * 300
        state[:, STATE_NAMES.index("max_health")] = 100
        state[:, STATE_NAMES.index("weapon")] = episode
        state[:, STATE_NAMES.index("ammo")] = 10 * episode + np.arange(length)
        state[:, STATE_NAMES.index("enemy_type")] = np.repeat(rng.integers(0, 4, length), 3)[:length]
        states.append(state.astype(np.float32))
    return states


@pytest.fixture(scope="module")
def data(tmp_path_factory, make_dataset) -> Path:
    path = tmp_path_factory.mktemp("state") / "x.zarr"
    make_dataset(path, LENGTHS, state=14, root_attributes={"attributes": list(STATE_NAMES)})
    for episode, state in enumerate(doom_states()):
        zarr.open_group(path, mode="r+")[f"episode_{episode}/state"][:] = state  # pyright: ignore[reportIndexIssue]
    return path


@pytest.fixture(scope="module")
def setup(tmp_path_factory, data) -> Setup:
    return Setup.build(config_of(tmp_path_factory.mktemp("unused"), data), QUIET)


@pytest.fixture(scope="module")
def saved(tmp_path_factory, setup):
    """The checkpoint of an untrained model, and its forward pass."""
    model = split_model(setup.config, setup.inputs)
    state = init_state(model, make_optimizer(setup.config.training, 10)[0])
    run = tmp_path_factory.mktemp("saved") / "run"
    save_run(run, setup.config, setup.inputs, state=state, split=setup.dataset.names_of(setup.split))
    predict = make_predict(model)
    return run, lambda batch: predict(state.params, state.batch_stats, batch)


@pytest.fixture(scope="module")
def policy(saved) -> Policy:
    return Policy.load(saved[0])


@pytest.fixture
def shown(policy, setup) -> tuple[Policy, np.ndarray, np.ndarray]:
    """The policy at the start of an episode, and the first frame and state that it is shown."""
    policy.reset()
    return policy, setup.dataset.frames(0, [0])[0], setup.dataset.state(0)[0]


def test_vocabularies_and_statistics_follow_from_the_training_split_and_are_saved(saved, setup):
    train, states = setup.split["train"], doom_states()
    assert 0 < len(train) < len(LENGTHS)
    features, config = setup.inputs.state, setup.config.dataset.state
    assert features.vocabularies[config.categories.index("weapon")] == tuple(float(e) for e in train)
    x = np.concatenate([states[e][:, STATE_NAMES.index("player_x")] for e in train]).astype(np.float64)
    assert features.means[config.standardized.index("player_x")] == np.float32(x.mean())
    assert features.stds[config.standardized.index("player_x")] == np.float32(x.std())
    inputs = checkpoint.read(saved[0]).inputs
    assert (inputs, inputs.state) == (setup.inputs, features)


@pytest.mark.parametrize("cache", ["none", "device"])
def test_the_policy_in_play_equals_the_model_on_the_loaders_batch(saved, policy, setup, cache):
    predict, dataset = saved[1], setup.dataset
    for samples in (setup.train_samples, setup.val_samples):
        with Progress(disable=True) as progress:
            tier = make_tier(DatasetConfig("", cache=cache), samples, (24, 32), progress, one_device())
            (batch,) = tier.batches(iter([np.arange(len(samples))]))
        assert np.asarray(batch["since_change"]).max() >= 2
        played = []
        for e in samples.episodes:
            policy.reset()
            pairs = zip(dataset.frames(e, range(LENGTHS[e])), dataset.state(e), strict=True)
            played += [policy.probabilities(frame, state) for frame, state in pairs]
        np.testing.assert_allclose(played, jax.nn.sigmoid(predict(batch)), rtol=1e-5, atol=1e-5)


def test_state_history_and_counters_matter_and_are_forgotten(shown):
    policy, frame, state = shown

    def after(*changes: dict[str, float]) -> np.ndarray:
        policy.reset()
        for change in changes:
            seen = state.copy()
            for name, value in change.items():
                seen[STATE_NAMES.index(name)] = value
            probabilities = policy.probabilities(frame, seen)
        return probabilities

    still = after({}, {}, {}, {}, {})
    assert not np.allclose(after({"health": 1}), after({"health": 99}))  # the state now
    assert not np.allclose(after({}, {}, {"health": 99}, {}, {}), after({}, {}, {"health": 1}, {}, {}))  # and then
    other = {"enemy_type": float(state[STATE_NAMES.index("enemy_type")] + 1)}
    assert not np.allclose(after(other, {}, {}, {}, {}), still)  # the counters remember what has left the window
    assert not np.allclose(after({}, {}, {}, {}, {}), after({}))
    np.testing.assert_array_equal(after({}, {}, {}, {}, {}), still)


def test_the_caller_may_write_every_frame_and_state_into_the_same_memory(shown, setup):
    policy, *memory = shown
    steps = list(zip(setup.dataset.frames(0, range(LENGTHS[0])), setup.dataset.state(0), strict=True))
    expected = [policy.probabilities(frame.copy(), state.copy()) for frame, state in steps]
    policy.reset()
    for step, wanted in zip(steps, expected, strict=True):
        for place, values in zip(memory, step, strict=True):
            place[:] = values
        np.testing.assert_array_equal(policy.probabilities(*memory), wanted)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (None, "got none"),
        (np.zeros(13, np.float32), r"\(13,\)"),
        (np.zeros((1, 14), np.float32), r"\(1, 14\)"),
        (np.array(["x"] * 14), r"got <U1 \(14,\)"),
        (np.full(14, np.nan, np.float32), "got 'health' nan"),
        ({"health": 1.0}, "got a table in which '.*' is missing"),
        (dict.fromkeys([*STATE_NAMES, "x"], 0.0), "got a table in which 'x' is none of them"),
        ([[0], [0, 1]], "is no array"),
    ],
)
def test_policy_refuses_other_states(shown, state, message):
    policy, frame, _ = shown
    with pytest.raises(UserError, match=f"the policy takes .*{message}") as caught:
        policy.act(frame, state)
    assert "\n" not in str(caught.value)


def test_a_state_may_be_a_list_or_a_table_and_what_the_model_does_not_see_anything(shown, setup):
    policy, frame, state = shown
    expected = policy.probabilities(frame, state)
    assert "kills" not in setup.config.dataset.state.names
    without_kills = state.copy()
    without_kills[STATE_NAMES.index("kills")] = np.nan
    table = dict(zip(reversed(STATE_NAMES), reversed(state.tolist()), strict=True))
    for given in (state.tolist(), table, without_kills):
        policy.reset()
        np.testing.assert_array_equal(policy.probabilities(frame, given), expected)


# --- whole trainings -----------------------------------------------------------------------


@pytest.mark.slow
def test_a_training_ends_and_is_another_with_another_section(tmp_path, data):
    run = training.train(config_of(tmp_path, data), QUIET)
    assert checkpoint.read(run).inputs.state is not None
    screen = StringIO()
    training.train(config_of(tmp_path, data), Console(file=screen))
    assert "the run is finished" in screen.getvalue()
    for key, value in (("standardized", ["ammo"]), ("ratios", [])):
        with pytest.raises(UserError, match=rf"is of another training \(dataset\.state\.{key} ") as caught:
            training.train(config_of(tmp_path, data, **{f"dataset.state.{key}": value}), QUIET)
        assert "\n" not in str(caught.value)


def refusal(folder: Path, data: Path, **changes) -> str:
    """The error of a training that writes nothing."""
    with pytest.raises(UserError) as caught:
        training.train(config_of(folder, data, **changes), QUIET)
    assert "\n" not in str(caught.value)
    assert not list(folder.glob("[cl]/*"))
    return str(caught.value)


def test_what_does_not_fit_is_refused_before_anything_is_written(tmp_path, data, make_dataset):
    message = refusal(tmp_path, data, **{"dataset.state.standardized": ["ammunition"]})
    assert "unknown state attribute 'ammunition'; did you mean 'ammo'? (known: ammo, " in message
    message = refusal(tmp_path, data, **{"dataset.state": None})
    assert "model state_cnn sees the game state, but dataset.state does not say what" in message
    make_dataset(tmp_path / "blind.zarr", [8, 8], state=0)
    message = refusal(tmp_path, tmp_path / "blind.zarr")
    assert "blind.zarr has no state, but model state_cnn sees it" in message
    assert "model.use_state=false" in message
    make_dataset(tmp_path / "nan.zarr", [8, 8], state=14, root_attributes={"attributes": list(STATE_NAMES)})
    zarr.open_group(tmp_path / "nan.zarr", mode="r+")["episode_1/state"][3, 2] = np.nan  # pyright: ignore
    assert "nan.zarr/episode_1: state 'ammo' is nan at frame 3" in refusal(tmp_path, tmp_path / "nan.zarr")
    message = refusal(tmp_path, data, **{"training.auxiliary_state": ["amno"]})
    assert "unknown state attribute 'amno'; did you mean 'ammo'?" in message
    assert "training.auxiliary_state names it" in message
    message = refusal(tmp_path, data, **{"training.augmentation": {"flip": 0.5}})
    assert "no mirror image is known for" in message
    assert "'player_y'" in message


def test_a_model_may_see_no_state(tmp_path, make_dataset):
    make_dataset(tmp_path / "blind.zarr", [8, 8], state=0)
    setup = Setup.build(config_of(tmp_path, tmp_path / "blind.zarr", **{"model.use_state": False}), QUIET)
    assert setup.inputs.state is None
    assert set(setup.train_samples.labels(np.arange(3))) == {"action"}


def test_a_model_may_learn_to_predict_a_state_that_it_does_not_see(tmp_path, data):
    told = {"model.use_state": False, "training.auxiliary_state": ["ammo", "player_y"]}
    config = config_of(tmp_path, data, **told)
    setup = Setup.build(config, QUIET)
    assert set(setup.train_samples.labels(np.arange(3))) == {"action", "auxiliary"}
    (optimizer, _), model = make_optimizer(config.training, 2), split_model(config, setup.inputs)
    save_run(tmp_path / "run", config, setup.inputs, state=init_state(model, optimizer))
    policy = Policy.load(tmp_path / "run")
    assert policy.inputs == setup.inputs
    assert policy.probabilities(setup.dataset.frames(0, range(1))[0]).shape == (7,)  # without any state
    with pytest.raises(UserError, match=r"auxiliary_state goes with model\.action_chunk=1"):
        config_of(tmp_path, data, **told, **{"model.action_chunk": 2})


# --- mirror images -------------------------------------------------------------------------


def test_only_attributes_that_are_used_need_a_mirror_image(setup):
    names = setup.inputs.state_names
    used = setup.config.dataset.state.names
    entries = {name: name for name in used} | {name: f"-{name}" for name in used if name.endswith(("_y", "_angle"))}
    table = MirrorTable(entries, setup.dataset.action_names, names, "x.zarr")
    mirror = table.find((), names, used, ("enemy_type",))
    assert mirror.state == tuple(range(14))
    turned = {name for name, sign in zip(names, mirror.signs, strict=True) if sign < 0}
    assert turned == {"player_y", "enemy_y", "player_angle", "enemy_angle"}
    assert mirror.since_change == (0,)
    without = MirrorTable({k: v for k, v in entries.items() if k != "ammo"}, (), ("x1", *names), "x.zarr")
    assert without.find((), ("x1", *names), used).state[0] == 0  # x1 stays as it is
    with pytest.raises(UserError, match="'x1'"):
        without.find((), ("x1", *names))


def test_counters_are_swapped_with_what_they_count():
    table = MirrorTable(None, (), ("arm", "guard_left", "guard_right"), "x.zarr")
    names = ("guard_left", "guard_right")
    assert table.find((), table.attributes, names, names).since_change == (1, 0)
    with pytest.raises(UserError, match=r"since_change has 'guard_left', but not 'guard_right'") as caught:
        table.find((), table.attributes, names, ("guard_left",))
    assert "\n" not in str(caught.value)


def test_augmentation_moves_counters_with_the_state(setup):
    batch = {"frames": np.zeros((4, 3, 3, 24, 32), np.uint8), "action": np.zeros((4, 7), bool)}
    batch["since_change"] = np.arange(12, dtype=np.float32).reshape(4, 3, 1)
    batch["state"] = np.zeros((4, 3, 14), np.float32)
    batch["state"][..., 2] = batch["since_change"][..., 0]
    augment = make_augment(AugmentationConfig(temporal_jitter=2), setup.inputs, setup.dataset.mirror)
    found = {name: np.asarray(x) for name, x in jax.jit(augment)(jax.random.key(3), batch).items()}
    np.testing.assert_array_equal(found["since_change"][..., 0], found["state"][..., 2])
    assert (found["since_change"] != batch["since_change"]).any()
