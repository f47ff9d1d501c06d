"""The real engine keeps the contract of a game."""

import dataclasses
import threading
from contextlib import ExitStack, closing
from itertools import islice

import gymnasium
import numpy as np
import pytest
import vizdoom
from gymnasium.utils.env_checker import check_env

from BC_training.common.action import Action
from BC_training.common.errors import UserError
from BC_training.common.preprocess import InputSpec, Window, resize_frames
from BC_training.games import known_games, make_game
from BC_training.games.doom.game import ENEMY_TYPES, STATE_NAMES, DoomGame
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


# The state has no bounds that all its values share.
@pytest.mark.filterwarnings("ignore:.*Box observation space:UserWarning")
@pytest.mark.parametrize("name", known_games())
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


def test_a_delay_shifts_the_buttons_by_tics():
    """A delay of 3 tics at two tics a step is the same buttons, played tic by tic, 3 tics later."""
    buttons = np.random.default_rng(0).random((25, 7)) < 0.4
    tics = np.concatenate([np.zeros((3, 7), bool), buttons.repeat(2, axis=0)])
    with (
        closing(make_game(f"{GAME}?delay=3", frame_size=(72, 128))) as late,
        closing(DoomGame("deadly_corridor", frame_size=(72, 128), frame_skip=1, skill=3, delay=0)) as by_tic,
    ):
        late.reset(seed=4)
        by_tic.reset(seed=4)
        for step, held in enumerate(buttons):
            seen, reward, *_ = late.step(Action.of(held))
            first, second = (by_tic.step(Action.of(tics[2 * step + i])) for i in (0, 1))
            np.testing.assert_array_equal(seen["frame"], second[0]["frame"])
            assert reward == pytest.approx(first[1] + second[1])
