import pickle
import shutil
from io import StringIO
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import zarr
from dataset_files import read_episode
from numcodecs.abc import Codec
from rich.console import Console
from zarr.codecs import numcodecs as v3

from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.errors import UserError
from BC_training.common.storage import reader
from BC_training.validate.validate import validate

QUIET = Console(file=StringIO())
pytestmark = pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3 specification")

CODECS = {
    "lz4": (2, lambda: {"compressors": numcodecs.LZ4()}),
    "lzma": (2, lambda: {"compressors": numcodecs.LZMA()}),
    "zstd with a checksum": (2, lambda: {"compressors": numcodecs.Zstd(checksum=True)}),
    "shuffle": (2, lambda: {"filters": [numcodecs.Shuffle(1)], "compressors": numcodecs.Zstd()}),
    "fletcher32": (2, lambda: {"filters": [numcodecs.Fletcher32()], "compressors": None}),
    "v3 lz4": (3, lambda: {"compressors": [v3.LZ4()]}),
    "v3 lzma": (3, lambda: {"compressors": [v3.LZMA()]}),
    "v3 zlib": (3, lambda: {"compressors": [v3.Zlib()]}),
    "v3 crc32": (3, lambda: {"compressors": [v3.Zstd(), v3.CRC32()]}),
}


def write(path: Path, written, zarr_format: int, how: dict, rows: int = 3) -> None:
    """Puts the arrays of ``written`` in place of those that ``path`` has, with other codecs."""
    for number, episode in enumerate(written):
        group = zarr.open_group(path / f"episode_{number}", mode="r+", use_consolidated=False)
        for name in ("frames", "actions", "state"):
            values = getattr(episode, name)
            shutil.rmtree(path / f"episode_{number}" / name)
            group.create_array(
                name,
                shape=values.shape,
                dtype=values.dtype,
                chunks=(rows, *(-(-n // 2) for n in values.shape[1:])),
                config={"write_empty_chunks": True},
                **how,
            )[:] = values


@pytest.mark.parametrize("codec", CODECS)
def test_what_zarr_python_decodes_is_read_as_it_was_written(tmp_path, make_dataset, codec):
    path, (zarr_format, how) = tmp_path / "x.zarr", CODECS[codec]
    written = make_dataset(path, [9, 5], size=(4, 6), zarr_format=zarr_format)
    write(path, written, zarr_format, how())
    dataset = ZarrGameplayDataset(path, validate_episodes=True)
    dataset.load_labels()
    assert dataset.skipped == []
    for e, episode in enumerate(written):
        np.testing.assert_array_equal(dataset.actions(e), episode.actions)
        np.testing.assert_array_equal(dataset.state(e), episode.state)
        order = np.random.default_rng(0).integers(0, len(episode.frames), 15)
        np.testing.assert_array_equal(dataset.frames(e, order), episode.frames[order])
    if codec in ("shuffle", "v3 crc32"):
        assert not [f for f in validate(path, QUIET, workers=1, repair_to=tmp_path / "y.zarr") if f.kind != "never"]
        np.testing.assert_array_equal(ZarrGameplayDataset(tmp_path / "y.zarr").frames(1, range(5)), written[1].frames)


@pytest.fixture
def lz4_dataset(tmp_path, make_dataset) -> Path:
    """A dataset of one episode with one row a chunk."""
    written = make_dataset(tmp_path / "x.zarr", [6], size=(8, 10), zarr_format=2)
    write(tmp_path / "x.zarr", written, 2, {"compressors": numcodecs.LZ4()}, rows=1)
    return tmp_path / "x.zarr"


@pytest.mark.parametrize(
    ("harm", "kind"),
    [
        (Path.unlink, "missing"),
        (lambda f: f.write_bytes(f.read_bytes()[:-3]), "damaged"),
        (lambda f: f.write_bytes(b""), "damaged"),
    ],
    ids=["missing", "cut", "empty"],
)
def test_a_chunk_that_is_not_whole_is_an_error_and_never_zeros(lz4_dataset, harm, kind):
    harm(lz4_dataset / "episode_0/frames/4.0.1.0")
    dataset = ZarrGameplayDataset(lz4_dataset)
    assert dataset.frames(0, [3, 5]).any()
    with pytest.raises(UserError, match="episode_0: cannot read 'frames'"):
        dataset.frames(0, [3, 4])
    found = [(f.kind, f.spans) for f in validate(lz4_dataset, QUIET, workers=1) if f.severity == "error"]
    assert found == [(kind, ((4, 4),))]


def test_an_array_can_be_sent_to_other_processes(lz4_dataset):
    array = reader.open_array(read_episode(lz4_dataset), "actions")
    copy = pickle.loads(pickle.dumps(array))
    np.testing.assert_array_equal(copy.read().result(), array.read().result())
    np.testing.assert_array_equal(copy[2].read().result(), copy[2:3].read().result()[0])


class Harmful:
    def __reduce__(self):
        return Path.touch, (Path("harmed"),)


class _Pickle(Codec):
    codec_id = "pickle"

    def encode(self, buf):
        return pickle.dumps(Harmful())

    def decode(self, buf, out=None):
        raise AssertionError


@pytest.mark.parametrize("place", ["compressor", "filter"])
def test_a_codec_that_would_run_code_from_the_file_is_refused_by_name(tmp_path, make_dataset, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    (written,) = make_dataset(tmp_path / "x.zarr", [4], size=(8, 10), zarr_format=2)
    how = {"compressors": _Pickle()} if place == "compressor" else {"filters": [_Pickle()], "compressors": None}
    write(tmp_path / "x.zarr", [written], 2, how)
    with pytest.raises(UserError, match="stored with codec 'pickle', which is not supported"):
        ZarrGameplayDataset(tmp_path / "x.zarr").load_labels()
    findings = validate(tmp_path / "x.zarr", QUIET, workers=1)
    assert {f.kind for f in findings} == {"codec"}
    assert not (tmp_path / "harmed").exists()
