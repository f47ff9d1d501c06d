"""Actions in HDF5 files, as buttons: one of n, or several that are each up or down."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from BC_training.common.errors import UserError


@dataclass(frozen=True)
class Actions:
    """How stored actions become buttons.

    Attributes:
        names: the A buttons.
        one_of: stored is the number of the one that is pressed; otherwise a column for each.
        start: the number of the first, with ``one_of``.
    """

    names: tuple[str, ...]
    one_of: bool
    start: int = 0

    def buttons(self, stored: np.ndarray, where: str) -> np.ndarray:
        """bool [N, A] of one episode's stored actions, [N] or [N, 1] with ``one_of``, otherwise [N, A].

        Raises:
            UserError: another shape, or a value that is no button's; names the frame.
        """
        count = len(self.names)
        if self.one_of:
            number: np.ndarray = stored[:, 0] if stored.ndim == 2 and stored.shape[1] == 1 else stored
            if number.ndim != 1 or number.dtype.kind not in "iu":
                raise _unexpected(stored, where, "whole numbers [N]")
            wrong = np.isin(number, self.start + np.arange(count), invert=True)
            _refuse(wrong, number, where, f"{self.start} to {self.start + count - 1}")
            return number[:, None] == self.start + np.arange(count)
        if stored.ndim != 2 or stored.shape[1] != count or stored.dtype.kind not in "biuf":
            raise _unexpected(stored, where, f"numbers [N, {count}]")
        wrong = np.isin(stored, (-1, 0, 1), invert=True).any(axis=1)
        _refuse(np.asarray(wrong), stored, where, "0 and 1")
        return stored > 0


def minari_actions(path: Path, episodes: dict[str, h5py.Dataset], metadata: dict[str, Any]) -> Actions:
    """From the action space in the metadata; without one, from every episode's actions.

    Names come from "action_names" in the metadata, if someone added them.

    Raises:
        UserError: they are no buttons.
    """
    space = metadata.get("action_space")
    if space is None:
        one_of, start, count = _infer(path, episodes)
    else:
        space = json.loads(space) if isinstance(space, str) else space
        kind = space.get("type")
        if kind == "Discrete":
            one_of, start, count = True, int(space.get("start", 0)), int(space["n"])
        elif kind == "MultiBinary" and isinstance(space["n"], int):
            one_of, start, count = False, 0, space["n"]
        elif kind == "MultiDiscrete" and set(space["nvec"]) == {2} and not any(space.get("start", ())):
            one_of, start, count = False, 0, len(space["nvec"])
        else:
            raise _no_buttons(path, f"the space {kind}")
    names = metadata.get("action_names")
    if names is None:
        names = [f"action_{i}" for i in range(count)]
    if not isinstance(names, list) or len(set(map(str, names))) != count or len(names) != count:
        raise UserError(f"{path}: action_names in its metadata must be {count} different names: correct or remove it")
    return Actions(tuple(map(str, names)), one_of, start)


def robomimic_actions(path: Path, episodes: dict[str, h5py.Dataset], metadata: dict[str, Any]) -> Actions:
    """Buttons if each column holds two values in all episodes, 0 and 1 or -1 and 1.

    Raises:
        UserError: it does not.
    """
    one_of, start, count = _infer(path, episodes)
    if one_of:
        raise UserError(f"{path}: its actions are [N], robomimic's are [N, A]: is --from robomimic right?")
    return Actions(tuple(f"action_{i}" for i in range(count)), one_of, start)


def _infer(path: Path, episodes: dict[str, h5py.Dataset]) -> tuple[bool, int, int]:
    """(one_of, start, number of buttons) from the actions themselves."""
    first = next(iter(episodes.values()))
    if first.ndim == 1 and first.dtype.kind in "iu":
        return True, 0, 1 + max(int(d[()].max(initial=0)) for d in episodes.values())
    if first.ndim != 2:
        raise _no_buttons(path, f"{first.dtype} of shape {list(first.shape)}")
    signs: list[set[float]] = [set() for _ in range(first.shape[1])]
    for name, dataset in episodes.items():
        stored = dataset[()]
        if stored.ndim != 2 or stored.shape[1] != len(signs):
            raise _unexpected(stored, f"{path}: {name}", f"numbers [N, {len(signs)}]")
        for column, seen in enumerate(signs):
            values = np.unique(stored[:, column].astype(float))
            seen.update(values[:3].tolist())
            if not (seen <= {0, 1} or seen <= {-1, 1}):
                raise _no_buttons(path, f"{name} column {column} holds {', '.join(f'{v:.4g}' for v in sorted(seen))}")
    return False, 0, len(signs)


def _refuse(wrong: np.ndarray, stored: np.ndarray, where: str, allowed: str) -> None:
    if wrong.any():
        frame = int(np.flatnonzero(wrong)[0])
        raise UserError(
            f"{where} frame {frame} has the action {stored[frame].tolist()}, {allowed} are expected: "
            "correct the action space or the episode"
        )


def _unexpected(stored: np.ndarray, where: str, expected: str) -> UserError:
    return UserError(
        f"{where} has actions {stored.dtype} {list(stored.shape)}, {expected} are expected: restore or remove it"
    )


def _no_buttons(path: Path, what: str) -> UserError:
    return UserError(
        f"{path} has continuous or many-valued actions ({what}), but policies here press buttons: "
        "write them as columns of 0 and 1, or as the number of one of n actions, and convert that"
    )
