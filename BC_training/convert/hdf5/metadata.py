"""What HDF5 files and the JSON beside them say of themselves, which comes as text, bytes, numbers or arrays."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from BC_training.common.errors import UserError

_ENTRIES = ("fps", "action_space", "action_names", "env_args")


def read_metadata(attrs: h5py.AttributeManager, beside: Path | None) -> dict[str, Any]:
    """The file's attributes as JSON types, then those of the JSON file ``beside`` it.

    Raises:
        UserError: that file cannot be read or is no JSON object.
    """
    found = {name: plain(attrs[name]) for name in _ENTRIES if name in attrs}
    if beside is None or not beside.exists():
        return found
    try:
        return found | parse_object(beside.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {beside}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{beside} is not a JSON object in UTF-8 ({error}): correct it") from error


def parse_object(raw: Any) -> dict[str, Any]:
    """A JSON object, from text, from bytes in UTF-8, -16 or -32, with a byte order mark or not, or as it is.

    Raises:
        ValueError: it is none.
    """
    try:
        parsed = json.loads(raw.encode() if isinstance(raw, str) else raw) if isinstance(raw, str | bytes) else raw
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(parsed, dict):
        raise ValueError("it starts with no {")
    return parsed


def plain(value: Any) -> Any:
    """An attribute as JSON has it: None, text, a number, or lists of these."""
    if isinstance(value, h5py.Empty):
        return None
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return [plain(item) for item in value] if isinstance(value, list) else value


def number(value: Any) -> float | None:
    """A finite number, from a number, from text, or from an array of one; None where it is none."""
    while isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if np.isfinite(found) else None


def whole(value: Any) -> int | None:
    """``number``, if it is a whole one."""
    found = number(value)
    return int(found) if found is not None and found == int(found) else None


def whole_numbers(value: Any) -> list[int] | None:
    """All the whole numbers in a number or in lists of lists of them; None where one of them is none."""
    if isinstance(value, list | tuple):
        parts = [whole_numbers(item) for item in value]
        return None if any(part is None for part in parts) else [n for part in parts if part is not None for n in part]
    one = whole(value)
    return None if one is None else [one]


def control_frequency(metadata: dict[str, Any]) -> Any:
    """Actions per second of a robosuite environment, which is robomimic's frame rate; None where it does not say."""
    try:
        arguments = parse_object(metadata.get("env_args")).get("env_kwargs")
    except ValueError:
        return None
    return arguments.get("control_freq") if isinstance(arguments, dict) else None
