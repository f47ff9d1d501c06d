"""Labels from what was pressed and moved: which buttons and axes an action has, and their values in each frame."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from BC_training.common.errors import UserError
from BC_training.common.keybinds.button_names import MOUSE_BUTTONS, Button, key_name, shown
from BC_training.common.keybinds.play_keys import (
    PAD_AXES,
    PAD_BUTTONS,
    PUSHED,
    AxisBind,
    PlayKeys,
    bound_names,
    play_keys,
)
from BC_training.common.storage.writer import Names
from BC_training.games.window.desktop import WHEEL
from BC_training.play.live.events import Events

AUTO = Path("auto")  # in place of a keybinds file: each key is a button of its own
_MOVED = ("mouse_x", "mouse_y")  # axes of the mouse, in counts to the right and down
_STICK_MOVED = 0.25  # a stick that never leaves this range rests
_REMEDY = "name the keybinds file it was recorded with in place of auto, or choose another folder"
_BY_NAME = {f"mouse_{name}": ("mouse", name) for name in (*MOUSE_BUTTONS, *(name for _, name in WHEEL))}
_BY_NAME |= {f"pad_{name}": ("pad", name) for name in PAD_BUTTONS}
_STICKS = {f"pad_{name}": AxisBind(pad=name, dead_zone=0.0) for name in PAD_AXES}


@dataclass(frozen=True)
class Binding:
    """The names of a dataset's A buttons and X axes, and what they are bound to."""

    buttons: tuple[str, ...]
    axes: tuple[str, ...]
    keys: PlayKeys

    @classmethod
    def from_file(cls, path: Path) -> "Binding":
        """Reads a keybinds file; a UserError where it is damaged, see ``play_keys``."""
        buttons, axes = bound_names(path)
        return cls(buttons, axes, play_keys(path, buttons, axes))

    @classmethod
    def auto(cls, recordings: Collection[Events]) -> "Binding":
        """A button for each key that was pressed in any of the recordings, and axes for mouse and sticks that moved."""
        pressed = set().union(*(events.of_kind("press", "wheel").buttons() for events in recordings))
        buttons = sorted(map(_auto_name, pressed), key=lambda name: (name in _BY_NAME, name))
        moved = [
            name for name, c in zip(_MOVED, "xy", strict=True) if any(_largest(e, "motion", c) for e in recordings)
        ]
        for name in PAD_AXES:
            if any(_largest(events, "stick", "x", name) > _STICK_MOVED for events in recordings):
                moved.append(f"pad_{name}")
        return cls.of_names(tuple(buttons), tuple(moved), "")

    @classmethod
    def of_names(cls, buttons: tuple[str, ...], axes: tuple[str, ...], place: str) -> "Binding":
        """That of a dataset that ``auto`` named; a UserError for one of other names."""
        columns: dict[Button, int] = {}
        for column, name in enumerate(buttons):
            if name not in _BY_NAME and key_name(name) != name:
                raise UserError(f"{place} has the button '{name}', which is no key: {_REMEDY}")
            columns[_BY_NAME.get(name, ("key", name))] = column
        moved = {name: AxisBind(mouse=i) for i, name in enumerate(_MOVED)} | _STICKS
        if unknown := [name for name in axes if name not in moved]:
            raise UserError(f"{place} has the axis '{unknown[0]}', neither the mouse's nor a pad's: {_REMEDY}")
        return cls(buttons, axes, PlayKeys(columns, tuple(moved[name] for name in axes), {}, {}))

    @property
    def names(self) -> Names:
        return Names(self.buttons, self.axes)

    def unbound(self, events: Events) -> list[str]:
        """The names of keys and buttons that were pressed and mean nothing."""
        pressed = events.of_kind("press", "wheel").buttons()
        return sorted(shown(b) for b in pressed if self.keys.same_key.get(b, b) not in self.keys.columns)

    def label(self, events: Events, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Labels of N frames, from ``edges``, float64 [N + 1], the moments at which they begin, and the last one ends.

        A button counts that was down at any time from a frame's beginning until the next one's. Counts of the mouse and
        notches of the wheel are added up; a stick is where it was last.

        Returns:
            bool [N, A] and float32 [N, X].
        """
        count, buttons = len(edges) - 1, len(self.buttons)
        held, notches = self._held(events, edges)
        axes = np.zeros((count, len(self.axes)))
        motion = events.of_kind("motion")
        inside, frame = _frames_of(motion.column("time"), edges)
        for i, bind in enumerate(self.keys.axes):
            less = buttons + 2 * i
            sides = np.maximum(held[:, less : less + 2], notches[:, less : less + 2])
            amount = sides[:, 1] - sides[:, 0]
            limit = np.maximum(np.abs(amount), 1.0)  # the wheel may turn further than a stick goes
            if bind.pad is not None:
                stick = _last(events, bind.pad, edges) * bind.pad_sign
                past = np.maximum(np.abs(stick) - bind.dead_zone, 0) / (1 - bind.dead_zone)
                amount = np.clip(amount + np.sign(stick) * past, -limit, limit)
            axes[:, i] = amount * bind.amount
            if bind.mouse is not None:
                counts = motion.column("xy"[bind.mouse])[inside]
                axes[:, i] += np.bincount(frame, counts, minlength=count) / bind.counts
        return held[:, :buttons].astype(bool), axes.astype(np.float32)

    def _held(self, events: Events, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whether each of ``PlayKeys.columns`` was down in each frame, and how far it was turned; float64."""
        held, notches = np.zeros((2, len(edges) - 1, len(self.buttons) + 2 * len(self.axes)))
        for button, start, end, turned in _holds(events):
            column = self.keys.columns.get(self.keys.same_key.get(button, button))
            first = int(np.searchsorted(edges, start, "right")) - 1
            last = max(int(np.searchsorted(edges, end, "left")) - 1, first)
            if column is not None and last >= 0:
                held[max(first, 0) : last + 1, column] = 1
                notches[max(first, 0) : last + 1, column] += turned
        return held, notches


def _holds(events: Events) -> Iterator[tuple[Button, float, float, float]]:
    """Each time that a button was down: the button, from when, until when, and the notches that it was turned."""
    down: dict[Button, float] = {}
    # Not the mouse's motion, a thousand rows a second.
    for event in events.of_kind("press", "release", "wheel", "stick", "unfocus").rows:
        button, over = (event.device, event.name), []
        match event.kind:
            case "press":
                down.setdefault(button, event.time)
            case "release":
                over = [button]
            case "wheel":
                yield button, event.time, event.time, abs(event.x) + abs(event.y)
            case "stick":
                for side, sign in (("+", 1), ("-", -1)):
                    if event.x * sign > PUSHED:
                        down.setdefault(("pad", event.name + side), event.time)
                    else:
                        over.append(("pad", event.name + side))
            case _:
                over = list(down)
        for released in over:
            if released in down:
                yield released, down.pop(released), event.time, 0.0
    for button, start in down.items():
        yield button, start, np.inf, 0.0


def _frames_of(times: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of ``times`` are within a frame, bool [R], and in which these are."""
    frame = np.searchsorted(edges, times, "right") - 1
    inside = (frame >= 0) & (frame < len(edges) - 1)
    return inside, frame[inside]


def _last(events: Events, stick: str, edges: np.ndarray) -> np.ndarray:
    """Where a stick was at the end of each frame, float64 [N]; without focus it is at rest."""
    moved = [e for e in events.of_kind("stick", "unfocus").rows if e.kind == "unfocus" or e.name == stick]
    at = np.array([0.0, *(event.x for event in moved)])
    return at[np.searchsorted([event.time for event in moved], edges[1:], "left")]


def _largest(events: Events, kind: str, column: str, name: str | None = None) -> float:
    """The largest amount in a column of the events of a kind."""
    found = events.of_kind(kind).table
    if name is not None:
        found = found.filter(pc.field("name") == name)
    return float(np.abs(found[column].to_numpy()).max(initial=0.0))


def _auto_name(button: Button) -> str:
    return button[1] if button[0] == "key" else f"{button[0]}_{button[1]}"
