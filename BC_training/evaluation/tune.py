"""Chooses each button's threshold by its F1."""

from dataclasses import replace

import numpy as np

from BC_training.common.decode import Decoding


def best_thresholds(decoding: Decoding, true: np.ndarray, probability: np.ndarray) -> Decoding:
    """``decoding`` with the thresholds of the best F1 for ``true`` bool [N, A] and ``probability`` float32 [N, A]."""
    columns = zip(decoding.thresholds.items(), true.T, probability.T, strict=True)
    best = {name: best_threshold(held, p, old, decoding.hysteresis) for (name, old), held, p in columns}
    return replace(decoding, thresholds=best)


def best_threshold(true: np.ndarray, probability: np.ndarray, present: float, above: float = 0.0) -> float:
    """The threshold above ``above`` with the best F1 = 2 TP / (2 TP + FP + FN), frame by frame.

    F1 changes only at probabilities that occur, so one threshold is tried between each two of them, in the middle. The
    present one stays where none is better and where the button is never held. The nearest to it of equally good
    thresholds is taken, and the higher of two that are as near.

    Args:
        true: bool [N].
        probability: float32 [N] in [0, 1].
        above: the hysteresis, which a threshold must exceed.
    """
    p, held = np.asarray(probability, np.float64), int(true.sum())
    if not held:
        return present
    values, group = np.unique(p, return_inverse=True)
    # With a threshold at each value, the frames at it or above count as pressed.
    pressed = np.cumsum(np.bincount(group)[::-1])[::-1]
    hits = np.cumsum(np.bincount(group, weights=true)[::-1])[::-1]
    f1 = 2 * hits / (pressed + held)
    lower = np.maximum(np.concatenate([[0.0], values[:-1]]), above)
    possible = lower < values
    f1, middles = f1[possible], ((lower + values) / 2)[possible]
    pressed_now = p >= present
    now = 2 * int((pressed_now & true).sum()) / (int(pressed_now.sum()) + held)
    if not len(f1) or f1.max() <= now:
        return present
    best = middles[f1 == f1.max()][::-1]  # the higher first
    return float(best[np.abs(best - present).argmin()])
