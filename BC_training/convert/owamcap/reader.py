"""Recordings of ocap, of open-world-agents: an MCAP file of what was pressed, and a video beside it.

A frame is shown from its moment until that of the next one. Without a rate that is asked for, the frames are those that
the recorder took, and the rate is their mean one.
"""

import contextlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from BC_training.common.action import Action
from BC_training.common.errors import UserError
from BC_training.convert.identity import content_digest, sampled
from BC_training.convert.owamcap.file import OwaMcap, read_mcap
from BC_training.convert.source import Options, Recording, Step
from BC_training.convert.video import Video, frame_edges
from BC_training.play.human.session import ranges
from BC_training.play.live.labels import AUTO, Binding

_MISSING = 0.25  # the share of pictures that the video may lack
_TICK = 1e-3  # seconds; Matroska's times are whole milliseconds


@dataclass(frozen=True)
class OwaMcaps:
    """See ``source.Source``."""

    files: dict[str, Path]  # by the recordings' names
    binding: Binding
    options: Options
    attributes: tuple[str, ...] = ()

    @property
    def button_names(self) -> tuple[str, ...]:
        return self.binding.buttons

    @property
    def axis_names(self) -> tuple[str, ...]:
        return self.binding.axes

    @property
    def episodes(self) -> tuple[str, ...]:
        return tuple(self.files)

    def digest(self, episode: str) -> str:
        return content_digest(sampled(self.files[episode]))

    def place(self, episode: str) -> Path:
        return self.files[episode]

    def read(self, episode: str) -> Recording:
        taken = read_mcap(self.files[episode])
        if not taken.video.exists():
            raise UserError(f"its video {taken.video} is missing: put it there, or remove the recording")
        video = Video(taken.video)
        times, pictures, missing = _found(taken, video, self.options.allow_missing)
        edges, indices = frame_edges(times, self.options.fps, _TICK)
        buttons, axes = self.binding.label(taken.events, edges)
        notes = [*taken.notes, *video.notes]
        if missing:
            notes.append(f"{missing:,} pictures of {len(taken.times):,} are not in {taken.video.name} and left out")
        if unbound := self.binding.unbound(taken.events):
            notes.append(f"pressed, and bound to nothing: {', '.join(unbound)}")
        away = np.zeros(len(indices), bool)
        for start, end in taken.away:
            away |= (edges[1:] > start) & (edges[:-1] < end)
        recorded = (len(times) - 1) / (times[-1] - times[0])
        attrs = {
            "recorded_fps": recorded,
            "frame_interval_cv": float(np.std(np.diff(times)) * recorded),
            "repaired_events": taken.repaired,
            "unfocused": ranges(away.tolist()),
        }

        def steps() -> Iterator[Step]:
            for image, pressed, moved in zip(video.frames(pictures[indices]), buttons, axes, strict=True):
                yield image, Action(pressed, moved), None

        title = {} if taken.window is None else {"window": taken.window}
        return Recording(self.options.fps or recorded, steps(), attrs | title, tuple(notes))


def open_source(path: Path, options: Options) -> OwaMcaps:
    """Finds the files at a path, one of them or a folder; a UserError where the keybinds cannot be used."""
    if importlib.util.find_spec("mcap") is None:
        raise UserError("--from owamcap needs the package mcap: install it with 'uv sync --extra owamcap'")
    if options.keybinds is None:
        raise UserError("--from owamcap needs --keybinds FILE, or --keybinds auto for every key that was pressed")
    found = sorted(path.rglob("*.mcap")) if path.is_dir() else [path]
    files = {(f.relative_to(path).with_suffix("") if path.is_dir() else Path(f.stem)).as_posix(): f for f in found}
    if options.keybinds != AUTO:
        return OwaMcaps(files, Binding.from_file(options.keybinds), options)
    recorded = []
    for file in found:
        with contextlib.suppress(UserError):  # its error appears in the conversion
            recorded.append(read_mcap(file).events)
    binding = Binding.auto(recorded)
    if recorded and not any(binding.names):
        raise UserError(f"in {path} no key was pressed and the mouse was not moved: there is nothing to learn")
    return OwaMcaps(files, binding, options)


def _found(taken: OwaMcap, video: Video, allow_missing: bool) -> tuple[np.ndarray, np.ndarray, int]:
    """Finds the pictures in the video.

    Returns:
        The times of those that are there, float64 [n >= 2] s, their frames in the video, and how many others there are.
    """
    shown = (video.begins + video.times) / 1e6
    nearest = np.searchsorted((shown[1:] + shown[:-1]) / 2, taken.stamps)
    there = np.abs(shown[nearest] - taken.stamps) <= 0.5 / video.fps + _TICK
    missing = int((~there).sum())
    if there.sum() < 2 or (missing > _MISSING * len(there) and not allow_missing):
        lasts = f"its video {taken.video} shows {shown[0]:.1f} to {shown[-1]:.1f} s"
        wanted = f"{missing:,} of {len(there):,} pictures, of {taken.stamps.min():.1f} to {taken.stamps.max():.1f} s"
        raise UserError(f"{lasts} and lacks {wanted}: restore it, or add --allow-missing to use the rest")
    if (np.diff(nearest[there]) < 0).any() or (np.diff(taken.times[there]) <= 0).any():
        raise UserError(
            f"{taken.video.name} and its MCAP file have the pictures in another order: remove the recording"
        )
    return taken.times[there], nearest[there], missing
