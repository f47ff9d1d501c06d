"""The dataset on disk: zarr groups, one an episode.

    NAME.zarr/      attrs: format "framewise", version, keys [A names], attributes [S names],
                    and where names do not tell it, mirror (see ``mirror.MirrorTable``)
      episode_0/    attrs: fps, frame_count, and what the recorder knows (seed, player, ...)
        frames      uint8 [N, 3, H, W] RGB, one frame a chunk, zstd, checksummed
        actions     bool [N, A]
        state       float32 [N, S], optional; other numbers are read as float32

This module reads it, zarr v2 and v3; ``writer.py`` writes v3; ``dataset.py`` knows what it means
for training. zarr-python lays out groups and arrays, TensorStore moves the chunks: it decodes
frames several times as fast and encodes them twice as fast. Codecs that it does not have are left
to zarr-python, too (``other_codecs.py``).
"""

import math
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorstore as ts

from BC_training.common.errors import UserError
from BC_training.common.storage.array_info import ARRAYS, ArrayInfo, dtype_fault, parse_array
from BC_training.common.storage.documents import finite, group_attributes, parse_document
from BC_training.common.storage.layouts import datasets_in, other_layout
from BC_training.common.storage.names import names_fault
from BC_training.common.storage.other_codecs import DecodedArray, other_codecs
from BC_training.common.storage.remote_store import context
from BC_training.common.storage.store import LocalStore, Store

FORMAT, VERSION = "framewise", 1
DAMAGE = (ValueError, NotImplementedError)  # what TensorStore raises for metadata and chunks that are damaged
_PART = 1 << 18  # rows of actions or state read at once


@dataclass(frozen=True)
class EpisodeInfo:
    """What the metadata of one episode says; no chunk has been read."""

    store: Store
    name: str  # "episode_7"
    arrays: dict[str, ArrayInfo]
    attrs: dict[str, Any]

    @property
    def length(self) -> int:
        """Frames in the episode."""
        return self.arrays["actions"].shape[0]

    @property
    def fps(self) -> float | None:
        """Frames per second as recorded, finite and above 0; None if the attributes say nothing of the kind."""
        rate = finite(self.attrs.get("fps"))
        return rate if rate is not None and rate > 0 else None


def read_root(store: Store) -> dict[str, Any]:
    """The root group's attributes.

    Raises:
        UserError: not a dataset, a newer version of the format, or names that do not tell actions or
            state values apart.
    """
    attrs = read_attributes(store)
    if fault := names_fault(attrs, store.address):
        raise UserError(f"{store.address}: {fault}")
    return attrs


def read_attributes(store: Store) -> dict[str, Any]:
    """The root group's attributes, whose names have not been checked.

    Raises:
        UserError: not a dataset, or a newer version of the format.
    """
    path = store.address
    if isinstance(store, LocalStore) and not store.exists():
        raise UserError(f"no dataset at {path}: check the path, or record one with 'record --out {path}'")
    raws = store.read(_GROUP_FILES)
    try:
        attrs = group_attributes(
            *(parse_document(raw, f"{path}/{key}") for raw, key in zip(raws, _GROUP_FILES, strict=True))
        )
    except UserError as error:
        anew = '{"zarr_format": 3, "node_type": "group", "attributes": {"keys": [...], "attributes": [...]}}'
        raise UserError(
            f"{error}; restore it from a copy, or write a zarr.json anew with the names of actions and state values: "
            f"{anew}"
        ) from error
    if attrs is None:
        raise UserError(
            f"{path} is not a zarr group: point dataset.path at the folder that holds episode_0, episode_1, ..."
            f"{datasets_in(store)}"
        )
    if attrs.get("format", FORMAT) != FORMAT:
        raise UserError(f"{path} has format {reprlib.repr(attrs['format'])}, this program reads '{FORMAT}'")
    if isinstance(attrs.get("version"), int) and attrs.get("format") == FORMAT and attrs["version"] > VERSION:
        raise UserError(f"{path} has format version {attrs['version']}, newer than {VERSION}: update this program")
    if "keys" not in attrs:
        raise UserError(f"{path} is no dataset, its group attributes name no actions in 'keys': {other_layout(store)}")
    return attrs


def read_episodes(store: Store, names: Sequence[str]) -> list[EpisodeInfo | UserError]:
    """Reads the metadata of episodes; a faulty one is returned as the error that says why.

    One file is read an episode where its arrays' metadata is consolidated in its group's, as
    ``writer.py`` does; four or more otherwise.
    """
    found: list[EpisodeInfo | UserError | None] = [None] * len(names)
    others: list[int] = []
    for i, (name, raws) in enumerate(zip(names, _read_each(store, names, ["zarr.json"]), strict=True)):
        try:
            if isinstance(raws, UserError):
                raise raws
            if isinstance(store, LocalStore) and any(store.is_link(f"{name}{array}") for array in _FOLDERS):
                store.refuse_links_out(name)
            meta = parse_document(raws[0], f"{store.address}/{name}/zarr.json")
            consolidated = (meta or {}).get("consolidated_metadata")
            arrays = consolidated.get("metadata") if isinstance(consolidated, dict) else None
            arrays = arrays if isinstance(arrays, dict) else None
            copied_from = [f"{name}/{array}/zarr.json" for array in arrays or ()]
            if arrays is None or store.changed_since(f"{name}/zarr.json", copied_from):
                others.append(i)
            else:
                found[i] = _episode(store, name, group_attributes(meta), {a: (arrays.get(a), None) for a in ARRAYS})
        except UserError as error:
            found[i] = error
    keys = [*_GROUP_FILES, *(f"{array}/{meta}" for array in ARRAYS for meta in ("zarr.json", ".zarray"))]
    for i, raws in zip(others, _read_each(store, [names[i] for i in others], keys), strict=True):
        try:
            if isinstance(raws, UserError):
                raise raws
            parsed = [
                parse_document(raw, f"{store.address}/{names[i]}/{key}") for raw, key in zip(raws, keys, strict=True)
            ]
            arrays = {n: (parsed[3 + 2 * a], parsed[4 + 2 * a]) for a, n in enumerate(ARRAYS)}
            found[i] = _episode(store, names[i], group_attributes(*parsed[:3]), arrays)
        except UserError as error:
            found[i] = error
    return [episode for episode in found if episode is not None]


def _read_each(store: Store, names: Sequence[str], keys: Sequence[str]) -> list[list[bytes | None] | UserError]:
    """The files ``keys`` of each episode; of a local one that cannot be read the error."""
    if not isinstance(store, LocalStore):  # all at once: each request waits for a server
        raws = store.read([f"{name}/{key}" for name in names for key in keys])
        return [raws[at : at + len(keys)] for at in range(0, len(raws), len(keys))]
    found: list[list[bytes | None] | UserError] = []
    for name in names:
        try:
            found.append(store.read([f"{name}/{key}" for key in keys]))
        except UserError as error:
            found.append(error)
    return found


def open_array(episode: EpisodeInfo, name: str) -> "ts.TensorStore | DecodedArray":
    """Opens an episode's array for reading. A chunk that is missing is an error, not zeros.

    Raises:
        UserError: a symbolic link leads out of the dataset, or a codec that is not read.
        ValueError: it cannot be opened.
    """
    if isinstance(episode.store, LocalStore):
        episode.store.refuse_links_out(f"{episode.name}/{name}")
    return _open(episode, name, missing_is_zero=False)


def read_actions(episode: EpisodeInfo) -> np.ndarray:
    """bool [N, A].

    Some writers leave out a chunk of nothing but zeros, which for actions means "no button
    pressed". It is accepted only where the writer demonstrably does that: not in a dataset this
    program wrote, and not where another all-zero chunk was written.
    """
    try:
        return read_whole(open_array(episode, "actions"))
    except DAMAGE as error:
        if "missing" not in str(error) or read_attributes(episode.store).get("format") == FORMAT:
            raise
        array, rows = _open(episode, "actions", missing_is_zero=True), episode.arrays["actions"].chunks[0]
        actions, present = np.zeros(array.shape, bool), sorted(_present_rows(episode, "actions"))
        reads = [(i * rows, array[i * rows : min((i + 1) * rows, len(actions))].read()) for i in present]
        for start, read in reads:
            chunk = np.asarray(read.result())
            if not chunk.any():
                raise  # zeros were written
            actions[start : start + len(chunk)] = chunk
        if not present:
            raise
        return actions


def read_whole(array: "ts.TensorStore | DecodedArray") -> np.ndarray:
    """All rows, a part at a time: of an array with nothing behind it the first part is an error."""
    rows = array.shape[0]
    if rows <= _PART:
        return np.asarray(array.read().result())
    values = np.empty(array.shape, array.dtype.numpy_dtype)
    for start in range(0, rows, _PART):
        values[start : start + _PART] = array[start : min(start + _PART, rows)].read().result()
    return values


def metadata_fault(info: EpisodeInfo, actions: int, attributes: int | None, size: tuple[int, ...]) -> str | None:
    """What makes the episode unusable, in a line; None if nothing does.

    Args:
        actions: how many the dataset names.
        attributes: how many state values the dataset names; None where it has no state.
        size: (H, W) of most episodes' frames, in pixels.
    """
    for name, array in info.arrays.items():
        dimensions = ARRAYS[name][1]
        if fault := dtype_fault(name, array.dtype):
            return fault
        if len(array.shape) != dimensions:
            return f"'{name}' has shape {array.shape}, expected {dimensions} dimensions"
    frames, lengths = info.arrays["frames"].shape, {n: a.shape[0] for n, a in info.arrays.items()}
    if len(set(lengths.values())) > 1:
        return "lengths differ: " + ", ".join(f"{n} {length}" for n, length in lengths.items())
    if frames[1] != 3:
        return f"'frames' has {frames[1]} channels in shape {frames}, expected [N, 3, H, W]"
    if frames[2:] != size:
        return f"'frames' are {frames[2]}x{frames[3]}, those of most episodes {size[0]}x{size[1]}"
    if math.prod(frames) == 0:
        return "it is empty"
    if info.arrays["actions"].shape[1] != actions:
        return f"'actions' has {info.arrays['actions'].shape[1]} columns, the dataset names {actions} keys"
    if attributes is not None:
        if "state" not in info.arrays:
            return "it has no 'state', other episodes have"
        if info.arrays["state"].shape[1] != attributes:
            return f"'state' has {info.arrays['state'].shape[1]} columns, the dataset names {attributes} attributes"
    return None


def _open(episode: EpisodeInfo, name: str, missing_is_zero: bool) -> "ts.TensorStore | DecodedArray":
    folder, zarr_format = f"{episode.name}/{name}", episode.arrays[name].zarr_format
    spec = {
        "driver": "zarr3" if zarr_format == 3 else "zarr",
        "kvstore": episode.store.kvstore(folder),
        "fill_missing_data_reads": missing_is_zero,
        "recheck_cached_data": False,
    }
    try:
        return ts.open(spec, open=True, read=True, context=_CONTEXT).result()
    except DAMAGE:
        document = other_codecs(episode.store, folder, zarr_format)
        if document is None:
            raise
        return DecodedArray(episode.store, folder, document, missing_is_zero)


def _present_rows(episode: EpisodeInfo, name: str) -> set[int]:
    """Indices along the first dimension of the chunks that are there."""
    keys = episode.store.files(f"{episode.name}/{name}")
    parts = (key.replace("/", ".").removeprefix("c.").split(".")[0] for key in keys)
    return {int(index) for index in parts if index.isdigit()}


_FOLDERS = ("", *(f"/{array}" for array in ARRAYS))
_GROUP_FILES = ("zarr.json", ".zgroup", ".zattrs")
_CONTEXT = context()


def _episode(
    store: Store, name: str, attrs: dict[str, Any] | None, metadata: dict[str, tuple[Any, Any]]
) -> EpisodeInfo:
    """``metadata`` has each array's v3 and v2 metadata, of which one is there, or none.

    Raises:
        UserError: the folder is not a group, or an array that must be there is missing.
    """
    if attrs is None:
        raise UserError("not a zarr group")
    arrays = {n: info for n, (v3, v2) in metadata.items() if (info := parse_array(n, v3, v2)) is not None}
    for required in ("frames", "actions"):
        if required not in arrays:
            raise UserError(f"has no array '{required}'")
    return EpisodeInfo(store, name, arrays, attrs)
