"""The interface of a reader of recordings: its options, its source, and the recordings it yields."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rich.console import Console

from BC_training.common.action import Action
from BC_training.common.errors import UserError

Step = tuple[np.ndarray, Action, np.ndarray | None]  # frame uint8 [3, H, W] RGB, action, state float32 [S]


@dataclass(frozen=True)
class Options:
    """The user's choices."""

    kind: str  # one of ``convert.KINDS``
    size: tuple[int, int] | None = None  # (H, W) of the frames to write, in pixels; None keeps them
    fps: float | None = None  # frames per second to write; None keeps them
    keybinds: Path | None = (
        None  # for ``sessions``, ``events`` and ``owamcap``, the JSON file that maps keys to actions
    )
    iwad: Path | None = None  # for ``doom-demo``, the game's WAD
    camera: str | None = None  # which of several to use; None if there is one
    pwads: tuple[Path, ...] = ()  # for ``doom-demo``, the WADs that add to the game, in the order of loading
    leave_out: tuple[str, ...] = ()  # names of state values that are not converted
    time_unit: str = "us"  # for ``sessions``, the unit of the times
    turn: str = "axis"  # for ``doom-demo``, whether turns become an axis or "buttons"
    video: bool = False  # keep the frames as H.264, with some loss
    allow_missing: bool = False  # whether much of the inputs, memory values or video may be missing
    shift: float = 0.0  # for ``events``, by how many frames what was done counts for an earlier frame


@dataclass(frozen=True)
class Recording:
    """One episode of a source."""

    fps: float  # frames per second of ``steps``
    steps: Iterator[Step]  # the frames in order, read lazily
    attrs: dict[str, Any] = field(default_factory=dict)  # what else the episode keeps, JSON types
    notes: tuple[str, ...] = ()  # what to tell the user, one line each


class Source(Protocol):
    """Recordings found at a path. A source is pickled into every process, so it holds no open file.

    Attributes:
        button_names: those of the A buttons.
        axis_names: those of the X axes.
        attributes: the names of the S state values; empty without a state.
        episodes: the recordings' names, unique and the same in every run.

    A source may have ``notes``: what to tell the user once, one line each.
    """

    button_names: tuple[str, ...]
    axis_names: tuple[str, ...]
    attributes: tuple[str, ...]
    episodes: tuple[str, ...]

    def digest(self, episode: str) -> str:
        """``identity.content_digest`` of a recording's raw content; raises a UserError if it is damaged."""
        ...

    def place(self, episode: str) -> Path:
        """The file or folder that moves with the recording."""
        ...

    def read(self, episode: str) -> Recording:
        """Opens a recording at ``Options.fps`` if that is given; a recording without a frame has no steps.

        This and ``steps`` raise a UserError if the recording is damaged.
        """
        ...


def print_line(console: Console, line: str) -> None:
    """Prints a line unchanged: paths may hold [brackets] and :words:."""
    console.print(line, soft_wrap=True, markup=False, emoji=False)


def every_nth(steps: Iterator[Step], recorded_fps: float, fps: float, sums: bool = False) -> Iterator[Step]:
    """Thins steps of a constant rate to ``fps``; raises a UserError if that is above the recorded rate.

    The buttons of each step that stays are its own and those of the dropped ones after it. So are the axes, added up,
    with ``sums``: for amounts until the next frame, such as a mouse's. Otherwise they are its own: for what holds while
    the frame is shown, such as a stick, or a robot's command.
    """
    if fps > recorded_fps:
        raise UserError(f"--fps {fps:g} is above the recording's {recorded_fps:g}: frames would be repeated; lower it")
    grouped = itertools.groupby(enumerate(steps), key=lambda item: int(item[0] * fps / recorded_fps + 1e-9))
    for _, group in grouped:
        _, (frame, action, state) = next(group)
        for _, (_, later, _) in group:
            axes = action.axes + later.axes if sums else action.axes
            action = Action(action.buttons | later.buttons, axes)
        yield frame, action, state
