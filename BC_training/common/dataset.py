"""A recorded dataset as training sees it: episodes, their split, and their frames on demand."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, Self

import numpy as np

from BC_training.common.errors import UserError, first_line, unknown
from BC_training.common.mirror import MirrorTable
from BC_training.common.schema import DatasetConfig
from BC_training.common.split import SPLITS, split_groups
from BC_training.common.state import require_finite
from BC_training.common.storage import reader
from BC_training.common.storage.metadata import EpisodeInfo, episode_faults, expected_shapes
from BC_training.common.storage.store import open_store

_OPEN_ARRAYS = 4096  # kept open for reading frames: bounds the memory of a dataset of many episodes
_STATE_MEMORY = 2**30  # bytes of state kept: a training's start reads it four times, and decoding takes long
_REMEDY = ": repair or remove the episode, or set dataset.validate_episodes=true to skip such episodes"
_CHECKED = 128  # frames read at once to check that they can be read


@dataclass(frozen=True)
class Skipped:
    """An episode that cannot be used, and why."""

    name: str
    reason: str


class ZarrGameplayDataset:
    """Episodes of gameplay in the format of ``reader.py``, in numeric order.

    Opening reads metadata only; frames, actions and state are read when asked for. "Episode"
    arguments below are positions in ``episodes``, not the numbers in the folder names.

    Args:
        path: the dataset's folder, or its s3://, gs:// or http(s):// address.
        actions: names of the A buttons to use, in that order; None for all as recorded.
        axes: likewise of the X axes.
        channel_order: the recording's; frames are handed out as RGB.
        validate_episodes: skip episodes with a fault, and list them in ``skipped``, instead of
            raising on the first.

    Attributes:
        state_names: the S state values; empty when the dataset has no state.
        frame_size: (H, W) in pixels.
        fps: frames per second, averaged over the episodes that have a rate; None if none does.

    Raises:
        UserError: the path is no dataset, it has no usable episode, an episode has a fault, or an
            action does not exist.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        actions: Sequence[str] | None = None,
        axes: Sequence[str] | None = None,
        channel_order: Literal["rgb", "bgr"] = "rgb",
        validate_episodes: bool = False,
    ):
        self.path = str(path)
        self.store = open_store(path)
        root = reader.read_root(self.store)
        keys = list(root["keys"])
        moved: list[str] = list(root.get("axes") or ())
        self.action_names: tuple[str, ...] = tuple(keys if actions is None else actions)
        self.axis_names: tuple[str, ...] = tuple(moved if axes is None else axes)
        for what, used, known, named in (
            ("action", self.action_names, keys, "actions in 'keys'"),
            ("axis", self.axis_names, moved, "axes in 'axes'"),
        ):
            for name in used:
                if name not in known:
                    raise unknown(what, name, known, f"{self.path} names its {named}")
        if not self.action_names and not self.axis_names:
            raise UserError(f"{self.path}: dataset.actions and dataset.axes leave nothing to learn: name some")
        self._action_columns = [keys.index(name) for name in self.action_names]
        self._axis_columns = [moved.index(name) for name in self.axis_names]
        self.channel_order = channel_order
        self._validate_episodes = validate_episodes
        self.skipped: list[Skipped] = []
        self.episodes: list[EpisodeInfo] = []
        attributes = tuple(root.get("attributes") or ())
        self.mirror = MirrorTable(root.get("mirror"), tuple(keys), attributes, self.path, tuple(moved))
        names = self.store.episode_names()
        if not names:
            raise UserError(f"{self.path} has no episodes (folders episode_0, episode_1, ...): record some into it")
        infos: list[EpisodeInfo] = []
        for name, episode in zip(names, reader.read_episodes(self.store, names), strict=True):
            if isinstance(episode, UserError):
                self._fault(name, str(episode))
            else:
                infos.append(episode)
        columns, size = expected_shapes(infos, root)
        self.state_names: tuple[str, ...] = attributes if "state" in columns else ()
        for info in infos:
            if faults := episode_faults(info, columns, size):
                self._fault(info.name, faults[0].message)
            else:
                self.episodes.append(info)
        self._require_episodes()
        self.frame_size: tuple[int, int] = self.episodes[0].arrays["frames"].shape[2:]  # pyright: ignore[reportAttributeAccessIssue]
        rates = [e.fps for e in self.episodes if e.fps is not None]
        self.fps = sum(rates) / len(rates) if rates else None
        self._frames = lru_cache(maxsize=_OPEN_ARRAYS)(
            lambda episode: reader.open_array(self.episodes[episode], "frames")
        )
        self._actions: dict[str, np.ndarray] = {}
        self._axes: dict[str, np.ndarray] = {}
        self._states: dict[str, np.ndarray] = {}
        self._state_memory = _STATE_MEMORY

    @classmethod
    def from_config(cls, options: DatasetConfig, path: str | Path | None = None) -> Self:
        """The one dataset of a config's ``dataset`` section, or that at ``path`` read the same way."""
        chosen = options.path if path is None else path
        if isinstance(chosen, tuple):
            raise UserError(f"dataset.path names {len(chosen)} datasets, and this reads one: name one")
        return cls(
            chosen,
            actions=options.actions,
            axes=options.axes,
            channel_order=options.channel_order,
            validate_episodes=options.validate_episodes,
        )

    def __len__(self) -> int:
        """Frames in all usable episodes."""
        return sum(e.length for e in self.episodes)

    def load_labels(self, on_read: Callable[[int], None] = lambda frames: None) -> None:
        """Reads all actions, and axes and state once to check that they are finite.

        With ``validate_episodes`` it also reads every frame once, to check that it can be read.

        Args:
            on_read: called after each episode with its length in frames.

        Raises:
            UserError: an array cannot be read or axes or state have NaN or infinite values, unless
                ``validate_episodes``: then such episodes are skipped from here on.
        """
        usable = []
        for info in self.episodes:
            try:
                self._read_actions(info)
                self._read_axes(info)
                if self.state_names:
                    require_finite(self._read_state(info), self.state_names, f"{self.path}/{info.name}", _REMEDY)
                if self._validate_episodes:
                    self._check_frames(info)
                usable.append(info)
            except UserError as error:
                if not self._validate_episodes:
                    raise
                self.skipped.append(Skipped(info.name, str(error)))
            on_read(info.length)
        self.episodes = usable
        self._frames.cache_clear()
        self._require_episodes()

    def actions(self, episode: int) -> np.ndarray:
        """bool [N, A], the buttons held in each frame."""
        return self._read_actions(self.episodes[episode])

    def axes(self, episode: int) -> np.ndarray:
        """float32 [N, X], the amount of each axis in each frame; finite."""
        return self._read_axes(self.episodes[episode])

    def state(self, episode: int) -> np.ndarray:
        """float32 [N, S]; a UserError where the dataset has no state, or it cannot be read."""
        if not self.state_names:
            raise UserError(f"{self.path} has no state arrays")
        return self._read_state(self.episodes[episode])

    def frames(self, episode: int, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """uint8 [len(indices), 3, H, W] RGB; a UserError that names the episode where a chunk is missing or damaged."""
        return self.read_frames([(episode, np.asarray(indices, np.int64))])[0]

    def read_frames(self, wanted: Sequence[tuple[int, np.ndarray]]) -> list[np.ndarray]:
        """The frames of several (episode, indices), all read at once; see ``frames``."""
        pending, found = [], []
        for episode, indices in wanted:
            with self._reading(self.episodes[episode], "frames"):
                pending.append(self._frames(episode)[indices].read())
        for (episode, _), frames in zip(wanted, pending, strict=True):
            with self._reading(self.episodes[episode], "frames"):
                found.append(np.asarray(frames.result()))
        return [frames[:, ::-1] if self.channel_order == "bgr" else frames for frames in found]

    def split(self, shares: dict[str, float], seed: int, by_player: bool = False) -> dict[str, list[int]]:
        """Distributes whole episodes over "train", "val" and "test", at random from ``seed``.

        Every split with a share above 0 gets at least one episode.

        Args:
            by_player: split each player's episodes separately; a player with too few has all of them in
                "train". Adding a player then moves no other player's episode to another split.

        Raises:
            UserError: fewer episodes than splits.
        """
        groups: dict[str, list[int]] = {}
        for i, episode in enumerate(self.episodes):
            groups.setdefault(str(episode.attrs.get("player")) if by_player else "", []).append(i)
        split = split_groups(list(groups.values()), shares, seed)
        if split is None:
            count, whose = len(self.episodes), " of any one player" if by_player else ""
            wanted = " and ".join(name for name in SPLITS if shares.get(name, 0) > 0)
            raise UserError(
                f"{self.path} has {count} usable episode{'s' * (count != 1)}, too few{whose} to split into {wanted} by "
                "whole episodes: record more"
            )
        return split

    def names_of(self, split: dict[str, list[int]]) -> dict[str, list[str]]:
        """A split by the folder names of its episodes, as checkpoints keep it."""
        return {name: [self.episodes[e].name for e in episodes] for name, episodes in split.items()}

    def find(self, names: Sequence[str]) -> list[int]:
        """Positions of the episodes with these folder names; a UserError where one is not there."""
        position = {info.name: i for i, info in enumerate(self.episodes)}
        for name in names:
            if name not in position:
                raise unknown("episode", name, position, f"{self.path} has changed since the split was made")
        return [position[name] for name in names]

    def action_frequencies(self, episodes: Sequence[int]) -> np.ndarray:
        """float64 [A] in [0, 1]: the share of the episodes' labelled frames with each button held; 0 without any."""
        labelled = [self.actions(e)[self.episodes[e].is_labelled] for e in episodes]
        counts = sum(actions.sum(axis=0, dtype=np.int64) for actions in labelled)
        return np.asarray(counts) / max(sum(map(len, labelled)), 1)

    def _read_actions(self, info: EpisodeInfo) -> np.ndarray:
        if info.name not in self._actions:
            if not self._action_columns:  # the array may be missing
                self._actions[info.name] = np.zeros((info.length, 0), bool)
            else:
                with self._reading(info, "actions"):
                    self._actions[info.name] = reader.read_actions(info)[:, self._action_columns]
        return self._actions[info.name]

    def _read_axes(self, info: EpisodeInfo) -> np.ndarray:
        if info.name not in self._axes:
            axes = np.zeros((info.length, 0), np.float32)
            if self._axis_columns:
                with self._reading(info, "axes"):
                    stored = reader.read_whole(reader.open_array(info, "axes"))
                axes = reader.as_float32(stored)[0][:, self._axis_columns]
                require_finite(axes, self.axis_names, f"{self.path}/{info.name}", _REMEDY, "axis")
            self._axes[info.name] = axes
        return self._axes[info.name]

    def _read_state(self, info: EpisodeInfo) -> np.ndarray:
        if info.name in self._states:
            return self._states[info.name]
        with self._reading(info, "state"):
            stored = reader.read_whole(reader.open_array(info, "state"))
        state, changed = reader.as_float32(stored)
        if changed.any():
            raise UserError(f"{self.path}/{info.name}: {reader.inexact(stored, changed, self.state_names)}")
        if state.nbytes <= self._state_memory:
            self._state_memory -= state.nbytes
            self._states[info.name] = state
        return state

    def _check_frames(self, info: EpisodeInfo) -> None:
        with self._reading(info, "frames"):
            array = reader.open_array(info, "frames")
            for start in range(0, info.length, _CHECKED):
                array[start : min(start + _CHECKED, info.length)].read().result()

    @contextlib.contextmanager
    def _reading(self, info: EpisodeInfo, name: str) -> Iterator[None]:
        try:
            yield
        except (*reader.DAMAGE, OSError) as error:
            raise UserError(
                f"{self.path}/{info.name}: cannot read '{name}' ({first_line(error)}): "
                "restore the file or remove the episode; 'validate --repair' keeps what is good"
            ) from error

    def _fault(self, name: str, reason: str) -> None:
        if not self._validate_episodes:
            raise UserError(f"{self.path}/{name}: {reason}{_REMEDY}")
        self.skipped.append(Skipped(name, reason))

    def _require_episodes(self) -> None:
        if not self.episodes:
            first = self.skipped[0]
            raise UserError(
                f"{self.path} has no usable episode ({len(self.skipped)} skipped; {first.name}: {first.reason})"
            )
