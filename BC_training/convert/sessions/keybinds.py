"""Reads keybinds.json, which maps buttons to actions."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from BC_training.common.errors import UserError
from BC_training.common.files import read_json_object
from BC_training.convert.sessions import button_names
from BC_training.convert.sessions.button_names import Button, button_of, shown, sides

KEYBINDS_VERSION = "2.0"
_ENTRIES = ("index", "key", "mouse")


@dataclass(frozen=True)
class Keybinds:
    """Maps buttons to actions."""

    actions: tuple[str, ...]  # the A names, by column
    # From a button to its action's column; an action may have several buttons. SHIFT is also entered as LSHIFT and
    # RSHIFT unless they are bound themselves, and both sides bound to one action are also entered as SHIFT; the same
    # holds for CTRL, ALT and META.
    columns: dict[Button, int]
    # From an unbound character to the bound one on the same key of a US keyboard ("!" to "1").
    same_key: dict[Button, Button]
    unused: tuple[str, ...] = ()  # entries of the file that are not read


def read_keybinds(path: Path) -> Keybinds:
    """Reads the file; raises a UserError if it is damaged, has another version, or an action has no button."""
    raw = read_json_object(path, unique=True)
    if raw.get("version") != KEYBINDS_VERSION:
        remedy = f'convert it and write "version": "{KEYBINDS_VERSION}"'
        version = raw.get("version")
        raise UserError(f'{path} has version {version!r}, this program reads "{KEYBINDS_VERSION}": {remedy}')
    actions = raw.get("actions")
    if not isinstance(actions, dict) or not actions:
        raise UserError(f'{path} binds no actions: it needs "actions": {{"forward": {{"index": 0, "key": "W"}}, ...}}')
    names: dict[int, str] = {}
    written: dict[Button, int] = {}
    for name, bind in actions.items():
        index = _index(path, name, bind)
        if index in names:
            raise UserError(f"{path}: actions '{names[index]}' and '{name}' both have index {index}: renumber one")
        names[index] = name
        for button in _buttons(path, name, bind):
            other = written.setdefault(button, index)
            if other != index:
                both = f"bound to both '{names[other]}' and '{name}'"
                raise UserError(f"{path}: {button[0]} {shown(button)} is {both}: keep it for one of them")
    if sorted(names) != list(range(len(names))):
        listed = ", ".join(map(str, sorted(names)))
        raise UserError(f"{path}: the indices of {len(names)} actions must be 0 to {len(names) - 1}, not {listed}")
    unused = tuple(str(entry) for entry in raw if entry not in ("version", "actions"))
    return _bind([names[i] for i in range(len(names))], written, unused)


def _bind(actions: list[str], written: dict[Button, int], unused: tuple[str, ...] = ()) -> Keybinds:
    """Adds the sides of modifiers and the shifted characters to ``written``, from bound buttons to columns."""
    same_key = {other: button for button in written if (other := button_names.shifted(button)) and other not in written}
    columns = {side: column for button, column in written.items() for side in sides(button)} | written
    for modifier in button_names.MODIFIERS:
        left, right = sides(modifier)
        if left in columns and columns[left] == columns.get(right):
            columns.setdefault(modifier, columns[left])
    return Keybinds(tuple(actions), columns, same_key, unused)


def _index(path: Path, name: str, bind: Any) -> int:
    if not name.strip() or not name.isprintable():
        raise UserError(f'{path}: {name!r} is no name of an action: write a word such as "forward"')
    index = bind.get("index") if isinstance(bind, dict) else None
    if not isinstance(index, int) or isinstance(index, bool):
        raise UserError(f"{path}: action '{name}' has no whole number as \"index\": give it the column it is")
    return index


def _buttons(path: Path, name: str, bind: dict[str, Any]) -> Iterable[Button]:
    """The action's buttons, at least one."""
    for entry in bind:
        if entry not in _ENTRIES:
            remedy = 'write several buttons as a list, "key": ["W", "UP"], and remove what is none of these'
            known = f"the unknown entry {entry!r}; known are {', '.join(_ENTRIES)}"
            raise UserError(f"{path}: action '{name}' has {known}: {remedy}")
    bound = 0
    for device in ("key", "mouse"):
        entry = bind.get(device)
        for text in [] if entry is None else entry if isinstance(entry, list) else [entry]:
            button = button_of(device, text) if isinstance(text, str) else None
            where = f"{path}: the {device} of action '{name}' is {text!r}"
            if button is None:
                raise UserError(f'{where}: write a name such as "{"W" if device == "key" else "LEFT"}"')
            if button[0] == "mouse" and button[1] not in button_names.MOUSE_BUTTONS and button_names.is_key(text):
                raise UserError(f'{where}, a key: write it as "key"')
            bound += 1
            yield button
    if not bound:
        raise UserError(f'{path}: no button is bound to action \'{name}\': give it a "key" or a "mouse", or remove it')
