"""Which samples a step sees, and how their frames reach the device.

The order is a pure function of (seed, step): no iterator state to save, and the same global
batch whatever the number of devices.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from rich.progress import Progress

from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.errors import UserError
from BC_training.common.preprocess import resize_frames

Batch = dict[str, jax.Array]  # "frame" uint8 [B, 3, H, W], "action" bool [B, A]

_DEVICE_SHARE = 0.5  # of the free memory that `auto` lets the dataset fill
_DECODE_FRAMES = 256  # decoded at once while filling the device


@dataclass(frozen=True)
class SampleOrder:
    """Visits each of ``num_samples`` once an epoch, shuffled; the last partial batch is left out.

    Raises:
        UserError: a batch larger than the number of samples.
    """

    num_samples: int
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        if self.batch_size > self.num_samples:
            raise UserError(
                f"training.batch_size={self.batch_size} is larger than the training set ({self.num_samples} frames): "
                "lower it or record more"
            )

    @property
    def steps_per_epoch(self) -> int:
        return self.num_samples // self.batch_size

    def batch(self, step: int) -> np.ndarray:
        """int64 [batch_size], the samples of ``step`` (counted from 0 over all epochs)."""
        epoch, position = divmod(step, self.steps_per_epoch)
        start = position * self.batch_size
        return _permutation(self.num_samples, self.seed, epoch)[start : start + self.batch_size]


@lru_cache(maxsize=2)
def _permutation(size: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(size)


class Samples:
    """The frames of some episodes as one list of samples; sample i is one frame and its buttons.

    Args:
        episodes: positions in ``dataset.episodes``.
        frame_size: (H, W) to resize to, in pixels.
    """

    def __init__(self, dataset: ZarrGameplayDataset, episodes: Sequence[int], frame_size: tuple[int, int]):
        self._dataset, self._episodes, self.frame_size = dataset, list(episodes), frame_size
        lengths = [dataset.episodes[e].length for e in self._episodes]
        self._starts = np.concatenate([[0], np.cumsum(lengths)])
        self.actions = np.concatenate([dataset.actions(e) for e in self._episodes])  # bool [N, A]
        self.frame_bytes = 3 * frame_size[0] * frame_size[1]  # of one decoded frame

    def __len__(self) -> int:
        return len(self.actions)

    def locate(self, samples: np.ndarray) -> list[tuple[str, int]]:
        """The (episode name, frame) of each sample."""
        which = np.searchsorted(self._starts, samples, side="right") - 1
        return [
            (self._dataset.episodes[self._episodes[e]].name, int(s - self._starts[e]))
            for s, e in zip(samples, which, strict=True)
        ]

    def frames(self, samples: np.ndarray) -> np.ndarray:
        """uint8 [len(samples), 3, H, W], decoded and resized."""
        out = np.empty((len(samples), 3, *self.frame_size), np.uint8)
        which = np.searchsorted(self._starts, samples, side="right") - 1
        for e in np.unique(which):
            rows = np.flatnonzero(which == e)
            frames = self._dataset.frames(self._episodes[e], samples[rows] - self._starts[e])
            out[rows] = resize_frames(frames, self.frame_size)
        return out


class Tier(Protocol):
    """Where batches come from."""

    name: str

    def batches(self, order: Iterator[np.ndarray]) -> Iterator[Batch]:
        """The batch of each array of samples, on the device, in order."""
        ...


class DecodeTier:
    """Tier ``none``: decodes from zarr as needed, ``prefetch`` batches ahead of the step."""

    name = "none"

    def __init__(self, samples: Samples, prefetch: int):
        self._samples, self._prefetch = samples, prefetch

    def batches(self, order: Iterator[np.ndarray]) -> Iterator[Batch]:
        def load(ids: np.ndarray) -> Batch:
            return jax.device_put({"frame": self._samples.frames(ids), "action": self._samples.actions[ids]})

        with ThreadPoolExecutor(self._prefetch, thread_name_prefix="decode") as pool:
            pending = deque()
            try:
                for ids in order:
                    pending.append(pool.submit(load, ids))
                    if len(pending) > self._prefetch:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                for future in pending:
                    future.cancel()


class DeviceTier:
    """Tier ``device``: all frames as uint8 in device memory, batches gathered there."""

    name = "device"

    def __init__(self, samples: Samples, progress: Progress, title: str):
        frames = np.empty((len(samples), 3, *samples.frame_size), np.uint8)
        bar = progress.add_task(title, total=len(samples), status="")
        for start in range(0, len(samples), _DECODE_FRAMES):
            ids = np.arange(start, min(start + _DECODE_FRAMES, len(samples)))
            frames[ids] = samples.frames(ids)
            progress.update(bar, advance=len(ids))
        progress.remove_task(bar)
        self._data = jax.device_put({"frame": frames, "action": samples.actions})
        self._gather = jax.jit(lambda data, ids: jax.tree.map(lambda x: x[ids], data))

    def batches(self, order: Iterator[np.ndarray]) -> Iterator[Batch]:
        for ids in order:
            yield self._gather(self._data, jnp.asarray(ids, jnp.int32))


def make_tier(
    cache: Literal["none", "device", "auto"], samples: Samples, prefetch: int, progress: Progress, title: str
) -> Tier:
    """The tier named, or for ``auto`` ``device`` if the frames fit well, else ``none``.

    Raises:
        UserError: ``device`` where the frames do not fit.
    """
    needed, free = len(samples) * samples.frame_bytes, _free_memory()
    if cache == "device" and needed > free:
        raise UserError(
            f"dataset.cache=device needs {needed / 2**30:.1f} GiB for the frames, {free / 2**30:.1f} GiB are free: "
            "use dataset.cache=none or a smaller dataset.frame_size"
        )
    if cache == "device" or (cache == "auto" and needed <= free * _DEVICE_SHARE):
        return DeviceTier(samples, progress, title)
    return DecodeTier(samples, prefetch)


def _free_memory() -> int:
    """Bytes free on the device; on a CPU, in the machine."""
    stats = jax.local_devices()[0].memory_stats()
    if stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    return psutil.virtual_memory().available
