"""Readers of samples' frames: from zarr, or from the disk cache of the whole dataset."""

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, UInt8

from BC_training.common.preprocess import resize_frames
from BC_training.data import cache
from BC_training.data.samples import Samples


@runtime_checkable
class FrameReader(Protocol):
    def read(self, rows: Int[np.ndarray, " n"], out: UInt8[np.ndarray, "n 3 H W"]) -> None:
        """Reads the frames of the samples' ``rows`` into ``out``."""


class DecodedFrames:
    def __init__(self, samples: Samples, frame_size: tuple[int, int]):
        self._samples, self._frame_size = samples, frame_size

    def read(self, rows: Int[np.ndarray, " n"], out: UInt8[np.ndarray, "n 3 H W"]) -> None:
        # Windows overlap, so a row may be asked for many times; it is decoded once.
        unique, place = np.unique(rows, return_inverse=True)
        episodes, frames = self._samples.locate_rows(unique)
        groups = np.split(np.arange(len(unique)), np.flatnonzero(np.diff(episodes)) + 1)
        decoded = self._samples.dataset.read_frames(
            [(self._samples.episodes[episodes[group[0]]], frames[group]) for group in groups]
        )
        resized = [resize_frames(block, self._frame_size) for block in decoded]
        if len(unique) < len(rows):
            # "clip", though every place is valid: the default mode fills a second array first.
            np.take(np.concatenate(resized), place, axis=0, out=out, mode="clip")
            return
        order = np.argsort(place)  # where each unique row goes
        for group, block in zip(groups, resized, strict=True):
            out[order[group]] = block


class CachedFrames:
    def __init__(self, samples: Samples, packed: cache.PackedFrames):
        self._samples, self._packed = samples, packed
        names = [samples.dataset.episodes[e].name for e in samples.episodes]
        self._first = np.array([packed.first_frames[name] for name in names], np.int64)

    def read(self, rows: Int[np.ndarray, " n"], out: UInt8[np.ndarray, "n 3 H W"]) -> None:
        episodes, frames = self._samples.locate_rows(rows)
        self._packed.read(self._first[episodes] + frames, out)
