"""Statistics of a dataset's axes, and their amounts over time as a page draws them."""

import string
from collections.abc import Sequence
from typing import Any

import numpy as np

from BC_training.reports.dataset.statistics import StateStatistics

LEVELS = string.digits + string.ascii_letters + "+"  # of an amount in a timeline, from -scale to scale; "v" is 0
_MIDDLE = len(LEVELS) // 2
_DRAWN = 99.5  # percentile of the amounts that are not 0: the scale up to which an axis is drawn
_BINS = 32  # of a histogram from -scale to scale


class AxisStatistics(StateStatistics):
    """Ranges, rest and baselines of X axes; ``frames`` as for ``StateStatistics``."""

    def __init__(self, names: Sequence[str], frames: int):
        super().__init__(names, frames)
        self._moving, self._amounts, self._changes = (np.zeros(len(names)) for _ in range(3))

    def add(self, state: np.ndarray) -> None:
        """Takes one episode's axes float32 [N, X], finite."""
        super().add(state)
        values = state.astype(np.float64)
        self._moving += (values != 0).sum(axis=0)
        self._amounts += np.abs(values).sum(axis=0)
        self._changes += np.abs(np.diff(values, axis=0, prepend=0)).sum(axis=0)

    def result(self) -> list[dict[str, Any]]:
        """An entry for each axis, as JSON types.

        ``zeros`` is the share of frames of exactly 0. ``zero_error`` and ``repeat_error`` are the mean absolute errors
        of always predicting 0, and the amount of the frame before. The histogram counts amounts that are not 0, and
        those beyond ``scale`` in its outermost bins; they, too, come from an even sample.
        """
        sample = np.concatenate(self._sample)
        entries = []
        for x, (name, known) in enumerate(zip(self._names, super().result(), strict=True)):
            amounts = sample[sample[:, x] != 0, x].astype(np.float64)
            scale = float(np.percentile(np.abs(amounts), _DRAWN)) if len(amounts) else 1.0
            edges = np.linspace(-scale if known["min"] < 0 else 0, scale, _BINS + 1)
            counts, _ = np.histogram(amounts.clip(edges[0], edges[-1]), edges)
            entries.append(
                {
                    "name": name,
                    **{key: known[key] for key in ("min", "max", "mean", "std")},
                    "zeros": 1 - float(self._moving[x] / self._frames),
                    "zero_error": float(self._amounts[x] / self._frames),
                    "repeat_error": float(self._changes[x] / self._frames),
                    "scale": scale,
                    "histogram": counts.tolist(),
                    "histogram_edges": edges.tolist(),
                }
            )
        return entries


def peaks(axes: np.ndarray, step: int) -> np.ndarray:
    """float32 [columns, X]: of every ``step`` frames of ``axes`` float32 [N, X] the amount that is furthest from 0."""
    starts = np.arange(0, len(axes), step)
    high, low = np.maximum.reduceat(axes, starts, axis=0), np.minimum.reduceat(axes, starts, axis=0)
    return np.where(high >= -low, high, low)


def levels(amounts: np.ndarray, scale: float) -> str:
    """A character of ``LEVELS`` for each of ``amounts`` [columns]; only 0 is drawn as 0."""
    part = np.rint(np.clip(amounts / scale, -1, 1) * _MIDDLE)
    part = np.where((part == 0) & (amounts != 0), np.sign(amounts), part).astype(int)
    return "".join(LEVELS[n] for n in part + _MIDDLE)
