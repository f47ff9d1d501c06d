"""Names of games with their options, ``KIND/NAME?option=value&...``, and the kinds of games."""

import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from BC_training.common.errors import UserError, unknown

Value = bool | int | float


@dataclass(frozen=True)
class Option:
    """An option of a kind of game.

    Args:
        default: its value where a spec does not give it; the type of all its values.
        low, high: the range of a number.
        is_handicap: whether it makes the game harder for the player alone. Random and the expert play without it.
    """

    default: Value
    low: Value | None = None
    high: Value | None = None
    is_handicap: bool = False

    @property
    def rule(self) -> str:
        if isinstance(self.default, bool):
            return "true or false"
        return f"{self.low} to {self.high}" + (", a whole number" if isinstance(self.default, int) else "")

    def parse(self, text: str) -> Value:
        """The value that ``text`` writes; raises a ValueError if it is not one of this option's."""
        value = json.loads(text)
        in_range = (self.low is None or self.low <= value) and (self.high is None or value <= self.high)
        if type(value) is not type(self.default) or not in_range:
            raise ValueError(text)
        return value


@dataclass(frozen=True)
class Kind:
    """A kind of game; see ``register`` for its fields."""

    names: Sequence[str] | Callable[[], Sequence[str]]
    make: str
    engine: str
    options: Mapping[str, Option]
    experts: str | None

    @property
    def all_names(self) -> Sequence[str]:
        return self.names() if callable(self.names) else self.names


_KINDS: dict[str, Kind] = {}


def register(
    kind: str,
    *,
    names: Sequence[str] | Callable[[], Sequence[str]],
    make: str,
    engine: str,
    options: Mapping[str, Option],
    experts: str | None = None,
) -> None:
    """Adds a kind of game, whose games are then named ``kind/NAME?option=value&...``.

    Args:
        names: the games of this kind, or a function that lists them.
        make: "module:function" that starts a game, imported when a game is first started and called as
            ``function(name, frame_size=(H, W), render_mode=None, **options)``, with every option.
        engine: the distribution that plays it, whose version decides what happens in an episode.
        experts: "module:table" from names to scripted experts, each called with the environment; None without any.
    """
    _KINDS[kind] = Kind(names, make, engine, options, experts)


def known_games() -> list[str]:
    """The names of all games, ``kind/name``."""
    return [f"{kind}/{name}" for kind, found in _KINDS.items() for name in found.all_names]


@dataclass(frozen=True)
class GameSpec:
    """A game and its options. Specs of the same game are equal and written alike."""

    kind: str
    name: str
    options: tuple[tuple[str, Value], ...] = ()  # those that differ from their defaults, by name

    @classmethod
    def parse(cls, text: str) -> "GameSpec":
        """Reads a spec, such as ``doom/deadly_corridor?skill=5&delay=2``.

        Raises:
            UserError: no such game or option, with the nearest match; or a value out of range.
        """
        game, _, query = text.partition("?")
        kind, _, name = game.partition("/")
        if kind not in _KINDS:
            raise unknown("game", game, known_games())
        if name not in (names := _KINDS[kind].all_names):
            raise unknown("game", game, (f"{kind}/{other}" for other in names))
        known, options = _KINDS[kind].options, {}
        for item in query.split("&") if query else ():
            key, _, value = item.partition("=")
            if key not in known:
                raise unknown(f"option of {game}", key, known, f"write {game}?OPTION=VALUE&OPTION=VALUE")
            if key in options:
                raise UserError(f"game {text}: the option {key} is there twice")
            try:
                options[key] = known[key].parse(value)
            except (ValueError, TypeError, RecursionError):
                raise UserError(f"game {text}: {key}={value} is out of range: {known[key].rule}") from None
        changed = sorted((key, value) for key, value in options.items() if value != known[key].default)
        return cls(kind, name, tuple(changed))

    def __str__(self) -> str:
        """The spec as configs, datasets and results hold it, without options that have their default."""
        query = "&".join(f"{key}={json.dumps(value)}" for key, value in self.options)
        return f"{self.kind}/{self.name}" + (f"?{query}" if query else "")

    @property
    def file_name(self) -> str:
        """A name for files."""
        return re.sub("[?&=]", "-", str(self).rpartition("/")[2])

    @property
    def without_handicaps(self) -> "GameSpec":
        """The game that random and the expert play, between whom the player's score is normalised."""
        known = _KINDS[self.kind].options
        return GameSpec(self.kind, self.name, tuple(o for o in self.options if not known[o[0]].is_handicap))

    @property
    def arguments(self) -> dict[str, Value]:
        """The values of all options."""
        return {key: option.default for key, option in _KINDS[self.kind].options.items()} | dict(self.options)

    @property
    def make(self) -> Callable[..., Any]:
        """The function that starts games of this kind; see ``register``."""
        return _imported(_KINDS[self.kind].make)

    @property
    def engine(self) -> str:
        return _KINDS[self.kind].engine

    @property
    def code_folder(self) -> Path:
        """The folder of the code of this kind of game and of its experts."""
        return Path(str(inspect.getfile(import_module(_KINDS[self.kind].make.partition(":")[0])))).parent

    @property
    def expert(self) -> Callable[[Any], Any] | None:
        """The game's scripted expert, to be called with the environment; None if there is none."""
        experts = _KINDS[self.kind].experts
        return None if experts is None else _imported(experts).get(self.name)


def _imported(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
