"""State values on their way into a dataset, which holds float32: exact where they are whole numbers."""

from collections.abc import Sequence

import numpy as np

from BC_training.common.errors import UserError, unknown


def exact_float32(values: np.ndarray, names: Sequence[str], where: str) -> np.ndarray:
    """float32 [N, S] of numbers [N, S]; whole numbers are not rounded, because ids would merge.

    float32 holds every whole number up to 2^24 (16,777,216), and some above. A column of floats counts as whole
    numbers if all of its values are; fractions, which are measured, are rounded.

    Args:
        names: of the S columns, as ``--leave-out`` takes them.
        where: of the values, for the error, such as a file and an episode.

    Raises:
        UserError: a value is not finite as float32, or a whole number that float32 cannot hold; names column and row.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = values.astype(np.float32)
    for column, name in enumerate(names):
        own, stored = values[:, column], rounded[:, column]
        bad = ~np.isfinite(stored)
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise UserError(
                f"{where}: '{name}' is not finite in row {row} ({own[row]}): correct it, or add --leave-out \"{name}\""
            )
        inexact = _rounded_whole_numbers(own, stored)
        if inexact.any():
            row = int(np.flatnonzero(inexact)[0])
            raise UserError(
                f"{where}: '{name}' is {int(own[row])} in row {row}, a whole number that float32 cannot hold, so ids "
                f'would merge: add --leave-out "{name}", or number its values from 0 in the source'
            )
    return rounded


def _rounded_whole_numbers(values: np.ndarray, stored: np.ndarray) -> np.ndarray:
    """bool [N]: which of one column's ``values`` are whole numbers that ``stored``, float32 [N], changes."""
    if values.dtype.kind in "iu":
        large = np.flatnonzero((values > 2**24) | (values < -(2**24)))
        inexact = np.zeros(len(values), bool)
        inexact[large] = [int(values[i]) != int(stored[i]) for i in large]  # numpy would compare them as float64
        return inexact
    if values.dtype.kind != "f" or values.dtype.itemsize <= 4 or not (values == np.floor(values)).all():
        return np.zeros(len(values), bool)
    return (values != stored) & (np.abs(values) < 2.0**64)  # above it are no ids, only stand-ins such as 1e30


def kept_columns(names: Sequence[str], leave_out: Sequence[str]) -> list[int]:
    """Which columns of the state values ``names`` stay, ascending.

    Raises:
        UserError: ``leave_out`` has a name that is none of them.
    """
    for name in leave_out:
        if name not in names:
            raise unknown("state value of --leave-out", name, names)
    return [i for i, name in enumerate(names) if name not in leave_out]
