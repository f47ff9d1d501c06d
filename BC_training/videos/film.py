"""A played episode that a video is made of."""

from dataclasses import dataclass, field

from BC_training.common.action import Action


@dataclass
class Film:
    """One player's episode of N frames."""

    player: str
    fps: float
    buttons: tuple[str, ...]
    axes: tuple[str, ...]
    pictures: list[bytes] = field(default_factory=list)  # N + 1 JPEG files, before each frame's buttons and at the end
    actions: list[Action] = field(default_factory=list)  # N
    returns: list[float] = field(default_factory=list)  # N + 1, before each frame's reward and at the end
    restarts: int = 0  # how often the game died

    def __len__(self) -> int:
        return len(self.actions)
