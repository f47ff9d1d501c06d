"""A played episode as it is kept for a video."""

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Film:
    """One player's episode of N frames.

    Attributes:
        pictures: N + 1 JPEG files of the screen, before each frame's buttons and at the end.
        actions: N of bool [A].
        returns: N + 1, before each frame's reward, and at the end.
        restarts: how often the game died and was restarted.
    """

    player: str
    fps: float
    action_names: tuple[str, ...]
    pictures: list[bytes] = field(default_factory=list)
    actions: list[np.ndarray] = field(default_factory=list)
    returns: list[float] = field(default_factory=list)
    restarts: int = 0

    def __len__(self) -> int:
        return len(self.actions)
