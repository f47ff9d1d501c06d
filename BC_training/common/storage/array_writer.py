"""Writes an episode's arrays: zarr v3, zstd, checksummed, frames in shards."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorstore as ts

from BC_training.common.storage.metadata import ARRAYS

if TYPE_CHECKING:
    import zarr

_SHARD_FRAMES = 256  # in a file: at 20 frames/s, 280 files an hour
_SHARD_BYTES = 64 << 20  # of frames in a file before they are compressed, at most: twice that waits in memory
_CHUNK_ROWS = 4096  # of actions, axes and state, which are read whole


class ArrayWriter:
    """Writes an array of rows of one shape into the zarr group at ``folder``, a block of rows at a time.

    An array that is there is replaced. ``sync`` has each file on the disk, and not only in its cache, when it is there.
    """

    def __init__(
        self,
        group: "zarr.Group",
        folder: Path,
        name: str,
        row: np.ndarray,
        shard_rows: int | None = None,
        sync: bool = False,
    ):
        from zarr.codecs import Crc32cCodec, ZstdCodec  # here, not above: it takes long to import

        group.create_array(
            name,
            shape=(0, *row.shape),
            dtype=ARRAYS[name][0],
            # Frames are read one at a time in random order; a shard keeps many chunks in a file.
            chunks=(1 if shard_rows else _CHUNK_ROWS, *row.shape),
            shards=(shard_rows, *row.shape) if shard_rows else None,
            # One folder for all chunks, not four for each.
            chunk_key_encoding={"name": "default", "separator": "."},
            compressors=[ZstdCodec(level=1), Crc32cCodec()],
            overwrite=True,
        )
        spec = {
            "driver": "zarr3",
            # The rename publishes; a sync for every chunk would cost a third of the speed.
            "kvstore": {"driver": "file", "path": f"{folder.resolve()}/{name}/", "file_io_sync": sync},
            "store_data_equal_to_fill_value": True,  # so that a missing chunk means a loss
        }
        self.array: ts.TensorStore = ts.open(spec, open=True, write=True).result()

    def resize(self, length: int) -> None:
        self.array = self.array.resize(exclusive_max=(length, *self.array.shape[1:])).result()

    def extend(self, rows: np.ndarray) -> None:
        first = self.array.shape[0]
        self.resize(first + len(rows))
        self.array[first:].write(rows).result()


class FrameWriter:
    """Writes frames uint8 [3, H, W] as an array. A file is written when all its frames are there, in the background.

    ``live_frames`` is how many frames a kill or a power cut may cost; None does not matter.
    """

    def __init__(self, group: "zarr.Group", folder: Path, frame: np.ndarray, live_frames: int | None = None):
        self._shard_frames = max(1, min(live_frames or _SHARD_FRAMES, _SHARD_BYTES // max(frame.nbytes, 1)))
        self._array = ArrayWriter(group, folder, "frames", frame, self._shard_frames, live_frames is not None)
        self._shard: ts.Transaction | None = None  # keeps a file's frames in memory
        self._writing: Any = None
        self._count = 0

    def append(self, frame: np.ndarray) -> None:
        """Copies the frame. A ValueError where one before could not be written."""
        if self._shard is None:
            self._shard = ts.Transaction()
            self._array.resize(self._count + self._shard_frames)
        self._array.array.with_transaction(self._shard)[self._count].write(frame).copy.result()
        self._count += 1
        if self._count % self._shard_frames == 0:
            self._write_shard()

    def _write_shard(self) -> None:
        if self._writing is not None:
            self._writing.result()
        self._writing = None if self._shard is None else self._shard.commit_async()
        self._shard = None

    def close(self) -> None:
        """Waits until all is written."""
        self._write_shard()
        self._write_shard()
        self._array.resize(self._count)  # it was that of whole files

    def abort(self) -> None:
        """Drops what is not written yet, and waits for the rest: it would bring a removed folder back."""
        if self._shard is not None:
            self._shard.abort()
        if self._writing is not None:
            with contextlib.suppress(ValueError):
                self._writing.result()
