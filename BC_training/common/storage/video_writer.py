"""Writes videos: H.264 in MP4, at a constant rate."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import islice, takewhile
from pathlib import Path
from typing import IO, Any, Self

import av
import numpy as np
from av.error import FFmpegError

from BC_training.common.errors import UserError

CRF = 18  # 0 to 51, least to most loss; of Doom at 288x512 a frame takes 15 kB, losslessly 92 kB
RATES = 0.001, 1e6  # frames per second that the file's clock can represent
LONGEST_SIDE = 16_384  # pixels; the codec's limit
_SEGMENT_SECONDS = 300
_SYNC_SECONDS = 5  # of frames between two syncs of a live video to the disk


class VideoWriter:
    """Writes frames uint8 [3, H, W] RGB, all of one size; frame i is shown at i / fps seconds.

    The pictures are in 4:2:0, as all players and graphics cards decode it; with an odd side, which that cannot have,
    in 4:4:4. No frame is stored after one that is shown later.

    Args:
        fps: frames per second.
        crf: the loss, see ``CRF``.
        key_frame_every: frames; None for one a second. Random access decodes from the key frame before.
        preset: x264's, from "ultrafast" to "placebo".
        live: write in fragments, so that a kill leaves all but the last two seconds readable, and a power cut all but
            the last eight. ``join`` makes a plain file of it.

    Raises:
        UserError: the file cannot be written, or a video can have neither this rate nor this size.
    """

    def __init__(
        self,
        path: Path,
        fps: float,
        *,
        crf: int = CRF,
        key_frame_every: int | None = None,
        preset: str = "veryfast",
        live: bool = False,
    ):
        if not RATES[0] <= fps <= RATES[1]:
            raise UserError(f"{path}: a video has {RATES[0]:g} to {RATES[1]:,.0f} frames per second, not {fps:g}")
        self._live, self._every = live, key_frame_every or max(1, round(fps))
        rate = Fraction(fps).limit_denominator(10_000)
        try:
            self._file: IO[bytes] = open(path, "wb", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise UserError(f"cannot write the video {path}: {error.strerror or error}") from error
        # A plain file has its index in front, where a reader of a remote file finds it at once.
        flags = "frag_keyframe+empty_moov+default_base_moof" if live else "faststart"
        target: Any = self._file
        if not live:  # FFmpeg moves the index itself, in a file that it has opened by its name
            self._file.close()
            target = str(path.absolute())  # "a:b.mp4" would mean a protocol "a"
        self._container = av.open(target, "w", format="mp4", options={"movflags": flags, "flush_packets": "1"})
        # Scene cuts add key frames that nobody needs. The colours are tagged as BT.601: players differ in what they
        # assume.
        options = {"crf": str(crf), "preset": preset, "g": str(self._every), "bf": "0", "sc_threshold": "0"}
        self._stream = self._container.add_stream("libx264", rate=rate, options=options | {"colorspace": "smpte170m"})
        self._stream.codec_context.time_base = 1 / rate
        self._stream.codec_context.thread_count = 2 if live else 1  # the other cores encode other episodes
        self._time_base, self._sync_every = 1 / rate, max(1, round(_SYNC_SECONDS * fps))
        self.frame_count = 0

    def append(self, frame: np.ndarray) -> None:
        """Adds a frame; a live video's is on the disk after a few seconds. An OSError where the disk is full."""
        if self.frame_count == 0:
            self._set_size(frame)
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame.transpose(1, 2, 0)), format="rgb24")
        picture.pts, picture.time_base = self.frame_count, self._time_base
        self._container.mux(self._stream.encode(picture))
        self.frame_count += 1
        if self._live and self.frame_count % self._sync_every == 0:
            os.fsync(self._file.fileno())

    def _set_size(self, frame: np.ndarray) -> None:
        _, height, width = frame.shape
        if max(height, width) > LONGEST_SIDE:
            raise UserError(f"frames of {height}x{width} have a side above the video's {LONGEST_SIDE}: make them less")
        self._stream.height, self._stream.width = height, width
        self._stream.pix_fmt = "yuv444p" if height % 2 or width % 2 else "yuv420p"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self.frame_count:  # the encoder has started
            self._container.mux(self._stream.encode())
        self._container.close()
        self._file.close()

    def abort(self) -> None:
        """Closes the file, which is then of no use, whatever kept it from being written."""
        with contextlib.suppress(FFmpegError, OSError):
            self.close()


class LiveVideo:
    """A live video in a folder: files of at most five minutes, ``frames_00000.mp4``, ...; see ``segments``.

    Args and errors are those of ``VideoWriter``.
    """

    def __init__(self, folder: Path, fps: float, crf: int = CRF):
        self._folder, self._fps, self._crf = folder, fps, crf
        self._writer: VideoWriter | None = None
        self._files = 0
        self.frame_count = 0

    def append(self, frame: np.ndarray) -> None:
        if self._writer is not None and self._writer.frame_count >= _SEGMENT_SECONDS * self._fps:
            self.close()
        if self._writer is None:
            file = self._folder / f"frames_{self._files:05d}.mp4"
            self._writer = VideoWriter(file, self._fps, crf=self._crf, live=True)
            self._files += 1
        self._writer.append(frame)
        self.frame_count += 1

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def segments(folder: Path) -> list[Path]:
    """The files of a ``LiveVideo``, in order."""
    return sorted(folder.glob("frames_[0-9]*.mp4"))


def join(sources: Sequence[Path | IO[bytes]], out: Path, limit: int | None = None) -> int:
    """Copies the frames of MP4 videos of one size and rate into one plain MP4, without encoding them again.

    A video that was cut off, as by a kill, gives its whole frames; one without a whole frame gives none.

    Args:
        limit: the most frames to copy. Fewer are copied where pictures are stored in another order than they are shown
            in, and a picture among them would need one beyond.

    Returns:
        The number of frames.

    Raises:
        UserError: no source has a frame, or the file cannot be written.
    """
    count, step, stream = 0, 0, None
    try:
        with av.open(str(out.absolute()), "w", format="mp4", options={"movflags": "faststart"}) as container:
            for source in sources:
                times = _times(source)
                kept = _complete(times, len(times) if limit is None else limit - count)
                if not kept:
                    continue
                step = int(min(np.diff(np.sort(times)), default=step))
                with _open(source) as opened:
                    stream = stream or container.add_stream_from_template(opened.streams.video[0])
                    for packet in islice(_whole(opened), kept):
                        # Of one rate, the sources have one clock.
                        shift = count * step - min(times)
                        packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                        container.mux(packet)
                count += kept
    except OSError as error:
        raise UserError(f"cannot write the video {out}: {error.strerror or error}") from error
    if not count:
        raise UserError(f"cannot write the video {out}: there is no whole frame to write")
    return count


def whole_frames(source: Path | IO[bytes]) -> int:
    """How many frames ``join`` can copy of a video that was cut off."""
    return len(_times(source))


def _open(source: Path | IO[bytes]) -> Any:
    if isinstance(source, Path):
        return av.open(str(source.absolute()), format="mp4")
    source.seek(0)
    return av.open(source, format="mp4")


def _whole(container: Any) -> Iterator[Any]:
    """The packets before the first that is cut, in the order in which they are stored."""
    packets = (packet for packet in container.demux(container.streams.video[0]) if packet.size)
    return takewhile(lambda packet: not packet.is_corrupt, packets)


def _times(source: Path | IO[bytes]) -> list[int]:
    """When the whole pictures are shown, in the video's ticks, in the order in which they are stored."""
    try:
        with _open(source) as container:
            return [packet.pts for packet in _whole(container)] if container.streams.video else []
    except FFmpegError:  # a kill before the first fragment
        return []


def _complete(times: list[int], limit: int) -> int:
    """The largest n up to ``limit`` of which the first n pictures that are stored are the first n that are shown."""
    place = np.argsort(np.argsort(times))  # at which each picture is shown
    last = np.maximum.accumulate(place[:limit])
    complete = np.flatnonzero(last == np.arange(len(last)))
    return int(complete[-1]) + 1 if len(complete) else 0
