"""Arrays with codecs that TensorStore does not have, decoded by zarr-python: slower, the same values.

The dataset's own store reads the chunks, and zarr-python gets them in memory. So a missing chunk is an
error here, too, where zarr-python alone would read zeros.
"""

import itertools
import json
import reprlib
import warnings
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from BC_training.common.errors import UserError, first_line
from BC_training.common.storage.store import Store

if TYPE_CHECKING:
    import zarr

# Those of numcodecs that only transform bytes; its pickle, for one, would run code from the file.
_SAFE = frozenset(
    {"adler32", "astype", "bitround", "blosc", "bz2", "crc32", "crc32c", "delta", "fixedscaleoffset", "fletcher32"}
    | {"gzip", "jenkins_lookup3", "lz4", "lzma", "packbits", "quantize", "shuffle", "zlib", "zstd"}
)
_SAFE_V3 = frozenset({"bytes", "transpose", "crc32c", "blosc", "gzip", "zstd", *(f"numcodecs.{c}" for c in _SAFE)})
_CHUNK_READS = 64  # at once: bounds the memory of what has not been decoded


class RowReader(Protocol):
    def read_rows(self, rows: np.ndarray) -> np.ndarray:
        """The rows with the indices ``rows`` int64 [n]."""
        ...


class UnknownCodec(UserError):
    """An array has a codec that is not supported."""


def other_codecs(store: Store, folder: str, zarr_format: int) -> dict[str, Any] | None:
    """The metadata of an array whose codecs TensorStore lacks; an UnknownCodec where no program may decode it."""
    (raw,) = store.read([f"{folder}/{'zarr.json' if zarr_format == 3 else '.zarray'}"])
    try:
        document = json.loads(raw or b"")
        names = _codecs(document, zarr_format)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None  # TensorStore's own error names the reason
    if document.get("zarr_format") != zarr_format:
        return None
    for name in names:
        if name not in (_SAFE if zarr_format == 2 else _SAFE_V3):
            raise UnknownCodec(
                f"'{folder.rpartition('/')[2]}' is stored with codec {reprlib.repr(name)}, which is not supported: "
                "write it again with zarr's own codecs where it was made ('Write an array again' in docs/VALIDATE.md)"
            )
    return document


class DecodedArray:
    """An array that is read as a TensorStore is: ``array[rows].read().result()``."""

    def __init__(self, store: Store, folder: str, document: dict[str, Any], missing_is_zero: bool):
        self._store, self._folder, self._missing_is_zero = store, folder, missing_is_zero
        self._zarr_format = document["zarr_format"]
        self._meta = {"zarr.json" if self._zarr_format == 3 else ".zarray": json.dumps(document).encode()}
        array = self._open({})
        self.shape, self.dtype = array.shape, DType(array.dtype)
        self._chunks: tuple[int, ...] = array.chunks
        grid = [range(-(-size // chunk)) for size, chunk in zip(self.shape[1:], self._chunks[1:], strict=True)]
        self._columns = list(itertools.product(*grid))

    def __getitem__(self, rows: slice | int | np.ndarray) -> "Rows":
        return Rows(self, np.atleast_1d(np.arange(self.shape[0])[rows]), isinstance(rows, int | np.integer))

    def read(self) -> "Rows":
        return self[:].read()

    def read_rows(self, rows: np.ndarray) -> np.ndarray:
        """The rows with the indices ``rows`` int64 [n]; a ValueError where a chunk is missing or damaged."""
        values = np.empty((len(rows), *self.shape[1:]), self.dtype.numpy_dtype)
        wanted = np.unique(rows // self._chunks[0])
        for some in np.array_split(wanted, max(1, -(-len(wanted) * len(self._columns) // _CHUNK_READS))):
            here = np.isin(rows // self._chunks[0], some)
            values[here] = self._decode(some.tolist(), rows[here])
        return values

    def _decode(self, blocks: list[int], rows: np.ndarray) -> np.ndarray:
        array = self._open({})
        keys = [array.metadata.encode_chunk_key((b, *c)) for b in blocks for c in self._columns]
        chunks = dict(zip(keys, self._store.read([f"{self._folder}/{key}" for key in keys]), strict=True))
        missing = next((key for key, raw in chunks.items() if raw is None), None)
        if missing is not None and not self._missing_is_zero:
            raise ValueError(f"NOT_FOUND: chunk {self._folder}/{missing} is missing")
        array = self._open({key: raw for key, raw in chunks.items() if raw is not None})
        try:
            return np.asarray(array.oindex[rows])
        except MemoryError:
            raise
        except Exception as error:  # each codec has exceptions of its own
            raise ValueError(f"DATA_LOSS: Error reading {self._folder}: {first_line(error)[:80]}") from error

    def _open(self, chunks: dict[str, bytes]) -> "zarr.Array":
        """The array with these chunks, in memory."""
        # zarr takes long to import, and few datasets need it.
        import zarr
        from zarr.core.buffer import default_buffer_prototype
        from zarr.errors import ZarrUserWarning
        from zarr.storage import MemoryStore

        # The warning is that other programs may not read it. Not a context, which would not be thread-safe.
        warnings.filterwarnings("ignore", "Numcodecs codecs are not in", ZarrUserWarning)
        buffer = default_buffer_prototype().buffer
        files = {key: buffer.from_bytes(raw) for key, raw in (self._meta | chunks).items()}
        try:
            opened = zarr.open_array(MemoryStore(files, read_only=True), mode="r", zarr_format=self._zarr_format)
        except Exception as error:
            raise ValueError(f"FAILED_PRECONDITION: Error opening {self._folder}: {first_line(error)[:120]}") from error
        return opened


class DType:
    """A data type as TensorStore's, by numpy's."""

    def __init__(self, dtype: np.dtype):
        self.numpy_dtype = dtype


class Rows:
    """Some rows of an array, which ``result`` reads."""

    def __init__(self, array: RowReader, rows: np.ndarray, is_one: bool):
        self._array, self._rows, self._is_one = array, rows, is_one

    def read(self) -> "Rows":
        return self

    def result(self) -> np.ndarray:
        values = self._array.read_rows(self._rows)
        return values[0] if self._is_one else values


def _codecs(document: dict[str, Any], zarr_format: int) -> list[str]:
    if zarr_format == 3:
        return [str(codec["name"] if isinstance(codec, dict) else codec) for codec in document["codecs"]]
    compressor = document["compressor"]
    return [str(codec["id"]) for codec in (*(document.get("filters") or []), *([compressor] if compressor else []))]
