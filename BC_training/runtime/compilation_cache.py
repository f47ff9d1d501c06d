"""Compiled programs, kept on disk from run to run.

    <cache folder>/xla/<program>-<key>    SHA-256 of name and content, then JAX's entry

JAX makes the keys: of the program, the versions and flags, and the devices, for a CPU its
instruction set too, so that machines of several kinds can share the folder. Its own file cache
writes entries in place and does not check what it reads: a process killed while it writes leaves a
torn entry for good, and changed bytes can run. Hence this one.
"""

import contextlib
import hashlib
import logging
import multiprocessing
import os
import stat
import tempfile
from pathlib import Path

_LIMIT = 1 << 30  # bytes; the entries not used for longest go first
_DIGEST_BYTES = hashlib.sha256().digest_size


def default_folder() -> Path:
    """The folder of this program's caches."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "bc_training"


def use_compilation_cache() -> None:
    """Makes JAX look for compiled programs on disk before it compiles, and keep what it compiled.

    A user's JAX_COMPILATION_CACHE_DIR or JAX_ENABLE_COMPILATION_CACHE=false is left in force. Can be
    called again.
    """
    import jax
    from jax._src import compilation_cache  # JAX has no public way to give it another cache

    if jax.config.jax_compilation_cache_dir is not None:  # pyright: ignore[reportAttributeAccessIssue]
        return
    if getattr(compilation_cache, "_cache", "unknown") is not None:  # there is one, or another version of JAX
        return
    folder = default_folder() / "xla"
    fault = _make_private(folder)
    if fault is not None:
        if multiprocessing.parent_process() is None:  # once, not in every worker
            logging.getLogger(__name__).warning(f"compiled programs are not kept from run to run: {fault}")
        return
    _make_room(folder, _LIMIT)
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    compilation_cache._cache = CheckedCache(folder)


class CheckedCache:
    """A folder of entries as JAX's ``CacheInterface``: whole ones or none.

    It never raises: an entry that cannot be read is missing, one that cannot be written is left out.
    """

    def __init__(self, folder: Path):
        self._path = folder  # JAX reads this name

    def get(self, key: str) -> bytes | None:
        """The entry; None where it is missing or was changed, and then it is removed."""
        file = self._path / key
        try:
            stored = file.read_bytes()
            entry = stored[_DIGEST_BYTES:]
            if stored[:_DIGEST_BYTES] == _digest(key, entry):
                with contextlib.suppress(OSError):  # read-only
                    os.utime(file)  # used now
                return entry
            file.unlink()
        except OSError:
            pass
        return None

    def put(self, key: str, entry: bytes) -> None:
        """Writes an entry; it appears whole, whatever happens to this process or another that writes it too."""
        with contextlib.suppress(OSError):
            handle, partial = tempfile.mkstemp(dir=self._path, suffix=".partial")
            try:
                with open(handle, "wb") as file:
                    file.write(_digest(key, entry) + entry)
                Path(partial).replace(self._path / key)
            except OSError:
                Path(partial).unlink()
                raise


def _digest(key: str, entry: bytes) -> bytes:
    return hashlib.sha256(key.encode() + entry).digest()


def _make_private(folder: Path) -> str | None:
    """Makes the folder for this user alone; returns why it cannot be trusted, if so.

    An entry is a program: who can write one can run what they like as this user.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.stat()
    except OSError as error:
        return f"cannot make {folder} ({error.strerror})"
    if found.st_uid != os.geteuid():
        return f"{folder} belongs to another user; set XDG_CACHE_HOME to a folder of your own"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others can write to {folder}; run 'chmod 700 {folder}'"
    return None


def _make_room(folder: Path, limit: int) -> None:
    """Removes the files not used for longest, of killed writers too, until fewer than ``limit`` bytes are left."""
    found: list[tuple[float, int, Path]] = []
    with contextlib.suppress(OSError):
        for file in folder.iterdir():
            with contextlib.suppress(OSError):  # another process removed it
                status = file.stat()
                found.append((status.st_mtime, status.st_size, file))
    excess = sum(size for _, size, _ in found) - limit
    for _, size, path in sorted(found):
        if excess < 0:
            break
        path.unlink(missing_ok=True)
        excess -= size
