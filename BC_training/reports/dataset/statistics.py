"""Statistics of a dataset's actions and state.

Each class takes episodes through ``add`` and keeps sums, so memory does not grow with frames. A number without a value
(the durations of a button that is never pressed) is None.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from BC_training.common.metrics import previous_actions

# Lower edges of the bins of durations; the last bin is open.
SECOND_EDGES = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
FRAME_EDGES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)
STATE_BINS = 24
STATE_SAMPLE = 20_000  # frames of state the histograms are drawn from
_COMBINATIONS = 10  # listed


def presses(held: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first frame and the length, int64 [P] each, of every run of frames in which ``held`` bool [N] is true.

    A press may begin in the episode's first frame, and counts as far as it is seen where the episode ends in it.
    """
    edges = np.diff(held.astype(np.int8), prepend=0, append=0)
    starts = np.flatnonzero(edges == 1)
    return starts, np.flatnonzero(edges == -1) - starts


class ActionStatistics:
    """Frequencies, presses, combinations and baselines of A buttons; durations in seconds if ``timed``, else frames."""

    def __init__(self, names: Sequence[str], timed: bool):
        self._names, self._timed = names, timed
        self._frames, self._seconds, self._repeated = 0, 0.0, 0
        self._both = np.zeros((len(names), len(names)), np.int64)
        # Durations in whole milliseconds or frames, of which few are distinct, however many presses there are.
        self._durations: list[Counter[int]] = [Counter() for _ in names]
        self._combinations: Counter[bytes] = Counter()

    def add(self, actions: np.ndarray, fps: float | None) -> None:
        """Takes one episode's ``actions`` bool [N, A] at ``fps`` frames per second, None if not timed."""
        self._frames += len(actions)
        self._seconds += len(actions) / fps if fps else 0.0
        counts = actions.astype(np.float64)  # exact to 2^53 frames, and a fast product
        self._both += (counts.T @ counts).astype(np.int64)
        self._repeated += int((actions == previous_actions([actions])).all(axis=1).sum())
        for a in range(len(self._names)):
            _, lengths = presses(actions[:, a])
            if self._timed and fps:
                lengths = np.rint(lengths * (1000 / fps)).astype(np.int64)
            self._durations[a].update(lengths.tolist())
        rows, times = np.unique(np.packbits(actions, axis=1), axis=0, return_counts=True)
        self._combinations.update({row.tobytes(): int(n) for row, n in zip(rows, times, strict=True)})

    def result(self) -> dict[str, Any]:
        """The numbers as JSON types, which the page explains; ``conditional[a][b]`` is P(b held | a held).

        Without buttons there are no baselines.
        """
        held = np.diag(self._both)
        # By count, then as `metrics.majority_actions` settles ties.
        ranked = sorted(self._combinations.items(), key=lambda item: (-item[1], item[0]))
        idle = bytes(-(-len(self._names) // 8))
        minutes = self._seconds / 60
        return {
            "actions": [
                {
                    "name": name,
                    "frequency": _ratio(held[a], self._frames),
                    "presses": sum(self._durations[a].values()),
                    "presses_per_minute": _ratio(sum(self._durations[a].values()), minutes) if self._timed else None,
                    "presses_per_1000_frames": _ratio(1000 * sum(self._durations[a].values()), self._frames),
                    "duration": _durations(self._durations[a], self._timed),
                }
                for a, name in enumerate(self._names)
            ],
            "cooccurrence": {
                "both": [[_ratio(n, self._frames) for n in row] for row in self._both],
                "conditional": [[_ratio(n, held[a]) for n in row] for a, row in enumerate(self._both)],
            },
            "baselines": None
            if not self._names
            else {
                "repeat_previous": _ratio(self._repeated, self._frames),
                "majority": _ratio(ranked[0][1], self._frames),
                "nothing_held": _ratio(self._combinations[idle], self._frames),
            },
            "combinations": [
                {"actions": self._unpacked(row), "share": _ratio(n, self._frames)} for row, n in ranked[:_COMBINATIONS]
            ],
            "distinct_combinations": len(ranked),
        }

    def _unpacked(self, row: bytes) -> list[str]:
        bits = np.unpackbits(np.frombuffer(row, np.uint8), count=len(self._names))
        return [name for name, bit in zip(self._names, bits, strict=True) if bit]


class StateStatistics:
    """Ranges of S state values; ``frames``, about as many as all episodes have, spreads the histogram's sample."""

    def __init__(self, names: Sequence[str], frames: int):
        self._names = names
        self._stride = max(1, math.ceil(frames / STATE_SAMPLE))
        self._frames = self._episodes = 0
        width = len(names)
        self._count, self._constant = np.zeros(width, np.int64), np.zeros(width, np.int64)
        self._min, self._max = np.full(width, np.inf), np.full(width, -np.inf)
        self._mean, self._squares = np.zeros(width), np.zeros(width)
        self._sample: list[np.ndarray] = []

    def add(self, state: np.ndarray) -> None:
        """Takes one episode's ``state`` float32 [N, S]."""
        values = state.astype(np.float64)
        finite = np.isfinite(values)
        self._sample.append(state[-self._frames % self._stride :: self._stride].copy())  # a view keeps all
        self._frames += len(state)
        if len(state) > 1:  # a single frame cannot change
            self._episodes += 1
            self._constant += ((state == state[:1]) | (np.isnan(state) & np.isnan(state[:1]))).all(axis=0)
        self._min = np.minimum(self._min, np.where(finite, values, np.inf).min(axis=0))
        self._max = np.maximum(self._max, np.where(finite, values, -np.inf).max(axis=0))
        # Mean and sum of squared deviations, merged as Chan, Golub and LeVeque (1979) do.
        n = finite.sum(axis=0)
        mean = np.where(finite, values, 0).sum(axis=0) / np.maximum(n, 1)
        squares = (np.where(finite, values - mean, 0) ** 2).sum(axis=0)
        total = np.maximum(self._count + n, 1)
        delta = mean - self._mean
        self._squares += np.where(n > 0, squares + delta**2 * self._count * n / total, 0)
        self._mean += np.where(n > 0, delta * n / total, 0)
        self._count += n

    def result(self) -> list[dict[str, Any]]:
        """An entry for each state value, as JSON types; min to std are those of its finite values.

        ``undefined`` is the share of frames that are NaN or infinite, ``constant`` the share of episodes, of two frames
        or more, in which the value never changes.
        """
        sample = np.concatenate(self._sample) if self._sample else np.zeros((0, len(self._names)), np.float32)
        entries = []
        for s, name in enumerate(self._names):
            known = bool(self._count[s])
            finite = sample[np.isfinite(sample[:, s]), s].astype(np.float64)
            entries.append(
                {
                    "name": name,
                    "min": float(self._min[s]) if known else None,
                    "max": float(self._max[s]) if known else None,
                    "mean": float(self._mean[s]) if known else None,
                    "std": math.sqrt(self._squares[s] / self._count[s]) if known else None,
                    "undefined": _ratio(self._frames - self._count[s], self._frames),
                    "constant": _ratio(self._constant[s], self._episodes),
                    "histogram": _histogram(finite, self._min[s], self._max[s]) if known else None,
                }
            )
        return entries


def _histogram(values: np.ndarray, low: float, high: float) -> list[int]:
    """Counts in STATE_BINS equal bins from ``low`` to ``high``; a single bin where they are equal."""
    if low == high:
        return [len(values)]
    counts, _ = np.histogram(values, STATE_BINS, (low, high))
    return [int(n) for n in counts]


def _durations(counter: Counter[int], timed: bool) -> dict[str, Any]:
    """Median and 90th percentile, each a duration that occurred, and a histogram."""
    edges = SECOND_EDGES if timed else FRAME_EDGES
    scale = 1000 if timed else 1
    entry: dict[str, Any] = {"median": None, "p90": None, "longest": None, "histogram": [0] * len(edges)}
    if counter:
        values, weights = (np.array(x) for x in zip(*sorted(counter.items()), strict=True))
        median, p90 = np.quantile(values, (0.5, 0.9), weights=weights, method="inverted_cdf")
        bins = np.searchsorted(np.rint(np.array(edges) * scale), values, side="right") - 1
        counts = np.bincount(bins, weights, len(edges)).astype(int)
        entry = {
            "median": float(median) / scale,
            "p90": float(p90) / scale,
            "longest": float(values[-1]) / scale,
            "histogram": counts.tolist(),
        }
    return entry | {"unit": "s" if timed else "frames", "histogram_edges": list(edges)}


def _ratio(numerator: float, denominator: float) -> float | None:
    return float(numerator / denominator) if denominator else None


def run_lengths(columns: np.ndarray) -> str:
    """A strip bool [N] as the lengths of its runs, "released,held,released,..."."""
    edges = np.flatnonzero(np.diff(columns.astype(np.int8), prepend=0))
    return ",".join(map(str, np.diff(edges, prepend=0)))


def strips(actions: np.ndarray, columns: int) -> tuple[int, list[str]]:
    """The timeline of ``actions`` bool [N, A], at most ``columns`` wide: frames per column, and A ``run_lengths``.

    A column is held if one of its frames is; after the last number a strip stays as it is to the end.
    """
    frames = -(-len(actions) // columns)
    if frames > 1:
        starts = np.arange(0, len(actions), frames)
        actions = np.maximum.reduceat(actions, starts, axis=0)
    return frames, [run_lengths(actions[:, a]) for a in range(actions.shape[1])]
