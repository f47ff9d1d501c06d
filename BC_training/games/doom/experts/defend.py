"""The experts of ``doom/defend_the_center`` and ``doom/defend_the_line``: turn where they stand, and fire."""

import math
from typing import Any

from BC_training.games.doom.experts.expert import HALF_VIEW, Expert, Move, bearing, turn_to
from BC_training.games.doom.game import ENEMY_TYPES, FAST_TURN


class _Turret(Expert):
    """Turns to the nearest monster in view and in range, and fires once it is in the middle."""

    RANGE = math.inf  # map units
    TOLERANCE = 2.5  # degrees; the least turn is 3.5
    TURNING = 10.0  # map units nearer that outweigh a degree more to turn

    def move(self, player: Any) -> Move:
        seen = [bearing(player, o) for o in self.game.objects if o.name in ENEMY_TYPES]
        seen = [(distance, angle) for distance, angle in seen if abs(angle) < HALF_VIEW and distance < self.RANGE]
        if not seen:
            return self.search(player)
        distance, angle = min(seen, key=lambda target: target[0] + self.TURNING * abs(target[1]))
        return self.aim(distance, angle)

    def search(self, player: Any) -> Move:
        """What to do while no monster is in view."""
        raise NotImplementedError


class DefendTheCenterExpert(_Turret):
    """Turns left until a monster that is near comes into view: it has 26 bullets."""

    RANGE = 350.0
    TOLERANCE = 3.6
    TURNING = 1.0

    def search(self, player: Any) -> Move:
        del player
        return [], FAST_TURN


class DefendTheLineExpert(_Turret):
    """Faces the wall that monsters come from."""

    def search(self, player: Any) -> Move:
        angle = turn_to(-player.angle)
        return [], angle if abs(angle) >= 2 * self.TOLERANCE else 0.0
