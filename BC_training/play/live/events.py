"""What a live recording notes beside the frames: one table of all that happened, with its moments.

While it is recorded, it is a file that is readable up to its last whole second after a kill or a power cut. In an
episode it is ``events.parquet``.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from BC_training.common.errors import UserError, first_line
from BC_training.common.keybinds.button_names import Button

EVENTS = "events.parquet"


class Event(NamedTuple):
    """One row of the table.

    Attributes:
        time: seconds of a clock that never goes back, whose start means nothing.
        kind: "frame", taken at ``time``, ``x`` seconds after its moment; "press" or "release" of a button; "motion" of
            the mouse by ``x`` and ``y`` counts to the right and down; "wheel" by as many notches to the right and up,
            whose button is one of ``WHEEL``; "stick", a pad's, at ``x`` from -1 to 1; "focus" and "unfocus" of the
            window: what happens while it has no focus is not noted; "state", a value ``x`` of the game's that came.
        device, name: the ``Button``, the stick, as in ``PAD_AXES``, or the state value.
        source: "device" or "program", of what a person or a program did; "held" of a button that was down already when
            the recording began, or the focus came.
    """

    time: float
    kind: str
    device: str = ""
    name: str = ""
    x: float = 0.0
    y: float = 0.0
    source: str = ""


_TYPES = (pa.float64(), pa.string(), pa.string(), pa.string(), pa.float64(), pa.float64(), pa.string())
_SCHEMA = pa.schema(list(zip(Event._fields, _TYPES, strict=True)))


@dataclass(frozen=True)
class Events:
    """Rows of the table, in the order of their times."""

    table: pa.Table

    @classmethod
    def of(cls, rows: Sequence[Event]) -> "Events":
        return cls._sorted(pa.Table.from_batches([_batch(rows)]))

    @classmethod
    def _sorted(cls, table: pa.Table) -> "Events":
        # Arrow's own sort does not keep the order of rows of the same time.
        return cls(table.take(np.argsort(table["time"].to_numpy(), kind="stable")))

    def of_kind(self, *kinds: str) -> "Events":
        return Events(self.table.filter(pc.field("kind").isin(kinds)))

    def column(self, name: str) -> np.ndarray:
        """float64 [R], "time", "x" or "y"."""
        return self.table[name].to_numpy()

    @property
    def frame_times(self) -> np.ndarray:
        """When each frame was taken, float64 [N]."""
        return self.of_kind("frame").column("time")

    @property
    def frame_moments(self) -> np.ndarray:
        """When each frame should have been taken, float64 [N]."""
        frames = self.of_kind("frame")
        return frames.column("time") - frames.column("x")

    @property
    def rows(self) -> list[Event]:
        return [Event(*row) for row in zip(*(column.to_pylist() for column in self.table.columns), strict=True)]

    def buttons(self) -> set[Button]:
        """All that was pressed or turned, and the sticks that were moved."""
        kinds = self.of_kind("press", "wheel", "stick")
        pairs = zip(kinds.table["device"].to_pylist(), kinds.table["name"].to_pylist(), strict=True)
        return set(pairs)

    def write(self, file: Path) -> None:
        """Writes the file whole or not at all."""
        unnamed = file.with_name(f".partial-{file.name}")
        pq.write_table(self.table, unnamed, compression="zstd")
        unnamed.replace(file)

    @classmethod
    def read(cls, file: Path) -> "Events":
        """Reads an episode's table; a UserError where it is missing or damaged."""
        try:
            table = pq.read_table(file)
            return cls(table.select(_SCHEMA.names).cast(_SCHEMA))
        except FileNotFoundError as error:
            raise UserError(f"there is no {file}: only recordings of a window have one") from error
        except (OSError, ValueError, KeyError) as error:  # Arrow's errors are among them
            raise UserError(f"cannot read {file} ({first_line(error)}): restore it") from error


class EventLog:
    """The table of a recording in progress, as a stream of Arrow."""

    def __init__(self, file: Path):
        self._file = open(file, "xb")  # noqa: SIM115
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        self._stream = pa.ipc.new_stream(self._file, _SCHEMA, options=options)

    def write(self, rows: Sequence[Event]) -> None:
        """Adds rows, which are then on the disk. An OSError where it is full."""
        self._stream.write_batch(_batch(rows))
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        try:
            self._stream.close()
        finally:
            self._file.close()


def read_log(file: Path) -> Events:
    """The rows of an ``EventLog``, whose end may be cut off."""
    batches = []
    try:
        with pa.OSFile(str(file)) as opened, pa.ipc.open_stream(opened) as stream:
            for batch in stream:
                batches.append(batch)  # what was read before an error counts
    except (OSError, pa.ArrowInvalid):
        pass  # a kill comes in the middle of a row, or before the first
    return Events._sorted(pa.Table.from_batches(batches, _SCHEMA))


def _batch(rows: Sequence[Event]) -> pa.RecordBatch:
    columns = zip(*rows, strict=True) if rows else [[] for _ in _SCHEMA]
    return pa.record_batch([pa.array(c, t) for c, t in zip(columns, _TYPES, strict=True)], schema=_SCHEMA)
