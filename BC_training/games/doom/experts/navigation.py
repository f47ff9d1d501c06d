"""Walls of the engine's map: what can be seen past them, and the shortest way around them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

RADIUS = 16.0  # map units: half a player's width


class Walls:
    """The map's blocking lines.

    Args:
        sectors: the engine's, with ``lines`` of x1, y1, x2, y2, is_blocking.
    """

    def __init__(self, sectors: Sequence[Any]):
        lines = [line for sector in sectors for line in sector.lines if line.is_blocking]
        ends = np.array([(line.x1, line.y1, line.x2, line.y2) for line in lines], float).reshape(-1, 4)
        self._starts, self._steps = ends[:, :2], ends[:, 2:] - ends[:, :2]

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The lowest and the highest x, y: float [2] each."""
        points = np.concatenate([self._starts, self._starts + self._steps])
        return points.min(axis=0), points.max(axis=0)

    def free(self, start: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """bool [N]: whether no wall is between ``start`` float [2] and each of ``ends`` [N, 2]."""
        return self.reach(start, ends) > 1

    def walkable(self, start: np.ndarray, ends: np.ndarray, margin: float = RADIUS) -> np.ndarray:
        """bool [N]: whether a player who is ``margin`` wide to each side passes from ``start`` to each of ``ends``."""
        steps = ends - start
        length = np.maximum(np.hypot(steps[:, 0], steps[:, 1]), 1e-9)[:, None]
        aside = np.stack([-steps[:, 1], steps[:, 0]], axis=1) / length * margin
        clear = [
            [bool(self.free(start + sign * a, (end + sign * a)[None])[0]) for a, end in zip(aside, ends, strict=True)]
            for sign in (-1, 1)
        ]
        return np.logical_and(*np.array(clear, bool).reshape(2, -1))

    def reach(self, start: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """float [N]: the share of the way from ``start`` to each of ``ends`` before the first wall; inf without one."""
        ways = ends - start
        # start + t * way = wall start + u * wall step
        cross = ways[:, None, 0] * self._steps[None, :, 1] - ways[:, None, 1] * self._steps[None, :, 0]
        apart = self._starts - start
        with np.errstate(divide="ignore", invalid="ignore"):
            t = (apart[:, 0] * self._steps[:, 1] - apart[:, 1] * self._steps[:, 0])[None] / cross
            u = (apart[None, :, 0] * ways[:, None, 1] - apart[None, :, 1] * ways[:, None, 0]) / cross
        hits = (t >= 0) & (u >= 0) & (u <= 1)
        return np.where(hits, t, np.inf).min(axis=1, initial=np.inf)

    def distance(self, points: np.ndarray) -> np.ndarray:
        """float [N]: from each of ``points`` [N, 2] to the nearest wall, in map units."""
        apart = points[:, None] - self._starts[None]
        squares = np.maximum((self._steps**2).sum(axis=1), 1e-9)
        along = np.clip((apart * self._steps).sum(axis=2) / squares, 0, 1)[..., None]
        return np.sqrt(((apart - along * self._steps) ** 2).sum(axis=2)).min(axis=1)


class Routes:
    """The shortest ways to one place, over a grid of the points that keep off the walls.

    Args:
        goal: x, y.
        clearance: map units that a route keeps from walls.
        spacing: map units between the grid's points.
    """

    def __init__(self, walls: Walls, goal: tuple[float, float], clearance: float = 1.5 * RADIUS, spacing: float = 16.0):
        from scipy.sparse import coo_array  # here: only these experts pay for the import
        from scipy.sparse.csgraph import dijkstra

        low, high = walls.bounds
        columns, rows = (np.arange(a, b + spacing, spacing) for a, b in zip(low, high, strict=True))
        grid = np.stack(np.meshgrid(columns, rows, indexing="ij"), axis=-1)
        shape = grid.shape[:2]
        self._points = grid.reshape(-1, 2)
        numbers = np.arange(len(self._points)).reshape(shape)
        room = walls.distance(self._points)
        is_free = (room > clearance).reshape(shape)
        starts, ends, lengths = [], [], []
        for dx, dy in ((1, 0), (0, 1), (1, 1), (1, -1)):
            here = (slice(0, shape[0] - dx), slice(max(0, -dy), shape[1] - max(0, dy)))
            there = (slice(dx, shape[0]), slice(max(0, dy), shape[1] - max(0, -dy)))
            both = is_free[here] & is_free[there]
            starts.append(numbers[here][both])
            ends.append(numbers[there][both])
            lengths.append(np.full(int(both.sum()), spacing * np.hypot(dx, dy)))
        graph = coo_array(
            (np.concatenate(lengths), (np.concatenate(starts), np.concatenate(ends))), shape=(grid[..., 0].size,) * 2
        )
        self._is_free = is_free.reshape(-1)
        target = self._nearest(np.array(goal, float), self._is_free)
        distances, self._next = dijkstra(graph.tocsr(), directed=False, indices=target, return_predecessors=True)
        self.distances = distances  # float [points], inf where no way leads
        self._reached = np.isfinite(distances)

    def way(self, position: np.ndarray, points: int) -> np.ndarray:
        """float [P, 2], P at most ``points``: the next points of the way from ``position`` [2] to the goal."""
        at, way = self._nearest(position, self._reached), []
        while at >= 0 and len(way) < points:
            way.append(self._points[at])
            at = self._next[at]
        return np.array(way)

    def _nearest(self, position: np.ndarray, among: np.ndarray) -> int:
        squares = ((self._points - position) ** 2).sum(axis=1)
        return int(np.where(among, squares, np.inf).argmin())
