"""The expert of ``doom/health_gathering_supreme``: a maze on acid, with medkits to live on and poison to keep off."""

import math
from typing import Any

import numpy as np

from BC_training.games.doom.experts.expert import HALF_VIEW, Expert, Move, bearing, steer
from BC_training.games.doom.experts.navigation import Walls
from BC_training.games.doom.game import FAST_TURN


class HealthGatheringSupremeExpert(Expert):
    """Walks to the nearest medkit it sees and can walk to; without one, ahead until a wall is near, then turns left."""

    VIEW = HALF_VIEW
    TURNING = 3.0  # map units nearer that outweigh a degree more to turn
    POISON = 40.0  # map units from a way to a vial at which the way is not taken
    WALL = 96.0  # map units ahead at which it turns away

    def reset(self, seed: int) -> None:
        del seed
        self._walls: Walls | None = None

    def move(self, player: Any) -> Move:
        if self._walls is None:
            self._walls = Walls(self.game.sectors)
        here = np.array([player.position_x, player.position_y])
        vials = [np.array([o.position_x, o.position_y]) for o in self.game.objects if o.name == "Poison"]
        kits = []
        for thing in self.game.objects:
            if thing.name == "CustomMedikit":
                distance, angle = bearing(player, thing)
                if abs(angle) < self.VIEW:
                    kits.append((distance + self.TURNING * abs(angle), thing.position_x, thing.position_y))
        for _, x, y in sorted(kits):
            end = np.array([x, y])
            if self._walls.walkable(here, end[None])[0] and not any(_near(v, here, end, self.POISON) for v in vials):
                return steer(player, x, y)
        radians = math.radians(player.angle)
        ahead = here + np.array([math.cos(radians), math.sin(radians)]) * self.WALL
        if self._walls.walkable(here, ahead[None])[0] and not any(_near(v, here, ahead, self.POISON) for v in vials):
            return ["move_forward"], 0.0
        return [], FAST_TURN


def _near(point: np.ndarray, start: np.ndarray, end: np.ndarray, distance: float) -> bool:
    """Whether ``point`` lies within ``distance`` of the way from ``start`` to ``end``, all float [2]."""
    step = end - start
    along = np.clip((point - start) @ step / max(step @ step, 1e-9), 0, 1)
    return math.dist(point, start + along * step) < distance
