"""The expert of ``doom/basic``: one monster across a room, to be shot as soon and with as few shots as can be."""

from typing import Any

from BC_training.games.doom.experts.expert import Expert, Move, bearing
from BC_training.games.doom.game import ENEMY_TYPES


class BasicExpert(Expert):
    """Steps sideways until it stands before the monster, and fires; with a mouse it turns to it."""

    ASIDE = 20.0  # map units from the monster's line of fire

    def move(self, player: Any) -> Move:
        monster = next((o for o in self.game.objects if o.name in ENEMY_TYPES), None)
        if monster is None:
            return [], 0.0
        if self.has_mouse:
            return self.aim(*bearing(player, monster))
        aside = monster.position_y - player.position_y  # it faces +x, so +y is left
        if abs(aside) <= self.ASIDE:
            return ["attack"], 0.0
        return ["move_left" if aside > 0 else "move_right"], 0.0
