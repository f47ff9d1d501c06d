"""Reads columns of a LeRobot dataset's parquet files."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from pyarrow.fs import LocalFileSystem

from BC_training.common.errors import UserError, first_line


def read_columns(file: Path, names: list[str], episode: int | None = None) -> pa.Table:
    """Columns of a parquet file; only the rows of ``episode`` if that is given.

    Raises a UserError if the file or a column is missing or damaged.
    """
    opened = open_columns(file, names)
    with damage_is_user_error(file):
        return opened.to_table(
            columns={name: pads.field(name) for name in names},
            filter=None if episode is None else rows_of(opened, episode),
        )


def read_rows(file: Path, names: list[str]) -> list[dict[str, Any]]:
    """Columns of a parquet file as one dictionary per row."""
    table = read_columns(file, names)
    with damage_is_user_error(file):
        return table.to_pylist()


@contextlib.contextmanager
def damage_is_user_error(file: Path) -> Iterator[None]:
    """Turns what Arrow raises for a damaged ``file`` into a UserError."""
    try:
        yield
    except (OSError, ValueError, pa.ArrowException) as error:
        if "duplicate field names" in str(error):
            raise UserError(f"{file} has two columns of a name: rename or remove one of them") from error
        raise UserError(f"cannot read {file} ({first_line(error)}): restore it") from error


def open_columns(file: Path, names: list[str]) -> pads.Dataset:
    """Opens a parquet file and checks that it has the columns; otherwise raises a UserError."""
    if not is_file(file):
        raise UserError(f"{file} is missing: restore it")
    with damage_is_user_error(file):
        opened = pads.dataset(str(file.absolute()), format="parquet", filesystem=LocalFileSystem())
        held = opened.schema.names
    for name in names:
        if name not in held:
            raise UserError(f"{file} has no column '{name}' (it has {', '.join(held)}): restore it")
    return opened


def rows_of(opened: pads.Dataset, episode: int) -> pads.Expression:
    """The filter for one episode's rows; raises a UserError if the episodes' numbers are no whole numbers."""
    kind = opened.schema.field("episode_index").type
    number = pads.field("episode_index")
    if pa.types.is_integer(kind):
        return number == episode  # a cast would read all row groups
    if pa.types.is_floating(kind) or pa.types.is_dictionary(kind):
        return number.cast(pa.int64()) == episode
    raise UserError(
        f"{opened.files[0]}: the column 'episode_index' holds {kind}: write a whole number in each row"  # pyright: ignore
    )


def numbers(table: pa.Table, name: str, width: int, where: str) -> np.ndarray:
    """A column of numbers, or of lists (any kind that Arrow has) of ``width`` numbers, as [N, width].

    Raises a UserError, with the table's place ``where``, if the column holds something else or a row lacks values.
    """
    column = table.column(name)
    values, held = _plain(column.combine_chunks()), 1  # numbers per row
    while _is_list(values.type):
        lengths = pc.fill_null(pc.call_function("list_value_length", [values]), -1).to_numpy(zero_copy_only=False)
        expected = max(lengths[0], 0) if _is_list(values.type.value_type) and len(lengths) else width // held
        _require(lengths == expected, held, name, width, where)
        values, held = _plain(values.flatten()), held * expected
    kind = values.type
    if pa.types.is_decimal(kind):
        values, kind = values.cast(pa.float64()), pa.float64()
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        remedy = f"write {width} in each row, as a list"
        raise UserError(f"{where}: the column '{name}' holds {column.type}, not numbers: {remedy}")
    _require(values.is_valid().to_numpy(zero_copy_only=False) & (held == width), held, name, width, where)
    return values.to_numpy(zero_copy_only=False).reshape(len(column), width)


def is_file(path: Path) -> bool:
    """Whether the file exists; Path.is_file raises for a forbidden folder or a name that is too long."""
    return os.path.isfile(path)  # noqa: PTH113


def _require(valid: np.ndarray, held: int, name: str, width: int, where: str) -> None:
    """Raises a UserError for the first row with a value that is not ``valid``, bool [rows * held]."""
    if not valid.all():
        row = int(np.argmin(valid)) // max(held, 1)
        fault = f"the column '{name}' lacks values, it needs {width} in each row"
        raise UserError(f"{where}, frame {row}: {fault}: restore the file")


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    usual = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return usual or types.is_list_view(kind) or types.is_large_list_view(kind)


def _plain(values: Any) -> Any:
    """The values without an extension type or a dictionary encoding around them."""
    while isinstance(values, pa.ExtensionArray) or pa.types.is_dictionary(values.type):
        values = values.storage if isinstance(values, pa.ExtensionArray) else values.dictionary_decode()
    return values
