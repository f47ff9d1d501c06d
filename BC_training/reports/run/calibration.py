"""Reliability, and precision against recall, of ``probability`` float [n] for ``true`` bool [n] of any buttons."""

from typing import NamedTuple

import numpy as np

BINS = 10  # equally wide, from 0 to 1


class Reliability(NamedTuple):
    """How often a button was held where that was predicted with about the same probability.

    ``error`` is the expected calibration error, sum_b size_b / n |observed_b - predicted_b|, in [0, 1] (Naeini et al.
    2015, "Obtaining Well Calibrated Probabilities Using Bayesian Binning").
    """

    predicted: np.ndarray  # float64 [bins], the mean probability in each bin; NaN in an empty one
    observed: np.ndarray  # float64 [bins], the share of predictions at which the button was held; NaN likewise
    size: np.ndarray  # int64 [bins], how many predictions
    error: float


def reliability(true: np.ndarray, probability: np.ndarray, bins: int = BINS) -> Reliability:
    """The bins are (0, 1/bins], (1/bins, 2/bins], ...; 0 is in the first. Without predictions the error is 0."""
    probability = probability.astype(np.float64)
    place = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], probability)
    size = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):  # 0 / 0 in an empty bin
        predicted = np.bincount(place, probability, bins) / size
        observed = np.bincount(place, true, bins) / size
    error = np.nansum(size * np.abs(observed - predicted)) / max(len(true), 1)
    return Reliability(predicted, observed, size, float(error))


class PrecisionRecall(NamedTuple):
    """Precision and recall at every threshold that makes a difference."""

    thresholds: np.ndarray  # float64 [k], falling; a button is predicted at this probability or more
    precision: np.ndarray  # float64 [k]
    recall: np.ndarray  # float64 [k], rising to 1
    average: float  # the average precision, sum_i (recall_i - recall_(i-1)) precision_i with recall_0 = 0


def precision_recall(true: np.ndarray, probability: np.ndarray) -> PrecisionRecall | None:
    """None where the button is never held, because there is no recall then."""
    if not true.any():
        return None
    probability = probability.astype(np.float64)
    order = np.argsort(-probability, kind="stable")
    true, falling = true[order], probability[order]
    last = np.append(np.flatnonzero(np.diff(falling)), len(falling) - 1)  # the last place of each distinct probability
    hits = np.cumsum(true)[last]
    precision, recall = hits / (last + 1), hits / hits[-1]
    average = float((np.diff(recall, prepend=0) * precision).sum())
    return PrecisionRecall(falling[last], precision, recall, average)
