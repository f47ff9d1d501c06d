"""The dataset on disk: zarr groups, one an episode.

    NAME.zarr/      attrs: format "framewise", version, keys [A names], attributes [S names]
      episode_0/    attrs: fps, frame_count, and what the recorder knows (seed, player, ...)
        frames      uint8 [N, 3, H, W] RGB, one frame a chunk, zstd, checksummed
        actions     bool [N, A]
        state       float32 [N, S], optional

zarr-python lays out groups and arrays (format v3); TensorStore moves the chunks, of v2 and v3:
it decodes frames several times as fast and encodes them twice as fast. This module knows the
files; ``dataset.py`` knows what they mean for training.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from BC_training.common.errors import UserError

FORMAT, VERSION = "framewise", 1
ARRAYS = {"frames": ("uint8", 4), "actions": ("bool", 2), "state": ("float32", 2)}  # dtype, dimensions
_EPISODE = re.compile(r"episode_(\d+)")
_PARTIAL = ".partial-"
_BLOCK = 32  # frames written at once: bounds the recorder's memory, not the chunk size
_V2_DTYPES = {"|u1": "uint8", "|b1": "bool", "<f4": "float32"}


@dataclass(frozen=True)
class ArrayInfo:
    shape: tuple[int, ...]
    dtype: str  # numpy's name, "uint8"; the stored spelling if it is none we read
    zarr_format: int


@dataclass(frozen=True)
class EpisodeInfo:
    """What the metadata of one episode says; no chunk has been read."""

    number: int
    path: Path
    arrays: dict[str, ArrayInfo]
    attrs: dict[str, Any]

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def length(self) -> int:
        """Frames in the episode."""
        return self.arrays["actions"].shape[0]


def read_root(path: Path) -> dict[str, Any]:
    """The root group's attributes.

    Raises:
        UserError: not a zarr group, a newer version of the format, or action names missing.
    """
    if not path.exists():
        raise UserError(f"no dataset at {path}: check the path, or record one with 'record --out {path}'")
    attrs = _group_attrs(path)
    if attrs is None:
        raise UserError(
            f"{path} is not a zarr group: point dataset.path at the folder that holds episode_0, episode_1, ..."
        )
    if attrs.get("format", FORMAT) != FORMAT:
        raise UserError(f"{path} has format '{attrs['format']}', this program reads '{FORMAT}'")
    if isinstance(attrs.get("version"), int) and attrs.get("format") == FORMAT and attrs["version"] > VERSION:
        raise UserError(f"{path} has format version {attrs['version']}, newer than {VERSION}: update this program")
    keys = attrs.get("keys")
    if not isinstance(keys, list) or not keys:
        raise UserError(f"{path} does not name its actions: its group attributes need 'keys', a list of names")
    return attrs


def episode_paths(path: Path) -> list[tuple[int, Path]]:
    """Every episode's (number, folder), in numeric order; gaps are fine."""
    found = [(int(m[1]), path / m[0]) for e in os.scandir(path) if (m := _EPISODE.fullmatch(e.name)) and e.is_dir()]
    return sorted(found)


def read_episode(number: int, path: Path) -> EpisodeInfo:
    """Reads one episode's metadata.

    Raises:
        UserError: the folder is not a group, or an array that must be there is missing.
    """
    attrs = _group_attrs(path)
    if attrs is None:
        raise UserError("not a zarr group")
    arrays = {name: info for name in ARRAYS if (info := _array_info(path / name)) is not None}
    for name in ("frames", "actions"):
        if name not in arrays:
            raise UserError(f"has no array '{name}'")
    return EpisodeInfo(number, path, arrays, attrs)


def open_array(episode: EpisodeInfo, name: str) -> ts.TensorStore:
    """Opens an episode's array for reading. A chunk that is missing is an error, not zeros."""
    return _open(episode, name, missing_is_zero=False)


def read_actions(episode: EpisodeInfo) -> np.ndarray:
    """bool [N, A].

    Some writers leave out a chunk of nothing but zeros, which for actions means "no button
    pressed". It is accepted only where the writer demonstrably does that: not in a dataset this
    program wrote, and not where another all-zero chunk was written.
    """
    try:
        return open_array(episode, "actions").read().result()
    except ValueError as error:
        if "missing" not in str(error) or (_group_attrs(episode.path.parent) or {}).get("format") == FORMAT:
            raise
        actions = np.asarray(_open(episode, "actions", missing_is_zero=True).read().result())
        present = _present_chunks(episode, "actions")
        chunks = np.array_split(actions, range(present.rows, len(actions), present.rows))
        written_zeros = any(i in present.indices and not chunk.any() for i, chunk in enumerate(chunks))
        if written_zeros or not present.indices:
            raise
        return actions


def _open(episode: EpisodeInfo, name: str, missing_is_zero: bool) -> ts.TensorStore:
    spec = {
        "driver": "zarr3" if episode.arrays[name].zarr_format == 3 else "zarr",
        "kvstore": {"driver": "file", "path": f"{episode.path.resolve()}/{name}/"},
        "fill_missing_data_reads": missing_is_zero,
        "recheck_cached_data": False,
    }
    return ts.open(spec, open=True, read=True).result()


@dataclass(frozen=True)
class _Chunks:
    rows: int  # rows of a chunk
    indices: set[int]  # along the first dimension, of the chunks that are there


def _present_chunks(episode: EpisodeInfo, name: str) -> _Chunks:
    folder = episode.path / name
    if episode.arrays[name].zarr_format == 3:
        meta = _read_json(folder / "zarr.json") or {}
        rows = meta["chunk_grid"]["configuration"]["chunk_shape"][0]
        found = (p.name for p in (folder / "c").glob("*"))
    else:
        rows = (_read_json(folder / ".zarray") or {})["chunks"][0]
        found = (re.split(r"[./]", p.name)[0] for p in folder.glob("[0-9]*"))
    return _Chunks(rows, {int(index) for index in found if index.isdigit()})


def _group_attrs(path: Path) -> dict[str, Any] | None:
    """A group's attributes; None if ``path`` is no group."""
    meta = _read_json(path / "zarr.json")
    if meta is not None and meta.get("node_type") == "group":
        return meta.get("attributes") or {}
    if _read_json(path / ".zgroup") is not None:
        return _read_json(path / ".zattrs") or {}
    return None


def _array_info(path: Path) -> ArrayInfo | None:
    try:
        if (meta := _read_json(path / "zarr.json")) is not None and meta.get("node_type") == "array":
            return ArrayInfo(tuple(meta["shape"]), str(meta["data_type"]), 3)
        if (meta := _read_json(path / ".zarray")) is not None:
            return ArrayInfo(tuple(meta["shape"]), _V2_DTYPES.get(str(meta["dtype"]), str(meta["dtype"])), 2)
    except (KeyError, TypeError) as error:
        raise UserError(f"the metadata of '{path.name}' is damaged ({error!r})") from error
    return None


def _read_json(file: Path) -> dict[str, Any] | None:
    try:
        raw = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {file}: {error}; restore it or remove the episode") from error
    return raw if isinstance(raw, dict) else None


@contextlib.contextmanager
def recording(path: Path, keys: tuple[str, ...], attributes: tuple[str, ...]) -> Iterator[None]:
    """Creates the dataset, or opens it for appending, and holds it for this process alone.

    What an earlier recorder that was killed left unfinished is removed.

    Raises:
        UserError: another process records into it, or it holds other actions or state values.
    """
    if path.exists():
        attrs = read_root(path)
        if not (path / "zarr.json").exists():
            raise UserError(f"{path} is zarr v2, which is read but not written: choose another folder")
        for label, old, new in (
            ("actions", attrs["keys"], keys),
            ("state values", attrs.get("attributes") or [], attributes),
        ):
            if tuple(old) != tuple(new):
                raise UserError(
                    f"{path} holds other {label} ({', '.join(old)}) than this game ({', '.join(new)}): "
                    "choose another folder"
                )
    else:
        attrs = {"format": FORMAT, "version": VERSION, "keys": list(keys), "attributes": list(attributes)}
        path.parent.mkdir(parents=True, exist_ok=True)
        zarr.create_group(path, attributes=attrs, zarr_format=3)
    folder = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another process is recording into {path}: wait for it, or choose another folder"
            ) from None
        for leftover in path.glob(f"{_PARTIAL}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield
    finally:
        os.close(folder)


class EpisodeWriter:
    """Writes one episode, which appears in the dataset whole, by ``commit``, or not at all."""

    def __init__(self, dataset: Path, number: int):
        """``number``: the first to try; a taken one is never overwritten."""
        self._dataset, self._number = dataset, number
        self._folder = dataset / f"{_PARTIAL}{number}-{os.getpid()}"
        self._rows: list[dict[str, np.ndarray]] = []
        self._arrays: dict[str, ts.TensorStore] = {}
        self._writes: list[ts.WriteFutures] = []
        self.frame_count = 0

    def append(self, frame: np.ndarray, action: np.ndarray, state: np.ndarray | None) -> None:
        """Adds frame uint8 [3, H, W], action bool [A] and state float32 [S]."""
        row = {"frames": frame, "actions": action}
        self._rows.append(row if state is None else row | {"state": state})
        self.frame_count += 1
        if len(self._rows) == _BLOCK:
            self._flush()

    def commit(self, attrs: dict[str, Any]) -> Path:
        """Publishes the episode with ``attrs`` (and frame_count); returns its folder.

        Raises:
            UserError: it has no frame.
        """
        if self.frame_count == 0:
            raise UserError(f"{self._dataset}: episode {self._number} has no frame, it is not written")
        self._flush()
        self._wait()
        zarr.open_group(self._folder).update_attributes({**attrs, "frame_count": self.frame_count})
        while True:
            target = self._dataset / f"episode_{self._number}"
            try:
                os.rename(self._folder, target)  # atomic; refuses a folder that holds something
                return target
            except OSError:
                if not target.exists():
                    raise
                self._number += 1

    def abort(self) -> None:
        """Forgets the episode."""
        for write in self._writes:  # each: one still in flight would bring the folder back
            with contextlib.suppress(ValueError):
                write.result()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _flush(self) -> None:
        """Starts writing the rows in memory, once those before them are written."""
        if not self._rows:
            return
        if not self._arrays:
            self._create()
        self._wait()
        for name, array in self._arrays.items():
            block = np.stack([row[name] for row in self._rows])
            shape = (self.frame_count, *block.shape[1:])
            array = array.resize(exclusive_max=shape, expand_only=True).result()
            self._writes.append(array[self.frame_count - len(block) : self.frame_count].write(block))
        self._rows.clear()

    def _wait(self) -> None:
        for write in self._writes:
            write.result()
        self._writes.clear()

    def _create(self) -> None:
        group = zarr.create_group(self._folder, zarr_format=3)
        for name, row in self._rows[0].items():
            group.create_array(
                name,
                shape=(0, *row.shape),
                dtype=ARRAYS[name][0],
                # Actions and state are read whole, frames one at a time in random order.
                chunks=(1 if name == "frames" else 4096, *row.shape),
                compressors=[ZstdCodec(level=1), Crc32cCodec()],
            )
            spec = {
                "driver": "zarr3",
                # The rename publishes; a sync for every chunk would cost a third of the speed.
                "kvstore": {"driver": "file", "path": f"{self._folder.resolve()}/{name}/", "file_io_sync": False},
                "store_data_equal_to_fill_value": True,  # so that a missing chunk means a loss
            }
            self._arrays[name] = ts.open(spec, open=True, write=True).result()
