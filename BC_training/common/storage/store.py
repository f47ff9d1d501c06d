"""Where a dataset's files are: a local folder, a ZIP file, or an s3://, gs:// or http(s):// address."""

import itertools
import os
import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from BC_training.common.errors import UserError
from BC_training.common.storage.remote_store import SCHEMES, RemoteStore, ZipStore, numbered


class NoAccess(UserError):
    """This user may not read a file that is there."""


class BadLink(UserError):
    """A symbolic link leads out of the dataset, or in a circle."""


class Store(Protocol):
    """The files below one address, named by keys such as "episode_0/zarr.json"."""

    address: str

    def read(self, keys: Sequence[str]) -> list[bytes | None]:
        """The content of each file, None for one that is not there; a UserError where a file cannot be read."""
        ...

    def open(self, key: str) -> IO[bytes]:
        """Opens a file for reading here and there; a FileNotFoundError where it is not there."""
        ...

    def files(self, folder: str) -> list[str]:
        """Keys of all files below ``folder``, relative to it."""
        ...

    def episode_names(self) -> list[str]:
        """The names "episode_N" that are there, in numeric order; gaps are fine."""
        ...

    def changed_since(self, key: str, others: Sequence[str]) -> bool:
        """Whether one of ``others`` was written after ``key``; False where that is unknown."""
        ...

    def kvstore(self, folder: str) -> dict[str, Any]:
        """TensorStore's description of ``folder``."""
        ...


def open_store(address: str | Path) -> Store:
    """The store at a path or address; a UserError for an unknown kind or a ZIP file that cannot be read."""
    scheme, separator, _ = str(address).partition("://")
    if not separator:
        if lookalike := re.match(rf"({'|'.join(SCHEMES)}):/", str(address), re.IGNORECASE):
            raise UserError(f"cannot read {address}: write two slashes, {lookalike[1].lower()}://")
        path = Path(address)
        require_utf8(path)
        return ZipStore(path) if is_zip(path) else LocalStore(path)
    if scheme not in SCHEMES:
        raise UserError(
            f"cannot read {address}: '{scheme}://' is none of {', '.join(s + '://' for s in SCHEMES)}; "
            "name a local folder by its path alone"
        )
    return RemoteStore(str(address))


def require_utf8(path: Path) -> None:
    """Raises a UserError for a path that zarr and TensorStore cannot name."""
    try:
        os.path.realpath(path).encode()
    except UnicodeEncodeError as error:
        shown = str(path).encode(errors="backslashreplace").decode()
        raise UserError(f"{shown} is no path in UTF-8: rename the folder, or choose another") from error


def is_remote(address: str | Path) -> bool:
    return "://" in str(address)


def absent(addresses: Iterable[str]) -> list[str]:
    """Those of the local paths among ``addresses`` where nothing is."""
    return [address for address in addresses if not is_remote(address) and not Path(address).exists()]


def is_zip(path: Path) -> bool:
    """Whether ``path`` is a ZIP file, even one that was cut and lost the list at its end."""
    try:
        with open(path, "rb") as file:
            return zipfile.is_zipfile(path) or file.read(4) == b"PK\x03\x04"
    except OSError:
        return False


class LocalStore:
    def __init__(self, path: Path):
        self.path, self.address = path, str(path)

    def exists(self) -> bool:
        try:
            return self.path.exists()
        except OSError as error:
            raise _cannot_read(self.address, error) from error

    def read(self, keys: Sequence[str]) -> list[bytes | None]:
        return [self._read(key) for key in keys]

    def _read(self, key: str) -> bytes | None:
        file = f"{self.address}/{key}"
        try:
            handle = os.open(file, os.O_RDONLY)  # half the time of pathlib, tens of thousands of times
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _cannot_read(file, error) from error
        try:
            with os.fdopen(handle, "rb") as opened:  # raises for a folder
                return opened.read()
        except OSError as error:
            raise _cannot_read(file, error) from error

    def open(self, key: str) -> IO[bytes]:
        return (self.path / key).open("rb")

    def files(self, folder: str) -> list[str]:
        top = self.path / folder
        return [Path(at, name).relative_to(top).as_posix() for at, _, names in os.walk(top) for name in names]

    def episode_names(self) -> list[str]:
        if not self.path.is_dir():
            return []
        try:
            return numbered(e.name for e in os.scandir(self.path) if e.is_symlink() or e.is_dir())
        except OSError as error:
            raise _cannot_read(self.address, error) from error

    def changed_since(self, key: str, others: Sequence[str]) -> bool:
        written = _modified(f"{self.address}/{key}")
        return any(_modified(f"{self.address}/{other}") > written for other in others)

    def is_link(self, key: str) -> bool:
        return os.path.islink(f"{self.address}/{key}")  # noqa: PTH114, half the time of pathlib

    def kvstore(self, folder: str) -> dict[str, Any]:
        return {"driver": "file", "path": f"{(self.path / folder).resolve()}/"}

    def stamps(self, folder: str) -> list[tuple[str, int, int]]:
        """(path, size in bytes, modification time in ns) of every file below ``folder``, or of that file, in order."""
        top = self.path / folder
        if top.is_file():
            return [(str(top), top.stat().st_size, top.stat().st_mtime_ns)]
        found, folders = [], [str(top)]
        while folders:
            for entry in os.scandir(folders.pop()):
                if entry.is_dir():
                    folders.append(entry.path)
                else:
                    stat = entry.stat()
                    found.append((entry.path, stat.st_size, stat.st_mtime_ns))
        return sorted(found)

    def refuse_links_out(self, folder: str) -> None:
        """Raises a BadLink for a symbolic link below ``folder``, or on the way to it, that leaves the dataset."""
        root = self.path.resolve()
        parts = Path(folder).parts
        way = [self.path.joinpath(*parts[:n]) for n in range(1, len(parts) + 1)]
        for entry in itertools.chain(filter(Path.is_symlink, way), _links_below(self.path / folder)):
            try:
                inside = Path(entry).resolve().is_relative_to(root)
            except (OSError, RuntimeError) as error:
                raise BadLink(f"{entry} is a symbolic link in a circle: replace it by a file or folder") from error
            if not inside:
                raise BadLink(f"{entry} is a symbolic link out of the dataset: replace it by what it points to")


def episode_number(name: str) -> int:
    """7 of "episode_7"."""
    return int(name.rpartition("_")[2])


def _modified(file: str) -> int:
    try:
        return os.stat(file).st_mtime_ns  # noqa: PTH116, half the time of pathlib
    except OSError:
        return 0


def _links_below(folder: Path) -> Iterator[str]:
    """Symbolic links below a folder, found from its directory entries, without a system call for each."""
    folders = [str(folder)]
    while folders:
        here = folders.pop()
        try:
            entries = list(os.scandir(here))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise _cannot_read(here, error) from error
        yield from (e.path for e in entries if e.is_symlink())
        folders += [e.path for e in entries if e.is_dir(follow_symlinks=False)]


def _cannot_read(file: str, error: OSError) -> UserError:
    if isinstance(error, PermissionError):
        return NoAccess(f"cannot read {file}: {error.strerror}; give this user the right to read it")
    return UserError(f"cannot read {file}: {error.strerror}; restore it from a copy, or remove the episode")
