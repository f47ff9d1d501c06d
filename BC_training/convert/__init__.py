"""Recordings that are not zarr yet, made into a dataset.

Each kind of recording is a module with a function ``open_source(path, options) -> Source``.
"""

import contextlib
import importlib
import itertools
import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rich.console import Console

from BC_training.common import storage
from BC_training.common.errors import UserError, disk_full_is_user_error, unknown
from BC_training.common.preprocess import resize_frames
from BC_training.common.store import LocalStore
from BC_training.common.workers import run_tasks
from BC_training.common.writer import EpisodeWriter, next_number, recording

KINDS = {
    "sessions": "sessions",
    "lerobot": "lerobot",
    "minari": "hdf5",
    "robomimic": "hdf5",
    "doom-demo": "doom_demo",
}  # to the module that reads it

Step = tuple[np.ndarray, np.ndarray, np.ndarray | None]  # frame uint8 [3, H, W] RGB, action bool [A], state float32 [S]


@dataclass(frozen=True)
class Options:
    """What the user asked for.

    Attributes:
        kind: one of ``KINDS``.
        size: (H, W) of the frames to write, in pixels; None as they are.
        fps: frames per second to write; None as they are.
        keybinds: for ``sessions``, the JSON that maps keys to actions.
        iwad: for ``doom-demo``, the game's WAD.
        camera: where there are several, the one to use; None if there is one.
        pwads: for ``doom-demo``, the WADs that add to it, in the order of loading.
        time_unit: for ``sessions``, the unit of their times.
        allow_missing: for ``sessions``, whether much of the inputs, memory values or video may be missing.
    """

    kind: str
    size: tuple[int, int] | None = None
    fps: float | None = None
    keybinds: Path | None = None
    iwad: Path | None = None
    camera: str | None = None
    pwads: tuple[Path, ...] = ()
    time_unit: str = "us"
    allow_missing: bool = False


@dataclass(frozen=True)
class Recording:
    """One episode of a source.

    Attributes:
        fps: frames per second of ``steps``.
        steps: its frames in order, read as they are asked for.
        attrs: what else to remember of it, JSON types.
        notes: what to tell the user, each one line.
    """

    fps: float
    steps: Iterator[Step]
    attrs: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Source(Protocol):
    """Recordings found at a path. It is pickled into every process, so it holds no open file.

    Attributes:
        keys: the A actions.
        attributes: the S state values; empty without a state.
        episodes: the recordings' names, unique and the same in every run.

    It may have ``notes``: what to tell the user once, each one line.
    """

    keys: tuple[str, ...]
    attributes: tuple[str, ...]
    episodes: tuple[str, ...]

    def read(self, episode: str) -> Recording:
        """Opens a recording, at ``Options.fps`` if that is given.

        Raises:
            UserError: it is damaged; names what and where. ``steps`` may raise it, too.
        """
        ...


def every_nth(steps: Iterator[Step], recorded_fps: float, fps: float) -> Iterator[Step]:
    """Thins steps of a constant rate to ``fps``; a button held in a step left out is kept.

    The action of each step that stays is the union of its own and of those dropped after it.

    Raises:
        UserError: ``fps`` above the recorded rate.
    """
    if fps > recorded_fps:
        raise UserError(f"--fps {fps:g} is above the recording's {recorded_fps:g}: frames would be repeated; lower it")
    grouped = itertools.groupby(enumerate(steps), key=lambda item: int(item[0] * fps / recorded_fps + 1e-9))
    for _, group in grouped:
        _, (frame, action, state) = next(group)
        for _, (_, later, _) in group:
            action = action | later
        yield frame, action, state


def convert(source: Path, out: Path, options: Options, workers: int | None, console: Console) -> None:
    """Converts every recording at ``source``, in parallel processes, into the dataset ``out``.

    Recordings that are in ``out`` already are left out, so a run that was killed is continued by
    the same command. One that cannot be read does not keep the others from being written.

    Raises:
        UserError: the source cannot be read, nothing is in it, ``out`` holds other actions or
            another frame size, or some recordings were not converted (named, with the reason).
    """
    if options.kind not in KINDS:
        raise unknown("kind of recording", options.kind, KINDS)
    if not source.exists():
        raise UserError(f"no recordings at {source}: check the path")
    module = importlib.import_module(f"BC_training.convert.{KINDS[options.kind]}")
    opened: Source = module.open_source(source, options)
    if not opened.episodes:
        raise UserError(f"{source} holds no recordings of the kind '{options.kind}'")
    existing = _episodes(out)
    present = {episode.attrs.get("source") for episode in existing}
    missing = [name for name in opened.episodes if _label(source, name) not in present]
    if present:
        there = len(opened.episodes) - len(missing)
        console.print(f"{out}: {there} of {len(opened.episodes)} recordings are there", soft_wrap=True)
    if not missing:
        return
    with recording(out, opened.keys, opened.attributes), disk_full_is_user_error(out):
        first = next_number(out)
        size = existing[0].arrays["frames"].shape[2:] if existing else options.size or _frame_size(opened, missing)
        results = run_tasks(
            _Converter,
            (opened, source, out, options.size, size),
            [(first + i, name) for i, name in enumerate(missing)],
            workers or os.cpu_count() or 1,
            console,
            title="converting",
            unit=("frames", lambda result: result["frames"]),
        )
    for note in getattr(opened, "notes", ()):
        console.print(note, soft_wrap=True, markup=False)
    frames = sum(r["frames"] for r in results)
    for name, result in zip(missing, results, strict=True):
        for note in result["notes"]:
            console.print(f"{name}: {note}", soft_wrap=True, markup=False)
    pressed = [r["pressed"] for r in results if r["pressed"] is not None]
    if pressed and not (ever := np.any(pressed, axis=0)).all():
        never = ", ".join(key for key, was in zip(opened.keys, ever, strict=True) if not was)
        console.print(f"never pressed in what was converted: {never}", soft_wrap=True, markup=False)
    failed = [(name, r["error"]) for name, r in zip(missing, results, strict=True) if r["error"]]
    console.print(f"converted {len(missing) - len(failed)} recordings, {frames:,} frames, into {out}", soft_wrap=True)
    if failed:
        listed = "; ".join(f"{name}: {reason}" for name, reason in failed)
        raise UserError(f"{len(failed)} of {len(missing)} recordings of {source} were not converted ({listed})")


class _Converter:
    """One process's share of the work."""

    def __init__(self, source: Source, path: Path, out: Path, resize: tuple[int, int] | None, size: tuple[int, ...]):
        self._source, self._path, self._out, self._resize, self._size = source, path, out, resize, size

    def run(self, task: tuple[int, str]) -> dict[str, Any]:
        number, name = task
        writer = EpisodeWriter(self._out, number)
        try:
            recording = self._source.read(name)
            pressed = np.zeros(len(self._source.keys), bool)
            for frame, action, state in recording.steps:
                pressed |= action
                resized = frame if self._resize is None else resize_frames(frame[None], self._resize)[0]
                if resized.shape[1:] != self._size:
                    raise UserError(
                        f"its frames are {_pixels(resized.shape[1:])}, those of {self._out} {_pixels(self._size)}: "
                        f"add --size {_pixels(self._size)}"
                    )
                writer.append(resized, action, state)
            writer.commit({**recording.attrs, "fps": recording.fps, "source": _label(self._path, name)})
        except UserError as error:
            writer.abort()
            return {"frames": 0, "error": str(error), "notes": (), "pressed": None}
        except BaseException:
            writer.abort()
            raise
        return {"frames": writer.frame_count, "error": None, "notes": recording.notes, "pressed": pressed}

    def close(self) -> None:
        pass


def _episodes(out: Path) -> list[storage.EpisodeInfo]:
    """What ``out`` holds already."""
    if not os.access(out, os.F_OK):  # Path.exists raises where it may not look
        return []
    store = LocalStore(out)
    storage.read_root(store)
    episodes = storage.read_episodes(store, store.episode_names())
    return [episode for episode in episodes if isinstance(episode, storage.EpisodeInfo)]


def _label(source: Path, episode: str) -> str:
    """How a dataset remembers a recording; the folders tell the episode_0 of two sources apart."""
    return "/".join((*source.resolve().parts[-2:], episode))


def _frame_size(source: Source, episodes: list[str]) -> tuple[int, ...]:
    """(H, W) of the first recording that can be read; an error of all of them shows when they are converted."""
    for episode in episodes:
        with contextlib.suppress(UserError):
            steps = source.read(episode).steps
            try:
                for frame, _, _ in steps:
                    return frame.shape[1:]
            finally:
                if isinstance(steps, Generator):
                    steps.close()  # ends a decoder that it started
    return (0, 0)


def _pixels(size: tuple[int, ...]) -> str:
    return f"{size[0]}x{size[1]}"
