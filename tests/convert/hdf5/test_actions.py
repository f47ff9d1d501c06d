"""Actions of every space become buttons or axes, or are refused in one line."""

import json
from pathlib import Path

import numpy as np
import pytest
from dataset_files import user_error
from hypothesis import given
from hypothesis import strategies as st

from BC_training.common.errors import UserError
from BC_training.convert.hdf5.actions import minari_actions

RNG = np.random.default_rng(0)
N = 70
DISCRETE, BINARY, FLOATS = RNG.integers(0, 3, N), RNG.integers(0, 2, (N, 2), np.int8), RNG.normal(size=(N, 2))
ONE_OF_3, PRESSED = np.eye(3, dtype=bool)[DISCRETE], BINARY == 1
THREE, TWO = {"type": "Discrete", "n": 3, "start": 0}, {"type": "MultiBinary", "n": 2}
PAIR, BOX = {"type": "MultiDiscrete", "nvec": [2, 2]}, {"type": "Box", "shape": [2]}


def read(actions, space=None, **metadata):
    """(buttons, axes), of which one has no column."""
    metadata["action_space"] = None if space is None else json.dumps(space)
    found = minari_actions(Path("x.hdf5"), [("episode_0", actions)], metadata)
    action = found.read(actions, "x.hdf5: episode_0")
    assert [part.shape[1] for part in action] == [len(found.button_names), len(found.axis_names)]
    assert 0 in action.buttons.shape[1:] or 0 in action.axes.shape[1:]
    return action


@pytest.mark.parametrize(("actions", "space", "expected"), [
    (DISCRETE, THREE, ONE_OF_3),
    (DISCRETE + 1, THREE | {"start": 1}, ONE_OF_3),
    (DISCRETE, None, ONE_OF_3),
    (DISCRETE * 1.0, THREE, ONE_OF_3),
    (DISCRETE[:, None, None], THREE | {"n": "3"}, ONE_OF_3),
    (DISCRETE[:, None] * 1.0, None, ONE_OF_3),
    (DISCRETE, THREE | {"n": [3.0], "start": None}, ONE_OF_3),
    (BINARY, None, PRESSED),
    (BINARY.astype(int), PAIR | {"start": [0, 0]}, PRESSED),
    (BINARY + np.array([1, 5]), PAIR | {"start": [1, 5]}, PRESSED),
    (BINARY[:, None], {"type": "MultiDiscrete", "nvec": [[2, 2]]}, PRESSED),
    (BINARY[..., None], {"type": "MultiBinary", "n": [2, 1]}, PRESSED),
    (BINARY[:, 0], {"type": "MultiBinary", "n": 1}, PRESSED[:, :1]),
    (BINARY[:, 0] == 1, None, PRESSED[:, :1]),
    (BINARY[:, 0] * 2 - 1, None, PRESSED[:, :1]),
    (BINARY[:, 0], None, np.eye(2, dtype=bool)[BINARY[:, 0]]),
    (BINARY.astype(np.float32), BOX | {"low": [0, 0], "high": [1, 1]}, PRESSED),
    (BINARY[:0], TWO, PRESSED[:0]),
])  # fmt: skip
def test_actions_of_any_space_become_buttons(actions, space, expected):
    np.testing.assert_array_equal(read(actions, space).buttons, expected)


@pytest.mark.parametrize(("actions", "space"), [
    *[(FLOATS, space) for space in (BOX, None)],
    (np.c_[FLOATS, BINARY], BOX),  # the columns of 0 and 1, too
    (FLOATS.astype(np.float32)[:, 0], BOX),
    (np.c_[BINARY, DISCRETE * 7], None),
    *[(actions, None) for actions in (DISCRETE + 0.5, DISCRETE - 2, BINARY[:, 0] * 0.5)],
    (np.c_[BINARY[:, 0] * 2 - 1, BINARY[:, 0] * 3], None),
])  # fmt: skip
def test_actions_with_a_value_that_is_no_buttons_become_axes(actions, space):
    np.testing.assert_array_equal(read(actions, space).axes, actions.reshape(N, -1).astype(np.float32))


def test_axes_have_the_metadatas_names_and_a_value_of_any_episode_makes_them():
    metadata = {"action_names": ["steer", "gas"], "action_space": None}
    episodes = [("episode_0", BINARY), ("episode_1", BINARY * 0.5)]
    found = minari_actions(Path("x"), episodes, metadata)
    assert (found.button_names, found.axis_names) == ((), ("steer", "gas"))
    assert found.amount == "column 0 holds 0.5 in episode_1"
    np.testing.assert_array_equal(found.read(BINARY, "").axes, BINARY)
    metadata["action_names"] = None
    assert minari_actions(Path("x"), episodes, metadata).axis_names == ("action_0", "action_1")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39])
def test_an_amount_that_is_not_finite_is_refused_with_its_frame(bad):
    message = user_error(read, np.where(np.arange(N)[:, None] == 7, [[0.5, bad]], FLOATS))
    assert message.startswith(f"x.hdf5: episode_0, frame 7: action 'action_1' is {bad}, no finite number: correct it")


def test_one_value_that_is_not_finite_turns_no_buttons_into_axes():
    damaged = np.where(np.arange(N)[:, None] == 7, np.nan, BINARY)
    assert "episode_0 frame 7 has the action [nan, nan], 0 and 1 are expected" in user_error(read, damaged)
    assert "frame 0 has the action [nan, nan]" in user_error(read, damaged[7:8])
    assert "frame 0 has the action nan" in user_error(read, damaged[7:8, 0])


@pytest.mark.parametrize(("actions", "space", "parts"), [
    (FLOATS[:, :, None], None, ("episode_0 has float64 of shape [70, 2, 1]",)),
    (np.zeros((2, 5000)), None, ("episode_0 has float64 of shape [2, 5000]",)),
    (DISCRETE, {"type": "MultiDiscrete", "nvec": [3]}, ("MultiDiscrete", "each choice as columns of 0 and 1")),
    (DISCRETE, {"type": "Text"}, ("the space Text", "rows of numbers")),
    (DISCRETE, [1], ("the action_space in its metadata is not a JSON object", "correct it, or remove it")),
    (DISCRETE + (np.arange(N) == 9), {"type": "Discrete", "n": 2}, ("episode_0 frame", "0 to 1")),
    (BINARY, THREE, ("int8 [70, 2]", "whole numbers [N]")),
    (BINARY[:, :1], TWO, ("numbers [N, 2]", "[70, 1]")),
    (BINARY + 2 * (np.arange(N) == 5)[:, None], TWO, ("episode_0 frame 5",)),
    (DISCRETE, {"type": "Discrete"}, ("Discrete with no entries", "correct it, or remove it")),
    (DISCRETE, {"type": "Discrete", "n": 10**9}, ("n 1000000000", "from 1 to 4096")),
    (BINARY, {"type": "MultiBinary", "n": [0]}, ("MultiBinary with n [0]",)),
    (BINARY, {"type": "MultiBinary", "n": 5000}, ("MultiBinary with n 5000",)),
    (BINARY, PAIR | {"start": [1]}, ("start [1]",)),
    (BINARY + 1, PAIR | {"start": [0, 1]}, ("frame", "[0, 1] and one")),
    (DISCRETE + 0.5, THREE, ("episode_0 frame 0", "0 to 2")),
    (BINARY[:0], None, ("none of its episodes has an action",)),
    (BINARY, {"type": "Dict", "subspaces": {"keys": TWO, "camera": BOX}},
     ("in parts (the space Dict: keys MultiBinary, camera Box)", "as one array 'actions'")),
    (BINARY, {"type": "Tuple", "subspaces": [BOX, 3]}, ("in parts (the space Tuple: 0 Box, 1 int)",)),
])  # fmt: skip
def test_actions_that_are_neither_buttons_nor_axes_are_refused(actions, space, parts):
    message = user_error(read, actions, space)
    assert not [part for part in ("x.hdf5", *parts) if part not in message], message


def test_episodes_of_different_shapes_are_refused():
    message = user_error(minari_actions, Path("x"), [("episode_0", BINARY), ("episode_1", BINARY[:, :1])], {})
    assert "episode_1 has actions int8 [70, 1], numbers [N, 2] are expected" in message


@pytest.mark.parametrize("names", [[None, 1], [["a"], ["b"]], "a,b", ["a"], ["a", "a"], {"a": 0, "b": 1}])
def test_action_names_that_are_no_different_texts_are_refused(names):
    assert "a list of 2 different texts" in user_error(read, BINARY, TWO, action_names=names)


NUMBERS = st.integers(-3, 5) | st.sampled_from([10**15, 2.0, 0.5, float("nan"), "2", "x", True])
VALUES = st.recursive(st.none() | NUMBERS, lambda inner: st.lists(inner, max_size=3), max_leaves=5)
ANY_SPACE = st.fixed_dictionaries(
    {"type": st.sampled_from(["Discrete", "MultiBinary", "MultiDiscrete", "Dict", "Tuple", "Box", None, 3])},
    optional={"n": VALUES, "nvec": VALUES, "start": VALUES, "subspaces": VALUES},
)


@given(space=ANY_SPACE | VALUES, names=VALUES, as_text=st.booleans())
def test_any_metadata_are_read_or_refused(space, names, as_text):
    metadata = {"action_space": json.dumps(space) if as_text else space, "action_names": names}
    try:
        found = minari_actions(Path("x"), [("episode_0", BINARY)], metadata)
    except UserError:
        return
    assert len(set(found.names)) == len(found.names) > 0
