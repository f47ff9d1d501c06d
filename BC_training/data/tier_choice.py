"""Chooses the cache tier that the frames of a training fit into."""

import shutil
from dataclasses import replace
from pathlib import Path

import jax
import psutil
from rich.console import Console

from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.schema import DatasetConfig
from BC_training.data import cache
from BC_training.data.several_datasets import SeveralDatasets
from BC_training.runtime.sharding import from_main

_DEVICE_SHARE = 0.5  # the part of the free memory that `auto` lets the frames fill
_DISK_SHARE = 0.8  # the part of the free disk that `auto` lets a cache fill


def choose_tier(
    options: DatasetConfig,
    dataset: ZarrGameplayDataset,
    frame_size: tuple[int, int],
    console: Console,
    before: str | None = None,
) -> DatasetConfig:
    """Replaces ``auto`` in ``options`` by the fastest tier that all frames fit into: device, disk, none.

    Several processes use the tier that fits the first. A training keeps the tier that it had
    ``before`` it was interrupted while all frames fit, and says on ``console`` where they do not.
    """
    if options.cache != "auto":
        return options
    fitting: list[str] = from_main(lambda: _fitting(options, dataset, frame_size, before))
    chosen = before if before in fitting else fitting[0]
    if before not in (None, chosen):
        console.print(f"dataset.cache={before}, as before, has no room now: {chosen} is used", soft_wrap=True)
    return replace(options, cache=chosen)


def _fitting(
    options: DatasetConfig, dataset: ZarrGameplayDataset, frame_size: tuple[int, int], before: str | None
) -> list[str]:
    """The tiers that all frames fit into, the fastest first."""
    folder, needed = cache_dir(options), cache.packed_bytes(dataset, frame_size)
    # Processes on CPUs may be on one machine and share its memory.
    processes = 1 if jax.default_backend() == "cpu" else jax.process_count()
    share = 1.0 if before == "device" else _DEVICE_SHARE  # once chosen, it may fill what there is
    device = ["device"] if needed <= free_memory() * processes * share else []
    if device and before in (None, "device"):
        return device
    if isinstance(dataset, SeveralDatasets):
        return [*device, "none"]
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free + cache.unfinished_bytes(dataset, frame_size, folder)
    fits = needed <= min(options.cache_limit * 1e9, free * _DISK_SHARE)
    is_room = fits or cache.is_built(dataset, frame_size, folder)
    return [*device, *["disk"] * is_room, "none"]


def cache_dir(options: DatasetConfig) -> Path:
    return Path(options.cache_dir) if options.cache_dir else cache.default_folder()


def free_memory() -> int:
    """The bytes that are free on all devices of this process; on CPUs, in this machine."""
    free = 0
    for device in jax.local_devices():
        stats = device.memory_stats()
        if not stats:
            return psutil.virtual_memory().available
        free += stats["bytes_limit"] - stats["bytes_in_use"]
    return free
