"""Games in parallel processes show what each of them shows alone."""

import os
import signal
from contextlib import closing
from itertools import count

import numpy as np
import pytest

from BC_training.common.action import Action
from BC_training.common.errors import UserError
from BC_training.common.preprocess import resize_frames
from BC_training.finetuning.games import ParallelGames
from BC_training.finetuning.rewards import Reward
from BC_training.games import make_game

RECORDED, SIZE = (48, 64), (24, 32)
CART, DOOM = "gym/CartPole-v1", "doom/basic"
OPTIONS = {"recorded_size": RECORDED, "model_size": SIZE, "processes": 1, "first_seed": 7}


def play_alone(spec: str, seeds, actions: list[Action]) -> list[tuple]:
    """What one game shows at the start and after each action: frame, state, reward, whether the episode ended."""
    with closing(make_game(spec, frame_size=RECORDED)) as env:

        def shown(observation, reward=0.0, ended=False):
            return resize_frames(observation["frame"][None], SIZE)[0].copy(), observation["state"].copy(), reward, ended

        found = [shown(env.reset(seed=next(seeds))[0])]
        for action in actions:
            observation, reward, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                observation, _ = env.reset(seed=next(seeds))
            found.append(shown(observation, reward, terminated or truncated))
    return found


@pytest.mark.parametrize(("spec", "buttons", "games", "processes"), [(CART, 2, 3, 2), (DOOM, 3, 2, 1)])
def test_each_game_shows_what_it_shows_alone(spec, buttons, games, processes):
    rng, steps = np.random.default_rng(0), 40
    actions = [[Action.of(rng.random(buttons) < 0.5) for _ in range(steps)] for _ in range(games)]
    scores = []
    with ParallelGames([spec] * games, **OPTIONS | {"processes": processes}) as parallel:
        shown = [parallel.start()]
        for t in range(steps):
            shown.append(parallel.step([of_game[t] for of_game in actions]))
            scores += shown[-1].finished
        begun = parallel.begun
    for game in range(games):
        alone = play_alone(spec, count(7 + game, games), actions[game])
        for t, (frame, state, reward, ended) in enumerate(alone):
            np.testing.assert_array_equal(shown[t].frames[game], frame)
            np.testing.assert_array_equal(shown[t].states[game], state)
            assert shown[t].rewards[game] == np.float32(reward)
            assert (shown[t].terminated | shown[t].truncated)[game] == ended
        ended = [t for t, one in enumerate(alone) if one[3]]
        of_game = [episode for episode in scores if episode.game == game]
        assert [episode.seed for episode in of_game] == [7 + game + k * games for k in range(len(ended))]
        assert [episode.frames for episode in of_game] == np.diff([0, *ended]).tolist()
        returns = [sum(one[2] for one in alone[a + 1 : b + 1]) for a, b in zip([0, *ended], ended, strict=False)]
        assert [episode.score for episode in of_game] == pytest.approx(returns)
        assert 7 + begun > max([episode.seed for episode in of_game], default=0)
    if spec == CART:
        assert scores


def test_an_episode_whose_time_is_over_shows_where_it_was():
    """Its value still counts, and the next episode's first frame is another."""
    with ParallelGames([f"{CART}?max_episode_steps=5"] * 2, **OPTIONS) as games:
        games.start()
        before = [games.step([Action.of([0, 0])] * 2) for _ in range(4)]
        after = games.step([Action.of([0, 0])] * 2)
    assert not any(one.last for one in before)
    assert after.truncated.all()
    assert not after.terminated.any()
    for game, (frame, state) in after.last.items():
        assert not np.array_equal(state, after.states[game])
        assert frame.shape == (3, *SIZE)


def test_a_curriculum_switches_a_game_with_its_next_episode():
    with ParallelGames([f"{CART}?max_episode_steps=3"], **OPTIONS) as games:
        games.start()
        games.switch([f"{CART}?max_episode_steps=2"])
        frames = [episode.frames for _ in range(7) for episode in games.step([Action.of([0, 0])]).finished]
        assert frames == [3, 2, 2]
        games.switch([DOOM])
        games.step([Action.of([0, 0])])
        with pytest.raises(UserError, match="doom/basic has other buttons than the game before it"):
            games.step([Action.of([0, 0])])


def test_what_is_learned_from_may_be_the_users_own_reward(tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text(
        "def upright(before, after, reward):\n"
        "    return abs(before['pole_angle']) - abs(after['pole_angle']) + 10 * reward, after['cart_position'] > 9\n"
        "def short(before, after, reward):\n"
        "    return 0.5, True\n"
    )
    with ParallelGames([CART], **OPTIONS, reward=f"{mine}:upright") as games:
        angles = [games.start().states[0, 2]]
        for _ in range(5):
            shown = games.step([Action.of([1, 0])])
            angles.append(shown.states[0, 2])
            assert shown.rewards[0] == pytest.approx(abs(angles[-2]) - abs(angles[-1]) + 10, abs=1e-5)
    with ParallelGames([CART], **OPTIONS, reward=f"{mine}:short") as games:
        games.start()
        shown = games.step([Action.of([1, 0])])
        assert shown.terminated[0]
        assert shown.finished[0].score == 1  # the game's own


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("mine.py", "write FILE.py:FUNCTION"),
        ("nowhere.py:f", "there is no file"),
        ("no_such_module:f", "cannot be imported: ModuleNotFoundError"),
        ("{mine}:nope", "unknown function of .*'nope'"),
        ("{mine}:few", r"cannot be called as few\(before, after, reward\)"),
        ("{broken}:f", "cannot be imported: SyntaxError"),
    ],
)
def test_a_reward_that_cannot_be_used_is_one_line(tmp_path, place, said):
    (tmp_path / "mine.py").write_text("def few(before):\n    return 1\n")
    (tmp_path / "broken.py").write_text("def f(:\n")
    with pytest.raises(UserError, match=said) as caught:
        Reward(place.format(mine=tmp_path / "mine.py", broken=tmp_path / "broken.py"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return before['nothing']", r"failed: KeyError: 'nothing' \(line 2 of mine.py\)"),
        ("return float('nan')", "returned nan: it is to return a finite number"),
        ("return 'much'", "returned 'much'"),
    ],
)
def test_a_reward_that_fails_in_a_worker_is_one_line(tmp_path, body, said):
    (tmp_path / "mine.py").write_text(f"def f(before, after, reward):\n    {body}\n")
    with ParallelGames([CART] * 2, **OPTIONS | {"processes": 2}, reward=f"{tmp_path}/mine.py:f") as games:
        games.start()
        with pytest.raises(UserError, match=said):
            games.step([Action.of([1, 0])] * 2)


def test_a_worker_that_is_killed_is_one_line():
    with ParallelGames([CART] * 2, **OPTIONS | {"processes": 2}) as games:
        games.start()
        process, _ = games._team._members[0]
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        with pytest.raises(UserError, match="a worker process died"):
            games.step([Action.of([1, 0])] * 2)


def test_a_game_that_dies_is_started_again_and_its_episode_has_no_score():
    with ParallelGames([DOOM], **OPTIONS) as games:
        first = games.start()
        games._team._local._games[0]._env.unwrapped._calls.engine.kill()
        shown = games.step([Action.of([0, 0, 0])])
        assert shown.died == [0]
        assert shown.truncated.all()
        assert not shown.finished
        np.testing.assert_array_equal(shown.last[0][0], first.frames[0])
        assert games.step([Action.of([0, 0, 0])]).died == []
        assert games.begun == 2
        games._team._local._games[0]._env.unwrapped._calls.engine.kill()
        games._team._local._games[0].begin(DOOM)  # dies as it begins: that seed is used, too
        assert games.step([Action.of([0, 0, 0])]).begun == [4]
