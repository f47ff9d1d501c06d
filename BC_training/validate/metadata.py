"""Findings in a dataset's metadata; no chunk is read."""

import contextlib
import math
import reprlib
from collections import Counter
from statistics import median
from typing import Any

from BC_training.common.errors import UserError
from BC_training.common.mirror import MirrorTable
from BC_training.common.storage.array_info import ARRAYS, dtype_fault
from BC_training.common.storage.documents import parse_document
from BC_training.common.storage.names import names_fault, proposed
from BC_training.common.storage.store import LocalStore, NoAccess, Store
from BC_training.common.storage.zarr_groups import EpisodeInfo
from BC_training.validate.findings import Checked, Finding

RATE_TOLERANCE = 0.05  # of the median: a policy that plays 5 % faster is still that policy
_COUNTED = 1_000_000  # rows; of an array that says more its files are counted before it is read
ASSUMED_FPS = 30.0  # only to turn seconds into frames where no episode says its rate


def check_names(
    root: dict[str, Any], episodes: dict[str, EpisodeInfo | UserError], path: str
) -> tuple[list[Finding], dict[str, Any]]:
    """Findings in the names of actions and state values, and the attributes with names that can be used."""
    fault = names_fault(root, path)
    if fault is not None:
        infos = [episode for episode in episodes.values() if isinstance(episode, EpisodeInfo)]
        root = root | {label: _usable(root.get(label), array, infos) for label, array in _NAMED.items()}
        return [Finding("names", None, fault)], root
    try:
        MirrorTable(root.get("mirror"), tuple(root["keys"]), tuple(root.get("attributes") or ()), path).check()
    except UserError as error:
        return [Finding("mirror", None, str(error).removeprefix(f"{path}: "))], root
    return [], root


_NAMED = {"keys": "actions", "attributes": "state"}


def _usable(names: Any, array: str, infos: list[EpisodeInfo]) -> list[str]:
    """Names, as many as most episodes have columns where there is no list."""
    shapes = [info.arrays[array].shape for info in infos if array in info.arrays]
    columns = Counter(shape[1] for shape in shapes if len(shape) == 2)
    if isinstance(names, list) and (names or array == "state"):
        return proposed(names)
    return proposed([None] * min(columns.most_common(1)[0][0] if columns else 0, 10_000))


def check_metadata(
    root: dict[str, Any], episodes: dict[str, EpisodeInfo | UserError], store: Store
) -> tuple[list[Finding], list[Checked]]:
    """Findings, and the episodes of which something can be read.

    Args:
        root: the dataset's attributes.
        episodes: by name, as ``storage.read_episodes`` found them.
    """
    findings: list[Finding] = []
    infos: list[EpisodeInfo] = []
    for name, episode in episodes.items():
        try:
            if isinstance(store, LocalStore):
                store.refuse_links_out(name)
        except UserError as error:
            kind = "access" if isinstance(error, NoAccess) else "link"
            findings.append(Finding(kind, name, _within(store, error)))
            continue
        if isinstance(episode, UserError):
            kind = "access" if isinstance(episode, NoAccess) else "metadata"
            findings.append(Finding(kind, name, _within(store, episode)))
        else:
            infos.append(episode)
    has_state = any("state" in info.arrays for info in infos)
    columns = {"actions": len(root["keys"])} | ({"state": len(root.get("attributes") or ())} if has_state else {})
    sizes = Counter(info.arrays["frames"].shape[2:] for info in infos if len(info.arrays["frames"].shape) == 4)
    size = sizes.most_common(1)[0][0] if sizes else None
    rates = {info.name: rate for info in infos if (rate := info.fps) is not None}
    usual = median(rates.values()) if rates else ASSUMED_FPS
    findings += _check_rates(infos, rates)
    checked: list[Checked] = []
    for info in infos:
        faults, readable = _check_arrays(info, columns, size)
        findings += [Finding(kind, info.name, message) for kind, message in faults]
        sound = all(kind == "length" for kind, _ in faults)
        checked.append(Checked(info, rates.get(info.name, usual), readable, sound))
    with contextlib.suppress(UserError):  # reported with the episode
        findings += _check_consolidated(store, list(episodes))
    return findings, checked


def _check_arrays(
    info: EpisodeInfo, columns: dict[str, int], size: tuple[int, ...] | None
) -> tuple[list[tuple[str, str]], tuple[str, ...]]:
    """Faults as (kind, message), and the names of the arrays that can be read."""
    faults: list[tuple[str, str]] = []
    readable: list[str] = []
    for name, array in info.arrays.items():
        dimensions = ARRAYS[name][1]
        if fault := dtype_fault(name, array.dtype):
            faults.append(("dtype", fault))
        elif len(array.shape) != dimensions:
            faults.append(("shape", f"'{name}' has shape {array.shape}, expected {dimensions} dimensions"))
        elif fault := _hollow(info, name):
            faults.append(("shape", fault))
        else:
            readable.append(name)
    lengths = {name: info.arrays[name].shape[0] for name in readable}
    said = info.attrs.get("frame_count")
    shown = ", ".join(f"{n} {length}" for n, length in lengths.items())
    if readable and not any(lengths.values()):
        faults.append(("empty", "it has no frame"))
    elif len(set(lengths.values())) > 1:
        faults.append(("length", f"lengths differ: {shown}"))
    elif readable and said is not None and (isinstance(said, bool) or said != lengths[readable[0]]):
        faults.append(("length", f"lengths differ: {shown}, attribute frame_count {reprlib.repr(said)}"))
    if "frames" in readable:
        _, channels, *pixels = info.arrays["frames"].shape
        if channels != 3:
            faults.append(("shape", f"'frames' has {channels} channels, expected 3: [N, 3, H, W]"))
        if math.prod(pixels) == 0:
            faults.append(("shape", f"'frames' are {pixels[0]}x{pixels[1]} pixels"))
        elif size is not None and tuple(pixels) != size:
            faults.append(("size", f"'frames' are {pixels[0]}x{pixels[1]}, most episodes' are {size[0]}x{size[1]}"))
    for name, expected in columns.items():
        label = {"actions": "keys", "state": "attributes"}[name]
        if name not in info.arrays:
            faults.append(("columns", f"it has no '{name}', other episodes have"))
        elif name in readable and info.arrays[name].shape[1] != expected:
            found = info.arrays[name].shape[1]
            faults.append(("columns", f"'{name}' has {found} columns, the dataset names {expected} {label}"))
    return faults, tuple(readable)


def _hollow(info: EpisodeInfo, name: str) -> str | None:
    """Says so where an array of millions of rows has few of its chunks: to look for each takes hours."""
    array, folder = info.arrays[name], f"{info.name}/{name}"
    if array.shape[0] <= _COUNTED or not isinstance(info.store, LocalStore):
        return None
    chunks = math.prod(-(-n // c) for n, c in zip(array.shape, array.chunks, strict=True))
    there = len(info.store.files(folder))
    if 2 * there > chunks:
        return None
    return f"'{name}' has shape {array.shape}, but of its {chunks:,} chunks at most {there:,} are there"


def _check_rates(infos: list[EpisodeInfo], rates: dict[str, float]) -> list[Finding]:
    if infos and not rates:
        return [Finding("fps", None, f"no episode says its frames per second; {ASSUMED_FPS:g} assumed here")]
    usual = median(rates.values()) if rates else 0
    findings = []
    for info in infos:
        rate = rates.get(info.name)
        if rate is None:
            said = f"fps is {reprlib.repr(info.attrs['fps'])}" if "fps" in info.attrs else "fps is missing"
            findings.append(Finding("fps", info.name, f"{said}; {usual:g}, the others' median, assumed here"))
        elif abs(rate / usual - 1) > RATE_TOLERANCE:
            findings.append(Finding("rate", info.name, f"{rate:g} frames/s, the median is {usual:g}"))
    return findings


def _check_consolidated(store: Store, names: list[str]) -> list[Finding]:
    """Copies of metadata, which readers prefer over the metadata, that say something else.

    They are of two kinds: an episode's or the dataset's own zarr.json (zarr v3), and .zmetadata
    (zarr v2). This program reads the copies in the episodes, other tools the dataset's, too.
    """
    findings = []
    root_v3, root_v2, *groups = _documents(store, ["zarr.json", ".zmetadata", *(f"{name}/zarr.json" for name in names)])
    for name, group in zip(names, groups, strict=True):
        if (stale := _stale(store, _copies_v3(group, f"{name}/"))) is not None:
            findings.append(Finding("consolidated", name, f"its consolidated metadata differs from {stale}"))
    copies = _copies_v3(root_v3, "") or _table(root_v2, "metadata")
    if not copies:
        return findings
    groups_there = {key.split("/")[0] for key in copies if "/" in key}
    if left_out := [name for name in names if name not in groups_there]:
        more = f" and {len(left_out) - 1} more" if len(left_out) > 1 else ""
        findings.append(Finding("consolidated", None, f"the consolidated metadata lacks {left_out[0]}{more}"))
    elif (stale := _stale(store, copies)) is not None:
        findings.append(Finding("consolidated", None, f"the consolidated metadata differs from {stale}"))
    return findings


def _copies_v3(group: dict[str, Any] | None, prefix: str) -> dict[str, Any]:
    """The consolidated documents of a group by the file they are copies of."""
    copies = _table(_table(group, "consolidated_metadata"), "metadata")
    return {f"{prefix}{path}/zarr.json": doc for path, doc in copies.items()}


def _table(document: dict[str, Any] | None, key: str) -> dict[str, Any]:
    value = (document or {}).get(key)
    return value if isinstance(value, dict) else {}


def _stale(store: Store, copies: dict[str, Any]) -> str | None:
    """The first file that says something else than its copy; None if none does."""
    for key, original in zip(copies, _documents(store, list(copies)), strict=True):
        if _essence(original) != _essence(copies[key]):
            return key
    return None


def _essence(document: Any) -> Any:
    """A document without what zarr-python itself writes differently into file and copy."""
    if not isinstance(document, dict):
        return document
    return {k: v for k, v in document.items() if k != "consolidated_metadata" and v not in (None, {}, [])}


def _documents(store: Store, keys: list[str]) -> list[dict[str, Any] | None]:
    documents: list[dict[str, Any] | None] = []
    for raw in store.read(keys):
        try:
            documents.append(parse_document(raw, ""))
        except UserError:
            documents.append(None)  # reported with the episode
    return documents


def _within(store: Store, error: UserError) -> str:
    """The error's message with files named from the dataset on, its remedy cut off."""
    return str(error).replace(f"{store.address}/", "").split(";")[0]
