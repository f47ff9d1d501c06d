"""Maps the action spaces of Gymnasium to buttons and axes, and back."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import gymnasium
import numpy as np
from gymnasium import spaces

from BC_training.common.action import Action
from BC_training.common.errors import UserError
from BC_training.games.gym.names import Names

_JOYSTICK = ("UP", "DOWN", "LEFT", "RIGHT", "FIRE")
_COMBINED = re.compile(f"(?:{'|'.join(_JOYSTICK)})+")
_UNBOUNDED = 1e30  # bounds from here on are no bounds: float32's largest number, for example


class ActionMap(Protocol):
    """The buttons and axes of a space."""

    buttons: tuple[str, ...]
    axes: tuple[str, ...]

    def raw(self, action: Action) -> Any:
        """The space's action for buttons and axes, the nearest where none is just that."""
        ...

    def action_of(self, raw: Any) -> Action:
        """The buttons and axes of an action of the space; ``raw`` takes them back to an action of the same effect."""
        ...


class _Choice:
    """One of n actions (Discrete), each a set of buttons."""

    def __init__(self, meanings: Sequence[Sequence[str]], start: int = 0):
        names = dict.fromkeys(name for meaning in meanings for name in meaning)
        self.buttons = tuple(sorted(names, key=_JOYSTICK.index) if names.keys() <= set(_JOYSTICK) else names)
        self.axes: tuple[str, ...] = ()
        self._start = start
        self._held = np.array([[name in meaning for name in self.buttons] for meaning in meanings], bool)  # [n, A]

    def raw(self, action: Action) -> np.int64:
        """The action that differs in the fewest buttons; of several, the one that shares most, then the first.

        Held buttons never mean the action of no button.
        """
        apart, shared = (self._held != action.buttons).sum(1), (self._held & action.buttons).sum(1)
        is_ignored = action.buttons.any() & ~self._held.any(1)
        return np.int64(self._start + np.lexsort((-shared, apart, is_ignored))[0])

    def action_of(self, raw: Any) -> Action:
        return Action.of(self._held[int(raw) - self._start])


class _Switches:
    """Buttons that are held independently (MultiBinary)."""

    def __init__(self, space: spaces.MultiBinary, buttons: Iterable[str]):
        self.buttons, self.axes, self._space = tuple(buttons), (), space

    def raw(self, action: Action) -> np.ndarray:
        return action.buttons.astype(self._space.dtype).reshape(self._space.shape)

    def action_of(self, raw: Any) -> Action:
        return Action.of(np.ravel(raw))


class _Amounts:
    """Bounded amounts (Box): -1 is the lower bound, 1 the upper one.

    0 is the space's own 0 where that is within the bounds (a pedal of 0 to 1 uses axes of 0 to 1 and takes those below
    as 0), otherwise the middle.
    """

    def __init__(self, space: spaces.Box, axes: Iterable[str]):
        self.buttons, self.axes, self._space = (), tuple(axes), space
        low, high = (bound.ravel().astype(np.float64) for bound in (space.low, space.high))
        self._rest = np.where((low <= 0) & (high >= 0), 0.0, (low + high) / 2)
        self._down, self._up = self._rest - low, high - self._rest

    def raw(self, action: Action) -> np.ndarray:
        axes = np.clip(action.axes, -1, 1)
        values = self._rest + axes * np.where(axes > 0, self._up, self._down)
        if np.issubdtype(self._space.dtype, np.integer):
            values = values.round()
        return np.clip(values.reshape(self._space.shape), self._space.low, self._space.high).astype(self._space.dtype)

    def action_of(self, raw: Any) -> Action:
        moved = np.ravel(raw).astype(np.float64) - self._rest
        span = np.where(moved > 0, self._up, self._down)
        return Action.of((), np.divide(moved, span, out=np.zeros_like(moved), where=span > 0))


class _Parts:
    """Several spaces at once (Dict, Tuple, MultiDiscrete).

    Args:
        parts: their maps, by the index of their value in an action of the whole space.
        join: makes such an action of their values.
    """

    def __init__(self, parts: dict[Any, ActionMap], join: Callable[[list[Any]], Any]):
        self._parts, self._join = parts, join
        self.buttons = tuple(name for part in parts.values() for name in part.buttons)
        self.axes = tuple(name for part in parts.values() for name in part.axes)

    def raw(self, action: Action) -> Any:
        values, a, x = [], 0, 0
        for part in self._parts.values():
            own = Action(action.buttons[a : a + len(part.buttons)], action.axes[x : x + len(part.axes)])
            values.append(part.raw(own))
            a, x = a + len(part.buttons), x + len(part.axes)
        return self._join(values)

    def action_of(self, raw: Any) -> Action:
        found = [part.action_of(raw[index]) for index, part in self._parts.items()]
        return Action(np.concatenate([f.buttons for f in found]), np.concatenate([f.axes for f in found]))


def map_actions(env: gymnasium.Env, game: str, names: Names) -> ActionMap:
    """The map of an environment's action space; raises a UserError, which names ``game``, where it has none."""
    space = env.action_space
    if isinstance(space, spaces.Discrete):
        return _Choice(_meanings(env.unwrapped, int(space.n), names), int(space.start))
    if isinstance(space, spaces.Box) and len(names.axes) == np.prod(space.shape):
        return _Amounts(space, names.axes)
    return _map(space, game, "")


def _map(space: spaces.Space, game: str, name: str) -> ActionMap:
    """The map of a space that is called ``name`` in the one around it, "" at the outside.

    No button is the first value of each group of a MultiDiscrete, as in the example of its documentation, and of a
    Discrete of two values within another space.
    """

    def within(kind: str, index: object) -> str:
        return f"{name}.{index}" if name else f"{kind}{index}"

    if isinstance(space, spaces.Discrete):
        n = int(space.n)
        return _Choice([(), (name,)] if n == 2 else [(f"{name}.{i}",) for i in range(n)], int(space.start))
    if isinstance(space, spaces.MultiBinary):
        return _Switches(space, (within("button_", i) for i in range(int(np.prod(space.shape)))))
    if isinstance(space, spaces.MultiDiscrete):
        sizes, starts = np.ravel(space.nvec), np.ravel(space.start)
        groups: dict[Any, ActionMap] = {}
        for i, (index, n) in enumerate(zip(np.ndindex(space.shape), sizes, strict=True)):
            group = within("group_", i)
            values = [(group,)] if n == 2 else [(f"{group}.{value}",) for value in range(1, n)]
            groups[index] = _Choice([(), *values], int(starts[i]))
        return _Parts(groups, lambda values: np.array(values, space.dtype).reshape(space.shape))
    if isinstance(space, spaces.Box):
        if not (np.abs([space.low, space.high]).astype(np.float64) < _UNBOUNDED).all():
            raise UserError(f"{game} cannot be played: its action {name or space} has amounts without bounds")
        count = int(np.prod(space.shape))
        return _Amounts(space, [name] if name and count == 1 else (within("axis_", i) for i in range(count)))
    if isinstance(space, spaces.Dict):
        parts = {key: _map(part, game, within("", key)) for key, part in space.spaces.items()}
        return _Parts(parts, lambda values: dict(zip(parts, values, strict=True)))
    if isinstance(space, spaces.Tuple):
        return _Parts({i: _map(part, game, within("", i)) for i, part in enumerate(space.spaces)}, tuple)
    raise UserError(
        f"{game} cannot be played: its action {name or space} is of the kind {type(space).__name__}; buttons and axes "
        "are made of Discrete, MultiDiscrete, MultiBinary and Box, and of Dict and Tuple of these"
    )


def _meanings(unwrapped: Any, count: int, names: Names) -> list[Sequence[str]]:
    """The buttons of each of ``count`` actions: as the environment says, as is documented, or one each."""
    given = getattr(unwrapped, "get_action_meanings", list)() or getattr(unwrapped, "actions", ())
    try:
        said = [getattr(meaning, "name", meaning) for meaning in given]  # MiniGrid's are an Enum
    except TypeError:
        said = []
    found: list[Sequence[str]] = []
    if len(said) == count and all(isinstance(meaning, str) for meaning in said):
        is_noop = [meaning.upper() in ("NOOP", "NO-OP", "NO_OP") for meaning in said]
        is_joystick = all(noop or _COMBINED.fullmatch(meaning) for noop, meaning in zip(is_noop, said, strict=True))
        for noop, meaning in zip(is_noop, said, strict=True):
            found.append(() if noop else re.findall("|".join(_JOYSTICK), meaning) if is_joystick else (meaning,))
    elif len(names.actions) == count:
        found = [() if meaning is None else (meaning,) for meaning in names.actions]
    are_different = len({frozenset(meaning) for meaning in found}) == count
    return found if are_different else [(f"action_{i}",) for i in range(count)]
