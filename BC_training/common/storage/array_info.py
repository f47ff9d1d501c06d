"""What an array's metadata says, checked before it is opened: TensorStore allocates what it is told."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from BC_training.common.errors import UserError

ARRAYS = {"frames": ("uint8", 4), "actions": ("bool", 2), "state": ("float32", 2)}  # dtype, dimensions
_STATE_KINDS = "fiu"  # numpy's; read as float32
_MAX_ROWS = 100_000_000  # 38 days at 30 frames/s
_MAX_BYTES = 1 << 30  # of a row and of a chunk, decoded
_MAX_CHUNKS = 10_000  # of a row


@dataclass(frozen=True)
class ArrayInfo:
    """Attributes:
    dtype: numpy's name, "uint8"; the stored spelling if it is none we read.
    chunks: rows and so on of a chunk's file.
    zarr_format: 2 or 3.
    decoded: of what is decoded at once; less than ``chunks`` in a shard.
    """

    shape: tuple[int, ...]
    dtype: str
    chunks: tuple[int, ...]
    zarr_format: int
    decoded: tuple[int, ...] = ()

    @property
    def rows(self) -> int:
        """How many are decoded at once."""
        return (self.decoded or self.chunks)[0]


def parse_array(name: str, v3: Any, v2: Any) -> ArrayInfo | None:
    """The array of which one of the two documents is there; None if there is none.

    Raises:
        UserError: the metadata makes no sense.
    """
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
        raise UserError(f"the metadata of '{name}' is damaged ({_said(error)})") from error
    _require_possible(name, info)
    return info


def dtype_fault(name: str, dtype: str) -> str | None:
    """Why an array of this dtype is not read; None if it is."""
    expected = ARRAYS[name][0]
    if dtype == expected or (name == "state" and _is_number(dtype)):
        return None
    return f"'{name}' has dtype {dtype[:60]}, expected {expected}"


def as_float32(state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A state as float32 [N, S], and bool [N, S] where that changes a whole number, which may be an id.

    float32 holds whole numbers up to 2^24; of those above several become one. A column of floats counts as whole
    numbers if all of its values are; fractions, which are measured, are rounded.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = state.astype(np.float32, copy=False)
        if state.dtype.kind in "iu":  # the largest may be rounded to what the integer has not
            over = narrow >= float(np.iinfo(state.dtype).max)
            return narrow, ((narrow.astype(state.dtype) != state) | over) & (np.abs(narrow) >= 2**24)
    if state.dtype.kind != "f" or state.dtype.itemsize <= 4:
        return narrow, np.zeros(state.shape, bool)
    whole = ((state == np.floor(state)) | np.isnan(state)).all(axis=0)
    return narrow, whole & (narrow != state) & (np.abs(state) < 2.0**64)  # above are no ids, only stand-ins as 1e30


def inexact(state: np.ndarray, changed: np.ndarray, names: Sequence[str]) -> str:
    """What ``as_float32`` found of the state as stored [N, S], and what to do."""
    frame, column = (int(i) for i in np.argwhere(changed)[0])
    named = f"'{names[column]}'" if column < len(names) else f"column {column}"
    return (
        f"state {named} is {state[frame, column]} at frame {frame}, which float32 does not hold: two such ids may "
        "become one; number the ids anew from 0, or leave the column out"
    )


def _require_possible(name: str, info: ArrayInfo) -> None:
    chunk, size = info.decoded or info.chunks, np.dtype(info.dtype).itemsize if _is_number(info.dtype) else 1
    if not len(info.shape) == len(info.chunks) == len(chunk):
        fault = f"shape {info.shape} with chunks of {info.chunks}"
    elif len(info.shape) != ARRAYS[name][1]:
        return  # told as a fault of its own
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
    """numpy's name of zarr's spelling, "float32" of "<f4"; the spelling itself if it has none."""
    try:
        named = np.dtype(value) if isinstance(value, str) else None
    except (TypeError, ValueError, SyntaxError):
        named = None
    if named is not None and named.kind in "b" + _STATE_KINDS:
        return named.name
    return repr(value)[1:-1] if isinstance(value, str) else repr(value)


def _is_number(dtype: str) -> bool:
    return dtype in (f"{kind}{bits}" for kind in ("int", "uint", "float") for bits in (8, 16, 32, 64))


def _said(error: Exception) -> str:
    return f"it lacks {error}" if isinstance(error, KeyError) else str(error)[:120]
