"""An episode's metadata, and what is wrong with it.

It is checked before an array is opened: TensorStore allocates whatever sizes the metadata names.
"""

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from BC_training.common.errors import UserError
from BC_training.common.storage.documents import finite
from BC_training.common.storage.store import Store

ARRAYS = {  # dtype, dimensions
    "frames": ("uint8", 4),
    "actions": ("bool", 2),
    "axes": ("float32", 2),
    "state": ("float32", 2),
}
HUMAN_FRAMES = "human_frames"  # the attribute of an episode in which a person took over from a policy
# The attribute of the dataset that names the columns of each array.
NAMED_BY = {"actions": "keys", "axes": "axes", "state": "attributes"}
VIDEO_FORMAT = 0
_NUMBER_KINDS = "fiu"  # numpy's; read as float32
_MAX_ROWS = 100_000_000  # 38 days at 30 frames/s
_MAX_BYTES = 1 << 30  # in a row, and in a decoded chunk
_MAX_CHUNKS = 10_000  # in a row


@dataclass(frozen=True)
class ArrayInfo:
    shape: tuple[int, ...]
    dtype: str  # numpy's name, "uint8"; the stored spelling if numpy has no name for it
    chunks: tuple[int, ...]  # the shape of what a chunk's file holds
    zarr_format: int  # 2 or 3; ``VIDEO_FORMAT`` of frames that are no array
    decoded: tuple[int, ...] = ()  # the shape of what is decoded at once in a shard

    @property
    def is_video(self) -> bool:
        return self.zarr_format == VIDEO_FORMAT

    @property
    def rows(self) -> int:
        """How many rows are decoded at once."""
        return (self.decoded or self.chunks)[0]


@dataclass(frozen=True)
class EpisodeInfo:
    """One episode's metadata; no chunk has been read."""

    store: Store
    name: str  # "episode_7"
    arrays: dict[str, ArrayInfo]
    attrs: dict[str, Any]

    @property
    def length(self) -> int:
        """Frames in the episode."""
        return self.arrays["frames"].shape[0]

    @property
    def labelled(self) -> list[range]:
        """The stretches of frames that have a label, in order: all frames, but of a takeover those of the person.

        What a policy did in the others is no example: it would learn its own mistakes. Raises a ValueError where the
        attribute "human_frames" is no rising list of [first, last] frames; those beyond a cut episode's end count not.
        """
        if (stretches := self.attrs.get(HUMAN_FRAMES)) is None:
            return [range(self.length)]
        found, end = [], 0
        for stretch in stretches if isinstance(stretches, list) else [stretches]:
            ok = isinstance(stretch, list) and len(stretch) == 2 and all(type(frame) is int for frame in stretch)
            if not ok or not end <= stretch[0] <= stretch[1]:
                raise ValueError(f"{HUMAN_FRAMES} has {str(stretch)[:60]}: write [first, last] frames in rising order")
            end = stretch[1] + 1
            found.append(range(stretch[0], min(end, self.length)))
        return [frames for frames in found if frames]

    @property
    def is_labelled(self) -> np.ndarray:
        """bool [N], whether each frame lies in ``labelled``."""
        flags = np.zeros(self.length, bool)
        for frames in self.labelled:
            flags[frames.start : frames.stop] = True
        return flags

    @property
    def fps(self) -> float | None:
        """Frames per second as recorded, finite and above 0; None where the attributes have no such number."""
        rate = finite(self.attrs.get("fps"))
        return rate if rate is not None and rate > 0 else None


class Fault(NamedTuple):
    """What is wrong with an episode or a part of it.

    ``kind`` is one of ``validate.findings.KINDS``; ``message`` is a line that does not name the place.
    """

    kind: str
    message: str


def parse_array(name: str, v3: Any, v2: Any) -> ArrayInfo | None:
    """An array from its v3 or v2 document, None without one; a UserError where it is damaged or impossible."""
    try:
        if v3 is not None and v3.get("node_type") == "array":
            chunks = _sizes(v3["chunk_grid"]["configuration"]["chunk_shape"], 1)
            shards = [c for c in v3["codecs"] if isinstance(c, dict) and c.get("name") == "sharding_indexed"]
            decoded = _sizes(shards[0]["configuration"]["chunk_shape"], 1) if shards else ()
            info = ArrayInfo(_sizes(v3["shape"], 0), _dtype(v3["data_type"]), chunks, 3, decoded)
        elif v2 is not None:
            info = ArrayInfo(_sizes(v2["shape"], 0), _dtype(v2["dtype"]), _sizes(v2["chunks"], 1), 2)
        else:
            return None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)[:120]
        raise UserError(f"the metadata of '{name}' is damaged ({reason})") from error
    require_possible(name, info)
    return info


def array_fault(name: str, array: ArrayInfo) -> Fault | None:
    """Why an array cannot be read; None if it can."""
    expected, dimensions = ARRAYS[name]
    if array.dtype != expected and not (expected == "float32" and _is_number(array.dtype)):
        return Fault("dtype", f"'{name}' has dtype {array.dtype[:60]}, expected {expected}")
    if len(array.shape) != dimensions:
        return Fault("shape", f"'{name}' has shape {array.shape}, expected {dimensions} dimensions")
    return None


def expected_shapes(
    infos: Collection[EpisodeInfo], attrs: Mapping[str, Any]
) -> tuple[dict[str, int], tuple[int, ...] | None]:
    """What the episodes of a dataset with these attributes have in common.

    Returns:
        The columns of the arrays that ``NAMED_BY`` lists, of "state" only if an episode has one; and (H, W) of most
        episodes' frames in pixels, None where no episode has frames of four dimensions.
    """
    sizes = Counter(info.arrays["frames"].shape[2:] for info in infos if len(info.arrays["frames"].shape) == 4)
    size = sizes.most_common(1)[0][0] if sizes else None
    columns = {name: len(attrs.get(names) or []) for name, names in NAMED_BY.items()}
    if any("state" in info.arrays for info in infos):
        return {name: count for name, count in columns.items() if count or name == "state"}, size
    return {name: count for name, count in columns.items() if count and name != "state"}, size


def episode_faults(
    info: EpisodeInfo, columns: dict[str, int], size: tuple[int, ...] | None, unread: Collection[str] = ()
) -> list[Fault]:
    """What keeps an episode from being used as it is, as far as its metadata shows.

    ``columns`` and ``size`` are from ``expected_shapes``; ``unread`` names arrays to leave out.
    """
    found = {name: array_fault(name, array) for name, array in info.arrays.items() if name not in unread}
    faults = [fault for fault in found.values() if fault is not None]
    shapes = {name: info.arrays[name].shape for name, fault in found.items() if fault is None}
    lengths = {name: shape[0] for name, shape in shapes.items()}
    try:
        _ = info.labelled if "frames" in shapes else ()
    except ValueError as error:
        faults.append(Fault("metadata", f"its attribute {error}"))
    if lengths and not any(lengths.values()):
        faults.append(Fault("empty", "it is empty"))
    elif len(set(lengths.values())) > 1:
        faults.append(Fault("length", "lengths differ: " + ", ".join(f"{n} {length}" for n, length in lengths.items())))
    if "frames" in shapes:
        _, channels, *pixels = shapes["frames"]
        if channels != 3:
            faults.append(Fault("shape", f"'frames' has {channels} channels, expected 3: [N, 3, H, W]"))
        if math.prod(pixels) == 0:
            faults.append(Fault("shape", f"'frames' are {pixels[0]}x{pixels[1]} pixels"))
        elif size is not None and tuple(pixels) != size:
            message = f"'frames' are {pixels[0]}x{pixels[1]}, most episodes' are {size[0]}x{size[1]}"
            faults.append(Fault("size", message))
    for name, expected in columns.items():
        if name not in info.arrays:
            faults.append(Fault("columns", f"it has no '{name}', other episodes have"))
        elif name in shapes and shapes[name][1] != expected:
            message = f"'{name}' has {shapes[name][1]} columns, the dataset names {expected} {NAMED_BY[name]}"
            faults.append(Fault("columns", message))
    return faults


def require_possible(name: str, info: ArrayInfo) -> None:
    """Raises a UserError where reading an array of these sizes would take impossible amounts of memory."""
    chunk, size = info.decoded or info.chunks, np.dtype(info.dtype).itemsize if _is_number(info.dtype) else 1
    if not len(info.shape) == len(info.chunks) == len(chunk):
        fault = f"shape {info.shape} with chunks of {info.chunks}"
    elif len(info.shape) != ARRAYS[name][1]:
        return  # ``array_fault`` reports it
    elif info.shape[0] > _MAX_ROWS:
        fault = f"{info.shape[0]:,} rows, more than {_MAX_ROWS:,}"
    elif math.prod(info.shape[1:]) * size > _MAX_BYTES:
        fault = f"rows of shape {info.shape[1:]}, more than {_MAX_BYTES:,} bytes each"
    elif math.prod(-(-n // c) for n, c in zip(info.shape[1:], chunk[1:], strict=True)) > _MAX_CHUNKS:
        fault = f"rows of shape {info.shape[1:]} in more than {_MAX_CHUNKS:,} chunks each"
    elif math.prod(chunk) * size > _MAX_BYTES:
        fault = f"chunks of {chunk}, more than {_MAX_BYTES:,} bytes each"
    else:
        return
    raise UserError(f"the metadata of '{name}' makes no sense ({fault[:200]})")


def _sizes(value: Any, least: int) -> tuple[int, ...]:
    """Raises a ValueError where ``value`` is no list of integers from ``least`` on."""
    ok = isinstance(value, list) and 0 < len(value) <= 32
    if not ok or not all(type(n) is int and least <= n < 1 << 62 for n in value):
        raise ValueError(f"{value!r} is no list of integers from {least} on")
    return tuple(value)


def _dtype(value: Any) -> str:
    """numpy's name for zarr's spelling, "float32" for "<f4"; the spelling itself if numpy has no name for it."""
    try:
        named = np.dtype(value) if isinstance(value, str) else None
    except (TypeError, ValueError, SyntaxError):
        named = None
    if named is not None and named.kind in "b" + _NUMBER_KINDS:
        return named.name
    return repr(value)[1:-1] if isinstance(value, str) else repr(value)


def _is_number(dtype: str) -> bool:
    return dtype in (f"{kind}{bits}" for kind in ("int", "uint", "float") for bits in (8, 16, 32, 64))
