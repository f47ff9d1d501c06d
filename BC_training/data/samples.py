"""Which frames and labels of an episode make up a sample."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64, Int, Int64

from BC_training.common import metrics
from BC_training.common.axes import AxisBins, squeezed_actions
from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.errors import UserError, unknown
from BC_training.common.preprocess import Window
from BC_training.common.schema import OversampleConfig
from BC_training.common.state import frames_since_change
from BC_training.data.order import SampleOrder
from BC_training.data.several_datasets import labelled_buttons


class Samples:
    """One sample for each frame of some episodes whose target action was recorded, and is labelled.

    A row is the number of a frame, counted through all these episodes.

    Args:
        unlabelled: take the frames without a label (``EpisodeInfo.labelled``), too.

    Attributes:
        episodes: positions in ``dataset.episodes``.
        stretches: (episode, first, end) of each run of samples in a row: a position in ``dataset.episodes``, the first
            frame that is seen, and the one after the last target. Most episodes have one, a takeover one each time.
        targets: bool [N, A], the buttons that the model should press at each sample; the first of a chunk.
        axis_targets: int32 [N, X], the bins of the axes likewise; None without axes.
        known: bool [N, A], False where a sample's dataset does not have the button; None where all have all.
    """

    def __init__(
        self,
        dataset: ZarrGameplayDataset,
        episodes: Sequence[int],
        window: Window,
        axis_bins: AxisBins | None = None,
        *,
        unlabelled: bool = False,
    ):
        self.dataset, self.episodes, self.window, self._axis_bins = dataset, list(episodes), window, axis_bins
        infos, shift = [dataset.episodes[e] for e in self.episodes], window.action_shift
        self._lengths = np.array([info.length for info in infos], np.int64)
        self._first_rows = _starts(self._lengths)
        runs = [
            (i, max(frames.start - shift, 0), frames.stop)
            for i, info in enumerate(infos)
            for frames in ([range(info.length)] if unlabelled else info.labelled)
        ]
        runs = [(i, first, end) for i, first, end in runs if end - first > shift]
        self.stretches = [(self.episodes[i], first, end) for i, first, end in runs]
        self._episode, self._first, ends = np.array(runs, np.int64).reshape(-1, 3).T
        self._first_samples = _starts(ends - self._first - shift)
        if not runs:
            lacks = f"no episode of {dataset.path} is longer than dataset.action_shift={shift} frames: lower it"
            if not any(info.labelled for info in infos):
                names = f"{infos[0].name} to {infos[-1].name}" if len(infos) > 1 else infos[0].name
                lacks = f"nobody took over in {names} of {dataset.path}, and a policy's play is no example: record more"
            raise UserError(lacks)
        actions = [dataset.actions(e) for e in self.episodes]
        self._actions = np.concatenate(actions)  # bool [rows, A]
        self._axes, self._done = None, self._actions  # int32 [rows, X]; [rows, A + X] as previous actions are seen
        if axis_bins is not None:
            axes = np.concatenate([dataset.axes(e) for e in self.episodes])
            self._axes, self._done = axis_bins.find(axes), squeezed_actions(self._actions, axes, axis_bins)
        self._labelled = np.concatenate([info.is_labelled for info in infos])  # bool [rows]
        states = [dataset.state(e) for e in self.episodes] if window.state or window.auxiliary else []
        self._state = np.concatenate(states) if states else None
        counted = [dataset.state_names.index(name) for name in window.since_change]
        self._since_change = np.concatenate([frames_since_change(s[:, counted]) for s in states]) if counted else None
        self.targets: Bool[np.ndarray, "N A"] = self._shifted(self._actions)
        buttons = np.stack([labelled_buttons(dataset, e) for e in self.episodes])
        self._known = None if buttons.all() else buttons  # bool [E, A]
        self.axis_targets = None if self._axes is None else self._shifted(self._axes)

    def __len__(self) -> int:
        return int(self._first_samples[-1])

    @property
    def num_rows(self) -> int:
        return int(self._first_rows[-1])

    @property
    def recorded(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The buttons bool [N_i, A] and axes float32 [N_i, X] of each of ``stretches``, for the scores."""
        actions = [self.dataset.actions(e)[first:end] for e, first, end in self.stretches]
        return actions, [self.dataset.axes(e)[first:end] for e, first, end in self.stretches]

    def rows(self, samples: Int[np.ndarray, "*B"]) -> Int64[np.ndarray, "*B T"]:
        """The rows of each sample's history, the current frame last."""
        episode, t = self._place(samples)
        return self._first_rows[episode][..., None] + np.maximum(self._history(t), 0)

    def labels(self, samples: Int[np.ndarray, "*B"]) -> dict[str, np.ndarray]:
        """Returns all that belongs to ``samples`` but their frames.

        Returns:
            "action" bool [*B, A] and, of axes, "axes" int32 [*B, X], their bins. A window that predicts a chunk has
            "action" [*B, C, A], "axes" [*B, C, X] and "mask" bool [*B, C], which is False past the episode's end and
            where there is no label.
            Where the window has them, also "previous_actions" [*B, K, A + X] as ``axes.squeezed_actions`` makes them,
            "state" float32 [*B, T, S] and "since_change" float32 [*B, T, K], in frames, and "auxiliary" float32
            [*B, S], the state of the current frame. With ``every_frame``, "action", "axes", "auxiliary",
            "previous_actions" and "mask" (then always there) have an axis T after B; the mask is also False before the
            episode.
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
        if self._known is not None:
            known = self._known[episode].reshape(*episode.shape, *(1,) * (targets.ndim - episode.ndim), -1)
            labels["known"] = np.broadcast_to(known, labels["action"].shape).copy()
        if self._axes is not None:
            labels["axes"] = self._axes[targets]
        if window.action_chunk > 1 or window.every_frame:  # else every sample has an action
            labels["mask"] = mask & self._labelled[targets]
        if window.action_history:
            before = t[..., None] + np.arange(-window.action_history, 0)
            done = self._done[first + np.maximum(before, 0)]
            labels["previous_actions"] = done * (before >= 0)[..., None]
        if self._state is not None and window.state:
            labels["state"] = self._state[self.rows(samples)]
        if self._state is not None and window.auxiliary:
            rows = self.rows(samples)
            labels["auxiliary"] = self._state[rows if window.every_frame else rows[..., -1]]
        if self._since_change is not None:
            labels["since_change"] = self._since_change[self.rows(samples)]
        return labels

    def first_of_stretch(self, samples: Int[np.ndarray, "*B"]) -> Int64[np.ndarray, "*B"]:
        """The first sample of each sample's run of ``stretches``."""
        return self._first_samples[self._stretch(samples)]

    def locate_rows(self, rows: Int[np.ndarray, " n"]) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
        """The episode of each row, an index into ``episodes``, and its frame there."""
        episode = np.searchsorted(self._first_rows, rows, side="right") - 1
        return episode, rows - self._first_rows[episode]

    def locate(self, samples: Int[np.ndarray, " n"]) -> list[tuple[str, int]]:
        """The (episode name, frame) of each sample."""
        episode, t = self._place(samples)
        names = [self.dataset.episodes[e].name for e in self.episodes]
        return [(names[e], int(frame)) for e, frame in zip(episode, t, strict=True)]

    def order(
        self,
        batch_size: int,
        seed: int,
        oversample: OversampleConfig | None = None,
        weights: Float64[np.ndarray, " E"] | None = None,
    ) -> SampleOrder:
        """The order to train in. With ``oversample``, samples that it names get extra visits: ``ratio`` of an epoch.

        With ``weights``, one for each of ``episodes``, samples are visited in proportion to those.

        Raises:
            UserError: a batch larger than the number of samples, what to draw more often is unknown or never there, or
                both ``oversample`` and ``weights``.
        """
        targets = self.window.targets
        if weights is not None:
            if oversample is not None:
                raise UserError(
                    "dataset.oversample and training.weight_by_return.temperature both say what is drawn more often: "
                    "set one of them null, or use training.weight_by_return.top"
                )
            ends = np.cumsum(np.repeat(weights[self._episode], np.diff(self._first_samples)))
            ends *= len(self) / ends[-1]
            return SampleOrder(len(self), batch_size, seed, targets_per_sample=targets, weight_ends=ends)
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

    @property
    def known(self) -> Bool[np.ndarray, "N A"] | None:
        if self._known is None:
            return None
        return np.repeat(self._known[self._episode], np.diff(self._first_samples), axis=0)

    def frequencies(self, order: SampleOrder) -> Float64[np.ndarray, " A"]:
        """The share of an epoch's target frames in which each button is pressed, of those that have it."""
        known = self.known
        share = 1.0 if known is None else np.maximum(known.mean(axis=0), 1 / len(self))
        if order.weight_ends is not None:
            return np.diff(order.weight_ends, prepend=0) @ self.targets / len(self) / share
        pressed = self.targets.sum(axis=0, dtype=np.float64)
        if order.extra:
            pressed += self._targeted(order.rare) * order.extra
        return pressed / order.epoch_size / share

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
        (actions, axes), shift = self.recorded, self.window.action_shift
        moved = metrics.recorded_axes(self.dataset.axis_names, self._axis_bins, axes, shift)
        return metrics.change_frames(actions, shift, moved)

    def _shifted(self, rows: np.ndarray) -> np.ndarray:
        """The rows [R, ...] that are the targets of samples, [N, ...]."""
        if len(self) == len(rows):
            return rows
        begins = (self._first_rows[self._episode] + self._first + self.window.action_shift).tolist()
        counts = np.diff(self._first_samples).tolist()
        return np.concatenate([rows[a : a + n] for a, n in zip(begins, counts, strict=True)])

    def _history(self, t: Int64[np.ndarray, "*B"]) -> Int64[np.ndarray, "*B T"]:
        """The frames of the history at ``t``; numbers below 0 lie before the episode."""
        return t[..., None] - np.arange(self.window.history - 1, -1, -1) * self.window.frame_skip

    def _place(self, samples: Int[np.ndarray, "*B"]) -> tuple[Int64[np.ndarray, "*B"], Int64[np.ndarray, "*B"]]:
        """The episode of each sample, an index into ``episodes``, and its frame t there."""
        stretch = self._stretch(samples)
        return self._episode[stretch], samples - self._first_samples[stretch] + self._first[stretch]

    def _stretch(self, samples: Int[np.ndarray, "*B"]) -> Int64[np.ndarray, "*B"]:
        return np.searchsorted(self._first_samples, samples, side="right") - 1


def _starts(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)])
