"""What a player does from one frame to the next: buttons that are held or not, and axes that have an amount."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32


class Action(NamedTuple):
    """The names of buttons and axes come with the game and with the dataset; there may be none of either.

    Attributes:
        buttons: whether each is held.
        axes: counts that a mouse moves until the next frame, or a stick, a wheel or a joint in [-1, 1]; 0 is at rest.
    """

    buttons: Bool[np.ndarray, "*N A"]
    axes: Float32[np.ndarray, "*N X"]

    @classmethod
    def of(cls, buttons: object = (), axes: object = ()) -> "Action":
        """An action of anything that NumPy makes arrays of."""
        return cls(np.array(buttons, bool), np.array(axes, np.float32))


def at_rest(buttons: int, axes: int) -> Action:
    """Nothing is held and nothing moves."""
    return Action(np.zeros(buttons, bool), np.zeros(axes, np.float32))
