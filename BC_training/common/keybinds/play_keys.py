"""Which keys, mouse and pad do what in a game: a file of the user's, or defaults that go by the buttons' names.

The file is the JSON of ``common/keybinds/file.py`` with "axes" and "controls". A button's entry may have a "pad", and
"index" may be absent, as the game orders its buttons:

    {"version": "2.0",
     "actions": {"attack": {"key": ["SPACE", "LCTRL"], "mouse": "LEFT", "pad": ["A", "TRIGGERRIGHT+"]}},
     "axes": {"steering": {"less": {"key": "LEFT"}, "more": {"key": "RIGHT"}, "amount": 1,
                           "pad": "LEFTX", "dead_zone": 0.15, "mouse": "X", "counts": 200}},
     "controls": {"start": "ENTER", "pause": "ESC", "discard": "BACKSPACE", "quit": "F10"}}

An axis is the sum of its parts. "less" and "more" move it by -"amount" and "amount" (1), the stick "pad" by as much
at its end, and nothing within its "dead_zone", a share; "-LEFTY" turns a stick round. The "mouse" moves it by 1 for
every "counts" that it moves right or down: 8 of them a degree, for example, and -8 the other way.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from BC_training.common.errors import UserError, unknown
from BC_training.common.keybinds.button_names import Button, button_of, exists, shifted, shown
from BC_training.common.keybinds.default_keys import CONTROLS, default_keybinds
from BC_training.common.keybinds.file import bound_buttons, read_raw, with_sides

# SDL's game controller, in the order of its numbers.
PAD_BUTTONS = (
    *("A", "B", "X", "Y", "BACK", "GUIDE", "START", "LEFTSTICK", "RIGHTSTICK", "LEFTSHOULDER", "RIGHTSHOULDER"),
    *("DPAD_UP", "DPAD_DOWN", "DPAD_LEFT", "DPAD_RIGHT"),
)
PAD_AXES = ("LEFTX", "LEFTY", "RIGHTX", "RIGHTY", "TRIGGERLEFT", "TRIGGERRIGHT")
PUSHED = 0.5  # a stick or a trigger counts as a pressed button from here on
_PAD = (*PAD_BUTTONS, *(axis + side for axis in PAD_AXES for side in "+-"))  # a stick that is pushed, as a button
_AXIS_ENTRIES = ("mouse", "counts", "less", "more", "amount", "pad", "dead_zone")
_REMEDY = "'record --game GAME --player human --show-keys' prints a whole file"


@dataclass(frozen=True)
class AxisBind:
    """What moves an axis beside buttons; see the module."""

    mouse: int | None = None  # 0 is x, 1 is y
    counts: float = 1.0
    amount: float = 1.0
    pad: str | None = None  # one of PAD_AXES
    pad_sign: int = 1
    dead_zone: float = 0.15


@dataclass(frozen=True)
class PlayKeys:
    """Keys of a game with A buttons and X axes.

    Attributes:
        columns: from a button of keyboard, mouse or pad to what it does: 0 to A - 1 are the game's buttons, then come
            "less" and "more" of each axis, and last the takeover.
        axes: the X axes, by column.
        controls: from keys to what they do in the window, one of ``CONTROLS``.
        same_key: from a character to the one that is bound on the same key.
    """

    columns: dict[Button, int]
    axes: tuple[AxisBind, ...]
    controls: dict[Button, str]
    same_key: dict[Button, Button]

    @property
    def uses_mouse(self) -> bool:
        return any(axis.mouse is not None for axis in self.axes) or any(device == "mouse" for device, _ in self.columns)

    @property
    def control_keys(self) -> dict[str, str]:
        """The name of the key of each control."""
        return {what: shown(button) for button, what in self.controls.items()}


def raw_keybinds(path: Path | None, buttons: Sequence[str], axes: Sequence[str]) -> dict[str, Any]:
    """The JSON of a file, or the defaults of a game with these names."""
    return default_keybinds(buttons, axes) if path is None else read_raw(path)


def bound_names(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of the buttons and axes that a file binds, for a game that has none of its own.

    Buttons are in the order of their "index", where all have one.
    """
    raw = read_raw(path)
    actions, axes = raw.get("actions") or {}, raw.get("axes") or {}
    if not isinstance(actions, dict) or not isinstance(axes, dict) or not (actions or axes):
        raise UserError(f'{path} binds nothing: it needs "actions": {{"forward": {{"key": "W"}}, ...}} or "axes"')
    order = {name: i for name, e in actions.items() if isinstance(e, dict) and isinstance(i := e.get("index"), int)}
    return tuple(sorted(actions, key=order.__getitem__) if len(order) == len(actions) else actions), tuple(axes)


def play_keys(path: Path | None, buttons: Sequence[str], axes: Sequence[str], takeover: str | None = None) -> PlayKeys:
    """Reads the keys of a game with these names of buttons and axes.

    Raises:
        UserError: the file is damaged, names what the game does not have, leaves out what it has, or gives one key
            two meanings.
    """
    raw, place = raw_keybinds(path, buttons, axes), "the default keybinds" if path is None else str(path)
    owners, written = [f"'{name}'" for name in buttons], {}

    def bind(button: Button, column: int) -> None:
        if button[0] != "pad" and not exists(button):
            kind = "key" if button[0] == "key" else "button"
            raise UserError(f"{place}: {owners[column]} is bound to {shown(button)}, and there is no such {kind}")
        other = written.setdefault(button, column)
        if other != column:
            both = f"bound to both {owners[other]} and {owners[column]}"
            raise UserError(f"{place}: {button[0]} {shown(button)} is {both}: keep it for one of them")

    for column, (name, entry) in enumerate(_entries(raw, "actions", "button", buttons, place)):
        for button in bound_buttons(f"action '{name}'", place, entry, _PAD):
            bind(button, column)
    moved = []
    for name, entry in _entries(raw, "axes", "axis", axes, place):
        owners += [f"less '{name}'", f"more '{name}'"]
        moved.append(_axis(name, entry, place))
        for column, side in enumerate(("less", "more"), len(owners) - 2):
            if side in entry:
                what = f"'{side}' of axis '{name}'"
                if not isinstance(entry[side], dict):
                    raise UserError(f'{place}: {what} is {entry[side]!r}: write {{"key": "LEFT"}}')
                for button in bound_buttons(what, place, entry[side], _PAD, ("key", "mouse", "pad")):
                    bind(button, column)
    if takeover is not None:
        owners.append("taking over")
        bind(_key(takeover, "--takeover"), len(owners) - 1)
    columns = with_sides(written)
    same_key = {other: button for button in written if (other := shifted(button)) and other not in written}
    return PlayKeys(columns, tuple(moved), _controls(raw, columns, owners, place), same_key)


def _entries(raw: dict[str, Any], section: str, kind: str, names: Sequence[str], place: str) -> list[tuple[str, Any]]:
    """The entries of a section, in the order of ``names``, which are all there and no others."""
    entries = raw.get(section) or {}
    if not isinstance(entries, dict):
        raise UserError(f'{place}: "{section}" is no table of names: {_REMEDY}')
    for name in entries:
        if name not in names:
            raise unknown(f"{kind} of the game", name, names, f"in {place}")
    for name in names:
        if not isinstance(entries.get(name), dict):
            raise UserError(f"{place} binds nothing to the game's {kind} '{name}': add it to \"{section}\"; {_REMEDY}")
    return [(name, entries[name]) for name in names]


def _axis(name: str, entry: dict[str, Any], place: str) -> AxisBind:
    for key in entry:
        if key not in _AXIS_ENTRIES:
            raise unknown(f"entry of axis '{name}'", key, _AXIS_ENTRIES, f"in {place}")
    if not entry.keys() & {"mouse", "less", "more", "pad"}:
        raise UserError(f'{place}: nothing moves axis \'{name}\': give it a "mouse", a "pad", or "less" and "more"')

    def number(key: str, default: float, low: float, high: float) -> float:
        value = entry.get(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high or value == low:
            raise UserError(f"{place}: {key} of axis '{name}' is {value!r}: write a number above {low:g}")
        return float(value)

    mouse, pad = (str(entry.get(key, "")).upper() for key in ("mouse", "pad"))
    if "mouse" in entry and mouse not in ("X", "Y"):
        raise UserError(f'{place}: mouse of axis \'{name}\' is {entry["mouse"]!r}: write "X" or "Y"')
    if "pad" in entry and pad.removeprefix("-") not in PAD_AXES:
        raise unknown(f"pad of axis '{name}'", str(entry["pad"]), PAD_AXES, f"in {place}")
    counts = entry.get("counts", 1)
    if not isinstance(counts, int | float) or isinstance(counts, bool) or not math.isfinite(counts) or counts == 0:
        raise UserError(f"{place}: counts of axis '{name}' is {counts!r}: write a number other than 0")
    return AxisBind(
        "XY".index(mouse) if mouse else None,
        float(counts),
        number("amount", 1, 0, 1e6),
        pad.removeprefix("-") or None,
        -1 if pad.startswith("-") else 1,
        number("dead_zone", 0.15, -1e-9, 0.9),
    )


def _controls(raw: dict[str, Any], columns: dict[Button, int], owners: list[str], place: str) -> dict[Button, str]:
    """The keys of the window, those of the file or the first that the game does not use."""
    given, found = raw.get("controls") or {}, {}
    if not isinstance(given, dict):
        raise UserError(f'{place}: "controls" is no table: {_REMEDY}')
    for what in given:
        if what not in CONTROLS:
            raise unknown("control", what, CONTROLS, f"in {place}")
    for what, usual in CONTROLS.items():
        wanted = [given[what]] if what in given else usual
        keys = [_key(text, f"{place}: control '{what}'") for text in wanted]
        free = [key for key in keys if key not in columns and key not in found]
        if not free:
            taken = owners[columns[keys[0]]] if keys[0] in columns else f"'{found[keys[0]]}'"
            raise UserError(
                f"{place}: key {shown(keys[0])} is bound to both {taken} and the window's '{what}': "
                "give one of them another key"
            )
        found[free[0]] = what
    return found


def _key(text: Any, where: str) -> Button:
    button = button_of("key", text) if isinstance(text, str) else None
    if button is None or not exists(button):
        raise UserError(f'{where} {text!r} is no key: write a name such as "F5"')
    return button
