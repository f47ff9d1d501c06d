"""Players that need no policy and look at nothing; the scripted experts come with their games."""

from typing import Any

import gymnasium
import numpy as np


class Noop:
    """Presses nothing."""

    def __init__(self, env: gymnasium.Env):
        game: Any = env.unwrapped
        self._buttons = len(game.action_names)

    def reset(self, seed: int) -> None:
        del seed

    def act(self, observation: dict[str, np.ndarray]) -> np.ndarray:
        return np.zeros(self._buttons, bool)


class Random(Noop):
    """Presses each button with probability 1/2, independently in every frame."""

    def reset(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def act(self, observation: dict[str, np.ndarray]) -> np.ndarray:
        return self._rng.random(self._buttons) < 0.5
