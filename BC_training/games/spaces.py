"""The Gymnasium spaces that all games share."""

from typing import Any

import numpy as np
from gymnasium import spaces

from BC_training.common.action import Action


def action_space(buttons: int, axes: int, reach: float = 1.0) -> spaces.Tuple:
    """The space of ``Action``: 0 or 1 for each button, an amount for each axis.

    Args:
        reach: the usual amounts are up to this in both directions; where a game lets a player move farther, ``step``
            takes that, too.
    """
    return spaces.Tuple((spaces.Box(0, 1, (buttons,), np.int8), spaces.Box(-reach, reach, (axes,), np.float32)))


def random_action(space: Any, rng: np.random.Generator) -> Action:
    """What a space draws that knows its game's actions; otherwise each button with probability 1/2, and each axis from
    its usual amounts, independently."""
    if (draw := getattr(space, "draw", None)) is not None:
        return draw(rng)
    buttons, axes = space
    return Action.of(rng.random(buttons.shape) < 0.5, rng.uniform(axes.low, axes.high))


def observation_space(frame_size: tuple[int, int], state: int) -> spaces.Dict:
    """``{"frame": uint8 [3, H, W], "state": float32 [S]}``."""
    frame = spaces.Box(0, 255, (3, *frame_size), np.uint8)
    return spaces.Dict({"frame": frame, "state": spaces.Box(-np.inf, np.inf, (state,), np.float32)})
