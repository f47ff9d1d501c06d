from contextlib import closing

import numpy as np
import pytest

from BC_training.common.action import Action
from BC_training.finetuning.rewards import Reward
from BC_training.games import make_game


def test_hits_and_kills_count_beside_the_games_own_reward():
    reward = Reward("BC_training.finetuning.doom_rewards:hurt_and_kills")
    with closing(make_game("doom/deadly_corridor?skill=5", frame_size=(24, 32))) as env:
        names = env.unwrapped.state_names
        observation, _ = env.reset(seed=3)
        is_over, hits, own, before = False, 0, 0.0, dict(zip(names, observation["state"], strict=True))
        first = before["health"]
        while not is_over:
            observation, gained, terminated, truncated, _ = env.step(Action.of(np.zeros(7, bool)))  # waits to be shot
            after = dict(zip(names, observation["state"], strict=True))
            learned, is_over = reward(before, after, float(gained))[0], terminated or truncated
            assert (learned < gained) == (after["health"] < before["health"])
            hits, own, before = hits + (learned < gained), own + learned - float(gained), after
    assert hits > 0
    assert own == pytest.approx(2 * (before["health"] - first))
    assert reward({"health": 9, "kills": 1}, {"health": 9, "kills": 2}, 0.5)[0] == 100.5


@pytest.mark.parametrize(
    ("name", "value", "worth"),
    [("health", {"health": 40.0}, 2.0), ("health", {"health": 60.0}, 2.0), ("bullets", {"ammo": 19.0}, 0.5)],
)
def test_what_scenarios_are_short_of_counts_beside_their_own_reward(name, value, worth):
    reward, before = Reward(f"BC_training.finetuning.doom_rewards:{name}"), {"health": 50.0, "ammo": 20.0}
    ((key, now),) = value.items()
    assert reward(before, before | value, 2.0)[0] == 2.0 + worth * (now - before[key])
    assert reward(before, before, -1.0)[0] == -1.0
