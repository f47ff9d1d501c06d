"""Stores that TensorStore reads: s3://, gs:// and http(s):// addresses, and ZIP files.

S3 takes its credentials from ``AWS_ACCESS_KEY_ID`` or ``~/.aws``, and is read anonymously without them;
``AWS_ENDPOINT_URL`` names a server that is not Amazon's. Google Cloud uses its application-default
credentials.
"""

import errno
import io
import os
import re
import zipfile
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import tensorstore as ts

from BC_training.common.errors import UserError, first_line

SCHEMES = ("s3", "gs", "http", "https")
_EPISODE = re.compile(r"episode_(\d+)", re.ASCII)
_RETRIES = {"max_retries": 3, "initial_delay": "200ms", "max_delay": "2s"}  # TensorStore's own take minutes
_ZIP_METHODS = (0, 8, 12, 93)  # TensorStore has stored, deflate, bzip2 and zstd
_RANGE = 1 << 19  # bytes asked for at once: about a second of video
_PROBED = 64  # a remote dataset ends where this many numbers in a row have no episode


class RemoteStore:
    _remedy = "check the address, the network and your credentials"

    def __init__(self, address: str):
        self.address = address.rstrip("/")

    def read(self, keys: Sequence[str]) -> list[bytes | None]:
        try:
            results = [future.result() for future in [self._kvstore.read(key) for key in keys]]
        except ValueError as error:
            raise UserError(f"cannot read {self.address}: {first_line(error)}; {self._remedy}") from error
        return [result.value if result.state == "value" else None for result in results]

    def open(self, key: str) -> IO[bytes]:
        """Opens an MP4 file, whose boxes say how long it is; reads ask for ranges of bytes."""
        return io.BufferedReader(_RangeReader(self._kvstore, key), _RANGE)

    def files(self, folder: str) -> list[str]:
        prefix = f"{folder}/"
        try:
            keys = self._kvstore.list(ts.KvStore.KeyRange(prefix, prefix[:-1] + "0"), len(prefix)).result()
        except (ValueError, NotImplementedError) as error:
            raise UserError(f"cannot list {self.address}/{folder}: {first_line(error)}; {self._remedy}") from error
        return [key.decode() for key in keys]

    def episode_names(self) -> list[str]:
        """Asks for one number after the other, because not every server lists its files."""
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
        # An open connection cannot be sent to another process.
        return {name: value for name, value in self.__dict__.items() if name != "_kvstore"}


class _RangeReader(io.RawIOBase):
    def __init__(self, kvstore: ts.KvStore, key: str):
        self._kvstore, self._key, self._at, self._size = kvstore, key, 0, 0
        while len(head := self._read(self._size, 8)) == 8:
            size = int.from_bytes(head[:4])
            if size == 1:  # the next eight bytes have it
                size = int.from_bytes(self._read(self._size + 8, 8))
            if size < 8:
                raise ValueError("DATA_LOSS: it is no MP4 file")
            self._size += size

    def _read(self, start: int, count: int) -> bytes:
        """``count`` bytes, b"" where the file has fewer."""
        try:
            result = self._kvstore.read(self._key, byte_range=slice(start, start + count)).result()
        except ValueError as error:
            if str(error).startswith("OUT_OF_RANGE"):
                return b""
            raise
        if result.state != "value":
            raise FileNotFoundError(errno.ENOENT, "No such file", self._key)
        return result.value

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        read = self._read(self._at, min(len(buffer), self._size - self._at)) if self._at < self._size else b""
        buffer[: len(read)] = read
        self._at += len(read)
        return len(read)


class ZipStore(RemoteStore):
    """A ZIP file that holds one dataset, at its top or in a folder."""

    _remedy = "unpack it and give the folder"

    def __init__(self, path: Path):
        self.path, self.address = path, str(path)
        files = (name.rpartition("/") for name in self._members())
        groups = {folder for folder, _, name in files if name in ("zarr.json", ".zgroup")}
        tops = [g for g in groups if not any(g != top and (top == "" or g.startswith(f"{top}/")) for top in groups)]
        if len(tops) != 1:
            found = f"several zarr groups ({', '.join(sorted(tops)[:5])})" if tops else "no zarr group"
            raise UserError(f"{path} is a ZIP file with {found}: unpack it and give the folder that holds episode_0")
        self._prefix = f"{tops[0]}/" if tops[0] else ""

    def episode_names(self) -> list[str]:
        below = len(self._prefix)
        return numbered({name[below:].split("/")[0] for name in self._members() if name.startswith(self._prefix)})

    def kvstore(self, folder: str) -> dict[str, Any]:
        base = {"driver": "file", "path": str(self.path.resolve())}
        return {"driver": "zip", "base": base, "path": f"{self._prefix}{folder}/".replace("//", "/").lstrip("/")}

    def _members(self) -> list[str]:
        """The files in it; not kept, as there may be millions and the store is sent to other processes."""
        try:
            with zipfile.ZipFile(self.path) as opened:
                members = opened.infolist()
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise UserError(f"cannot read {self.path}: {error}; {self._remedy}, or copy it again") from error
        for member in members:  # TensorStore would take such a file for one that is not there
            if member.flag_bits & 1 or member.compress_type not in _ZIP_METHODS or member.filename.startswith("/"):
                reason = "is encrypted, or its compression or name is not supported"
                raise UserError(f"{self.path}: '{member.filename}' in it {reason}: {self._remedy}")
        return [member.filename for member in members]

    def stamps(self, folder: str) -> list[tuple[str, int, int]]:
        """(path, size in bytes, modification time in ns) of the file that ``folder`` is in."""
        stat = self.path.stat()
        return [(self.address, stat.st_size, stat.st_mtime_ns)]


def numbered(names: Iterable[str]) -> list[str]:
    """The names of the form episode_N, in numeric order."""
    return sorted(filter(_EPISODE.fullmatch, names), key=lambda name: int(name.rpartition("_")[2]))


@lru_cache(maxsize=1)  # one for all, so that the list of a ZIP file's members is read once
def context() -> ts.Context:
    """TensorStore's limits: an unreachable server is an error after seconds, not minutes."""
    retries = {f"{driver}_request_retries": _RETRIES for driver in ("s3", "gcs", "http")}
    return ts.Context({**retries, "cache_pool": {"total_bytes_limit": 0}})
