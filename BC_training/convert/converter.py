"""Recordings read one by one, so that what is damaged in one does not keep the others from being written."""

import contextlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from BC_training.common.errors import UserError, first_line
from BC_training.common.preprocess import resize_frames
from BC_training.common.storage.writer import EpisodeWriter
from BC_training.convert import identity
from BC_training.convert.source import Recording, Source, Step


class Converter:
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


def readable_digest(source: Source, episode: str) -> str | None:
    """None for a recording that is damaged, which shows when it is converted."""
    with contextlib.suppress(UserError), _damage_is_user_error():
        return source.digest(episode)
    return None


def frame_size(source: Source, episodes: list[str]) -> tuple[int, ...]:
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


@contextlib.contextmanager
def _damage_is_user_error() -> Iterator[None]:
    """Turns what a library raises for one damaged recording into a UserError: the others are to be converted."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"it cannot be read ({type(error).__name__}: {first_line(error)}): restore it, or remove it"
        ) from error


def _steps(recording: Recording) -> Iterator[Step]:
    with _damage_is_user_error():
        yield from recording.steps


def _pixels(size: tuple[int, ...]) -> str:
    return f"{size[0]}x{size[1]}"
