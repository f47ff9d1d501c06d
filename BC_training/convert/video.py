"""Reads videos as recorders leave them: upright frames, their times, and the whole frames of a file that was cut."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import av
import numpy as np
from av.error import FFmpegError

from BC_training.common.errors import UserError

_TS_PACKET = 188  # bytes
_CUT = b"\xff"  # stands for what is missing of an element's head, whose size then reaches beyond the file


def upright(frame: av.VideoFrame, path: Path) -> np.ndarray:
    """uint8 [H, W, 3] RGB, turned and mirrored by the frame's display matrix.

    The matrix (a b u, c d v, x y w) of ISO/IEC 14496-12, 8.3.2, takes column p and row q to
    column a p + c q + x and row b p + d q + y. Players follow turns by right angles and mirrors; another angle
    raises a UserError.
    """
    pixels = frame.to_ndarray(format="rgb24")
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return pixels
    (a, b), (c, d) = np.frombuffer(bytes(matrix), np.int32)[:9].reshape(3, 3)[:2, :2].astype(float)
    straight, turned = max(abs(a), abs(d)), max(abs(b), abs(c))
    if min(straight, turned) > 0.01 * max(straight, turned):
        raise UserError(f"{path} is to be shown at an oblique angle: encode it again as it is to be seen")
    if turned > straight:
        pixels, a, d = pixels.transpose(1, 0, 2), c, b
    return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


class Video:
    """A video's frames and the times at which they are shown; if the file was cut off, only the whole frames.

    Raises a UserError if the video is damaged, or has fewer than two frames.

    Attributes:
        begins: microseconds, the time stamp of the first frame.
        times: float64 [N >= 2], microseconds since the first frame.
        tick: microseconds, the resolution of the time stamps.
        fps: the mean rate.
        notes: what to tell the user, one line each.
    """

    def __init__(self, path: Path):
        self._path = path
        try:
            with av.open(str(path.absolute())) as container:
                stream = _video_stream(container, path)
                # AVI has no presentation time stamps: its pictures are shown in stored order.
                self._stamped = container.format.name != "avi"
                packets = [
                    (p.pts if self._stamped else p.dts, p.is_corrupt, p.is_discard)
                    for p in container.demux(stream)
                    if p.size
                ]
                time_base, declared = stream.time_base, _declared_seconds(container, stream)
                aspect = stream.sample_aspect_ratio
        except FFmpegError as error:
            raise self._damaged(f"{error.strerror}") from error
        corrupt = [is_corrupt for _, is_corrupt, _ in packets]
        whole = corrupt.index(True) if any(corrupt) else len(packets)
        if not all(corrupt[whole:]):
            raise self._damaged(f"packet {whole} is")
        stamps = [pts for pts, _, discard in packets[:whole] if not discard and pts is not None]
        if len(stamps) < 2 or time_base is None:
            raise UserError(f"{path} has {len(stamps)} frames with a time stamp, 2 are needed: remove the session")
        self._stamps = np.sort(np.array(stamps, np.int64))
        self.tick = float(time_base * 1_000_000)
        self.times, self.begins = (self._stamps - self._stamps[0]) * self.tick, float(self._stamps[0]) * self.tick
        if (repeated := np.flatnonzero(np.diff(self._stamps) == 0)).size:
            raise self._damaged(f"frames {repeated[0]} and {repeated[0] + 1} have the same time stamp")
        self.fps = (len(stamps) - 1) / self.times[-1] * 1e6
        self.notes: tuple[str, ...] = ()
        seconds = self.times[-1] / 1e6 + 1 / self.fps
        used = f"its {len(stamps)} whole frames are used, {seconds:.1f} s"
        if whole < len(packets) or _overruns(path):
            self.notes += (f"{path.name} is cut off: {used}",)
        elif declared > seconds + 1:  # some containers count the sound, which may be longer
            self.notes += (f"{path.name} says that it lasts {declared:.1f} s and holds less: {used}",)
        if aspect and aspect != 1:
            self.notes += (f"{path.name} has pixels of {aspect}, not square: its frames stay as stored",)

    def frames(self, indices: np.ndarray) -> Iterator[np.ndarray]:
        """Decodes the frames of ascending ``indices``, each uint8 [3, H, W] RGB; one at a time is in memory."""
        last, shape, wanted = int(indices[-1]), None, 0
        try:
            with av.open(str(self._path.absolute())) as container:
                stream = _video_stream(container, self._path)
                stream.thread_type = "AUTO"
                stream.codec_context.options = {"err_detect": "explode"}  # otherwise damage is painted over
                packets = (packet for packet in container.demux(stream) if not packet.is_corrupt)
                for k, decoded in enumerate(frame for packet in packets for frame in packet.decode()):
                    if k > last:
                        return
                    unexpected = k == len(self._stamps) or (self._stamped and decoded.pts != self._stamps[k])
                    if unexpected or decoded.is_corrupt:
                        raise self._damaged(f"frame {k} cannot be decoded")
                    if shape not in (None, (decoded.height, decoded.width)):
                        raise self._damaged(f"frame {k} has another size than those before")
                    shape = decoded.height, decoded.width
                    if indices[wanted] != k:
                        continue
                    frame = np.ascontiguousarray(upright(decoded, self._path).transpose(2, 0, 1))
                    while wanted < len(indices) and indices[wanted] == k:
                        yield frame
                        wanted += 1
        except FFmpegError as error:
            raise self._damaged(f"{error.strerror}") from error
        if wanted < len(indices):
            raise self._damaged(f"only {indices[wanted]} of {len(self._stamps)} frames can be decoded")

    def _damaged(self, what: str) -> UserError:
        return UserError(f"{self._path} is damaged ({what}): restore it, re-encode it, or remove the session")


def frame_edges(
    shown: np.ndarray, fps: float | None, tick: float, second: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Chooses frames for a rate.

    Args:
        shown: when each frame of a video is shown, float64 [M >= 2], ascending; the last is for the mean interval.
        fps: frames per second to choose; None takes all.
        tick: what the times are rounded to.
        second: a second in the unit of the times.

    Returns:
        The times [N + 1] at which the frames begin and the last one ends, and their indices [N]: those of the last
        frames that are shown until then.

    Raises:
        UserError: ``fps`` is above the video's.
    """
    lasts = shown[-1] - shown[0]
    end = shown[-1] + lasts / (len(shown) - 1)
    if fps is None:
        return np.append(shown, end), np.arange(len(shown))
    # Time stamps are rounded to a tick, so a video of 30 frames/s may seem to have a little less.
    if fps > (len(shown) - 1) / max(lasts - 2 * tick, 1e-9) * second:
        reason = f"above the {(len(shown) - 1) / lasts * second:.4g} of the video: frames would be repeated"
        raise UserError(f"--fps {fps:g} is {reason}; lower it")
    count = int(np.ceil((end - shown[0] - tick) * fps / second))
    edges = shown[0] + np.arange(count + 1) * second / fps
    return edges, np.searchsorted(shown, edges[:-1] + tick, side="right") - 1


def _video_stream(container: Any, path: Path) -> Any:
    if not container.streams.video:
        raise UserError(f"{path} holds no video: restore it, or remove the session")
    return container.streams.video[0]


def _declared_seconds(container: Any, stream: Any) -> float:
    """The video's length by its container; 0 if that gives none."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    tag = re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", ""))  # Matroska's, per stream
    if tag:
        end = int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3])
        return end - float((stream.start_time or 0) * stream.time_base)
    return (container.duration or 0) / 1e6


def _overruns(path: Path) -> bool:
    """Whether an element of an MP4, Matroska, FLV, AVI or transport stream file ends beyond the file."""
    size, first = path.stat().st_size, 0
    with path.open("rb") as file:
        head = file.read(12)
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"styp", b"free", b"wide", b"skip"):
            element = _box_end
        elif head[:4] == b"\x1a\x45\xdf\xa3":
            element = _ebml_end
        elif head[:3] == b"FLV":
            element, first = _flv_end, 13
        elif head[:4] == b"RIFF":
            return int.from_bytes(head[4:8], "little") + 8 > size
        else:
            return head[:1] == b"G" and path.suffix.lower() == ".ts" and size % _TS_PACKET != 0
        at = first
        while at < size:
            file.seek(at)
            end = element(file, at)
            if end is None or end <= at:
                return False
            at = end
    return at > size


def _box_end(file: IO[bytes], at: int) -> int | None:
    """The end of the box at ``at``; None if it reaches to the file's end."""
    head = file.read(16).ljust(16, _CUT)
    size = int.from_bytes(head[:4], "big")
    if size == 1:
        size = int.from_bytes(head[8:16], "big")
    return at + size if size else None


def _flv_end(file: IO[bytes], at: int) -> int | None:
    """The end of the tag at ``at`` and of the length that follows it."""
    return at + 11 + int.from_bytes(file.read(4)[1:], "big") + 4


def _ebml_end(file: IO[bytes], at: int) -> int | None:
    """The end of the element at ``at``, or the start of its children if its size is unknown."""
    head = file.read(12).ljust(12, _CUT)
    name = 9 - head[0].bit_length()
    if name > 4:
        return None
    width = 9 - head[name].bit_length()
    if width > 8:
        return None
    size = int.from_bytes(head[name : name + width], "big") & ((1 << 7 * width) - 1)
    return at + name + width + (0 if size == (1 << 7 * width) - 1 else size)
