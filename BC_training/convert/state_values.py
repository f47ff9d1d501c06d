"""Turns state values and axes into a dataset's float32; whole numbers of a state stay exact."""

from collections.abc import Sequence

import numpy as np

from BC_training.common.errors import UserError, unknown
from BC_training.common.storage.reader import as_float32


def exact_float32(values: np.ndarray, names: Sequence[str], where: str) -> np.ndarray:
    """float32 [N, S] from numbers [N, S]; whole numbers are never rounded, because ids would merge.

    Raises a UserError, with the place ``where`` and one of the S ``names``, if a value is not finite as float32 or is
    a whole number that float32 cannot hold.
    """
    rounded, changed = as_float32(values)
    bad = ~np.isfinite(rounded)
    for column, name in enumerate(names):
        remedy = f'add --leave-out "{name}"'
        if bad[:, column].any():
            row = int(np.argmax(bad[:, column]))
            fault = f"'{name}' is not finite in row {row} ({values[row, column]})"
            raise UserError(f"{where}: {fault}: correct it, or {remedy}")
        if changed[:, column].any():
            row = int(np.argmax(changed[:, column]))
            fault = f"in row {row}, a whole number that float32 cannot hold, so ids would merge"
            remedy = f"{remedy}, or number its values from 0 in the source"
            raise UserError(f"{where}: '{name}' is {int(values[row, column])} {fault}: {remedy}")
    return rounded


def finite_axes(values: np.ndarray, names: Sequence[str], where: str) -> np.ndarray:
    """float32 [N, X] from numbers [N, X]; an amount that is not finite as float32 is a UserError.

    It names the place ``where``, the frame and one of the X ``names``.
    """
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float32)
    bad = np.argwhere(~np.isfinite(rounded))
    if len(bad):
        frame, column = bad[0]
        fault = f"action '{names[column]}' is {values[frame, column]}, no finite number"
        raise UserError(f"{where}, frame {frame}: {fault}: correct it, or remove the episode")
    return rounded


def kept_columns(names: Sequence[str], leave_out: Sequence[str]) -> list[int]:
    """The ascending positions in ``names`` of the state values that stay; ``leave_out`` must be among ``names``."""
    for name in leave_out:
        if name not in names:
            raise unknown("state value of --leave-out", name, names)
    return [i for i, name in enumerate(names) if name not in leave_out]
