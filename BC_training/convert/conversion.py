"""Converts recordings of any kind into a dataset, one by one, so that a damaged one costs only itself."""

import contextlib
import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import compress
from pathlib import Path

import numpy as np
from rich.console import Console

from BC_training.common.errors import UserError, first_line
from BC_training.common.files import disk_full_is_user_error
from BC_training.common.preprocess import resize_frames
from BC_training.common.storage.writer import EpisodeWriter, Names, existing_episodes, is_unused, next_number, recording
from BC_training.convert import identity, open_source
from BC_training.convert.source import Options, Recording, Source, Step, print_line
from BC_training.runtime.workers import run_tasks


def convert(source: Path, out: Path, options: Options, workers: int | None, console: Console) -> None:
    """Converts every recording at ``source``, in parallel processes, into the dataset ``out``.

    Recordings that ``out`` already holds are skipped, so the same command continues a run that was killed.
    Raises a UserError if the source cannot be read or is empty, or ``out`` holds other buttons or axes. A recording
    that cannot be read does not keep the others from being written: the error at the end names it with the reason.
    """
    if not source.exists():
        raise UserError(f"no recordings at {source}: check the path")
    if options.kind == "sessions" and out.is_dir() and is_unused(out) and out.resolve().parent == source.resolve():
        raise UserError(f"{out} is an empty folder among the sessions and would count as one: remove it")
    opened = open_source(source, options)
    if not opened.episodes:
        raise UserError(f"{source} holds no recordings of the kind '{options.kind}'")
    existing = existing_episodes(out)
    recordings = [
        (name, _readable_digest(opened, name) if existing else None, opened.place(name)) for name in opened.episodes
    ]
    missing, notes = identity.missing(recordings, [episode.attrs for episode in existing], out)
    if existing:
        there = len(opened.episodes) - len(missing)
        notes = [f"{out}: {there} of {len(opened.episodes)} recordings are there", *notes]
    for note in notes:
        print_line(console, note)
    if not missing:
        return
    with recording(out, Names(opened.button_names, opened.axis_names, opened.attributes)), disk_full_is_user_error(out):
        first = next_number(out)
        size = existing[0].arrays["frames"].shape[2:] if existing else options.size or _frame_size(opened, missing)
        results: list[Result] = run_tasks(
            Converter,
            (opened, source, out, options, size),
            [(first + i, name) for i, name in enumerate(missing)],
            workers or os.cpu_count() or 1,
            console,
            title="converting",
            unit=("frames", lambda result: result.frames),
        )
    notes = [*getattr(opened, "notes", ())]
    notes += [f"{name}: {note}" for name, result in zip(missing, results, strict=True) for note in result.notes]
    converted, frames = sum(result.frames > 0 for result in results), sum(result.frames for result in results)
    used = frozenset().union(*(result.used for result in results))
    for done, names in (("pressed", opened.button_names), ("moved", opened.axis_names)):
        if frames and (never := [name for name in names if name not in used]):
            notes.append(f"never {done} in what was converted: {', '.join(never)}")
    for note in (*notes, f"converted {converted} recordings, {frames:,} frames, into {out}"):
        print_line(console, note)
    failed = [f"{name}: {result.error}" for name, result in zip(missing, results, strict=True) if result.error]
    if failed:
        listed = "; ".join(failed)
        raise UserError(f"{len(failed)} of {len(missing)} recordings of {source} were not converted ({listed})")


@dataclass(frozen=True)
class Result:
    """The outcome of one recording."""

    frames: int = 0  # how many were written
    notes: tuple[str, ...] = ()  # what to tell the user, one line each
    used: frozenset[str] = frozenset()  # the buttons that were pressed, and the axes that moved, in any frame
    error: str | None = None  # why it was not converted


class Converter:
    """Converts recordings in one process."""

    def __init__(self, source: Source, path: Path, out: Path, options: Options, size: tuple[int, ...]):
        self._source, self._path, self._out, self._size = source, path, out, size
        self._resize, self._video = options.size, options.video

    def run(self, task: tuple[int, str]) -> Result:
        number, name = task
        writer = None
        try:
            with _damage_is_user_error():
                recording = self._source.read(name)
            writer = EpisodeWriter(self._out, number, recording.fps if self._video else None)
            names = (*self._source.button_names, *self._source.axis_names)
            used = np.zeros(len(names), bool)
            for frame, action, state in _steps(recording):
                used |= np.concatenate([action.buttons, action.axes != 0])
                resized = frame if self._resize is None else resize_frames(frame[None], self._resize)[0]
                if resized.shape[1:] != self._size:
                    own, size = ("x".join(map(str, pixels)) for pixels in (resized.shape[1:], self._size))
                    raise UserError(f"its frames are {own}, those of {self._out} {size}: add --size {size}")
                writer.append(resized, action, state)
            if writer.frame_count == 0:
                return Result(notes=(*recording.notes, "left out, it has no frame"))
            with _damage_is_user_error():
                digest, place = self._source.digest(name), self._source.place(name)
            known_by = identity.describe(self._path, name, digest, place, self._out)
            writer.commit({**recording.attrs, "fps": recording.fps, **known_by})
            return Result(writer.frame_count, recording.notes, frozenset(compress(names, used)))
        except UserError as error:
            return Result(error=str(error))
        finally:
            if writer is not None:
                writer.abort()  # leaves what is committed

    def close(self) -> None:
        pass


def _readable_digest(source: Source, episode: str) -> str | None:
    """A recording's digest; None if it is damaged, and then its error appears in the conversion."""
    with contextlib.suppress(UserError), _damage_is_user_error():
        return source.digest(episode)
    return None


def _frame_size(source: Source, episodes: list[str]) -> tuple[int, ...]:
    """(H, W) of the first readable recording; (0, 0) if none is, and then the errors appear in the conversion."""
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


@contextlib.contextmanager
def _damage_is_user_error() -> Iterator[None]:
    """Turns what a library raises for one damaged recording into a UserError, so that the others are converted."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise UserError(f"it cannot be read ({reason}): restore it, or remove it") from error


def _steps(recording: Recording) -> Iterator[Step]:
    with _damage_is_user_error():
        yield from recording.steps
