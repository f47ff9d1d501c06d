"""The scripted experts of Gymnasium's games score well."""

from contextlib import closing

import numpy as np
import pytest

from BC_training.common.errors import UserError
from BC_training.games import make_game
from BC_training.games.gym.experts import EXPERTS
from BC_training.play.episodes import play_frames
from BC_training.play.players import make_player

# The least mean return over the seeds 0 and 1, and the steps after which an episode is left.
LEAST = {
    "gym/CartPole-v1": (500, 500),
    "gym/LunarLander-v3": (200, 1000),
    "gym/LunarLander-v3?continuous=true": (200, 1000),
    "gym/BabyAI-GoToLocal-v0": (0.8, 64),
    "gym/CarRacing-v3": (150, 200),
    "gym/ALE/Freeway-v5": (4, 300),
    "gym/ALE/Freeway-v5?repeat_action_probability=0": (4, 300),
    "gym/ALE/Breakout-v5": (7, 350),
    "gym/ALE/Breakout-v5?repeat_action_probability=0": (7, 350),
}


def test_every_expert_is_tested():
    assert {game.removeprefix("gym/").partition("?")[0] for game in LEAST} == set(EXPERTS)


@pytest.mark.parametrize("game", LEAST)
def test_experts_play_far_better_than_random(game):
    least, steps = LEAST[game]
    means = {}
    with closing(make_game(game, frame_size=(24, 32))) as env:
        for name in ("expert", "random"):
            player = make_player(name, game, env)
            scores = []
            for seed in (0, 1):
                frames = play_frames(env, player, seed)
                scores.append([frame.score for frame, _ in zip(frames, range(steps + 1), strict=False)][-1])
            means[name] = np.mean(scores)
    assert means["expert"] >= least > means["random"] + 0.3 * abs(least), means


def test_the_expert_of_car_racing_needs_axes():
    game = "gym/CarRacing-v3?continuous=false"
    with closing(make_game(game, frame_size=(24, 32))) as env, pytest.raises(UserError, match="leave continuous=false"):
        make_player("expert", game, env)
