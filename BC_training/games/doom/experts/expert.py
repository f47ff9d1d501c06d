"""What all scripted experts share."""

import math
from typing import Any

import gymnasium
import numpy as np

from BC_training.common.action import Action, at_rest

HALF_VIEW = 45.0  # degrees to each side of the middle that a frame shows
HIT_RADIUS = 16.0  # map units: half an enemy's width, with margin


class Expert:
    """A player that sees the game's objects.

    What it presses should follow from the last frames: a policy has nothing else to learn from.
    """

    def __init__(self, env: gymnasium.Env):
        self.game: Any = env.unwrapped
        self._index = {name: i for i, name in enumerate(self.game.buttons)}

    def reset(self, seed: int) -> None:
        del seed

    def act(self, observation: dict[str, np.ndarray]) -> Action:
        action = at_rest(len(self._index), 0)
        player = next((o for o in self.game.objects if o.name == "DoomPlayer"), None)
        if player is not None:
            action.buttons[[self._index[name] for name in self.buttons(player)]] = True
        return action

    def buttons(self, player: Any) -> list[str]:
        """The names of the buttons to hold, seen from the engine's object ``player``."""
        raise NotImplementedError


def turn_to(degrees: float) -> float:
    """The same angle in [-180, 180)."""
    return (degrees + 180) % 360 - 180


def bearing(player: Any, thing: Any) -> tuple[float, float]:
    """Distance in map units, and angle in degrees from the middle of the view, left positive."""
    dx, dy = thing.position_x - player.position_x, thing.position_y - player.position_y
    return math.hypot(dx, dy), turn_to(math.degrees(math.atan2(dy, dx)) - player.angle)


def steer(player: Any, x: float, y: float) -> list[str]:
    """The buttons that turn towards a place and walk there; without walking where it is well aside."""
    dx, dy = x - player.position_x, y - player.position_y
    angle = turn_to(math.degrees(math.atan2(dy, dx)) - player.angle)
    if abs(angle) > 150:
        return ["turn_left"]  # always the same way round
    pressed = [] if abs(angle) > 30 else ["move_forward"]
    if abs(angle) > 5:
        pressed.append("turn_left" if angle > 0 else "turn_right")
    return pressed
