"""The names of buttons, axes and state values; those of a kind must differ, and no button is called as an axis."""

import unicodedata
from collections.abc import Mapping
from typing import Any

_LONGEST = 200  # characters of a name
_LINE = 400  # characters of a proposed list


def names_fault(attrs: Mapping[str, Any], path: str | None = None) -> str | None:
    """What is wrong with "keys", "axes" and "attributes" of a dataset; None if nothing is.

    Args:
        attrs: the dataset's attributes.
        path: the dataset's path, for what to do about it; None leaves that out.
    """
    for label, of in (("keys", "actions"), ("axes", "axes"), ("attributes", "state values")):
        names = attrs.get(label)
        if label != "keys" and names is None:
            continue
        fault = _fault(names, label, of, may_be_empty=label != "keys" or bool(attrs.get("axes")))
        if fault is None and label == "axes" and (both := [name for name in names or () if name in attrs["keys"]]):
            fault = f"'keys' and 'axes' both have {_short(both[0])}"
        if fault:
            line = rename(path, label, proposed(names) or proposed(None)) if path is not None else None
            return fault if line is None else f"{fault}; name each once, {line}"
    return None


def rename(path: str, label: str, names: list[str]) -> str:
    """A line of Python that writes other names."""
    written = repr(names) if len(repr(names)) <= _LINE else "[...]"
    how = f"in Python: import zarr; zarr.open_group({path!r}, mode='r+').attrs[{label!r}] = {written}"
    return how if "://" not in path else f"where the dataset was made ({how})"


def proposed(names: Any) -> list[str]:
    """Names that all differ, as close as possible to those there are."""
    if isinstance(names, str):
        names = names.split(",")
    if isinstance(names, dict):
        names = list(names)
    if not isinstance(names, list):
        count = names if isinstance(names, int) and 0 < names <= 1000 else 2
        names = [None] * count
    found: dict[str, None] = {}
    for i, name in enumerate(names):
        name = name.strip() if isinstance(name, str) else name
        kept = name if _one_fault(name) is None else f"name_{i}"
        while kept in found:
            kept = f"{kept}_{i}"
        found[kept] = None
    return list(found)


def _fault(names: Any, label: str, of: str, may_be_empty: bool) -> str | None:
    if not isinstance(names, list) or not (names or may_be_empty):
        shown = "an empty list" if names == [] else _short(names)
        return f"'{label}' is {shown}, not a list of the {of}' names"
    columns: dict[str, int] = {}
    for i, name in enumerate(names):
        if fault := _one_fault(name):
            return f"'{label}' has {_short(name)} in column {i}, {fault}"
        if columns.setdefault(name, i) < i:
            return f"'{label}' has {_short(name)} twice, in columns {columns[name]} and {i}"
    return None


def _one_fault(name: Any) -> str | None:
    if not isinstance(name, str):
        return "which is not text"
    if not name.strip():
        return "which is empty"
    if len(name) > _LONGEST:
        return f"which is longer than {_LONGEST} characters"
    if any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in name):
        return "which has a control character"
    return None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
