"""Which samples a step sees, and which frames and labels of an episode make up a sample.

The order is a pure function of (seed, step): there is no iterator state to save, and the global
batch does not depend on the number of devices and processes.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float64, Int, Int64

from BC_training.common import metrics
from BC_training.common.axes import AxisBins, squeezed_actions
from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.errors import UserError, unknown
from BC_training.common.preprocess import Window
from BC_training.common.schema import OversampleConfig
from BC_training.common.state import frames_since_change

_ROUNDS = 6


@dataclass(frozen=True, eq=False)
class SampleOrder:
    """Visits each of ``num_samples`` once an epoch, shuffled, and leaves out the last partial batch.

    With oversampling an epoch has ``extra`` more visits, which the ``rare`` samples take in turn.
    A batch is computed from its step, in time and memory that do not grow with the dataset.

    Attributes:
        batch_size: samples of the global batch.
        rare: int64 [R], the samples that are visited more often.
        targets_per_sample: how many frames of a sample are trained on. An epoch has that many times
            fewer visits, so that it still trains on about as many frames as the dataset has.
    """

    num_samples: int
    batch_size: int
    seed: int
    rare: Int64[np.ndarray, " R"] = field(default_factory=lambda: np.empty(0, np.int64))
    extra: int = 0
    targets_per_sample: int = 1

    def __post_init__(self) -> None:
        if self.batch_size * self.targets_per_sample > self.num_samples:
            windows = f" windows of {self.targets_per_sample} frames" if self.targets_per_sample > 1 else ""
            raise UserError(
                f"training.batch_size={self.batch_size}{windows} is larger than the training set ({self.num_samples} "
                "frames): lower it or record more"
            )

    @property
    def epoch_size(self) -> int:
        """How many visits there are to choose an epoch's from, with those of the partial batch."""
        return self.num_samples + self.extra

    @property
    def steps_per_epoch(self) -> int:
        return self.epoch_size // self.targets_per_sample // self.batch_size

    def dispatches(self, epoch: int, size: int, start: int = 0) -> list[range]:
        """An epoch's steps from ``start`` on, in ranges of ``size`` and single steps before and after them.

        The ranges begin at the same steps whatever ``start`` is, so that a resumed training runs
        the same programs as one that was never stopped.
        """
        first, last = epoch * self.steps_per_epoch, (epoch + 1) * self.steps_per_epoch
        start = max(start, first)
        aligned = min(first + -(-(start - first) // size) * size, last)
        whole = last - (last - aligned) % size
        before, after = ([range(s, s + 1) for s in range(*ends)] for ends in ((start, aligned), (whole, last)))
        return before + [range(s, s + size) for s in range(aligned, whole, size)] + after

    def batches(self, dispatches: Sequence[range]) -> Iterator[Int64[np.ndarray, "steps batch_size"]]:
        """The samples of each dispatch's steps."""
        return (np.stack([self.batch(step) for step in steps]) for steps in dispatches)

    def batch(self, step: int) -> Int64[np.ndarray, " batch_size"]:
        """The samples of ``step``, which is counted from 0 over all epochs."""
        epoch, position = divmod(step, self.steps_per_epoch)
        start = position * self.batch_size
        visits = permute(np.arange(start, start + self.batch_size), self.epoch_size, self.seed, epoch)
        if self.extra:
            # Epochs take turns where `extra` is no multiple of the number of rare samples.
            turn = (visits - self.num_samples + epoch * self.extra) % len(self.rare)
            visits = np.where(visits < self.num_samples, visits, self.rare[turn])
        return visits


def batches_in_order(num_samples: int, batch_size: int, devices: int) -> Iterator[Int64[np.ndarray, " B"]]:
    """All samples in order, in batches of ``batch_size`` rounded up to a multiple of ``devices``.

    The last batch repeats its end, so that one compiled shape serves all.
    """
    size = -(-min(batch_size, num_samples) // devices) * devices
    return (np.minimum(np.arange(i, i + size), num_samples - 1) for i in range(0, num_samples, size))


def permute(positions: Int[np.ndarray, " n"], size: int, seed: int, epoch: int) -> Int64[np.ndarray, " n"]:
    """Sends ``positions``, in [0, size), through a pseudo-random permutation of ``range(size)``.

    It needs no table: it mixes the bits of a position by odd multiplications and shifted exclusive
    ors, each a bijection of the numbers with that many bits, and mixes a result of ``size`` or more
    again until it is smaller ("cycle walking": Black and Rogaway, Ciphers with arbitrary finite
    domains, 2002).
    """
    bits = max((size - 1).bit_length(), 6)
    constants = _constants(seed, epoch)
    mixed = _mix(positions.astype(np.uint64), bits, constants)
    while (outside := np.flatnonzero(mixed >= size)).size:
        mixed[outside] = _mix(mixed[outside], bits, constants)
    return mixed.astype(np.int64)


def _mix(x: np.ndarray, bits: int, constants: list[tuple[np.uint64, np.uint64]]) -> np.ndarray:
    mask, shift = np.uint64((1 << bits) - 1), np.uint64((bits + 1) // 2)
    for factor, offset in constants:
        x = (x * factor + offset) & mask
        x = x ^ (x >> shift)
    return x


@lru_cache(maxsize=4)
def _constants(seed: int, epoch: int) -> list[tuple[np.uint64, np.uint64]]:
    words = np.random.SeedSequence([seed, epoch]).generate_state(2 * _ROUNDS, np.uint64)
    return [(words[2 * i] | np.uint64(1), words[2 * i + 1]) for i in range(_ROUNDS)]


class Samples:
    """One sample for each frame of some episodes whose target action was recorded.

    A row is the number of a frame, counted through all these episodes.

    Attributes:
        episodes: positions in ``dataset.episodes``.
        targets: bool [N, A], the buttons that the model should press at each sample; the first of a chunk.
        axis_targets: int32 [N, X], the bins of the axes likewise; None without axes.
    """

    def __init__(
        self,
        dataset: ZarrGameplayDataset,
        episodes: Sequence[int],
        window: Window,
        axis_bins: AxisBins | None = None,
    ):
        self.dataset, self.episodes, self.window, self._axis_bins = dataset, list(episodes), window, axis_bins
        self._lengths = np.array([dataset.episodes[e].length for e in self.episodes], np.int64)
        self._first_rows = _starts(self._lengths)
        self._first_samples = _starts(np.maximum(self._lengths - window.action_shift, 0))
        actions = [dataset.actions(e) for e in self.episodes]
        self._actions = np.concatenate(actions)  # bool [rows, A]
        self._axes, self._done = None, self._actions  # int32 [rows, X]; [rows, A + X] as previous actions are seen
        if axis_bins is not None:
            axes = np.concatenate([dataset.axes(e) for e in self.episodes])
            self._axes, self._done = axis_bins.find(axes), squeezed_actions(self._actions, axes, axis_bins)
        states = [dataset.state(e) for e in self.episodes] if window.state else []
        self._state = np.concatenate(states) if window.state else None
        counted = [dataset.state_names.index(name) for name in window.since_change]
        self._since_change = np.concatenate([frames_since_change(s[:, counted]) for s in states]) if counted else None
        if len(self) == 0:
            raise UserError(
                f"no episode of {dataset.path} is longer than dataset.action_shift={window.action_shift} frames: "
                "lower it"
            )
        self.targets: Bool[np.ndarray, "N A"] = self._shifted(self._actions)
        self.axis_targets = None if self._axes is None else self._shifted(self._axes)

    def __len__(self) -> int:
        return int(self._first_samples[-1])

    @property
    def num_rows(self) -> int:
        return int(self._first_rows[-1])

    def rows(self, samples: Int[np.ndarray, "*B"]) -> Int64[np.ndarray, "*B T"]:
        """The rows of each sample's history, the current frame last."""
        episode, t = self._place(samples)
        return self._first_rows[episode][..., None] + np.maximum(self._history(t), 0)

    def labels(self, samples: Int[np.ndarray, "*B"]) -> dict[str, np.ndarray]:
        """Returns all that belongs to ``samples`` but their frames.

        Returns:
            "action" bool [*B, A] and, of axes, "axes" int32 [*B, X], their bins. A window that predicts a chunk has
            "action" [*B, C, A], "axes" [*B, C, X] and "mask" bool [*B, C], which is False past the episode's end.
            Where the window has them, also "previous_actions" [*B, K, A + X] as ``axes.squeezed_actions`` makes them,
            "state" float32 [*B, T, S] and "since_change" float32 [*B, T, K], in frames. With ``every_frame``,
            "action", "axes", "previous_actions" and "mask" (then always there) have an axis T after B; the mask is
            also False before the episode.
        """
        window, (episode, t) = self.window, self._place(samples)
        first, length = self._first_rows[episode][..., None], self._lengths[episode][..., None]
        if window.every_frame:
            t, first, length = self._history(t), first[..., None], length[..., None]
        ahead = t[..., None] + window.action_shift + np.arange(window.action_chunk)
        targets = first + np.clip(ahead, 0, length - 1)  # [*B, C]
        mask = (ahead < length) & (t >= 0)[..., None]
        if window.action_chunk == 1:
            targets, mask = targets[..., 0], mask[..., 0]
        labels = {"action": self._actions[targets]}
        if self._axes is not None:
            labels["axes"] = self._axes[targets]
        if window.action_chunk > 1 or window.every_frame:  # else every sample has an action
            labels["mask"] = mask
        if window.action_history:
            before = t[..., None] + np.arange(-window.action_history, 0)
            done = self._done[first + np.maximum(before, 0)]
            labels["previous_actions"] = done * (before >= 0)[..., None]
        if self._state is not None:
            labels["state"] = self._state[self.rows(samples)]
        if self._since_change is not None:
            labels["since_change"] = self._since_change[self.rows(samples)]
        return labels

    def first_of_episode(self, samples: Int[np.ndarray, "*B"]) -> Int64[np.ndarray, "*B"]:
        """The first sample of each sample's episode."""
        return self._first_samples[self._place(samples)[0]]

    def locate_rows(self, rows: Int[np.ndarray, " n"]) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
        """The episode of each row, an index into ``episodes``, and its frame there."""
        episode = np.searchsorted(self._first_rows, rows, side="right") - 1
        return episode, rows - self._first_rows[episode]

    def locate(self, samples: Int[np.ndarray, " n"]) -> list[tuple[str, int]]:
        """The (episode name, frame) of each sample."""
        episode, t = self._place(samples)
        names = [self.dataset.episodes[e].name for e in self.episodes]
        return [(names[e], int(frame)) for e, frame in zip(episode, t, strict=True)]

    def order(self, batch_size: int, seed: int, oversample: OversampleConfig | None = None) -> SampleOrder:
        """The order to train in. With ``oversample``, samples that it names get extra visits: ``ratio`` of an epoch.

        Raises:
            UserError: a batch larger than the number of samples, or what to draw more often is unknown or never there.
        """
        targets = self.window.targets
        if oversample is None:
            return SampleOrder(len(self), batch_size, seed, targets_per_sample=targets)
        names = self.dataset.action_names
        for name in oversample.actions:
            if name not in names:
                raise unknown("button", name, names, "in dataset.oversample.actions")
        pressed = self.targets[:, [names.index(name) for name in oversample.actions]].any(axis=1)
        if oversample.actions and not pressed.any():
            raise UserError(
                f"none of dataset.oversample.actions ({', '.join(oversample.actions)}) is pressed in the training "
                "episodes: choose others, or oversample=null"
            )
        rare = np.flatnonzero(pressed | self._changes() if oversample.changes else pressed)
        if not rare.size:
            raise UserError("dataset.oversample.changes: no action of the training episodes ever changes: set it false")
        wanted = round((len(self) - rare.size) * oversample.ratio / (1 - oversample.ratio))
        return SampleOrder(len(self), batch_size, seed, rare, max(wanted - rare.size, 0), targets)

    def frequencies(self, order: SampleOrder) -> Float64[np.ndarray, " A"]:
        """The share of an epoch's target frames in which each button is pressed."""
        pressed = self.targets.sum(axis=0, dtype=np.float64)
        if order.extra:
            pressed += self._targeted(order.rare) * order.extra
        return pressed / order.epoch_size

    def _targeted(self, samples: Int[np.ndarray, " n"]) -> Float64[np.ndarray, " A"]:
        """The share of the target frames of ``samples`` in which each button is pressed."""
        if not self.window.every_frame:
            return self.targets[samples].mean(axis=0)
        labels = self.labels(samples)
        action, mask = labels["action"], labels["mask"]
        if self.window.action_chunk > 1:
            action, mask = action[..., 0, :], mask[..., 0]
        return (action & mask[..., None]).sum(axis=(0, 1)) / mask.sum()

    def _changes(self) -> Bool[np.ndarray, " N"]:
        """``metrics.change_frames``."""
        dataset, shift = self.dataset, self.window.action_shift
        actions, axes = ([read(e) for e in self.episodes] for read in (dataset.actions, dataset.axes))
        moved = metrics.recorded_axes(dataset.axis_names, self._axis_bins, axes, shift)
        return metrics.change_frames(actions, shift, moved)

    def _shifted(self, rows: np.ndarray) -> np.ndarray:
        """The rows [R, ...] that are the targets of samples, [N, ...]."""
        if not (shift := self.window.action_shift):
            return rows
        return np.concatenate([rows[a + shift : b] for a, b in itertools.pairwise(self._first_rows.tolist())])

    def _history(self, t: Int64[np.ndarray, "*B"]) -> Int64[np.ndarray, "*B T"]:
        """The frames of the history at ``t``; numbers below 0 lie before the episode."""
        return t[..., None] - np.arange(self.window.history - 1, -1, -1) * self.window.frame_skip

    def _place(self, samples: Int[np.ndarray, "*B"]) -> tuple[Int64[np.ndarray, "*B"], Int64[np.ndarray, "*B"]]:
        """The episode of each sample, an index into ``episodes``, and its frame t there."""
        episode = np.searchsorted(self._first_samples, samples, side="right") - 1
        return episode, samples - self._first_samples[episode]


def _starts(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)])
