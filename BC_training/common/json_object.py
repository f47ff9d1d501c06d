"""Dataclasses that are stored as JSON objects."""

import math
from collections.abc import Mapping
from dataclasses import MISSING, fields
from types import NoneType, UnionType
from typing import Any, Self, Union, get_args, get_origin, get_type_hints

from BC_training.common.errors import UserError, first_line


class JsonObject:
    """A base for frozen dataclasses.

    Their fields are numbers, texts, lists, tuples, dicts, and objects that have ``to_dict`` and ``from_dict``. A field
    whose default is None is absent from the JSON object while it is None. All other fields are always present.
    """

    def to_dict(self) -> dict[str, Any]:
        """The object in JSON types."""
        values = {field.name: (getattr(self, field.name), field.default) for field in fields(self)}  # pyright: ignore[reportArgumentType]
        return {name: _to_json(value) for name, (value, default) in values.items() if value is not None or default}

    @classmethod
    def from_dict(cls, raw: Any) -> Self:
        """Reads what ``to_dict`` returned, also after it was stored as JSON. Unknown keys are ignored.

        Raises:
            ValueError: a key is missing, or a value has the wrong type or is not finite. The message names the key.
        """
        return _read_object(cls, raw, "")


def _to_json(value: Any) -> Any:
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {key: _to_json(entry) for key, entry in value.items()}
    return [_to_json(entry) for entry in value] if isinstance(value, list | tuple) else value


def _read_object(kind: Any, raw: Any, where: str) -> Any:
    if not isinstance(raw, Mapping):
        raise ValueError(f"{where or 'it'} is {raw!r:.60}, not a mapping")
    hints, values = get_type_hints(kind), {}
    for field in fields(kind):
        name = f"{where}.{field.name}" if where else field.name
        if field.name in raw:
            values[field.name] = _read(hints[field.name], raw[field.name], name)
        elif field.default is MISSING:
            raise ValueError(f"{name} is missing")
    return kind(**values)


def _read(kind: Any, raw: Any, where: str) -> Any:
    parts, origin = get_args(kind), get_origin(kind) or kind
    if origin in (Union, UnionType):  # one type, or None
        (inner,) = (part for part in parts if part is not NoneType)
        return None if raw is None else _read(inner, raw, where)
    if isinstance(raw, origin) and hasattr(kind, "from_dict"):
        return raw
    if issubclass(origin, JsonObject):
        return _read_object(origin, raw, where)
    if hasattr(origin, "from_dict"):
        try:
            return origin.from_dict(raw)
        except (UserError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{where}: {first_line(error)}") from error
    if origin is dict and isinstance(raw, Mapping):
        return {key: _read(parts[1], value, f"{where}.{key}") for key, value in raw.items()}
    if origin is list and isinstance(raw, list):
        return [_read(parts[0], value, where) for value in raw]
    if origin is tuple and isinstance(raw, list | tuple) and (parts[-1] is ... or len(raw) == len(parts)):
        return tuple(_read(parts[0], value, where) for value in raw)
    if origin is float and isinstance(raw, int | float) and not isinstance(raw, bool) and math.isfinite(raw):
        return float(raw)
    if origin in (int, str, bool) and type(raw) is origin:
        return raw
    raise ValueError(f"{where} is {raw!r:.60}, not {getattr(kind, '__name__', kind)}")
