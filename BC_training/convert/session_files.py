"""The text files of a recorded session: key binds, inputs, memory values, and the video's start.

Every reader raises UserError for what it cannot read, naming the file and, in a CSV, the line.
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from BC_training.common.errors import UserError

KEYBINDS_VERSION = "2.0"
TIMESTAMP = "timestamp_us"
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
    """Values read from the game's memory: times float64 [R] in microseconds, values float32 [R, S]."""

    times: np.ndarray
    values: np.ndarray


def read_keybinds(path: Path) -> Keybinds:
    raw = _read_json(path)
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
    header, rows = _open_csv(path, (TIMESTAMP, "event_type", "key_or_button"))
    at, event, button = (header.index(name) for name in (TIMESTAMP, "event_type", "key_or_button"))
    times, buttons, down = [], [], []
    for line, row in rows:
        if row[event] not in EVENTS:
            raise UserError(f"{path} line {line}: event_type '{row[event]}' is none of {', '.join(EVENTS)}; correct it")
        device, pressed = EVENTS[row[event]]
        if not row[button]:
            raise UserError(f"{path} line {line}: key_or_button is empty; name the key or remove the line")
        times.append(_timestamp(path, line, row[at], times))
        buttons.append((device, row[button].upper()))
        down.append(pressed)
    return Inputs(np.array(times, np.float64), buttons, np.array(down, bool))


def memory_columns(path: Path) -> tuple[str, ...]:
    """The S attributes of a memory file, in its order."""
    header, _ = _open_csv(path, (TIMESTAMP,))
    return tuple(name for name in header if name != TIMESTAMP)


def read_memory(path: Path, attributes: tuple[str, ...]) -> Memory:
    """Reads the ``attributes`` in that order; truth values become 0 and 1."""
    header, rows = _open_csv(path, (TIMESTAMP, *attributes))
    at, columns = header.index(TIMESTAMP), [header.index(name) for name in attributes]
    times, values = [], []
    for line, row in rows:
        times.append(_timestamp(path, line, row[at], times))
        values.append([_value(path, line, header[column], row[column]) for column in columns])
    if not times:
        raise UserError(f"{path} has no row: restore it, or remove the session")
    return Memory(np.array(times, np.float64), np.array(values, np.float32))


def read_video_start(path: Path) -> float | None:
    """When the video's first frame was shown, in microseconds; None if there is no such file or entry."""
    if not path.exists():
        return None
    start = _read_json(path).get("video_start_us")
    if start is None:
        return None
    if isinstance(start, bool) or not isinstance(start, int | float) or not np.isfinite(start):
        raise UserError(f"{path}: video_start_us is {start!r}: write the microseconds of the first frame")
    return float(start)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; check the path") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}): correct it") from error
    if not isinstance(raw, dict):
        raise UserError(f"{path} is not a JSON object: it must start with {{")
    return raw


def _open_csv(path: Path, needed: tuple[str, ...]) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """A CSV's header, and an iterator of its rows with their line numbers."""
    rows = _csv_rows(path)
    _, header = next(rows, (1, []))
    missing = [name for name in needed if name not in header]
    if missing:
        raise UserError(f"{path} has no column {', '.join(missing)}: it has {', '.join(header) or 'none'}; add it")
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise UserError(f"{path} has the column {', '.join(repeated)} twice: rename one")
    return header, rows


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    width = None
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            for row in reader:
                if not row:
                    continue
                cells = [cell.strip() for cell in row]
                if len(cells) != (width := width or len(cells)):
                    raise UserError(
                        f"{path} line {reader.line_num}: {len(cells)} values for {width} columns; "
                        "complete the line or remove it"
                    )
                yield reader.line_num, cells
    except FileNotFoundError:
        raise UserError(f"{path} is missing: restore it, or remove the session") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; restore it, or remove the session") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a CSV in UTF-8 ({error}): save it as one") from error


def _timestamp(path: Path, line: int, text: str, before: list[float]) -> float:
    time = _number(text)
    if not np.isfinite(time):
        raise UserError(f"{path} line {line}: {TIMESTAMP} '{text}' is not a number; correct the line or remove it")
    if before and time < before[-1]:
        raise UserError(
            f"{path} line {line}: {TIMESTAMP} {text} is before {before[-1]:.0f} of the row above; "
            "sort the rows by time, if the clock did not jump"
        )
    return time


def _value(path: Path, line: int, column: str, text: str) -> float:
    value = {"true": 1.0, "false": 0.0}.get(text.lower())
    if value is None:
        value = _number(text)
    if not abs(value) <= float(np.finfo(np.float32).max):
        raise UserError(f"{path} line {line}: {column} is '{text}', not a finite number; correct it or remove the line")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan
