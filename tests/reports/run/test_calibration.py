"""Reliability equals counts by hand, and precision against recall that of scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve

from BC_training.reports.run.calibration import precision_recall, reliability


def drawn(seed: int, n: int = 500, levels: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Buttons and probabilities; with ``levels`` many of these are equal."""
    rng = np.random.default_rng(seed)
    probability = rng.random(n) if levels is None else rng.integers(0, levels + 1, n) / levels
    return rng.random(n) < probability**2, probability.astype(np.float32)


@pytest.mark.parametrize("levels", [None, 20, 1])
def test_precision_recall_is_that_of_scikit_learn(levels):
    true, probability = drawn(3, levels=levels)
    found = precision_recall(true, probability)
    assert found is not None
    precision, recall, thresholds = precision_recall_curve(true, probability.astype(np.float64))
    np.testing.assert_allclose(found.thresholds, thresholds[::-1])
    np.testing.assert_allclose(found.precision, precision[:-1][::-1])  # without its point for no threshold
    np.testing.assert_allclose(found.recall, recall[:-1][::-1])
    assert found.average == pytest.approx(average_precision_score(true, probability), abs=1e-12)
    assert precision_recall(np.zeros_like(true), probability) is None


@pytest.mark.parametrize("levels", [None, 20])
def test_reliability_counts_each_bin(levels):
    true, probability = drawn(4, levels=levels)
    found, error, p, edges = reliability(true, probability), 0.0, probability.astype(np.float64), np.linspace(0, 1, 11)
    for i in range(10):
        inside = (p > edges[i]) & (p <= edges[i + 1]) | ((i == 0) & (p == 0))
        assert found.size[i] == inside.sum() > 0
        assert found.observed[i] == pytest.approx(true[inside].mean())
        assert found.predicted[i] == pytest.approx(p[inside].mean())
        error += inside.mean() * abs(true[inside].mean() - p[inside].mean())
    assert found.error == pytest.approx(error)
    assert found.size.sum() == 500


def test_the_calibration_error_of_certain_predictions_is_their_share_of_mistakes():
    true = np.array([True, True, False, False])
    found = reliability(true, np.array([1.0, 1.0, 0.0, 1.0]))
    assert found.error == 0.25
    assert found.size.tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 0, 3]
    assert np.isnan(found.observed[1:9]).all()
