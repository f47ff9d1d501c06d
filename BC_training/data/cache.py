"""The disk cache: a dataset's frames, decoded and resized once into one uncompressed file.

    <cache_dir>/<fingerprint>/           a whole cache, published by renaming
      frames.bin                         uint8 [frames, 3, H, W], episode after episode
      meta.json                          dataset, frame size, frames
    <cache_dir>/<fingerprint>.partial/   a cache that is being built, or whose build was killed
      done                               a line for each episode that is in frames.bin
    <cache_dir>/<fingerprint>-<hex>.partial/   a cache that is being removed, or whose removal was killed

The fingerprint covers the frames' metadata, the frame size, the channel order and, for a local
dataset, the size and time of every chunk's file: a change of one of them makes another cache.
"""

import contextlib
import hashlib
import itertools
import json
import os
import secrets
import shutil
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from threading import Lock

import numpy as np
from jaxtyping import Int, UInt8
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.errors import UserError
from BC_training.common.files import disk_full_is_user_error, locked, read_at, reserve, write_whole
from BC_training.common.preprocess import resize_frames
from BC_training.common.storage import reader
from BC_training.common.storage.store import LocalStore, ZipStore
from BC_training.runtime.compilation_cache import default_folder as default_folder

_VERSION = 1  # changes with the files' layout and with the preprocessing
_BLOCK = 64  # frames that a thread decodes at once
_VIDEO_PART = 256  # frames of a video that a thread decodes in order, from the key frame before them
_PARTIAL = ".partial"
_DONE = "done"
_REMEDY = "remove the disk cache with 'cache --clear' and run again"


@dataclass(frozen=True)
class Cache:
    path: Path
    dataset: str
    frame_size: tuple[int, int]
    frames: int
    bytes: int  # taken on disk so far
    used: float  # when it was last used, seconds since 1970
    complete: bool


class PackedFrames:
    """Reads the frames of a cache in any order, unmapped: mapped pages would count as this process's memory."""

    def __init__(self, path: Path, frame_size: tuple[int, int], first_frames: dict[str, int]):
        self._path = path
        with self._errors():
            self._file = open(path, "rb", buffering=0)  # noqa: SIM115 (open as long as this object)
        weakref.finalize(self, self._file.close)
        self._frame_bytes = 3 * frame_size[0] * frame_size[1]
        self.first_frames = first_frames  # the number of each episode's first frame, by the episode's name

    def read(self, frames: Int[np.ndarray, " n"], out: UInt8[np.ndarray, "n 3 H W"]) -> None:
        """Reads the frames with these numbers into ``out``.

        Raises:
            UserError: the file was truncated or cannot be read.
        """
        # Frames that follow each other, as in a window, are read together.
        ends = [*(np.flatnonzero(np.diff(frames) != 1) + 1).tolist(), len(frames)]
        start = 0
        for end in ends:
            view, offset = out[start:end].data.cast("B"), int(frames[start]) * self._frame_bytes
            while view:  # one call reads 2 GiB at most
                with self._errors():
                    count = read_at(self._file, view, offset)
                if count == 0:
                    raise UserError(f"{self._path} is truncated: {_REMEDY}")
                view, offset = view[count:], offset + count
            start = end

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(f"cannot read {self._path} ({error.strerror}): {_REMEDY}") from error


def open_packed(
    dataset: ZarrGameplayDataset, frame_size: tuple[int, int], folder: Path, limit: int, progress: Progress
) -> PackedFrames:
    """Opens the dataset's cache, and first builds it where it is missing or unfinished.

    Args:
        frame_size: (H, W) in pixels.
        folder: holds all caches.
        limit: the bytes that all caches may take; the least recently used are removed to make room.

    Raises:
        UserError: the cache is larger than ``limit`` or the free disk, or a frame cannot be read.
    """
    path = folder / _fingerprint(dataset, frame_size)
    lengths = {episode.name: episode.length for episode in dataset.episodes}
    first_frames = dict(zip(lengths, itertools.accumulate(lengths.values(), initial=0), strict=False))
    if not (path / "meta.json").exists():
        partial = path.with_name(path.name + _PARTIAL)
        folder.mkdir(parents=True, exist_ok=True)
        with disk_full_is_user_error(folder), _building(path, progress):
            if path.exists():  # another process has finished it while this one waited
                shutil.rmtree(partial, ignore_errors=True)
            else:
                _make_room(folder, packed_bytes(dataset, frame_size), limit, keep=partial)
                partial.mkdir(exist_ok=True)
                described = {"dataset": dataset.path, "frame_size": frame_size, "frames": len(dataset)}
                write_whole(partial / "meta.json", json.dumps(described))
                _build(dataset, frame_size, partial, first_frames, progress)
                partial.rename(path)
                (path / _DONE).unlink()
    os.utime(path / "meta.json")  # the time of the last use
    return PackedFrames(path / "frames.bin", frame_size, first_frames)


def is_built(dataset: ZarrGameplayDataset, frame_size: tuple[int, int], folder: Path) -> bool:
    """Whether the dataset's cache is complete."""
    return (folder / _fingerprint(dataset, frame_size) / "meta.json").exists()


def unfinished_bytes(dataset: ZarrGameplayDataset, frame_size: tuple[int, int], folder: Path) -> int:
    """The bytes on disk that an unfinished build of the dataset's cache takes."""
    return _stored(folder / (_fingerprint(dataset, frame_size) + _PARTIAL))


def packed_bytes(dataset: ZarrGameplayDataset, frame_size: tuple[int, int]) -> int:
    """The size of the dataset's cache."""
    return len(dataset) * 3 * frame_size[0] * frame_size[1]


def find_caches(folder: Path) -> list[Cache]:
    """Finds every cache in ``folder``, the most recently used first."""
    found = []
    for path in folder.glob("*") if folder.is_dir() else ():
        complete, meta = not path.name.endswith(_PARTIAL), path / "meta.json"
        with contextlib.suppress(OSError, ValueError, KeyError):  # not a cache, or being removed
            raw = json.loads(meta.read_text(encoding="utf-8"))
            size, used = (raw["frame_size"][0], raw["frame_size"][1]), meta.stat().st_mtime
            found.append(Cache(path, raw["dataset"], size, raw["frames"], _stored(path), used, complete))
    return sorted(found, key=lambda cache: -cache.used)


def remove(cache: Cache) -> bool:
    """Removes a cache; returns False, and leaves it, if it is being built."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(_lock(cache.path), "it is being built"))
        except UserError:
            return False
        # A kill then leaves neither a whole cache nor a build to continue, but one that is still listed.
        doomed = cache.path.with_name(f"{cache.path.name.removesuffix(_PARTIAL)}-{secrets.token_hex(4)}{_PARTIAL}")
        cache.path.rename(doomed)
        (doomed / "frames.bin").unlink(missing_ok=True)
        shutil.rmtree(doomed)
        return True


def list_caches(folder: Path, console: Console) -> None:
    """Prints the caches in ``folder``, the most recently used first."""
    caches = find_caches(folder)
    title = Text(f"{len(caches)} disk caches in {folder}", "table.title")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("dataset", "frame size", "frames", "GB", "last used"):
        table.add_column(heading, justify="left" if heading == "dataset" else "right", overflow="fold")
    for found in caches:
        size = f"{found.frame_size[0]}x{found.frame_size[1]}"
        used = datetime.fromtimestamp(found.used).strftime("%Y-%m-%d %H:%M")
        note = "" if found.complete else " (unfinished)"
        table.add_row(Text(found.dataset + note), size, f"{found.frames:,}", f"{found.bytes / 1e9:.2f}", used)
    console.print(table)


def clear_caches(folder: Path, console: Console) -> None:
    """Removes the caches in ``folder`` and prints how much that freed."""
    caches = find_caches(folder)
    removed = [found for found in caches if remove(found)]
    kept = f"; {len(caches) - len(removed)} are being built and stay" if len(removed) < len(caches) else ""
    console.print(f"removed {len(removed)} caches, {sum(c.bytes for c in removed) / 1e9:.2f} GB{kept}")


def _stored(path: Path) -> int:
    """The bytes on disk of the frames in a cache's folder."""
    try:
        return (path / "frames.bin").stat().st_size
    except FileNotFoundError:
        return 0


@lru_cache(maxsize=1)  # a training needs it several times, and there may be millions of chunks
def _fingerprint(dataset: ZarrGameplayDataset, frame_size: tuple[int, int]) -> str:
    store = dataset.store
    address = str(store.path.resolve()) if isinstance(store, LocalStore | ZipStore) else store.address
    digest = hashlib.sha256(repr((_VERSION, address, frame_size, dataset.channel_order)).encode())
    for episode in dataset.episodes:
        digest.update(repr((episode.name, episode.arrays["frames"])).encode())
        if isinstance(store, LocalStore | ZipStore):
            digest.update(repr(store.stamps(reader.frames_key(episode))).encode())
    return digest.hexdigest()[:24]


def _build(
    dataset: ZarrGameplayDataset,
    frame_size: tuple[int, int],
    partial: Path,
    first_frames: dict[str, int],
    progress: Progress,
) -> None:
    frame_bytes = 3 * frame_size[0] * frame_size[1]
    bar = progress.add_task("building the cache", total=len(dataset), status="")
    (partial / "frames.bin").touch()
    with (
        open(partial / "frames.bin", "r+b") as frames,
        open(partial / _DONE, "a+", encoding="utf-8") as log,
        ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        log.seek(0)
        done = set(log.read().splitlines())
        reserve(frames, packed_bytes(dataset, frame_size))
        writing = Lock()

        def pack(episode: int, first: int, end: int) -> None:
            for start in range(first, end, _BLOCK):
                rows = np.arange(start, min(start + _BLOCK, end))
                block = resize_frames(dataset.frames(episode, rows), frame_size)
                with writing:
                    frames.seek((first_frames[dataset.episodes[episode].name] + start) * frame_bytes)
                    frames.write(np.ascontiguousarray(block).data)
                progress.update(bar, advance=len(rows))

        for i, episode in enumerate(dataset.episodes):
            if episode.name in done:
                progress.update(bar, advance=episode.length)
                continue
            part = _VIDEO_PART if episode.arrays["frames"].is_video else _BLOCK
            starts = range(0, episode.length, part)
            ends = [min(start + part, episode.length) for start in starts]
            list(pool.map(pack, itertools.repeat(i), starts, ends))
            frames.flush()
            os.fsync(frames.fileno())  # before the log lists the episode
            log.write(episode.name + "\n")
            log.flush()
    progress.remove_task(bar)


@contextlib.contextmanager
def _building(path: Path, progress: Progress) -> Iterator[None]:
    """Lets one process at a time build the cache ``path``; another waits, and finds it built."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(_lock(path), "it is being built"))
        except UserError:
            progress.console.print("another process is building this cache: waiting for it", soft_wrap=True)
            stack.enter_context(locked(_lock(path)))
        yield


def _lock(path: Path) -> Path:
    """The lock of the cache ``path``, whether it is finished or not."""
    return path.with_name(f"{path.name.removesuffix(_PARTIAL)}.lock")


def _make_room(folder: Path, needed: int, limit: int, keep: Path) -> None:
    if needed > limit:
        raise UserError(
            f"the disk cache needs {needed / 1e9:.1f} GB, dataset.cache_limit is {limit / 1e9:.1f}: raise it, use "
            "dataset.cache=none or a smaller dataset.frame_size"
        )
    others = [cache for cache in find_caches(folder) if cache.path != keep]
    taken = sum(cache.bytes for cache in others)
    while taken + needed > limit and others:
        oldest = others.pop()
        if remove(oldest):
            taken -= oldest.bytes
