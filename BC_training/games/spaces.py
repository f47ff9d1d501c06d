"""The Gymnasium spaces that all games share."""

import numpy as np
from gymnasium import spaces


def action_space(buttons: int, axes: int) -> spaces.Tuple:
    """The space of ``Action``: 0 or 1 for each button, any finite amount for each axis."""
    return spaces.Tuple((spaces.Box(0, 1, (buttons,), np.int8), spaces.Box(-np.inf, np.inf, (axes,), np.float32)))


def observation_space(frame_size: tuple[int, int], state: int) -> spaces.Dict:
    """``{"frame": uint8 [3, H, W], "state": float32 [S]}``."""
    frame = spaces.Box(0, 255, (3, *frame_size), np.uint8)
    return spaces.Dict({"frame": frame, "state": spaces.Box(-np.inf, np.inf, (state,), np.float32)})
