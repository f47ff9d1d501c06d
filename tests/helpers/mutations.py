"""Damage to files, drawn by hypothesis, and a check of error messages."""

import copy
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from BC_training.common.errors import UserError

WEIRD = st.sampled_from([
    None, True, 0, -1, 3, 2**31, 10**15, 2**70, 0.5, -2.5, 1e308, math.nan, math.inf,
    "", " ", "0", "-1", "nan", "text", "a.b[c]", "[red]bold[/]", "\u2028", "рычаг", "../../outside", "/absolute", "~",
    [], [1], [None], ["a", "a"], [[1, 2], [3]], {}, {"a": 1}, {"type": "Dict"},
])  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value within a JSON document."""
    if path:
        yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, key))


@st.composite
def changed(draw: st.DrawFn, document: Any, values: st.SearchStrategy = WEIRD) -> Any:
    """A JSON document in which one value is replaced, doubled, removed or renamed."""
    document = copy.deepcopy(document)
    if not document:
        return draw(values)
    *outer, last = draw(st.sampled_from(list(places(document))))
    parent = document
    for key in outer:
        parent = parent[key]
    what = draw(st.sampled_from(["replace", "replace", "replace", "remove", "double"]))
    if what == "replace":
        parent[last] = draw(values)
    elif what == "remove":
        del parent[last]
    elif isinstance(parent, list):
        parent.insert(last, parent[last])
    else:
        parent[f"{last}s"] = parent.pop(last)
    return document


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes of which some are changed, inserted or removed."""
    at = draw(st.integers(0, max(len(content) - 1, 0)))
    what = draw(st.sampled_from(["flip", "cut", "empty", "insert", "overwrite"]))
    if what == "flip" and content:
        return content[:at] + bytes([content[at] ^ draw(st.integers(1, 255))]) + content[at + 1 :]
    if what == "cut":
        return content[:at]
    if what == "empty":
        return b""
    inserted = draw(st.binary(min_size=1, max_size=8))
    return content[:at] + inserted + content[at + (len(inserted) if what == "overwrite" else 0) :]


def change_file(data: st.DataObject, file: Path, values: st.SearchStrategy = WEIRD) -> None:
    """Damages a file's JSON or its bytes."""
    content = file.read_bytes()
    if file.suffix == ".json" or file.name.startswith(".z"):
        kind = data.draw(st.sampled_from(["json", "json", "json", "bytes", "mark"]))
        if kind == "json":
            file.write_text(json.dumps(data.draw(changed(json.loads(content), values))), encoding="utf-8")
            return
        if kind == "mark":
            file.write_bytes(b"\xef\xbb\xbf" + content)
            return
    file.write_bytes(data.draw(damaged(content)))


def require_one_line(error: UserError) -> None:
    """Checks that an error is one readable line."""
    text = str(error)
    assert text.strip()
    assert len(text.splitlines()) == 1, text
    assert len(text) < 3000, text
