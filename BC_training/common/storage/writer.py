"""Writes a dataset: episodes that appear whole or not at all."""

import contextlib
import os
import re
import shutil
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from BC_training.common.action import Action
from BC_training.common.errors import UserError
from BC_training.common.files import locked
from BC_training.common.storage.array_writer import ArrayWriter, FrameWriter
from BC_training.common.storage.column_names import names_fault
from BC_training.common.storage.metadata import EpisodeInfo
from BC_training.common.storage.reader import FORMAT, VERSION, read_episodes, read_root
from BC_training.common.storage.store import LocalStore, episode_number, is_zip, require_utf8
from BC_training.common.storage.video import VIDEO
from BC_training.common.storage.video_writer import VideoWriter, join

_PARTIAL = ".partial-"
LIVE = f"{_PARTIAL}live-"  # of a person's recording, which is finished after a kill; see play/live
_BLOCK = 256  # rows of actions, axes and state written at once


class Names(NamedTuple):
    """The names of a dataset's buttons, axes and state values, as its attributes have them."""

    keys: tuple[str, ...]
    axes: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()

    def to_attrs(self) -> dict[str, list[str]]:
        """The attributes; "axes" only where there are some, as the datasets of older versions have none."""
        return {name: list(values) for name, values in self._asdict().items() if values or name != "axes"}


def require_dataset(path: Path) -> None:
    """Raises a UserError where ``path`` is something other than a dataset that can be written."""
    if is_zip(path):
        raise UserError(f"{path} is a ZIP file, which is read but not written: unpack it, or choose another folder")
    if not path.is_dir():
        raise UserError(f"{path} is a file, a dataset is a folder: choose another name")
    if not any((path / name).exists() for name in ("zarr.json", ".zgroup")):
        found = ", ".join(sorted(entry.name for entry in path.iterdir())[:3])
        raise UserError(f"{path} is no dataset but a folder that holds other things ({found}): choose another folder")


def require_appendable(path: Path, names: Names | None) -> None:
    """Raises a UserError where no episode with columns of these names, or of any, can be added to the dataset."""
    require_dataset(path)
    attrs = read_root(LocalStore(path))
    if not (path / "zarr.json").exists():
        raise UserError(f"{path} is zarr v2, which is read but not written: choose another folder")
    for label, old, new in (
        ("actions", attrs["keys"], names and names.keys),
        ("axes", attrs.get("axes") or [], names and names.axes),
        ("state values", attrs.get("attributes") or [], names and names.attributes),
    ):
        if new is not None and tuple(old) != tuple(new):
            raise UserError(
                f"{path} holds other {label} ({', '.join(old) or 'none'}) than are to be added "
                f"({', '.join(new) or 'none'}): "
                "choose another folder"
            )


def require_local(path: Path) -> None:
    """Raises a UserError for an address, or a path that cannot be written to."""
    if re.match(r"\w+:/", str(path)):  # Path has made one slash of two
        raise UserError(f"cannot write to {path}: recordings are written to a local folder, copy them there afterwards")
    require_utf8(path)


@contextlib.contextmanager
def recording(path: Path, names: Names) -> Iterator[None]:
    """Creates the dataset, or opens it for appending, and locks it for this process.

    Unfinished episodes of a recorder that was killed are removed, but for those of a person's window, and so is a new
    dataset that got no episode. One without an episode takes these names.

    Raises:
        UserError: it cannot be created, another process records into it, or it holds other actions,
            axes or state values.
    """
    require_local(path)
    if fault := names_fault(names.to_attrs()):
        raise UserError(f"cannot write {path}: {fault}: give each a name of its own where the recording comes from")
    created, existed = is_unused(path), os.access(path, os.F_OK)
    if created:
        _create(path, names)
    else:
        is_empty = not LocalStore(path).episode_names()  # a recorder was killed before its first episode
        require_appendable(path, None if is_empty else names)
    busy = f"another process is recording into {path}: wait for it, or choose another folder"
    with locked(path / f"{_PARTIAL}lock", busy):
        try:
            for leftover in set(path.glob(f"{_PARTIAL}*")) - set(live_leftovers(path)):
                shutil.rmtree(leftover, ignore_errors=True)
            if not LocalStore(path).episode_names():
                write_names(path, names)
            yield
        finally:
            if created and not LocalStore(path).episode_names():  # its names would bind later recordings
                (path / "zarr.json").unlink(missing_ok=True)
                if not existed and not live_leftovers(path):
                    shutil.rmtree(path, ignore_errors=True)


def live_leftovers(path: Path) -> list[Path]:
    """The folders of recordings of a person's window that are not finished, in the order of their beginning."""
    return sorted(path.glob(f"{LIVE}*"))


def write_names(path: Path, names: Names) -> None:
    """Gives a dataset without an episode, which is open for recording, the names of its columns."""
    if fault := names_fault(names.to_attrs()):
        raise UserError(f"cannot write {path}: {fault}: give each a name of its own where the recording comes from")
    import zarr

    group = zarr.open_group(path)
    group.attrs.put({key: value for key, value in group.attrs.items() if key != "axes"} | names.to_attrs())


def is_unused(path: Path) -> bool:
    """Whether nothing is at ``path``, or a folder that is empty but for what a killed recorder left."""
    if not os.access(path, os.F_OK):  # Path.exists raises where it may not look
        return True
    try:
        return path.is_dir() and all(entry.name.startswith(_PARTIAL) for entry in path.iterdir())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; choose another folder") from error


def _create(path: Path, names: Names) -> None:
    """Creates an empty dataset at a path that ``is_unused``."""
    import zarr  # here and below, not above: it takes long to import, and training only reads

    attrs = {"format": FORMAT, "version": VERSION, **names.to_attrs()}
    try:
        there = path.is_dir()
        unnamed = path / f"{_PARTIAL}{os.getpid()}" if there else path.with_name(f"{_PARTIAL}{path.name}-{os.getpid()}")
        unnamed.mkdir(parents=True)
        zarr.create_group(unnamed, attributes=attrs, zarr_format=3)
        if there:  # it may be a link or a disk of its own, which stays
            (unnamed / "zarr.json").rename(path / "zarr.json")
            unnamed.rmdir()
        else:
            unnamed.rename(path)  # a kill before this leaves no folder without attributes at ``path``
    except OSError as error:
        raise UserError(f"cannot create {path}: {error.strerror}; choose another folder") from error


def existing_episodes(path: Path) -> list[EpisodeInfo]:
    """The readable episodes of the dataset at ``path``; none where a new dataset can be made.

    Opening the dataset for training reports faulty ones. What is no dataset is a UserError.
    """
    if is_unused(path):
        return []
    require_dataset(path)
    store = LocalStore(path)
    read_root(store)
    return [info for info in read_episodes(store, store.episode_names()) if isinstance(info, EpisodeInfo)]


def next_number(path: Path) -> int:
    """The number after the last episode's; 0 in an empty dataset."""
    names = LocalStore(path).episode_names()
    return episode_number(names[-1]) + 1 if names else 0


class EpisodeWriter:
    """Writes one episode, which ``commit`` makes appear in the dataset whole; before that, nothing does."""

    def __init__(self, dataset: Path, number: int, video_fps: float | None = None):
        """Creates nothing yet.

        Args:
            number: the first to try; an episode that is there is never overwritten.
            video_fps: write the frames as a video of this rate, with some loss, instead of an array.
        """
        self._dataset, self._number, self._video_fps = dataset, number, video_fps
        self._folder = dataset / f"{_PARTIAL}{number}-{os.getpid()}"
        self._rows: list[dict[str, np.ndarray]] = []
        self._arrays: dict[str, ArrayWriter] = {}
        self._frames: FrameWriter | VideoWriter | None = None
        self.frame_count = 0

    def append(self, frame: np.ndarray | None, action: Action, state: np.ndarray | None) -> None:
        """Adds frame uint8 [3, H, W], an action and state float32 [S]; an array of no columns is left out.

        ``frame`` is None in all rows where ``commit`` gets a video of the frames.
        """
        columns = {"actions": action.buttons, "axes": action.axes, "state": state}
        # Copies: rows wait in memory, while the caller may reuse its arrays.
        row = {name: np.array(values) for name, values in columns.items() if values is not None and len(values)}
        if self.frame_count == 0:
            self._create(frame, row)
        if self._frames is not None and frame is not None:
            self._frames.append(frame)
        self._rows.append(row)
        self.frame_count += 1
        if len(self._rows) == _BLOCK:
            self._flush()

    def commit(self, attrs: dict[str, Any], video: Sequence[Path | IO[bytes]] = ()) -> Path:
        """Publishes the episode with ``attrs`` (and frame_count) and returns its folder; a UserError without frames.

        ``video`` are the files of a video of the frames, of which as many are copied as there are rows.
        """
        if self.frame_count == 0:
            raise UserError(f"{self._dataset}: episode {self._number} has no frame, it is not written")
        self._flush()
        if self._frames is not None:
            self._frames.close()
            self._frames = None
        elif (there := join(video, self._folder / VIDEO, self.frame_count)) < self.frame_count:
            raise UserError(f"{self._dataset}: the video has {there} frames for {self.frame_count} rows: restore it")
        return publish(self._folder, self._dataset, self._number, attrs | {"frame_count": self.frame_count})

    def abort(self) -> None:
        """Removes what was written of the episode, unless it is committed."""
        if self._frames is not None:
            self._frames.abort()
            self._frames = None
        for _ in range(100):
            shutil.rmtree(self._folder, ignore_errors=True)
            if not self._folder.exists():
                break
            time.sleep(0.02)  # zarr may still be writing

    def _flush(self) -> None:
        """Writes the rows in memory."""
        for name, array in self._arrays.items() if self._rows else ():
            array.extend(np.stack([row[name] for row in self._rows]))
        self._rows.clear()

    def _create(self, frame: np.ndarray | None, row: dict[str, np.ndarray]) -> None:
        import zarr

        group = zarr.create_group(self._folder, zarr_format=3)
        if frame is not None and self._video_fps is not None:
            self._frames = VideoWriter(self._folder / VIDEO, self._video_fps)
        elif frame is not None:
            self._frames = FrameWriter(group, self._folder, frame)
        self._arrays = {name: ArrayWriter(group, self._folder, name, values) for name, values in row.items()}


def publish(folder: Path, dataset: Path, number: int, attrs: dict[str, Any]) -> Path:
    """Makes a group an episode of the dataset, at once; it has then the number given, or the next that is free.

    Args:
        folder: in the dataset, with a name that is none of an episode.
        attrs: to be added to the group's, the number of frames as "frame_count" among them.

    Returns:
        The episode's folder.
    """
    import zarr
    from zarr.errors import ZarrUserWarning

    zarr.open_group(folder).update_attributes(attrs)
    with warnings.catch_warnings():
        # Not in the v3 specification yet; it makes opening read one file an episode instead of four.
        warnings.simplefilter("ignore", ZarrUserWarning)
        zarr.consolidate_metadata(folder)
    while True:
        target = dataset / f"episode_{number}"
        try:
            os.rename(folder, target)  # atomic; refuses a folder that holds something
            return target
        except OSError:
            if not target.exists():
                raise
            number += 1
