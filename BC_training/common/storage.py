"""The dataset on disk: zarr groups, one an episode.

    NAME.zarr/      attrs: format "framewise", version, keys [A names], attributes [S names],
                    and where names do not tell it, mirror (see ``mirror.MirrorTable``)
      episode_0/    attrs: fps, frame_count, and what the recorder knows (seed, player, ...)
        frames      uint8 [N, 3, H, W] RGB, one frame a chunk, zstd, checksummed
        actions     bool [N, A]
        state       float32 [N, S], optional

This module reads it, zarr v2 and v3; ``writer.py`` writes v3; ``dataset.py`` knows what it means
for training. zarr-python lays out groups and arrays, TensorStore moves the chunks: it decodes
frames several times as fast and encodes them twice as fast.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorstore as ts

from BC_training.common.errors import UserError
from BC_training.common.store import LocalStore, Store, context

FORMAT, VERSION = "framewise", 1
ARRAYS = {"frames": ("uint8", 4), "actions": ("bool", 2), "state": ("float32", 2)}  # dtype, dimensions
_V2_DTYPES = {"|u1": "uint8", "|b1": "bool", "<f4": "float32"}


@dataclass(frozen=True)
class ArrayInfo:
    shape: tuple[int, ...]
    dtype: str  # numpy's name, "uint8"; the stored spelling if it is none we read
    chunks: tuple[int, ...]
    zarr_format: int


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
        rate = self.attrs.get("fps")
        if not isinstance(rate, int | float) or isinstance(rate, bool):
            return None
        return float(rate) if math.isfinite(rate) and rate > 0 else None


def read_root(store: Store) -> dict[str, Any]:
    """The root group's attributes.

    Raises:
        UserError: not a zarr group, a newer version of the format, or action names missing.
    """
    path = store.address
    if isinstance(store, LocalStore) and not store.exists():
        raise UserError(f"no dataset at {path}: check the path, or record one with 'record --out {path}'")
    raws = store.read(["zarr.json", ".zgroup", ".zattrs"])
    attrs = _group_attrs(*(_parse(raw, f"{path}/{key}") for raw, key in zip(raws, _GROUP_FILES, strict=True)))
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


def read_episodes(store: Store, names: Sequence[str]) -> list[EpisodeInfo | UserError]:
    """Reads the metadata of episodes; a faulty one is returned as the error that says why.

    One file is read an episode where its arrays' metadata is consolidated in its group's, as
    ``writer.py`` does; four or more otherwise.
    """
    found: list[EpisodeInfo | UserError | None] = [None] * len(names)
    groups = store.read([f"{name}/zarr.json" for name in names])
    others: list[int] = []
    for i, raw in enumerate(groups):
        name = names[i]
        try:
            if isinstance(store, LocalStore) and any(store.is_link(f"{name}{array}") for array in _FOLDERS):
                store.refuse_links_out(name)
            meta = _parse(raw, f"{store.address}/{name}/zarr.json")
            arrays = ((meta or {}).get("consolidated_metadata") or {}).get("metadata")
            copied_from = [f"{name}/{array}/zarr.json" for array in arrays or ()]
            if not isinstance(arrays, dict) or store.changed_since(f"{name}/zarr.json", copied_from):
                others.append(i)
            else:
                found[i] = _episode(store, name, _group_attrs(meta), {a: (arrays.get(a), None) for a in ARRAYS})
        except UserError as error:
            found[i] = error
    keys = [*_GROUP_FILES, *(f"{array}/{meta}" for array in ARRAYS for meta in ("zarr.json", ".zarray"))]
    raws = iter(store.read([f"{names[i]}/{key}" for i in others for key in keys]))
    for i in others:
        documents = {f"{names[i]}/{key}": next(raws) for key in keys}
        try:
            parsed = [_parse(raw, f"{store.address}/{key}") for key, raw in documents.items()]
            arrays = {n: (parsed[3 + 2 * a], parsed[4 + 2 * a]) for a, n in enumerate(ARRAYS)}
            found[i] = _episode(store, names[i], _group_attrs(*parsed[:3]), arrays)
        except UserError as error:
            found[i] = error
    return [episode for episode in found if episode is not None]


def open_array(episode: EpisodeInfo, name: str) -> ts.TensorStore:
    """Opens an episode's array for reading. A chunk that is missing is an error, not zeros.

    Raises:
        UserError: a symbolic link leads out of the dataset.
        ValueError: TensorStore cannot open it.
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
        return np.asarray(open_array(episode, "actions").read().result())
    except ValueError as error:
        if "missing" not in str(error) or read_root(episode.store).get("format") == FORMAT:
            raise
        actions = np.asarray(_open(episode, "actions", missing_is_zero=True).read().result())
        rows, present = episode.arrays["actions"].chunks[0], _present_rows(episode, "actions")
        chunks = np.array_split(actions, range(rows, len(actions), rows))
        written_zeros = any(i in present and not chunk.any() for i, chunk in enumerate(chunks))
        if written_zeros or not present:
            raise
        return actions


def metadata_fault(info: EpisodeInfo, actions: int, attributes: int | None, size: tuple[int, ...]) -> str | None:
    """What makes the episode unusable, in a line; None if nothing does.

    Args:
        actions: how many the dataset names.
        attributes: how many state values the dataset names; None where it has no state.
        size: (H, W) of most episodes' frames, in pixels.
    """
    for name, array in info.arrays.items():
        dtype, dimensions = ARRAYS[name]
        if array.dtype != dtype:
            return f"'{name}' has dtype {array.dtype}, expected {dtype}"
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


def _open(episode: EpisodeInfo, name: str, missing_is_zero: bool) -> ts.TensorStore:
    spec = {
        "driver": "zarr3" if episode.arrays[name].zarr_format == 3 else "zarr",
        "kvstore": episode.store.kvstore(f"{episode.name}/{name}"),
        "fill_missing_data_reads": missing_is_zero,
        "recheck_cached_data": False,
    }
    return ts.open(spec, open=True, read=True, context=_CONTEXT).result()


def _present_rows(episode: EpisodeInfo, name: str) -> set[int]:
    """Indices along the first dimension of the chunks that are there."""
    keys = episode.store.files(f"{episode.name}/{name}")
    parts = (key.replace("/", ".").removeprefix("c.").split(".")[0] for key in keys)
    return {int(index) for index in parts if index.isdigit()}


_FOLDERS = ("", *(f"/{array}" for array in ARRAYS))
_GROUP_FILES = ("zarr.json", ".zgroup", ".zattrs")
_CONTEXT = context()


def _group_attrs(v3: dict[str, Any] | None, v2: Any = None, v2_attrs: Any = None) -> dict[str, Any] | None:
    """A group's attributes; None if it is no group."""
    if v3 is not None and v3.get("node_type") == "group":
        return v3.get("attributes") or {}
    return None if v2 is None else v2_attrs or {}


def _episode(
    store: Store, name: str, attrs: dict[str, Any] | None, metadata: dict[str, tuple[Any, Any]]
) -> EpisodeInfo:
    """``metadata`` has each array's v3 and v2 metadata, of which one is there, or none.

    Raises:
        UserError: the folder is not a group, or an array that must be there is missing.
    """
    if attrs is None:
        raise UserError("not a zarr group")
    arrays = {n: info for n, (v3, v2) in metadata.items() if (info := _array_info(n, v3, v2)) is not None}
    for required in ("frames", "actions"):
        if required not in arrays:
            raise UserError(f"has no array '{required}'")
    return EpisodeInfo(store, name, arrays, attrs)


def _array_info(name: str, v3: Any, v2: Any) -> ArrayInfo | None:
    try:
        if v3 is not None and v3.get("node_type") == "array":
            chunks = v3["chunk_grid"]["configuration"]["chunk_shape"]
            return ArrayInfo(tuple(v3["shape"]), str(v3["data_type"]), tuple(chunks), 3)
        if v2 is not None:
            dtype = _V2_DTYPES.get(str(v2["dtype"]), str(v2["dtype"]))
            return ArrayInfo(tuple(v2["shape"]), dtype, tuple(v2["chunks"]), 2)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"the metadata of '{name}' is damaged ({error!r})") from error
    return None


def _parse(raw: bytes | None, where: str) -> dict[str, Any] | None:
    if raw is None:
        return None
    try:
        parsed = json.loads(raw)
    except ValueError as error:
        raise UserError(f"cannot read {where}: {error}; restore it or remove the episode") from error
    return parsed if isinstance(parsed, dict) else None
