"""The game state from a dataset into a model, and the same in play."""

from io import StringIO
from pathlib import Path

import jax
import numpy as np
import pytest
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
SMALL = {
    "dataset.record": None,
    "dataset.frame_size": [24, 32],
    "dataset.split": {"train": 0.5, "val": 0.5, "test": 0.0},
    "dataset.history": 3,
    "dataset.frame_skip": 2,
    "model.conv_features": [4],
    "model.conv_strides": [4],
    "model.grid_features": 2,
    "model.vision_features": [8],
    "model.state_features": [8],
    "model.dense_features": [8],
    "training.batch_size": 8,
    "training.num_epochs": 1,
    "evaluation.rollout": None,
    "logging.wandb.enabled": False,
}


def config_of(folder: Path, data: Path, **changes):
    places = {"training.checkpoint_dir": f"{folder}/c", "logging.log_dir": f"{folder}/l", "dataset.path": str(data)}
    return load_config("configs/state_cnn.yaml", SMALL | places | changes)


def doom_states() -> list[np.ndarray]:
    """float32 [N, 14] of each episode. Ids hold for some frames; weapon and ammo are each episode's own."""
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


# --- what is learned -----------------------------------------------------------------------


def test_vocabularies_and_statistics_are_of_the_training_split_alone(setup):
    train, states = setup.split["train"], doom_states()
    assert 0 < len(train) < len(LENGTHS)
    features, config = setup.inputs.state, setup.config.dataset.state
    assert features.vocabularies[config.categories.index("weapon")] == tuple(float(e) for e in train)
    x = np.concatenate([states[e][:, STATE_NAMES.index("player_x")] for e in train]).astype(np.float64)
    assert features.means[config.standardized.index("player_x")] == np.float32(x.mean())
    assert features.stds[config.standardized.index("player_x")] == np.float32(x.std())


def test_a_checkpoint_keeps_what_was_learned(saved, setup):
    inputs = checkpoint.read(saved[0]).inputs
    assert inputs == setup.inputs
    assert inputs.state == setup.inputs.state is not None


# --- the same in play ----------------------------------------------------------------------


@pytest.mark.parametrize("cache", ["none", "device"])
def test_playing_equals_training(saved, setup, cache):
    """``Policy``, streaming, and the model on the loader's batch, of all episodes with state and history."""
    run, predict = saved
    dataset, policy = setup.dataset, Policy.load(run)
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


def test_state_history_and_counters_matter_and_are_forgotten(saved, setup):
    policy, frame = Policy.load(saved[0]), setup.dataset.frames(0, [0])[0]
    state = setup.dataset.state(0)[0]

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
    assert not np.allclose(after(other, {}, {}, {}, {}), still)  # by the counters: the value is out of the window
    assert not np.allclose(after({}, {}, {}, {}, {}), after({}))
    np.testing.assert_array_equal(after({}, {}, {}, {}, {}), still)


def test_a_state_in_the_callers_memory(saved, setup):
    """The next state may be written over the last."""
    policy, frame = Policy.load(saved[0]), setup.dataset.frames(0, [0])[0]
    states = setup.dataset.state(0)
    expected = [policy.probabilities(frame, state.copy()) for state in states]
    policy.reset()
    memory = np.empty(len(STATE_NAMES), np.float32)
    for state, wanted in zip(states, expected, strict=True):
        memory[:] = state
        np.testing.assert_array_equal(policy.probabilities(frame, memory), wanted)


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
def test_policy_refuses_other_states(saved, setup, state, message):
    with pytest.raises(UserError, match=f"the policy takes .*{message}") as caught:
        Policy.load(saved[0]).act(setup.dataset.frames(0, [0])[0], state)
    assert "\n" not in str(caught.value)


def test_a_state_as_a_list_or_by_name(saved, setup):
    policy, frame, state = Policy.load(saved[0]), setup.dataset.frames(0, [0])[0], setup.dataset.state(0)[0]
    expected = policy.probabilities(frame, state)
    for given in (state.tolist(), dict(zip(reversed(STATE_NAMES), reversed(state.tolist()), strict=True))):
        policy.reset()
        np.testing.assert_array_equal(policy.probabilities(frame, given), expected)


def test_values_that_the_model_does_not_see_may_be_anything(saved, setup):
    policy, frame, state = Policy.load(saved[0]), setup.dataset.frames(0, [0])[0], setup.dataset.state(0)[0]
    assert "kills" not in setup.config.dataset.state.names
    expected = policy.probabilities(frame, state)
    state[STATE_NAMES.index("kills")] = np.nan
    policy.reset()
    np.testing.assert_array_equal(policy.probabilities(frame, state), expected)


# --- whole trainings -----------------------------------------------------------------------


@pytest.mark.slow
def test_a_training_its_resume_and_another_section(tmp_path, data):
    """It trains, scores, saves; the same command finds it finished, and another dataset.state another training."""
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
    message = refusal(tmp_path, data, **{"training.augmentation": {"flip": 0.5}})
    assert "no mirror image is known for" in message
    assert "'player_y'" in message


def test_the_twin_sees_no_state(tmp_path, make_dataset):
    make_dataset(tmp_path / "blind.zarr", [8, 8], state=0)
    setup = Setup.build(config_of(tmp_path, tmp_path / "blind.zarr", **{"model.use_state": False}), QUIET)
    assert setup.inputs.state is None
    assert set(setup.train_samples.labels(np.arange(3))) == {"action"}


# --- mirror images -------------------------------------------------------------------------


def test_only_attributes_that_are_used_need_a_mirror_image(setup):
    names = setup.inputs.state_names
    used = setup.config.dataset.state.names
    entries = {name: name for name in used} | {name: f"-{name}" for name in used if name.endswith(("_y", "_angle"))}
    table = MirrorTable(entries, setup.dataset.action_names, names, "x.zarr")
    mirror = table.find((), names, used, ("enemy_type",))
    assert mirror.state == tuple(range(14))
    assert {n for n, sign in zip(names, mirror.signs, strict=True) if sign < 0} == {
        *("player_y", "enemy_y", "player_angle", "enemy_angle")
    }
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
    batch |= {"state": np.zeros((4, 3, 14), np.float32), "since_change": np.arange(12, dtype=np.float32)}
    batch["since_change"] = batch["since_change"].reshape(4, 3, 1)
    batch["state"][..., 2] = batch["since_change"][..., 0]
    augment = make_augment(AugmentationConfig(temporal_jitter=2), setup.inputs, setup.dataset.mirror)
    found = {name: np.asarray(x) for name, x in jax.jit(augment)(jax.random.key(3), batch).items()}
    np.testing.assert_array_equal(found["since_change"][..., 0], found["state"][..., 2])
    assert (found["since_change"] != batch["since_change"]).any()
