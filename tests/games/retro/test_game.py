"""Consoles are played by real emulators, one in a process."""

from contextlib import closing

import numpy as np
import pytest

from BC_training.common.action import Action
from BC_training.common.errors import UserError
from BC_training.games import GameSpec, make_game
from BC_training.games.retro import ids
from BC_training.play.episodes import play_frames
from BC_training.play.players import make_player

GAME = "retro/Airstriker-Genesis-v0"


@pytest.fixture
def game():
    with closing(make_game(GAME, frame_size=(56, 80), render_mode="rgb_array")) as env:
        yield env


def frames_of(env, seed, steps):
    env.reset(seed=seed)
    return np.stack([env.step(env.action_space.draw(np.random.default_rng(t)))[0]["frame"] for t in range(steps)])


def test_a_game_has_the_pad_the_score_and_the_rate_of_its_console(game):
    assert game.buttons == ("b", "a", "mode", "start", "up", "down", "left", "right", "c", "y", "x", "z")
    assert (game.axes, game.state_names) == ((), ("score", "lives", "gameover"))
    assert game.fps == pytest.approx(59.92 / 2, abs=0.01)
    observation, _ = game.reset(seed=0)
    assert game.observation_space.contains(observation)
    assert observation["state"].tolist() == [0, 3, 9]
    assert observation["frame"].std() > 10
    assert game.render().shape == (224, 320, 3)


def test_a_seed_decides_an_episode(game):
    first, again, other = (frames_of(game, seed, 40) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_buttons_move_the_ship(game):
    def picture(*held):
        game.reset(seed=0)
        action = Action.of([name in held for name in game.buttons])
        return [game.step(action)[0]["frame"] for _ in range(15)][-1]

    pictures = [picture(), picture("left"), picture("right"), picture("right", "b")]
    assert len({p.tobytes() for p in pictures}) == 4


def test_episodes_end_with_the_last_life_and_rewards_sum_to_the_score():
    with closing(make_game(f"{GAME}?frameskip=8", frame_size=(56, 80))) as env:
        end = list(play_frames(env, make_player("random", GAME, env), 0))[-1]
    assert end.score == end.observation["state"][0] > 0
    assert end.observation["state"][1] == 0


def test_frames_skipped_are_no_frames_of_the_episode():
    with closing(make_game(f"{GAME}?frameskip=4&noops=0&state=Level1", frame_size=(56, 80))) as env:
        assert env.unwrapped.fps == pytest.approx(59.92 / 4, abs=0.01)  # pyright: ignore
        rough = frames_of(env, 0, 3)
    with closing(make_game(f"{GAME}?frameskip=1&noops=0", frame_size=(56, 80))) as env:
        env.reset(seed=9)
        for t in range(3):
            action = env.action_space.draw(np.random.default_rng(t))  # pyright: ignore
            fine = [env.step(action)[0]["frame"] for _ in range(4)][-1]
            assert np.array_equal(fine, rough[t])


def test_a_second_console_in_a_process_is_refused_until_the_first_is_closed(game):
    with pytest.raises(UserError, match=f"{GAME} is open in this process, which can play one console: close it first"):
        make_game(GAME)
    game.close()
    make_game(GAME).close()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("retro/Airstriker-Genesi-v0", "did you mean 'retro/Airstriker-Genesis-v0'"),
        ("retro/SuperMarioBros-Nes-v0", r"ROM is not there; `uv run python -m stable_retro\.import FOLDER`"),
        (f"{GAME}?state=Level2", "unknown state of .* 'Level2'; did you mean 'Level1'"),
        (f"{GAME}?scenario=scenari", "unknown scenario of .* did you mean 'scenario'"),
        (f"{GAME}?frameskip=0", "frameskip=0 is out of range: 1 to 60"),
        (f"{GAME}?noop=2", "unknown option of .* did you mean 'noops'"),
    ],
)
def test_a_wrong_spec_is_a_one_line_error(text, message):
    with pytest.raises(UserError, match=message) as error:
        make_game(text)
    assert "\n" not in str(error.value)


def test_options_that_are_texts_are_written_as_they_are():
    assert str(GameSpec.parse(f"{GAME}?state=Level1&scenario=")) == f"{GAME}?state=Level1"
    numbered = GameSpec.parse(f"{GAME}?state=1")
    assert GameSpec.parse(str(numbered)) == numbered
    assert numbered.arguments["state"] == "1"


def test_without_stable_retro_the_error_says_what_installs_it(monkeypatch):
    monkeypatch.setattr(ids, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"stable-retro, .* is not installed: uv sync --extra retro"):
        make_game(GAME)
