"""Reads every chunk of a dataset once, a block of frames at a time."""

import hashlib
import itertools
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from BC_training.common.errors import UserError, first_line
from BC_training.common.storage import reader
from BC_training.common.storage.metadata import ARRAYS, EpisodeInfo, Fault
from BC_training.common.storage.other_codecs import UnknownCodec
from BC_training.common.storage.reader import Array, as_float32, inexact
from BC_training.validate.axes import AxisLabels, describe
from BC_training.validate.findings import runs_of

TASK_FRAMES = 1024  # read by a process before it reports
BLOCK_BYTES = 32 << 20  # frames in memory at once, decoded; twice that with the block ahead
STILL_CHANGE = 0.5  # mean absolute difference to the frame before, 255 at most: a wait, not play
_SAMPLED = 36  # rows of pixels in which stillness and colours are measured
COLOUR_GRID = 8  # cells a side over which colours are averaged

# TensorStore's codes for a chunk that is there but cannot be decoded. Others, as a server's, are no damage.
_DAMAGE = ("DATA_LOSS", "FAILED_PRECONDITION")


@dataclass(frozen=True)
class Task:
    """Frames ``start`` to ``stop`` of an episode; also its actions, axes and state where ``start`` is 0."""

    episode: EpisodeInfo
    arrays: tuple[str, ...]  # names of the arrays that can be read
    start: int
    stop: int
    length: int  # rows of the other arrays to read
    stuck: int  # the least frames for which a held key, or an axis that stays, is listed


@dataclass
class Labels:
    """What the actions, the axes and the state of an episode look like."""

    faults: dict[tuple[str, int], Fault] = field(default_factory=dict)  # by array and row
    # int64 [A], the frames in which each button is held; empty if not all rows could be read
    held: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    stuck: list[tuple[int, int, int]] = field(default_factory=list)  # (button, first frame, frames) of long holds
    pressed: tuple[int, int] | None = None  # the first and last frame with any button, or an axis that is not 0
    axes: AxisLabels | None = None  # None if not all rows could be read, or there are none
    complete: bool = False  # whether all rows of the actions and the axes could be read
    large: tuple[int, ...] = ()  # state columns of whole numbers, some of them 2^24 or more


@dataclass
class Scanned:
    """What was seen in the frames of a task."""

    same: np.ndarray  # bool [n], equal to the frame before
    still: np.ndarray  # bool [n], nearly equal to it
    faults: dict[int, Fault]  # by the frame's index in the episode
    digest: bytes  # over all n frames
    colours: np.ndarray  # float64 [3, 8, 8], the sum of ``colour_frames`` frames, each averaged over a grid
    colour_frames: int
    labels: Labels | None = None


class Scanner:
    """One process's share of the reading."""

    def __init__(self, root: dict[str, Any]):
        """``root``: the dataset's attributes."""
        self._root = root
        self._opened: dict[str, Array | Fault] = {}

    def run(self, task: Task) -> Scanned:
        """Raises a UserError if the dataset cannot be reached."""
        scanned = self._frames(task)
        if task.start == 0:
            scanned.labels = self._labels(task)
        return scanned

    def close(self) -> None:
        pass

    def _open_frames(self, episode: EpisodeInfo) -> Array | Fault:
        """The frames, or what is wrong with all of them."""
        if episode.name not in self._opened:
            self._opened.clear()  # tasks come episode by episode
            self._opened[episode.name] = open_rows(episode, "frames")
        return self._opened[episode.name]

    def _frames(self, task: Task) -> Scanned:
        first = max(task.start - 1, 0)  # the frame before is compared with
        count, new = task.stop - first, task.start - first
        readable, faults = np.ones(count, bool), {}
        hashes, change = np.zeros(count, np.uint64), np.full(count, np.inf)
        colours, coloured = np.zeros((3, COLOUR_GRID, COLOUR_GRID)), 0
        array = self._open_frames(task.episode) if task.stop > task.start else Fault("", "")
        if isinstance(array, Fault):
            faults = dict.fromkeys(range(task.start, task.stop), array)
            nothing = np.zeros(task.stop - task.start, bool)
            return Scanned(nothing, nothing, faults, b"", colours, coloured)
        step = max(1, array.shape[2] // _SAMPLED)
        before = None
        for start, frames, unread in read_blocks(task.episode, array, first, task.stop):
            at = start - first
            for frame, fault in unread.items():
                readable[frame - first] = False
                if frame >= task.start:
                    faults[frame] = fault
            hashes[at : at + len(frames)] = _hashes(frames)
            sampled = frames[:, :, ::step, ::step]
            pairs = sampled if before is None else np.concatenate([before, sampled])
            difference = np.maximum(pairs[1:], pairs[:-1]) - np.minimum(pairs[1:], pairs[:-1])
            change[at + len(frames) - len(difference) : at + len(frames)] = difference.mean(axis=(1, 2, 3))
            before = sampled[-1:].copy()
            chosen = sampled[readable[at : at + len(frames)]]
            if len(chosen) and chosen.shape[1] == 3:
                colours += _pooled(chosen.sum(axis=0, dtype=np.float64))
                coloured += len(chosen)
        pair = np.concatenate([[False], readable[1:] & readable[:-1]])
        same = pair & (hashes == np.roll(hashes, 1))
        digest = hashlib.blake2b(hashes[new:].tobytes(), digest_size=16).digest()
        return Scanned(same[new:], (pair & (change <= STILL_CHANGE))[new:], faults, digest, colours, coloured)

    def _labels(self, task: Task) -> Labels:
        labels, acts = Labels(), np.zeros(task.length, bool)
        if task.length and "actions" in task.arrays:
            actions, faults = read_actions(task.episode, task.length, self._root)
            labels.faults |= {("actions", row): fault for row, fault in faults.items()}
            actions[list(faults)] = False
            if not faults:
                labels.held = actions.sum(axis=0, dtype=np.int64)
            runs = [(a, start, n) for a in range(actions.shape[1]) for start, n in runs_of(actions[:, a])]
            labels.stuck = [run for run in runs if run[2] >= task.stuck]
            acts |= actions.any(axis=1)
        if task.length and "axes" in task.arrays:
            stored, faults = read_rows(task.episode, "axes", task.length)
            axes, _ = as_float32(stored)
            faults |= _not_finite("axis", stored, axes, self._root.get("axes"), faults)
            labels.faults |= {("axes", row): fault for row, fault in faults.items()}
            axes[list(faults)] = 0
            if not faults:
                labels.axes = describe(axes, task.stuck)
            acts |= axes.any(axis=1)
        shown = np.flatnonzero(acts)
        labels.pressed = (int(shown[0]), int(shown[-1])) if len(shown) else None
        given = [name for name in ("actions", "axes") if name in task.episode.arrays]
        labels.complete = task.length > 0 and set(given) <= set(task.arrays) and not labels.faults
        if task.length and "state" in task.arrays:
            state, faults = read_rows(task.episode, "state", task.length)
            names = self._root.get("attributes") or []
            narrow, changed = as_float32(state)
            if changed.any():
                fault = Fault("inexact", inexact(state, changed, names).split(";")[0])
                faults = dict.fromkeys(np.flatnonzero(changed.any(axis=1)).tolist(), fault) | faults
            whole = (np.rint(narrow) == narrow).all(axis=0) & (np.abs(narrow) >= 2**24).any(axis=0)
            labels.large = tuple(np.flatnonzero(whole & np.isfinite(narrow).all(axis=0)).tolist())
            faults |= _not_finite("state", state, narrow, names, faults)
            labels.faults |= {("state", row): fault for row, fault in faults.items()}
        return labels


def _not_finite(
    what: str, stored: np.ndarray, values: np.ndarray, names: list[str] | None, known: Collection[int]
) -> dict[int, Fault]:
    """The faults of rows, other than the ``known``, of which a value is not finite, by row."""
    found: dict[int, Fault] = {}
    for row, column in np.argwhere(~np.isfinite(values)):
        named = f"'{names[column]}'" if names and column < len(names) else f"column {column}"
        if row not in known:
            found.setdefault(int(row), Fault(f"{what}_value", f"{what} {named} is {stored[row, column]}"))
    return found


def read_actions(episode: EpisodeInfo, length: int, root: dict[str, Any]) -> tuple[np.ndarray, dict[int, Fault]]:
    """bool [length, A], the first rows, and what cannot be read of them.

    A missing chunk means that no button is pressed under the conditions of ``reader.read_actions``.
    """
    actions, faults = read_rows(episode, "actions", length)
    missing = [row for row, fault in faults.items() if fault.kind == "missing"]
    if missing and root.get("format") != reader.FORMAT:
        rows = episode.arrays["actions"].chunks[0]
        written = [actions[at : at + rows] for at in range(0, length, rows) if at not in faults]
        if written and all(chunk.any() for chunk in written):
            actions[missing] = False
            faults = {row: fault for row, fault in faults.items() if fault.kind != "missing"}
    return actions, faults


def open_rows(episode: EpisodeInfo, name: str) -> Array | Fault:
    """Opens an array, or returns what is wrong with all of it; a UserError where the dataset cannot be reached."""
    try:
        array = reader.open_array(episode, name)
    except UnknownCodec as error:
        return Fault("codec", str(error).split(":")[0])
    except reader.DAMAGE as error:
        return Fault("metadata", f"'{name}' cannot be opened ({_fault(error, episode).message})")
    if array.shape != (copied := episode.arrays[name].shape):
        return Fault("metadata", f"'{name}' has shape {array.shape}, its consolidated metadata has {copied}")
    return array


def read_blocks(
    episode: EpisodeInfo, array: Array, start: int, stop: int
) -> Iterator[tuple[int, np.ndarray, dict[int, Fault]]]:
    """Yields (first frame, uint8 [n, 3, H, W], frames that cannot be read); reads the next block meanwhile."""
    rows = episode.arrays["frames"].rows
    block = -(-max(1, BLOCK_BYTES // int(np.prod(array.shape[1:]))) // rows) * rows
    ahead = array[start : min(start + block, stop)].read()
    for at in range(start, stop, block):
        end = min(at + block, stop)
        this = ahead
        if end < stop:
            ahead = array[end : min(end + block, stop)].read()
        try:
            frames, faults = this.result(), {}
        except reader.DAMAGE:
            frames, faults = _chunk_by_chunk(episode, array, at, end, rows)
        yield at, frames, faults


def read_rows(episode: EpisodeInfo, name: str, length: int) -> tuple[np.ndarray, dict[int, Fault]]:
    """The first ``length`` rows, and faults by row; a row with a fault has no meaning."""
    array = open_rows(episode, name)
    if isinstance(array, Fault):
        columns = episode.arrays[name].shape[1]
        return np.zeros((length, columns), ARRAYS[name][0]), dict.fromkeys(range(length), array)
    try:
        return np.array(array[:length].read().result()), {}
    except reader.DAMAGE:
        return _chunk_by_chunk(episode, array, 0, length, episode.arrays[name].rows)


def _chunk_by_chunk(
    episode: EpisodeInfo, array: Array, start: int, stop: int, rows: int
) -> tuple[np.ndarray, dict[int, Fault]]:
    """Rows ``start`` to ``stop``, and faults by row; a row with a fault has no meaning."""
    values = np.zeros((stop - start, *array.shape[1:]), array.dtype.numpy_dtype)
    bounds = [start, *range((start // rows + 1) * rows, stop, rows), stop]
    reads = [(a, b, array[a:b].read()) for a, b in itertools.pairwise(bounds)]
    faults: dict[int, Fault] = {}
    for a, b, read in reads:
        try:
            values[a - start : b - start] = read.result()
        except reader.DAMAGE as error:
            faults |= dict.fromkeys(range(a, b), _fault(error, episode))
    return values, faults


def _fault(error: Exception, episode: EpisodeInfo) -> Fault:
    text = first_line(error)
    code = text.split(":")[0]
    if code == "NOT_FOUND" and text.endswith("is missing"):
        return Fault("missing", "missing")
    if code not in _DAMAGE and not isinstance(error, NotImplementedError):
        raise UserError(
            f"cannot read {episode.store.address}/{episode.name}: {text[:200]}; check permissions, network and "
            "credentials, and run it again"
        ) from error
    return Fault("damaged", text.split(";")[0].rsplit(": ", 1)[-1][:80])


def _hashes(frames: np.ndarray) -> np.ndarray:
    """uint64 [n]: the sum of each frame's words times odd random numbers.

    Several times as fast as a checksum: 0.06 ms for a frame of 288x512, where CRC-32 takes 0.27 ms.
    Frames that differ in one word always differ in their hash, others almost certainly.
    """
    flat = np.ascontiguousarray(frames).reshape(len(frames), -1)
    words = flat.view(np.uint64) if flat.shape[1] % 8 == 0 else flat.astype(np.uint64)
    return np.einsum("ij,j->i", words, _weights(words.shape[1]))


@lru_cache(maxsize=2)
def _weights(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2**64, count, np.uint64, endpoint=False) | np.uint64(1)


def _pooled(image: np.ndarray) -> np.ndarray:
    """float64 [3, 8, 8]: means of image [3, h, w] over a grid of cells; in small images pixels repeat."""
    for axis in (1, 2):
        size = image.shape[axis]
        edges = np.arange(COLOUR_GRID) * size // COLOUR_GRID
        cells = np.maximum(np.diff([*edges, size]), 1)
        image = np.add.reduceat(image, edges, axis=axis) / np.expand_dims(cells, tuple({0, 1, 2} - {axis}))
    return image
