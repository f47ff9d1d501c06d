"""An episode's frames as a video, ``frames.mp4``, read by row as the arrays are.

The video is H.264 in an MP4 file that has all its times in one place (not in fragments), at a constant
rate: the picture shown at row / rate is the frame of that row. A row is decoded from the key frame before
it, of which ``VideoWriter`` sets one every second; so no picture may need one before its key frame.
"""

import contextlib
import threading
import weakref
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
from av.error import FFmpegError

from BC_training.common.errors import UserError, first_line
from BC_training.common.storage.metadata import VIDEO_FORMAT, ArrayInfo, require_possible
from BC_training.common.storage.other_codecs import DType, Rows
from BC_training.common.storage.store import LocalStore, Store

VIDEO = "frames.mp4"
_IDLE = 32  # decoders that are kept open: bounds memory and open files
_IDLE_EACH = 4  # of one video
_REMEDY = "ffmpeg -i OLD.mp4 -c:v libx264 -crf 18 -bf 0 -g 20 -movflags +faststart frames.mp4"


def video_info(store: Store, episode: str) -> ArrayInfo | None:
    """The shape [N, 3, H, W] of an episode's video, None without one; a UserError where its head cannot be used."""
    if isinstance(store, LocalStore):
        store.refuse_links_out(f"{episode}/{VIDEO}")
    try:
        decoder = _Decoder(store, f"{episode}/{VIDEO}")
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        reason = first_line(error).removeprefix("DATA_LOSS: ")
        raise UserError(f"cannot use {VIDEO} ({reason}): restore it, or write it with {_REMEDY}") from error
    with contextlib.closing(decoder):
        info = ArrayInfo((decoder.length, 3, *decoder.size), "uint8", (1, 3, *decoder.size), VIDEO_FORMAT)
    require_possible("frames", info)
    return info


class VideoFrames:
    """The frames of a video, read as a TensorStore is: ``array[rows].read().result()``, uint8 [n, 3, H, W] RGB.

    A ValueError where a frame cannot be decoded. Several threads may read.
    """

    def __init__(self, store: Store, key: str, shape: tuple[int, ...]):
        self._store, self._key, self.shape = store, key, shape
        self.dtype = DType(np.dtype(np.uint8))
        self._idle: list[_Decoder] = []  # those that no thread uses, the least recently used first

    def __getitem__(self, rows: slice | int | np.ndarray) -> Rows:
        return Rows(self, np.atleast_1d(np.arange(self.shape[0])[rows]), isinstance(rows, int | np.integer))

    def read(self) -> Rows:
        return self[:]

    def longest_stretch(self) -> int:
        """The most frames from one key frame to the next, which a read may have to decode."""
        with contextlib.closing(_Decoder(self._store, self._key)) as decoder:
            return decoder.longest_stretch()

    def read_rows(self, rows: np.ndarray) -> np.ndarray:
        """The frames ``rows`` int64 [n], in any order, each decoded once."""
        wanted, place = np.unique(rows, return_inverse=True)
        frames = np.empty((len(wanted), *self.shape[1:]), np.uint8)
        if len(wanted):
            decoder = self._take(int(wanted[0])) or _Decoder(self._store, self._key)
            try:
                for row, frame in zip(wanted.tolist(), frames, strict=True):
                    frame[:] = decoder.read(row).transpose(2, 0, 1)
            except ValueError:
                decoder.next = decoder.length  # so that the next read seeks
                self._give(decoder)
                raise
            except BaseException:
                decoder.close()
                raise
            self._give(decoder)
        return frames if np.array_equal(wanted, rows) else frames[place]

    def _take(self, row: int) -> "_Decoder | None":
        """The decoder to read ``row`` with: one that is just before it, or any if there are enough."""
        with _lock:
            near = (d for d in self._idle if d.next <= row and d.key_before(row) <= d.next)
            taken = next(near, self._idle[0] if len(self._idle) >= _IDLE_EACH else None)
            if taken is not None:
                self._idle.remove(taken)
        return taken

    def _give(self, decoder: "_Decoder") -> None:
        with _lock:
            self._idle.append(decoder)
            others = [(v, d) for v, d in _given if (video := v()) and d() in video._idle and d() is not decoder]
            _given[:] = [*others, (weakref.ref(self), weakref.ref(decoder))]
            if len(_given) > _IDLE and (video := (least := _given.pop(0))[0]()) and (oldest := least[1]()):
                video._idle.remove(oldest)  # which closes it


_lock = threading.Lock()
# The idle decoders of all videos. Their videos keep them, so that they end with these.
_given: "list[tuple[weakref.ref[VideoFrames], weakref.ref[_Decoder]]]" = []


class _Decoder:
    """An open video that goes on where it is, or from a key frame.

    Raises a ValueError where the video cannot be used, a FileNotFoundError where there is none.
    """

    def __init__(self, store: Store, key: str):
        self._container = self._file = None
        self._file = store.open(key)
        with _damage_is_value_error():
            # With the format named, no file can make FFmpeg open others, as a playlist would.
            self._container = av.open(self._file, "r", format="mp4")
        streams = self._container.streams.video
        if len(streams) != 1:
            raise ValueError(f"DATA_LOSS: it holds {len(streams)} video streams")
        self._stream = stream = streams[0]
        if stream.codec_context.name != "h264":
            raise ValueError(f"DATA_LOSS: it is coded as {stream.codec_context.name}, not as H.264")
        self.length, self.size = stream.frames, (stream.height, stream.width)
        index = stream.index_entries
        if self.length == 0 or len(index) != self.length:
            raise ValueError("DATA_LOSS: it is an MP4 of fragments, or empty")
        # A stream's decoder has as many threads as it is given, and other videos are decoded meanwhile.
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"err_detect": "explode"}  # otherwise damage is painted over
        self._first = stream.start_time or 0
        self._step = Fraction(index[-1].timestamp - index[0].timestamp, max(1, self.length - 1)) or 1
        self._frames: Iterator[av.VideoFrame] = iter(())
        self.next = self.length  # nothing is decoded yet: the first read seeks

    def longest_stretch(self) -> int:
        keys = [i for i, entry in enumerate(self._stream.index_entries) if entry.is_keyframe]
        return int(np.diff([*keys, self.length]).max(initial=0))

    def key_before(self, row: int) -> int:
        """The row of the last key frame up to ``row``; exact where pictures are stored in the order of showing."""
        return self._stream.index_entries.search_timestamp(self._stream.index_entries[row].timestamp)

    def read(self, row: int) -> np.ndarray:
        """uint8 [H, W, 3] RGB."""
        with _damage_is_value_error():
            sought = not self.next <= row or self.key_before(row) > self.next
            if sought:
                self._seek(round(self._first + row * self._step))
            while True:
                at, frame = self._decode(row)
                if at > row and sought:  # pictures that are stored after a key frame, and shown before it
                    self._seek(self._first)
                    sought = False
                elif at > row:
                    raise ValueError(f"DATA_LOSS: frame {row} is not in {VIDEO}")
                elif at == row:
                    return frame.to_ndarray(format="rgb24")

    def _decode(self, row: int) -> tuple[int, av.VideoFrame]:
        frame = next(self._frames, None)
        if frame is None:
            raise ValueError(f"DATA_LOSS: {VIDEO} ends before frame {row}")
        if frame.pts is None or frame.is_corrupt or (frame.height, frame.width) != self.size:
            raise ValueError(f"DATA_LOSS: frame {row} of {VIDEO} cannot be decoded")
        exact = (frame.pts - self._first) / self._step
        if abs(exact - round(exact)) > 0.25:
            raise ValueError(f"DATA_LOSS: the frames of {VIDEO} have no constant rate")
        self.next = round(exact) + 1
        return round(exact), frame

    def _seek(self, time: int) -> None:
        assert self._container is not None
        self._container.seek(time, stream=self._stream)
        packets = (packet for packet in self._container.demux(self._stream) if not packet.is_corrupt)
        self._frames = (frame for packet in packets for frame in packet.decode())

    def close(self) -> None:
        self._frames = iter(())
        for opened in (self._container, self._file):
            if opened is not None:
                opened.close()

    __del__ = close


@contextlib.contextmanager
def _damage_is_value_error() -> Iterator[None]:
    try:
        yield
    except FFmpegError as error:
        raise ValueError(f"DATA_LOSS: {VIDEO} cannot be decoded ({error.strerror})") from error
