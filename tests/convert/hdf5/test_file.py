"""HDF5 files are read alone and without fill values, and damage costs one episode."""

import contextlib
import fcntl
import itertools
import json
import re
import subprocess
import sys

import conversions
import h5py
import numpy as np
import pytest
from conversions import opened
from dataset_files import user_error

from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.errors import UserError

N = 20
IMAGES = np.random.default_rng(0).integers(1, 256, (N + 1, 8, 12, 3), np.uint8)
ACTIONS = np.random.default_rng(1).integers(0, 3, N)
POSITION = np.arange(N + 1) / 4
FRAMES = IMAGES[:N].transpose(0, 3, 1, 2)


@pytest.fixture
def minari(tmp_path):
    """An open file with two episodes, whose second one the tests change."""
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / "metadata.json").write_text(json.dumps({"action_space": {"type": "Discrete", "n": 3}, "fps": 10}))
    with h5py.File(folder / "main_data.hdf5", "w") as file:
        for i in range(2):
            file[f"episode_{i}/observations/pixels"] = IMAGES
            file[f"episode_{i}/observations/pos"] = POSITION
            file[f"episode_{i}/actions"] = ACTIONS
        with h5py.File(tmp_path / "other.hdf5", "w") as other:
            other["pixels"], other["actions"] = IMAGES, ACTIONS
            other.copy(file["episode_0"], "episode_1")
        yield file


def replaced(file, name, *args, **kwargs):
    path = f"episode_1/{name}"
    del file[path]
    return file.create_dataset(path, *args, **kwargs)


def converted(file, tmp_path):
    """Closes the file and converts it: at most the second episode fails, and its error, or None, is returned."""
    name = file.filename
    file.close()
    out, error = tmp_path / "out.zarr", None
    try:
        conversions.converted(tmp_path / "d", out, "minari")
    except UserError as raised:
        error = str(raised)
        assert "1 of 2 recordings" in error
        assert f"{name}: episode_1" in error
    dataset = ZarrGameplayDataset(out)
    assert len(dataset.episodes) == (1 if error else 2)
    for i in range(len(dataset.episodes)):
        np.testing.assert_array_equal(dataset.frames(i, range(N)), FRAMES)
        np.testing.assert_array_equal(dataset.actions(i), np.eye(3, dtype=bool)[ACTIONS])
        np.testing.assert_array_equal(dataset.state(i)[:, 0], POSITION[:N])
    return error


def test_links_within_the_file_are_followed(minari, tmp_path):
    minari["store/all"] = minari["episode_1/observations"]  # two names of one group
    del minari["episode_1"]
    minari["episode_1"] = h5py.SoftLink("kept/second")
    minari["kept/second/observations/pixels"] = h5py.SoftLink("/alias/pixels")
    minari["alias"] = h5py.SoftLink("/store/all/.")
    minari["kept/second/observations/pos"] = minari["store/all/pos"]
    minari["kept/second/observations/circle"] = minari["kept/second/observations"]
    minari["kept/second/actions"] = h5py.SoftLink("/episode_0/actions")
    assert converted(minari, tmp_path) is None


@pytest.mark.parametrize(("name", "link", "message"), [
    *[("episode_1", h5py.ExternalLink(f"{name}.hdf5", "/"), f"link into another file, {name}.hdf5")
      for name in ("other", "gone")],
    ("episode_1", h5py.SoftLink("/nowhere"), "link to /nowhere, which is not in the file"),
    ("episode_1", h5py.SoftLink("/episode_1"), "leads in a circle"),
    ("episode_1/actions", h5py.ExternalLink("other.hdf5", "/actions"), "another file, other.hdf5"),
    ("episode_1/observations", h5py.SoftLink("/out/of"), "another file, other.hdf5"),
    ("episode_1/observations/pixels", h5py.ExternalLink("other.hdf5", "/pixels"), "another file, other.hdf5"),
    ("episode_1/observations/pos", h5py.SoftLink("gone"), "link to gone, which is not in the file"),
])  # fmt: skip
def test_a_link_out_of_the_file_or_to_nothing_is_refused(minari, tmp_path, monkeypatch, name, link, message):
    monkeypatch.chdir(tmp_path)
    minari["out"] = h5py.ExternalLink("other.hdf5", "/")
    del minari[name]
    minari[name] = link
    assert message in converted(minari, tmp_path)


def test_links_that_multiply_are_refused(minari, tmp_path):
    groups = [minari.create_group(f"g{i}") for i in range(20)]
    for outer, inner in itertools.pairwise(groups):
        outer["a"], outer["b"] = inner, inner
    minari["episode_1/observations/many"] = groups[0]
    assert "more than 2000 arrays and groups" in converted(minari, tmp_path)


@pytest.mark.parametrize(("name", "whole", "written", "chunks", "frame"), [
    ("observations/pixels", IMAGES, [slice(0, 12)], (1, 8, 12, 3), 12),
    ("observations/pixels", IMAGES, [slice(0, 12), slice(16, 21)], (4, 8, 12, 1), 12),
    ("observations/pixels", IMAGES, [], None, 0),
    ("observations/pos", POSITION, [slice(5, 21)], (5,), 0),
    ("observations/pos", POSITION, [], None, 0),
    ("actions", ACTIONS, [slice(0, 10)], (10,), 10),
    ("actions", ACTIONS, [], None, 0),
    ("observations/pixels", IMAGES, [slice(0, 20)], (1, 8, 12, 3), None),  # everything that is converted is there
    ("observations/pixels", IMAGES, [slice(0, 21)], (2, 3, 5, 2), None),
])  # fmt: skip
def test_data_that_were_never_written_are_refused(minari, tmp_path, name, whole, written, chunks, frame):
    data = replaced(minari, name, whole.shape, whole.dtype, chunks=chunks)
    for rows in written:
        data[rows] = whole[rows]
    error = converted(minari, tmp_path)
    if frame is None:
        assert error is None
    else:
        assert f"episode_1 frame {frame}: '{name.rpartition('/')[2]}' was never written" in error


def test_zeros_that_were_written_are_read(minari, tmp_path):
    replaced(minari, "observations/pixels", data=np.zeros_like(IMAGES), chunks=(1, 8, 12, 3), compression="gzip")
    minari.close()
    recording = opened(tmp_path / "d", "minari").read("episode_1")
    assert sum(not frame.any() for frame, _, _ in recording.steps) == N


def virtual(file, *parts, rows=N + 1):
    """Puts the images together from (first row, sources)."""
    layout = h5py.VirtualLayout((rows, *IMAGES.shape[1:]), np.uint8)
    for first, source in parts:
        layout[first : first + source.shape[0]] = source
    del file["episode_1/observations/pixels"]
    file.create_virtual_dataset("episode_1/observations/pixels", layout)


def test_virtual_arrays_within_the_file_are_read(minari, tmp_path):
    minari["parts/first"], minari["parts/second"] = IMAGES[:9], IMAGES[5:]
    virtual(minari, (9, h5py.VirtualSource(minari["parts/second"])[4:]), (0, h5py.VirtualSource(minari["parts/first"])))
    assert converted(minari, tmp_path) is None


@contextlib.contextmanager
def changed(tmp_path, message):
    """Opens the file to be changed; then reading the second episode is refused."""
    with h5py.File(tmp_path / "d" / "main_data.hdf5", "a") as file:
        yield file
    assert message in user_error(opened(tmp_path / "d", "minari").read, "episode_1")


def test_virtual_arrays_of_other_files_or_with_holes_are_refused(minari, tmp_path):
    minari["part"] = IMAGES[:9]
    minari.create_dataset("empty", IMAGES.shape, np.uint8, chunks=(1, 8, 12, 3))
    minari.close()
    with changed(tmp_path, "'pixels' is a virtual array of data in another file, left_behind") as file:
        virtual(file, (0, h5py.VirtualSource("left_behind.hdf5", "/images", IMAGES.shape)))
    with changed(tmp_path, "episode_1 frame 9: 'pixels' was never written") as file:
        virtual(file, (0, h5py.VirtualSource(file["part"])), (12, h5py.VirtualSource(file["part"])))
    for source, message in (("gone", "of a form that is not read"), ("part", "more than 'part' holds")):
        with changed(tmp_path, message) as file:
            virtual(file, (0, h5py.VirtualSource(".", source, IMAGES.shape)))
    with changed(tmp_path, "episode_1 frame 0: 'empty' was never written") as file:
        virtual(file, (0, h5py.VirtualSource(file["empty"])))


def test_external_storage_is_not_read(minari, tmp_path):
    (tmp_path / "raw").write_bytes(IMAGES.tobytes())
    place = [(str(tmp_path / "raw"), 0, h5py.h5f.UNLIMITED)]
    replaced(minari, "observations/pixels", IMAGES.shape, np.uint8, external=place)
    assert f"'pixels' is kept in another file, {tmp_path / 'raw'}, which is not read" in converted(minari, tmp_path)


def with_filter(file, number, values=()):
    del file["episode_1/observations/pixels"]
    made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    made.set_chunk((1, *IMAGES.shape[1:]))
    made.set_filter(number, h5py.h5z.FLAG_OPTIONAL, values)
    space = h5py.h5s.create_simple(IMAGES.shape)
    stored = h5py.h5d.create(file["episode_1/observations"].id, b"pixels", h5py.h5t.NATIVE_UINT8, space, made)
    for i, image in enumerate(IMAGES):
        stored.write_direct_chunk((i, 0, 0, 0), image.tobytes())


def test_a_filter_that_is_not_installed_is_named_with_what_helps(minari, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)  # as if it were not installed
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda number: number < 256)
    minari.close()
    with changed(tmp_path, "32001 (blosc), which is not installed: run 'uv sync --extra hdf5'") as file:
        with_filter(file, 32001, (2, 2, 1, 288, 5, 1, 1))
    with changed(tmp_path, "which is not installed: write the file again with gzip") as file:
        with_filter(file, 40000)


def test_the_filters_of_hdf5plugin_are_read(minari, tmp_path):
    plugin = pytest.importorskip("hdf5plugin")
    replaced(minari, "observations/pixels", data=IMAGES, chunks=(4, 8, 12, 3), **plugin.Blosc(cname="zstd"))
    replaced(minari, "observations/pos", data=POSITION, chunks=(4,), **plugin.Bitshuffle())
    assert converted(minari, tmp_path) is None


def test_an_observation_that_is_no_array_is_refused(minari, tmp_path):
    del minari["episode_1/observations/pos"]
    minari["episode_1/observations/pos"] = np.dtype("f4")  # a type, not an array
    minari["episode_1/observations/bits"] = 0
    assert "a single value as 'bits'" in converted(minari, tmp_path)


def test_a_first_episode_whose_bytes_are_damaged_does_not_hide_the_others(minari, tmp_path):
    path, place = tmp_path / "d" / "main_data.hdf5", h5py.h5o.get_info(minari["episode_0/actions"].id).addr
    minari.close()
    raw = bytearray(path.read_bytes())
    raw[place : place + 16] = b"\xff" * 16
    path.write_bytes(raw)
    source = opened(tmp_path / "d", "minari")
    assert len(list(source.read("episode_1").steps)) == N
    assert re.search(r"cannot read .*: it is damaged", user_error(source.read, "episode_0"))


def test_the_error_says_if_a_file_is_cut_off_or_not_in_hdf5(minari, tmp_path):
    path = tmp_path / "d" / "main_data.hdf5"
    minari.close()
    for content, message in ((path.read_bytes()[:5000], "is cut off"), (b"", "not an HDF5"), (b"PK", "not an HDF5")):
        path.write_bytes(content)
        assert message in user_error(opened, tmp_path / "d", "minari")


LEAVE_OPEN = """
import h5py, os, sys
file = h5py.File(sys.argv[1], "w", libver="latest")
file["episode_0/actions"] = [1]
file.flush()
os._exit(0)
"""


def test_the_error_says_if_a_file_is_locked_or_was_left_open(minari, tmp_path):
    path = tmp_path / "d" / "main_data.hdf5"
    minari.close()
    with open(path, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "close the program that has it open" in user_error(opened, tmp_path / "d", "minari")
    subprocess.run([sys.executable, "-c", LEAVE_OPEN, str(path)], check=True)
    message = user_error(opened, tmp_path / "d", "minari")
    assert re.search(r"marked as being written: .* 'h5clear -s", message)
