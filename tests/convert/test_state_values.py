"""State values become float32 without ids that merge."""

import re

import numpy as np
import pytest
from dataset_files import user_error
from hypothesis import given
from hypothesis import strategies as st

from BC_training.convert.state_values import exact_float32, kept_columns


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20))
def test_whole_numbers_are_exact_or_refused_by_name(numbers):
    values = np.array(numbers, np.int64)[:, None]
    if all(int(np.float32(n)) == n for n in numbers):
        assert [int(v) for v in exact_float32(values, ["id"], "x")[:, 0]] == numbers
    else:
        message = user_error(exact_float32, values, ["id"], "x")
        assert re.search(r"x: 'id' is -?\d+ in row \d+, .*--leave-out \"id\"", message)


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int64, np.uint64, np.float64])
def test_the_first_number_that_float32_skips_is_refused(dtype):
    values = np.array([[1, 5], [2**24, 2**24 + 1]], dtype)
    np.testing.assert_array_equal(exact_float32(values[:, :1], ["a"], "x"), values[:, :1])
    assert "'b' is 16777217 in row 1" in user_error(exact_float32, values, ["a", "b"], "x")


def test_measured_values_are_rounded():
    values = np.array([[2.0**24 + 1, 1e30, 0.1], [0.5, -1e30, 1e-60]])
    np.testing.assert_array_equal(exact_float32(values, "abc", "x"), values.astype(np.float32))
    single = np.array([[2.0**30 + 64]], np.float32)
    np.testing.assert_array_equal(exact_float32(single, "a", "x"), single)
    assert exact_float32(np.array([[True], [False]]), "a", "x").tolist() == [[1], [0]]


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e39])
def test_values_that_are_not_finite_are_refused_by_name(bad):
    assert "'b' is not finite in row 1" in user_error(exact_float32, np.array([[0.0, 0], [0, bad]]), "ab", "x")


def test_columns_are_kept_unless_they_are_left_out():
    assert kept_columns(["a", "b", "c"], ["b"]) == [0, 2]
    assert kept_columns(["a"], ["a"]) == []
    message = user_error(kept_columns, ["health"], ["helth"])
    assert "unknown state value of --leave-out 'helth'; did you mean 'health'" in message
