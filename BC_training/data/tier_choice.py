"""Which cache tier the frames of a training fit, and how many steps one dispatch takes."""

import shutil
from dataclasses import replace
from pathlib import Path

import jax
import psutil
from rich.console import Console

from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.schema import DatasetConfig
from BC_training.data import cache
from BC_training.runtime.sharding import from_main

_DEVICE_SHARE = 0.5  # of the free memory that `auto` lets the frames fill
_DISK_SHARE = 0.8  # of the free disk that `auto` lets a cache fill
_STEPS_PER_DISPATCH = 8  # on an accelerator, whose step can be shorter than its dispatch


def choose_tier(
    options: DatasetConfig,
    dataset: ZarrGameplayDataset,
    frame_size: tuple[int, int],
    console: Console,
    before: str | None = None,
) -> DatasetConfig:
    """``options`` with ``auto`` replaced by the fastest tier that all frames fit: device, disk, none.

    Several processes take what fits the first.

    Args:
        console: told that they do not.
        before: the tier that this training had when it was interrupted, which is kept if all frames still fit it.
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
    """The tiers that all frames fit, the fastest first."""
    folder, needed = cache_dir(options), cache.packed_bytes(dataset, frame_size)
    # Processes on CPUs may be on one machine and share its memory.
    processes = 1 if jax.default_backend() == "cpu" else jax.process_count()
    share = 1.0 if before == "device" else _DEVICE_SHARE  # once chosen, it may fill what there is
    device = ["device"] if needed <= free_memory() * processes * share else []
    if device and before in (None, "device"):
        return device
    taken = cache.unfinished_bytes(dataset, frame_size, folder)
    is_room = cache.is_built(dataset, frame_size, folder) or needed <= _disk_room(folder, options.cache_limit, taken)
    return [*device, *["disk"] * is_room, "none"]


def faster_tier(name: str, dataset: ZarrGameplayDataset, frame_size: tuple[int, int]) -> str | None:
    """What would make a training that waits for its data wait less, in words; None if nothing here would."""
    gigabytes = cache.packed_bytes(dataset, frame_size) / 1e9
    advice = {
        "none": f"dataset.cache=disk ({gigabytes:.1f} GB on disk) or device ({gigabytes:.1f} GB of its memory)",
        "disk": f"dataset.cache=device ({gigabytes:.1f} GB of its memory), or a larger dataset.prefetch",
    }
    return advice.get(name)


def dispatch_size(tier: str, wanted: int | None, before: int | None = None) -> int:
    """How many steps one dispatch takes.

    Args:
        wanted: ``training.steps_per_dispatch``.
        before: the number that this training had when it was interrupted.
    """
    if before is not None:
        return before
    if tier != "device":
        return 1  # the host delivers batch by batch
    return wanted or (1 if jax.default_backend() == "cpu" else _STEPS_PER_DISPATCH)


def cache_dir(options: DatasetConfig) -> Path:
    return Path(options.cache_dir) if options.cache_dir else cache.default_folder()


def _disk_room(folder: Path, limit: float, taken: int) -> float:
    """Bytes a cache may have, of which an unfinished build has ``taken`` some."""
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    return min(limit * 1e9, (shutil.disk_usage(existing).free + taken) * _DISK_SHARE)


def free_memory() -> int:
    """Bytes free on this process's devices together; on CPUs, in this machine."""
    free = 0
    for device in jax.local_devices():
        stats = device.memory_stats()
        if not stats:
            return psutil.virtual_memory().available
        free += stats["bytes_limit"] - stats["bytes_in_use"]
    return free
