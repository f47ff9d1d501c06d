"""An episode of a person's window: on the disk while it is recorded, and finished from there.

In the folder of an episode in progress are what ``finish`` needs and nothing else: ``recording.json``, the table of
events, and the frames, as files of a video or as an array. So what a kill leaves is finished as any other.
"""

import contextlib
import json
import math
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from av.error import FFmpegError
from jaxtyping import UInt8

from BC_training.common.errors import UserError, first_line
from BC_training.common.files import disk_full_is_user_error, read_json_object, write_whole
from BC_training.common.storage.array_writer import ArrayWriter, FrameWriter
from BC_training.common.storage.video import VIDEO
from BC_training.common.storage.video_writer import LiveVideo, join, segments, whole_frames
from BC_training.common.storage.writer import LIVE, live_leftovers, publish
from BC_training.games.window.game import letterboxed
from BC_training.play.human.session import ranges
from BC_training.play.live.events import EVENTS, Event, EventLog, Events, read_log
from BC_training.play.live.labels import Binding
from BC_training.play.live.state import state_of_frames

_HEADER, _LOG = "recording.json", "events.arrow"
_FLUSH_SECONDS = 1.0  # between two writes of the events
_LIVE_SECONDS = 4.0  # of frames in a file of an array
_WAITING = 32  # pictures that may wait for the disk, 0.1 GiB of 1280x720
_LATE = 0.25  # of a frame


class LiveEpisode:
    """Writes an episode in progress; the disk is written to in a thread of its own.

    Args:
        dataset: open for recording.
        size: (H, W) of the frames in pixels.
        fps: frames per second.
        attrs: of the episode.
        lossless: frames become an array and not a video.

    Attributes:
        frames: how many were taken.
        late: how many of them more than a quarter of a frame after their moment.
        dropped: how many were left out, as the machine was too slow.
    """

    def __init__(self, dataset: Path, size: tuple[int, int], fps: float, attrs: dict[str, Any], lossless: bool):
        number = len(live_leftovers(dataset))
        while (folder := dataset / f"{LIVE}{number:06d}-{os.getpid()}").exists():
            number += 1
        self.folder, self._size, self._fps = folder, size, fps
        self.frames = self.late = self.dropped = 0
        folder.mkdir()
        write_whole(folder / _HEADER, json.dumps({"fps": fps, "lossless": lossless, "attrs": attrs}))
        self._log = EventLog(folder / _LOG)
        self._video: LiveVideo | _LiveArray = _LiveArray(folder, fps) if lossless else LiveVideo(folder, fps)
        self._rows: list[Event] = []
        self._flushed, self._broken = -math.inf, list[Callable[[Any], None]]()
        self._thread, self._jobs = ThreadPoolExecutor(1), deque[Future[None]]()

    def note(self, rows: Sequence[Event]) -> None:
        """Adds what happened."""
        self._rows += rows

    def frame(self, time: float, late: float, missed: int, picture: UInt8[np.ndarray, "h w 3"]) -> None:
        """Adds a frame, unless too many wait for the disk.

        Args:
            time: when the picture was taken.
            late: by how many seconds that was after its moment.
            missed: the moments that were left out before it.

        Raises:
            UserError: frames or events cannot be written, as the encoder or the disk fails.
        """
        while self._jobs and self._jobs[0].done():
            self._jobs.popleft().result()
        self.dropped += missed
        if len(self._jobs) < _WAITING:
            self._rows.append(Event(time, "frame", x=late))
            self.frames, self.late = self.frames + 1, self.late + (late > _LATE / self._fps)
            self._submit(self._write, picture)
        else:
            self.dropped += 1
        if time - self._flushed >= _FLUSH_SECONDS:
            self._flush()
            self._flushed = time

    def _write(self, picture: UInt8[np.ndarray, "h w 3"]) -> None:
        self._video.append(letterboxed(picture, self._size))

    def _flush(self) -> None:
        self._submit(self._log.write, self._rows)
        self._rows = []

    def _submit(self, job: Callable[[Any], None], what: Any) -> None:
        self._jobs.append(self._thread.submit(self._do, job, what))

    def _do(self, job: Callable[[Any], None], what: Any) -> None:
        if job not in self._broken:  # a frame after one that is missing would stand for that
            self._broken.append(job)
            with self._faults_are_user_errors():
                job(what)
            self._broken.remove(job)

    @contextlib.contextmanager
    def _faults_are_user_errors(self) -> Iterator[None]:
        """The thread's, of the encoder and of the disk; what has been written before is kept."""
        try:
            with disk_full_is_user_error(self.folder.parent):
                yield
        except (FFmpegError, OSError, MemoryError) as error:
            raise UserError(
                f"the frames cannot be written any more ({first_line(error)}): what came before is kept; see that the "
                f"disk that holds {self.folder.parent} is well, or record with another size or --lossless"
            ) from error

    def close(self) -> None:
        """Waits until all is on the disk. Errors are those of ``frame``; what was written before them is kept."""
        self._flush()
        self._thread.shutdown()
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._faults_are_user_errors())
            stack.callback(self._log.close)
            stack.callback(self._video.close)  # also where a job failed: it writes what it can
            for job in self._jobs:
                job.result()

    def discard(self) -> None:
        """Closes and removes it."""
        try:
            self.close()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)


class _LiveArray:
    """Frames as an array, of which a kill leaves all but the last seconds."""

    def __init__(self, folder: Path, fps: float):
        self._folder, self._count = folder, math.ceil(_LIVE_SECONDS * fps)
        self._writer: FrameWriter | None = None

    def append(self, frame: np.ndarray) -> None:
        if self._writer is None:
            import zarr

            group = zarr.create_group(self._folder, zarr_format=3)
            self._writer = FrameWriter(group, self._folder, frame, self._count)
        self._writer.append(frame)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def events_of(folder: Path) -> Events:
    """The events of an episode in progress, also after a kill."""
    return read_log(folder / _LOG)


def finish(
    folder: Path, dataset: Path, number: int, binding: Binding, state_names: Sequence[str], attrs: dict[str, Any]
) -> Path | None:
    """Makes an episode of what ``LiveEpisode`` left, also after a kill, and labels it.

    Its last frame is left out, as nobody knows when its action ended. Beside ``attrs`` it has "late_frames", their
    number; "gaps", [frame, n] where n frames are missing before a frame; and "unfocused", [first, last] frames of each
    stretch in which the window had no focus at some time, so that nothing was noted; with a state "late_state_frames",
    the number of those in which a value was older than ``LATE_SECONDS``.

    Args:
        number: as in ``publish``.

    Returns:
        Its folder; None where there is no frame, and then nothing is left.

    Raises:
        UserError: the video cannot be written, or other state values were recorded.
    """
    import zarr

    try:
        header = read_json_object(folder / _HEADER)
    except UserError:  # a kill before the first frame
        shutil.rmtree(folder)
        return None
    events = events_of(folder)
    times, count = events.frame_times, min(_frames_there(folder, header["lossless"]), len(events.frame_times) - 1)
    if count < 1:
        shutil.rmtree(folder)
        return None
    edges = times[: count + 1]
    state, is_late = state_of_frames(events, state_names, edges[:-1])
    group = zarr.open_group(folder, mode="a", zarr_format=3)
    if header["lossless"]:
        zarr.open_array(folder / "frames").resize((count, *zarr.open_array(folder / "frames").shape[1:]))
    else:
        join(segments(folder), folder / VIDEO, count)
    for name, rows in zip(("actions", "axes", "state"), (*binding.label(events, edges), state), strict=True):
        if rows.shape[1]:
            ArrayWriter(group, folder, name, rows[0]).extend(rows)
    events.write(folder / EVENTS)
    late = events.of_kind("frame").column("x")[:count] > _LATE / header["fps"]
    missing = np.round(np.diff(events.frame_moments[:count]) * header["fps"]).astype(int) - 1
    attrs = header["attrs"] | {"fps": header["fps"], "frame_count": count, "late_frames": int(late.sum())} | attrs
    if state_names:
        attrs["late_state_frames"] = int(is_late.sum())
    attrs["gaps"] = [[int(i) + 1, int(missing[i])] for i in np.flatnonzero(missing > 0)]
    attrs["unfocused"] = ranges(_unfocused(events, edges).tolist())
    episode = publish(folder, dataset, number, attrs)
    # Only now: whatever ends this program before, what is needed is there.
    for superfluous in (*segments(episode), episode / _LOG, episode / _HEADER):
        superfluous.unlink(missing_ok=True)
    return episode


def _frames_there(folder: Path, lossless: bool) -> int:
    """How many frames can be read."""
    if not lossless:
        return sum(map(whole_frames, segments(folder)))
    import zarr

    try:
        array = zarr.open_array(folder / "frames", mode="r")
    except FileNotFoundError:
        return 0
    in_file = (array.shards or array.chunks)[0]
    files = takewhile(lambda i: (folder / "frames" / f"c.{i}.0.0.0").exists(), range(-(-array.shape[0] // in_file)))
    return min(in_file * len(list(files)), array.shape[0])


def _unfocused(events: Events, edges: np.ndarray) -> np.ndarray:
    """Whether the window was without the focus at some time in each frame, bool [N]."""
    changes = events.of_kind("focus", "unfocus").rows
    lost = np.zeros(len(edges) - 1, bool)
    for change, after in zip(changes, [*changes[1:], None], strict=True):
        if change.kind == "unfocus":
            end = np.inf if after is None else after.time
            lost[max(int(np.searchsorted(edges, change.time, "right")) - 1, 0) : np.searchsorted(edges, end)] = True
    return lost
