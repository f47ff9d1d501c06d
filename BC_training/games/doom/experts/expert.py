"""What all scripted experts share."""

import math
from typing import Any

import gymnasium
import numpy as np

from BC_training.common.action import Action, at_rest
from BC_training.games.doom.game import FAST_TURN

HALF_VIEW = 45.0  # degrees to each side of the middle that a frame shows
HIT_RADIUS = 16.0  # map units: half an enemy's width, with margin

Move = tuple[list[str], float]  # the buttons to hold, and the degrees to turn, left positive


class Expert:
    """A player that sees the game's objects.

    What it presses should follow from the last frames: a policy has nothing else to learn from.
    """

    TOLERANCE = 0.0  # degrees off an enemy's middle that buttons cannot do better than

    def __init__(self, env: gymnasium.Env):
        self.game: Any = env.unwrapped
        self.has_mouse = "turn" in self.game.axes
        self._index = {name: i for i, name in enumerate(self.game.buttons)}

    def reset(self, seed: int) -> None:
        del seed

    def act(self, observation: dict[str, np.ndarray]) -> Action:
        action = at_rest(len(self._index), len(self.game.axes))
        player = next((o for o in self.game.objects if o.name == "DoomPlayer"), None)
        if player is not None:
            pressed, turn = self.move(player)
            if self.has_mouse:
                action.axes[0] = np.clip(0.0 - turn, -FAST_TURN, FAST_TURN)
            elif turn:
                pressed = [*pressed, "turn_left" if turn > 0 else "turn_right"]
            action.buttons[[self._index[name] for name in pressed]] = True
        return action

    def move(self, player: Any) -> Move:
        """What to do until the next frame, seen from the engine's object ``player``.

        Where there is no mouse the amount of a turn does not matter.
        """
        raise NotImplementedError

    def aim(self, distance: float, angle: float) -> Move:
        """Turns to an enemy and fires; with a mouse in the frame in which the turn ends, with buttons after it."""
        hits = math.degrees(math.atan2(HIT_RADIUS, distance))
        if self.has_mouse:
            return ["attack"] if abs(angle) < FAST_TURN else [], angle if abs(angle) > hits else 0.0
        return (["attack"], 0.0) if abs(angle) <= max(hits, self.TOLERANCE) else ([], angle)


def turn_to(degrees: float) -> float:
    """The same angle in [-180, 180)."""
    return (degrees + 180) % 360 - 180


def bearing(player: Any, thing: Any) -> tuple[float, float]:
    """Distance in map units, and angle in degrees from the middle of the view, left positive."""
    dx, dy = thing.position_x - player.position_x, thing.position_y - player.position_y
    return math.hypot(dx, dy), turn_to(math.degrees(math.atan2(dy, dx)) - player.angle)


def steer(player: Any, x: float, y: float) -> Move:
    """Turns towards a place and walks there; without walking where it is well aside."""
    dx, dy = x - player.position_x, y - player.position_y
    angle = turn_to(math.degrees(math.atan2(dy, dx)) - player.angle)
    if abs(angle) > 150:
        return [], abs(angle)  # always the same way round
    return [] if abs(angle) > 30 else ["move_forward"], angle if abs(angle) > 5 else 0.0
