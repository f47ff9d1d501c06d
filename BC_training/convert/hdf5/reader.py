"""Episodes in HDF5 files of Minari and robomimic.

    Minari     NAME/data/main_data.hdf5 (metadata.json beside it)
               episode_0/observations [N + 1, ...] or a group of them, actions [N, ...], attribute total_steps
    robomimic  NAME.hdf5
               data/demo_0/obs/KEY [N, ...], actions float [N, A], attribute num_samples

An observation uint8 [N, H, W, 3] or [N, 3, H, W], or one of JPEG files, is an image. Other observations with
one or two dimensions become the state; the rest is left out and named in the episode's attribute
``not_converted``, and the sum of its ``rewards`` is its ``score``. The observation after Minari's last action has no
action and is left out.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from BC_training.common.action import Action
from BC_training.common.errors import UserError
from BC_training.convert.hdf5.actions import Actions
from BC_training.convert.hdf5.file import opened, require_stored
from BC_training.convert.hdf5.images import decode, is_image, trailing_zeros
from BC_training.convert.hdf5.layout import (
    LAYOUTS,
    Schema,
    all_actions,
    episode_group,
    episode_names,
    first_schema,
    observations,
    root_group,
    stored_actions,
    stored_return,
)
from BC_training.convert.hdf5.metadata import number, plain, read_metadata, whole
from BC_training.convert.identity import content_digest
from BC_training.convert.source import Options, Recording, Step, every_nth
from BC_training.convert.state_values import exact_float32

BLOCK = 64  # frames read at once
MINARI_FILE = "main_data.hdf5"
_RESTORE = "restore it or remove the episode"


@dataclass(frozen=True)
class Episodes:
    """The episodes of one file; see ``source.Source``."""

    episodes: tuple[str, ...]
    path: Path
    kind: str
    actions: Actions
    schema: Schema
    recorded_fps: float
    fps: float | None

    @property
    def button_names(self) -> tuple[str, ...]:
        return self.actions.button_names

    @property
    def axis_names(self) -> tuple[str, ...]:
        return self.actions.axis_names

    @property
    def notes(self) -> tuple[str, ...]:
        amount = self.actions.amount
        return () if amount is None else (f"the actions become axes, not buttons: {amount}",)

    @property
    def attributes(self) -> tuple[str, ...]:
        return tuple(label for own in self.schema.state.values() for label in own if label is not None)

    def digest(self, episode: str) -> str:
        """Covers all actions, and the first and the last image."""
        with opened(self.path) as file:
            group, where = episode_group(file, self.kind, episode, self.path)
            found, _ = observations(group, self.kind, where, self.schema.left_out)
            parts: list[str | np.ndarray] = [stored_actions(group, where)]
            for name, dataset in found.items():
                if is_image(dataset, where):
                    require_stored(dataset, 1, where)
                    parts += [name, str(dataset.shape), *(np.asarray(dataset[i]) for i in (0, -1) if dataset.shape[0])]
            return content_digest(parts)

    def place(self, episode: str) -> Path:
        return self.path

    def read(self, episode: str) -> Recording:
        """Checks an episode's shapes, actions and state; its images are read lazily."""
        fps, layout, schema = self.fps or self.recorded_fps, LAYOUTS[self.kind], self.schema
        with opened(self.path) as file:
            group, where = episode_group(file, self.kind, episode, self.path)
            actions = self.actions.read(stored_actions(group, where), where)
            count = len(actions.buttons)
            length = plain(group.attrs.get(layout.length))
            if length is not None and whole(length) != count:
                raise UserError(f"{where} has {count} actions, its {layout.length} is {length}: restore the file")
            if not count:
                return Recording(fps, iter(()))
            found, _ = observations(group, self.kind, where, schema.left_out)
            needed = count + layout.extra
            for name in (schema.image, *schema.state):
                if name not in found:
                    raise UserError(f"{where} has no observation '{name}', others have: {_RESTORE}")
                if (length := found[name].shape[0]) != needed:
                    numbers = f"{length} of '{name}' for {count} actions, {needed} are needed"
                    raise UserError(f"{where} has {numbers}: {_RESTORE}")
                require_stored(found[name], count, where)
            if not is_image(found[schema.image], where):
                raise UserError(f"{where}: '{schema.image}' holds no images, others do: {_RESTORE}")
            state = self._state(found, count, where)
            not_converted = sorted(set(found) - {schema.image, *schema.state} | set(schema.left_out))
            black, score = trailing_zeros(found[schema.image], count), stored_return(group, count, where)
        steps = self._steps(episode, actions, state)
        if self.fps is not None and self.fps != self.recorded_fps:
            steps = every_nth(steps, self.recorded_fps, self.fps)
        attrs = {"recorded_fps": self.recorded_fps, "image": schema.image, "not_converted": not_converted}
        attrs |= {} if score is None else {"score": score}
        notes = list(schema.notes)
        if unread := sorted(set(not_converted) - {*schema.images, *schema.left_out}):
            notes.append(f"left out, neither images nor values: {', '.join(unread)}")
        if black:
            notes.append(f"its last {black} frames are all zeros: if recording stopped there, cut the episode")
        return Recording(fps, steps, attrs, tuple(notes))

    def _state(self, found: dict[str, h5py.Dataset], count: int, where: str) -> np.ndarray | None:
        """float32 [N, S], the observations side by side; None without any."""
        parts = []
        for name, labels in self.schema.state.items():
            stored = found[name][:count]
            values = stored.reshape(count, math.prod(stored.shape[1:]))
            if stored.dtype.kind not in "biuf" or values.shape[1] != len(labels):
                raise UserError(
                    f"{where}: '{name}' is {stored.dtype} {list(stored.shape)}, others have {len(labels)} numbers a "
                    "frame: convert it apart"
                )
            kept = [i for i, label in enumerate(labels) if label is not None]
            parts.append(exact_float32(values[:, kept], [str(labels[i]) for i in kept], where))
        return np.concatenate(parts, axis=1) if parts else None

    def _steps(self, episode: str, actions: Action, state: np.ndarray | None) -> Iterator[Step]:
        shape, count = None, len(actions.buttons)
        with opened(self.path) as file:
            group, where = episode_group(file, self.kind, episode, self.path)
            images = observations(group, self.kind, where, self.schema.left_out)[0][self.schema.image]
            for start in range(0, count, BLOCK):
                for k, image in enumerate(images[start : min(start + BLOCK, count)], start):
                    frame = decode(image, f"{where} frame {k}")
                    if frame.shape != (shape := shape or frame.shape):
                        raise UserError(f"{where} frame {k} has another size than frame 0: remove the episode")
                    yield frame, Action(*(part[k] for part in actions)), None if state is None else state[k]


def open_source(path: Path, options: Options) -> Episodes:
    """Finds the episodes in a Minari dataset's folder or in a file, and what they hold.

    Raises a UserError if the file is missing, the actions are neither buttons nor axes, there is no image or several
    without ``camera``, or the frame rate is unknown.
    """
    kind, layout = options.kind, LAYOUTS[options.kind]
    if kind == "minari":
        path = next((p for p in (path / "data" / MINARI_FILE, path / MINARI_FILE) if p.exists()), path)
    if not path.is_file():
        if kind == "minari":
            raise UserError(f"{path} holds no data/{MINARI_FILE}: name a dataset's folder, stored as 'hdf5' by Minari")
        raise UserError(f"{path} is a folder: name the HDF5 file")
    with opened(path) as file:
        names = episode_names(file, kind, path)
        root = root_group(file, kind, path)
        assert root is not None
        metadata = read_metadata(root.attrs, path.parent / "metadata.json" if kind == "minari" else None)
        actions = layout.actions(path, all_actions(file, kind, names, path), metadata)
        schema = first_schema(file, kind, names, path, options)
    stated = layout.fps(metadata)
    recorded = number(stated)
    recorded = options.fps if recorded is None or recorded <= 0 else recorded
    if recorded is None:
        reason = "does not state its frames a second" if stated is None else f"has {stated!r} frames a second"
        raise UserError(f"{path} {reason}: state it, such as --fps 20")
    return Episodes(tuple(names), path, kind, actions, schema, recorded, options.fps)
