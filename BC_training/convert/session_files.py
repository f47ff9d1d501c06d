"""The text files of a recorded session: key binds, inputs and memory values.

Every reader raises UserError for what it cannot read, naming the file and, in a CSV, the line.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from BC_training.common.errors import UserError
from BC_training.convert.csv_files import TIMESTAMP, number, open_csv, timestamp

KEYBINDS_VERSION = "2.0"
EVENTS = {
    "KEY_DOWN": ("key", True),
    "KEY_UP": ("key", False),
    "MOUSE_DOWN": ("mouse", True),
    "MOUSE_UP": ("mouse", False),
}  # to the device and whether the button goes down

Button = tuple[str, str]  # device "key" or "mouse", name in upper case


@dataclass(frozen=True)
class Keybinds:
    """Which button is which action.

    Attributes:
        actions: the A names, by column.
        columns: from a button to its action's column; an action may have several buttons.
    """

    actions: tuple[str, ...]
    columns: dict[Button, int]


@dataclass(frozen=True)
class Inputs:
    """What was pressed, in order of time.

    Attributes:
        times: float64 [E], microseconds.
        buttons: E buttons.
        down: bool [E], whether the button went down.
    """

    times: np.ndarray
    buttons: list[Button]
    down: np.ndarray


@dataclass(frozen=True)
class Memory:
    """Values read from the game's memory.

    Attributes:
        times: float64 [R], microseconds.
        values: float32 [R, S].
        numbered: whether the file has a column without a name that numbers its rows; it is left out.
    """

    times: np.ndarray
    values: np.ndarray
    numbered: bool


def read_keybinds(path: Path) -> Keybinds:
    raw = read_json(path)
    if raw.get("version") != KEYBINDS_VERSION:
        raise UserError(
            f'{path} has version {raw.get("version")!r}, this program reads "{KEYBINDS_VERSION}": '
            f'convert it and write "version": "{KEYBINDS_VERSION}"'
        )
    actions = raw.get("actions")
    if not isinstance(actions, dict) or not actions:
        raise UserError(f'{path} binds no actions: it needs "actions": {{"forward": {{"index": 0, "key": "W"}}, ...}}')
    names: dict[int, str] = {}
    columns: dict[Button, int] = {}
    for name, bind in actions.items():
        index = bind.get("index") if isinstance(bind, dict) else None
        if not isinstance(index, int) or isinstance(index, bool):
            raise UserError(f"{path}: action '{name}' has no whole number as \"index\": give it the column it is")
        if index in names:
            raise UserError(f"{path}: actions '{names[index]}' and '{name}' both have index {index}: renumber one")
        names[index] = name
        for device in ("key", "mouse"):
            button = bind.get(device)
            if button is None:
                continue
            if not isinstance(button, str) or not button:
                raise UserError(f"{path}: the {device} of action '{name}' is {button!r}: write a name such as \"W\"")
            other = columns.setdefault((device, button.upper()), index)
            if other != index:
                raise UserError(
                    f"{path}: {device} {button} is bound to both '{names[other]}' and '{name}': keep it for one of them"
                )
    if sorted(names) != list(range(len(names))):
        listed = ", ".join(map(str, sorted(names)))
        raise UserError(f"{path}: the indices of {len(names)} actions must be 0 to {len(names) - 1}, not {listed}")
    return Keybinds(tuple(names[i] for i in range(len(names))), columns)


def read_inputs(path: Path) -> Inputs:
    header, rows = open_csv(path, (TIMESTAMP, "event_type", "key_or_button"))
    at, event, button = (header.index(name) for name in (TIMESTAMP, "event_type", "key_or_button"))
    times, buttons, down = [], [], []
    for line, row in rows:
        if row[event] not in EVENTS:
            raise UserError(f"{path} line {line}: event_type '{row[event]}' is none of {', '.join(EVENTS)}; correct it")
        device, pressed = EVENTS[row[event]]
        if not row[button]:
            raise UserError(f"{path} line {line}: key_or_button is empty; name the key or remove the line")
        times.append(timestamp(path, line, row[at], times))
        buttons.append((device, row[button].upper()))
        down.append(pressed)
    return Inputs(np.array(times, np.float64), buttons, np.array(down, bool))


def memory_columns(path: Path) -> tuple[str, ...]:
    """The S attributes of a memory file, in its order."""
    header, _ = open_csv(path, (TIMESTAMP,))
    return tuple(name for name in header if name != TIMESTAMP and not _is_unnamed(name))


def read_memory(path: Path, attributes: tuple[str, ...]) -> Memory:
    """Reads the ``attributes`` in that order; truth values become 0 and 1."""
    header, rows = open_csv(path, (TIMESTAMP, *attributes))
    at, columns = header.index(TIMESTAMP), [header.index(name) for name in attributes]
    unnamed = [column for column, name in enumerate(header) if _is_unnamed(name)]
    times, values, start = [], [], None
    for line, row in rows:
        start = [number(row[column]) for column in unnamed] if start is None else start
        for column, first in zip(unnamed, start, strict=True):
            if first not in (0, 1) or number(row[column]) != first + len(times):
                raise UserError(
                    f"{path} line {line}: column {column + 1} has no name and is not the number of the row: "
                    "name it in the header, or remove it"
                )
        times.append(timestamp(path, line, row[at], times))
        values.append([_value(path, line, header[column], row[column]) for column in columns])
    if not times:
        raise UserError(f"{path} has no row: restore it, or remove the session")
    return Memory(np.array(times, np.float64), np.array(values, np.float32), bool(unnamed))


def _is_unnamed(column: str) -> bool:
    """Whether a column has no name, or the one that pandas gave it for want of one."""
    return re.fullmatch(r"(Unnamed: \d+)?", column) is not None


def read_json(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; check the path") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}): correct it") from error
    if not isinstance(raw, dict):
        raise UserError(f"{path} is not a JSON object: it must start with {{")
    return raw


def _value(path: Path, line: int, column: str, text: str) -> float:
    value = {"true": 1.0, "false": 0.0}.get(text.lower())
    if value is None:
        value = number(text)
    if not abs(value) <= float(np.finfo(np.float32).max):
        raise UserError(f"{path} line {line}: {column} is '{text}', not a finite number; correct it or remove the line")
    return value
