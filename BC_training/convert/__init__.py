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
from BC_training.common.writer import EpisodeWriter, is_unused, next_number, recording, require_dataset
from BC_training.convert import identity

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
        leave_out: names of state values that are not to be converted.
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
    leave_out: tuple[str, ...] = ()
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

    def digest(self, episode: str) -> str:
        """``identity.content_digest`` of a recording's raw content, without decoding it.

        It is the same wherever the source lies.

        Raises:
            UserError: it is damaged.
        """
        ...

    def place(self, episode: str) -> Path:
        """The file or folder that goes where the recording goes."""
        ...

    def read(self, episode: str) -> Recording:
        """Opens a recording, at ``Options.fps`` if that is given; one without a frame has no steps.

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
    if options.kind == "sessions" and out.is_dir() and is_unused(out) and out.resolve().parent == source.resolve():
        raise UserError(f"{out} is an empty folder among the sessions and would count as one: remove it")
    module = importlib.import_module(f"BC_training.convert.{KINDS[options.kind]}")
    opened: Source = module.open_source(source, options)
    if not opened.episodes:
        raise UserError(f"{source} holds no recordings of the kind '{options.kind}'")
    _require_names(source, "action", opened.keys)
    _require_names(source, "state value", opened.attributes)
    existing = _episodes(out)
    recordings = [(name, _digest(opened, name) if existing else None, opened.place(name)) for name in opened.episodes]
    missing, told = identity.missing(source, recordings, [episode.attrs for episode in existing], out)
    if existing:
        there = len(opened.episodes) - len(missing)
        _say(console, f"{out}: {there} of {len(opened.episodes)} recordings are there")
    for line in told:
        _say(console, line)
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
        _say(console, note)
    frames = sum(r["frames"] for r in results)
    for name, result in zip(missing, results, strict=True):
        for note in result["notes"]:
            _say(console, f"{name}: {note}")
    pressed = [r["pressed"] for r in results if r["pressed"] is not None]
    if pressed and not (ever := np.any(pressed, axis=0)).all():
        never = ", ".join(key for key, was in zip(opened.keys, ever, strict=True) if not was)
        _say(console, f"never pressed in what was converted: {never}")
    failed = [(name, r["error"]) for name, r in zip(missing, results, strict=True) if r["error"]]
    converted = sum(r["frames"] > 0 for r in results)
    _say(console, f"converted {converted} recordings, {frames:,} frames, into {out}")
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
            with _damage_is_user_error():
                recording = self._source.read(name)
            pressed = np.zeros(len(self._source.keys), bool)
            for frame, action, state in _steps(recording):
                pressed |= action
                resized = frame if self._resize is None else resize_frames(frame[None], self._resize)[0]
                if resized.shape[1:] != self._size:
                    raise UserError(
                        f"its frames are {_pixels(resized.shape[1:])}, those of {self._out} {_pixels(self._size)}: "
                        f"add --size {_pixels(self._size)}"
                    )
                writer.append(resized, action, state)
            if writer.frame_count == 0:
                notes = (*recording.notes, "left out, it has no frame")
                return {"frames": 0, "error": None, "notes": notes, "pressed": None}
            with _damage_is_user_error():
                digest, place = self._source.digest(name), self._source.place(name)
            known_by = identity.describe(self._path, name, digest, place, self._out)
            writer.commit({**recording.attrs, "fps": recording.fps, **known_by})
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
    if is_unused(out):
        return []
    require_dataset(out)
    store = LocalStore(out)
    storage.read_root(store)
    episodes = storage.read_episodes(store, store.episode_names())
    return [episode for episode in episodes if isinstance(episode, storage.EpisodeInfo)]


def _digest(source: Source, episode: str) -> str | None:
    """None for a recording that is damaged, which shows when it is converted."""
    with contextlib.suppress(UserError), _damage_is_user_error():
        return source.digest(episode)
    return None


@contextlib.contextmanager
def _damage_is_user_error() -> Iterator[None]:
    """Turns what a library raises for one damaged recording into a UserError: the others are to be converted."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "")[:200]
        raise UserError(f"it cannot be read ({type(error).__name__}: {reason}): restore it, or remove it") from error


def _steps(recording: Recording) -> Iterator[Step]:
    with _damage_is_user_error():
        yield from recording.steps


def _require_names(source: Path, what: str, names: tuple[str, ...]) -> None:
    """Raises a UserError unless the names of a dataset's columns are different and say something."""
    for i, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            raise UserError(f"{source}: {what} {i + 1} of {len(names)} has the name {name!r}: name it in the source")
        if (first := names.index(name)) < i:
            raise UserError(f"{source}: {what}s {first + 1} and {i + 1} are both called '{name}': rename one")


def _frame_size(source: Source, episodes: list[str]) -> tuple[int, ...]:
    """(H, W) of the first recording that can be read; an error of all of them shows when they are converted."""
    for episode in episodes:
        with contextlib.suppress(UserError), _damage_is_user_error():
            steps = source.read(episode).steps
            try:
                for frame, _, _ in steps:
                    return frame.shape[1:]
            finally:
                if isinstance(steps, Generator):
                    steps.close()  # ends a decoder that it started
    return (0, 0)


def _say(console: Console, line: str) -> None:
    console.print(line, soft_wrap=True, markup=False, emoji=False)  # paths may hold [brackets] and :words:


def _pixels(size: tuple[int, ...]) -> str:
    return f"{size[0]}x{size[1]}"
