"""What changes between pictures of a window: by itself, and as the mouse turns it."""

from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

_LEVELS = 12  # of 255, from which on a pixel is another
_EQUAL = 0.1  # the share by which two turns may differ, and 1 pixel more
_OTHER_PIXELS = 0.02  # the share of the pixels in which equal pictures may differ
_ALIKE = 0.6  # how different a picture is after its shift, of what it is after most others


class Usual:
    """The colours that each pixel of a picture has by itself."""

    def __init__(self, first: UInt8[np.ndarray, "3 H W"]):
        self._low = self._high = first

    def add(self, picture: UInt8[np.ndarray, "3 H W"]) -> None:
        self._low, self._high = np.minimum(self._low, picture), np.maximum(self._high, picture)

    def add_all(self, other: "Usual") -> None:
        self.add(other._low)
        self.add(other._high)

    def share(self, picture: UInt8[np.ndarray, "3 H W"]) -> float:
        """The share of the pixels that left them."""
        above = picture > np.minimum(self._high, 255 - _LEVELS) + np.uint8(_LEVELS)
        below = picture < np.maximum(self._low, _LEVELS) - np.uint8(_LEVELS)
        return float((above | below).any(axis=0).mean())

    @property
    def moving(self) -> float:
        """The share of the pixels that changed by themselves."""
        return float((self._high - self._low > _LEVELS).any(axis=0).mean())


class Turn(NamedTuple):
    """How far the mouse moves the picture.

    Attributes:
        once: pixels to the right that a motion of the mouse moves it; None where it is not the same picture, moved.
        parts: likewise, the same motion in parts.
        is_accelerated: whether the two differ; None where the picture does not come back with the mouse.
    """

    once: int | None
    parts: int | None
    is_accelerated: bool | None


def compared(
    start: UInt8[np.ndarray, "3 H W"],
    once: UInt8[np.ndarray, "3 H W"],
    back: UInt8[np.ndarray, "3 H W"],
    several: UInt8[np.ndarray, "3 H W"],
) -> Turn:
    """What pictures tell: the first one, that after a motion at once, after the way back, and after one in parts."""
    by, by_parts = shift(start, once), shift(back, several)
    noise = _differing(start, back)
    if by is not None and by_parts is not None:
        is_accelerated = abs(by - by_parts) > 1 + _EQUAL * abs(by)
    elif noise > _OTHER_PIXELS + _differing(start, once) / 2:
        is_accelerated = None
    else:
        is_accelerated = _differing(once, several) > 2 * noise + _OTHER_PIXELS
    return Turn(by, by_parts, is_accelerated)


def shift(before: UInt8[np.ndarray, "3 H W"], after: UInt8[np.ndarray, "3 H W"]) -> int | None:
    """By how many pixels a picture moved to the right, at most a third of its width.

    Looks above the middle, where fewer things stay where they are, such as weapons. None where the two are not much
    more alike then than after most other shifts.
    """
    lit = np.flatnonzero((before | after).any(axis=(0, 1)))  # black beside the picture does not move
    rows = slice(before.shape[1] // 5, before.shape[1] * 3 // 5)
    if not len(lit):
        return None
    columns = slice(lit[0], lit[-1] + 1)
    a, b = (picture[:, rows, columns].mean(axis=0, dtype=np.float32) for picture in (before, after))
    width, costs = a.shape[1], {}
    for by in range(-(width // 3), width // 3 + 1):
        one, other = a[:, max(-by, 0) : width - max(by, 0)], b[:, max(by, 0) : width - max(-by, 0)]
        costs[by] = float(np.abs(one - other).mean())
    best = min(costs, key=lambda by: (costs[by], abs(by)))
    return best if costs[best] < _ALIKE * np.median(list(costs.values())) else None


def _differing(one: UInt8[np.ndarray, "3 H W"], other: UInt8[np.ndarray, "3 H W"]) -> float:
    """The share of the pixels that are not alike."""
    return float((np.abs(one.astype(np.int16) - other) > _LEVELS).any(axis=0).mean())
