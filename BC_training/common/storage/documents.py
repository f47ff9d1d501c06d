"""zarr's metadata documents, which other people's programs may have written."""

import math
import reprlib
from typing import Any

from BC_training.common.errors import UserError
from BC_training.common.files import parse_json_object

_DEEPEST = 64  # brackets within brackets


def parse_document(raw: bytes | None, where: str) -> dict[str, Any] | None:
    """A JSON object, None for None; a UserError where it is damaged, or no object."""
    if raw is None:
        return None
    try:
        parsed = parse_json_object(raw)
        if raw.count(b"[") + raw.count(b"{") > _DEEPEST and _is_deeper(parsed, _DEEPEST):
            raise ValueError(f"it is nested too deeply, more than {_DEEPEST} brackets")
    except ValueError as error:
        raise UserError(f"cannot read {where}: {error}") from error
    return parsed


def group_attributes(v3: dict[str, Any] | None, v2: Any = None, v2_attrs: Any = None) -> dict[str, Any] | None:
    """A group's attributes, None if it is no group; a UserError where they are no JSON object."""
    if v3 is not None and v3.get("node_type") == "group":
        attrs = v3.get("attributes")
    elif v2 is not None:
        attrs = v2_attrs
    else:
        return None
    if not isinstance(attrs, dict | None):
        raise UserError(f"its attributes are {reprlib.repr(attrs)}, not a table of names and values")
    return attrs or {}


def finite(value: Any) -> float | None:
    """An attribute as a finite float; None where it is no such number."""
    try:
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _is_deeper(value: Any, depth: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    return depth == 0 or any(_is_deeper(v, depth - 1) for v in (value.values() if isinstance(value, dict) else value))
