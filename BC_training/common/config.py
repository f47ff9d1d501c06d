"""The typed configuration: load, override, validate, save.

Loading has two phases. First the YAML file and the overrides are merged untyped, which is
enough to read ``model.name``; then everything is merged into frozen dataclasses, the ``model``
section into the ``Config`` of that variant. Consumers get plain dataclass objects and hold no
defaults of their own.

Text that was resolved once is never resolved again: "${...}" in a checkpoint's config is text.
"""

import dataclasses
import difflib
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from BC_training.common.errors import UserError
from BC_training.common.files import expand
from BC_training.common.schema import Config
from BC_training.common.settings import variants
from BC_training.common.settings.typed import OBJECTS, as_user_errors, build, escaped, nested, parse_overrides
from BC_training.common.settings.yaml_values import parse, parse_override, settle

PACKAGE = Path(__file__).resolve().parents[1]


def load_config(path: str | Path, overrides: Sequence[str] | Mapping[str, Any] = ()) -> Config:
    """Reads a YAML config and merges ``overrides`` into it.

    Args:
        path: looked up as given, then inside the package folder.
        overrides: an OmegaConf dotlist, ``["training.batch_size=32", ...]``, where later ones win;
            or a mapping, ``{"training.batch_size": 32, ...}``.

    The file's ``dataset.record`` is about the dataset that the file names: overrides of the path without one of
    ``dataset.record`` drop it, so that a path that is wrong is never recorded.

    Raises:
        UserError: file missing or malformed, unknown key (with the nearest match), unknown
            variant, or a value of the wrong type or out of range.
    """
    raw, file = read_settings(path, overrides)
    if "from" in (raw.get("finetune") or {}):
        raise UserError(f"config {file}: it is of a fine-tuning: finetune --config {file}")
    raw["model"] = {"name": file.stem} | (raw.get("model") or {})
    raw["logging"] = raw.get("logging") or {}
    if raw["logging"].get("run_name") is None:
        raw["logging"]["run_name"] = file.stem
    return from_dict(raw, str(file))


def read_settings(path: str | Path, overrides: Sequence[str] | Mapping[str, Any] = ()) -> tuple[dict[str, Any], Path]:
    """The first phase of ``load_config``: what a YAML file and ``overrides`` say, as they stand, and the file.

    Raises a UserError where the file is missing or malformed.
    """
    file, content = read_yaml(path)
    given = overrides if isinstance(overrides, Mapping) else parse_overrides(overrides, Config)
    with as_user_errors(f"config {file}"):
        merged: Any = OmegaConf.create(content, flags=OBJECTS)
        changes: Any = OmegaConf.create(flags=OBJECTS)
        for key, value in given.items():
            names, _ = parse_override(f"{key}=", Config)
            change = OmegaConf.create(nested(names, value), flags=OBJECTS)
            merged, changes = OmegaConf.merge(merged, change), OmegaConf.merge(changes, change)
        if _names_another_dataset(content.get("dataset"), changes.get("dataset")):
            merged.dataset.record = None
        raw: Any = OmegaConf.to_container(merged, resolve=True)
    for section in ("dataset", "model", "training", "evaluation", "logging", "system", "finetune"):
        if not isinstance(raw.get(section) or {}, dict):
            raise UserError(
                f"config {file}: '{section}' is a section, found '{raw[section]}'; write {section}.KEY=VALUE"
            )
    return raw, file


def _names_another_dataset(file: Any, overrides: Any) -> bool:
    """Whether the section ``dataset`` of the overrides sets a path, not the file's, and nothing of ``record``."""
    if not isinstance(overrides, Mapping) or "path" not in overrides or "record" in overrides:
        return False
    sections = file if isinstance(file, dict) else {}, overrides
    own, other = (settle(section.get("path"), str | tuple[str, ...]) for section in sections)
    return own is None or _places(own) != _places(other)


def _places(path: Any) -> list[str]:
    return [os.path.normpath(str(one)) for one in (path if isinstance(path, (list, tuple)) else [path])]


def read_yaml(path: str | Path) -> tuple[Path, dict[str, Any]]:
    """A YAML file's place and its mapping, in which references to other keys, and ``Plain``, stand as they are.

    The file is looked up as ``load_config`` does; one that is missing, malformed or no mapping is a UserError.
    """
    file = _find(Path(expand(path)))
    with as_user_errors(f"config {file}"):
        content = parse(file.read_bytes())
    content = {} if content is None else content
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise UserError(f"config {file}: expected sections dataset, model, training, ...; found {kind}")
    return file, content


def from_dict(raw: dict[str, Any], where: str) -> Config:
    """Builds the typed config from plain nested dicts, such as one saved by ``to_dict``; references are text there."""
    config = build(_typed(variants.find(str(settle(raw["model"]["name"], str))).Config), raw, f"config {where}")
    assert isinstance(config, Config)
    return config


@lru_cache  # one class a variant, so that equal configs compare equal
def _typed(model: type) -> type:
    """``Config`` with its ``model`` section typed by the variant."""
    return dataclasses.make_dataclass("Config", [("model", model)], bases=(Config,), frozen=True)


def to_dict(config: Config) -> dict[str, Any]:
    """Plain nested dicts of JSON and YAML types."""
    return dataclasses.asdict(config)


def save_config(config: Config, path: Path) -> None:
    """Writes the resolved config as YAML; ``load_config`` reads it back to an equal object."""
    path.write_text(to_yaml(to_dict(config)), encoding="utf-8")


def to_yaml(raw: Mapping[str, Any]) -> str:
    """A config's nested dicts as YAML, which ``load_config`` reads."""
    return OmegaConf.to_yaml(OmegaConf.create(escaped(raw)))


def _find(path: Path) -> Path:
    for candidate in (path, PACKAGE / path):
        if candidate.is_file():
            return candidate
    shipped = sorted(p.name for p in (PACKAGE / "configs").glob("*.yaml"))
    near = difflib.get_close_matches(path.name, shipped, n=1)
    hint = f"; did you mean configs/{near[0]}?" if near else ""
    raise UserError(f"no config file '{path}'{hint} (shipped: {', '.join('configs/' + n for n in shipped)})")
