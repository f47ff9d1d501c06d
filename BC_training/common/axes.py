"""Axes as a model tells their amounts apart: bins that are finer near 0.

OpenAI's VPT (Baker et al., Video PreTraining, 2022) moves the mouse so: amounts are squeezed by the mu-law, and the
squeezed range is cut into equal bins, of which the middle one is 0.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int32

_PERCENTILE = 99.9  # of the amounts that are not 0; the few beyond it count as the outermost bin


@dataclass(frozen=True)
class AxisBins:
    """The bins of X axes, fitted to the training split.

    Attributes:
        scales: the largest amount of each axis that the bins tell apart, above 0.
        count: how many bins each axis has, an odd number.
        mu: of the mu-law, above 0.
    """

    scales: tuple[float, ...]
    count: int
    mu: float

    @classmethod
    def fit(cls, axes: Float32[np.ndarray, "N X"], count: int, mu: float) -> "AxisBins":
        """The bins for recorded amounts; an axis that is always 0 gets those up to 1."""
        scales = []
        for amounts in np.abs(axes.T.astype(np.float64)):
            moved = amounts[amounts > 0]
            scales.append(float(np.percentile(moved, _PERCENTILE)) if len(moved) else 1.0)
        return cls(tuple(scales), count, mu)

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> "AxisBins":
        return cls(tuple(raw["scales"]), raw["count"], raw["mu"])

    @property
    def middle(self) -> int:
        """The bin of 0."""
        return self.count // 2

    @property
    def amounts(self) -> Float[np.ndarray, "X bins"]:
        """The amount that each bin stands for."""
        squeezed = np.arange(-self.middle, self.middle + 1) / self.middle
        of_one = np.sign(squeezed) * np.expm1(np.abs(squeezed) * np.log1p(self.mu)) / self.mu
        return np.outer(self.scales, of_one)

    def squeeze(self, axes: Float32[np.ndarray, "*N X"]) -> Float32[np.ndarray, "*N X"]:
        """Amounts in [-1, 1] by the mu-law; what lies beyond the scales is -1 or 1."""
        share = np.clip(axes / np.array(self.scales), -1, 1)
        return (np.sign(share) * np.log1p(self.mu * np.abs(share)) / np.log1p(self.mu)).astype(np.float32)

    def find(self, axes: Float32[np.ndarray, "*N X"]) -> Int32[np.ndarray, "*N X"]:
        """The bin of each amount."""
        return np.rint(self.squeeze(axes) * self.middle).astype(np.int32) + self.middle


def squeezed_actions(
    buttons: np.ndarray, axes: np.ndarray, bins: AxisBins | None
) -> Float32[np.ndarray, "*N A+X"] | np.ndarray:
    """Actions as a model sees previous ones: bool [N, A] without axes, else float32 [N, A + X] in [-1, 1]."""
    if bins is None:
        return buttons
    return np.concatenate([buttons.astype(np.float32), bins.squeeze(axes)], axis=-1)
