"""The real engine keeps the contract of a game."""

import dataclasses
import threading
from contextlib import ExitStack, closing
from itertools import islice
from typing import Any

import gymnasium
import numpy as np
import pytest
import vizdoom
from gymnasium.utils.env_checker import check_env

from BC_training.common.action import Action
from BC_training.common.errors import UserError
from BC_training.common.preprocess import InputSpec, Window, resize_frames
from BC_training.games import known_games, make_game
from BC_training.games.doom.experts.expert import turn_to
from BC_training.games.doom.game import ENEMY_TYPES, FAST_TURN, STATE_NAMES, DoomGame
from BC_training.play.episodes import play_frames
from BC_training.play.players import make_player, require_fit

GAME = "doom/deadly_corridor"


@pytest.fixture
def env():
    with closing(make_game(GAME, frame_size=(72, 128))) as env:
        yield env


def play(env: gymnasium.Env, player: str, seed: int, steps: int = 10_000):
    """Frames and states of one episode, of at most so many steps."""
    shown = islice(play_frames(env, make_player(player, GAME, env), seed), steps)
    observations = [frame.observation for frame in shown]
    return tuple(np.stack([seen[part] for seen in observations]) for part in ("frame", "state"))


def test_a_model_that_sees_the_state_needs_the_games_values_in_their_order(env):
    game = env.unwrapped
    inputs = InputSpec(game.buttons, game.state_names, game.frame_size, game.frame_size, game.fps)
    seeing = dataclasses.replace(inputs, window=Window(state=True))
    require_fit("my_model", seeing, env)
    names = (game.state_names[1], game.state_names[0], *game.state_names[2:])
    require_fit("my_model", dataclasses.replace(inputs, state_names=names), env)  # does not look at them
    with pytest.raises(UserError, match=r"values \[max_health, health, .*the game has \[health, max_health, ") as error:
        require_fit("my_model", dataclasses.replace(seeing, state_names=names), env)
    assert "\n" not in str(error.value)


# The state has no bounds that all its values share, and a turn is in degrees.
@pytest.mark.filterwarnings("ignore:.*Box (observation|action) space:UserWarning")
@pytest.mark.parametrize("name", [*known_games("doom"), f"{GAME}?mouse=true"])
def test_every_scenario_is_a_gymnasium_environment_that_seed_and_actions_decide(name):
    with closing(make_game(name, frame_size=(72, 128))) as env:
        check_env(env, skip_render_check=True)
        first = play(env, "random", seed=5, steps=25)
        play(env, "noop", seed=6, steps=5)  # whatever happened before
        second, other = (play(env, "random", seed=seed, steps=25) for seed in (5, 7))
        for one, again in zip(first, second, strict=True):
            np.testing.assert_array_equal(one, again)
        assert not np.array_equal(first[0], other[0])
        game = env.unwrapped
        assert (game.state_names, game.fps) == (STATE_NAMES, 17.5)
        assert len(set(game.buttons)) == env.action_space[0].shape[0]


@pytest.mark.parametrize("size", [(288, 512), (72, 128), (90, 160), (50, 70)])
def test_frames_have_the_size_asked_for(size):
    with closing(make_game(GAME, frame_size=size)) as env:
        observation, _ = env.reset(seed=0)
        assert observation in env.observation_space
        assert observation["frame"].shape == (3, *size)
        assert observation["frame"].std() > 5  # a picture, not a blank


def test_frames_do_not_depend_on_render_mode(env):
    plain, _ = play(env, "expert", seed=1, steps=30)
    with closing(make_game(GAME, frame_size=(72, 128), render_mode="rgb_array")) as filmed:
        np.testing.assert_array_equal(play(filmed, "expert", seed=1, steps=30)[0], plain)
        filmed.reset(seed=1)
        image = filmed.render()
        np.testing.assert_array_equal(resize_frames(np.moveaxis(image, -1, 0)[None], (72, 128))[0], plain[0])


def test_state_follows_the_game(env):
    _, states = play(env, "expert", seed=0)
    column = {name: states[:, i] for i, name in enumerate(STATE_NAMES)}
    assert np.isfinite(states).all()
    assert column["health"][0] == 100
    assert (column["max_health"] == 100).all()
    assert column["kills"][0] == 0
    assert (np.diff(column["kills"]) >= 0).all()
    assert column["kills"][-1] >= 5  # the expert clears the corridor
    assert column["player_x"][-1] > column["player_x"][0] + 1000  # and walks along it
    assert set(column["enemy_type"]) <= {0.0, *map(float, ENEMY_TYPES.values())}
    gone = column["enemy_type"] == 0
    assert gone.any()
    np.testing.assert_array_equal(column["enemy_x"][gone], column["player_x"][gone])
    assert column["ammo"].min() >= 0


def test_a_frame_larger_than_the_engine_draws_is_a_one_line_error():
    with pytest.raises(UserError, match="larger than Doom draws") as error:
        make_game(GAME, frame_size=(4000, 4000))
    assert "\n" not in str(error.value)


def test_an_engine_that_does_not_start_leaves_nothing_behind(monkeypatch):
    def fail(game):
        raise RuntimeError("no such file")

    before = set(threading.enumerate())
    monkeypatch.setattr(vizdoom.DoomGame, "init", fail)
    with pytest.raises(UserError, match=r"did not start \(no such file\)"):
        make_game(GAME)
    assert set(threading.enumerate()) <= before


def test_engines_started_together_do_not_collide():
    """Two engines that share a working directory can fail to start."""
    with ExitStack() as stack:
        for env in [stack.enter_context(closing(make_game(GAME, frame_size=(72, 128)))) for _ in range(4)]:
            env.reset(seed=0)


@pytest.mark.parametrize("mouse", [False, True])
def test_a_delay_shifts_actions_by_tics(mouse):
    """A delay of 3 tics at two tics a step is the same buttons and half the turns, played tic by tic, 3 tics later."""
    rng = np.random.default_rng(0)
    shape = (25, 5, 1) if mouse else (25, 7, 0)
    buttons, turns = rng.random(shape[:2]) < 0.4, rng.uniform(-20, 20, shape[::2]).astype(np.float32)
    rest = (np.zeros((3, *row.shape[1:]), row.dtype) for row in (buttons, turns))
    halves = (row.repeat(2, axis=0) for row in (buttons, turns / 2))
    tics = [np.concatenate(parts) for parts in zip(rest, halves, strict=True)]
    options: dict[str, Any] = {"frame_size": (72, 128), "skill": 3, "mouse": mouse}
    with (
        closing(DoomGame("deadly_corridor", frame_skip=2, delay=3, **options)) as late,
        closing(DoomGame("deadly_corridor", frame_skip=1, delay=0, **options)) as by_tic,
    ):
        late.reset(seed=4)
        by_tic.reset(seed=4)
        for step, action in enumerate(zip(buttons, turns, strict=True)):
            seen, reward, *_ = late.step(Action(*action))
            first, second = (by_tic.step(Action(*(row[2 * step + i] for row in tics))) for i in (0, 1))
            np.testing.assert_array_equal(seen["frame"], second[0]["frame"])
            np.testing.assert_array_equal(seen["state"], second[0]["state"])
            assert reward == pytest.approx(first[1] + second[1])


# --- with a mouse --------------------------------------------------------------------------


def test_a_mouse_replaces_the_buttons_that_turn():
    for name in known_games("doom"):
        with closing(make_game(name, frame_size=(72, 128))) as plain:
            buttons = [button for button in plain.unwrapped.buttons if not button.startswith("turn")]
        with closing(make_game(f"{name}?mouse=true", frame_size=(72, 128))) as env:
            assert (list(env.unwrapped.buttons), env.unwrapped.axes) == (buttons, ("turn",))


TURNED = STATE_NAMES.index("player_angle")


def turned(env: gymnasium.Env, *degrees: float) -> list[float]:
    """By how much the player's angle falls in frames with these turns; to the right it falls."""
    angles = [env.reset(seed=0)[0]["state"][TURNED]]
    rest = np.zeros(len(env.unwrapped.buttons), bool)
    angles += [env.step(Action.of(rest, [turn]))[0]["state"][TURNED] for turn in degrees]
    return [float(by) for by in -np.diff(np.array(angles, float))]


def test_a_mouse_turns_by_exactly_the_degrees_asked_for():
    step = 360 / 65536  # between the directions that the engine knows
    asked = [20.0, -33.3, 0.0, 150.0, -179.0, 4.4, -0.03, 0.02, 300.0, *(2 * k * step for k in (1, -1, 777, -778))]
    with closing(make_game("doom/health_gathering_supreme?mouse=true", frame_size=(72, 128))) as env:
        off = [turn_to(by - turn) for by, turn in zip(turned(env, *asked), asked, strict=True)]
    assert np.abs(off[:9]).max() <= step + 1e-4  # each of two tics is rounded
    assert np.abs(off[9:]).max() < 1e-4


def test_random_turns_reach_as_far_as_an_experts():
    with closing(make_game(f"{GAME}?mouse=true", frame_size=(72, 128))) as env:
        player = make_player("random", GAME, env)
        player.reset(0)
        turns = np.array([player.act({}).axes[0] for _ in range(500)])
    assert (np.abs(turns) <= FAST_TURN).all()
    assert turns.min() < -0.9 * FAST_TURN
    assert turns.max() > 0.9 * FAST_TURN


def test_an_action_of_another_shape_is_refused():
    with closing(make_game(f"{GAME}?mouse=true", frame_size=(72, 128))) as env:
        env.reset(seed=0)
        with pytest.raises(ValueError, match=r"shapes \(5,\) and \(0,\), expected \(\(5,\), \(1,\)\)"):
            env.step(Action.of([False] * 5))
