"""What the experts share: they look into the environment itself, and choose its actions."""

from typing import Any

import gymnasium
import numpy as np

from BC_training.common.action import Action


class Expert:
    """Plays a ``GymGame``. What it does follows from the last few frames, so that a policy can learn it from pixels."""

    def __init__(self, env: gymnasium.Env):
        self._game: Any = env.unwrapped

    @property
    def raw(self) -> Any:
        """The environment itself, which is not kept: Atari's engine complains if anything holds it when Python ends."""
        return self._game.env.unwrapped

    def reset(self, seed: int) -> None:
        """Starts an episode; nothing that an expert does is random."""

    def act(self, observation: dict[str, np.ndarray]) -> Action:
        return self._game.action_of(self.choose(observation))

    def choose(self, observation: dict[str, np.ndarray]) -> Any:
        """An action of the environment's own space."""
        raise NotImplementedError


class AtariExpert(Expert):
    """Plays by the console's memory."""

    def choose(self, observation: dict[str, np.ndarray]) -> int:
        ram = self.raw.ale.getRAM().astype(int)
        return self.raw.get_action_meanings().index(self.press(ram))

    def press(self, ram: np.ndarray) -> str:
        """The meaning of an action, for the memory, int [128]."""
        raise NotImplementedError
