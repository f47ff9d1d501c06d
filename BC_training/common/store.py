"""Where a dataset's files are: a local folder, or an s3://, gs:// or http(s):// address.

Remote files are read through TensorStore. S3 takes its credentials from ``AWS_ACCESS_KEY_ID`` or
``~/.aws`` and is read anonymously without; ``AWS_ENDPOINT_URL`` names a server that is not
Amazon's. Google Cloud uses its application-default credentials.
"""

import os
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import tensorstore as ts

from BC_training.common.errors import UserError

_SCHEMES = ("s3", "gs", "http", "https")
_EPISODE = re.compile(r"episode_(\d+)")
_RETRIES = {"max_retries": 3, "initial_delay": "200ms", "max_delay": "2s"}  # TensorStore's own take minutes
_PROBED = 64  # a remote dataset ends where this many numbers in a row have no episode


class Store(Protocol):
    """The files below one address, named by keys such as "episode_0/zarr.json"."""

    address: str

    def read(self, keys: Sequence[str]) -> list[bytes | None]:
        """The content of each file; None for one that is not there.

        Raises:
            UserError: a file cannot be read.
        """
        ...

    def files(self, folder: str) -> list[str]:
        """Keys of all files below ``folder``, relative to it."""
        ...

    def episode_names(self) -> list[str]:
        """Names "episode_N" that are there, in numeric order; gaps are fine."""
        ...

    def changed_since(self, key: str, others: Sequence[str]) -> bool:
        """Whether one of ``others`` was written after ``key``; False where that cannot be told."""
        ...

    def kvstore(self, folder: str) -> dict[str, Any]:
        """TensorStore's description of ``folder``."""
        ...

    def exists(self) -> bool: ...


def open_store(address: str | Path) -> Store:
    """The store at a path or address.

    Raises:
        UserError: an address of an unknown kind.
    """
    scheme, separator, _ = str(address).partition("://")
    if not separator:
        return LocalStore(Path(address))
    if scheme not in _SCHEMES:
        raise UserError(f"cannot read {address}: '{scheme}://' is none of {', '.join(s + '://' for s in _SCHEMES)}")
    return RemoteStore(str(address))


def is_remote(address: str | Path) -> bool:
    return "://" in str(address)


class LocalStore:
    def __init__(self, path: Path):
        self.path, self.address = path, str(path)

    def exists(self) -> bool:
        return self.path.exists()

    def read(self, keys: Sequence[str]) -> list[bytes | None]:
        return [self._read(key) for key in keys]

    def _read(self, key: str) -> bytes | None:
        file = f"{self.address}/{key}"
        try:
            handle = os.open(file, os.O_RDONLY)  # half the time of pathlib, tens of thousands of times
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise UserError(f"cannot read {file}: {error.strerror}; restore it or remove the episode") from error
        with os.fdopen(handle, "rb") as opened:
            try:
                return opened.read()
            except OSError as error:
                raise UserError(f"cannot read {file}: {error.strerror}; restore it or remove the episode") from error

    def files(self, folder: str) -> list[str]:
        top = self.path / folder
        return [str(Path(at, name).relative_to(top)) for at, _, names in os.walk(top) for name in names]

    def episode_names(self) -> list[str]:
        if not self.path.is_dir():
            return []
        names = [e.name for e in os.scandir(self.path) if _EPISODE.fullmatch(e.name) and e.is_dir()]
        return sorted(names, key=episode_number)

    def changed_since(self, key: str, others: Sequence[str]) -> bool:
        written = _modified(f"{self.address}/{key}")
        return any(_modified(f"{self.address}/{other}") > written for other in others)

    def is_link(self, key: str) -> bool:
        return os.path.islink(f"{self.address}/{key}")  # noqa: PTH114, half the time of pathlib

    def kvstore(self, folder: str) -> dict[str, Any]:
        return {"driver": "file", "path": f"{(self.path / folder).resolve()}/"}

    def stamps(self, folder: str) -> list[tuple[str, int, int]]:
        """(path, size in bytes, modification time in ns) of every file below ``folder``, in order."""
        found, folders = [], [str(self.path / folder)]
        while folders:
            for entry in os.scandir(folders.pop()):
                if entry.is_dir():
                    folders.append(entry.path)
                else:
                    stat = entry.stat()
                    found.append((entry.path, stat.st_size, stat.st_mtime_ns))
        return sorted(found)

    def refuse_links_out(self, folder: str) -> None:
        """Checks that no symbolic link below ``folder``, or on the way to it, leaves the dataset.

        Raises:
            UserError: one does; names it.
        """
        root = self.path.resolve()
        parts = Path(folder).parts
        way = [self.path.joinpath(*parts[:n]) for n in range(1, len(parts) + 1)]
        for entry in (*(p for p in way if p.is_symlink()), *_links_below(self.path / folder)):
            if not Path(entry).resolve().is_relative_to(root):
                raise UserError(f"{entry} is a symbolic link out of the dataset: replace it by what it points to")


class RemoteStore:
    def __init__(self, address: str):
        self.address = address.rstrip("/")

    def exists(self) -> bool:
        return any(raw is not None for raw in self.read(["zarr.json", ".zgroup"]))

    def read(self, keys: Sequence[str]) -> list[bytes | None]:
        try:
            results = [future.result() for future in [self._kvstore.read(key) for key in keys]]
        except ValueError as error:
            raise UserError(
                f"cannot read {self.address}: {_reason(error)}; check the address, the network and your credentials"
            ) from error
        return [result.value if result.state == "value" else None for result in results]

    def files(self, folder: str) -> list[str]:
        prefix = f"{folder}/"
        try:
            keys = self._kvstore.list(ts.KvStore.KeyRange(prefix, prefix[:-1] + "0"), len(prefix)).result()
        except (ValueError, NotImplementedError) as error:
            raise UserError(f"cannot list {self.address}/{folder}: {_reason(error)}") from error
        return [key.decode() for key in keys]

    def episode_names(self) -> list[str]:
        """Found by asking for one number after the other: not every server lists its files."""
        names, number, width = [], 0, _PROBED
        meta = ".zgroup" if self.read(["zarr.json"]) == [None] else "zarr.json"
        while True:
            block = [f"episode_{n}" for n in range(number, number + width)]
            found = self.read([f"{name}/{meta}" for name in block])
            there = [name for name, raw in zip(block, found, strict=True) if raw is not None]
            if not there:
                return names
            names += there
            number, width = number + width, min(2 * width, 1024)

    def changed_since(self, key: str, others: Sequence[str]) -> bool:
        return False

    def kvstore(self, folder: str) -> dict[str, Any]:
        parts = urlsplit(self.address)
        path = f"{parts.path.strip('/')}/{folder}/".replace("//", "/").lstrip("/")
        if parts.scheme == "gs":
            return {"driver": "gcs", "bucket": parts.netloc, "path": path}
        if parts.scheme in ("http", "https"):
            query = f"?{parts.query}" if parts.query else ""
            return {"driver": "http", "base_url": f"{parts.scheme}://{parts.netloc}{query}", "path": f"/{path}"}
        spec: dict[str, Any] = {"driver": "s3", "bucket": parts.netloc, "path": path}
        if os.environ.get("AWS_ACCESS_KEY_ID"):
            spec["aws_credentials"] = {"type": "environment"}
        elif os.environ.get("AWS_PROFILE") or Path("~/.aws").expanduser().is_dir():
            spec["aws_credentials"] = {"type": "profile"}
        else:
            spec["aws_credentials"] = {"type": "anonymous"}
        if endpoint := os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"):
            spec |= {"endpoint": endpoint, "aws_region": os.environ.get("AWS_REGION", "us-east-1")}
        return spec

    @cached_property
    def _kvstore(self) -> ts.KvStore:
        return ts.KvStore.open(self.kvstore(""), context=context()).result()

    def __getstate__(self) -> dict[str, Any]:
        return {"address": self.address}  # an open connection does not travel to another process


def context() -> ts.Context:
    """TensorStore's limits: what cannot be reached is an error after seconds, not minutes."""
    retries = {f"{driver}_request_retries": _RETRIES for driver in ("s3", "gcs", "http")}
    return ts.Context({**retries, "cache_pool": {"total_bytes_limit": 0}})


def episode_number(name: str) -> int:
    """7 of "episode_7"."""
    return int(name.rpartition("_")[2])


def _modified(file: str) -> int:
    try:
        return os.stat(file).st_mtime_ns  # noqa: PTH116, half the time of pathlib
    except OSError:
        return 0


def _links_below(folder: Path) -> list[str]:
    """Symbolic links below a folder; the directory entries say it without a system call each."""
    links: list[str] = []
    folders = [str(folder)]
    while folders:
        try:
            entries = list(os.scandir(folders.pop()))
        except (FileNotFoundError, NotADirectoryError):
            continue
        links += [e.path for e in entries if e.is_symlink()]
        folders += [e.path for e in entries if e.is_dir(follow_symlinks=False)]
    return links


def _reason(error: BaseException) -> str:
    return str(error).splitlines()[0].split(" [")[0][:200]
