"""Datasets whose frames are videos."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np

from BC_training.common.action import Action
from BC_training.common.storage.writer import EpisodeWriter, Names, recording


def moving(count: int, size: tuple[int, int] = (24, 32), seed: int = 0) -> np.ndarray:
    """uint8 [count, 3, H, W]: a smooth picture that moves, and a little noise."""
    rng = np.random.default_rng(seed)
    rows, columns, times = np.ogrid[: size[0], : size[1], :count]
    waves = [np.sin(rows / 5 + times / (3 + c) + c) + np.cos(columns / 7 - times / (4 + c) + seed) for c in range(3)]
    pictures = 128 + 50 * np.stack(waves).transpose(3, 0, 1, 2) + rng.normal(0, 2, (count, 3, *size))
    return pictures.clip(0, 255).astype(np.uint8)


def film(path: Path, lengths: Sequence[int], fps: float = 20.0, size: tuple[int, int] = (24, 32), **attrs: Any) -> Path:
    """Records ``moving`` episodes as videos, with random buttons."""
    rng = np.random.default_rng(1)
    with recording(path, Names(("left", "right"))):
        for number, length in enumerate(lengths):
            writer = EpisodeWriter(path, number, fps)
            for frame in moving(length, size, number):
                writer.append(frame, Action.of(rng.random(2) < 0.4, []), None)
            writer.commit({"fps": fps, **attrs})
    return path


def encode(file: Path, frames: np.ndarray, codec: str = "libx264", flags: str = "faststart", **options: str) -> None:
    """Writes frames uint8 [N, 3, H, W] as an MP4 with FFmpeg's options, at 20 frames/s."""
    with av.open(str(file), "w", format="mp4", options={"movflags": flags}) as container:
        stream = container.add_stream(codec, rate=20, options=options)
        stream.height, stream.width = frames.shape[2:]
        stream.pix_fmt = "yuv420p"
        for i, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame.transpose(1, 2, 0)), format="rgb24")
            picture.pts = i
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
