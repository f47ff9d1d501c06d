"""Reading videos back."""

from pathlib import Path

import av
import numpy as np


def decode(path: Path) -> tuple[np.ndarray, float]:
    """uint8 [N, H, W, 3] RGB and the frames per second."""
    with av.open(str(path)) as container:
        rate = float(container.streams.video[0].average_rate or 0)
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]), rate


def is_colour(pixels: np.ndarray, colour: tuple[int, int, int], tolerance: int = 60) -> np.ndarray:
    """bool [...] of pixels uint8 [..., 3], which the codec has changed a little."""
    return np.abs(pixels.astype(int) - np.array(colour).reshape((1,) * (pixels.ndim - 1) + (3,))).sum(-1) < tolerance
