"""CartPole: balances the pole and keeps to the middle."""

from collections import deque

import numpy as np

from BC_training.games.gym.experts.expert import Expert

_GAINS = (0.03, 1.0)  # of the cart's position and the pole's angle
_SPEED_GAINS = (0.06, 0.25)  # of their changes a second
# Frames over which it measures these. What it did in the last frame does not show yet, and in the picture, of 125
# pixels a unit, the change of a single frame is less than one.
_LOOK_BACK = 3
_STEP = 0.02  # seconds a frame


class CartPoleExpert(Expert):
    def reset(self, seed: int) -> None:
        self._seen: deque[np.ndarray] = deque(maxlen=_LOOK_BACK + 1)

    def choose(self, observation: dict[str, np.ndarray]) -> int:
        now = observation["state"][[0, 2]]
        self._seen.append(now)
        speed = (now - self._seen[0]) / (_LOOK_BACK * _STEP)
        return int(np.dot(_GAINS, now) + np.dot(_SPEED_GAINS, speed) > 0)
