"""The files of a dataset, for tests that damage them, and a server for them."""

import contextlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numcodecs import Blosc

from BC_training.common.errors import UserError
from BC_training.common.storage import reader
from BC_training.common.storage.metadata import EpisodeInfo
from BC_training.common.storage.store import LocalStore


def chunk_file(path: Path, array: str, row: int, number: int = 0) -> Path:
    """The file of the chunk with index ``row`` in an array of episode ``number``."""
    folder = path / f"episode_{number}" / array
    indices = [str(row), *["0"] * (3 if array == "frames" else 1)]
    if not (folder / "zarr.json").exists():
        return folder / ".".join(indices)
    recorded = folder / ".".join(["c", *indices])  # as this program's writer names it
    return recorded if recorded.exists() else folder.joinpath("c", *indices)


def array_metadata(path: Path, array: str, number: int = 0) -> Path:
    """The metadata file of an array of episode ``number``."""
    folder = path / f"episode_{number}" / array
    return next(file for file in (folder / "zarr.json", folder / ".zarray") if file.exists())


def edit_json(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Changes a JSON object in place."""
    document = json.loads(file.read_text(encoding="utf-8"))
    change(document)
    file.write_text(json.dumps(document), encoding="utf-8")


def rewrite(path: Path, number: int, array: str, values: np.ndarray) -> None:
    """Puts ``values`` in place of an array of episode ``number``, one row a chunk."""
    zarr_format = 3 if (path / "zarr.json").exists() else 2
    group = zarr.open_group(path / f"episode_{number}", mode="r+", use_consolidated=False)
    stored = group.create_array(
        array,
        shape=values.shape,
        dtype=values.dtype,
        chunks=(1, *(max(n, 1) for n in values.shape[1:])),
        compressors=Blosc() if zarr_format == 2 else "auto",
        config={"write_empty_chunks": True},
        overwrite=True,
    )
    if values.size:
        stored[:] = values


def shard_index(path: Path, row: int, number: int = 0) -> tuple[Path, np.ndarray]:
    """The file that holds frame ``row``, and the (first byte, bytes) of each of its chunks, uint64 [S, 2]."""
    (rows, *_) = zarr.open_array(path / f"episode_{number}" / "frames", mode="r").shards
    file = chunk_file(path, "frames", row // rows, number)
    return file, np.frombuffer(file.read_bytes()[-16 * rows - 4 : -4], "<u8").reshape(rows, 2)


def lose_frame(path: Path, row: int, number: int = 0) -> None:
    """Makes the chunk of a frame one that was never written: the others stay as they are."""
    import google_crc32c

    file, index = shard_index(path, row, number)
    changed = index.copy()
    changed[row % len(index)] = 2**64 - 1
    raw = changed.tobytes()
    checksum = google_crc32c.value(raw).to_bytes(4, "little")
    file.write_bytes(file.read_bytes()[: -len(raw) - 4] + raw + checksum)


def damage_frame(path: Path, row: int, number: int = 0) -> None:
    """Flips a bit in the chunk of a frame."""
    file, index = shard_index(path, row, number)
    first, count = index[row % len(index)].tolist()
    flip_bit(file, first + count // 2)


def cut_off_end(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])


def flip_bit(file: Path, position: int | None = None) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2 if position is None else position] ^= 4
    file.write_bytes(content)


@dataclass
class FileServer:
    url: str
    asked: list[str] = field(default_factory=list)  # the paths of all requests


@contextlib.contextmanager
def file_server(find: Callable[[str], Path]) -> Iterator[FileServer]:
    """An HTTP server that answers a path, as requested, with the file that ``find`` returns for it."""
    running = FileServer("")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            running.asked.append(self.path)
            file = find(self.path)
            content = file.read_bytes() if file.is_file() else b""
            first, _, last = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
            size, start = len(content), int(first) if first else max(0, len(content) - int(last or len(content)))
            if file.is_file() and (first or last):
                content = content[start : int(last) + 1 if first and last else None]
                self.send_response(206 if content else 416)
                self.send_header("Content-Range", f"bytes {start}-{start + len(content) - 1}/{size}")
            else:
                self.send_response(200 if file.is_file() else 404)
            self.send_header("x-goog-generation", "1")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        request_queue_size = 256  # the default of 5 makes a client with many connections wait for seconds

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        running.url = f"http://127.0.0.1:{server.server_port}"
        yield running
        server.shutdown()
        thread.join()


def user_error(function: Callable[..., Any], *args: Any, **options: Any) -> str:
    """The message of the UserError that ``function`` raises, which must be one line."""
    with pytest.raises(UserError) as caught:
        function(*args, **options)
    (message,) = str(caught.value).split("\n")
    assert message
    return message


def read_episode(path: Path, number: int = 0) -> EpisodeInfo:
    """The metadata of an episode; raises its UserError where it is faulty."""
    (found,) = reader.read_episodes(LocalStore(path), [f"episode_{number}"])
    if isinstance(found, UserError):
        raise found
    return found


def read_array(path: Path, array: str, number: int = 0) -> np.ndarray:
    return np.asarray(reader.open_array(read_episode(path, number), array).read().result())
