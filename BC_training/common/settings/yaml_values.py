"""YAML as settings are written in it: what is typed as text stays as it is written.

A plain 0012, 12:30, 1e5 or on is a number or a truth value to YAML 1.1. Which it is here the setting's type
says, so the text is kept beside the value (``Plain``) until that type is known (``settle``).
"""

import dataclasses
import re
import types
import typing
from collections.abc import Mapping
from typing import Any

from yaml import MappingNode, Node, SafeLoader, ScalarNode, SequenceNode, YAMLError

_PREFIX = "tag:yaml.org,2002:"
_MOST = 100_000  # values in one file; aliases can make billions of a few lines
# Plain scalars are as in YAML 1.2, but for underscores and yes, no, on, off: 010 is ten, 12:30 no number.
_TAGS = ("str", "bool", "int", "float", "null", "seq", "map")
_RULES = (
    ("bool", r"yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF", "yYnNtTfFoO"),
    ("int", r"[-+]?[0-9][0-9_]*|0x[0-9a-fA-F]+|0o[0-7]+|0b[01]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
    ("merge", r"<<", "<"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
)


class Plain:  # no dataclass and no tuple, which OmegaConf would look into
    """A scalar without quotes that is text only where a setting is typed so."""

    def __init__(self, text: str, value: bool | float):
        self.text, self.value = text, value

    def __str__(self) -> str:
        return str(self.value)  # what OmegaConf writes for it into a longer text


class _Loader(SafeLoader):
    """Resolves plain scalars by ``_RULES``."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 (of the base class, which says no type)

    def int(self, node: ScalarNode) -> int:
        text = node.value.replace("_", "")
        return int(text, 0) if text[:2] in ("0x", "0o", "0b") else int(text)


for _name, _pattern, _first in _RULES:
    _Loader.add_implicit_resolver(f"{_PREFIX}{_name}", re.compile(f"^(?:{_pattern})$"), list(_first))
_Loader.add_constructor(f"{_PREFIX}int", _Loader.int)


def parse(text: str | bytes) -> Any:
    """What a YAML text holds, numbers and truth values as ``Plain``, the keys of all mappings as text.

    Args:
        text: bytes may be UTF-8 or, with a byte order mark, UTF-16.

    Raises:
        YAMLError: it is no YAML, names a key twice, or holds more values than a configuration has.
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _count(node, {})
            return _value(loader, node)
        finally:
            loader.dispose()
    except RecursionError as error:
        raise YAMLError("its lists or tables are nested too deeply") from error
    except ValueError as error:  # a number has an explicit tag, or thousands of digits
        raise YAMLError(str(error)) from error


def settle(raw: Any, kind: Any) -> Any:
    """``raw`` with every ``Plain`` replaced by its text, where the setting's type ``kind`` is text, or by its value."""
    kinds = _alternatives(kind)
    if isinstance(raw, Plain):
        return raw.text if any(map(_is_text, kinds)) else raw.value
    if isinstance(raw, Mapping):
        fields = next((_fields(k) for k in kinds if dataclasses.is_dataclass(k)), {})
        of_values = next((typing.get_args(k)[1] for k in kinds if typing.get_origin(k) is dict), Any)
        return {key: settle(value, fields.get(key, of_values)) for key, value in raw.items()}
    if isinstance(raw, (list, tuple)):
        items = next((typing.get_args(k) for k in kinds if typing.get_origin(k) is tuple), ())
        each = [items[0]] * len(raw) if len(items) == 2 and items[1] is ... else [*items, *[Any] * len(raw)]
        return [settle(value, k) for value, k in zip(raw, each, strict=False)]
    return raw


def parse_override(item: str, kind: Any) -> tuple[list[str], Any]:
    """The path of keys, and the value, that KEY=VALUE gives.

    Dots divide keys. In a table of names all the rest is the name, which may hold a "=": both
    thresholds.Key.space=0.4 and thresholds[Key.space]=0.4 set "Key.space". A value whose type in ``kind`` is
    text stays as it is written, except null, ~, quoted text and, where one is possible, a list in []. A value that is
    no YAML raises a YAMLError.
    """
    key, _, text = item.partition("=")
    path: list[str] = []
    start = 0
    while start < len(key):
        kinds = _alternatives(kind)
        if of_names := next((k for k in kinds if typing.get_origin(k) is dict), None):
            name, _, text = item[start:].rpartition("=")
            if key[start] == "[" and key[start - 1] != ".":
                name = name[1:].removesuffix("]")
            path.append(name)
            kind = typing.get_args(of_names)[1]
            break
        match = re.compile(r"\[?([^.\[\]]*)\]?\.?").match(key, start)
        assert match is not None  # it may be empty
        path.append(match[1])
        start = match.end() if match[0] else len(key)
        fields = next((_fields(k) for k in kinds if dataclasses.is_dataclass(k)), {})
        kind = fields.get(match[1], Any)
    text = text.strip()
    kinds = _alternatives(kind)
    is_list = text[:1] == "[" and text[-1:] == "]" and any(typing.get_origin(k) is tuple for k in kinds)
    is_text = any(map(_is_text, kinds)) and text[:1] not in ("'", '"') and not is_list
    return path, text if is_text and text not in ("", "~", "null", "Null", "NULL") else parse(text)


def _is_text(kind: Any) -> bool:
    return kind is str or typing.get_origin(kind) is typing.Literal


def _alternatives(kind: Any) -> tuple[Any, ...]:
    is_union = typing.get_origin(kind) in (typing.Union, types.UnionType)
    return typing.get_args(kind) if is_union else (kind,)


def _fields(kind: Any) -> dict[str, Any]:
    """The types of a dataclass's fields, by name."""
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _value(loader: _Loader, node: Node) -> Any:
    if node.tag.removeprefix(_PREFIX) not in _TAGS:
        raise YAMLError(f"line {node.start_mark.line + 1}: the tag {node.tag} means nothing here")
    if isinstance(node, ScalarNode):
        if node.style is None and node.tag in (f"{_PREFIX}bool", f"{_PREFIX}int", f"{_PREFIX}float"):
            return Plain(node.value, loader.construct_object(node))
        return loader.construct_object(node)
    if isinstance(node, SequenceNode):
        return [_value(loader, item) for item in node.value]
    if isinstance(node, MappingNode):
        own = [key.value for key, _ in node.value if key.tag != f"{_PREFIX}merge"]
        if not all(isinstance(key, str) for key in own):
            raise YAMLError(f"line {node.start_mark.line + 1}: a key is a name, not a list or a table")
        if twice := next((key for i, key in enumerate(own) if key in own[:i]), None):
            raise YAMLError(f"line {node.start_mark.line + 1}: the key '{twice}' is there twice")
        loader.flatten_mapping(node)
        return {key.value: _value(loader, value) for key, value in node.value}
    raise YAMLError(f"cannot read {node}")


def _count(node: Node, known: dict[int, int]) -> int:
    """How many values ``node`` becomes once its aliases are written out."""
    if (number := known.get(id(node))) is None:
        known[id(node)] = _MOST + 1  # if met within itself
        inner = node.value if isinstance(node, (SequenceNode, MappingNode)) else ()
        number = 1
        for item in inner:
            for one in item if isinstance(item, tuple) else (item,):
                number += _count(one, known)
        known[id(node)] = number
    if number > _MOST:
        raise YAMLError(f"line {node.start_mark.line + 1}: more than {_MOST:,} values, with aliases written out")
    return number
