"""Players that need no policy and look at nothing; the scripted experts come with their games."""

from typing import Any

import gymnasium
import numpy as np

from BC_training.common.action import Action, at_rest
from BC_training.games.spaces import random_action


class Noop:
    """Presses and moves nothing."""

    def __init__(self, env: gymnasium.Env):
        game: Any = env.unwrapped
        self._buttons, self._axes = len(game.buttons), len(game.axes)

    def reset(self, seed: int) -> None:
        del seed

    def act(self, observation: dict[str, np.ndarray]) -> Action:
        return at_rest(self._buttons, self._axes)


class Random:
    """Draws a ``random_action`` in every frame."""

    def __init__(self, env: gymnasium.Env):
        self._space = env.action_space

    def reset(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def act(self, observation: dict[str, np.ndarray]) -> Action:
        return random_action(self._space, self._rng)
