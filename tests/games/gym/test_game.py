"""Environments of Gymnasium as games."""

import contextlib
import subprocess
import sys
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from BC_training.common.action import Action, at_rest
from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.errors import UserError
from BC_training.common.preprocess import resize_frames
from BC_training.common.schema import RecordConfig
from BC_training.common.settings.evaluation import RolloutConfig
from BC_training.games import GameSpec, games_with_experts, known_games, make_game
from BC_training.games.gym import ids
from BC_training.games.gym.observations import WORDS
from BC_training.play.players import make_player
from BC_training.play.record import LabelledPlayer, record
from BC_training.play.rollout import rollout

SIZE = (40, 64)
QUIET = Console(file=StringIO())
BREAKOUT = "gym/ALE/Breakout-v5"
TOY = "gym/gym_toys:Toy-v0"
MINIGRID = ("left", "right", "forward", "pickup", "drop", "toggle", "done")
# By game: buttons, axes, number of state values, frames per second, whether it waits for the player.
REAL = {
    "gym/CartPole-v1": (("left", "right"), (), 4, 50, False),
    "gym/LunarLander-v3": (("left_engine", "main_engine", "right_engine"), (), 8, 50, False),
    "gym/CarRacing-v3": ((), ("steering", "gas", "brake"), 0, 50, False),
    BREAKOUT: (("LEFT", "RIGHT", "FIRE"), (), 0, 15, False),
    "gym/ALE/Freeway-v5?frameskip=2": (("UP", "DOWN"), (), 0, 30, False),
    "gym/ALE/Pong-v5?frameskip=[2,5]&obs_type=ram": (("LEFT", "RIGHT", "FIRE"), (), 128, 20, False),
    "gym/MiniGrid-DoorKey-5x5-v0": (MINIGRID, (), 1 + WORDS, 10, True),
    "gym/BabyAI-GoToLocal-v0": (MINIGRID, (), 1 + WORDS, 10, True),
    "gym/FrozenLake-v1": (("left", "down", "right", "up"), (), 1, 4, True),
}


def play(env, seed, steps, rng_seed=0):
    """The observations, rewards and ends of random actions."""
    rng, (observation, _) = np.random.default_rng(rng_seed), env.reset(seed=seed)
    seen = [(observation["frame"].copy(), observation["state"].copy(), 0.0, False)]
    for _ in range(steps):
        observation, reward, terminated, truncated, _ = env.step(env.action_space.draw(rng))
        seen.append((observation["frame"].copy(), observation["state"].copy(), reward, terminated or truncated))
        if terminated or truncated:
            break
    return seen


def same(one, other):
    return len(one) == len(other) and all(
        np.array_equal(a, b) for row, match in zip(one, other, strict=True) for a, b in zip(row, match, strict=True)
    )


@pytest.mark.parametrize("game", REAL)
def test_seeds_decide_episodes_whatever_was_played_before_and_whether_it_is_filmed(game):
    buttons, axes, state, fps, waits = REAL[game]
    env, filmed = make_game(game, frame_size=SIZE), make_game(game, frame_size=SIZE, render_mode="rgb_array")
    steps = 12 if "CarRacing" in game else 60
    first = play(env, 7, steps)
    other = play(env, 8, steps, rng_seed=1)
    assert same(first, play(env, 7, steps))
    assert not same(first, other)
    filmed.reset(seed=7)
    assert filmed.render().ndim == 3
    filmed.env.step = (lambda step: lambda raw: (filmed.render(), step(raw))[1])(filmed.env.step)
    assert same(first, play(filmed, 7, steps))
    assert (env.buttons, env.axes, len(env.state_names), env.fps) == (buttons, axes, state, fps)
    assert env.is_turn_based == waits
    frame, values, *_ = first[-1]
    assert (frame.shape, frame.dtype, values.shape, values.dtype) == ((3, *SIZE), np.uint8, (state,), np.float32)
    assert env.observation_space.contains({"frame": frame, "state": values})
    assert frame.std() > 5
    env.close()
    filmed.close()


def test_frames_are_the_observed_or_else_the_rendered_pictures_in_the_size_asked_for():
    for size in ((20, 25), (80, 100), (40, 50)):
        for kind, grey in (("parts", False), ("first", False), ("grey", True), ("stack", True), ("rgb", False)):
            env = make_game(f"{TOY}?observations={kind}", frame_size=size)
            env.reset(seed=1)
            frame = env.step(at_rest(3, 0))[0]["frame"]
            picture = env.env.unwrapped.picture
            picture = picture[..., [0, 0, 0]] if grey else picture
            np.testing.assert_array_equal(frame, resize_frames(np.moveaxis(picture, -1, 0)[None], size)[0])
            assert len(env.state_names) == (0 if kind != "parts" else 3 + WORDS)
    kept = frame.copy()
    env.env.unwrapped.picture += 1
    np.testing.assert_array_equal(frame, kept)  # no view of the environment's own


def test_vectors_numbers_and_words_of_parts_are_the_state():
    env = make_game(TOY, frame_size=SIZE)
    state = dict(zip(env.state_names, env.reset(seed=0)[0]["state"], strict=True))
    assert (state["where.0"], state["where.1"], state["way"]) == (1.5, 0, 3)
    words = [state[f"said.{i}"] for i in range(WORDS)]
    assert words[1] == words[6] > 0  # "to"
    assert len(set(words[:7])) == 6
    assert set(words[7:]) == {0}
    assert all(word == int(word) < 2**24 for word in words)
    lander = make_game("gym/LunarLander-v3", frame_size=SIZE)
    assert lander.state_names[:3] == ("x", "y", "velocity_x")


def test_an_action_reaches_the_environment_and_a_wrong_one_is_refused():
    env = make_game(TOY, frame_size=SIZE)
    env.reset(seed=0)
    taken = []
    env.env.step = (lambda step: lambda raw: (taken.append(raw), step(raw))[1])(env.env.step)
    for raw in (2, 0, 1):
        env.step(env.action_of(raw))
    assert taken == [2, 0, 1]
    with pytest.raises(ValueError, match="shapes"):
        env.step(Action.of([True], ()))


def test_an_environment_without_a_limit_is_cut_off_after_half_an_hour_and_one_with_a_limit_at_that(monkeypatch):
    monkeypatch.setattr("BC_training.games.gym.game._LONGEST", 2)
    for game, steps in ((TOY, 24), (f"{TOY}?max_episode_steps=30", 30)):
        env = make_game(game, frame_size=SIZE)
        for _ in range(2):
            env.reset(seed=0)
            ends = [env.step(at_rest(3, 0))[2:4] for _ in range(steps)]
            assert ends == [(False, False)] * (steps - 1) + [(False, True)]


def test_random_draws_each_action_alike_and_follows_from_its_seed():
    env = make_game("gym/MiniGrid-Empty-5x5-v0", frame_size=SIZE)
    player, (observation, _) = make_player("random", "gym/MiniGrid-Empty-5x5-v0", env), env.reset(seed=0)
    drawn = []
    for _ in range(2):
        player.reset(5)
        drawn.append(np.array([player.act(observation).buttons for _ in range(700)]))
    np.testing.assert_array_equal(*drawn)
    assert (drawn[0].sum(1) == 1).all()
    assert (np.abs(drawn[0].sum(0) - 100) < 40).all()


def test_recorded_actions_played_again_give_the_recorded_frames(tmp_path):
    game = f"{BREAKOUT}?max_episode_steps=40"
    config = RecordConfig(game, "random", 2, 100, (24, 32))
    record(tmp_path / "b.zarr", config, 1, QUIET)
    data = ZarrGameplayDataset(tmp_path / "b.zarr")
    assert data.action_names == ("LEFT", "RIGHT", "FIRE")
    env = make_game(game, frame_size=(24, 32))
    for i, episode in enumerate(data.episodes):
        assert (episode.attrs["game"], episode.attrs["fps"], episode.length) == (game, 15, 40)
        frames, actions = data.frames(i, range(40)), data.actions(i)
        observation, _ = env.reset(seed=episode.attrs["seed"])
        for frame, buttons in zip(frames, actions, strict=True):
            np.testing.assert_array_equal(observation["frame"], frame)
            observation = env.step(Action.of(buttons, ()))[0]


# --- names and options ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "written", "file_name", "engine"),
    [
        (f"{BREAKOUT}?frameskip=4", BREAKOUT, "ALE-Breakout-v5", "ale-py"),
        ("gym/ale_py:ALE/Breakout-v5", BREAKOUT, "ALE-Breakout-v5", "ale-py"),
        (
            f"{BREAKOUT}?repeat_action_probability=0.0&frameskip=2",
            f"{BREAKOUT}?frameskip=2&repeat_action_probability=0",
            "ALE-Breakout-v5-frameskip-2-repeat_action_probability-0",
            "ale-py",
        ),
        (f'{BREAKOUT}?obs_type="ram"', f"{BREAKOUT}?obs_type=ram", "ALE-Breakout-v5-obs_type-ram", "ale-py"),
        ('gym/CartPole-v1?a="1"', 'gym/CartPole-v1?a="1"', "CartPole-v1-a--1-", "gymnasium"),
        ("gym/CartPole-v1?a=[1, 2.0]", "gym/CartPole-v1?a=[1,2.0]", "CartPole-v1-a--1-2.0-", "gymnasium"),
        ("gym/CartPole-v1?a=true", "gym/CartPole-v1?a=true", "CartPole-v1-a-true", "gymnasium"),
        ("gym/BabyAI-GoToLocal-v0", "gym/BabyAI-GoToLocal-v0", "BabyAI-GoToLocal-v0", "minigrid"),
        (TOY, TOY, "gym_toys-Toy-v0", "gymnasium"),
    ],
)
def test_specs_of_the_same_game_are_equal_and_written_the_same(text, written, file_name, engine):
    found = GameSpec.parse(text)
    assert (str(found), found.file_name, found.engine) == (written, file_name, engine)
    assert GameSpec.parse(written) == found == found.without_handicaps
    assert hash(found) == hash(GameSpec.parse(written))


@pytest.mark.parametrize(
    ("game", "message"),
    [
        ("CartPole-v1", "unknown game 'CartPole-v1'; did you mean 'gym/CartPole-v1'"),
        ("gym/CartPole", r"unknown game 'gym/CartPole'; did you mean 'gym/CartPole-v1'\? \(known: \d+, such as gym/Ca"),
        ("gym/ALE/Breakot-v5", "did you mean 'gym/ALE/Breakout-v5'"),
        ("gym/Taxi-v3", "did you mean 'gym/Taxi-v4'"),
        ("gym/", "unknown game 'gym/'"),
        ("gym/no_such_module:Foo-v0", "no_such_module cannot be imported"),
        ("gym/gym_toys:Foo-v0", "unknown game 'gym/gym_toys:Foo-v0'"),
        (f"{BREAKOUT}?frameskp=2", r"unknown option of gym/ALE/Breakout-v5 'frameskp'; did you mean 'frameskip'"),
        (f"{BREAKOUT}?frameskip=-1", "Invalid frameskip of -1"),
        (f"{BREAKOUT}?=1", "unknown option"),
        (f"{BREAKOUT}?frameskip=2&frameskip=3", "the option frameskip is there twice"),
        ("gym/LunarLander-v3?gravity=5", "gravity .* must be between -12 and 0"),
        ("gym/MiniGrid-Empty-5x5-v0?foo=2", "unexpected keyword argument 'foo'"),
        ("gym/CartPole-v1?render_mode=human", "render_mode is no option"),
        ("gym/CartPole-v1?id=x", "unknown option of gym/CartPole-v1 'id'"),
        ("gym/Ant-v2", "cannot be started: "),
        (f"{TOY}?chats=true", "its action .* is of the kind Text"),
        (f"{TOY}?draws=false", "cannot be seen: its observations are no pictures, and it renders none"),
        ("gym/gym_toys:Blind-v0", "cannot be seen"),
    ],
)
def test_a_game_that_cannot_be_played_is_one_line(game, message):
    with pytest.raises(UserError, match=message) as error:
        make_game(game, frame_size=SIZE)
    assert len(str(error.value)) < 700


@pytest.mark.parametrize(
    ("game", "lacks", "message"),
    [
        (BREAKOUT, "ale_py", r"game gym/ALE/Breakout-v5: ale_py is not installed: uv sync --extra gym"),
        ("gym/BabyAI-GoTo-v0", "minigrid", "minigrid is not installed: uv sync --extra gym"),
        ("gym/LunarLander-v3", "Box2D", "Box2D is not installed: uv sync --extra gym"),
    ],
)
def test_a_package_that_is_not_installed_is_one_line_with_the_command(game, lacks, message):
    code = "import sys; from importlib import util; found = util.find_spec\n"
    code += f"util.find_spec = lambda name, *a: None if name == {lacks!r} else found(name, *a)\n"
    code += f"sys.modules[{lacks!r}] = None\nfrom BC_training.games import make_game\nmake_game({game!r})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert message in run.stderr.splitlines()[-1]


def test_packages_of_games_are_imported_only_for_their_own():
    code = "import sys; from BC_training.games import GameSpec, make_game; GameSpec.parse('gym/CartPole-v1')\n"
    code += "print(sorted({'ale_py', 'minigrid', 'pygame', 'Box2D'} & sys.modules.keys()))\n"
    code += "GameSpec.parse('gym/ALE/Pong-v5'); print('minigrid' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["[]", "False"]


def test_all_ids_are_known_and_experts_are_for_some():
    known = known_games("gym")
    assert {"gym/CartPole-v1", BREAKOUT, "gym/BabyAI-GoToLocal-v0"} <= set(known) <= set(known_games())
    assert set(games_with_experts()) <= set(known_games())
    assert "gym/ALE/Breakout-v5" in [f"gym/{name}" for name in ids.registered()]


# --- scores where there is no expert ----------------------------------------------------------


def test_without_an_expert_scores_are_normalised_only_by_means_that_the_user_gives():
    screen, game = StringIO(), f"{TOY}?max_episode_steps=10"
    result = rollout("noop", game, Console(file=screen, width=300), episodes=3, workers=1)
    assert (result.mean, result.random_mean, result.expert_mean, result.normalized) == (10, 10, None, None)
    assert "has no expert, so scores are not normalised" in screen.getvalue()
    assert "--reference-means RANDOM EXPERT" in screen.getvalue()
    screen = StringIO()
    result = rollout("noop", game, Console(file=screen, width=300), episodes=3, workers=1, reference_means=(5.0, 15.0))
    assert (result.random_mean, result.expert_mean, result.normalized) == (5, 15, 0.5)
    assert (result.references, result.reference_means) == ({"random": [5], "expert": [15]}, (5, 15))
    assert result.random_ci95 is None
    assert result.ci95[0] < 10 < result.ci95[1]
    assert result.normalized_ci95 == pytest.approx([(end - 5) / 10 for end in result.ci95])  # given means are exact
    assert "expert, as given" in screen.getvalue()
    assert "has no expert" not in screen.getvalue()


@pytest.mark.parametrize("means", [(2.0, 1.0), (1.0, 1.0), (float("nan"), 1.0), (0.0, float("inf"))])
def test_given_means_that_are_no_scale_are_refused(means):
    with pytest.raises(UserError, match=r"--reference-means .*: first random's, then a higher one"):
        rollout("noop", TOY, QUIET, episodes=1, workers=1, reference_means=means)
    with pytest.raises(UserError, match=r"config: evaluation.rollout.reference_means=.* two numbers, random's and a"):
        RolloutConfig(TOY, reference_means=means)


@pytest.mark.parametrize("game", ["gym/ALE/Freeway-v5", "gym/MiniGrid-DoorKey-5x5-v0"])
def test_noise_is_made_of_the_games_own_actions(game):
    """Buttons of which no action is made would be noise of the few actions that are nearest to many of them."""
    with contextlib.closing(make_game(game, frame_size=SIZE)) as env:
        player = LabelledPlayer(
            make_player("noop", game, env), None, RecordConfig(game, noise=1, noise_frames=1), env.action_space
        )
        player.reset(0)
        played = [player.act({}).buttons for _ in range(200)]
        actions = env.unwrapped._actions
        valid = [actions.action_of(raw).buttons.tolist() for raw in range(env.unwrapped.env.action_space.n)]
    counts = [sum(done.tolist() == buttons for done in played) for buttons in valid]
    assert sum(counts) == 200
    assert min(counts) > 200 / len(valid) / 2
