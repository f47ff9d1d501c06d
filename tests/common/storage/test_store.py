import io
import os
import pickle
import shutil
import subprocess
import sys
import urllib.parse
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import numpy as np
import pytest
from dataset_files import FileServer, chunk_file, file_server
from moto.server import ThreadedMotoServer
from rich.console import Console

from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.errors import UserError
from BC_training.common.storage import remote_store
from BC_training.common.storage.store import is_remote, open_store
from BC_training.common.storage.writer import Names, recording
from BC_training.validate.validate import validate

Upload = Callable[[Path, str], None]


@pytest.fixture
def http_server(tmp_path) -> Iterator[FileServer]:
    """A server of the files in ``tmp_path``."""
    with file_server(lambda path: tmp_path / path.strip("/")) as server:
        yield server


@pytest.fixture(scope="module")
def s3_address() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def upload(s3_address, monkeypatch) -> Upload:
    """Puts a folder onto an S3 server, which the environment names."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_address)
    monkeypatch.setattr(remote_store, "_PROBED", 10)  # the server takes long for a request
    client = boto3.client("s3", endpoint_url=s3_address, region_name="us-east-1")
    client.create_bucket(Bucket="bucket")

    def put(folder: Path, key: str) -> None:
        for file in folder.rglob("*"):
            if file.is_file():
                client.put_object(Bucket="bucket", Key=f"{key}/{file.relative_to(folder)}", Body=file.read_bytes())

    return put


def require_same(address: str | Path, folder: Path) -> None:
    """The dataset at ``address`` reads as the one in ``folder``."""
    other, local = ZarrGameplayDataset(address), ZarrGameplayDataset(folder)
    assert [e.name for e in other.episodes] == [e.name for e in local.episodes]
    assert (other.action_names, other.state_names, other.fps) == (local.action_names, local.state_names, local.fps)
    for i, episode in enumerate(local.episodes):
        np.testing.assert_array_equal(other.frames(i, range(episode.length)), local.frames(i, range(episode.length)))
        np.testing.assert_array_equal(other.actions(i), local.actions(i))
        np.testing.assert_array_equal(other.state(i), local.state(i))


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_dataset_over_http_reads_as_the_local_one(tmp_path, make_dataset, http_server, zarr_format):
    make_dataset(tmp_path / "x.zarr", [3, 2, 4], numbers=[0, 2, 60], zarr_format=zarr_format)
    require_same(f"{http_server.url}/x.zarr", tmp_path / "x.zarr")


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_dataset_on_s3_reads_as_the_local_one(tmp_path, make_dataset, upload, zarr_format):
    rows = [np.array([[True, False], [False, False], [True, True]]), np.eye(2, dtype=bool)]
    options = {"actions": 2, "rows": rows, "write_empty_chunks": zarr_format == 3}  # older writers leave out zeros
    make_dataset(tmp_path / "x.zarr", [3, 2], numbers=[1, 9], zarr_format=zarr_format, **options)
    upload(tmp_path / "x.zarr", f"games/{zarr_format}.zarr")
    require_same(f"s3://bucket/games/{zarr_format}.zarr/", tmp_path / "x.zarr")


GOOGLE = """
import sys
import numpy as np
from BC_training.common.dataset import ZarrGameplayDataset
remote, local = ZarrGameplayDataset("gs://bucket/games/x.zarr"), ZarrGameplayDataset(sys.argv[1])
assert [e.name for e in remote.episodes] == [e.name for e in local.episodes]
np.testing.assert_array_equal(remote.frames(1, range(2)), local.frames(1, range(2)))
"""


def test_a_dataset_on_google_cloud_reads_as_the_local_one(tmp_path, make_dataset):
    """The server answers downloads as Google's JSON API does."""
    make_dataset(tmp_path / "x.zarr", [3, 2])

    def find(path: str) -> Path:
        key = urllib.parse.unquote(path.partition("/b/bucket/o/")[2].partition("?")[0])
        return tmp_path / (key.removeprefix("games/") if key.startswith("games/") else "nothing")

    with file_server(find) as server:
        settings = {"TENSORSTORE_GCS_HTTP_URL": server.url, "GOOGLE_AUTH_TOKEN_FOR_TESTING": "token"}
        command = [sys.executable, "-c", GOOGLE, tmp_path / "x.zarr"]
        subprocess.run(command, env=os.environ | settings, check=True, timeout=60)


def test_opening_a_remote_dataset_reads_metadata_only_and_a_missing_chunk_is_an_error(
    tmp_path, make_dataset, http_server
):
    make_dataset(tmp_path / "x.zarr", [3, 2])
    dataset = ZarrGameplayDataset(f"{http_server.url}/x.zarr")
    assert http_server.asked
    assert {Path(path).name for path in http_server.asked} <= {"zarr.json", ".zgroup", ".zattrs", ".zarray"}
    chunk_file(tmp_path / "x.zarr", "frames", 1).unlink()
    with pytest.raises(UserError, match="episode_0"):
        dataset.frames(0, [1])
    with pytest.raises(UserError, match="not a zarr group"):
        ZarrGameplayDataset(f"{http_server.url}/none.zarr")


def test_an_unreachable_server_is_an_error_in_one_line():
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:1/x\.zarr") as error:
        ZarrGameplayDataset("http://127.0.0.1:1/x.zarr")
    assert "\n" not in str(error.value)
    assert "source locations" not in str(error.value)


def test_missing_s3_credentials_are_an_error(tmp_path, make_dataset, upload, monkeypatch):
    make_dataset(tmp_path / "x.zarr", [1])
    upload(tmp_path / "x.zarr", "private.zarr")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("HOME", "/nonexistent")
    with pytest.raises(UserError, match="credentials"):
        ZarrGameplayDataset("s3://bucket/private.zarr")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("gs://bucket/a/x.zarr", {"driver": "gcs", "bucket": "bucket", "path": "a/x.zarr/e/"}),
        ("https://host/a/x.zarr/", {"driver": "http", "base_url": "https://host", "path": "/a/x.zarr/e/"}),
        ("http://host/x?token=1", {"driver": "http", "base_url": "http://host?token=1", "path": "/x/e/"}),
    ],
)
def test_an_address_becomes_a_tensorstore_specification(address, expected):
    assert is_remote(address)
    store = pickle.loads(pickle.dumps(open_store(address)))  # as it is sent to another process
    assert store.kvstore("e") == expected


@pytest.mark.parametrize("address", ["s3:/bucket/x", "http:/host/x", "S3:/bucket/x", "file:///x", "ftp://host/x"])
def test_a_mistyped_address_is_not_taken_for_a_missing_folder(address):
    with pytest.raises(UserError, match=r"write two slashes|by its path alone"):
        open_store(address)


# --- links and odd paths


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
    findings = validate(tmp_path / "x.zarr", Console(file=io.StringIO()), workers=1)
    assert [(f.kind, f.episode) for f in findings if f.severity == "error"] == [("link", "episode_0")]


def test_links_within_the_dataset_and_to_it_are_followed(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [3])
    (tmp_path / "x.zarr" / "episode_7").symlink_to("episode_0")
    (tmp_path / "link").symlink_to("x.zarr")
    dataset = ZarrGameplayDataset(tmp_path / "link")
    np.testing.assert_array_equal(dataset.frames(1, range(3)), dataset.frames(0, range(3)))


@pytest.mark.parametrize("place", ["episode_0", "episode_0/actions", "episode_0/frames/c/1", "episode_7"])
def test_a_link_in_a_circle_is_a_fault_of_its_episode(tmp_path, make_dataset, place):
    path = tmp_path / "x.zarr"
    make_dataset(path, [3, 4])
    if (path / place).exists():
        shutil.rmtree(path / place)
    (path / place).symlink_to(path / place)
    with pytest.raises(UserError):
        ZarrGameplayDataset(path).frames(0, [1])
    findings = validate(path, Console(file=io.StringIO()), workers=1)
    assert [(f.kind, f.episode) for f in findings if f.severity == "error"] == [("link", place.split("/")[0])]


def test_a_path_that_is_not_utf8_is_refused_before_anything_is_written(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [3])
    odd = tmp_path / "caf\udce9"
    (tmp_path / "x.zarr").rename(odd)
    with pytest.raises(UserError, match=r"caf\\udce9 is no path in UTF-8"):
        ZarrGameplayDataset(odd)
    with pytest.raises(UserError, match="is no path in UTF-8"), recording(odd / "y.zarr", Names(("a",))):
        pass
    assert not (odd / "y.zarr").exists()


def test_a_folder_in_place_of_a_file_is_an_error(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [3])
    (tmp_path / "x.zarr/zarr.json").unlink()
    (tmp_path / "x.zarr/zarr.json").mkdir()
    with pytest.raises(UserError, match=r"cannot read .*zarr\.json"):
        ZarrGameplayDataset(tmp_path / "x.zarr")


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
    require_same(file, tmp_path / "x.zarr")
    assert open_store(file).episode_names() == ["episode_2", "episode_11"]
    chunk_file(tmp_path / "x.zarr", "frames", 1, 2).unlink()
    file = zipped(tmp_path / "x.zarr", tmp_path / "lacking.zip", top=top, compression=compression)
    with pytest.raises(UserError, match="episode_2: cannot read 'frames'"):
        ZarrGameplayDataset(file).frames(0, [1])


def test_a_zip_file_that_does_not_hold_one_dataset_is_refused(tmp_path, make_dataset):
    make_dataset(tmp_path / "all/x.zarr", [3])
    make_dataset(tmp_path / "all/y.zarr", [3])
    whole = zipped(tmp_path / "all/x.zarr", tmp_path / "x.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    for file, reason in (
        (zipped(tmp_path / "all", tmp_path / "two.zip"), r"several zarr groups \(x.zarr, y.zarr\)"),
        (tmp_path / "empty.zip", "no zarr group"),
        (tmp_path / "cut.zip", "copy it again"),
    ):
        with pytest.raises(UserError, match=reason) as caught:
            open_store(file)
        assert str(file) in str(caught.value)


def test_nothing_is_recorded_into_a_zip_file(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [3])
    file = zipped(tmp_path / "x.zarr", tmp_path / "x.zarr.zip")
    before = file.read_bytes()
    with pytest.raises(UserError, match="is a ZIP file, which is read but not written"), recording(file, Names(("a",))):
        pass
    assert file.read_bytes() == before


def test_a_member_of_a_zip_file_that_cannot_be_read_does_not_count_as_missing(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [3])
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as packed:
        for file in (tmp_path / "x.zarr").rglob("*"):
            method = zipfile.ZIP_LZMA if "actions" in file.parts else zipfile.ZIP_STORED
            packed.write(file, file.relative_to(tmp_path / "x.zarr"), method)
    with pytest.raises(UserError, match=r"x\.zip: 'episode_0/actions.* unpack it and give the folder"):
        ZarrGameplayDataset(tmp_path / "x.zip")
