"""Recordings that are not zarr yet, made into a dataset.

Each kind of recording is a module with a function ``open_source(path, options) -> Source``.
"""

import importlib
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rich.console import Console

from BC_training.common import storage
from BC_training.common.errors import UserError, disk_full_is_user_error, unknown
from BC_training.common.preprocess import resize_frames
from BC_training.common.workers import run_tasks

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
        pwads: for ``doom-demo``, the WADs that add to it, in the order of loading.
    """

    kind: str
    size: tuple[int, int] | None = None
    fps: float | None = None
    keybinds: Path | None = None
    iwad: Path | None = None
    pwads: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Recording:
    """One episode of a source.

    Attributes:
        fps: frames per second of ``steps``.
        steps: its frames in order, read as they are asked for.
        attrs: what else to remember of it, JSON types.
    """

    fps: float
    steps: Iterator[Step]
    attrs: dict[str, Any] = field(default_factory=dict)


class Source(Protocol):
    """Recordings found at a path. It is pickled into every process, so it holds no open file.

    Attributes:
        keys: the A actions.
        attributes: the S state values; empty without a state.
        episodes: the recordings' names, unique and the same in every run.
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
    present = _converted(out)
    missing = [name for name in opened.episodes if name not in present]
    if present:
        console.print(f"{out}: {len(opened.episodes) - len(missing)} of {len(opened.episodes)} recordings are there")
    if not missing:
        return
    with storage.recording(out, opened.keys, opened.attributes), disk_full_is_user_error(out):
        first = max((number for number, _ in storage.episode_paths(out)), default=-1) + 1
        results = run_tasks(
            _Converter,
            (opened, out, options.size),
            [(first + i, name) for i, name in enumerate(missing)],
            workers or os.cpu_count() or 1,
            console,
            title="converting",
            unit=("frames", lambda result: result["frames"]),
        )
    frames = sum(r["frames"] for r in results)
    failed = [(name, r["error"]) for name, r in zip(missing, results, strict=True) if r["error"]]
    console.print(f"converted {len(missing) - len(failed)} recordings, {frames:,} frames, into {out}", soft_wrap=True)
    if failed:
        listed = "; ".join(f"{name}: {reason}" for name, reason in failed)
        raise UserError(f"{len(failed)} of {len(missing)} recordings of {source} were not converted ({listed})")


class _Converter:
    """One process's share of the work."""

    def __init__(self, source: Source, out: Path, size: tuple[int, int] | None):
        self._source, self._out, self._size = source, out, size

    def run(self, task: tuple[int, str]) -> dict[str, Any]:
        number, name = task
        writer = storage.EpisodeWriter(self._out, number)
        try:
            recording = self._source.read(name)
            for frame, action, state in recording.steps:
                resized = frame if self._size is None else resize_frames(frame[None], self._size)[0]
                writer.append(resized, action, state)
            writer.commit({**recording.attrs, "fps": recording.fps, "source": name})
        except UserError as error:
            writer.abort()
            return {"frames": 0, "error": str(error)}
        except BaseException:
            writer.abort()
            raise
        return {"frames": writer.frame_count, "error": None}

    def close(self) -> None:
        pass


def _converted(out: Path) -> set[str]:
    """The names of the recordings that ``out`` holds already."""
    if not out.exists():
        return set()
    storage.read_root(out)
    episodes = [storage.read_episode(number, path) for number, path in storage.episode_paths(out)]
    return {episode.attrs["source"] for episode in episodes if "source" in episode.attrs}
