"""Reads the two tables of a session: ``inputs.csv`` and ``memory_data.csv``.

Every reader raises a UserError that names the file and the line.
"""

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from BC_training.common.errors import UserError
from BC_training.common.keybinds.button_names import Button, button_of
from BC_training.convert.sessions.csv_files import TIMESTAMP, number, open_csv, timestamp
from BC_training.convert.state_values import exact_float32

EVENTS = ("KEY_DOWN", "KEY_UP", "MOUSE_DOWN", "MOUSE_UP")
KEY_CODES = ("scan_code", "scancode", "key_code", "keycode", "vk")  # columns; the first that exists is read
_BUTTON_EVENT = re.compile(
    r"(?:WM|EV|ON)?(?:SYS)?(?P<device>KEYBOARD|KEY|MOUSEBUTTON|MOUSE|BUTTON|POINTER)?"
    r"(?:(?P<down>DOWN|PRESS|PRESSED|REPEAT|REPEATED|HOLD)|UP|RELEASE|RELEASED)"
)  # a repeat is one more press of a button that is held
_NO_BUTTON = re.compile(
    r"MOVE|MOTION|DRAG|HOVER|POSITION|DELTA|WHEEL|SCROLL|FOCUS|BLUR|ENTER|LEAVE|RESIZE|WINDOW|EV(?:REL|ABS|MSC|SYN)"
)


@dataclass(frozen=True)
class Inputs:
    """The presses and releases of a session, in order of time."""

    times: np.ndarray  # float64 [E], microseconds
    buttons: list[Button]  # E buttons
    down: np.ndarray  # bool [E], True for a press and for a repeat of a held button
    # E key numbers as text, which do not depend on the keys' names; empty where unknown.
    codes: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)  # the number of events that concern no button, by their type


@dataclass(frozen=True)
class Memory:
    """Values read from the game's memory."""

    times: np.ndarray  # float64 [R], microseconds
    values: np.ndarray  # float32 [R, S]
    numbered: bool  # whether a column without a name, which is left out, numbers the rows


def read_inputs(path: Path) -> Inputs:
    """Reads the events; those that concern no button are counted and left out."""
    header, rows = open_csv(path, (TIMESTAMP, "event_type", "key_or_button"))
    at, event, button = (header.index(name) for name in (TIMESTAMP, "event_type", "key_or_button"))
    code = next((header.index(name) for name in KEY_CODES if name in header), None)
    times, buttons, down, codes, left_out = [], [], [], [], Counter[str]()
    for line, row in rows:
        if _NO_BUTTON.search(_letters(row[event])):
            left_out[row[event]] += 1
            continue
        named, pressed = _read_event(f"{path} line {line}", row[event], row[button])
        times.append(timestamp(path, line, row[at], times))
        buttons.append(named)
        down.append(pressed)
        codes.append("" if code is None else row[code])
    return Inputs(np.array(times, np.float64), buttons, np.array(down, bool), codes, dict(left_out))


def memory_columns(path: Path) -> tuple[str, ...]:
    """The names of the S state values in a memory file, in its order."""
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
                fault = f"column {column + 1} has no name and is not the number of the row"
                raise UserError(f"{path} line {line}: {fault}: name it in the header, or remove it")
        times.append(timestamp(path, line, row[at], times))
        values.append([_value(path, line, header[column], row[column]) for column in columns])
    if not times:
        raise UserError(f"{path} has no row: restore it, or remove the session")
    exact = exact_float32(np.array(values, np.float64), attributes, str(path))
    return Memory(np.array(times, np.float64), exact, bool(unnamed))


def _read_event(where: str, event: str, text: str) -> tuple[Button, bool]:
    """The button named ``text``, and whether it goes down.

    The ``event`` is its type, one of ``EVENTS`` or another spelling such as "press"; errors begin with ``where``.
    """
    kind = _BUTTON_EVENT.fullmatch(_letters(event))
    if kind is None:
        listed = ", ".join(EVENTS)
        raise UserError(f"{where}: event_type {event!r} is none of {listed}; write one of these, or remove these rows")
    device = kind["device"] and ("key" if kind["device"].startswith("KEY") else "mouse")
    button = button_of(device, text)
    if button is None and text.strip():
        remedy = "write KEY_... or MOUSE_... as event_type"
        raise UserError(f"{where}: {text!r} may be a key or a button of the mouse: {remedy}")
    if button is None:
        raise UserError(f"{where}: key_or_button is empty; name the key (such as SPACE or COMMA) or remove the line")
    return button, kind["down"] is not None


def _letters(event: str) -> str:
    return re.sub(r"[^A-Z]", "", event.upper())


def _is_unnamed(column: str) -> bool:
    """Whether a column has no name, or the one that pandas gives to a column without a name."""
    return re.fullmatch(r"(Unnamed: \d+)?", column) is not None


def _value(path: Path, line: int, column: str, text: str) -> float:
    truth = {"true": 1.0, "false": 0.0}.get(text.lower())
    value = number(text) if truth is None else truth
    if not abs(value) <= float(np.finfo(np.float32).max):
        remedy = f'correct it, or add --leave-out "{column}"'
        raise UserError(f"{path} line {line}: {column} is '{text}', not a finite number: {remedy}")
    if re.fullmatch(r"[+-]?\d{16,}", text) and int(text) != value:
        fault = f"is {text}, a whole number that no float holds, so ids would merge"
        remedy = f'add --leave-out "{column}", or number its values from 0'
        raise UserError(f"{path} line {line}: {column} {fault}: {remedy}")
    return value
