"""Reads the dataset on disk, zarr v2 and v3.

    NAME.zarr/      attrs: format "framewise", version, keys [A names], axes [X names], attributes [S names], and
                    mirror where names alone do not tell left from right (see ``mirror.MirrorTable``)
      episode_0/    attrs: fps, frame_count, and what the recorder knows (seed, player, ...)
        frames      uint8 [N, 3, H, W] RGB, one frame a chunk, 256 and less a shard, zstd, checksummed
        frames.mp4  or a video instead, see ``video.py``
        actions     bool [N, A], where A > 0
        axes        float32 [N, X], where X > 0; other numbers are read as float32
        state       float32 [N, S], optional; likewise

zarr-python lays out groups and arrays, TensorStore moves the chunks: it decodes frames several times
as fast and encodes them twice as fast. zarr-python also decodes what TensorStore does not
(``other_codecs.py``).
"""

import reprlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import tensorstore as ts

from BC_training.common.errors import UserError
from BC_training.common.storage.column_names import names_fault, rename
from BC_training.common.storage.documents import group_attributes, parse_document
from BC_training.common.storage.metadata import ARRAYS, EpisodeInfo, parse_array
from BC_training.common.storage.other_codecs import DecodedArray, other_codecs
from BC_training.common.storage.remote_store import context
from BC_training.common.storage.store import LocalStore, Store
from BC_training.common.storage.video import VIDEO, VideoFrames, video_info

FORMAT, VERSION = "framewise", 1
DAMAGE = (ValueError, NotImplementedError)  # what TensorStore raises for metadata and chunks that are damaged
Array = ts.TensorStore | DecodedArray | VideoFrames

_PART = 1 << 18  # rows of actions or state read at once
_FOLDERS = ("", *(f"/{array}" for array in ARRAYS))
_GROUP_FILES = ("zarr.json", ".zgroup", ".zattrs")
_ARRAY_FILES = ("zarr.json", ".zarray")
_CONTEXT = context()


def read_root(store: Store) -> dict[str, Any]:
    """The root group's attributes; a UserError as from ``read_attributes``, or where names do not differ."""
    attrs = read_attributes(store)
    if fault := names_fault(attrs, store.address):
        raise UserError(f"{store.address}: {fault}")
    return attrs


def read_attributes(store: Store) -> dict[str, Any]:
    """The root group's attributes, with unchecked names; a UserError for no dataset or a newer format."""
    path = store.address
    if isinstance(store, LocalStore) and not store.exists():
        raise UserError(f"no dataset at {path}: check the path, or record one with 'record --out {path}'")
    try:
        attrs = group_attributes(*_parse(store.read(_GROUP_FILES), path, _GROUP_FILES))
    except UserError as error:
        example = '{"zarr_format": 3, "node_type": "group", "attributes": {"keys": [...], "attributes": [...]}}'
        raise UserError(
            f"{error}; restore it from a copy, or write a new zarr.json with the names of actions and state values: "
            f"{example}"
        ) from error
    if attrs is None:
        raise UserError(
            f"{path} is not a zarr group: point dataset.path at the folder that holds episode_0, episode_1, ..."
            f"{_datasets_in(store)}"
        )
    if attrs.get("format", FORMAT) != FORMAT:
        raise UserError(f"{path} has format {reprlib.repr(attrs['format'])}, this program reads '{FORMAT}'")
    if isinstance(attrs.get("version"), int) and attrs.get("format") == FORMAT and attrs["version"] > VERSION:
        raise UserError(f"{path} has format version {attrs['version']}, newer than {VERSION}: update this program")
    if "keys" not in attrs:
        raise UserError(f"{path} is no dataset, its group attributes name no actions in 'keys': {_other_layout(store)}")
    return attrs


def read_episodes(store: Store, names: Sequence[str]) -> list[EpisodeInfo | UserError]:
    """Reads the metadata of episodes; for a faulty episode, the list has its error.

    One file is read for an episode whose group has a copy of its arrays' metadata, as ``writer.py``
    consolidates it; four or more otherwise.
    """
    found: dict[str, EpisodeInfo | UserError] = {}
    for name, read in zip(names, _read_each(store, names, ["zarr.json"]), strict=True):
        try:
            raws = read()
            if isinstance(store, LocalStore) and any(store.is_link(f"{name}{array}") for array in _FOLDERS):
                store.refuse_links_out(name)
            (meta,) = _parse(raws, f"{store.address}/{name}", ["zarr.json"])
            consolidated = (meta or {}).get("consolidated_metadata")
            arrays = consolidated.get("metadata") if isinstance(consolidated, dict) else None
            if not isinstance(arrays, dict):
                continue
            if not store.changed_since(f"{name}/zarr.json", [f"{name}/{array}/zarr.json" for array in arrays]):
                found[name] = _episode(store, name, group_attributes(meta), {a: (arrays.get(a), None) for a in ARRAYS})
        except UserError as error:
            found[name] = error
    others = [name for name in names if name not in found]
    keys = [*_GROUP_FILES, *(f"{array}/{file}" for array in ARRAYS for file in _ARRAY_FILES)]
    for name, read in zip(others, _read_each(store, others, keys), strict=True):
        try:
            parsed = dict(zip(keys, _parse(read(), f"{store.address}/{name}", keys), strict=True))
            arrays = {array: tuple(parsed[f"{array}/{file}"] for file in _ARRAY_FILES) for array in ARRAYS}
            found[name] = _episode(store, name, group_attributes(*(parsed[key] for key in _GROUP_FILES)), arrays)
        except UserError as error:
            found[name] = error
    return [found[name] for name in names]


def open_array(episode: EpisodeInfo, name: str) -> Array:
    """Opens an episode's array for reading. A chunk that is missing is an error, not zeros.

    A link out of the dataset or an unknown codec is a UserError; other metadata that is damaged, one of ``DAMAGE``.
    """
    info = episode.arrays[name]
    folder = frames_key(episode) if info.is_video else f"{episode.name}/{name}"
    if isinstance(episode.store, LocalStore):
        episode.store.refuse_links_out(folder)
    if info.is_video:
        return VideoFrames(episode.store, folder, info.shape)
    return _open(episode, name, missing_is_zero=False)


def frames_key(episode: EpisodeInfo) -> str:
    """The folder or the file that holds the episode's frames."""
    return f"{episode.name}/{VIDEO if episode.arrays['frames'].is_video else 'frames'}"


def read_actions(episode: EpisodeInfo) -> np.ndarray:
    """bool [N, A].

    Some writers leave out a chunk of nothing but zeros, which for actions means that no button is
    pressed. A missing chunk is accepted only where the writer demonstrably does so: not in a dataset
    that this program wrote, and not where another chunk of zeros was written.
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


def read_whole(array: Array) -> np.ndarray:
    """All rows, read a part at a time: where an array has no chunks at all, the first part is an error."""
    rows = array.shape[0]
    if rows <= _PART:
        return np.asarray(array.read().result())
    values = np.empty(array.shape, array.dtype.numpy_dtype)
    for start in range(0, rows, _PART):
        values[start : start + _PART] = array[start : min(start + _PART, rows)].read().result()
    return values


def as_float32(state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A state, or axes, as float32 [N, S], and bool [N, S] where that changes a whole number, which may be an id.

    float32 holds every whole number up to 2^24; above that, several become one. A column of floats counts
    as whole numbers if all of its values are; fractions are measurements, and are rounded.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = state.astype(np.float32, copy=False)
        if state.dtype.kind in "iu":  # the largest may be rounded to a value that the integer type lacks
            over = narrow >= float(np.iinfo(state.dtype).max)
            return narrow, ((narrow.astype(state.dtype) != state) | over) & (np.abs(narrow) >= 2**24)
    if state.dtype.kind != "f" or state.dtype.itemsize <= 4:
        return narrow, np.zeros(state.shape, bool)
    whole = ((state == np.floor(state)) | np.isnan(state)).all(axis=0)
    return narrow, whole & (narrow != state) & (np.abs(state) < 2.0**64)  # larger values, as 1e30, are no ids


def inexact(state: np.ndarray, changed: np.ndarray, names: Sequence[str]) -> str:
    """The first value of a stored state [N, S] that ``as_float32`` changed, and what to do about it."""
    frame, column = (int(i) for i in np.argwhere(changed)[0])
    named = f"'{names[column]}'" if column < len(names) else f"column {column}"
    return (
        f"state {named} is {state[frame, column]} at frame {frame}, which float32 does not hold: two such ids may "
        "become one; renumber the ids from 0, or leave the column out"
    )


def _read_each(store: Store, names: Sequence[str], keys: Sequence[str]) -> Iterator[Callable[[], list[bytes | None]]]:
    """For each episode, a function that returns its files ``keys``."""
    if isinstance(store, LocalStore):
        return (partial(store.read, [f"{name}/{key}" for key in keys]) for name in names)
    raws = store.read([f"{name}/{key}" for name in names for key in keys])  # at once: each request waits for a server
    return (partial(raws.__getitem__, slice(at, at + len(keys))) for at in range(0, len(raws), len(keys)))


def _parse(raws: Sequence[bytes | None], folder: str, keys: Sequence[str]) -> list[dict[str, Any] | None]:
    return [parse_document(raw, f"{folder}/{key}") for raw, key in zip(raws, keys, strict=True)]


def _episode(
    store: Store, name: str, attrs: dict[str, Any] | None, metadata: dict[str, tuple[Any, ...]]
) -> EpisodeInfo:
    """``metadata`` has each array's v3 and v2 documents, of which at most one is there."""
    if attrs is None:
        raise UserError("not a zarr group")
    arrays = {n: info for n, (v3, v2) in metadata.items() if (info := parse_array(n, v3, v2)) is not None}
    if "frames" not in arrays:
        video = video_info(store, name)
        if video is None:
            raise UserError(f"has no array 'frames', nor {VIDEO}")
        arrays = {"frames": video, **arrays}
    if "axes" not in arrays and "actions" not in arrays:
        raise UserError("has no array 'actions'")
    return EpisodeInfo(store, name, arrays, attrs)


def _open(episode: EpisodeInfo, name: str, missing_is_zero: bool) -> Array:
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


def _other_layout(store: Store) -> str:
    """What a group without "keys" is instead, and what to do."""
    wanted = ("frames/zarr.json", "frames/.zarray", "meta/episode_ends/zarr.json", "meta/episode_ends/.zarray")
    episode, episode_v2, ends, ends_v2 = store.read(wanted)
    if episode or episode_v2:
        above = store.address.rstrip("/").rpartition("/")[0] or ".."
        return f"it is one episode; give the folder that holds it, {above}"
    if store.episode_names():
        return f"name each column of 'actions' {rename(store.address, 'keys', ['name_0', 'name_1'])}"
    what = "it is a diffusion-policy replay buffer, which is not supported; " if ends or ends_v2 else ""
    return f"{what}write groups episode_0, episode_1, ... as 'Your own dataset' in BC_training/QUICKSTART.md shows"


def _datasets_in(store: Store) -> str:
    """Names folders within that look like datasets."""
    if not isinstance(store, LocalStore) or not store.path.is_dir():
        return ""
    found = sorted(path.name for path in store.path.glob("*.zarr"))[:5]
    return f"; in it are {', '.join(found)}" if found else ""
