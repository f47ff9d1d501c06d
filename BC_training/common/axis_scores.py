"""Scores how well the amounts of axes are predicted, over a whole split."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from BC_training.common.axes import AxisBins
from BC_training.common.metrics import Report, held_before_seen, targets


@dataclass(frozen=True)
class RecordedAxes:
    """The recorded axes of a split.

    Attributes:
        names: those of the X axes.
        true: the amounts, one float32 [N_i, X] an episode.
        action_shift: how many frames the predicted action lies ahead of the frame that is seen.
    """

    names: tuple[str, ...]
    bins: AxisBins
    true: Sequence[np.ndarray]
    action_shift: int = 0

    @property
    def targets(self) -> np.ndarray:
        """float32 [N, X], the amounts to predict."""
        return targets(self.true, self.action_shift)

    @property
    def previous(self) -> np.ndarray:
        """float32 [N, X], the amounts in the frame before the one that is seen."""
        return held_before_seen(self.true, self.action_shift)

    def changes(self) -> np.ndarray:
        """bool [N], where an axis is more than one bin from the frame before the one that is seen."""
        return np.logical_not(self.right(self.previous))

    def right(self, predicted: np.ndarray) -> np.ndarray:
        """bool [N], where every axis of ``predicted`` float [N, X] is at most one bin off."""
        return self.near(predicted).all(axis=1)

    def scores(self, predicted: np.ndarray) -> Report:
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
        return np.less_equal(np.abs(self.bins.find(self.targets) - self.bins.find(predicted)), 1)
