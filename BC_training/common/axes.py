"""Axes as a model tells their amounts apart, by bins that are finer near 0, and the scores of predicted amounts.

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


@dataclass(frozen=True)
class RecordedAxes:
    """The recorded axes of a split.

    Attributes:
        names: those of the X axes.
        targets: float32 [N, X], the amounts to predict.
        previous: float32 [N, X], those in the frame before the one that is seen.
    """

    names: tuple[str, ...]
    bins: AxisBins
    targets: np.ndarray
    previous: np.ndarray

    def changes(self) -> np.ndarray:
        """bool [N], where an axis is more than one bin from the frame before the one that is seen."""
        return ~self.right(self.previous)

    def right(self, predicted: np.ndarray) -> np.ndarray:
        """bool [N], where every axis of ``predicted`` float [N, X] is at most one bin off."""
        return np.asarray(self.near(predicted).all(axis=1))

    def scores(self, predicted: np.ndarray) -> dict[str, dict[str, float | None]]:
        """The scores of each axis of ``predicted`` float [N, X], by its name.

        "mean_absolute_error", in the axis's unit; "within_one_bin", the share of frames at most one bin off;
        "correlation" (Pearson's; None where one side never changes); "direction", the share of the frames that move
        in which the sign is right; "zeros" and "predicted_zeros", the shares of frames of exactly 0.
        """
        actual, near, found = self.targets.astype(np.float64), self.near(predicted), {}
        for i, name in enumerate(self.names):
            true, ours = actual[:, i], predicted[:, i].astype(np.float64)
            moves = true != 0
            varies = true.std() > 0 and ours.std() > 0
            found[name] = {
                "mean_absolute_error": float(np.abs(true - ours).mean()),
                "within_one_bin": float(near[:, i].mean()),
                "correlation": float(np.corrcoef(true, ours)[0, 1]) if varies else None,
                "direction": float((np.sign(true) == np.sign(ours))[moves].mean()) if moves.any() else None,
                "zeros": float((~moves).mean()),
                "predicted_zeros": float((ours == 0).mean()),
            }
        return found

    def near(self, predicted: np.ndarray) -> np.ndarray:
        """bool [N, X], where ``predicted`` float [N, X] is at most one bin off."""
        return np.abs(self.bins.find(self.targets) - self.bins.find(predicted)) <= 1
