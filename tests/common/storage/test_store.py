import http.server
import io
import os
import pickle
import shutil
import subprocess
import sys
import threading
import urllib.parse
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import boto3
import numpy as np
import pytest
from moto.server import ThreadedMotoServer
from rich.console import Console

from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.errors import UserError
from BC_training.common.storage.remote_store import RemoteStore
from BC_training.common.storage.store import LocalStore, is_remote, open_store
from BC_training.common.storage.writer import recording
from BC_training.validate import validate


@pytest.fixture
def http_server(tmp_path) -> Iterator[SimpleNamespace]:
    """A static file server of ``tmp_path``; remembers what was asked."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path))

        def log_message(self, *_):
            asked.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield SimpleNamespace(url=f"http://127.0.0.1:{server.server_port}", asked=asked)
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def s3_server(tmp_path, monkeypatch) -> Iterator[SimpleNamespace]:
    """An S3 server; ``upload(folder, address)`` puts a folder there."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1")
    client.create_bucket(Bucket="bucket")

    def upload(folder: Path, key: str) -> None:
        for file in folder.rglob("*"):
            if file.is_file():
                client.put_object(Bucket="bucket", Key=f"{key}/{file.relative_to(folder)}", Body=file.read_bytes())

    yield SimpleNamespace(upload=upload)
    server.stop()


def same_dataset(remote: ZarrGameplayDataset, local: ZarrGameplayDataset) -> bool:
    assert [e.name for e in remote.episodes] == [e.name for e in local.episodes]
    assert (remote.action_names, remote.state_names, remote.fps) == (local.action_names, local.state_names, local.fps)
    for i, episode in enumerate(local.episodes):
        frames = range(episode.length)
        np.testing.assert_array_equal(remote.frames(i, frames), local.frames(i, frames))
        np.testing.assert_array_equal(remote.actions(i), local.actions(i))
        np.testing.assert_array_equal(remote.state(i), local.state(i))
    return True


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_dataset_over_http_is_the_local_one(tmp_path, make_dataset, http_server, zarr_format):
    make_dataset(tmp_path / "x.zarr", [3, 2, 4], numbers=[0, 2, 60], zarr_format=zarr_format)
    remote = ZarrGameplayDataset(f"{http_server.url}/x.zarr")
    assert same_dataset(remote, ZarrGameplayDataset(tmp_path / "x.zarr"))


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_dataset_on_s3_is_the_local_one(tmp_path, make_dataset, s3_server, zarr_format):
    make_dataset(tmp_path / "x.zarr", [3, 2], numbers=[1, 9], zarr_format=zarr_format)
    s3_server.upload(tmp_path / "x.zarr", "games/x.zarr")
    assert same_dataset(ZarrGameplayDataset("s3://bucket/games/x.zarr/"), ZarrGameplayDataset(tmp_path / "x.zarr"))


def test_opening_remotely_reads_metadata_only(tmp_path, make_dataset, http_server):
    make_dataset(tmp_path / "x.zarr", [3, 2])
    ZarrGameplayDataset(f"{http_server.url}/x.zarr")
    assert http_server.asked
    assert {Path(path).name for path in http_server.asked} <= {"zarr.json", ".zgroup", ".zattrs", ".zarray"}


def test_a_missing_chunk_over_http_is_an_error(tmp_path, make_dataset, http_server):
    make_dataset(tmp_path / "x.zarr", [3])
    dataset = ZarrGameplayDataset(f"{http_server.url}/x.zarr")
    (tmp_path / "x.zarr/episode_0/frames/c/1/0/0/0").unlink()
    with pytest.raises(UserError, match="episode_0"):
        dataset.frames(0, [1])


def test_zeros_left_out_by_older_writers_are_told_from_lost_ones_on_s3(tmp_path, make_dataset, s3_server):
    rows = [np.array([[True, False], [False, False], [True, True]])]
    make_dataset(tmp_path / "x.zarr", [3], actions=2, zarr_format=2, rows=rows, write_empty_chunks=False)
    s3_server.upload(tmp_path / "x.zarr", "x.zarr")
    np.testing.assert_array_equal(ZarrGameplayDataset("s3://bucket/x.zarr").actions(0), rows[0])


@pytest.mark.parametrize("address", ["http://127.0.0.1:1/x.zarr", "http://no.such.host.invalid/x.zarr"])
def test_an_unreachable_server_is_an_error_in_one_line(address):
    with pytest.raises(UserError) as error:
        ZarrGameplayDataset(address)
    assert address in str(error.value)
    assert "\n" not in str(error.value)


def test_nothing_at_an_address(http_server):
    with pytest.raises(UserError, match="not a zarr group"):
        ZarrGameplayDataset(f"{http_server.url}/none.zarr")


def test_an_unknown_kind_of_address():
    with pytest.raises(UserError, match="ftp://"):
        open_store("ftp://example.org/x.zarr")


def test_wrong_s3_credentials_are_an_error(s3_server, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("HOME", "/nonexistent")
    with pytest.raises(UserError, match="credentials"):
        ZarrGameplayDataset("s3://bucket/x.zarr")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("gs://bucket/a/x.zarr", {"driver": "gcs", "bucket": "bucket", "path": "a/x.zarr/e/"}),
        ("https://host/a/x.zarr/", {"driver": "http", "base_url": "https://host", "path": "/a/x.zarr/e/"}),
        ("http://host/x?token=1", {"driver": "http", "base_url": "http://host?token=1", "path": "/x/e/"}),
    ],
)
def test_how_tensorstore_reaches_an_address(address, expected):
    assert is_remote(address)
    assert open_store(address).kvstore("e") == expected


def test_stores_travel_to_other_processes(tmp_path):
    for store in (LocalStore(tmp_path), RemoteStore("http://host/x.zarr")):
        assert pickle.loads(pickle.dumps(store)).address == store.address


@pytest.mark.parametrize("place", ["episode_0", "episode_0/actions", "episode_0/actions/c", "episode_0/frames/c/1"])
def test_a_link_out_of_the_dataset_is_refused(tmp_path, make_dataset, place):
    make_dataset(tmp_path / "x.zarr", [3])
    outside = tmp_path / "outside"
    os.rename(tmp_path / "x.zarr" / place, outside)
    (tmp_path / "x.zarr" / place).symlink_to(outside)

    def read():
        dataset = ZarrGameplayDataset(tmp_path / "x.zarr")
        return dataset.actions(0), dataset.frames(0, [0])

    with pytest.raises(UserError, match=f"{place} is a symbolic link out of the dataset"):
        read()


def test_links_within_the_dataset_and_to_it_are_fine(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [3])
    (tmp_path / "x.zarr" / "episode_7").symlink_to("episode_0")
    (tmp_path / "link").symlink_to("x.zarr")
    dataset = ZarrGameplayDataset(tmp_path / "link")
    np.testing.assert_array_equal(dataset.frames(1, range(3)), dataset.frames(0, range(3)))


GOOGLE = """
import sys
import numpy as np
from BC_training.common.dataset import ZarrGameplayDataset
remote, local = ZarrGameplayDataset("gs://bucket/games/x.zarr"), ZarrGameplayDataset(sys.argv[1])
assert [e.name for e in remote.episodes] == [e.name for e in local.episodes]
np.testing.assert_array_equal(remote.frames(1, range(2)), local.frames(1, range(2)))
"""


def test_a_dataset_on_google_cloud_is_the_local_one(tmp_path, make_dataset):
    """Against a server that answers downloads as Google's JSON API does."""
    make_dataset(tmp_path / "x.zarr", [3, 2])

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            key = urllib.parse.unquote(self.path.partition("/b/bucket/o/")[2].partition("?")[0])
            file = tmp_path / key.removeprefix("games/")
            found = key.startswith("games/") and file.is_file()
            content = file.read_bytes() if found else b""
            self.send_response(200 if found else 404)
            self.send_header("x-goog-generation", "1")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        settings = {
            "TENSORSTORE_GCS_HTTP_URL": f"http://127.0.0.1:{server.server_port}",
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "token",
        }
        command = [sys.executable, "-c", GOOGLE, tmp_path / "x.zarr"]
        subprocess.run(command, env=os.environ | settings, check=True, timeout=60)
        server.shutdown()


# --- ZIP files


def zipped(folder: Path, file: Path, *, top: str = "", compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(file, "w", compression) as opened:
        for path in sorted(folder.rglob("*")):
            opened.write(path, top + str(path.relative_to(folder)))
    return file


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("top", ["", "x.zarr/", "data/x.zarr/"])
def test_a_zip_file_reads_as_the_folder_in_it(tmp_path, make_dataset, top, compression):
    make_dataset(tmp_path / "x.zarr", [3, 4], numbers=[2, 11])
    file = zipped(tmp_path / "x.zarr", tmp_path / "x.zarr.zip", top=top, compression=compression)
    plain, packed = ZarrGameplayDataset(tmp_path / "x.zarr"), ZarrGameplayDataset(file)
    assert [e.name for e in packed.episodes] == ["episode_2", "episode_11"]
    for e, info in enumerate(plain.episodes):
        np.testing.assert_array_equal(packed.frames(e, range(info.length)), plain.frames(e, range(info.length)))
        np.testing.assert_array_equal(packed.actions(e), plain.actions(e))
        np.testing.assert_array_equal(packed.state(e), plain.state(e))
    assert pickle.loads(pickle.dumps(packed.store)).episode_names() == ["episode_2", "episode_11"]


def test_a_zip_file_lacks_a_chunk(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [3])
    (tmp_path / "x.zarr/episode_0/frames/c/1/0/0/0").unlink()
    with pytest.raises(UserError, match="episode_0: cannot read 'frames'"):
        ZarrGameplayDataset(zipped(tmp_path / "x.zarr", tmp_path / "x.zip")).frames(0, [1])


def test_a_zip_file_without_one_dataset_in_it_is_named(tmp_path, make_dataset):
    make_dataset(tmp_path / "all/x.zarr", [3])
    make_dataset(tmp_path / "all/y.zarr", [3])
    whole = zipped(tmp_path / "all/x.zarr", tmp_path / "x.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    for file, said in (
        (zipped(tmp_path / "all", tmp_path / "two.zip"), r"several zarr groups \(x.zarr, y.zarr\)"),
        (tmp_path / "empty.zip", "no zarr group"),
        (tmp_path / "cut.zip", "copy it anew"),
    ):
        with pytest.raises(UserError, match=said) as caught:
            open_store(file)
        assert str(file) in str(caught.value)


def test_nothing_is_recorded_into_a_zip_file(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [3])
    file = zipped(tmp_path / "x.zarr", tmp_path / "x.zarr.zip")
    before = file.read_bytes()
    with pytest.raises(UserError, match="is a ZIP file, which is read but not written"), recording(file, ("a",), ()):
        pass
    assert file.read_bytes() == before


def test_a_member_of_a_zip_that_cannot_be_read_does_not_pass_for_missing(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [3])
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as packed:
        for file in (tmp_path / "x.zarr").rglob("*"):
            method = zipfile.ZIP_LZMA if "actions" in file.parts else zipfile.ZIP_STORED
            packed.write(file, file.relative_to(tmp_path / "x.zarr"), method)
    with pytest.raises(UserError, match=r"x\.zip: 'episode_0/actions.* unpack it and give the folder"):
        ZarrGameplayDataset(tmp_path / "x.zip")


@pytest.mark.parametrize("place", ["episode_0", "episode_0/actions", "episode_0/frames/c/1", "episode_7"])
def test_a_link_in_a_circle_costs_its_episode(tmp_path, make_dataset, place):
    path = tmp_path / "x.zarr"
    make_dataset(path, [3, 4])
    if (path / place).exists():
        shutil.rmtree(path / place)
    (path / place).symlink_to(path / place)
    with pytest.raises(UserError):
        ZarrGameplayDataset(path).frames(0, [1])
    findings = validate(path, Console(file=io.StringIO()), workers=1)
    assert [(f.kind, f.episode) for f in findings if f.severity == "error"] == [("link", place.split("/")[0])]


@pytest.mark.parametrize("address", ["s3:/bucket/x", "http:/host/x", "S3:/bucket/x", "file:///x", "ftp://host/x"])
def test_what_looks_like_an_address_is_told_from_a_missing_folder(address):
    with pytest.raises(UserError, match=r"write two slashes|by its path alone"):
        open_store(address)


def test_a_path_that_is_not_utf8_is_refused_before_anything_is_written(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [3])
    odd = tmp_path / "caf\udce9"
    (tmp_path / "x.zarr").rename(odd)
    with pytest.raises(UserError, match=r"caf\\udce9 is no path in UTF-8"):
        ZarrGameplayDataset(odd)
    with pytest.raises(UserError, match="is no path in UTF-8"), recording(odd / "y.zarr", ("a",), ()):
        pass
    assert not (odd / "y.zarr").exists()


def test_a_folder_in_place_of_a_file_is_an_error(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [3])
    (tmp_path / "x.zarr/zarr.json").unlink()
    (tmp_path / "x.zarr/zarr.json").mkdir()
    with pytest.raises(UserError, match=r"cannot read .*zarr\.json"):
        ZarrGameplayDataset(tmp_path / "x.zarr")
