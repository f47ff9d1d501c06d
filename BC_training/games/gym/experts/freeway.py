"""Freeway: goes up as long as no car comes, in the game's first mode."""

import numpy as np

from BC_training.games.gym.experts.expert import AtariExpert

# Of the console's memory, found by moving and watching the picture.
_CHICKEN, _CARS = 14, slice(108, 118)
_LANES = 21 + 16 * np.arange(10)  # where the chicken is in the middle of a lane, from the lowest
_SPEEDS = np.array([1 / 5, 1 / 4, 1 / 3, 1 / 2, 1, -1, -1 / 2, -1 / 3, -1 / 4, -1 / 5])  # of its car, pixels a frame
_CHICKEN_X, _ROAD = 47, 160  # the cars come back at the other side
_NEAR = 8  # pixels from middle to middle, both ways, at which a car hits
_WALK = 20  # frames of walking that are looked at: a lane and a bit more
_STEP = 4  # frames


class FreewayExpert(AtariExpert):
    def press(self, ram: np.ndarray) -> str:
        def is_hit(*walk: int) -> bool:
            """Whether a car hits who walks so many pixels in each frame."""
            y = np.maximum(ram[_CHICKEN] + np.cumsum(walk), 6)
            x = ram[_CARS] + np.arange(1, len(walk) + 1)[:, None] * _SPEEDS
            beside = (x - _CHICKEN_X + _ROAD / 2) % _ROAD - _ROAD / 2
            return bool(((np.abs(y[:, None] - _LANES) <= _NEAR) & (np.abs(beside) <= _NEAR)).any())

        up = (1,) * _WALK
        if not is_hit(*up):
            return "UP"
        if not is_hit(*(0,) * _STEP, *up) or not is_hit(*(0,) * 2 * _STEP):
            return "NOOP"
        return "UP" if is_hit(*(-1,) * 2 * _STEP) else "DOWN"
