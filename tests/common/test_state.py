"""Features of the game state against NumPy in float64, and what is fitted."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dataset_files import user_error
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from BC_training.common.preprocess import InputSpec, Window, normalize
from BC_training.common.settings.state import AnglesConfig, RelativeConfig, StateConfig
from BC_training.common.state import ChangeCounter, StateFeatures, frames_since_change

NAMES = ("hp", "max_hp", "x", "y", "z", "ex", "ey", "ez", "angle", "anim", "enemy", "ammo")
EVERYTHING = StateConfig(
    ratios=(("hp", "max_hp"),),
    relative=(
        RelativeConfig(("ex", "ey", "ez"), ("x", "y", "z"), "angle", "degrees"),
        RelativeConfig(("ex", "ey"), ("x", "y"), "angle"),
    ),
    angles=AnglesConfig(("angle",), ("angle",)),
    categories=("anim", "enemy"),
    since_change=("anim",),
    since_change_features=6,
    standardized=("ammo", "x"),
)


def rows(seed: int = 0, count: int = 40) -> np.ndarray:
    """float32 [count, S]: positions of thousands, ids of millions."""
    rng = np.random.default_rng(seed)
    state = rng.normal(size=(count, len(NAMES))) * 100
    state[:, 2:8] += 5000
    state[:, 9:11] = rng.integers(0, 4, (count, 2)) * 1_000_003 + 20_000_000
    return state.astype(np.float32)


def fit(config: StateConfig = EVERYTHING, *states: np.ndarray) -> StateFeatures:
    return StateFeatures.fit(config, NAMES, [(f"episode_{i}", s) for i, s in enumerate(states or (rows(),))], "x.zarr")


def encode(features: StateFeatures, state: np.ndarray, since: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
    counted = None if since is None else jnp.asarray(since)
    with jax.numpy_dtype_promotion("strict"):
        found, ids = features.encode(NAMES, jnp.asarray(state), counted)
    assert (found.dtype, found.shape) == (jnp.float32, (*state.shape[:-1], features.size))
    assert (ids.dtype, ids.shape) == (jnp.int32, (*state.shape[:-1], len(features.config.categories)))
    return np.asarray(found), np.asarray(ids)


def relative(dx: float, dy: float, dz: float | None, angle: float, unit: str = "radians") -> np.ndarray:
    """The features of one offset, from positions far from the origin."""
    at = {"x": 512.0, "y": -256.0, "z": 64.0, "angle": angle}
    at |= {"ex": 512.0 + dx, "ey": -256.0 + dy, "ez": 64.0 + (dz or 0)}
    axes = ("x", "y") if dz is None else ("x", "y", "z")
    config = StateConfig(relative=(RelativeConfig(tuple(f"e{a}" for a in axes), axes, "angle", unit),))  # pyright: ignore
    return encode(StateFeatures(config), np.array([at.get(name, 0) for name in NAMES], np.float32))[0]


def test_every_feature_is_in_its_place():
    """In float64, by another route where there is one: angles by atan2, ids by list.index."""
    state, since = rows(1), np.arange(40, dtype=np.float32)[:, None]
    features = fit()
    found, ids = encode(features, state, since)
    value = {name: state[:, i].astype(np.float64) for i, name in enumerate(NAMES)}
    expected = [np.where(value["max_hp"] > 0, np.clip(value["hp"] / value["max_hp"], 0, 1), 0)]
    offset = np.stack([value["ex"] - value["x"], value["ey"] - value["y"], value["ez"] - value["z"]])
    for dims, heading in ((3, np.radians(value["angle"])), (2, value["angle"])):
        distance = np.linalg.norm(offset[:dims], axis=0)
        bearing = np.arctan2(offset[1], offset[0]) - heading
        flat = np.hypot(offset[0], offset[1]) / distance
        expected += [np.log1p(distance), flat * np.cos(bearing), flat * np.sin(bearing)]
        expected += [offset[2] / distance] if dims == 3 else []
    for heading in (value["angle"], np.radians(value["angle"])):
        expected += [np.cos(heading), np.sin(heading)]
    for k in range(3):
        phase = since[:, 0] / 10_000 ** (k / 3)
        expected += [np.sin(phase), np.cos(phase)]
    seen = rows().astype(np.float64)
    expected += [(value[name] - seen[:, i].mean()) / seen[:, i].std() for name, i in (("ammo", 11), ("x", 2))]
    np.testing.assert_allclose(found, np.stack(expected, axis=1), atol=2e-4)
    for c, name in enumerate(("anim", "enemy")):
        known = sorted(set(rows()[:, NAMES.index(name)].tolist()))
        assert ids[:, c].tolist() == [known.index(v) + 1 if v in known else 0 for v in value[name].tolist()]
    assert features.vocabulary_sizes == (5, 5)


@example(np.array([[5, 0], [0, 0], [5, -1], [1, 2], [3, 2]], np.float32))
@given(hnp.arrays(np.float32, (5, 2), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_ratios_are_shares_and_never_nan(pairs):
    state = np.zeros((5, len(NAMES)), np.float32)
    state[:, :2] = pairs
    shares = encode(StateFeatures(StateConfig(ratios=(("hp", "max_hp"),))), state)[0][:, 0]
    assert ((shares >= 0) & (shares <= 1)).all()
    assert (shares[pairs[:, 1] <= 0] == 0).all()
    plain = (pairs[:, 1] > 1e-3) & (pairs[:, 0] >= 0) & (pairs[:, 0] <= pairs[:, 1])
    np.testing.assert_allclose(shares[plain], pairs[plain, 0] / pairs[plain, 1], rtol=1e-5, atol=1e-30)


def test_directions_are_in_the_players_own_frame():
    ahead, left, behind = relative(3, 4, None, math.atan2(4, 3)), relative(0, 2, None, 0), relative(1, 0, None, math.pi)
    np.testing.assert_allclose(ahead, [math.log(6), 1, 0], atol=1e-6)
    np.testing.assert_allclose(left, [math.log(3), 0, 1], atol=1e-6)
    np.testing.assert_allclose(behind, [math.log(2), -1, 0], atol=1e-6)
    np.testing.assert_allclose(relative(0, 0, 8, 1.0), [math.log(9), 0, 0, 1], atol=1e-6)
    np.testing.assert_allclose(relative(0, -8, 0, 90.0, "degrees"), [math.log(9), -1, 0, 0], atol=1e-6)


@pytest.mark.parametrize("dz", [None, 0.0])
def test_at_no_distance_there_is_no_direction(dz):
    assert relative(0, 0, dz, 0.7).tolist() == [0] * (3 if dz is None else 4)


@given(
    st.tuples(*[st.floats(-100, 100)] * 3).filter(lambda d: math.hypot(*d) > 1),
    st.floats(-math.pi, math.pi),
    st.floats(-math.pi, math.pi),
)
def test_directions_do_not_depend_on_which_way_the_map_lies(offset, angle, turn):
    """Turned about the player, with the angle, nothing changes; the direction has length 1."""
    dx, dy, dz = offset
    x, y = dx * math.cos(turn) - dy * math.sin(turn), dx * math.sin(turn) + dy * math.cos(turn)
    one, other = relative(dx, dy, dz, angle), relative(x, y, dz, angle + turn)
    np.testing.assert_allclose(one, other, atol=2e-4)
    assert np.linalg.norm(one[1:]) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(one, relative(dx, dy, dz, math.degrees(angle), "degrees"), atol=1e-5)


def test_positions_are_subtracted_in_float32_and_cast_afterwards():
    """bfloat16 would round 20,001 and 20,003 to the same number."""
    state = np.zeros((1, 1, len(NAMES)), np.float32)
    state[..., NAMES.index("ex")], state[..., NAMES.index("x")] = 20_003, 20_001
    inputs = InputSpec(
        ("a",),
        NAMES,
        (8, 8),
        (8, 8),
        None,
        Window(state=True),
        StateFeatures(StateConfig(relative=(RelativeConfig(("ex", "ey"), ("x", "y"), "angle"),))),
    )
    batch = {"frames": jnp.zeros((1, 1, 3, 8, 8), jnp.uint8), "state": jnp.asarray(state)}
    with jax.numpy_dtype_promotion("strict"):
        seen = normalize(batch, inputs, jnp.bfloat16)
    assert {name: x.dtype for name, x in seen.items()} == {
        "frames": jnp.bfloat16,
        "state": jnp.bfloat16,
        "ids": jnp.int32,
    }
    np.testing.assert_allclose(seen["state"].astype(np.float32)[0, 0], [math.log(3), 1, 0], rtol=0.01)


def test_ids_that_training_did_not_see_are_unknown():
    features = fit(StateConfig(categories=("anim",)), rows())
    state = rows()[:3]
    state[:, NAMES.index("anim")] = [-1, 20_000_000, 20_000_002]
    assert encode(features, state)[1][:, 0].tolist() == [0, 1, 0]


def test_statistics_are_of_all_episodes_given():
    a, b = rows(0, 7), rows(1, 11)
    whole = np.concatenate([a, b])[:, NAMES.index("ammo")].astype(np.float64)
    features = fit(StateConfig(standardized=("ammo",)), a, b)
    assert features.means == (np.float32(whole.mean()),)
    assert features.stds == (np.float32(whole.std()),)


@pytest.mark.parametrize("value", [0.0, 0.1, 16_777_217.0, -3e38])
def test_a_value_that_never_varies_becomes_zero(value):
    state = rows(0, 33)
    state[:, NAMES.index("ammo")] = value
    features = fit(StateConfig(standardized=("ammo",)), state)
    assert features.stds == (1.0,)
    assert not encode(features, state)[0].any()


def test_features_come_back_from_json():
    inputs = InputSpec(("a",), NAMES, (8, 8), (8, 8), 17.0, Window(2, 1, 0, 0, 1, True, ("anim",)), fit())
    again = InputSpec.from_dict(json.loads(json.dumps(inputs.to_dict())))
    assert again == inputs
    assert hash(again.state) == hash(inputs.state)  # no list is left in it


def error_of(config: StateConfig, *states: np.ndarray) -> str:
    return user_error(fit, config, *states)


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (StateConfig(ratios=(("hp", "maxhp"),)), "ratios"),
        (StateConfig(relative=(RelativeConfig(("ex", "ey"), ("x", "y"), "angel"),)), "relative"),
        (StateConfig(angles=AnglesConfig(degrees=("angel",))), "angles.degrees"),
        (StateConfig(categories=("anims",)), "categories"),
        (StateConfig(since_change=("anims",)), "since_change"),
        (StateConfig(standardized=("amo",)), "standardized"),
    ],
)
def test_an_attribute_that_the_dataset_lacks_is_refused(config, kind):
    message = error_of(config)
    assert f"dataset.state.{kind} " in message
    assert "did you mean '" in message
    assert "ammo, angle, anim" in message


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_errors_where_they_are_used(bad):
    state = rows()
    state[3, NAMES.index("ammo")] = bad
    message = error_of(StateConfig(standardized=("ammo",)), rows(), state)
    assert message.startswith(f"x.zarr/episode_1: state 'ammo' is {bad} at frame 3")
    assert "repair or remove" in message
    assert fit(StateConfig(standardized=("x",)), rows(), state).stds > (0,)


@pytest.mark.parametrize("config", [StateConfig(categories=("anim",)), StateConfig(standardized=("ammo",))])
def test_a_split_without_values_is_refused(config):
    kind = (config.categories + config.standardized)[0]
    assert f"the training split has no values of '{kind}'" in error_of(config, rows(0, 0))


values = hnp.arrays(np.float32, st.tuples(st.integers(0, 30), st.integers(1, 3)), elements=st.integers(0, 2))


@given(values)
def test_frames_since_change_is_what_a_loop_counts(ids):
    expected = np.zeros(ids.shape)
    for t, k in np.ndindex(*ids.shape):
        expected[t, k] = 0 if t == 0 or ids[t, k] != ids[t - 1, k] else expected[t - 1, k] + 1
    counted = frames_since_change(ids)
    assert counted.dtype == np.float32
    np.testing.assert_array_equal(counted, expected)


@given(values)
def test_counting_in_play_equals_counting_whole_episodes(ids):
    counter, row = ChangeCounter(), np.empty(ids.shape[1], np.float32)
    played = []
    for frame in ids:
        row[:] = frame  # the caller's memory, used again
        played.append(counter.count(row))
    np.testing.assert_array_equal(np.reshape(played, ids.shape), frames_since_change(ids))


PLACE = {"target": ["ex", "ey"], "origin": ["x", "y"], "angle": "angle"}


def test_lists_and_tables_make_the_same_config():
    raw = json.loads(json.dumps(fit().to_dict()))["config"]
    assert StateConfig(**raw) == EVERYTHING
    assert EVERYTHING.names == ("hp", "max_hp", "ex", "ey", "ez", "x", "y", "z", "angle", "anim", "enemy", "ammo")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "dataset.state=(empty)"),
        ({"ratios": [["hp"]]}, "dataset.state.ratios=['hp']"),
        ({"ratios": [["hp", 3]]}, "dataset.state.ratios=['hp', 3]"),
        ({"ratios": ["hp"]}, "dataset.state.ratios=['hp']"),
        ({"relative": [PLACE | {"target": ["ex"]}]}, "1 and 2 names"),
        ({"relative": [PLACE | {"target": ["a", "b", "c"]}]}, "3 and 2 names"),
        ({"relative": [PLACE | {"target": "ex"}]}, "dataset.state.relative.target=ex"),
        ({"relative": [PLACE | {"angle": ["angle"]}]}, "dataset.state.relative angle="),
        ({"relative": [PLACE | {"unit": "turns"}]}, "dataset.state.relative unit=turns"),
        ({"relative": [PLACE | {"angel": "a"}]}, "did you mean 'angle'"),
        ({"relative": [{"target": ["ex", "ey"]}]}, "it lacks origin, angle"),
        ({"relative": ["ex"]}, "a table of target, origin, angle, unit"),
        ({"angles": ["angle"]}, "a table of radians, degrees"),
        ({"angles": {"degrees": ["angle", "angle"]}}, "dataset.state.angles.degrees"),
        ({"categories": ["anim", 3]}, "dataset.state.categories"),
        ({"since_change": ["anim"], "since_change_features": 3}, "dataset.state.since_change_features=3"),
        ({"since_change": ["anim"], "since_change_features": 0}, "dataset.state.since_change_features=0"),
        ({"standardized": ["x", "x"]}, "dataset.state.standardized"),
    ],
)
def test_a_wrong_section_is_refused_in_one_line(fields, message):
    assert message in user_error(lambda: StateConfig(**fields))
