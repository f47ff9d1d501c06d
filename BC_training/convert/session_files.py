"""The text files of a recorded session: inputs, memory values, and the video's start.

Every reader raises UserError for what it cannot read, naming the file and, in a CSV, the line.
"""

import csv
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from BC_training.common.errors import UserError
from BC_training.convert.button_names import Button
from BC_training.convert.events import is_no_button, read_event

TIMESTAMP = "timestamp_us"
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
    """Values read from the game's memory: times float64 [R] in microseconds, values float32 [R, S]."""

    times: np.ndarray
    values: np.ndarray


def read_inputs(path: Path) -> Inputs:
    """Reads the events; those that are of no button are counted and left out."""
    header, rows = _open_csv(path, (TIMESTAMP, "event_type", "key_or_button"))
    at, event, button = (header.index(name) for name in (TIMESTAMP, "event_type", "key_or_button"))
    code = next((header.index(name) for name in KEY_CODES if name in header), None)
    times, buttons, down, codes, left_out = [], [], [], [], Counter[str]()
    for line, row in rows:
        if is_no_button(row[event]):
            left_out[row[event]] += 1
            continue
        named, pressed = read_event(f"{path} line {line}", row[event], row[button])
        times.append(_timestamp(path, line, row[at], times))
        buttons.append(named)
        down.append(pressed)
        codes.append("" if code is None else row[code])
    return Inputs(np.array(times, np.float64), buttons, np.array(down, bool), codes, dict(left_out))


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
    start = read_json(path).get("video_start_us")
    if start is None:
        return None
    if isinstance(start, bool) or not isinstance(start, int | float) or not np.isfinite(start):
        raise UserError(f"{path}: video_start_us is {start!r}: write the microseconds of the first frame")
    return float(start)


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
                cells = [cell.strip() or cell[: len(cell) == 1] for cell in row]  # a space alone is the space bar
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
