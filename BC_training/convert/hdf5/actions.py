"""Turns stored actions into buttons (one of n is pressed, or each of several is up or down) or into axes.

Where no action space says what they are, the values of all episodes do. If each column holds only 0 and 1, or only -1
and 1, all are buttons; otherwise all are axes, those of 0 and 1 among them.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from BC_training.common.action import Action
from BC_training.common.errors import UserError
from BC_training.convert.hdf5.metadata import parse_object, whole, whole_numbers
from BC_training.convert.state_values import finite_axes

MOST = 4096  # buttons or axes; a larger number is damage, not an action space
_CORRECT_SPACE = "correct it, or remove it to have the actions read as they are"
_CORRECT_EITHER = "correct the action space or the episode"


@dataclass(frozen=True)
class Actions:
    """How stored actions become buttons, or axes."""

    names: tuple[str, ...]
    one_of: bool = False  # whether the number of the one pressed button is stored, rather than a value for each button
    # With ``one_of`` the first button's number; otherwise each button's value for "up", where the next value is
    # "down"; or empty, where 1 is "down" and 0 and -1 are "up".
    start: tuple[int, ...] = ()
    amount: str | None = None  # of axes, a value that is no button's, and its place; None for buttons

    @property
    def button_names(self) -> tuple[str, ...]:
        return self.names if self.amount is None else ()

    @property
    def axis_names(self) -> tuple[str, ...]:
        return () if self.amount is None else self.names

    def read(self, stored: np.ndarray, where: str) -> Action:
        """bool [N, A] and float32 [N, X] from one episode's stored actions.

        Raises a UserError if the shape is another one than expected, or a frame has an impossible value.
        """
        if self.amount is None:
            return Action(self._buttons(stored, where), np.zeros((len(stored), 0), np.float32))
        axes = finite_axes(self._across(stored, where), self.names, where)
        return Action(np.zeros((len(stored), 0), bool), axes)

    def _across(self, stored: np.ndarray, where: str) -> np.ndarray:
        """The stored actions as numbers [N, names]."""
        count = len(self.names)
        if math.prod(stored.shape[1:]) != count or stored.dtype.kind not in "biuf":
            raise _unexpected(stored, where, f"numbers [N, {count}]")
        return stored.reshape(len(stored), count)

    def _buttons(self, stored: np.ndarray, where: str) -> np.ndarray:
        """bool [N, A] from one episode's stored actions: [N] or [N, 1] with ``one_of``, otherwise N times A values."""
        count = len(self.names)
        if not len(stored):
            return np.zeros((0, count), bool)
        if self.one_of:
            if math.prod(stored.shape[1:]) != 1 or stored.dtype.kind not in "biuf":
                raise _unexpected(stored, where, "whole numbers [N]")
            numbers, first = stored.reshape(len(stored), 1), self.start[0]
            wrong = np.isin(numbers[:, 0], first + np.arange(count), invert=True)
            _refuse(wrong, stored, where, f"{first} to {first + count - 1}")
            return numbers == first + np.arange(count)
        values = self._across(stored, where)
        if self.start:
            up = np.array(self.start)
            _refuse(((values != up) & (values != up + 1)).any(axis=1), stored, where, f"{up.tolist()} and one more")
            return values == up + 1
        _refuse(np.asarray(np.isin(values, (-1, 0, 1), invert=True).any(axis=1)), stored, where, "0 and 1")
        return values > 0


def minari_actions(path: Path, episodes: Iterable[tuple[str, np.ndarray]], metadata: dict[str, Any]) -> Actions:
    """Finds buttons or axes by the action space in the metadata; without one, or in a Box, by every episode's actions.

    ``episodes`` yields each episode's name and stored actions. The names are "action_names" in the metadata, if someone
    added them. Raises a UserError if the actions are neither.
    """
    space = _space(path, metadata.get("action_space"))
    if space is None or space.get("type") == "Box":  # a Box may hold only 0 and 1
        found = _infer(path, episodes, space is None)
    else:
        found = _from_space(path, space)
    names, count = metadata.get("action_names"), len(found.names)
    if names is None:
        return found
    texts = names if isinstance(names, list) and all(isinstance(name, str) for name in names) else []
    if len(texts) != count or len(set(texts)) != count:
        rule = f"action_names in its metadata must be a list of {count} different texts"
        raise UserError(f"{path}: {rule}: correct or remove it")
    return replace(found, names=tuple(texts))


def robomimic_actions(path: Path, episodes: Iterable[tuple[str, np.ndarray]], metadata: dict[str, Any]) -> Actions:
    """Finds buttons or axes by every episode's actions, which robomimic does not name."""
    del metadata
    return _infer(path, episodes, False)


def _space(path: Path, stored: Any) -> dict[str, Any] | None:
    """The action space; None without one."""
    if stored is None or (isinstance(stored, str) and stored.strip() in ("", "null")):
        return None
    while isinstance(stored, list) and len(stored) == 1:
        stored = stored[0]
    try:
        return parse_object(stored)
    except ValueError as error:
        fault = f"the action_space in its metadata is not a JSON object ({error})"
        raise UserError(f"{path}: {fault}: {_CORRECT_SPACE}") from error


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(f"action_{i}" for i in range(count))


def _from_space(path: Path, space: dict[str, Any]) -> Actions:
    """The buttons of a Gymnasium space."""
    kind = space.get("type")
    if kind in ("Dict", "Tuple"):
        parts = space.get("subspaces")
        items = parts.items() if isinstance(parts, dict) else enumerate(parts if isinstance(parts, list) else ())
        raise UserError(in_parts(str(path), f"the space {kind}", [f"{n} {_kind(part)}" for n, part in items]))
    start = whole_numbers(space["start"]) if space.get("start") is not None else []
    if kind == "Discrete":
        count, first = whole(space.get("n")), 0 if start == [] else start[0] if start and len(start) == 1 else None
        if count is None or first is None or not 0 < count <= MOST:
            raise _unusable(path, space)
        return Actions(_numbered(count), True, (first,))
    if kind not in ("MultiBinary", "MultiDiscrete"):
        raise _neither(path, f"the space {kind}")
    sides = whole_numbers(space.get("n" if kind == "MultiBinary" else "nvec"))
    if not sides or start is None or min(sides) < 1:
        raise _unusable(path, space)
    if kind == "MultiDiscrete" and set(sides) != {2}:
        raise _neither(path, f"the space MultiDiscrete of {', '.join(map(str, sides[:8]))} values")
    count = math.prod(sides) if kind == "MultiBinary" else len(sides)
    if count > MOST or len(start) not in (0, count):
        raise _unusable(path, space)
    return Actions(_numbered(count), start=tuple(start) if any(start) else ())


def in_parts(where: str, what: str, parts: list[str]) -> str:
    """The message for actions that consist of several arrays."""
    return (
        f"{where}: its actions are in parts ({what}: {', '.join(parts) or 'none'}), which are not read: write them "
        "side by side as one array 'actions' [N, A], with a Box space or none"
    )


def _kind(space: Any) -> str:
    return str(space.get("type")) if isinstance(space, dict) else str(type(space).__name__)


def _unusable(path: Path, space: dict[str, Any]) -> UserError:
    entries = ", ".join(f"{name} {str(space[name])[:40]}" for name in ("n", "nvec", "start") if name in space)
    fault = f"the action_space in its metadata is {space.get('type')} with {entries or 'no entries'}"
    return UserError(f"{path}: {fault}, which is no number of buttons from 1 to {MOST}: {_CORRECT_SPACE}")


def _infer(path: Path, episodes: Iterable[tuple[str, np.ndarray]], numbers: bool) -> Actions:
    """What the actions of all episodes are; ``numbers`` allows the number of one of n buttons.

    What is not finite is damage, which says nothing about the others.
    """
    shape, seen, amount = None, [], None
    for name, stored in episodes:
        if not stored.size:
            continue
        if stored.dtype.kind not in "biuf" or stored.ndim not in (1, 2) or math.prod(stored.shape[1:]) > MOST:
            raise _neither(path, f"{name} has {stored.dtype} of shape {list(stored.shape)}")
        if shape is None:
            shape, seen = stored.shape[1:], [set() for _ in range(math.prod(stored.shape[1:]))]
            numbers = numbers and len(seen) == 1 and stored.dtype.kind != "b"
        if stored.shape[1:] != shape:
            raise _unexpected(stored, f"{path}: {name}", f"numbers [N{''.join(f', {n}' for n in shape)}]")
        for i, values in enumerate(stored.reshape(len(stored), -1).T):
            if amount is None:
                seen[i].update(np.unique(values[np.isfinite(values)]).astype(float).tolist())
                if not _is_binary(seen[i]) and not (numbers and _are_numbers(seen[i])):
                    odd = min(seen[i], key=lambda value: (value.is_integer(), value in (0, 1), value))
                    amount = f"column {i} holds {odd:.4g} in {name}"
    if shape is None:
        raise UserError(f"{path}: none of its episodes has an action: there is nothing to convert")
    if amount is None and numbers and seen[0] and not (all(map(_is_binary, seen)) and (shape or -1 in seen[0])):
        return Actions(_numbered(1 + int(max(seen[0]))), True, (0,))
    return Actions(_numbered(len(seen)), amount=amount)


def _is_binary(values: set[float]) -> bool:
    return values <= {0, 1} or values <= {-1, 1}


def _are_numbers(values: set[float]) -> bool:
    return all(value.is_integer() and 0 <= value < MOST for value in values)


def _refuse(wrong: np.ndarray, stored: np.ndarray, where: str, allowed: str) -> None:
    if wrong.any():
        frame = int(np.flatnonzero(wrong)[0])
        found = f"frame {frame} has the action {stored[frame].tolist()}"
        raise UserError(f"{where} {found}, {allowed} are expected: {_CORRECT_EITHER}")


def _unexpected(stored: np.ndarray, where: str, expected: str) -> UserError:
    found = f"has actions {stored.dtype} {list(stored.shape)}"
    return UserError(f"{where} {found}, {expected} are expected: {_CORRECT_EITHER}")


def _neither(path: Path, what: str) -> UserError:
    return UserError(
        f"{path} has actions that are neither buttons nor axes ({what}): write them as rows of numbers [N, A], each "
        "choice as columns of 0 and 1, with a Box space or none, and convert that"
    )
