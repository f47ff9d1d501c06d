import json
import shutil
from collections.abc import Callable

import numpy as np
import pytest
import zarr
from dataset_files import chunk_file, flip_bit, read_episode, user_error
from hypothesis import given, settings
from hypothesis import strategies as st

from BC_training.common.storage import reader
from BC_training.common.storage.store import LocalStore

BOTH_FORMATS = pytest.mark.parametrize("zarr_format", [2, 3])


# --- what is no dataset


def test_a_path_without_a_dataset_is_an_error(tmp_path):
    assert f"no dataset at {tmp_path}/x.zarr: check the path, or record one" in user_error(
        reader.read_root, LocalStore(tmp_path / "x.zarr")
    )
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("hello")
    zarr.create_array(tmp_path / "array.zarr", shape=(3,), dtype="uint8")
    for name in ("folder", "file", "array.zarr"):
        assert "not a zarr group" in user_error(reader.read_root, LocalStore(tmp_path / name))


def test_another_layout_is_named_with_what_to_do(tmp_path, make_dataset):
    make_dataset(tmp_path / "sub/x.zarr", [2], root_attributes={"keys": None})
    message = user_error(reader.read_root, LocalStore(tmp_path / "sub/x.zarr"))
    exec(message.split("in Python: ")[1], {})
    assert reader.read_root(LocalStore(tmp_path / "sub/x.zarr"))["keys"] == ["name_0", "name_1"]
    message = user_error(reader.read_root, LocalStore(tmp_path / "sub/x.zarr/episode_0"))
    assert f"one episode; give the folder that holds it, {tmp_path}/sub/x.zarr" in message
    (tmp_path / "sub/y.zarr").mkdir()
    assert "in it are x.zarr, y.zarr" in user_error(reader.read_root, LocalStore(tmp_path / "sub"))
    for zarr_format in (2, 3):
        buffer = zarr.open_group(tmp_path / f"buffer{zarr_format}.zarr", mode="w", zarr_format=zarr_format)
        buffer.create_group("data")
        buffer.create_group("meta").create_array("episode_ends", data=np.array([3, 7]))
        message = user_error(reader.read_root, LocalStore(tmp_path / f"buffer{zarr_format}.zarr"))
        assert "a diffusion-policy replay buffer" in message
        assert "'Your own dataset' in BC_training/QUICKSTART.md" in message


def test_damaged_root_metadata_is_named_and_can_be_replaced_as_the_message_says(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [2])
    for damaged in ('{"node_type": "gro', "[1]"):
        (tmp_path / "x.zarr/zarr.json").write_text(damaged)
        message = user_error(reader.read_root, LocalStore(tmp_path / "x.zarr"))
        assert "zarr.json" in message
    proposed = "{" + message.split(": {", 1)[1]
    for names in ([f"a{i}" for i in range(7)], ["s0", "s1", "s2"]):
        proposed = proposed.replace("[...]", json.dumps(names), 1)
    (tmp_path / "x.zarr/zarr.json").write_text(proposed)
    assert reader.read_root(LocalStore(tmp_path / "x.zarr"))["attributes"] == ["s0", "s1", "s2"]


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"version": reader.VERSION + 1}, "newer than 1: update this program"),
        ({"format": "eventwise"}, "'eventwise'"),
        ({"keys": None}, "'keys'"),
    ],
)
def test_root_attributes_that_cannot_be_used_are_refused(tmp_path, make_dataset, attributes, message):
    make_dataset(tmp_path / "x.zarr", [2], root_attributes=attributes)
    assert message in user_error(reader.read_root, LocalStore(tmp_path / "x.zarr"))


def test_an_episode_that_lacks_what_it_needs_is_refused(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [2, 2, 2], state=0)
    assert set(read_episode(tmp_path / "x.zarr").arrays) == {"frames", "actions"}
    for number, name in ((0, "frames"), (1, "actions")):
        shutil.rmtree(tmp_path / "x.zarr" / f"episode_{number}" / name)
        assert f"no array '{name}'" in user_error(read_episode, tmp_path / "x.zarr", number)
    (tmp_path / "x.zarr" / "episode_7").mkdir()
    assert "not a zarr group" in user_error(read_episode, tmp_path / "x.zarr", 7)


# --- damage


def test_a_flipped_bit_is_an_error(tmp_path, make_dataset):
    """In zarr v3, whose chunks have a checksum; the Blosc chunks of v2 have none."""
    make_dataset(tmp_path / "x.zarr", [2], size=(4, 4))
    file = chunk_file(tmp_path / "x.zarr", "frames", 1)
    whole = file.read_bytes()
    array = reader.open_array(read_episode(tmp_path / "x.zarr"), "frames")
    for position in range(len(whole)):
        file.write_bytes(whole)
        flip_bit(file, position)
        with pytest.raises(ValueError, match="Error reading"):
            array[1].read().result()


# --- actions whose zero chunks were left out

PRESSES = np.array([[0, 0, 0], [1, 0, 0], [0, 0, 0], [0, 1, 1]], bool)  # no button is pressed in rows 0 and 2


@pytest.fixture
def read_actions(tmp_path, make_dataset) -> Callable[..., np.ndarray]:
    """Writes actions, by default as older writers do, and reads them after ``harm``."""

    def read(rows=PRESSES, harm=lambda path: None, zarr_format=2, write_empty_chunks=False, **root) -> np.ndarray:
        path = tmp_path / "x.zarr"
        options = {"zarr_format": zarr_format, "write_empty_chunks": write_empty_chunks, "rows": [rows]}
        attributes = {"format": None, "version": None} | root
        make_dataset(path, [len(rows)], actions=rows.shape[1], root_attributes=attributes, **options)
        if zarr_format == 3:  # one row a chunk, as in the older format
            group = zarr.open_group(path / "episode_0")
            group.create_array("actions", shape=rows.shape, dtype=bool, chunks=(1, 3), overwrite=True)[:] = rows
        harm(path)
        return reader.read_actions(read_episode(path))

    return read


@BOTH_FORMATS
def test_left_out_zero_chunks_of_actions_mean_no_button(tmp_path, read_actions, zarr_format):
    np.testing.assert_array_equal(read_actions(zarr_format=zarr_format), PRESSES)
    assert not chunk_file(tmp_path / "x.zarr", "actions", 0).exists()
    assert not chunk_file(tmp_path / "x.zarr", "actions", 2).exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        # Row 2 is written, though it is all zeros.
        ({"harm": lambda p: chunk_file(p, "actions", 0).unlink(), "write_empty_chunks": True}, "missing"),
        ({"rows": np.zeros((4, 3), bool)}, "missing"),
        ({"format": reader.FORMAT, "version": reader.VERSION}, "missing"),
        ({"harm": lambda p: chunk_file(p, "actions", 1).write_bytes(b"")}, "Error reading"),
    ],
    ids=["zeros were written", "no chunk is there", "this program's own format", "another chunk is damaged"],
)
def test_a_missing_chunk_of_actions_is_otherwise_an_error(read_actions, options, message):
    with pytest.raises(ValueError, match=message):
        read_actions(**options)


@settings(max_examples=15)
@given(presses=st.lists(st.booleans(), min_size=1, max_size=23), rows=st.integers(1, 7))
def test_left_out_zero_chunks_of_any_size_mean_no_button(tmp_path_factory, make_dataset, presses, rows):
    """Where no button is ever pressed, nothing shows that zeros were left out: that is an error."""
    path = tmp_path_factory.mktemp("dataset") / "x.zarr"
    actions = np.array([[p, False] for p in presses])
    attributes = {"format": None, "version": None}
    make_dataset(path, [len(actions)], size=(1, 1), actions=2, state=0, rows=[actions], root_attributes=attributes)
    group = zarr.open_group(path / "episode_0")
    stored = group.create_array("actions", shape=actions.shape, dtype=bool, chunks=(rows, 2), overwrite=True)
    stored[:] = actions  # zarr-python leaves zero chunks out
    if actions.any():
        np.testing.assert_array_equal(reader.read_actions(read_episode(path)), actions)
    else:
        with pytest.raises(ValueError, match="missing"):
            reader.read_actions(read_episode(path))
