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

Value = bool | int | float | str
_OURS = ("frame_size", "render_mode")  # arguments of ``make_game``
Engine = str | Callable[[str], str]
Options = Mapping[str, "Option"] | Callable[[str], Mapping[str, Any]]


@dataclass(frozen=True)
class Option:
    """An option of a kind of game.

    Args:
        default: its value where a spec does not give it; the type of all its values. A text may be any.
        low, high: the range of a number.
        is_handicap: whether it makes the game harder for the player alone. Random and the expert play without it.
    """

    default: Value
    low: float | None = None
    high: float | None = None
    is_handicap: bool = False

    @property
    def rule(self) -> str:
        if isinstance(self.default, bool):
            return "true or false"
        return f"{self.low} to {self.high}" + (", a whole number" if isinstance(self.default, int) else "")

    def parse(self, text: str) -> Value:
        """The value that ``text`` writes; raises a ValueError if it is not one of this option's."""
        value = _value(text) if isinstance(self.default, str) else json.loads(text)
        if isinstance(self.default, str):
            return value if isinstance(value, str) else text
        if isinstance(self.default, float) and type(value) is int:
            value = float(value)
        in_range = (self.low is None or self.low <= value) and (self.high is None or value <= self.high)
        if type(value) is not type(self.default) or not in_range:
            raise ValueError(text)
        return value


@dataclass(frozen=True)
class Kind:
    """A kind of game; see ``register`` for its fields."""

    names: Sequence[str] | Callable[[], Sequence[str]]
    make: str
    engine: Engine
    options: Options
    experts: str | None
    find: Callable[[str], str] | None

    @property
    def all_names(self) -> Sequence[str]:
        return self.names() if callable(self.names) else self.names

    @property
    def own_options(self) -> Mapping[str, Option]:
        """The options that the kind itself checks."""
        return {} if callable(self.options) else self.options

    def defaults(self, name: str) -> Mapping[str, Any]:
        if callable(self.options):
            return self.options(name)
        return {key: option.default for key, option in self.options.items()}

    @property
    def all_experts(self) -> Mapping[str, Callable[[Any], Any]]:
        return {} if self.experts is None else _imported(self.experts)


_KINDS: dict[str, Kind] = {}


def register(
    kind: str,
    *,
    names: Sequence[str] | Callable[[], Sequence[str]],
    make: str,
    engine: Engine,
    options: Options,
    experts: str | None = None,
    find: Callable[[str], str] | None = None,
) -> None:
    """Adds a kind of game, whose games are then named ``kind/NAME?option=value&...``.

    Args:
        names: the games of this kind, or a function that lists them.
        make: "module:function" that starts a game, imported when a game is first started and called as
            ``function(name, frame_size=(H, W), render_mode=None, **options)``, with every option.
        engine: the distribution that plays it, whose version decides what happens in an episode; or a function of the
            game's name that tells it.
        options: by their names; or where a game itself knows its options, whose values are JSON or else text, a
            function of the game's name that gives the values of those that have another default there.
        experts: "module:table" from names to scripted experts, each called with the environment; None without any.
        find: gives a name as it is always written, and a UserError for one that no game has; None where ``names`` are
            all there are.
    """
    _KINDS[kind] = Kind(names, make, engine, options, experts, find)


def known_games(kind: str | None = None) -> list[str]:
    """The names of all games, or of those of a kind, ``kind/name``."""
    kinds = _KINDS if kind is None else (kind,)
    return [f"{kind}/{name}" for kind in kinds for name in _KINDS[kind].all_names]


def games_with_experts() -> list[str]:
    """The games, ``kind/name``, that have a scripted expert."""
    return [f"{kind}/{name}" for kind, found in _KINDS.items() for name in found.all_experts]


@dataclass(frozen=True)
class GameSpec:
    """A game and its options. Specs of the same game are equal and written alike."""

    kind: str
    name: str
    options: tuple[tuple[str, str], ...] = ()  # those that differ from their defaults, by name, as they are written

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
        found = _KINDS[kind]
        if found.find is not None:
            name = found.find(name)
        elif name not in (names := found.all_names):
            raise unknown("game", game, (f"{kind}/{other}" for other in names))
        known, options = found.own_options, {}
        defaults = {key: _written(value) for key, value in found.defaults(name).items()}
        for item in query.split("&") if query else ():
            key, _, value = item.partition("=")
            if key not in known and (not callable(found.options) or not key.isidentifier()):
                raise unknown(f"option of {game}", key, known, f"write {game}?OPTION=VALUE&OPTION=VALUE")
            if key in _OURS:
                raise UserError(f"game {text}: {key} is no option, it is what the command itself sets")
            if key in options:
                raise UserError(f"game {text}: the option {key} is there twice")
            try:
                options[key] = _written(known[key].parse(value) if key in known else _value(value))
            except (ValueError, TypeError, RecursionError):
                raise UserError(f"game {text}: {key}={value} is out of range: {known[key].rule}") from None
        options = {key: value for key, value in options.items() if value != defaults.get(key)}
        return cls(kind, name, tuple(sorted(options.items())))

    def __str__(self) -> str:
        """The spec as configs, datasets and results hold it, without options that have their default."""
        query = "&".join(f"{key}={value}" for key, value in self.options)
        return f"{self.kind}/{self.name}" + (f"?{query}" if query else "")

    @property
    def file_name(self) -> str:
        """A name for files."""
        return re.sub(r"[^\w.+-]", "-", str(self).partition("/")[2])

    @property
    def without_handicaps(self) -> "GameSpec":
        """The game that random and the expert play, between whom the player's score is normalised."""
        known = _KINDS[self.kind].own_options
        fair = (option for option in self.options if option[0] not in known or not known[option[0]].is_handicap)
        return GameSpec(self.kind, self.name, tuple(fair))

    @property
    def arguments(self) -> dict[str, Any]:
        """The values of the options: of all where the kind checks them, else of those that are not their default."""
        known = _KINDS[self.kind].own_options
        given = {key: known[key].parse(text) if key in known else _value(text) for key, text in self.options}
        return {key: option.default for key, option in known.items()} | given

    @property
    def make(self) -> Callable[..., Any]:
        """The function that starts games of this kind; see ``register``."""
        return _imported(_KINDS[self.kind].make)

    @property
    def engine(self) -> str:
        engine = _KINDS[self.kind].engine
        return engine(self.name) if callable(engine) else engine

    @property
    def code_folder(self) -> Path:
        """The folder of the code of this kind of game and of its experts."""
        return Path(str(inspect.getfile(import_module(_KINDS[self.kind].make.partition(":")[0])))).parent

    @property
    def expert(self) -> Callable[[Any], Any] | None:
        """The game's scripted expert, to be called with the environment; None if there is none."""
        return _KINDS[self.kind].all_experts.get(self.name)


def _value(text: str) -> Any:
    """The JSON value that a text writes, or else the text itself; a whole number is one of Python's, too."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _written(value: Any) -> str:
    """The text, always the same, of which ``_value`` makes ``value``."""
    if isinstance(value, str) and _value(value) == value:
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def _imported(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
