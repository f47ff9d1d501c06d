"""Reads CSV files in the dialects of spreadsheets, pandas and recorders.

Every function raises a UserError that names the file and the line.
"""

import csv
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import numpy as np

from BC_training.common.errors import UserError

TIMESTAMP = "timestamp_us"
_DELIMITERS = ",;\t|"
_DECIMAL = re.compile(r"[+-]?\d*([.,])\d+(?:e[+-]?\d+)?", re.IGNORECASE)
_EXPONENT = re.compile(r"[+-]?\d\.?(\d*)e\+?(\d+)", re.IGNORECASE)

Rows = Iterator[tuple[int, list[str]]]


def open_csv(path: Path, needed: tuple[str, ...]) -> tuple[list[str], Rows]:
    """A CSV's header, and an iterator over (line number, row), where each row is as long as the header.

    The file may be UTF-8 or UTF-16 and separated by commas, semicolons, tabs or bars. Decimal commas become
    points where commas do not separate. Empty columns without a name at the end are left out.
    """
    rows = _csv_rows(path)
    _, header = next(rows, (1, []))
    other_case = {name.lower(): name for name in needed if name not in header}
    header = [other_case.get(name.lower(), name) for name in header]
    missing = [name for name in needed if name not in header]
    if missing:
        near = [cell for cell in header if TIMESTAMP in missing and cell.lower().startswith("time")]
        remedy = f"rename {near[0]}; --time-unit says which unit it has" if near else "add it"
        if len(header) == 1 and all(name in header[0].lower() for name in missing):
            remedy = "separate the columns by commas, in every row"
        listed = ", ".join(cell or "a column without a name" for cell in header) or "none"
        raise UserError(f"{path} has no column {', '.join(missing)}: it has {listed}; {remedy}")
    repeated = sorted({name for name in header if name and header.count(name) > 1})
    if repeated:
        raise UserError(f"{path} has the column {', '.join(repeated)} twice: rename one")
    return header, rows


def timestamp(path: Path, line: int, text: str, before: list[float]) -> float:
    """A time, which must not be earlier than the last of ``before``."""
    time = number(text)
    where = f"{path} line {line}: {TIMESTAMP}"
    if not np.isfinite(time):
        raise UserError(f"{where} '{text}' is not a number: write it as one, or remove the line")
    # A spreadsheet's 1.25E+06 lost its last digits; Python writes exponents only from 1e16 on.
    rounded = _EXPONENT.fullmatch(text)
    if rounded and len(rounded[1]) < int(rounded[2]) < 16:
        raise UserError(f"{where} {text} has lost digits; export it as a whole number")
    if before and time < before[-1]:
        remedy = "sort the rows by time, if the clock did not jump"
        raise UserError(f"{where} {text} is before {before[-1]:.0f} of the row above; {remedy}")
    return time


def number(text: str) -> float:
    """The number, or NaN if ``text`` is none."""
    try:
        return float(text)
    except ValueError:
        return np.nan


def _csv_rows(path: Path) -> Rows:
    width, line, decimal_marks = None, 0, set()
    try:
        with path.open(newline="", encoding=_encoding(path)) as file:
            before, header = _header(file)
            delimiter = max(_DELIMITERS, key=header.count)
            reader = csv.reader(itertools.chain([header], file), delimiter=delimiter, strict=True)
            for row in reader:
                line = before + reader.line_num
                if not any(cell.strip() for cell in row):
                    continue
                if "\0" in "".join(row):
                    raise UserError(f"{path} line {line} holds zero bytes, as a crash leaves them: remove them")
                if any(delimiter in cell and re.search(r"[\r\n]", cell) for cell in row):
                    raise csv.Error(f"a quotation mark joins the lines up to {line}")
                cells = [cell.strip() or cell[: len(cell) == 1] for cell in row]  # a lone space is the space bar
                if width is None:
                    width = max(i for i, cell in enumerate(cells) if cell.strip()) + 1
                if len(cells) < width or any(cell.strip() for cell in cells[width:]):
                    short = "complete the line or remove it"
                    remedy = short if len(cells) < width else "name all in the header, or correct the line"
                    raise UserError(f"{path} line {line}: {len(cells)} values for {width} columns; {remedy}")
                if delimiter != ",":
                    decimal_marks.update(mark for cell in cells if (mark := _decimal_mark(cell)))
                    if len(decimal_marks) > 1:
                        raise UserError(f"{path} line {line}: decimal commas and points are mixed; use one of them")
                    cells = [cell.replace(",", ".") if _decimal_mark(cell) == "," else cell for cell in cells]
                yield line, cells[:width]
    except FileNotFoundError:
        raise UserError(f"{path} is missing: restore it, or remove the session") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; restore it, or remove the session") from error
    except UnicodeError as error:
        raise UserError(f"{path} is not a CSV in UTF-8 or UTF-16 ({error}): save it as one") from error
    except csv.Error as error:
        remedy = 'correct it, a quotation mark alone is written """"'
        raise UserError(f"{path}, after line {line}: not a CSV ({error}); {remedy}") from error


def _encoding(path: Path) -> str:
    """UTF-16 by its byte order mark or, since names and digits are ASCII, by its zero bytes; otherwise UTF-8."""
    with path.open("rb") as file:
        start = file.read(1024)
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    for first, name in ((1, "utf-16-le"), (0, "utf-16-be")):
        if start[first::2].count(0) > len(start) // 4 >= start[1 - first :: 2].count(0):
            return name
    return "utf-8-sig"


def _header(file: TextIO) -> tuple[int, str]:
    """The number of lines before the header (empty ones, # comments, a spreadsheet's ``sep=;``), and the header."""
    for before, line in enumerate(file):
        if line.strip() and not re.fullmatch(r'"?sep=.?"?|#.*', line.strip()):
            return before, line
    return 0, ""


def _decimal_mark(cell: str) -> str | None:
    """The "," or "." in a number; None without one."""
    match = _DECIMAL.fullmatch(cell)
    return match[1] if match else None
