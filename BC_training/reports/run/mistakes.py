"""Finds mistakes: buttons pressed for others, and the worst frames. ``true`` and ``predicted`` are bool [N, A].

Each side of an axis counts as a button that is held while the axis is on that side.
"""

from collections.abc import Sequence

import numpy as np

from BC_training.common.action import Action
from BC_training.common.axes import AxisBins

Shares = list[list[float | None]]


def with_sides(action: Action, bins: AxisBins | None) -> np.ndarray:
    """bool [N, A + 2 X], the buttons, then for each axis whether its bin is below and above the middle one."""
    if bins is None:
        return action.buttons
    found = bins.find(action.axes)
    sides = np.stack([found < bins.middle, found > bins.middle], axis=-1)
    return np.concatenate([action.buttons, sides.reshape(len(found), -1)], axis=1)


def predicted_given_held(true: np.ndarray, predicted: np.ndarray) -> Shares:
    """[a][b]: the share of the frames with a held in which b is predicted, or None. The diagonal is the recall."""
    return _shares(true, predicted)


def pressed_instead(true: np.ndarray, predicted: np.ndarray) -> Shares:
    """[a][b]: the share of the frames with a held and not predicted in which b is predicted and not held, or None."""
    return _shares(true & ~predicted, predicted & ~true)


def _shares(given: np.ndarray, counted: np.ndarray) -> Shares:
    both = given.T.astype(np.float64) @ counted.astype(np.float64)  # exact below 2^53
    return [
        [float(n) / total if total else None for n in row]
        for row, total in zip(both, given.sum(axis=0).tolist(), strict=True)
    ]


def commonest_mistakes(
    true: np.ndarray, predicted: np.ndarray, wrong: np.ndarray, limit: int
) -> list[tuple[tuple[int, ...], tuple[int, ...], int]]:
    """At most ``limit`` pairs of (held, predicted) in the frames ``wrong`` bool [N], and in how many, falling.

    The two are equal where only the amount of an axis is wrong.
    """
    pairs = np.concatenate([true[wrong], predicted[wrong]], axis=1)
    rows, counts = np.unique(pairs, axis=0, return_counts=True)
    size = true.shape[1]
    return [
        (tuple(np.flatnonzero(rows[i][:size]).tolist()), tuple(np.flatnonzero(rows[i][size:]).tolist()), int(counts[i]))
        for i in np.argsort(-counts, kind="stable")[:limit]
    ]


def frame_losses(true: np.ndarray, logits: np.ndarray, known: np.ndarray | None = None) -> np.ndarray:
    """float64 [N], each frame's binary cross-entropy in nats, averaged over the buttons, without weights.

    ``known`` is bool [N, A], False where a button was not recorded and does not count; None where all were.
    """
    logits = logits.astype(np.float64)
    losses = np.logaddexp(0, logits) - true * logits
    return losses.mean(axis=1, where=True if known is None else known)


def axis_losses(true: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """float64 [N], each frame's cross-entropy in nats, averaged over the axes.

    Args:
        true: int32 [N, X], the right bins.
        logits: float32 [N, X, bins].
    """
    logits = logits.astype(np.float64)
    right = np.take_along_axis(logits, true[..., None], axis=-1)[..., 0]
    return (np.logaddexp.reduce(logits, axis=-1) - right).mean(axis=1)


def worst(losses: np.ndarray, places: Sequence[tuple[str, int]], limit: int, apart: int) -> list[int]:
    """At most ``limit`` samples with the highest losses, float [N], the highest first.

    No two of an episode are closer than ``apart`` frames, and no episode has more than twice its share of ``limit``
    (equal shares), so that a bad second or a bad episode does not stand for all.

    Args:
        places: the episode's name and the frame of each sample.
    """
    episodes = len({name for name, _ in places})
    most = max(1, -(-2 * limit // max(episodes, 1)))
    chosen: list[int] = []
    taken: dict[str, list[int]] = {}
    for i in np.argsort(-losses, kind="stable").tolist():
        if len(chosen) == limit:
            break
        name, frame = places[i]
        frames = taken.setdefault(name, [])
        if len(frames) < most and all(abs(frame - other) >= apart for other in frames):
            frames.append(frame)
            chosen.append(i)
    return chosen
