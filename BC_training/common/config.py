"""The typed configuration: load, override, validate, save.

Loading has two phases. First the YAML file and the overrides are merged untyped, which is
enough to read ``model.name``; then everything is merged into frozen dataclasses, the ``model``
section into the ``Config`` of that variant. Consumers get plain dataclass objects and hold no
defaults of their own.

Text that was resolved once is never resolved again: "${...}" in a checkpoint's config is text.
"""

import contextlib
import dataclasses
import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from BC_training import models
from BC_training.common.errors import UserError
from BC_training.common.paths import expand
from BC_training.common.schema import Config
from BC_training.common.yaml_values import parse, parse_override, settle

PACKAGE = Path(__file__).resolve().parent.parent
_OBJECTS = {"allow_objects": True}  # ``Plain``, among the values


def load_config(path: str | Path, overrides: Sequence[str] | Mapping[str, Any] = ()) -> Config:
    """Reads a YAML config and merges ``overrides`` into it.

    Args:
        path: looked up as given, then inside the package folder.
        overrides: an OmegaConf dotlist, ``["training.batch_size=32", ...]``, where later ones win;
            or a mapping, ``{"training.batch_size": 32, ...}``.

    Raises:
        UserError: file missing or malformed, unknown key (with the nearest match), unknown
            variant, or a value of the wrong type or out of range.
    """
    file, content = read_yaml(path)
    given = overrides if isinstance(overrides, Mapping) else parse_overrides(overrides)
    with _as_user_errors(f"config {file}"):
        merged: Any = OmegaConf.create(content, flags=_OBJECTS)
        for key, value in given.items():
            names, _ = parse_override(f"{key}=", Config)
            merged = OmegaConf.merge(merged, OmegaConf.create(_nested(names, value), flags=_OBJECTS))
        raw: Any = OmegaConf.to_container(merged, resolve=True)
    for section in ("dataset", "model", "training", "evaluation", "logging", "system"):
        if not isinstance(raw.get(section) or {}, dict):
            raise UserError(
                f"config {file}: '{section}' is a section, found '{raw[section]}'; write {section}.KEY=VALUE"
            )
    raw["model"] = {"name": file.stem} | (raw.get("model") or {})
    raw["logging"] = raw.get("logging") or {}
    if raw["logging"].get("run_name") is None:
        raw["logging"]["run_name"] = file.stem
    return from_dict(raw, str(file))


def parse_overrides(items: Sequence[str], kind: Any = Config, option: str = "override") -> dict[str, Any]:
    """What a dotlist such as ``["training.batch_size=32"]`` sets, as nested mappings; see ``yaml_values``.

    Args:
        kind: the type of what is set.
        option: what the items are called where one is at fault.

    Raises:
        UserError: an item is not KEY=VALUE.
    """
    merged: Any = OmegaConf.create(flags=_OBJECTS)
    for item in items:
        with _as_user_errors(f"{option} '{item}'"):
            names, value = parse_override(item, kind)
            if "=" not in item or not names or not all(names):
                raise UserError(f"{option} '{item}' is not KEY=VALUE; write for example training.batch_size=32")
            merged = OmegaConf.merge(merged, OmegaConf.create(_nested(names, value), flags=_OBJECTS))
    changes: Any = OmegaConf.to_container(merged)
    return changes


def read_yaml(path: str | Path) -> tuple[Path, dict[str, Any]]:
    """A YAML file's place and its mapping, in which references to other keys, and ``Plain``, stand as they are.

    Args:
        path: looked up as given, then inside the package folder.

    Raises:
        UserError: file missing or malformed, or no mapping.
    """
    file = _find(Path(expand(path)))
    with _as_user_errors(f"config {file}"):
        content = parse(file.read_bytes())
    content = {} if content is None else content
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise UserError(f"config {file}: expected sections dataset, model, training, ...; found {kind}")
    return file, content


def from_dict(raw: dict[str, Any], where: str) -> Config:
    """Builds the typed config from plain nested dicts, such as one saved by ``to_dict``; references are text there."""
    config = build(_typed(models.find(str(settle(raw["model"]["name"], str))).Config), raw, f"config {where}")
    assert isinstance(config, Config)
    return config


def build(kind: type, raw: dict[str, Any], where: str) -> Any:
    """An object of the dataclass ``kind``, or a UserError that begins with ``where``."""
    raw = settle(raw, kind)

    def build(values: dict[str, Any]) -> Any:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), OmegaConf.create(_escaped(values))))

    try:
        return build(raw)
    except ConfigKeyError as error:
        raise UserError(_unknown_key(error, where)) from error
    except (OmegaConfBaseException, TypeError) as error:  # a TypeError where a table stands for a list
        key, reason = str(getattr(error, "full_key", None) or ""), _first_line(error)
        if "." not in key:  # none, or within a list
            key = _faulty_value(raw, build) or key
        if "tuple" in reason.lower() or "$VALUE" in reason or isinstance(error, TypeError):
            reason = "expected a list of the right length and type"
        raise UserError(f"{where}: {key + ': ' if key else ''}{reason}") from error


@lru_cache  # one class a variant, so that equal configs compare equal
def _typed(model: type) -> type:
    """``Config`` with its ``model`` section typed by the variant."""
    return dataclasses.make_dataclass("Config", [("model", model)], bases=(Config,), frozen=True)


def _faulty_value(raw: dict[str, Any], build: Callable[[dict[str, Any]], Any]) -> str | None:
    """The key without which ``build(raw)`` works; OmegaConf does not always say which it is."""

    def without_one(values: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        for key, value in values.items():
            if isinstance(value, dict):
                yield from ((f"{key}.{inner}", values | {key: rest}) for inner, rest in without_one(value))
            yield key, {k: v for k, v in values.items() if k != key}

    for key, rest in without_one(raw):
        with contextlib.suppress(OmegaConfBaseException, TypeError):
            with contextlib.suppress(UserError):  # of a value, once all types are right
                build(rest)
            return key
    return None


def to_dict(config: Config) -> dict[str, Any]:
    """Plain nested dicts of JSON and YAML types."""
    return dataclasses.asdict(config)


def save_config(config: Config, path: Path) -> None:
    """Writes the resolved config as YAML; ``load_config`` reads it back to an equal object."""
    path.write_text(to_yaml(to_dict(config)), encoding="utf-8")


def to_yaml(raw: Mapping[str, Any]) -> str:
    """A config's nested dicts as YAML, which ``load_config`` reads."""
    return OmegaConf.to_yaml(OmegaConf.create(_escaped(raw)))


def _nested(names: Sequence[str], value: Any) -> dict[str, Any]:
    for name in reversed(names):
        value = {name: value}
    return value


def _escaped(raw: Any) -> Any:
    """``raw`` with its texts such that OmegaConf takes them for what they are, and resolves nothing in them."""
    if isinstance(raw, str):
        return re.sub(r"(\\*)\$\{", r"\1\1\\${", raw)
    if isinstance(raw, Mapping):
        return {key: _escaped(value) for key, value in raw.items()}
    return [_escaped(value) for value in raw] if isinstance(raw, (list, tuple)) else raw


@contextlib.contextmanager
def _as_user_errors(what: str) -> Iterator[None]:
    try:
        yield
    except (OmegaConfBaseException, YAMLError, ValueError, TypeError, OSError) as error:
        raise UserError(f"{what}: {_first_line(error)}") from error


def _find(path: Path) -> Path:
    for candidate in (path, PACKAGE / path):
        if candidate.is_file():
            return candidate
    shipped = sorted(p.name for p in (PACKAGE / "configs").glob("*.yaml"))
    near = difflib.get_close_matches(path.name, shipped, n=1)
    hint = f"; did you mean configs/{near[0]}?" if near else ""
    raise UserError(f"no config file '{path}'{hint} (shipped: {', '.join('configs/' + n for n in shipped)})")


def _first_line(error: BaseException) -> str:
    if isinstance(error, MarkedYAMLError) and (mark := error.context_mark or error.problem_mark) is not None:
        return f"line {mark.line + 1}: {error.context or ''} {error.problem or ''}".replace("  ", " ")
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _unknown_key(error: ConfigKeyError, where: str) -> str:
    key = str(error.full_key or error.key)
    section, _, name = key.rpartition(".")
    parent = error.parent_node
    known = sorted(str(k) for k in parent) if parent is not None else []
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    place = f"section '{section}'" if section else "the top level"
    return f"{where}: unknown key '{key}'{hint} ({place} has: {', '.join(known)})"
