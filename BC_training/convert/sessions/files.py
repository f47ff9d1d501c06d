"""The text files of a recorded session: inputs and memory values.

Every reader raises UserError for what it cannot read, naming the file and, in a CSV, the line.
"""

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from BC_training.common.errors import UserError
from BC_training.convert.sessions.button_names import Button
from BC_training.convert.sessions.csv_files import TIMESTAMP, number, open_csv, timestamp
from BC_training.convert.sessions.events import is_no_button, read_event
from BC_training.convert.state_values import exact_float32

KEY_CODES = ("scan_code", "scancode", "key_code", "keycode", "vk")  # columns, the first that is there


@dataclass(frozen=True)
class Inputs:
    """What was pressed, in order of time.

    Attributes:
        times: float64 [E], microseconds.
        buttons: E buttons.
        down: bool [E], whether the button went down; True for a repeat of what is held.
        codes: E numbers of the keys as text, which stay the same whatever their names; empty where unknown.
        left_out: how many events were of no button, by their type.
    """

    times: np.ndarray
    buttons: list[Button]
    down: np.ndarray
    codes: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)


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


def read_inputs(path: Path) -> Inputs:
    """Reads the events; those that are of no button are counted and left out."""
    header, rows = open_csv(path, (TIMESTAMP, "event_type", "key_or_button"))
    at, event, button = (header.index(name) for name in (TIMESTAMP, "event_type", "key_or_button"))
    code = next((header.index(name) for name in KEY_CODES if name in header), None)
    times, buttons, down, codes, left_out = [], [], [], [], Counter[str]()
    for line, row in rows:
        if is_no_button(row[event]):
            left_out[row[event]] += 1
            continue
        named, pressed = read_event(f"{path} line {line}", row[event], row[button])
        times.append(timestamp(path, line, row[at], times))
        buttons.append(named)
        down.append(pressed)
        codes.append("" if code is None else row[code])
    return Inputs(np.array(times, np.float64), buttons, np.array(down, bool), codes, dict(left_out))


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
    exact = exact_float32(np.array(values, np.float64), attributes, str(path))
    return Memory(np.array(times, np.float64), exact, bool(unnamed))


def _is_unnamed(column: str) -> bool:
    """Whether a column has no name, or the one that pandas gave it for want of one."""
    return re.fullmatch(r"(Unnamed: \d+)?", column) is not None


def read_json(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_bytes(), object_pairs_hook=_unique_entries)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; check the path") from error
    except RecursionError as error:
        raise UserError(f"{path} is nested too deep: correct it") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}): correct it") from error
    if not isinstance(raw, dict):
        raise UserError(f"{path} is not a JSON object: it must start with {{")
    return raw


def _unique_entries(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError(f"it has an entry twice: {', '.join(repr(name) for name, _ in pairs)}")
    return entries


def _value(path: Path, line: int, column: str, text: str) -> float:
    value = {"true": 1.0, "false": 0.0}.get(text.lower())
    if value is None:
        value = number(text)
    if not abs(value) <= float(np.finfo(np.float32).max):
        raise UserError(
            f"{path} line {line}: {column} is '{text}', not a finite number: "
            f'correct it, or add --leave-out "{column}"'
        )
    if re.fullmatch(r"[+-]?\d{16,}", text) and int(text) != value:
        raise UserError(
            f"{path} line {line}: {column} is {text}, a whole number that no float holds, so ids would merge: "
            f'add --leave-out "{column}", or number its values from 0'
        )
    return value
