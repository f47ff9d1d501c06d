"""Action spaces as buttons and axes."""

from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from BC_training.common.action import Action, at_rest
from BC_training.common.errors import UserError
from BC_training.games.gym.actions import map_actions
from BC_training.games.gym.names import DOCUMENTED, Names

ATARI = ("NOOP", "FIRE", "UP", "RIGHT", "LEFT", "DOWN", "UPRIGHT", "UPLEFT", "DOWNRIGHT", "DOWNLEFT", "UPFIRE")
ATARI += ("RIGHTFIRE", "LEFTFIRE", "DOWNFIRE", "UPRIGHTFIRE", "UPLEFTFIRE", "DOWNRIGHTFIRE", "DOWNLEFTFIRE")


def mapped(space, meanings=None, names=None):
    env = SimpleNamespace(action_space=space, unwrapped=SimpleNamespace())
    if meanings is not None:
        env.unwrapped.get_action_meanings = lambda: list(meanings)
    return map_actions(env, "gym/Game-v0", names or Names())


def atari(meanings):
    return mapped(spaces.Discrete(len(meanings)), meanings)


def held(actions, *names):
    return Action.of([name in names for name in actions.buttons], np.zeros(len(actions.axes)))


boxes = st.lists(st.tuples(st.floats(-50, 50), st.floats(0.1, 50)), min_size=1, max_size=4).map(
    lambda bounds: spaces.Box(
        np.array([low for low, _ in bounds], np.float32), np.array([low + size for low, size in bounds], np.float32)
    )
)
leaves = st.one_of(
    st.integers(1, 6).map(spaces.Discrete),
    st.integers(1, 4).map(spaces.MultiBinary),
    st.lists(st.integers(2, 4), min_size=1, max_size=3).map(spaces.MultiDiscrete),
    st.just(spaces.Discrete(3, start=-1)),
    st.just(spaces.MultiBinary([2, 3])),
    boxes,
)
nested = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3).map(spaces.Dict),
        st.lists(inner, min_size=1, max_size=3).map(spaces.Tuple),
    ),
    max_leaves=5,
)


@given(nested, st.integers(0, 1000))
def test_every_action_of_any_space_comes_back_from_its_buttons_and_axes(space, seed):
    actions = mapped(space)
    assert len({*actions.buttons, *actions.axes}) == len(actions.buttons) + len(actions.axes)
    space.seed(seed)
    raw = space.sample()
    action = actions.action_of(raw)
    assert (action.buttons.shape, action.axes.shape) == ((len(actions.buttons),), (len(actions.axes),))
    assert (np.abs(action.axes) <= 1).all()
    back = actions.raw(action)
    assert space.contains(back)
    close = np.allclose(*(spaces.flatten(space, value) for value in (raw, back)), rtol=1e-5, atol=1e-4)
    assert close, (raw, back)


@given(nested, st.integers(0, 1000))
def test_any_buttons_and_axes_are_an_action_of_the_space(space, seed):
    actions, rng = mapped(space), np.random.default_rng(seed)
    action = Action.of(rng.random(len(actions.buttons)) < 0.5, rng.normal(size=len(actions.axes)) * 3)
    assert space.contains(actions.raw(action))


@given(st.sets(st.sampled_from(ATARI), min_size=2), st.integers(0, 31))
def test_every_meaning_round_trips_and_held_buttons_take_the_nearest_action_never_nothing(meanings, pressed):
    meanings = sorted(meanings)
    actions = atari(meanings)
    each = [actions.action_of(i) for i in range(len(meanings))]
    assert [actions.raw(action) for action in each] == list(range(len(meanings)))
    buttons = np.array([bool(pressed >> i & 1) for i in range(len(actions.buttons))])
    done = each[actions.raw(Action.of(buttons))].buttons
    rivals = [a.buttons for a in each if a.buttons.any() or not buttons.any()]
    assert (done != buttons).sum() == min((rival != buttons).sum() for rival in rivals)
    assert done.any() or not buttons.any()


def test_the_joystick_of_atari_is_split_into_buttons():
    actions = atari(ATARI)
    assert actions.buttons == ("UP", "DOWN", "LEFT", "RIGHT", "FIRE")
    assert actions.raw(held(actions, "UP", "LEFT", "FIRE")) == ATARI.index("UPLEFTFIRE")
    assert actions.raw(held(actions)) == 0
    assert actions.raw(held(actions, "LEFT", "RIGHT", "FIRE")) == ATARI.index("RIGHTFIRE")  # the first of the nearest


def test_of_actions_that_are_as_near_the_one_that_shares_more_buttons_is_taken():
    actions = atari(["NOOP", "DOWN", "UPLEFTFIRE"])
    assert actions.raw(held(actions, "UP")) == 2
    assert actions.raw(held(actions, "FIRE")) == 2


def test_a_held_button_does_something_even_where_nothing_would_be_nearer():
    actions = atari(["NOOP", "UPLEFTFIRE"])
    assert [actions.raw(held(actions, *names)) for names in ((), ("UP",), ("FIRE", "LEFT"))] == [0, 1, 1]


def test_documented_actions_have_names_and_the_one_that_does_nothing_has_no_button():
    lander = mapped(spaces.Discrete(4), names=DOCUMENTED["LunarLander"])
    assert lander.buttons == ("left_engine", "main_engine", "right_engine")
    assert [lander.raw(held(lander, *name)) for name in ((), *((name,) for name in lander.buttons))] == [0, 1, 2, 3]
    assert lander.raw(held(lander, "main_engine", "right_engine")) == 2
    cart = mapped(spaces.Discrete(2), names=DOCUMENTED["CartPole"])
    assert cart.buttons == ("left", "right")
    assert [cart.raw(held(cart, *n)) for n in ((), ("left",), ("right",), ("left", "right"))] == [0, 0, 1, 0]


@pytest.mark.parametrize("meanings", [["a", "a", "b"], ["a", "b"], [1, 2, 3], None])
def test_actions_whose_meanings_do_not_tell_them_apart_are_a_button_each(meanings):
    assert mapped(spaces.Discrete(3), meanings).buttons == ("action_0", "action_1", "action_2")


def test_a_meaning_that_is_no_direction_is_a_button_of_its_own():
    assert mapped(spaces.Discrete(3), ["noop", "UP", "jump"]).buttons == ("UP", "jump")


def test_parts_of_a_space_have_dotted_names():
    box, pair = spaces.Box(-1, 1, (2,)), spaces.MultiDiscrete([3, 2])
    space = spaces.Dict(jump=spaces.Discrete(2), arm=spaces.Dict(grip=spaces.Discrete(3), turn=spaces.Box(-1, 1, (1,))))
    actions = mapped(spaces.Tuple([space, box, pair, spaces.MultiBinary(2)]))
    assert actions.buttons[:4] == ("0.jump", "0.arm.grip.0", "0.arm.grip.1", "0.arm.grip.2")
    assert actions.buttons[4:] == ("2.0.1", "2.0.2", "2.1", "3.0", "3.1")
    assert actions.axes == ("0.arm.turn", "1.0", "1.1")
    assert mapped(pair).buttons == ("group_0.1", "group_0.2", "group_1")
    assert mapped(box).axes == ("axis_0", "axis_1")


def test_axes_reach_from_bound_to_bound_and_rest_at_the_spaces_own_zero():
    low, high = np.array([-1, 0, -2, 3, -4], np.float32), np.array([1, 1, 6, 5, -2], np.float32)
    actions = mapped(spaces.Box(low, high))
    np.testing.assert_array_equal(actions.raw(at_rest(0, 5)), [0, 0, 0, 4, -3])
    np.testing.assert_array_equal(actions.raw(Action.of((), [-1] * 5)), low)
    np.testing.assert_array_equal(actions.raw(Action.of((), [9] * 5)), high)
    np.testing.assert_allclose(actions.raw(Action.of((), [0.5] * 5)), [0.5, 0.5, 3, 4.5, -2.5])
    np.testing.assert_allclose(actions.action_of(low).axes, [-1, 0, -1, -1, -1])
    whole = mapped(spaces.Box(0, 3, (1,), np.int32))
    assert [int(whole.raw(Action.of((), [a]))[0]) for a in (0, 0.3, 0.6, 1)] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Text(5), "its action .* is of the kind Text; buttons and axes are made of Discrete"),
        (spaces.Dict(chat=spaces.Text(5)), "its action chat is of the kind Text"),
        (spaces.Graph(spaces.Discrete(2), None), "of the kind Graph"),
        (spaces.Box(-np.inf, 1, (2,)), "has amounts without bounds"),
        (spaces.Dict(x=spaces.Box(np.finfo(np.float32).min, np.finfo(np.float32).max)), "x has amounts without bounds"),
    ],
)
def test_a_space_that_cannot_be_mapped_is_one_clear_line(space, message):
    with pytest.raises(UserError, match=f"gym/Game-v0 cannot be played: .*{message}"):
        mapped(space)


def test_names_are_documented_for_ids_that_exist():
    known = {gymnasium.spec(i).name for i in gymnasium.registry}
    assert DOCUMENTED.keys() <= known
