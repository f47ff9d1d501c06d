"""Warnings about axes: amounts that can be read, but may not be what was meant.

What an axis means is not recorded, so most is found by comparing episodes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from BC_training.validate.findings import STUCK_SECONDS, WHOLE_SECONDS, WHOLE_SHARE, Checked, Finding, runs_of

MOVING_FRAMES = 30  # that an episode needs to tell how large an axis is
LARGE = 90  # percentile of the amounts that are not 0: how large an axis is
RESCALED = 10.0  # times as large: another unit (degrees, counts, radians); players differ by less
WITHIN_SHARE = 2 / 3  # of the episodes stay within [-1, 1], two at least, and ...
NEAR_LIMIT = 0.9  # ... some come near its ends: that is the axis's range, and more is a fault


@dataclass(frozen=True)
class AxisLabels:
    """What the X axes of an episode look like."""

    low: np.ndarray  # float32 [X], the least amount
    high: np.ndarray  # float32 [X], the largest
    moving: np.ndarray  # int64 [X], the frames in which it is not 0
    large: np.ndarray  # float64 [X], the percentile ``LARGE``; NaN where fewer than ``MOVING_FRAMES`` move
    held: list[tuple[int, int, int, float]]  # (axis, first frame, frames, amount) of long holds other than of 0
    beyond: list[tuple[int, int, int]]  # (axis, first frame, frames) of amounts outside of [-1, 1]


def describe(axes: np.ndarray, held_frames: int) -> AxisLabels:
    """Describes ``axes`` float32 [N, X], N > 0, finite; ``held_frames``: the least of a long hold."""
    moves = axes != 0
    large = np.full(axes.shape[1], np.nan)
    held, beyond = [], []
    for x, amounts in enumerate(axes.T):
        if moves[:, x].sum() >= MOVING_FRAMES:
            large[x] = np.percentile(np.abs(amounts[moves[:, x]]), LARGE)
        same = np.concatenate([[False], amounts[1:] == amounts[:-1]]) & moves[:, x]
        runs = [(start - 1, n + 1) for start, n in runs_of(same)]  # with the frame that is repeated
        held += [(x, start, n, float(amounts[start])) for start, n in runs if n >= held_frames]
        beyond += [(x, start, n) for start, n in runs_of(np.abs(amounts) > 1)]
    return AxisLabels(axes.min(axis=0), axes.max(axis=0), moves.sum(axis=0), large, held, beyond)


def find_axis_oddities(episodes: Sequence[tuple[Checked, AxisLabels]], names: Sequence[str]) -> Iterator[Finding]:
    """``episodes`` are those with an amount of each of the X axes ``names`` in every frame."""
    if not episodes:
        return
    moving = np.stack([labels.moving for _, labels in episodes])
    lengths = np.array([checked.length for checked, _ in episodes])
    if never := [name for x, name in enumerate(names) if not moving[:, x].any()]:
        yield Finding("never", None, f"never moved: {', '.join(never)}")
    for x, name in enumerate(names):
        if not moving[:, x].any():
            continue
        low = np.array([labels.low[x] for _, labels in episodes])
        high = np.array([labels.high[x] for _, labels in episodes])
        if low.min() == high.max():
            yield Finding("always", None, f"'{name}' is {low[0]:.4g} in every frame")
            continue
        for e, (checked, labels) in enumerate(episodes):
            if (finding := _stuck(e, x, name, checked, labels, low, high)) is not None:
                yield finding
            others = (moving[:, x].sum() - moving[e, x]) / max(lengths.sum() - lengths[e], 1)
            if not moving[e, x] and lengths[e] >= WHOLE_SECONDS * checked.rate and others >= WHOLE_SHARE:
                message = f"'{name}' is 0 throughout, in other episodes {100 * (1 - others):.0f} % of the time"
                yield Finding("stuck", checked.info.name, message, ((0, int(lengths[e]) - 1),))
        outside = _outside(moving[:, x] > 0, np.maximum(np.abs(low), np.abs(high)))
        for e in outside:
            checked, labels = episodes[e]
            message = f"'{name}' goes from {low[e]:.4g} to {high[e]:.4g}, in other episodes it stays in [-1, 1]"
            spans = tuple((start, start + n - 1) for axis, start, n in labels.beyond if axis == x)
            yield Finding("range", checked.info.name, message, spans)
        sizes = np.array([np.nan if e in outside else labels.large[x] for e, (_, labels) in enumerate(episodes)])
        for e, usual in _rescaled(sizes):
            message = f"'{name}' moves by {sizes[e]:.3g}, in other episodes by {usual:.3g}"
            yield Finding("rescaled", episodes[e][0].info.name, message)


def _stuck(
    episode: int, axis: int, name: str, checked: Checked, labels: AxisLabels, low: np.ndarray, high: np.ndarray
) -> Finding | None:
    """Long holds of an episode. A stick rests long only at its ends: 1, or what other episodes reach, too."""
    others = np.arange(len(low)) != episode if len(low) > 1 else np.ones(1, bool)
    ends = (-1, 1, low[others].min(), high[others].max())
    found = [
        (n, amount, (start, start + n - 1))
        for x, start, n, amount in labels.held
        if x == axis and n >= (STUCK_SECONDS if amount in ends else WHOLE_SECONDS) * checked.rate
    ]
    if not found:
        return None
    longest, amount, _ = max(found)
    message = f"'{name}' stays at {amount:.4g} for {longest / checked.rate:.0f} s"
    return Finding("stuck", checked.info.name, message, tuple(span for *_, span in found))


def _outside(moves: np.ndarray, reach: np.ndarray) -> list[int]:
    """The episodes that leave [-1, 1] where that is the axis's range; ``reach`` [E] are the largest amounts."""
    inside = moves & (reach <= 1)
    if inside.sum() < max(2, WITHIN_SHARE * moves.sum()) or reach[inside].max() < NEAR_LIMIT:
        return []
    return np.flatnonzero(reach > 1).tolist()


def _rescaled(sizes: np.ndarray) -> list[tuple[int, float]]:
    """The episodes of another scale, and the usual size; ``sizes`` [E], NaN where it is unknown.

    The sizes are cut in two where their ratio is largest. Both parts must lie closer together than apart. The smaller
    part is reported; of two equal ones, that without the first episode.
    """
    known = np.flatnonzero(~np.isnan(sizes))
    if len(known) < 2:
        return []
    order = known[np.argsort(sizes[known])]
    logs = np.log(sizes[order])
    gaps = np.diff(logs)
    cut = int(gaps.argmax()) + 1
    spread = max(logs[cut - 1] - logs[0], logs[-1] - logs[cut])
    if gaps.max() < np.log(RESCALED) or spread >= gaps.max():
        return []
    parts = sorted((order[:cut], order[cut:]), key=lambda part: (len(part), -part.min()))
    return [(int(e), float(np.median(sizes[parts[1]]))) for e in sorted(parts[0])]
