"""Breakout: waits where the ball will come down, the more exactly the nearer it is."""

import numpy as np

from BC_training.games.gym.experts.expert import AtariExpert

# Of the console's memory, found by moving and watching the picture.
_BALL_X, _BALL_Y, _PADDLE = 99, 101, 72
_LEFT, _RIGHT, _BOTTOM = 55.5, 200.5, 177  # where the ball turns
_CENTRE = 128
_MIDDLE = 9  # the ball's place above the middle of a paddle that is at 0
# A random search found these for the balls that it catches in a life, with errors of 1.2 pixels such as a picture
# leaves and without: what is far away needs no exact answer.
_COAST = 0.4  # of its last move, by which the paddle goes on when the button is let go
_NEAR = 6  # steps until the ball is down
_REACH, _PATIENCE = 8.3, 3.8  # pixels from there, and more for each step that is left; a step moves the paddle by 23
_FAR_REACH = 57  # before the ball is near, from midway between it and the centre


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
        if is_new or (dy > 0 and y >= _BOTTOM):
            return "NOOP"
        steps = (_BOTTOM - y) / dy if dy > 0 else np.inf
        if steps < _NEAR:
            x = x + dx * steps
            x = _LEFT + abs(x - _LEFT)
            x = _RIGHT - abs(_RIGHT - x)
            reach = _REACH + _PATIENCE * max(steps - 1, 0)
        else:
            x, reach = (x + _CENTRE) / 2, _FAR_REACH
        away = x - (paddle + _COAST * coast + _MIDDLE)
        return "NOOP" if abs(away) <= reach else "RIGHT" if away > 0 else "LEFT"
