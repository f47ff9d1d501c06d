"""Several recorded datasets that one policy is trained on, as if they were one.

Their buttons are matched by name. What a dataset has no button for was not recorded there: ``labelled_buttons`` says
which are, so that neither the loss nor a score takes the others as released.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from BC_training.common.dataset import Skipped, ZarrGameplayDataset
from BC_training.common.errors import UserError, unknown
from BC_training.common.mirror import MirrorTable
from BC_training.common.schema import DatasetConfig
from BC_training.common.settings.dataset_path import name_of


def open_configured(options: DatasetConfig, path: str | Path | tuple[str, ...] | None = None) -> ZarrGameplayDataset:
    """The dataset or datasets of a config's ``dataset`` section, or others at ``path``, read the same way."""
    chosen = options.path if path is None else path
    if isinstance(chosen, tuple):
        return SeveralDatasets(options, chosen)
    return ZarrGameplayDataset.from_config(options, chosen)


def paths_of(dataset: ZarrGameplayDataset) -> list[str]:
    """The path of each dataset in it, or its own."""
    return [part.path for part in dataset.parts] if isinstance(dataset, SeveralDatasets) else [dataset.path]


def labelled_buttons(dataset: ZarrGameplayDataset, episode: int) -> Bool[np.ndarray, " A"]:
    """Which of the buttons were recorded in an episode: all, but where there are several datasets."""
    if isinstance(dataset, SeveralDatasets):
        return dataset.recorded[dataset.places[episode][0]]
    return np.ones(len(dataset.action_names), bool)


@dataclass(frozen=True)
class _Mirrors(MirrorTable):
    """The tables of several datasets in one."""

    tables: tuple[MirrorTable, ...] = ()

    def check(self) -> dict[str, dict[str, str]]:
        images: dict[str, dict[str, str]] = {"action": {}, "axis": {}, "state value": {}}
        for table in self.tables:
            for kind, of_kind in table.check().items():
                for name, image in of_kind.items():
                    if images[kind].setdefault(name, image) != image:
                        raise UserError(
                            f"{table.path}: attribute 'mirror' maps {kind} '{name}' to '{image}', that of another "
                            f"dataset to '{images[kind][name]}': correct one, or set training.augmentation.flip=0"
                        )
        return images

    def _unknown(self, unsure: dict[str, list[str]], images: dict[str, dict[str, str]]) -> UserError:
        """What the first dataset that has some of these names needs in its table."""
        for table in self.tables:
            names = {*table.keys, *table.axes, *table.attributes}
            its = {kind: [name for name in of_kind if name in names] for kind, of_kind in unsure.items()}
            if any(its.values()):
                return replace(table, keys=self.keys)._unknown(its, images)
        raise AssertionError(unsure)


class SeveralDatasets(ZarrGameplayDataset):
    """The episodes of each of ``paths``, one dataset after the other.

    An episode is called NAME.zarr/episode_0. Frame size, as recorded, and rate are those of the first dataset, since a
    policy plays one game at a time. State values are those that all have.

    Attributes:
        places: of each episode, its dataset and its position there.
        recorded: of each dataset, which of the buttons it has.

    Raises:
        UserError: a dataset does not load, one has none of the buttons, axes differ, or the frames' sizes differ and
            there is no ``dataset.frame_size``.
    """

    def __init__(self, options: DatasetConfig, paths: Sequence[str]):
        self.parts = [ZarrGameplayDataset.from_config(replace(options, actions=None), path) for path in paths]
        first = self.parts[0]
        self.path = ", ".join(paths)
        self._names = [name_of(path) for path in paths]
        known = list(dict.fromkeys(name for part in self.parts for name in part.action_names))
        self.action_names = tuple(known if options.actions is None else options.actions)
        for name in self.action_names:
            if name not in known:
                raise unknown("action", name, known, f"the datasets {self.path} name their actions")
        if not self.action_names and not first.axis_names:
            raise UserError(f"{self.path}: dataset.actions and dataset.axes leave nothing to learn: name some")
        self.recorded = [np.isin(self.action_names, part.action_names) for part in self.parts]
        sizes = dict.fromkeys(part.frame_size for part in self.parts)
        for part, recorded in zip(self.parts, self.recorded, strict=True):
            if self.action_names and not recorded.any():
                raise UserError(f"{part.path} has none of the actions {', '.join(self.action_names)}: leave it out")
            if part.axis_names != first.axis_names:
                theirs, ours = (", ".join(names) or "none" for names in (part.axis_names, first.axis_names))
                raise UserError(
                    f"{part.path} has axes {theirs}, {first.path} {ours}: datasets that are trained on together have "
                    "the same axes; dataset.axes=[...] chooses some, [] none"
                )
        if len(sizes) > 1 and options.frame_size is None:
            listed = ", ".join(f"{height}x{width}" for height, width in sizes)
            raise UserError(f"{self.path} have frames of {listed}: set dataset.frame_size, to which all are resized")
        self.axis_names, self.frame_size, self.fps = first.axis_names, first.frame_size, first.fps
        self.state_names = tuple(n for n in first.state_names if all(n in part.state_names for part in self.parts))
        self.channel_order = options.channel_order
        mirrors = tuple(part.mirror for part in self.parts)
        self.mirror = _Mirrors(None, tuple(known), self.state_names, self.path, first.axis_names, mirrors)
        self._collect()

    def _collect(self) -> None:
        """Notes the episodes that the datasets have now."""
        self.places = [(p, e) for p, part in enumerate(self.parts) for e in range(len(part.episodes))]
        self.episodes = [
            replace(episode := self.parts[p].episodes[e], name=f"{self._names[p]}/{episode.name}")
            for p, e in self.places
        ]
        self.skipped = [
            Skipped(f"{name}/{skipped.name}", skipped.reason)
            for name, part in zip(self._names, self.parts, strict=True)
            for skipped in part.skipped
        ]

    def load_labels(self, on_read: Callable[[int], None] = lambda frames: None) -> None:
        for part in self.parts:
            part.load_labels(on_read)
        self._collect()

    def actions(self, episode: int) -> np.ndarray:
        """bool [N, A]; False where the episode's dataset does not have the button."""
        place, position = self.places[episode]
        part = self.parts[place]
        found = np.zeros((self.episodes[episode].length, len(self.action_names)), bool)
        columns = [part.action_names.index(name) for name in self.action_names if name in part.action_names]
        found[:, self.recorded[place]] = part.actions(position)[:, columns]
        return found

    def axes(self, episode: int) -> np.ndarray:
        place, position = self.places[episode]
        return self.parts[place].axes(position)

    def state(self, episode: int) -> np.ndarray:
        place, position = self.places[episode]
        part = self.parts[place]
        if not self.state_names:
            raise UserError(f"{self.path} have no state values in common")
        return part.state(position)[:, [part.state_names.index(name) for name in self.state_names]]

    def read_frames(self, wanted: Sequence[tuple[int, np.ndarray]]) -> list[np.ndarray]:
        """As recorded, hence of several sizes."""
        found: list[np.ndarray] = [np.zeros(0)] * len(wanted)
        for place, part in enumerate(self.parts):
            mine = [k for k, (episode, _) in enumerate(wanted) if self.places[episode][0] == place]
            read = part.read_frames([(self.places[wanted[k][0]][1], wanted[k][1]) for k in mine])
            for k, frames in zip(mine, read, strict=True):
                found[k] = frames
        return found

    def split(self, shares: dict[str, float], seed: int, by_player: bool = False) -> dict[str, list[int]]:
        """Splits the episodes of each dataset by themselves."""
        split: dict[str, list[int]] = {}
        starts = itertools.accumulate((len(part.episodes) for part in self.parts), initial=0)
        for part, start in zip(self.parts, starts, strict=False):
            for name, episodes in part.split(shares, seed, by_player).items():
                split.setdefault(name, []).extend(start + e for e in episodes)
        return split
