"""Recorded sessions: folders of a video, what was pressed, and what the game's memory held.

    SOURCE/                  or one session's folder itself
      NAME/
        video.mp4
        inputs.csv           timestamp_us, event_type, key_or_button
        memory_data.csv      timestamp_us and one column a state value; in every session or in none
        metadata.json        {"video_start_us": ...}, optional

One clock, in microseconds. The video's first frame is at ``video_start_us``, or at 0 without it;
the later frames follow by their presentation time stamps. A button is part of a frame's action if
it was held at any moment from when the frame was shown until the next one was; the last frame is
taken to be shown for the mean interval. The state of a frame is the last row at or before it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError

from BC_training.common.errors import UserError
from BC_training.convert import Options, Recording, Step
from BC_training.convert import session_files as files
from BC_training.convert.held_buttons import describe_unmatched, held_actions, identify, list_buttons
from BC_training.convert.keybinds import Keybinds, read_keybinds

VIDEO, INPUTS, MEMORY, METADATA = "video.mp4", "inputs.csv", "memory_data.csv", "metadata.json"


@dataclass(frozen=True)
class Sessions:
    """A ``Source`` of one episode a session."""

    keys: tuple[str, ...]
    attributes: tuple[str, ...]
    episodes: tuple[str, ...]
    folder: Path  # holds the sessions
    binds: Keybinds
    fps: float | None

    @property
    def notes(self) -> tuple[str, ...]:
        unused = ", ".join(map(repr, self.binds.unused))
        return (f"the key binds' entries {unused} are not used; known are 'version' and 'actions'",) if unused else ()

    def read(self, episode: str) -> Recording:
        folder = self.folder / episode
        video = Video(folder / VIDEO)
        start = files.read_video_start(folder / METADATA)
        inputs = files.read_inputs(folder / INPUTS)
        memory = files.read_memory(folder / MEMORY, self.attributes) if self.attributes else None
        shown = (start or 0.0) + video.times
        edges, indices = _frame_edges(video, shown, self.fps)
        streams = {INPUTS: inputs.times} | ({} if memory is None else {MEMORY: memory.times})
        for name, times in streams.items():
            _require_overlap(folder / name, times, edges, start)
        buttons, notes = identify(inputs, self.binds, folder / INPUTS)
        inputs = replace(inputs, buttons=buttons)
        presses = [button for button, down in zip(buttons, inputs.down, strict=True) if down]
        unbound = [button for button in presses if button not in self.binds.columns]
        without = f"{len(unbound)} of {len(presses)} presses are of buttons without an action"
        if presses and len(unbound) == len(presses):
            raise UserError(
                f"{folder / INPUTS}: {without}; pressed were {list_buttons(unbound)}; bound are "
                f"{list_buttons(list(self.binds.columns))}: name them alike in the key binds, or remove the session"
            )
        if unbound:
            notes.append(f"{without} ({list_buttons(unbound)})")
        if inputs.left_out:
            count, types = sum(inputs.left_out.values()), ", ".join(inputs.left_out)
            notes.append(f"{count} {'event' if count == 1 else 'events'} of no button left out ({types})")
        actions, unmatched = held_actions(inputs, self.binds.columns, len(self.keys), edges)
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
            rows = np.searchsorted(memory.times, edges[:-1], side="right") - 1
            first = int(np.searchsorted(edges[1:], memory.times[0], side="right"))
            rows = np.maximum(rows, 0)  # a first row that comes while the first kept frame is shown
            state = memory.values[rows]
            attrs["frames_dropped_before_state"] = first
            if first:
                notes.append(f"the first {first} frames are left out: {MEMORY} begins after them")
            attrs["state_age_max_s"] = float(np.max(edges[:-1][first:] - memory.times[rows[first:]])) / 1e6

        if unmatched:
            notes.append(describe_unmatched(unmatched, edges[first:], edges[0]))

        def steps() -> Iterator[Step]:
            for k, frame in enumerate(video.frames(indices[first:]), start=first):
                yield frame, actions[k], None if state is None else state[k]

        return Recording(self.fps or video.fps, steps(), attrs, tuple(notes))


def open_source(path: Path, options: Options) -> Sessions:
    """Finds the sessions at ``path`` and reads the key binds.

    Raises:
        UserError: no key binds or wrong ones, or sessions with different memory columns.
    """
    if options.keybinds is None:
        raise UserError("--from sessions needs --keybinds FILE, the JSON that says which key is which action")
    keybinds = read_keybinds(options.keybinds)
    if not path.is_dir():
        raise UserError(f"{path} is not a folder: name the folder that holds the sessions")
    path = path.resolve()
    if any((path / name).exists() for name in (VIDEO, INPUTS, MEMORY)):
        folder, names = path.parent, [path.name]
    else:
        # A dataset may have been written beside the sessions.
        found = (p for p in path.iterdir() if p.is_dir() and not (p / "zarr.json").exists())
        folder, names = path, sorted((p.name for p in found if not p.name.startswith(".")), key=_numeric_order)
    attributes = _common_columns(folder, names)
    return Sessions(keybinds.actions, attributes, tuple(names), folder, keybinds, options.fps)


class Video:
    """A video's frames and when they are shown.

    Attributes:
        times: float64 [N >= 2], microseconds since the first frame.
        tick: microseconds, the resolution of the time stamps.
        fps: the mean rate.

    Raises:
        UserError: it is missing, damaged, or has no two frames.
    """

    def __init__(self, path: Path):
        self._path = path
        if not path.exists():
            raise UserError(f"{path} is missing: restore it, or remove the session")
        try:
            with av.open(str(path)) as container:
                stream = _video_stream(container, path)
                packets = [(p.pts, p.is_corrupt, p.is_discard) for p in container.demux(stream) if p.size]
                announced, time_base = stream.frames, stream.time_base
        except FFmpegError as error:
            raise self._damaged(f"{error.strerror}") from error
        intact = sum(not corrupt for _, corrupt, _ in packets)
        if intact < max(announced, len(packets)):
            raise self._damaged(f"it ends after {intact} of {announced} frames")
        stamps = [pts for pts, _, discard in packets if not discard and pts is not None]
        if len(stamps) < 2 or time_base is None:
            raise UserError(f"{path} has {len(stamps)} frames with a time stamp, 2 are needed: remove the session")
        self._stamps = np.sort(np.array(stamps, np.int64))
        self.tick = float(time_base * 1_000_000)
        self.times = (self._stamps - self._stamps[0]) * self.tick
        if (repeated := np.flatnonzero(np.diff(self._stamps) == 0)).size:
            raise self._damaged(f"frames {repeated[0]} and {repeated[0] + 1} have the same time stamp")
        self.fps = (len(stamps) - 1) / self.times[-1] * 1e6

    def frames(self, indices: np.ndarray) -> Iterator[np.ndarray]:
        """Decodes the frames of those numbers, ascending, each uint8 [3, H, W] RGB; one is in memory."""
        last, shape, wanted = int(indices[-1]), None, 0
        try:
            with av.open(str(self._path)) as container:
                stream = _video_stream(container, self._path)
                stream.thread_type = "AUTO"
                stream.codec_context.options = {"err_detect": "explode"}  # else damage is painted over
                for k, decoded in enumerate(container.decode(stream)):
                    if k > last:
                        return
                    if decoded.pts != self._stamps[k] or decoded.is_corrupt:
                        raise self._damaged(f"frame {k} cannot be decoded")
                    if shape not in (None, (decoded.height, decoded.width)):
                        raise self._damaged(f"frame {k} has another size than those before")
                    shape = decoded.height, decoded.width
                    if indices[wanted] != k:
                        continue
                    frame = np.ascontiguousarray(decoded.to_ndarray(format="rgb24").transpose(2, 0, 1))
                    while wanted < len(indices) and indices[wanted] == k:
                        yield frame
                        wanted += 1
        except FFmpegError as error:
            raise self._damaged(f"{error.strerror}") from error
        if wanted < len(indices):
            raise self._damaged(f"only {indices[wanted]} of {len(self._stamps)} frames can be decoded")

    def _damaged(self, what: str) -> UserError:
        return UserError(f"{self._path} is damaged ({what}): restore it, re-encode it, or remove the session")


def _video_stream(container: Any, path: Path) -> Any:
    if not container.streams.video:
        raise UserError(f"{path} holds no video: restore it, or remove the session")
    return container.streams.video[0]


def _frame_edges(video: Video, shown: np.ndarray, fps: float | None) -> tuple[np.ndarray, np.ndarray]:
    """When each frame to write begins, and the last ends, [N + 1]; and which of the video's it is, [N].

    Raises:
        UserError: ``fps`` above the video's.
    """
    end = shown[-1] + 1e6 / video.fps
    if fps is None:
        return np.append(shown, end), np.arange(len(shown))
    # Time stamps are rounded to a tick, so a video of 30 frames/s may seem to have a little less.
    fastest = (len(shown) - 1) / max(video.times[-1] - 2 * video.tick, 1e-9) * 1e6
    if fps > fastest:
        raise UserError(
            f"--fps {fps:g} is above the {video.fps:.4g} of the session's video: frames would be repeated; lower it"
        )
    count = int(np.ceil((end - shown[0] - video.tick) * fps / 1e6))
    edges = shown[0] + np.arange(count + 1) * 1e6 / fps
    return edges, np.searchsorted(shown, edges[:-1] + video.tick, side="right") - 1


def _require_overlap(path: Path, times: np.ndarray, edges: np.ndarray, start: float | None) -> None:
    """Raises UserError if a stream lies wholly outside the video: then the clocks are not the same."""
    if not times.size or (times[0] < edges[-1] and (start is None or times[-1] >= edges[0])):
        return
    remedy = (
        f'add {METADATA} with {{"video_start_us": <timestamp of the first frame>}} to the session'
        if start is None
        else f"correct video_start_us in its {METADATA}"
    )
    raise UserError(
        f"{path} spans {times[0]:.0f} to {times[-1]:.0f} us, but the video {edges[0]:.0f} to {edges[-1]:.0f}: {remedy}"
    )


def _common_columns(folder: Path, names: list[str]) -> tuple[str, ...]:
    """The memory attributes, in the order of the first session."""
    if not names:
        return ()
    found = [files.memory_columns(folder / n / MEMORY) if (folder / n / MEMORY).exists() else () for n in names]
    for name, columns in zip(names, found, strict=True):
        if set(columns) != set(found[0]):
            raise UserError(
                f"{folder / name / MEMORY} has the columns {', '.join(columns) or 'none'}, session {names[0]} "
                f"has {', '.join(found[0]) or 'none'}: convert them apart, or add what is missing"
            )
    return found[0]


def _numeric_order(name: str) -> list[Any]:
    """Sorts "s2" before "s10"."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name)]
