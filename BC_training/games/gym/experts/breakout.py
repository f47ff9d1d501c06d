"""Breakout: waits where the ball will come down."""

import numpy as np

from BC_training.games.gym.experts.expert import AtariExpert

# Of the console's memory, found by moving and watching the picture.
_BALL_X, _BALL_Y, _PADDLE = 99, 101, 72
_LEFT, _RIGHT, _BOTTOM = 57, 199, 178  # where the ball turns
_MIDDLE = 9  # the ball's place above the middle of a paddle that is at 0
_REACH = 11  # pixels from there; a step moves the paddle by 23
_COAST = 0.5  # of its last move, by which the paddle goes on when the button is let go


class BreakoutExpert(AtariExpert):
    def reset(self, seed: int) -> None:
        self._last = np.zeros(3, int)

    def press(self, ram: np.ndarray) -> str:
        now = ram[[_BALL_X, _BALL_Y, _PADDLE]]
        (x, y, paddle), (dx, dy, coast) = now, now - self._last
        is_new = self._last[1] == 0
        self._last = now
        if y == 0:  # no ball is in play
            return "FIRE"
        if is_new:
            return "NOOP"
        if dy > 0 and y < _BOTTOM:
            x = x + dx * (_BOTTOM - y) / dy
            x = _LEFT + abs(x - _LEFT)
            x = _RIGHT - abs(_RIGHT - x)
        away = x - (paddle + _COAST * coast + _MIDDLE)
        return "NOOP" if abs(away) <= _REACH else "RIGHT" if away > 0 else "LEFT"
