"""CarRacing: steers for a point on the track ahead, as fast as the bends in view allow."""

import math

import gymnasium
import numpy as np

from BC_training.common.errors import UserError
from BC_training.games.gym.experts.expert import Expert

# Lengths in the environment's units; a piece of the track is 3.5 long, and the frame shows 37 ahead.
_PIECE = 3.5
_PIECES = 10
_BEND = 3  # pieces over which the bend is measured
_GRIP = 130  # sideways acceleration that the tyres hold
_BRAKING = 25  # deceleration
_FASTEST = 80


class CarRacingExpert(Expert):
    def __init__(self, env: gymnasium.Env):
        super().__init__(env)
        if not self.raw.continuous:
            raise UserError("the expert of gym/CarRacing-v3 steers by an axis: leave continuous=false out")

    def choose(self, observation: dict[str, np.ndarray]) -> np.ndarray:
        """float32 [3]: steering, gas and brake."""
        hull = self.raw.car.hull
        speed = math.hypot(*hull.linearVelocity)
        track = np.array(self.raw.track)[:, 2:]
        nearest = int(((track - hull.position) ** 2).sum(1).argmin())
        ahead = track[(nearest + np.arange(_PIECES + 1)) % len(track)]

        x, y = ahead[3 + int(0.03 * speed)] - hull.position
        to_the_right = math.remainder(math.atan2(x, y) + hull.angle, 2 * math.pi)
        steering = np.clip(1.5 * to_the_right, -1, 1)

        headings = np.unwrap(np.arctan2(*np.diff(ahead, axis=0).T[::-1]))
        curvature = np.abs(headings[_BEND:] - headings[:-_BEND]) / (_BEND * _PIECE)
        distance = _PIECE * np.arange(len(curvature))
        allowed = np.sqrt(_GRIP / np.maximum(curvature, 1e-3) + 2 * _BRAKING * distance).min()
        faster = min(allowed, _FASTEST) - speed
        gas = np.clip(0.1 * faster, 0, 1 - 0.7 * abs(steering))
        brake = np.clip(-0.02 * faster, 0, 0.3)
        return np.array([steering, gas, brake], np.float32)
