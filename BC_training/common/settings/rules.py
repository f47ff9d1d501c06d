"""What a change of a setting means, as metadata of its dataclass field.

A field without metadata follows the section that holds it; a section, the one that holds that.
"""

import dataclasses
from collections.abc import Iterator
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints


class Resume(Enum):
    """Whether a training may go on with another value than it began with."""

    FREE = "free"  # the value does not change what is learnt
    ON_REQUEST = "on request"  # the saved state can go on with it: training.resume_changed=true
    NEVER = "never"  # it makes another training


FREE, ON_REQUEST, NEVER = Resume.FREE, Resume.ON_REQUEST, Resume.NEVER


@dataclasses.dataclass(frozen=True)
class Rules:
    """Rules of one setting."""

    resume: Resume = Resume.NEVER  # whether a training may go on with another value
    choosing: Resume | None = None  # the same where play chooses the best checkpoint; None: as ``resume``
    scores: tuple[str, ...] = ()  # those that the value changes: "loss", "buttons", "rollout"


def setting(
    default: Any = dataclasses.MISSING,
    resume: Resume | None = None,
    *,
    factory: Any = dataclasses.MISSING,
    choosing: Resume | None = None,
    scores: tuple[str, ...] = (),
) -> Any:
    """A field with a default, or a ``factory`` of one, and rules of its own; without ``resume``, its section's."""
    rules = {"resume": resume} if resume is not None else {}
    metadata = {"rules": rules | {"choosing": choosing, "scores": scores}}
    return dataclasses.field(default=default, default_factory=factory, metadata=metadata)


def rules_of(section: type, key: str) -> Rules:
    """The rules of the setting ``key``, "training.batch_size" for example, within a section such as ``Config``."""
    rules, kind = Rules(), section
    for name in key.split("."):
        fields = {field.name: field for field in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else {}
        if name not in fields:  # within a mapping, or a variant's own section
            break
        rules = dataclasses.replace(rules, **{"choosing": None, "scores": ()} | fields[name].metadata.get("rules", {}))
        kind = _inner(get_type_hints(kind)[name])
    return rules


def keys_that_change(section: type, score: str, prefix: str = "") -> Iterator[str]:
    """The settings that change what a score means, one of ``Rules.scores``."""
    for field in dataclasses.fields(section):
        key, kind = f"{prefix}{field.name}", _inner(get_type_hints(section)[field.name])
        if score in field.metadata.get("rules", {}).get("scores", ()):
            yield key
        elif isinstance(kind, type) and dataclasses.is_dataclass(kind):
            yield from keys_that_change(kind, score, f"{key}.")


def _inner(kind: Any) -> Any:
    """The type itself where it is optional."""
    if get_origin(kind) in (Union, UnionType):
        return next((part for part in get_args(kind) if part is not NoneType), kind)
    return kind
