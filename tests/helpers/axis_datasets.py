"""Datasets whose frames show what is done, so that a small model learns it.

Each axis has a band of rows, in which a bar goes from the middle as far as the axis is turned, to either side in a
colour of its own; each button has a band that is white while it is held.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from BC_training.common.action import Action
from BC_training.common.storage.writer import EpisodeWriter, Names, recording

_COLOURS = ((255, 0, 0), (0, 0, 255), (0, 255, 0), (255, 255, 0), (0, 255, 255), (255, 0, 255))


def draw_action(
    buttons: np.ndarray, axes: np.ndarray, largest: Sequence[float], size: tuple[int, int] = (24, 32)
) -> np.ndarray:
    """The frame uint8 [3, H, W] of ``buttons`` bool [A] and ``axes`` float [X], each at most its ``largest``."""
    height, width = size
    frame = np.full((3, height, width), 40, np.uint8)
    bands = np.linspace(0, height, len(axes) + len(buttons) + 1).round().astype(int)
    for i, (amount, most) in enumerate(zip(axes, largest, strict=True)):
        reach, middle = round(float(amount / most) * width / 2), width // 2
        columns = slice(middle, middle + reach) if reach > 0 else slice(middle + reach, middle)
        colour = _COLOURS[(2 * i + (reach < 0)) % len(_COLOURS)]
        frame[:, bands[i] : bands[i + 1], columns] = np.array(colour)[:, None, None]
    for i, held in enumerate(buttons, len(axes)):
        frame[:, bands[i] : bands[i + 1]] = 255 if held else 0
    return frame


def random_actions(rng: np.random.Generator, length: int, buttons: int, largest: Sequence[float]) -> Action:
    """``length`` frames of buttons bool [N, A] and axes float32 [N, X] that keep still for some frames at a time.

    In about four tenths of the frames an axis is 0.
    """
    columns = []
    for _ in range(buttons + len(largest)):
        drawn = np.where(rng.random(length) < 0.4, 0, rng.uniform(-1, 1, length))
        columns.append(np.repeat(drawn, rng.integers(2, 8, length))[:length])
    values = np.stack(columns, axis=1)
    return Action.of(values[:, :buttons] > 0, values[:, buttons:] * np.array(largest))


def write_axis_dataset(
    path: Path,
    lengths: Sequence[int],
    *,
    buttons: Sequence[str] = ("fire",),
    axes: Mapping[str, float],
    size: tuple[int, int] = (24, 32),
    fps: float = 10.0,
    seed: int = 0,
) -> list[Action]:
    """Writes a dataset and returns the actions of its episodes, bool [N, A] and float32 [N, X].

    Args:
        lengths: frames of each episode.
        buttons: their names; there may be none.
        axes: their names, and the largest amount of each.
    """
    rng, largest = np.random.default_rng(seed), list(axes.values())
    written = [random_actions(rng, length, len(buttons), largest) for length in lengths]
    with recording(path, Names(tuple(buttons), tuple(axes))):
        for number, done in enumerate(written):
            writer = EpisodeWriter(path, number)
            for held, moved in zip(done.buttons, done.axes, strict=True):
                writer.append(draw_action(held, moved, largest, size), Action(held, moved), np.zeros(0, np.float32))
            writer.commit({"fps": fps})
    return written
