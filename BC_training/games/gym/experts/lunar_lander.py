"""LunarLander: Gymnasium's own heuristic, for engines that are on or off and for those that are not."""

from typing import Any

import numpy as np

from BC_training.games.gym.experts.expert import Expert


class LunarLanderExpert(Expert):
    def choose(self, observation: dict[str, np.ndarray]) -> Any:
        from gymnasium.envs.box2d.lunar_lander import heuristic  # here: other games need no Box2D

        return heuristic(self.raw, observation["state"])
