"""Players that need no policy and look at nothing; the scripted experts come with their games."""

from typing import Any

import gymnasium
import numpy as np

from BC_training.common.action import Action, at_rest


class Noop:
    """Presses and moves nothing."""

    def __init__(self, env: gymnasium.Env):
        game: Any = env.unwrapped
        self._buttons, self._axes = len(game.buttons), len(game.axes)

    def reset(self, seed: int) -> None:
        del seed

    def act(self, observation: dict[str, np.ndarray]) -> Action:
        return at_rest(self._buttons, self._axes)


class Random(Noop):
    """Presses each button with probability 1/2 and draws each axis from [-1, 1], independently in every frame."""

    def reset(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def act(self, observation: dict[str, np.ndarray]) -> Action:
        return Action.of(self._rng.random(self._buttons) < 0.5, self._rng.uniform(-1, 1, self._axes))
