"""Reads the metadata of HDF5 files and of the JSON file beside them, in the types that people write."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from BC_training.common.files import parse_json_object, read_json_object

_ENTRIES = ("fps", "action_space", "action_names", "env_args")


def read_metadata(attrs: h5py.AttributeManager, beside: Path | None) -> dict[str, Any]:
    """The file's attributes as JSON types, overridden by the entries of the JSON file ``beside`` it."""
    found = {name: plain(attrs[name]) for name in _ENTRIES if name in attrs}
    return found | (read_json_object(beside) if beside is not None and beside.exists() else {})


def parse_object(stored: Any) -> dict[str, Any]:
    """A JSON object that is stored as text, or as it is; raises a ValueError if it is something else."""
    if isinstance(stored, str):
        return parse_json_object(stored)
    if not isinstance(stored, dict):
        raise ValueError("it is no table of names and values")
    return stored


def plain(value: Any) -> Any:
    """An attribute as a JSON type: None, text, a number, or lists of these."""
    if isinstance(value, h5py.Empty):
        return None
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return [plain(item) for item in value] if isinstance(value, list) else value


def number(value: Any) -> float | None:
    """A finite number from a number, from text, or from a list of one; None for anything else."""
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
    """A whole number, read as ``number`` does; None for anything else."""
    found = number(value)
    return int(found) if found is not None and found == int(found) else None


def whole_numbers(value: Any) -> list[int] | None:
    """All the whole numbers in a number or in nested lists; None if anything else is among them."""
    if isinstance(value, list | tuple):
        parts = [whole_numbers(item) for item in value]
        return None if any(part is None for part in parts) else [n for part in parts if part is not None for n in part]
    one = whole(value)
    return None if one is None else [one]


def control_frequency(metadata: dict[str, Any]) -> Any:
    """The actions per second of a robosuite environment, which are robomimic's frame rate; None without them."""
    try:
        arguments = parse_object(metadata.get("env_args")).get("env_kwargs")
    except ValueError:
        return None
    return arguments.get("control_freq") if isinstance(arguments, dict) else None
