"""Reads the frames of a LeRobot episode from a video, from pictures in the rows, or from files that the rows name."""

import contextlib
import math
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.dataset as pads
from av.error import FFmpegError

from BC_training.common.errors import UserError, first_line
from BC_training.convert.lerobot.layout import Episode, Layout, within
from BC_training.convert.lerobot.parquet import damage_is_user_error, is_file, open_columns, rows_of
from BC_training.convert.pictures import decode_picture
from BC_training.convert.video import upright

_BATCH = 16  # images read from parquet at once; bounds the memory


def at(episode: Episode, frame: int, file: Path | None = None) -> str:
    """A frame's place, for errors."""
    return f"{file or episode.data}, episode {episode.index}, frame {frame}"


def video_frames(episode: Episode, file: Path, times: np.ndarray, fps: float) -> Iterator[np.ndarray]:
    """Frames uint8 [H, W, 3] RGB shown at ``times``, seconds after the episode's beginning.

    Raises a UserError if the video is missing or damaged, or its pictures have other times or an oblique angle.
    """
    count, place = 0, f"{file}, episode {episode.index}"
    if not is_file(file):
        raise UserError(f"{place}: the video is missing: restore it")
    # A larger tolerance would confuse neighbouring frames; LeRobot's own 0.0001 s is too small for the float32
    # timestamps of a long episode.
    tolerance = 0.25 / fps
    until = math.inf if episode.end is None else episode.end - tolerance
    try:
        with av.open(str(file)) as container:
            if not container.streams.video:
                raise UserError(f"{file} holds no video: restore it")
            stream = container.streams.video[0]
            # This seeks back to a key frame.
            container.seek(max(0, int((episode.start - tolerance) / (stream.time_base or 1))), stream=stream)
            for frame in container.decode(stream):
                if frame.time is None:
                    raise UserError(f"{at(episode, count, file)}: the picture has no time: encode the video again")
                if frame.time < episode.start - tolerance:
                    continue
                if frame.time >= until:
                    break
                if count == len(times):
                    raise UserError(f"{place} has more pictures than its {len(times)} rows: restore one of them")
                shown = frame.time - episode.start
                if not abs(shown - times[count]) <= tolerance:
                    fault = f"the picture is shown at {shown:.4f} s, the row's timestamp is {times[count]:.4f} s"
                    remedy = "they belong to different moments, restore one of them"
                    raise UserError(f"{at(episode, count, file)}: {fault}: {remedy}")
                if frame.is_corrupt:
                    raise UserError(f"{at(episode, count, file)}: the picture is damaged: restore the video")
                channels = frame.format.components
                if len(channels) == 1 and channels[0].bits > 8:
                    fault = f"one channel of {channels[0].bits} bits, as depth maps have"
                    raise UserError(f"{file} has {fault}: choose another camera")
                yield upright(frame, file)
                count += 1
    except (FFmpegError, OSError, ValueError, OverflowError) as error:
        raise UserError(f"{at(episode, count, file)}: cannot decode ({first_line(error)}): restore it") from error
    if count < len(times):
        raise UserError(f"{place} has {count} pictures for {len(times)} rows: restore one of them")


def stored_images(layout: Layout, episode: Episode) -> Iterator[np.ndarray]:
    """Frames uint8 [H, W, 3] RGB from PNG or JPEG pictures in the rows, or in files that the rows name.

    Raises a UserError if a picture is missing or damaged.
    """
    for where, encoded in _encoded(layout, episode):
        yield decode_picture(encoded, where, "restore the file")


def first_picture(layout: Layout, episode: Episode) -> bytes:
    """An episode's first picture as it is stored, b"" without one; raises a UserError if it cannot be read."""
    if episode.video is None:
        with contextlib.closing(_encoded(layout, episode)) as pictures:
            return next((encoded for _, encoded in pictures), b"")
    try:
        with av.open(str(episode.video)) as container:
            for stream in container.streams.video[:1]:
                container.seek(max(0, int(episode.start / (stream.time_base or 1))), stream=stream)
                return next((bytes(packet) for packet in container.demux(stream) if packet.size), b"")
    except (FFmpegError, OSError, ValueError, OverflowError) as error:
        raise UserError(f"{episode.video}: cannot read ({first_line(error)}): restore it") from error
    return b""


def _encoded(layout: Layout, episode: Episode) -> Generator[tuple[str, bytes], None, None]:
    """(place, bytes) of each row's picture file."""
    for i, image in enumerate(_rows(layout.camera, episode)):
        encoded, name = (image.get("bytes"), image.get("path")) if isinstance(image, dict) else (image, None)
        if isinstance(encoded, str):
            encoded, name = None, encoded
        where = f"{at(episode, i)}: '{layout.camera}'"
        if not encoded and isinstance(name, str) and name:
            encoded = _read_file(layout, episode, name, where)
        if not isinstance(encoded, bytes):
            raise UserError(f"{where} holds no image, but {_kind(image)}: write a PNG or JPEG file's bytes there")
        yield where, encoded


def _rows(camera: str, episode: Episode) -> Iterator[Any]:
    """Each row's picture as stored: {"bytes": bytes, "path": str}, or one of the two values."""
    opened = open_columns(episode.data, [camera])
    batches = opened.to_batches(
        columns={"image": pads.field(camera)},
        filter=rows_of(opened, episode.index),
        batch_size=_BATCH,
        batch_readahead=1,
    )
    with damage_is_user_error(episode.data):
        for batch in batches:
            yield from batch.column("image").to_pylist()


def _read_file(layout: Layout, episode: Episode, name: str, where: str) -> bytes:
    """The bytes of the picture file ``name``, relative to the dataset or to LeRobot's folder for the episode."""
    name = name.replace("\\", "/")  # written on Windows
    for root in (layout.root.absolute(), layout.root.resolve()):
        name = name.removeprefix(f"{root.as_posix()}/")
    beside = f"images/{layout.camera}/episode_{episode.index:06d}/{name}"
    files = [within(layout.root, name), within(layout.root, beside)]
    if None in files:
        raise UserError(
            f"{where} is kept as the file {name}, outside the dataset: copy the pictures into the dataset's folder and "
            "name them relative to it, or write their bytes into the rows"
        )
    file = next((file for file in files if file is not None and is_file(file)), None)
    if file is None:
        raise UserError(f"{where} is kept as the file {files[0]}, which is missing: restore the file")
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"{where}: cannot read {file} ({error.strerror}): restore it") from error


def _kind(image: Any) -> str:
    return "nothing" if image is None or isinstance(image, dict) else f"a {type(image).__name__}"
