"""Files: paths as users write them, JSON objects, locks, and writes that are done whole or not at all."""

import contextlib
import errno
import json
import logging
import os
import sys
import threading
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from BC_training.common.errors import UserError, first_line


def expand(path: str | Path) -> str:
    """``path`` with a leading ~ replaced by the home folder, which shells do not do after a "=" or in a file.

    Raises:
        UserError: there is no such home folder, or no system could have such a path.
    """
    text = os.fspath(path)
    found = os.path.expanduser(text)  # noqa: PTH111 (pathlib's error does not name the path)
    if text.startswith("~") and found == text:
        raise UserError(f"there is no home folder {text}: a folder of that name is ./{text}")
    try:
        found.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"the path {found!r} is not UTF-8: rename it") from error
    if "\0" in found:
        raise UserError(f"the path {found!r} holds a null character, which no file name can have")
    return found


def as_path(text: str | Path) -> Path:
    """``expand``, as a path."""
    return Path(expand(text))


def expand_fields(config: Any, section: str, *names: str) -> None:
    """Replaces the paths, or tuples of some, in fields of a frozen config by what ``expand`` returns."""
    for name in names:
        value = getattr(config, name)
        if isinstance(value, (str, tuple)):
            try:
                expanded = expand(value) if isinstance(value, str) else tuple(map(expand, value))
                object.__setattr__(config, name, expanded)
            except UserError as error:
                raise UserError(f"config: {section}.{name}: {error}") from error


def parse_json_object(raw: str | bytes, unique: bool = False) -> dict[str, Any]:
    """A JSON object from text, or from bytes in UTF-8, -16 or -32 with or without a byte order mark.

    Anything else is a ValueError, as is an entry that occurs twice, if ``unique``; otherwise the last one counts.
    """
    try:
        pairs_hook = _unique_entries if unique else None
        parsed = json.loads(raw.encode() if isinstance(raw, str) else raw, object_pairs_hook=pairs_hook)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(parsed, dict):
        raise ValueError("it does not start with {")
    return parsed


def read_json_object(path: Path, unique: bool = False) -> dict[str, Any]:
    """The JSON object in a file (see ``parse_json_object``); a UserError where there is none."""
    try:
        return parse_json_object(path.read_bytes(), unique)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; check the path") from error
    except ValueError as error:
        raise UserError(f"{path} is not a JSON object ({first_line(error)}): correct it") from error


def _unique_entries(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError(f"it has an entry twice: {', '.join(repr(name) for name, _ in pairs)}")
    return entries


@contextlib.contextmanager
def locked(file: Path, busy: str | None = None) -> Iterator[None]:
    """Holds the lock ``file`` for this process alone; the file is removed with the lock.

    If another process holds it, ``busy`` is the message of a UserError; None waits for that process.
    """
    lock = FileLock(file, timeout=-1 if busy is None else 0)
    try:
        lock.acquire()
    except Timeout:
        assert busy is not None
        raise UserError(busy) from None
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"cannot lock {file.parent}: {reason}; choose another folder") from error
    try:
        yield
    finally:
        if os.name != "nt":  # before the release: a process that waits then sees that the file is gone
            file.unlink(missing_ok=True)
        lock.release()


@contextlib.contextmanager
def disk_full_is_user_error(path: Path) -> Iterator[None]:
    """Turns an error from a full disk, while writing below ``path``, into a UserError."""
    try:
        yield
    except Exception as error:
        if not is_disk_full(error):
            raise
        # Orbax's unfinished writes would each print the same error again at exit.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        raise UserError(
            f"the disk that holds {path} is full: free some space and run the same command again; "
            "what was finished before is kept"
        ) from error


def write_whole(file: Path, text: str) -> None:
    """Writes ``file`` whole or not at all; a UserError where the disk is full."""
    unnamed = file.with_name(f".partial-{file.name}")
    with disk_full_is_user_error(file):
        if file.exists() and not file.is_file():  # a pipe or a device keeps its place
            file.write_text(text, encoding="utf-8")
            return
        unnamed.write_text(text, encoding="utf-8")
        unnamed.replace(file)


if sys.platform == "win32":
    _positioning = threading.Lock()

    def read_at(file: FileIO, view: memoryview, offset: int) -> int:
        """Reads from ``offset`` on into ``view``, in any thread; returns how many bytes, 0 at the end of the file."""
        with _positioning:
            file.seek(offset)
            return file.readinto(view)

    def reserve(file: IO[bytes], size: int) -> None:
        """Makes ``file`` at least ``size`` bytes long, and takes the disk space for them."""
        file.truncate(max(size, os.fstat(file.fileno()).st_size))

    def sync(path: Path) -> None:
        """Flushes a file to the disk, or the entries of a folder, where the system can."""
        if not path.is_dir():
            with open(path, "r+b") as file:
                os.fsync(file.fileno())
else:

    def read_at(file: FileIO, view: memoryview, offset: int) -> int:
        """Reads from ``offset`` on into ``view``, in any thread; returns how many bytes, 0 at the end of the file."""
        return os.preadv(file.fileno(), [view], offset)

    def reserve(file: IO[bytes], size: int) -> None:
        """Makes ``file`` at least ``size`` bytes long, and takes the disk space for them."""
        os.posix_fallocate(file.fileno(), 0, size)

    def sync(path: Path) -> None:
        """Flushes a file to the disk, or the entries of a folder, where the system can."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sync_all(folder: Path) -> None:
    """Flushes a folder and all that is in it to the disk."""
    for entry in (folder, *folder.rglob("*")):
        sync(entry)


def require_writable(file: Path) -> None:
    """Raises a UserError, before the work, if its result cannot be written to ``file``."""
    try:
        existed = file.exists()
        with open(file, "ab"):
            pass
    except OSError as error:
        raise UserError(
            f"cannot write {file}: {error.strerror}; choose a file in a folder that exists and can be written"
        ) from error
    if not existed:
        file.resolve().unlink()  # for a link, the file that opening it created


def is_disk_full(error: BaseException) -> bool:
    """Whether ``error`` or one of its causes comes from a full disk.

    TensorStore and Orbax report that as text in a ValueError, Python as an errno.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(text in str(seen) for text in ("No space left on device", "ENOSPC")):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
