"""Default keys, by the names that games give their buttons and axes."""

from collections.abc import Sequence
from typing import Any

from BC_training.common.keybinds.file import KEYBINDS_VERSION

# What the keys of the window do, and which they are: the first that the game does not use.
CONTROLS = {
    "start": ("ENTER", "F5"),
    "pause": ("ESC", "P", "F6"),
    "discard": ("BACKSPACE", "DELETE", "F7"),
    "quit": ("F10", "F8"),
}

# Buttons in lower case and what they are bound to, the best first; those that another button has already are left out.
# "*" stands before the mouse's buttons, "@" before a pad's.
_BUTTONS = {
    "up forward move_forward north main_engine": "UP W @DPAD_UP @LEFTY-",
    "down backward move_backward south": "DOWN S @DPAD_DOWN @LEFTY+",
    "left turn_left west steer_left": "LEFT A @DPAD_LEFT @LEFTX-",
    "right turn_right east steer_right": "RIGHT D @DPAD_RIGHT @LEFTX+",
    # LunarLander's left engine pushes it to the right.
    "left_engine": "RIGHT D @DPAD_RIGHT @LEFTX+",
    "right_engine": "LEFT A @DPAD_LEFT @LEFTX-",
    "gas": "UP W @TRIGGERRIGHT+",
    "brake": "DOWN S @TRIGGERLEFT+",
    "move_left": "A LEFT @LEFTSHOULDER",
    "move_right": "D RIGHT @RIGHTSHOULDER",
    "attack fire": "SPACE *LEFT @A @TRIGGERRIGHT+",
    "speed": "LSHIFT @B",
    "use toggle": "E @X",
    "jump": "LALT *RIGHT @Y",
    "pickup": "Q",
    "drop dropoff": "Z",
    "done": "X",
    # Consoles: the right hand's buttons lie under the left hand's lower row.
    "b": "Z @A",
    "a": "X @B",
    "y": "A @X",
    "x": "S @Y",
    "c": "C @RIGHTSHOULDER",
    "z": "V @LEFTSHOULDER",
    "l": "Q @LEFTSHOULDER",
    "r": "W @RIGHTSHOULDER",
    "start": "ENTER @START",
    "select mode": "RSHIFT @BACK",
}
_OTHERS = (*"1234567890QERTYUIOPGHJKLZXCVBNM",)  # keys of buttons that are not in the table, in turn

# Axes: the keys that make them less and more, and the rest of their entry. Doom turns by degrees.
_AXES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "turn": ("LEFT", "RIGHT", {"amount": 5, "mouse": "X", "counts": 8, "pad": "RIGHTX"}),
    "lateral_engine": ("LEFT A", "RIGHT D", {"pad": "LEFTX"}),
    "main_engine": ("DOWN S", "UP W", {"pad": "-LEFTY"}),
    "steering": ("LEFT A", "RIGHT D", {"pad": "LEFTX"}),
    "gas": ("", "UP W", {"pad": "TRIGGERRIGHT"}),
    "brake": ("", "DOWN S", {"pad": "TRIGGERLEFT"}),
}
_OTHER_AXES = (("LEFT", "RIGHT", "LEFTX"), ("DOWN", "UP", "-LEFTY"), ("A", "D", "RIGHTX"), ("S", "W", "-RIGHTY"))


def default_keybinds(buttons: Sequence[str], axes: Sequence[str]) -> dict[str, Any]:
    """The JSON of a keybinds file for a game with these names, as ``play_keys.py`` describes it."""
    taken: set[str] = set()
    table = {name: keys.split() for names, keys in _BUTTONS.items() for name in names.split()}
    entries: dict[str, dict[str, Any]] = {}

    def take(wanted: Sequence[str], most: int) -> list[str]:
        found = [key for key in wanted if key not in taken][:most]
        taken.update(found)
        return found

    # Axes come first, then the best key of each button; what is left is shared out in the buttons' order.
    others = iter(_OTHER_AXES)
    for name in axes:
        if (known := _AXES.get(name.lower())) is None:
            less, more, pad = next(others, ("", "", "LEFTX"))
            known = less, more, {"pad": pad}
        sides = {side: take(keys.split(), 2) for side, keys in zip(("less", "more"), known[:2], strict=True)}
        entries[name] = {side: {"key": keys} for side, keys in sides.items() if keys} | known[2]
    on_keyboard = {name: [key for key in keys if not _mark(key)] for name, keys in table.items()}
    bound = {name: take(on_keyboard.get(name.lower(), ()), 1) or take(_OTHERS, 1) for name in buttons}
    for name in buttons:
        bound[name] += take(table.get(name.lower(), ()), 9)
    actions = {name: _entry(keys) for name, keys in bound.items()}
    controls = {what: next(key for key in keys if key not in taken) for what, keys in CONTROLS.items()}
    return {"version": KEYBINDS_VERSION, "actions": actions, "axes": entries, "controls": controls}


def _entry(keys: Sequence[str]) -> dict[str, list[str]]:
    devices = {"key": "", "mouse": "*", "pad": "@"}
    found = {device: [k.removeprefix(mark) for k in keys if _mark(k) == mark] for device, mark in devices.items()}
    return {device: names for device, names in found.items() if names}


def _mark(key: str) -> str:
    return key[0] if key[0] in "*@" and len(key) > 1 else ""
