"""The settings that a sweep draws, written as overrides: LOW..HIGH, log:LOW..HIGH and A|B|C."""

import dataclasses
import math
import re
import types
import typing
from collections.abc import Sequence
from typing import Any

from BC_training.common.config import Config
from BC_training.common.errors import UserError, unknown
from BC_training.common.settings import variants
from BC_training.common.settings.typed import as_user_errors, build
from BC_training.common.settings.yaml_values import parse_override

_NUMBER = r"[-+]?(?:\d[\d_]*(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"(log:)?({_NUMBER})\.\.({_NUMBER})")
_EXAMPLE = "training.learning_rate=log:1e-4..1e-2"
_FIXED = ("logging", "training.checkpoint_dir", "training.resume", "evaluation.best_metric", "system.distributed")


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included; whole ones where both are of type int."""

    low: float
    high: float
    log: bool

    @property
    def is_whole(self) -> bool:
        return isinstance(self.low, int)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Where some values are, from 0 to 1, and what they are."""
        middle = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
        return [(self.place(str(value)), f"{value:.3g}") for value in (self.low, middle, self.high)]

    def place(self, text: str) -> float:
        """Where the value ``text`` is, 0 at the low end and 1 at the high one."""
        value = float(text)
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def __str__(self) -> str:
        return f"{'log:' * self.log}{self.low!r}..{self.high!r}"


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of several values, as they are written in overrides."""

    texts: tuple[str, ...]

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Where the values are, from 0 to 1, and what they are."""
        return [(self.place(text), text) for text in self.texts]

    def place(self, text: str) -> float:
        """Where the value ``text`` is, from 0 to 1."""
        return (self.texts.index(text) + 0.5) / len(self.texts)

    def __str__(self) -> str:
        return "|".join(self.texts)


Space = dict[str, Range | Choice]


def divide(items: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Divides the arguments of a sweep into plain overrides, and what is drawn: texts by their keys.

    Raises:
        UserError: nothing is drawn, or something is set twice.
    """
    plain, drawn, keys = [], {}, set()
    for item in items:
        key, _, text = item.partition("=")
        if not key:
            raise UserError(f"'{item}' is not KEY=VALUE: write for example {_EXAMPLE}")
        key, text = ".".join(parse_override(f"{key}=", Config)[0]), text.strip()
        is_drawn = text.startswith("log:") or _RANGE.fullmatch(text) or ("|" in text and text[0] not in "'\"")
        if key in drawn or (is_drawn and key in keys):
            raise UserError(f"'{item}': {key} is set twice; write one of them")
        keys.add(key)
        if is_drawn:
            drawn[key] = text
        else:
            plain.append(item)
    if not drawn:
        raise UserError(f"there is nothing to draw: write LOW..HIGH, log:LOW..HIGH or A|B, for example {_EXAMPLE}")
    return plain, drawn


def parse_space(drawn: dict[str, str], base: Config) -> Space:
    """Reads the texts of ``divide``, whose values are of the types that the settings have in ``base``.

    Raises:
        UserError: an unknown setting or one that cannot be drawn, or a text that does not say what of it to draw.
    """
    space: Space = {}
    for key, text in drawn.items():
        if any(f"{key}.".startswith(f"{fixed}.") for fixed in _FIXED):
            raise UserError(f"'{key}={text}': {key} is not for a sweep to draw; set one value")
        kind = _type_of(key, type(base))
        space[key] = _parse_choice(key, text, kind, type(base)) if "|" in text else _parse_range(key, text, kind)
    return space


def _parse_range(key: str, text: str, kind: Any) -> Range:
    item, match = f"'{key}={text}'", _RANGE.fullmatch(text)
    if match is None:
        raise UserError(f"{item} is no range: write log:LOW..HIGH, for example {_EXAMPLE}")
    kinds = _alternatives(kind)
    if int not in kinds and float not in kinds:
        raise UserError(f"{item}: {key} is no number: write its values, {key}=A|B")
    number: Any = float if float in kinds else int
    try:
        low, high = number(match[2]), number(match[3])
    except ValueError:
        raise UserError(f"{item}: {key} is a whole number: write both ends without a point or exponent") from None
    if not (math.isfinite(low) and math.isfinite(high)):
        raise UserError(f"{item}: an end is too large for a number; write a smaller one")
    if low >= high:
        raise UserError(f"{item}: {match[2]} is not below {match[3]}: write LOW..HIGH")
    if match[1] and low <= 0:
        raise UserError(f"{item}: a logarithmic range begins above 0: write another low end, or leave out log:")
    return Range(low, high, bool(match[1]))


def _parse_choice(key: str, text: str, kind: Any, base: type) -> Choice:
    texts = tuple(part.strip() for part in text.split("|"))
    if "" in texts or len(set(texts)) < len(texts):
        raise UserError(f"'{key}={text}': a value is empty or there twice: write different ones, {key}=A|B")
    value_of: Any = dataclasses.make_dataclass("Value", [("value", kind)], frozen=True)
    for part in texts:
        item = f"{key}={part}"
        with as_user_errors(f"'{item}'"):
            _, value = parse_override(item, base)
        build(value_of, {"value": value}, f"'{item}'")
        if key == "model.name":
            variants.find(part)
    return Choice(texts)


def _type_of(key: str, kind: Any) -> Any:
    """The type of the setting ``key`` in a section of type ``kind``; a UserError where there is none."""
    names, _ = parse_override(f"{key}=", kind)
    for i, name in enumerate(names):
        section = next((k for k in _alternatives(kind) if dataclasses.is_dataclass(k)), None)
        of_names = next((k for k in _alternatives(kind) if typing.get_origin(k) is dict), None)
        if section is not None:
            hints = typing.get_type_hints(section)
            fields = {field.name: hints[field.name] for field in dataclasses.fields(section)}
            if name not in fields:
                place = f" of section '{'.'.join(names[:i])}'" if i else ""
                raise unknown(f"key{place}", name, fields, f"'{key}' cannot be drawn")
            kind = fields[name]
        elif of_names is not None:
            kind = typing.get_args(of_names)[1]
        else:
            raise UserError(f"'{key}': {'.'.join(names[:i])} is no section: draw that itself, with |")
    return kind


def _alternatives(kind: Any) -> tuple[Any, ...]:
    is_union = typing.get_origin(kind) in (typing.Union, types.UnionType)
    return typing.get_args(kind) if is_union else (kind,)
