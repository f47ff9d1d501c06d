"""Findings in a dataset's metadata; no chunk is read."""

import contextlib
import math
import reprlib
from collections import Counter
from collections.abc import Iterator
from statistics import median
from typing import Any

from BC_training.common.errors import UserError
from BC_training.common.mirror import MirrorTable
from BC_training.common.storage.column_names import names_fault, proposed
from BC_training.common.storage.documents import parse_document
from BC_training.common.storage.metadata import (
    NAMED_BY,
    EpisodeInfo,
    Fault,
    array_fault,
    episode_faults,
    expected_shapes,
)
from BC_training.common.storage.reader import open_array
from BC_training.common.storage.store import BadLink, LocalStore, NoAccess, Store
from BC_training.common.storage.video import VideoFrames
from BC_training.validate.findings import Checked, Finding

RATE_TOLERANCE = 0.05  # share of the median: a policy that plays 5 % faster is still that policy
KEY_FRAME_SECONDS = 10.0  # the writer sets one every second; encoders' defaults are up to 250 frames
ASSUMED_FPS = 30.0  # only to turn seconds into frames where no episode has a rate
_MANY_ROWS = 1_000_000  # the chunk files of a longer array are counted before it is read


def check_names(
    root: dict[str, Any], episodes: dict[str, EpisodeInfo | UserError], path: str
) -> tuple[list[Finding], dict[str, Any]]:
    """Findings in the names of actions, axes and state values, and ``root`` with names that can be used."""
    fault = names_fault(root, path)
    if fault is not None:
        infos = [episode for episode in episodes.values() if isinstance(episode, EpisodeInfo)]
        root = root | {label: _usable(root.get(label), array, infos) for array, label in NAMED_BY.items()}
        return [Finding("names", None, fault)], root
    try:
        keys, axes, attributes = (tuple(root.get(label) or ()) for label in ("keys", "axes", "attributes"))
        MirrorTable(root.get("mirror"), keys, attributes, path, axes).check()
    except UserError as error:
        return [Finding("mirror", None, str(error).removeprefix(f"{path}: "))], root
    return [], root


def _usable(names: Any, array: str, infos: list[EpisodeInfo]) -> list[str]:
    """Names that differ; where there is no list of names, as many as most episodes have columns."""
    shapes = [info.arrays[array].shape for info in infos if array in info.arrays]
    columns = Counter(shape[1] for shape in shapes if len(shape) == 2)
    if isinstance(names, list) and (names or array != "actions"):
        return proposed(names)
    return proposed([None] * min(columns.most_common(1)[0][0] if columns else 0, 10_000))


def check_metadata(
    root: dict[str, Any], episodes: dict[str, EpisodeInfo | UserError], store: Store
) -> tuple[list[Finding], list[Checked]]:
    """Findings, and the episodes of which something can be read; ``root`` has the dataset's attributes."""
    findings: list[Finding] = []
    infos: list[EpisodeInfo] = []
    for name, episode in episodes.items():
        try:
            if isinstance(store, LocalStore):
                store.refuse_links_out(name)
            if isinstance(episode, UserError):
                raise episode
            infos.append(episode)
        except UserError as error:
            kind = "access" if isinstance(error, NoAccess) else "link" if isinstance(error, BadLink) else "metadata"
            findings.append(Finding(kind, name, _within(store, error)))
    columns, size = expected_shapes(infos, root)
    rates = {info.name: rate for info in infos if (rate := info.fps) is not None}
    usual = median(rates.values()) if rates else ASSUMED_FPS
    findings += _check_rates(infos, rates)
    checked: list[Checked] = []
    for info in infos:
        hollow = {name: fault for name in info.arrays if (fault := _hollow(info, name))}
        readable = tuple(n for n, a in info.arrays.items() if n not in hollow and array_fault(n, a) is None)
        faults = [*hollow.values(), *episode_faults(info, columns, size, hollow), *_count_fault(info, readable)]
        unnamed = [name for name in info.arrays if name in NAMED_BY and name not in columns]
        faults += [Fault("columns", f"it has '{name}', '{NAMED_BY[name]}' names none") for name in unnamed]
        findings += [Finding(kind, info.name, message) for kind, message in faults]
        if info.arrays["frames"].is_video:
            findings += _key_frames(info, rates.get(info.name, usual))
        sound = all(fault.kind == "length" for fault in faults)
        checked.append(Checked(info, rates.get(info.name, usual), readable, sound))
    with contextlib.suppress(UserError):  # reported with the episode
        findings += list(_check_consolidated(store, list(episodes)))
    return findings, checked


def _count_fault(info: EpisodeInfo, readable: tuple[str, ...]) -> list[Fault]:
    """The fault of an attribute "frame_count" that differs from the arrays, whose lengths are equal and above 0."""
    lengths = [info.arrays[name].shape[0] for name in readable]
    count = info.attrs.get("frame_count")
    if count is None or len(set(lengths)) != 1 or 0 in lengths or (not isinstance(count, bool) and count == lengths[0]):
        return []
    shown = ", ".join(f"{name} {length}" for name, length in zip(readable, lengths, strict=True))
    return [Fault("length", f"lengths differ: {shown}, attribute frame_count {reprlib.repr(count)}")]


def _hollow(info: EpisodeInfo, name: str) -> Fault | None:
    """The fault of an array of millions of rows that has few of its chunks: to look for each would take hours."""
    array, folder = info.arrays[name], f"{info.name}/{name}"
    local = isinstance(info.store, LocalStore)
    if array_fault(name, array) or array.is_video or array.shape[0] <= _MANY_ROWS or not local:
        return None
    chunks = math.prod(-(-n // c) for n, c in zip(array.shape, array.chunks, strict=True))
    there = len(info.store.files(folder))
    if 2 * there > chunks:
        return None
    return Fault("shape", f"'{name}' has shape {array.shape}, but of its {chunks:,} chunks at most {there:,} are there")


def _key_frames(info: EpisodeInfo, rate: float) -> Iterator[Finding]:
    video = open_array(info, "frames")
    assert isinstance(video, VideoFrames)
    if (frames := video.longest_stretch()) > KEY_FRAME_SECONDS * rate:
        yield Finding("key_frames", info.name, f"its video has up to {frames:,} frames from one key frame to the next")


def _check_rates(infos: list[EpisodeInfo], rates: dict[str, float]) -> Iterator[Finding]:
    if infos and not rates:
        yield Finding("fps", None, f"no episode has a rate in 'fps'; {ASSUMED_FPS:g} frames/s assumed here")
        return
    usual = median(rates.values()) if rates else 0
    for info in infos:
        rate = rates.get(info.name)
        if rate is None:
            fault = f"fps is {reprlib.repr(info.attrs['fps'])}" if "fps" in info.attrs else "fps is missing"
            yield Finding("fps", info.name, f"{fault}; {usual:g}, the others' median, assumed here")
        elif abs(rate / usual - 1) > RATE_TOLERANCE:
            yield Finding("rate", info.name, f"{rate:g} frames/s, the median is {usual:g}")


def _check_consolidated(store: Store, names: list[str]) -> Iterator[Finding]:
    """Copies of metadata that differ from the metadata; readers prefer the copies.

    An episode's or the dataset's zarr.json holds them in zarr v3, .zmetadata in zarr v2. This program
    reads the episodes' copies, other tools also the dataset's.
    """
    root_v3, root_v2, *groups = _documents(store, ["zarr.json", ".zmetadata", *(f"{name}/zarr.json" for name in names)])
    for name, group in zip(names, groups, strict=True):
        if (stale := _stale(store, _copies_v3(group, f"{name}/"))) is not None:
            yield Finding("consolidated", name, f"its consolidated metadata differs from {stale}")
    copies = _copies_v3(root_v3, "") or _table(root_v2, "metadata")
    if not copies:
        return
    groups_there = {key.split("/")[0] for key in copies if "/" in key}
    if left_out := [name for name in names if name not in groups_there]:
        more = f" and {len(left_out) - 1} more" if len(left_out) > 1 else ""
        yield Finding("consolidated", None, f"the consolidated metadata lacks {left_out[0]}{more}")
    elif (stale := _stale(store, copies)) is not None:
        yield Finding("consolidated", None, f"the consolidated metadata differs from {stale}")


def _copies_v3(group: dict[str, Any] | None, prefix: str) -> dict[str, Any]:
    """A group's consolidated documents, keyed by the file that each is a copy of."""
    copies = _table(_table(group, "consolidated_metadata"), "metadata")
    return {f"{prefix}{path}/zarr.json": doc for path, doc in copies.items()}


def _table(document: dict[str, Any] | None, key: str) -> dict[str, Any]:
    value = (document or {}).get(key)
    return value if isinstance(value, dict) else {}


def _stale(store: Store, copies: dict[str, Any]) -> str | None:
    """The first file that differs from its copy; None if none does."""
    for key, original in zip(copies, _documents(store, list(copies)), strict=True):
        if _essence(original) != _essence(copies[key]):
            return key
    return None


def _essence(document: Any) -> Any:
    """A document without what zarr-python and TensorStore write differently into file and copy."""
    if isinstance(document, list):
        return [_essence(part) for part in document]
    if not isinstance(document, dict):
        return document
    named = ((key, _essence(value)) for key, value in document.items() if key != "consolidated_metadata")
    return {k: v for k, v in named if v not in (None, {}, []) and (k, v) != ("index_location", "end")}


def _documents(store: Store, keys: list[str]) -> list[dict[str, Any] | None]:
    documents: list[dict[str, Any] | None] = []
    for raw in store.read(keys):
        try:
            documents.append(parse_document(raw, ""))
        except UserError:
            documents.append(None)  # reported with the episode
    return documents


def _within(store: Store, error: UserError) -> str:
    """The error's message with paths relative to the dataset, and without its remedy."""
    return str(error).replace(f"{store.address}/", "").split(";")[0]
