"""Nested mappings of settings as objects of frozen dataclasses, and the errors where they do not fit."""

import contextlib
import difflib
import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from BC_training.common.errors import UserError, first_line
from BC_training.common.settings.yaml_values import parse_override, settle

OBJECTS = {"allow_objects": True}  # ``Plain``, among the values
_GAME_OPTIONS = ("skill", "delay")  # once keys of their own beside "game"


def parse_overrides(items: Sequence[str], kind: Any, option: str = "override") -> dict[str, Any]:
    """What a dotlist such as ``["training.batch_size=32"]`` sets, as nested mappings; see ``yaml_values``.

    Args:
        kind: the type of what is set.
        option: what a UserError calls an item that is not KEY=VALUE.
    """
    merged: Any = OmegaConf.create(flags=OBJECTS)
    for item in items:
        with as_user_errors(f"{option} '{item}'"):
            names, value = parse_override(item, kind)
            if "=" not in item or not names or not all(names):
                raise UserError(f"{option} '{item}' is not KEY=VALUE; write for example training.batch_size=32")
            merged = OmegaConf.merge(merged, OmegaConf.create(nested(names, value), flags=OBJECTS))
    changes: Any = OmegaConf.to_container(merged)
    return changes


def build(kind: type, raw: dict[str, Any], where: str) -> Any:
    """An object of the dataclass ``kind``, or a UserError that begins with ``where``."""
    raw = settle(raw, kind)

    def build(values: dict[str, Any]) -> Any:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), OmegaConf.create(escaped(values))))

    try:
        return build(raw)
    except ConfigKeyError as error:
        raise UserError(_unknown_key(error, where, raw)) from error
    except (OmegaConfBaseException, TypeError) as error:  # a TypeError where a table stands for a list
        key, reason = str(getattr(error, "full_key", None) or ""), _where_and_what(error)
        if "." not in key:  # none, or within a list
            key = _faulty_value(raw, build) or key
        if "Union[str, tuple" in reason:
            reason = "expected text, or a list of texts"
        elif "tuple" in reason.lower() or "$VALUE" in reason or isinstance(error, TypeError):
            reason = "expected a list of the right length and type"
        raise UserError(f"{where}: {key + ': ' if key else ''}{reason}") from error


def _faulty_value(raw: dict[str, Any], build: Callable[[dict[str, Any]], Any]) -> str | None:
    """The key without which ``build(raw)`` works; OmegaConf does not always say which it is."""

    def without_one(values: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        for key, value in values.items():
            if isinstance(value, dict):
                yield from ((f"{key}.{inner}", values | {key: rest}) for inner, rest in without_one(value))
            yield key, {k: v for k, v in values.items() if k != key}

    for key, rest in without_one(raw):
        with contextlib.suppress(OmegaConfBaseException, TypeError):
            with contextlib.suppress(UserError):  # a value is out of range, but all types are right
                build(rest)
            return key
    return None


def nested(names: Sequence[str], value: Any) -> dict[str, Any]:
    for name in reversed(names):
        value = {name: value}
    return value


def escaped(raw: Any) -> Any:
    """``raw`` with its texts escaped, so that OmegaConf resolves nothing in them."""
    if isinstance(raw, str):
        return re.sub(r"(\\*)\$\{", r"\1\1\\${", raw)
    if isinstance(raw, Mapping):
        return {key: escaped(value) for key, value in raw.items()}
    return [escaped(value) for value in raw] if isinstance(raw, (list, tuple)) else raw


@contextlib.contextmanager
def as_user_errors(what: str) -> Iterator[None]:
    try:
        yield
    except (OmegaConfBaseException, YAMLError, ValueError, TypeError, OSError) as error:
        raise UserError(f"{what}: {_where_and_what(error)}") from error


def _where_and_what(error: BaseException) -> str:
    if isinstance(error, MarkedYAMLError) and (mark := error.context_mark or error.problem_mark) is not None:
        return f"line {mark.line + 1}: {error.context or ''} {error.problem or ''}".replace("  ", " ")
    return first_line(error)


def _unknown_key(error: ConfigKeyError, where: str, raw: dict[str, Any]) -> str:
    key = str(error.full_key or error.key)
    section, _, name = key.rpartition(".")
    if name in _GAME_OPTIONS and section in ("dataset.record", "evaluation.rollout"):
        values = functools.reduce(dict.__getitem__, section.split("."), raw)
        game = f"{values.get('game', 'GAME')}?{name}={values[name]}"
        return f"{where}: {key} is part of the game's name now: {section}.game={game}"
    parent = error.parent_node
    known = sorted(str(k) for k in parent) if parent is not None else []
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    place = f"section '{section}'" if section else "the top level"
    return f"{where}: unknown key '{key}'{hint} ({place} has: {', '.join(known)})"
