"""Recognises and decodes the images among an HDF5 file's arrays."""

import h5py
import numpy as np

from BC_training.convert.hdf5.file import require_stored
from BC_training.convert.pictures import decode_picture

_JPEG_START = b"\xff\xd8\xff"
_BLOCK = 64  # frames read at once


def is_image(dataset: h5py.Dataset, where: str) -> bool:
    """Whether the array holds images uint8 [N, H, W, 3] or [N, 3, H, W], or JPEG files.

    Minari stores images of 32x32 pixels and more as JPEG files. Raises a UserError if the first row has to be looked at
    and cannot be read.
    """
    if dataset.ndim == 4 and dataset.dtype == np.uint8 and 3 in (dataset.shape[1], dataset.shape[3]):
        return True
    if h5py.check_vlen_dtype(dataset.dtype) != np.uint8 and (dataset.dtype != np.uint8 or dataset.ndim != 2):
        return False
    require_stored(dataset, 1, where)
    return dataset.ndim > 0 and dataset.shape[0] > 0 and bytes(dataset[0][:3]) == _JPEG_START


def decode(image: np.ndarray, where: str) -> np.ndarray:
    """uint8 [3, H, W] from an image [H, W, 3] or [3, H, W], or from a JPEG file's bytes."""
    if image.ndim == 1:
        image = decode_picture(image.tobytes(), where, "remove the episode")
    return np.ascontiguousarray(image.transpose(2, 0, 1)) if image.shape[2] == 3 else image


def trailing_zeros(images: h5py.Dataset, count: int) -> int:
    """How many of the first ``count`` images are all zeros at the end, as allotted but unwritten images are."""
    if images.ndim != 4:
        return 0
    last = count
    while last and not images[last - 1].any():
        start = max(0, last - _BLOCK)
        lit = np.flatnonzero(images[start:last].reshape(last - start, -1).any(axis=1))
        if lit.size:
            return count - (start + int(lit[-1]) + 1)
        last = start
    return count - last
