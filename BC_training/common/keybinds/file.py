"""Reads keybinds.json, which maps buttons to actions."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from BC_training.common.errors import UserError
from BC_training.common.files import read_json_object
from BC_training.common.keybinds import button_names
from BC_training.common.keybinds.button_names import Button, button_of, shown, sides

KEYBINDS_VERSION = "2.0"
_ENTRIES = ("index", "key", "mouse", "pad")


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
    raw = read_raw(path)
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
        for button in bound_buttons(f"action '{name}'", str(path), bind):
            other = written.setdefault(button, index)
            if other != index:
                both = f"bound to both '{names[other]}' and '{name}'"
                raise UserError(f"{path}: {button[0]} {shown(button)} is {both}: keep it for one of them")
    if sorted(names) != list(range(len(names))):
        listed = ", ".join(map(str, sorted(names)))
        raise UserError(f"{path}: the indices of {len(names)} actions must be 0 to {len(names) - 1}, not {listed}")
    unused = tuple(str(entry) for entry in raw if entry not in ("version", "actions"))
    return _bind([names[i] for i in range(len(names))], written, unused)


def read_raw(path: Path) -> dict[str, Any]:
    """The file's JSON; a UserError where it is damaged or has another version."""
    raw = read_json_object(path, unique=True)
    if (version := raw.get("version")) != KEYBINDS_VERSION:
        remedy = f'convert it and write "version": "{KEYBINDS_VERSION}"'
        raise UserError(f'{path} has version {version!r}, this program reads "{KEYBINDS_VERSION}": {remedy}')
    return raw


def _bind(actions: list[str], written: dict[Button, int], unused: tuple[str, ...] = ()) -> Keybinds:
    """Adds the sides of modifiers and the shifted characters to ``written``, from bound buttons to columns."""
    same_key = {other: button for button in written if (other := button_names.shifted(button)) and other not in written}
    return Keybinds(tuple(actions), with_sides(written), same_key, unused)


def with_sides(written: dict[Button, int]) -> dict[Button, int]:
    """Adds the sides of modifiers, as ``Keybinds.columns`` has them."""
    columns = {side: column for button, column in written.items() for side in sides(button)} | written
    for modifier in button_names.MODIFIERS:
        left, right = sides(modifier)
        if left in columns and columns[left] == columns.get(right):
            columns.setdefault(modifier, columns[left])
    return columns


def _index(path: Path, name: str, bind: Any) -> int:
    if not name.strip() or not name.isprintable():
        raise UserError(f'{path}: {name!r} is no name of an action: write a word such as "forward"')
    index = bind.get("index") if isinstance(bind, dict) else None
    if not isinstance(index, int) or isinstance(index, bool):
        raise UserError(f"{path}: action '{name}' has no whole number as \"index\": give it the column it is")
    return index


def bound_buttons(
    what: str, place: str, bind: dict[str, Any], pad: Collection[str] = (), known: Sequence[str] = _ENTRIES
) -> Iterable[Button]:
    """The buttons of an entry, such as ``{"key": ["W", "UP"], "mouse": "LEFT"}``, at least one.

    Args:
        what: whose they are, for messages, "action 'jump'" for example.
        place: the file.
        pad: the names of a pad's buttons; without any, entries of a pad are not read.
        known: the entries that there may be.

    Raises:
        UserError: an unknown entry, a name that is none, or no button.
    """
    for entry in bind:
        if entry not in known:
            remedy = 'write several buttons as a list, "key": ["W", "UP"], and remove what is none of these'
            raise UserError(f"{place}: {what} has the unknown entry {entry!r}; known are {', '.join(known)}: {remedy}")
    bound = 0
    for device in ("key", "mouse", "pad") if pad else ("key", "mouse"):
        entry = bind.get(device)
        for text in [] if entry is None else entry if isinstance(entry, list) else [entry]:
            where = f"{place}: the {device} of {what} is {text!r}"
            if device == "pad":
                if not isinstance(text, str) or text.upper() not in pad:
                    raise UserError(f"{where}: a pad has {', '.join(pad)}")
                button = "pad", text.upper()
            else:
                button = button_of(device, text) if isinstance(text, str) else None
            if button is None:
                raise UserError(f'{where}: write a name such as "{"W" if device == "key" else "LEFT"}"')
            if button[0] == "mouse" and button[1] not in button_names.MOUSE_BUTTONS and button_names.is_key(text):
                raise UserError(f'{where}, a key: write it as "key"')
            bound += 1
            yield button
    if not bound:
        raise UserError(f'{place}: no button is bound to {what}: give it a "key" or a "mouse", or remove it')
