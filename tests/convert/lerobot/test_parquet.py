"""Columns of every kind that Arrow has are read, and rows that lack values are named."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_files import user_error
from lerobot_datasets import check_read, edit_tables, opened, replace_column

from BC_training.convert.lerobot.parquet import numbers, read_columns

ROWS = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
ITEMS = [pa.float64(), pa.float16(), pa.int8(), pa.uint64(), pa.bool_(), pa.decimal128(25, 2), None]
LISTS: dict[str, Callable[[pa.Array], pa.Array]] = {
    "list": lambda flat: pa.ListArray.from_arrays([0, 3, 6, 9], flat),
    "large_list": lambda flat: pa.LargeListArray.from_arrays([0, 3, 6, 9], flat),
    "fixed_size_list": lambda flat: pa.FixedSizeListArray.from_arrays(flat, 3),
}


@pytest.mark.parametrize("item", ITEMS, ids=str)
@pytest.mark.parametrize("of", LISTS)
def test_lists_of_any_kind_of_number_are_read(tmp_path, item, of):
    flat = pa.array(np.ravel(ROWS), pa.int64())
    column = LISTS[of](flat.dictionary_encode() if item is None else flat.cast(item))
    pq.write_table(pa.table({"action": column, "episode_index": [0, 0, 1]}), tmp_path / "x.parquet")
    table = read_columns(tmp_path / "x.parquet", ["action"], 0)
    np.testing.assert_array_equal(numbers(table, "action", 3, "x"), ROWS[:2])


@pytest.mark.parametrize("column", [
    pa.array([[0] * 3, *ROWS], pa.list_view(pa.int8()))[1:],
    pa.array([[0] * 3, *ROWS], pa.large_list_view(pa.int8()))[1:],
    pa.array([[row] for row in ROWS]),
    pa.FixedShapeTensorArray.from_numpy_ndarray(np.array(ROWS, np.float32)),
], ids=["list view", "large list view", "lists in lists", "tensor"])  # fmt: skip
def test_other_kinds_of_lists_are_read(column):
    np.testing.assert_array_equal(numbers(pa.table({"action": column}), "action", 3, "x"), ROWS)


@pytest.mark.parametrize(("values", "row"), [
    ([[1, 0, 0], [1, 0], [1, 0, 0, 0]], 1),  # as many numbers as are needed
    ([[1, 0, 0], None, [0, 0, 0]], 1),
    ([[1, 0, 0], [0, 0, 0], [0, None, 0]], 2),
    ([[], [0, 0, 0], [0, 0, 0]], 0),
    ([[[1, 0, 0]], [[1, 0], [0]], [[0, 0, 0]]], 1),
    ([[[1, 0, 0]], [None], [[0, 0, 0]]], 1),
    ([1, 0, 1], 0),
    ([[1, 0], [0, 1]], 0),
    ([[1, 0, 0, 1]], 0),
])  # fmt: skip
def test_a_row_that_lacks_values_is_named(values, row):
    message = user_error(numbers, pa.table({"action": pa.array(values)}), "action", 3, "x")
    assert message.startswith(f"x, frame {row}: the column 'action' lacks values, it needs 3 in each row")


@pytest.mark.parametrize("column", [
    pa.array(["a", "b"]), pa.array(["a", "b"]).dictionary_encode(), pa.array([{"jump": 1}, {"jump": 0}]),
    pa.nulls(2), pa.array([["a"] * 3] * 2),
], ids=["texts", "dictionary", "structs", "nulls", "lists of texts"])  # fmt: skip
def test_a_column_without_numbers_is_refused(column):
    message = user_error(numbers, pa.table({"action": column}), "action", 3, "x")
    assert "not numbers: write 3 in each row, as a list" in message


def test_two_columns_of_one_name_are_refused(v21):
    edit_tables(lambda t: t.append_column("action", t["action"]))(v21)
    assert "has two columns of a name: rename or remove one" in user_error(opened(v21).read, "source/episode_000000")


def test_episode_numbers_may_have_other_types(source):
    for change in (lambda c: c.cast(pa.float64()), lambda c: c.cast(pa.int32()), pa.ChunkedArray.dictionary_encode):
        replace_column("episode_index", change)(source)
        check_read(source)
    replace_column("episode_index", lambda c: pa.array([[value] for value in c.to_pylist()]))(source)
    message = user_error(opened(source).read, "source/episode_000000")
    assert "'episode_index' holds list<" in message
    assert "write a whole number in each row" in message
