"""Recorded sessions: folders with a video, the inputs, and values from the game's memory.

    SOURCE/                  or one session's folder itself
      NAME/
        video.mp4
        inputs.csv           timestamp_us, event_type, key_or_button
        memory_data.csv      timestamp_us and one column a state value; in every session or in none
        metadata.json        {"video_start_us": ...}, optional

All times are on one clock, in microseconds. The video's first frame is at ``video_start_us``, or at 0
without it; the later frames follow by their presentation time stamps. A button is pressed in a frame if
it was held at any moment from when the frame was shown until the next one was; the last frame is
assumed to be shown for the mean interval. The state of a frame is the last row at or before it.
"""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from BC_training.common.action import Action
from BC_training.common.errors import UserError, unknown
from BC_training.common.keybinds.file import Keybinds, read_keybinds
from BC_training.convert.identity import content_digest, sampled
from BC_training.convert.sessions import clock, coverage, held_buttons, tables
from BC_training.convert.sessions.folder import NAMES, find_file, session_names, unread
from BC_training.convert.sessions.held_buttons import list_buttons
from BC_training.convert.source import Options, Recording, Step
from BC_training.convert.state_values import kept_columns
from BC_training.convert.video import Video, frame_edges


@dataclass(frozen=True)
class Sessions:
    """A ``Source`` in which each session is an episode."""

    button_names: tuple[str, ...]
    attributes: tuple[str, ...]
    episodes: tuple[str, ...]
    folder: Path  # holds the sessions
    binds: Keybinds
    options: Options
    axis_names: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        unused = ", ".join(map(repr, self.binds.unused))
        return (f"the key binds' entries {unused} are not used; known are 'version' and 'actions'",) if unused else ()

    def digest(self, episode: str) -> str:
        """Covers what was recorded, but not metadata.json, which people correct."""
        folder, roles = self.folder / episode, ("video", "inputs", "memory")
        files = {role: file for role in roles if (file := find_file(folder, role)).exists()}
        return content_digest(piece for role, file in files.items() for piece in (role, *sampled(file)))

    def place(self, episode: str) -> Path:
        return self.folder / episode

    def read(self, episode: str) -> Recording:
        folder = self.folder / episode
        video_file, inputs_file = find_file(folder, "video"), find_file(folder, "inputs")
        memory_file, metadata_file = find_file(folder, "memory"), find_file(folder, "metadata")
        video, unit = Video(video_file), clock.UNITS[self.options.time_unit]
        notes = [*video.notes, *unread(folder)]
        length = float(video.times[-1]) + 1e6 / video.fps
        inputs = tables.read_inputs(inputs_file)
        begins = clock.video_start(metadata_file, inputs.times, length / unit)
        start = None if begins is None else begins * unit
        inputs = replace(inputs, times=inputs.times * unit)
        streams = [clock.input_stream(inputs_file, inputs)] if inputs.times.size else []
        memory = None
        if self.attributes or (memory_file.exists() and tables.memory_columns(memory_file)):
            memory = tables.read_memory(memory_file, self.attributes)
            memory = replace(memory, times=memory.times * unit)
            streams.append(clock.memory_stream(memory_file, memory.times))
            if memory.numbered:
                notes.append(f"the column of {memory_file.name} without a name is left out: it numbers the rows")
        notes += clock.check_unit(streams, self.options.time_unit, start, length, metadata_file)
        edges, indices = frame_edges((start or 0.0) + video.times, self.options.fps, video.tick, 1e6)
        for stream in streams:
            clock.require_overlap(stream, edges, start)
            notes += coverage.notes(stream, edges, self.options.allow_missing)
        buttons, guessed = held_buttons.identify(inputs, self.binds, inputs_file)
        notes += guessed
        inputs = replace(inputs, buttons=buttons)
        presses = [button for button, down in zip(buttons, inputs.down, strict=True) if down]
        unbound = [button for button in presses if button not in self.binds.columns]
        without = f"{len(unbound)} of {len(presses)} presses are of buttons without an action"
        if presses and len(unbound) == len(presses):
            names = f"pressed were {list_buttons(unbound)}; bound are {list_buttons(list(self.binds.columns))}"
            remedy = "name them alike in the key binds, or remove the session"
            raise UserError(f"{inputs_file}: {without}; {names}: {remedy}")
        if unbound:
            notes.append(f"{without} ({list_buttons(unbound)})")
        if inputs.left_out:
            count, types = sum(inputs.left_out.values()), ", ".join(inputs.left_out)
            notes.append(f"{count} {'event' if count == 1 else 'events'} of no button left out ({types})")
        actions, unmatched = held_buttons.held_actions(inputs, self.binds.columns, len(self.button_names), edges)
        held_buttons.require_both_halves(inputs, self.binds, unmatched, inputs_file)
        attrs: dict[str, Any] = {
            "recorded_fps": video.fps,
            "frame_interval_cv": float(np.std(np.diff(video.times)) * video.fps / 1e6),
            "unbound_presses": len(unbound),
            "unmatched_releases": sum(not down for _, _, down in unmatched),
        }
        if lost := sum(down for _, _, down in unmatched):
            attrs["unmatched_presses"] = lost
        state, first = None, 0
        if memory is not None:
            first = int(np.searchsorted(edges[1:], memory.times[0], side="right"))
            # The first row may come while the first kept frame is shown.
            rows = np.maximum(np.searchsorted(memory.times, edges[:-1], side="right") - 1, 0)
            state = memory.values[rows]
            attrs["frames_dropped_before_state"] = first
            if first:
                notes.append(f"the first {first} frames are left out: {memory_file.name} begins after them")
            attrs["state_age_max_s"] = float(np.max(edges[:-1][first:] - memory.times[rows[first:]])) / 1e6
        if unmatched:
            notes.append(held_buttons.describe_unmatched(unmatched, edges[first:], edges[0]))

        def steps() -> Iterator[Step]:
            for k, frame in enumerate(video.frames(indices[first:]), start=first):
                yield frame, Action.of(actions[k]), None if state is None else state[k]

        return Recording(self.options.fps or video.fps, steps(), attrs, tuple(notes))


def open_source(path: Path, options: Options) -> Sessions:
    """Finds the sessions at ``path`` and reads the key binds.

    Raises a UserError if these are missing or wrong, or the sessions have different memory columns.
    """
    if options.keybinds is None:
        raise UserError("--from sessions needs --keybinds FILE, the JSON that says which key is which action")
    keybinds = read_keybinds(options.keybinds)
    if not path.is_dir():
        raise UserError(f"{path} is not a folder: name the folder that holds the sessions")
    if options.time_unit not in clock.UNITS:
        raise unknown("unit of time", options.time_unit, clock.UNITS)
    folder, names = session_names(path.resolve())
    names.sort(key=_numeric_order)
    columns = _common_columns(folder, names)
    kept = tuple(columns[i] for i in kept_columns(columns, options.leave_out))
    return Sessions(keybinds.actions, kept, tuple(names), folder, keybinds, options)


def _common_columns(folder: Path, names: list[str]) -> tuple[str, ...]:
    """The memory columns, in the order of the first session; ``read`` raises for a file that cannot be read."""
    found: dict[str, tuple[str, ...]] = {}
    for name in names:
        with contextlib.suppress(UserError):
            find_file(folder / name, "inputs")  # raises where the folder is no session
            memory = find_file(folder / name, "memory")
            found[name] = tables.memory_columns(memory) if memory.exists() else ()
    first = next(iter(found), "")
    for name, columns in found.items():
        if set(columns) != set(found[first]):
            own, others = (", ".join(names) or "none" for names in (columns, found[first]))
            fault = f"{folder / name / NAMES['memory']} has the columns {own}, session {first} has {others}"
            raise UserError(f"{fault}: convert them apart, or add what is missing")
    return found.get(first, ())


def _numeric_order(name: str) -> list[Any]:
    """Sorts "s2" before "s10"."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name)]
