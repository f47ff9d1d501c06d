"""The expert of ``doom/deadly_corridor``: a corridor with enemies in its niches, armour at its end."""

import math
from typing import Any

from BC_training.games.doom.experts.expert import Expert, turn_to
from BC_training.games.doom.game import ENEMY_TYPES


class DeadlyCorridorExpert(Expert):
    """Walks down the middle of the corridor and shoots whoever comes into view.

    It decides from the present moment alone, so what it does can be read off one frame.
    """

    RANGE = 300.0  # map units: past that, the niches' walls cover the enemies
    HIT_RADIUS = 16.0  # map units: half an enemy's width, with margin
    LANE = 12.0  # map units off the middle that it corrects by strafing
    HEADING_TOLERANCE = 4.0  # degrees

    def buttons(self, player: Any) -> list[str]:
        return self._aim(player) or self._advance(player)

    def _aim(self, player: Any) -> list[str]:
        """Turns to the nearest enemy in range and fires; nothing if there is none."""
        targets = []
        for enemy in self.game.objects:
            if enemy.name in ENEMY_TYPES:
                dx, dy = enemy.position_x - player.position_x, enemy.position_y - player.position_y
                if math.hypot(dx, dy) < self.RANGE:
                    offset = turn_to(math.degrees(math.atan2(dy, dx)) - player.angle)
                    targets.append((math.hypot(dx, dy) + abs(offset), math.hypot(dx, dy), offset))
        if not targets:
            return []
        _, distance, offset = min(targets)
        if abs(offset) < math.degrees(math.atan2(self.HIT_RADIUS, distance)):
            return ["attack"]
        return ["turn_left" if offset > 0 else "turn_right"]

    def _advance(self, player: Any) -> list[str]:
        """Walks along +x, turning and strafing back to the middle line."""
        pressed = []
        heading = turn_to(-player.angle)
        if abs(heading) > self.HEADING_TOLERANCE:
            pressed.append("turn_left" if heading > 0 else "turn_right")
        if abs(heading) < 45:
            pressed.append("move_forward")
            if abs(player.position_y) > self.LANE:
                pressed.append("move_right" if player.position_y > 0 else "move_left")
        return pressed
