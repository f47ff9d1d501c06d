"""The expert of ``doom/deadly_corridor``: a corridor with enemies in its niches, armour at its end."""

from typing import Any

from BC_training.games.doom.experts.expert import Expert, Move, bearing, turn_to
from BC_training.games.doom.game import ENEMY_TYPES


class DeadlyCorridorExpert(Expert):
    """Walks down the middle of the corridor and shoots whoever comes into view.

    It decides from the present moment alone, so what it does can be read off one frame.
    """

    RANGE = 300.0  # map units: past that, the niches' walls cover the enemies
    LANE = 12.0  # map units off the middle that it corrects by strafing
    HEADING_TOLERANCE = 4.0  # degrees

    def move(self, player: Any) -> Move:
        enemies = [bearing(player, o) for o in self.game.objects if o.name in ENEMY_TYPES]
        targets = [(distance + abs(angle), distance, angle) for distance, angle in enemies if distance < self.RANGE]
        if not targets:
            return self._advance(player)
        _, distance, angle = min(targets)
        return self.aim(distance, angle)

    def _advance(self, player: Any) -> Move:
        """Walks along +x, turning and strafing back to the middle line."""
        pressed, heading = [], turn_to(-player.angle)
        if abs(heading) < 45:
            pressed.append("move_forward")
            if abs(player.position_y) > self.LANE:
                pressed.append("move_right" if player.position_y > 0 else "move_left")
        return pressed, heading if abs(heading) > self.HEADING_TOLERANCE else 0.0
