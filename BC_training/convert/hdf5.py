"""Episodes in HDF5, as Minari and robomimic keep them.

    Minari     NAME/data/main_data.hdf5 (metadata.json beside it)
               episode_0/observations [N + 1, ...] or a group of them, actions [N, ...]
    robomimic  NAME.hdf5
               data/demo_0/obs/KEY [N, ...], actions float [N, A], attribute num_samples

An observation of shape [N, H, W, 3] or [N, 3, H, W] in uint8, or of JPEG files, is an image. Those
of one or two dimensions become the state; what is neither is left out and named in the episode's
attribute ``not_converted``. The observation after Minari's last action has no action and is left out.
"""

import contextlib
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image

from BC_training.common.errors import UserError, unknown
from BC_training.convert import Options, Recording, Step, every_nth
from BC_training.convert.hdf5_actions import Actions, minari_actions, robomimic_actions

BLOCK = 64  # frames read at once
MINARI_FILE = "main_data.hdf5"
JPEG_START = b"\xff\xd8\xff"


@dataclass(frozen=True)
class Layout:
    """Where a kind keeps its episodes.

    Attributes:
        group: that holds the episodes.
        episode: a regular expression of an episode's name.
        observations: an episode's dataset or group of them.
        extra: observations there are beyond the actions.
        actions: what the actions mean, from the file, its episodes and its metadata.
        fps: frames per second, if the metadata say.
    """

    group: str
    episode: str
    observations: str
    extra: int
    actions: Callable[[Path, dict[str, h5py.Dataset], dict[str, Any]], Actions]
    fps: Callable[[dict[str, Any]], Any]


LAYOUTS = {
    "minari": Layout("/", r"episode_\d+", "observations", 1, minari_actions, lambda meta: meta.get("fps")),
    "robomimic": Layout("data", r"demo_\d+", "obs", 0, robomimic_actions, lambda meta: _control_frequency(meta)),
}


@dataclass(frozen=True)
class Episodes:
    """A ``Source`` of one file."""

    keys: tuple[str, ...]
    attributes: tuple[str, ...]
    episodes: tuple[str, ...]
    path: Path
    kind: str
    actions: Actions
    image: str  # the observation to see
    state: tuple[str, ...]  # the observations that become the state
    recorded_fps: float
    fps: float | None

    def read(self, episode: str) -> Recording:
        """Checks an episode's shapes, actions and state; its images are read as they are asked for."""
        with _opened(self.path) as file:
            group, where = _group(file, self.kind, episode), f"{self.path}: {episode}"
            found = _observations(group, self.kind, where)
            actions = self.actions.buttons(_dataset(group, "actions", where)[()], where)
            count = int(group.attrs.get("num_samples", len(actions)))
            if count != len(actions):
                raise UserError(f"{where} has {len(actions)} actions, its num_samples says {count}: restore the file")
            for name in (self.image, *self.state):
                if name not in found:
                    raise UserError(
                        f"{where} has no observation '{name}', others have: restore it or remove the episode"
                    )
                length = found[name].shape[0]
                if length != count + LAYOUTS[self.kind].extra:
                    raise UserError(
                        f"{where} has {length} of '{name}' for {count} actions, "
                        f"{count + LAYOUTS[self.kind].extra} are needed: restore it or remove the episode"
                    )
            state = _state({name: found[name][:count] for name in self.state}, where)
            if state is not None and state.shape[1] != len(self.attributes):
                raise UserError(
                    f"{where} has {state.shape[1]} state values, others {len(self.attributes)}: convert it apart"
                )
            left_out = sorted(set(found) - {self.image, *self.state})
            unread = [name for name in left_out if not _is_image(found[name])]
        steps = self._steps(episode, actions, state)
        if self.fps is not None and self.fps != self.recorded_fps:
            steps = every_nth(steps, self.recorded_fps, self.fps)
        attrs = {"recorded_fps": self.recorded_fps, "image": self.image, "not_converted": left_out}
        notes = (f"left out, neither images nor values: {', '.join(unread)}",) if unread else ()
        return Recording(self.fps or self.recorded_fps, steps, attrs, notes)

    def _steps(self, episode: str, actions: np.ndarray, state: np.ndarray | None) -> Iterator[Step]:
        where, shape = f"{self.path}: {episode}", None
        with _opened(self.path) as file:
            images = _observations(_group(file, self.kind, episode), self.kind, where)[self.image]
            for start in range(0, len(actions), BLOCK):
                for k, image in enumerate(images[start : min(start + BLOCK, len(actions))], start):
                    frame = _frame(image, f"{where} frame {k}")
                    if frame.shape != (shape := shape or frame.shape):
                        raise UserError(f"{where} frame {k} has another size than frame 0: remove the episode")
                    yield frame, actions[k], None if state is None else state[k]


def open_source(path: Path, options: Options) -> Episodes:
    """Finds the episodes of a Minari dataset's folder or of a file, and what they hold.

    Raises:
        UserError: no such file, actions that are no buttons, no image, several images and no
            ``camera``, or an unknown frame rate.
    """
    kind, layout = options.kind, LAYOUTS[options.kind]
    if kind == "minari":
        path = next((p for p in (path / "data" / MINARI_FILE, path / MINARI_FILE) if p.exists()), path)
    if not path.is_file():
        if kind == "minari":
            raise UserError(f"{path} holds no data/{MINARI_FILE}: name a dataset's folder, stored as 'hdf5' by Minari")
        raise UserError(f"{path} is a folder: name the HDF5 file")
    with _opened(path) as file:
        root = file.get(layout.group)
        found = [str(n) for n in root] if isinstance(root, h5py.Group) else []
        found = [n for n in found if re.fullmatch(layout.episode, n)]
        names = sorted(found, key=lambda name: int(name.rsplit("_", 1)[1]))
        if not names:
            expected = f"{layout.group}/{layout.episode}".lstrip("/").replace(r"\d+", "0")
            raise UserError(f"{path} does not hold {expected}, ...: check --from {kind}")
        metadata = _metadata(path, file[layout.group].attrs)
        episodes = {n: _dataset(_group(file, kind, n), "actions", f"{path}: {n}") for n in names}
        actions = layout.actions(path, episodes, metadata)
        observations = _observations(_group(file, kind, names[0]), kind, f"{path}: {names[0]}")
        image = _choose_image(observations, options.camera, f"{path}: {names[0]}")
        state = {n: d for n, d in observations.items() if _is_state(d)}
        attributes = [
            label
            for name, dataset in state.items()
            for label in ([name] if dataset.ndim == 1 else [f"{name}_{i}" for i in range(dataset.shape[1])])
        ]
    recorded = layout.fps(metadata) or options.fps
    if isinstance(recorded, bool) or not isinstance(recorded, int | float | np.number) or not 0 < recorded < np.inf:
        raise UserError(f"{path} does not say how many frames a second it has: state it, such as --fps 20")
    return Episodes(
        actions.names,
        tuple(attributes),
        tuple(names),
        path,
        kind,
        actions,
        image,
        tuple(state),
        float(recorded),
        options.fps,
    )


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """Opens a file; damage found while it is open is a UserError, too."""
    try:
        with h5py.File(path, "r") as file:
            yield file
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"cannot read {path} ({reason}): restore it, or check that it is an HDF5 file") from error


def _metadata(path: Path, attrs: h5py.AttributeManager) -> dict[str, Any]:
    """The file's attributes, and a metadata.json beside the file."""
    beside = path.parent / "metadata.json"
    try:
        return dict(attrs) | (_json(beside.read_text()) if beside.exists() else {})
    except ValueError as error:
        raise UserError(f"{beside} is not a JSON object ({error}): restore it") from error


def _control_frequency(metadata: dict[str, Any]) -> Any:
    """Actions per second of a robosuite environment, which is robomimic's frame rate."""
    try:
        return _json(metadata.get("env_args", "{}")).get("env_kwargs", {}).get("control_freq")
    except ValueError:
        return None


def _json(text: str) -> dict[str, Any]:
    raw = json.loads(text)
    if not isinstance(raw, dict):
        raise ValueError("it starts with no {")
    return raw


def _group(file: h5py.File, kind: str, episode: str) -> h5py.Group:
    group = file[f"{LAYOUTS[kind].group}/{episode}"]
    if not isinstance(group, h5py.Group):
        raise UserError(f"{file.filename}: {episode} is not a group: restore the file")
    return group


def _dataset(group: h5py.Group, name: str, where: str) -> h5py.Dataset:
    dataset = group.get(name)
    if not isinstance(dataset, h5py.Dataset):
        raise UserError(f"{where} has no array '{name}': restore it or remove the episode")
    if not dataset.ndim:
        raise UserError(f"{where} has a single value as '{name}', one a frame is needed: restore it")
    return dataset


def _observations(episode: h5py.Group, kind: str, where: str) -> dict[str, h5py.Dataset]:
    """Every array of observations by its name; of groups in groups, "outer/inner"."""
    name = LAYOUTS[kind].observations
    found = episode.get(name)
    if isinstance(found, h5py.Dataset):
        return {name: _dataset(episode, name, where)}
    if not isinstance(found, h5py.Group):
        raise UserError(f"{where} has no '{name}': write the observations into the file, images among them")
    datasets: list[str] = []
    found.visititems(lambda inner, item: datasets.append(inner) if isinstance(item, h5py.Dataset) else None)
    return {inner: _dataset(found, inner, where) for inner in sorted(datasets)}


def _choose_image(observations: dict[str, h5py.Dataset], camera: str | None, where: str) -> str:
    images = [name for name, dataset in observations.items() if _is_image(dataset)]
    if not images:
        held = ", ".join(f"{name} {d.dtype} {list(d.shape)}" for name, d in observations.items())
        raise UserError(f"{where} has no image, uint8 [N, H, W, 3] or [N, 3, H, W], only {held}: policies see images")
    if camera is not None and camera not in images:
        raise unknown("camera", camera, images)
    if camera is None and len(images) > 1:
        raise UserError(f"{where} has several images: choose one with --camera ({', '.join(images)})")
    return camera or images[0]


def _is_image(dataset: h5py.Dataset) -> bool:
    raw = dataset.ndim == 4 and dataset.dtype == np.uint8 and 3 in (dataset.shape[1], dataset.shape[3])
    return raw or _is_jpeg(dataset)


def _is_jpeg(dataset: h5py.Dataset) -> bool:
    """Whether each row is a JPEG file: Minari packs images of 32x32 pixels and more."""
    if h5py.check_vlen_dtype(dataset.dtype) != np.uint8 and (dataset.dtype != np.uint8 or dataset.ndim != 2):
        return False
    return dataset.shape[0] > 0 and bytes(dataset[0][:3]) == JPEG_START


def _is_state(dataset: h5py.Dataset) -> bool:
    return dataset.ndim <= 2 and dataset.dtype.kind in "biuf" and not _is_jpeg(dataset)


def _state(arrays: dict[str, np.ndarray], where: str) -> np.ndarray | None:
    """float32 [N, S] of the arrays [N] and [N, ...] beside one another; None without any."""
    if not arrays:
        return None
    for name, array in arrays.items():
        with np.errstate(over="ignore"):
            bad = ~np.isfinite(array.astype(np.float32)).reshape(len(array), -1).all(axis=1)
        if bad.any():
            raise UserError(
                f"{where} frame {np.flatnonzero(bad)[0]}: '{name}' is not finite: correct it or remove the episode"
            )
    return np.concatenate([a.reshape(len(a), -1).astype(np.float32) for a in arrays.values()], axis=1)


def _frame(image: np.ndarray, where: str) -> np.ndarray:
    """uint8 [3, H, W] of an image [H, W, 3] or [3, H, W], or of a JPEG file's bytes."""
    if image.ndim == 1:
        try:
            image = np.asarray(Image.open(io.BytesIO(image.tobytes())).convert("RGB"))
        except OSError as error:
            raise UserError(f"{where} is not a JPEG that can be read ({error}): remove the episode") from error
    return np.ascontiguousarray(image.transpose(2, 0, 1)) if image.shape[2] == 3 else image
