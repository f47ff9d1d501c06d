"""Knows where Minari's and robomimic's HDF5 files keep what, and which observations become frames and state."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from BC_training.common.errors import UserError, unknown
from BC_training.common.storage.documents import finite
from BC_training.convert.hdf5.actions import Actions, in_parts, minari_actions, robomimic_actions
from BC_training.convert.hdf5.file import DAMAGE, arrays, follow, require_stored
from BC_training.convert.hdf5.images import is_image
from BC_training.convert.hdf5.metadata import control_frequency
from BC_training.convert.source import Options


@dataclass(frozen=True)
class Layout:
    """Where a kind of file keeps its episodes."""

    group: str  # the group with the episodes
    episode: str  # a regular expression for an episode's name
    observations: str  # the name of an episode's observations, an array or a group
    extra: int  # how many more observations than actions there are
    length: str  # the episode's attribute with the number of its actions
    # Finds buttons or axes from the path, the episodes' actions and the metadata.
    actions: Callable[[Path, Iterable[tuple[str, np.ndarray]], dict[str, Any]], Actions]
    fps: Callable[[dict[str, Any]], Any]  # finds the frames per second in the metadata; None without them


LAYOUTS = {
    "minari": Layout("/", r"episode_\d+", "observations", 1, "total_steps", minari_actions, lambda m: m.get("fps")),
    "robomimic": Layout("data", r"demo_\d+", "obs", 0, "num_samples", robomimic_actions, control_frequency),
}


@dataclass(frozen=True)
class Schema:
    """What becomes of the observations in every episode."""

    image: str  # the observation with the frames
    images: tuple[str, ...]  # all observations that are images
    # The observations that become the state, with each value's name, or None for a value left out.
    state: Mapping[str, tuple[str | None, ...]]
    left_out: tuple[str, ...]  # the observations that are not read
    notes: tuple[str, ...]  # what to tell the user about the names


def root_group(file: h5py.File, kind: str, path: Path) -> h5py.Group | None:
    """The group with the episodes; None without one."""
    root = follow(file, LAYOUTS[kind].group, str(path))
    return root if isinstance(root, h5py.Group) else None


def episode_names(file: h5py.File, kind: str, path: Path) -> list[str]:
    """The episodes in the order of their numbers.

    Raises a UserError if there are none; it names the other kind if the file is of that.
    """
    if found := _names(file, kind, path):
        return sorted(found, key=lambda name: int(name.rsplit("_", 1)[1]))
    expected = f"{LAYOUTS[kind].group}/{LAYOUTS[kind].episode}".lstrip("/").replace(r"\d+", "0")
    others = [other for other in LAYOUTS if other != kind and _names(file, other, path)]
    hint = f"it looks like --from {others[0]}" if others else f"check --from {kind}"
    raise UserError(f"{path} does not hold {expected}, ...: {hint}")


def _names(file: h5py.File, kind: str, path: Path) -> list[str]:
    return [str(n) for n in root_group(file, kind, path) or () if re.fullmatch(LAYOUTS[kind].episode, str(n))]


def all_actions(file: h5py.File, kind: str, names: list[str], path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """(name, stored actions) of the readable episodes; the errors of the others appear when they are converted.

    Raises the first episode's error if none can be read.
    """
    errors, some = [], False
    for name in names:
        try:
            yield name, stored_actions(*episode_group(file, kind, name, path))
            some = True
        except (UserError, *DAMAGE) as error:
            errors.append(error)
    if errors and not some:
        raise errors[0]


def first_schema(file: h5py.File, kind: str, names: list[str], path: Path, options: Options) -> Schema:
    """The schema of the first episode that has frames and can be read; raises a UserError if there is none."""
    errors = []
    for name in names:
        try:
            group, where = episode_group(file, kind, name, path)
            if len(stored_actions(group, where)):
                return _schema(*observations(group, kind, where, options.leave_out), options, where)
        except (UserError, *DAMAGE) as error:
            errors.append(error)
    raise errors[0] if errors else UserError(f"{path}: none of its episodes has an action: there is nothing to convert")


def _schema(found: dict[str, h5py.Dataset], skipped: set[str], options: Options, where: str) -> Schema:
    images = [name for name, dataset in found.items() if is_image(dataset, where)]
    if not images:
        held = ", ".join(f"{name} {d.dtype} {list(d.shape)}" for name, d in found.items())
        raise UserError(
            f"{where} has no image, uint8 [N, H, W, 3] or [N, 3, H, W] or JPEG files, only {held or 'nothing'}: write "
            "its images so (of grey ones the channel three times)"
        )
    if options.camera is not None and options.camera not in images:
        raise unknown("camera", options.camera, images)
    if options.camera is None and len(images) > 1:
        raise UserError(f"{where} has several images: choose one with --camera ({', '.join(images)})")
    values = {n: d for n, d in found.items() if d.ndim <= 2 and d.dtype.kind in "biuf" and n not in images}
    labels = {name: _labels(name, dataset, "_") for name, dataset in values.items()}
    counts = Counter(label for own in labels.values() for label in own)
    renamed = [n for n, own in labels.items() if values[n].ndim == 2 and any(counts[label] > 1 for label in own)]
    labels |= {name: _labels(name, values[name], "/") for name in renamed}
    left_out, known = set(options.leave_out) - skipped, {label for own in labels.values() for label in own}
    if wrong := sorted(left_out - known):
        raise unknown("state value of --leave-out", wrong[0], {*found, *known})
    skipped = skipped | {name for name, own in labels.items() if own and left_out.issuperset(own)}
    kept = {name: own for name, own in labels.items() if name not in skipped}
    state = {name: tuple(None if label in left_out else label for label in own) for name, own in kept.items()}
    notes = (
        f"the values of '{n}' are called {', '.join(labels[n])}: others have the names {n}_0, ..." for n in renamed
    )
    return Schema(options.camera or images[0], tuple(images), state, tuple(sorted(skipped)), tuple(notes))


def _labels(name: str, dataset: h5py.Dataset, joint: str) -> list[str]:
    """The names of the state values in an observation [N] or [N, D]."""
    return [name] if dataset.ndim == 1 else [f"{name}{joint}{i}" for i in range(dataset.shape[1])]


def episode_group(file: h5py.File, kind: str, episode: str, path: Path) -> tuple[h5py.Group, str]:
    """An episode, and its name in errors."""
    root, where = root_group(file, kind, path), f"{path}: {episode}"
    group = None if root is None else follow(root, episode, where)
    if not isinstance(group, h5py.Group):
        raise UserError(f"{where} is not a group: restore the file, or remove the episode")
    return group, where


def _dataset(group: h5py.Group, name: str, where: str) -> h5py.Dataset:
    dataset = follow(group, name, where)
    if isinstance(dataset, h5py.Group):
        raise UserError(in_parts(where, "a group", [str(part) for part in dataset]))
    if not isinstance(dataset, h5py.Dataset):
        raise UserError(f"{where} has no array '{name}': restore it or remove the episode")
    if not dataset.ndim:
        raise UserError(f"{where} has a single value as '{name}', one a frame is needed: restore it")
    return dataset


def stored_actions(group: h5py.Group, where: str) -> np.ndarray:
    dataset = _dataset(group, "actions", where)
    require_stored(dataset, dataset.shape[0], where)
    return dataset[()]


def stored_return(group: h5py.Group, count: int, where: str) -> float | None:
    """The sum of an episode's rewards; None where there is not a finite one for each of ``count`` actions."""
    rewards = follow(group, "rewards", where)
    if not isinstance(rewards, h5py.Dataset) or rewards.shape != (count,) or rewards.dtype.kind not in "biuf":
        return None
    return finite(float(np.sum(rewards[()], dtype=np.float64))) if rewards.id.get_storage_size() else None


def observations(
    episode: h5py.Group, kind: str, where: str, skip: Collection[str]
) -> tuple[dict[str, h5py.Dataset], set[str]]:
    """The episode's observations by name; see ``arrays``."""
    name = LAYOUTS[kind].observations
    item = follow(episode, name, where)
    if isinstance(item, h5py.Group):
        found, skipped = arrays(item, where, skip)
    elif isinstance(item, h5py.Dataset):
        found, skipped = {name: item}, set()
    else:
        raise UserError(f"{where} has no '{name}': write the observations into the file, images among them")
    for inner, dataset in found.items():
        if not dataset.ndim:
            remedy = f'add --leave-out "{inner}"'
            raise UserError(f"{where} has a single value as '{inner}', one a frame is needed: {remedy}")
    return found, skipped
