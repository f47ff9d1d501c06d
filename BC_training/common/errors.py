"""The one exception for bad input, and "did you mean"."""

import contextlib
import difflib
import errno
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


class UserError(Exception):
    """Something the user can mend. The message is one line: what, where, and what to do.

    The command line prints it and exits with code 2, without a traceback. What cannot be printed of names
    that come from data, such as halves of characters, stands in it as Python writes it, "\\ud800".
    """

    def __init__(self, message: str):
        line = " ".join(message.splitlines())
        super().__init__("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line))


class GameDied(Exception):
    """A game's process ended in the middle of an episode; a new one can play it from its start."""


def unknown(kind: str, name: str, known: Iterable[str], remedy: str = "") -> UserError:
    """The error for a name that does not exist: the nearest match, the whole list, the remedy."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    listing = ", ".join(known) if known else "none"
    return UserError(f"unknown {kind} '{name}'{hint} (known: {listing}){'; ' + remedy if remedy else ''}")


def reason(error: BaseException) -> str:
    """The first line of what a library says, its kind where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]


def require(condition: bool, key: str, value: Any, rule: str) -> None:
    """Raises a UserError for a setting that breaks ``rule``."""
    if not condition:
        raise UserError(f"config: {key}={value} is out of range: {rule}")


@contextlib.contextmanager
def disk_full_is_user_error(path: Path) -> Iterator[None]:
    """Turns an error that says a disk is full, while writing below ``path``, into a UserError."""
    try:
        yield
    except Exception as error:
        if not _is_disk_full(error):
            raise
        # Orbax's unfinished writes would each print the same error again at exit.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        raise UserError(
            f"the disk that holds {path} is full: free some space and run the same command again; "
            "what was finished before is kept"
        ) from error


def write_whole(file: Path, text: str) -> None:
    """Writes ``file`` whole or not at all.

    Raises:
        UserError: the disk is full.
    """
    unnamed = file.with_name(f".partial-{file.name}")
    with disk_full_is_user_error(file):
        if file.exists() and not file.is_file():  # a pipe or a device keeps its place
            file.write_text(text, encoding="utf-8")
            return
        unnamed.write_text(text, encoding="utf-8")
        unnamed.replace(file)


def _is_disk_full(error: BaseException) -> bool:
    """Whether ``error`` or one of its causes says that no space is left on a disk.

    TensorStore and Orbax report it as text in a ValueError, Python as an errno.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(text in str(seen) for text in ("No space left on device", "ENOSPC")):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def require_writable(file: Path) -> None:
    """Finds out before the work whether its result can be written to ``file``.

    Raises:
        UserError: it cannot.
    """
    try:
        existed = file.exists()
        with open(file, "ab"):
            pass
    except OSError as error:
        raise UserError(
            f"cannot write {file}: {error.strerror}; choose a file in a folder that exists and can be written"
        ) from error
    if not existed:
        file.resolve().unlink()  # of a link what it names, which was not there
