"""Chooses and reads the few frames that are shown of a dataset."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.progress import Progress

from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.errors import UserError
from BC_training.reports.dataset.statistics import presses
from BC_training.reports.page import to_jpeg

SPREAD = 16  # frames, over the episodes and the time in them
EXAMPLES = 40  # frames, one an action; more actions than that have none
_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Picture:
    """A frame as a page shows it."""

    episode: str
    frame: int
    seconds: float | None  # its time in the episode; None where no frame rate is known
    held: tuple[str, ...]  # the buttons that are held, and the axes that are not 0 with their amounts
    action: str | None  # the button whose press begins with it; None if it was chosen by its place
    jpeg: bytes


class Onsets:
    """Chooses one onset of each of ``count`` buttons, each onset of the dataset equally likely.

    It is a reservoir of one (Vitter 1985, algorithm R) from a fixed seed.
    """

    def __init__(self, count: int):
        self._rng = np.random.default_rng(0)
        self._seen = [0] * count
        self.chosen: dict[int, tuple[int, int]] = {}  # action to (episode, frame)

    def add(self, episode: int, actions: np.ndarray) -> None:
        """Takes an episode's ``actions`` bool [N, A]."""
        for a in range(actions.shape[1]):
            starts, _ = presses(actions[:, a])
            self._seen[a] += len(starts)
            # One draw for all onsets of the episode: the chance that the choice moves into it.
            if len(starts) and self._rng.random() < len(starts) / self._seen[a]:
                self.chosen[a] = (episode, int(self._rng.choice(starts)))


def spread(length: int, count: int) -> list[int]:
    """At most ``count`` of the positions 0 to ``length`` - 1, evenly spread, ascending."""
    if length <= count:
        return list(range(length))
    return [int((i + 0.5) * length / count) for i in range(count)]


def spread_frames(lengths: Sequence[int], count: int) -> list[tuple[int, int]]:
    """At most ``count`` (episode, frame), spread over episodes of so many frames each and over the time in them."""
    chosen = set()
    for i in range(count):
        episode = int((i + 0.5) * len(lengths) / count)
        # Multiples of the golden ratio leave out no part of the time.
        chosen.add((episode, int((i * _GOLDEN + 0.5) % 1 * lengths[episode])))
    return sorted(chosen)


def read_pictures(
    dataset: ZarrGameplayDataset,
    usable: Sequence[int],
    onsets: Onsets,
    names: tuple[Sequence[str], Sequence[str]],
    rates: Sequence[float | None],
    progress: Progress,
) -> tuple[list[Picture], list[str]]:
    """The frames to show from the episodes ``usable``, and why some cannot be read; ``rates`` are frames per second.

    ``names`` are those of the buttons and those of the axes.
    """
    places = spread_frames([dataset.episodes[e].length for e in usable], SPREAD)
    wanted: list[tuple[int | None, int, int]] = [(None, usable[i], frame) for i, frame in places]
    wanted += [(a, *onsets.chosen[a]) for a in sorted(onsets.chosen)[:EXAMPLES]]
    known = [rate for rate in rates if rate]
    pictures, faults = [], []
    for action, e, frame in progress.track(wanted, description="reading sample frames"):
        try:
            image = dataset.frames(e, [frame])[0]
        except UserError as error:
            faults.append(str(error))
            continue
        rate = rates[e] or (sum(known) / len(known) if known else None)
        seconds, pressed = frame / rate if rate else None, None if action is None else names[0][action]
        held = tuple(name for name, on in zip(names[0], dataset.actions(e)[frame], strict=True) if on)
        amounts = zip(names[1], dataset.axes(e)[frame].tolist(), strict=True)
        held += tuple(f"{name} {amount:+.3g}" for name, amount in amounts if amount)
        pictures.append(Picture(dataset.episodes[e].name, frame, seconds, held, pressed, to_jpeg(image)))
    return pictures, faults
