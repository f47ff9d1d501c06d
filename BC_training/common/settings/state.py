"""The config section ``dataset.state``: which features of the game state a model sees."""

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal

from BC_training.common.errors import require, unknown


@dataclass(frozen=True)
class RelativeConfig:
    """Where ``target`` is, seen by someone at ``origin`` who faces ``angle``.

    The order of the coordinates says what they are: the first two span the ground, the third, if
    there is one, is the height. ``angle`` is 0 along the first and grows towards the second; so in
    a game whose height is y and whose heading turns from z to x, write [z, x, y].
    """

    target: tuple[str, ...]
    origin: tuple[str, ...]
    angle: str
    unit: Literal["radians", "degrees"] = "radians"

    def __post_init__(self) -> None:
        for name in ("target", "origin"):
            _set_names(self, name, "dataset.state.relative")
        counts = f"{len(self.target)} and {len(self.origin)} names"
        rule = "2 coordinates each, or 3 with the height last"
        require(len(self.target) == len(self.origin) in (2, 3), "dataset.state.relative target, origin", counts, rule)
        require(_is_name(self.angle), "dataset.state.relative angle", self.angle, "the name of one attribute")
        units = ("radians", "degrees")
        require(self.unit in units, "dataset.state.relative unit", self.unit, "radians or degrees")

    @property
    def names(self) -> tuple[str, ...]:
        return *self.target, *self.origin, self.angle


@dataclass(frozen=True)
class AnglesConfig:
    radians: tuple[str, ...] = ()
    degrees: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("radians", "degrees"):
            _set_names(self, name, "dataset.state.angles")


@dataclass(frozen=True)
class StateConfig:
    """The features of the state, by kind; all names are of the dataset's attributes."""

    ratios: tuple[tuple[str, str], ...] = ()  # [value, its maximum]: the share, 0 to 1; 0 where the maximum is not > 0
    relative: tuple[RelativeConfig, ...] = ()  # log(1 + distance), unit vector forward, sideways (and up)
    angles: AnglesConfig = field(default_factory=AnglesConfig)  # cosine, sine
    categories: tuple[str, ...] = ()  # ids, which the model embeds; those that training does not see are "unknown"
    since_change: tuple[str, ...] = ()  # frames since the value changed, as sines and cosines
    since_change_features: int = 8  # how many of these; half of them sines
    standardized: tuple[str, ...] = ()  # mean 0 and standard deviation 1 in training

    def __post_init__(self) -> None:
        # What the config's file or a checkpoint holds are lists and tables.
        pairs = tuple(tuple(p) if isinstance(p, (list, tuple)) else (p,) for p in self.ratios)
        for pair in pairs:
            ok = len(pair) == 2 and all(map(_is_name, pair))
            require(ok, "dataset.state.ratios", list(pair), "pairs of names, [value, its maximum]")
        object.__setattr__(self, "ratios", pairs)
        relative = tuple(build_section(RelativeConfig, r, "dataset.state.relative") for r in self.relative)
        object.__setattr__(self, "relative", relative)
        object.__setattr__(self, "angles", build_section(AnglesConfig, self.angles, "dataset.state.angles"))
        for name in ("categories", "since_change", "standardized"):
            _set_names(self, name, "dataset.state")
        count = self.since_change_features
        require(count >= 2 and count % 2 == 0, "dataset.state.since_change_features", count, "an even number from 2")
        require(any(True for _ in self.uses()), "dataset.state", "(empty)", "name at least one attribute, or null")

    def uses(self) -> Iterator[tuple[str, str]]:
        """Every (kind, attribute) that a feature is made of."""
        yield from (("ratios", name) for pair in self.ratios for name in pair)
        yield from (("relative", name) for relative in self.relative for name in relative.names)
        yield from (("angles.radians", name) for name in self.angles.radians)
        yield from (("angles.degrees", name) for name in self.angles.degrees)
        for kind in ("categories", "since_change", "standardized"):
            yield from ((kind, name) for name in getattr(self, kind))

    @property
    def names(self) -> tuple[str, ...]:
        """The attributes that are used, each once."""
        return tuple(dict.fromkeys(name for _, name in self.uses()))


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _set_names(config: Any, key: str, section: str) -> None:
    """Checks a list of names in a frozen config, and makes it a tuple."""
    value = getattr(config, key)
    ok = isinstance(value, (list, tuple)) and all(map(_is_name, value)) and len(set(value)) == len(value)
    require(ok, f"{section}.{key}", value, "a list of attributes' names, each once")
    object.__setattr__(config, key, tuple(value))


def build_section(kind: type, raw: Any, where: str) -> Any:
    """A config of ``kind`` from a table of its fields."""
    if isinstance(raw, kind):
        return raw
    known = [f.name for f in fields(kind)]
    require(isinstance(raw, Mapping), where, raw, f"a table of {', '.join(known)}")
    for key in raw:
        if key not in known:
            raise unknown("key", str(key), known, f"in {where}")
    required = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]
    missing = [name for name in required if name not in raw]
    require(not missing, where, dict(raw), f"it lacks {', '.join(missing)}")
    return kind(**raw)
