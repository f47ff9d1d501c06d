"""Recordings of windows, labelled again from what was pressed: with other keybinds, a shift, or at a lower rate.

The source is a dataset whose episodes have ``events.parquet``; see ``play/live/events.py``.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from BC_training.common.action import Action
from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.errors import UserError
from BC_training.convert.identity import content_digest, sampled
from BC_training.convert.source import Options, Recording, Step
from BC_training.play.live.events import EVENTS, Events
from BC_training.play.live.labels import AUTO, Binding

_BLOCK = 64  # frames read at once


@dataclass(frozen=True)
class WindowRecordings:
    """See ``source.Source``; axes add up over the frames that are left out, and each frame keeps its state."""

    path: Path
    episodes: tuple[str, ...]
    binding: Binding
    fps: float | None
    shift: float
    attributes: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def button_names(self) -> tuple[str, ...]:
        return self.binding.buttons

    @property
    def axis_names(self) -> tuple[str, ...]:
        return self.binding.axes

    def digest(self, episode: str) -> str:
        return content_digest(sampled(self.place(episode) / EVENTS))

    def place(self, episode: str) -> Path:
        return self.path / episode

    def read(self, episode: str) -> Recording:
        dataset = ZarrGameplayDataset(self.path)
        number = dataset.find([episode])[0]
        info = dataset.episodes[number]
        recorded = info.fps
        if recorded is None:
            raise UserError("it does not say its frames per second: restore its attributes")
        rate = self.fps or recorded
        if rate > recorded:
            raise UserError(f"--fps {rate:g} is above the recording's {recorded:g}: lower it")
        events = Events.read(self.place(episode) / EVENTS)
        frames, edges = thinned(events, info.length, recorded, rate)
        state = dataset.state(number)[frames] if self.attributes else np.zeros((len(frames), 0), np.float32)
        known = np.searchsorted(edges[1:] + self.shift / rate, edges[-1], "right")
        buttons, axes = self.binding.label(events, edges[: known + 1] + self.shift / rate)

        def steps() -> Iterator[Step]:
            for start in range(0, known, _BLOCK):
                rows = slice(start, min(start + _BLOCK, known))
                images = dataset.frames(number, frames[rows])
                for image, pressed, moved, values in zip(images, buttons[rows], axes[rows], state[rows], strict=True):
                    yield image, Action(pressed, moved), values

        kept = {key: value for key, value in info.attrs.items() if key in ("player", "label", "game", "recorded")}
        return Recording(rate, steps(), kept)


def open_source(path: Path, options: Options) -> WindowRecordings:
    """Finds the episodes with events; a UserError where there are none, or the keybinds cannot be used."""
    if options.keybinds is None:
        raise UserError("--from events needs --keybinds FILE, or --keybinds auto for every key that was pressed")
    if not 0 <= options.shift < math.inf:
        raise UserError(f"--shift {options.shift:g} is no number of frames from 0 on")
    dataset = ZarrGameplayDataset(path)
    names = [info.name for info in dataset.episodes]
    episodes = tuple(name for name in names if (path / name / EVENTS).exists())
    if not episodes:
        raise UserError(f"{path} has no episode with {EVENTS}: only recordings of a window have it")
    others = len(names) - len(episodes)
    if options.keybinds == AUTO:
        binding = Binding.auto([Events.read(path / name / EVENTS) for name in episodes])
    else:
        binding = Binding.from_file(options.keybinds)
    notes = (f"{others} episodes without {EVENTS} are left out",) if others else ()
    return WindowRecordings(path, episodes, binding, options.fps, options.shift, dataset.state_names, notes)


def thinned(events: Events, length: int, recorded: float, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Chooses frames for a lower rate, so that a gap in the recording stays as long as it was.

    Args:
        events: with at least ``length`` + 1 frames.
        recorded, rate: frames per second.

    Returns:
        The n frames to keep, and the n + 1 moments at which they begin and the last one ends.
    """
    times = events.frame_times
    if len(times) <= length:
        raise UserError(f"its {EVENTS} knows {len(times)} frames, the episode has {length}: restore it")
    moments = events.frame_moments[:length]
    moments = np.round((moments - moments[0]) * recorded)
    _, frames = np.unique(np.floor(moments * rate / recorded + 1e-9), return_index=True)
    return frames, np.append(times[frames], times[length])
