"""Sessions as a recorder writes them: an MP4, CSVs and key binds."""

import json
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

KEYBINDS = {
    "version": "2.0",
    "actions": {
        "fire": {"index": 1, "key": "CTRL", "mouse": "BUTTON1"},
        "forward": {"index": 0, "key": "w"},
        "idle": {"index": 2, "key": "I"},
    },
}  # not in the order of their columns


def frame_of(number: int, size: tuple[int, int]) -> np.ndarray:
    """uint8 [H, W, 3] that shows the frame's ``number`` (below 4096), its channels and its sides."""
    frame = np.zeros((*size, 3), np.uint8)
    frame[..., 0], frame[..., 1], frame[..., 2] = number % 64 * 4, number // 64 * 4, 100
    frame[: size[0] // 2, : size[1] // 2, 2] = 200
    return frame


def number_of(frame: np.ndarray) -> int:
    """The number of a frame uint8 [3, H, W]."""
    return int(frame[0].mean() / 4 + 0.5) + 64 * int(frame[1].mean() / 4 + 0.5)


def write_video(
    path: Path, times_us: Sequence[int], size: tuple[int, int] = (24, 32), codec: str = "libx264rgb", faststart=False
) -> None:
    """A frame at each time, lossless with ``libx264rgb``."""
    time_base = Fraction(1, 1_000_000)
    with av.open(str(path), "w", options={"movflags": "faststart"} if faststart else {}) as container:
        stream = container.add_stream(codec, rate=30, options={"qp": "0"} if codec == "libx264rgb" else {})
        stream.height, stream.width = size
        stream.pix_fmt = "rgb24" if codec == "libx264rgb" else "yuv420p"
        stream.codec_context.time_base = time_base
        for number, time in enumerate(times_us):
            frame = av.VideoFrame.from_ndarray(frame_of(number, size), format="rgb24")
            frame.pts, frame.time_base = int(time), time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_sound(path: Path) -> None:
    """A file without a video."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 8000
        container.mux(stream.encode(silence))
        container.mux(stream.encode())


def turn(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Writes a display matrix into an MP4's track header: column p, row q go to a p + c q, b p + d q."""
    data, one = bytearray(path.read_bytes()), 1 << 16
    at = data.index(b"tkhd") + 44  # in a header of version 0
    data[at : at + 36] = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def write_inputs(path: Path, events: Sequence[tuple[int, str, str]]) -> None:
    path.write_text(
        "\n".join(["timestamp_us,event_type,key_or_button", *(",".join(map(str, e)) for e in events), ""]),
        encoding="utf-8",
    )


def write_memory(path: Path, rows: Sequence[Sequence[float]], columns: Sequence[str] = ("health", "ammo")) -> None:
    lines = [",".join(["timestamp_us", *columns]), *(",".join(map(str, row)) for row in rows), ""]
    path.write_text("\n".join(lines), encoding="utf-8")


def write_session(
    folder: Path,
    times_us: Sequence[int],
    events: Sequence[tuple[int, str, str]] = (),
    memory: Sequence[Sequence[float]] | None = None,
    **video,
) -> Path:
    folder.mkdir(parents=True)
    write_video(folder / "video.mp4", times_us, **video)
    write_inputs(folder / "inputs.csv", events)
    if memory is not None:
        write_memory(folder / "memory_data.csv", memory)
    return folder


def write_keybinds(path: Path) -> Path:
    path.write_text(json.dumps(KEYBINDS), encoding="utf-8")
    return path
