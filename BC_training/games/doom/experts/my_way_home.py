"""The expert of ``doom/my_way_home``: the shortest way to the armour, from wherever it starts."""

from typing import Any

import numpy as np

from BC_training.games.doom.experts.expert import Expert, Move, steer
from BC_training.games.doom.experts.navigation import Routes, Walls


class MyWayHomeExpert(Expert):
    """Walks to the farthest point of the shortest way that it can walk to in a straight line."""

    AHEAD = 24  # points of the way, 16 map units from one to the next

    def reset(self, seed: int) -> None:
        del seed
        self._routes: Routes | None = None  # planned at the first frame, when things are known

    def move(self, player: Any) -> Move:
        if self._routes is None:
            goal = next(o for o in self.game.objects if o.name == "GreenArmor")
            self._walls = Walls(self.game.sectors)
            self._routes = Routes(self._walls, (goal.position_x, goal.position_y))
        here = np.array([player.position_x, player.position_y])
        way = self._routes.way(here, self.AHEAD)
        walkable = np.flatnonzero(self._walls.walkable(here, way))
        return steer(player, *way[walkable[-1] if len(walkable) else min(1, len(way) - 1)])
