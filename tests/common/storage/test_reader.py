import json
import shutil
import struct
import subprocess
import sys
import textwrap
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from numcodecs import Blosc, Zstd

from BC_training.common.errors import UserError
from BC_training.common.storage import reader
from BC_training.common.storage.metadata import EpisodeInfo
from BC_training.common.storage.store import LocalStore
from BC_training.common.storage.writer import EpisodeWriter, recording

KEYS, ATTRIBUTES = ("left", "right"), ("health", "ammo")


def user_error(function, *args) -> str:
    """The message of the UserError that ``function`` raises; it must be one line."""
    with pytest.raises(UserError) as caught:
        function(*args)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


def test_a_dataset_that_cannot_be_created_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    for path in (
        tmp_path / "file/x.zarr",
        tmp_path / "file/folder/x.zarr",
        tmp_path / ("x" * 300),
        Path("/proc/x.zarr"),
    ):
        with pytest.raises(UserError, match=f"cannot create {path}: .*; choose another folder") as caught:
            recording(path, KEYS, ATTRIBUTES).__enter__()
        assert "\n" not in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def episode(path: Path, number: int = 0) -> EpisodeInfo:
    (found,) = reader.read_episodes(LocalStore(path), [f"episode_{number}"])
    if isinstance(found, UserError):
        raise found
    return found


def read(path: Path, name: str, number: int = 0) -> np.ndarray:
    return reader.open_array(episode(path, number), name).read().result()


def chunk_file(path: Path, name: str, index: int, number: int = 0) -> Path:
    """The file of the chunk that begins at row ``index`` of an array whose chunks hold one row."""
    folder = path / f"episode_{number}" / name
    dimensions = {"frames": 4, "actions": 2, "state": 2}[name]
    rest = ["0"] * (dimensions - 1)
    if (folder / "zarr.json").exists():
        flat = folder / ".".join(["c", str(index), *rest])  # as the recorder writes
        return flat if flat.exists() else folder.joinpath("c", str(index), *rest)
    return folder / ".".join([str(index), *rest])


def write_episode(path: Path, length: int = 3, number: int = 0, seed: int = 0, attributes=ATTRIBUTES, **attrs):
    """Records one episode; returns its folder and what was appended."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (length, 3, 8, 10), np.uint8)
    actions = rng.random((length, len(KEYS))) < 0.5
    state = rng.normal(size=(length, len(attributes))).astype(np.float32)
    with recording(path, KEYS, attributes):
        writer = EpisodeWriter(path, number)
        for row in zip(frames, actions, state, strict=True):
            writer.append(*row[:2], row[2] if attributes else None)
        folder = writer.commit(attrs)
    return folder, frames, actions, state


# --- reading -------------------------------------------------------------------------------


def test_read_root_of_both_formats(tmp_path, make_dataset, make_older_dataset):
    make_dataset(tmp_path / "new.zarr", [2])
    make_older_dataset(tmp_path / "old.zarr", [2])
    assert reader.read_root(LocalStore(tmp_path / "new.zarr"))["keys"] == [f"a{i}" for i in range(7)]
    old = reader.read_root(LocalStore(tmp_path / "old.zarr"))
    assert "format" not in old
    assert len(old["keys"]) == 13
    assert len(old["attributes"]) == 19


def test_missing_path(tmp_path):
    message = user_error(reader.read_root, LocalStore(tmp_path / "nothing.zarr"))
    assert str(tmp_path / "nothing.zarr") in message
    assert "record" in message


def test_not_a_zarr_group(tmp_path, make_dataset):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("hello")
    zarr.create_array(tmp_path / "array.zarr", shape=(3,), dtype="uint8")
    for name in ("folder", "file", "array.zarr"):
        assert "not a zarr group" in user_error(reader.read_root, LocalStore(tmp_path / name))
    make_dataset(tmp_path / "x.zarr", [2])
    # A group, but no dataset.
    assert "keys" in user_error(reader.read_root, LocalStore(tmp_path / "x.zarr" / "episode_0"))


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


def test_the_root_written_anew_as_the_message_says_is_read(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [2])
    (tmp_path / "x.zarr/zarr.json").write_text("[1]")
    message = user_error(reader.read_root, LocalStore(tmp_path / "x.zarr"))
    anew = "{" + message.split(": {", 1)[1]
    names = [f'["{", ".join(f"a{i}" for i in range(7))}"]'.replace(", ", '", "'), '["s0", "s1", "s2"]']
    for each in names:
        anew = anew.replace("[...]", each, 1)
    (tmp_path / "x.zarr/zarr.json").write_text(anew)
    assert reader.read_root(LocalStore(tmp_path / "x.zarr"))["attributes"] == ["s0", "s1", "s2"]


IMPOSSIBLE = {
    "negative rows": lambda d: d.update(shape=[-4, *d["shape"][1:]]),
    "text": lambda d: d.update(shape=[str(n) for n in d["shape"]]),
    "floats": lambda d: d.update(shape=[float(n) for n in d["shape"]]),
    "true": lambda d: d.update(shape=[True, *d["shape"][1:]]),
    "no list": lambda d: d.update(shape=4),
    "too many rows": lambda d: d.update(shape=[10**15, *d["shape"][1:]]),
    "huge rows": lambda d: d.update(shape=[d["shape"][0], *(10**6 for _ in d["shape"][1:])]),
    "huge chunks": lambda d: set_chunks(d, [10**9] * len(d["shape"])),
    "chunks of nothing": lambda d: set_chunks(d, [0] * len(d["shape"])),
    "other dimensions": lambda d: set_chunks(d, [1]),
}


def set_chunks(document: dict, chunks: list[int]) -> None:
    if "chunks" in document:
        document["chunks"] = chunks
    else:
        document["chunk_grid"]["configuration"]["chunk_shape"] = chunks


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("name", ["frames", "actions", "state"])
@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_impossible_sizes_are_told_before_anything_is_allocated(tmp_path, make_dataset, case, name, zarr_format):
    make_dataset(tmp_path / "x.zarr", [2], zarr_format=zarr_format)
    file = tmp_path / "x.zarr/episode_0" / name / ("zarr.json" if zarr_format == 3 else ".zarray")
    document = json.loads(file.read_text())
    IMPOSSIBLE[case](document)
    file.write_text(json.dumps(document))
    assert f"the metadata of '{name}'" in user_error(episode, tmp_path / "x.zarr")


def test_newer_format_version_is_refused(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [2], root_attributes={"version": reader.VERSION + 1})
    message = user_error(reader.read_root, LocalStore(tmp_path / "x.zarr"))
    assert "newer" in message
    assert "update" in message


def test_another_format_is_refused(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [2], root_attributes={"format": "eventwise"})
    assert "eventwise" in user_error(reader.read_root, LocalStore(tmp_path / "x.zarr"))


@pytest.mark.parametrize("keys", [None, [], "left"])
def test_action_names_are_required(tmp_path, make_dataset, keys):
    make_dataset(tmp_path / "x.zarr", [2], root_attributes={"keys": keys})
    assert "'keys'" in user_error(reader.read_root, LocalStore(tmp_path / "x.zarr"))


def test_damaged_json_is_named(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [2])
    (tmp_path / "x.zarr" / "zarr.json").write_text('{"node_type": "gro')
    assert "zarr.json" in user_error(reader.read_root, LocalStore(tmp_path / "x.zarr"))


def test_episode_names_in_numeric_order_with_gaps(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [1, 1, 1, 1], numbers=[10, 2, 1, 30])
    (tmp_path / "x.zarr" / "episode_5").write_text("a file")
    for name in ("episode_x", "episode_3.bak", "my_episode_4", ".partial-6-123", "notes"):
        (tmp_path / "x.zarr" / name).mkdir()
    found = LocalStore(tmp_path / "x.zarr").episode_names()
    assert found == ["episode_1", "episode_2", "episode_10", "episode_30"]


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_episode_metadata(tmp_path, make_dataset, zarr_format):
    make_dataset(tmp_path / "x.zarr", [4], numbers=[6], zarr_format=zarr_format, fps=17.08)
    info = episode(tmp_path / "x.zarr", 6)
    assert (info.name, info.length) == ("episode_6", 4)
    assert info.attrs == {"frame_count": 4, "fps": 17.08}
    assert {name: (a.shape, a.dtype, a.zarr_format) for name, a in info.arrays.items()} == {
        "frames": ((4, 3, 24, 32), "uint8", zarr_format),
        "actions": ((4, 7), "bool", zarr_format),
        "state": ((4, 3), "float32", zarr_format),
    }


def test_episode_without_state(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [2], state=0)
    assert set(episode(tmp_path / "x.zarr").arrays) == {"frames", "actions"}


@pytest.mark.parametrize("name", ["frames", "actions"])
def test_episode_lacks_an_array(tmp_path, make_dataset, name):
    make_dataset(tmp_path / "x.zarr", [2])
    shutil.rmtree(tmp_path / "x.zarr" / "episode_0" / name)
    assert f"no array '{name}'" in user_error(episode, tmp_path / "x.zarr")


def test_episode_folder_that_is_no_group(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [2])
    (tmp_path / "x.zarr" / "episode_1").mkdir()
    assert "not a zarr group" in user_error(episode, tmp_path / "x.zarr", 1)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_damaged_array_metadata(tmp_path, make_dataset, zarr_format):
    make_dataset(tmp_path / "x.zarr", [2], zarr_format=zarr_format)
    file = tmp_path / "x.zarr" / "episode_0" / "frames" / ("zarr.json" if zarr_format == 3 else ".zarray")
    file.write_text(json.dumps({"node_type": "array", "zarr_format": zarr_format}))
    user_error(episode, tmp_path / "x.zarr")


@pytest.mark.parametrize("older", [False, True])
def test_arrays_read_back_as_written(tmp_path, make_dataset, make_older_dataset, older):
    make = make_older_dataset if older else make_dataset
    (written,) = make(tmp_path / "x.zarr", [5])
    for name in ("frames", "actions", "state"):
        array = read(tmp_path / "x.zarr", name)
        assert array.dtype == getattr(written, name).dtype
        np.testing.assert_array_equal(array, getattr(written, name))
    np.testing.assert_array_equal(reader.read_actions(episode(tmp_path / "x.zarr")), written.actions)


# --- damage --------------------------------------------------------------------------------


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("name", ["frames", "state"])
def test_missing_chunk_is_an_error_and_never_zeros(tmp_path, make_dataset, zarr_format, name):
    make_dataset(tmp_path / "x.zarr", [3], zarr_format=zarr_format)
    index = 1 if name == "frames" or zarr_format == 2 else 0
    chunk_file(tmp_path / "x.zarr", name, index).unlink()
    array = reader.open_array(episode(tmp_path / "x.zarr"), name)
    with pytest.raises(ValueError, match="missing"):
        array[index].read().result()


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_truncated_chunk_is_an_error(tmp_path, make_dataset, zarr_format):
    make_dataset(tmp_path / "x.zarr", [3], zarr_format=zarr_format)
    file = chunk_file(tmp_path / "x.zarr", "frames", 1)
    whole = file.read_bytes()
    array = reader.open_array(episode(tmp_path / "x.zarr"), "frames")
    for size in (0, 1, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="Error reading"):
            array[1].read().result()
        assert array[0].read().result().any()  # the others still read


def test_flipped_bit_is_an_error(tmp_path, make_dataset):
    """Of the v3 format, whose chunks carry a checksum; Blosc chunks of the older one do not."""
    make_dataset(tmp_path / "x.zarr", [2], size=(8, 8))
    file = chunk_file(tmp_path / "x.zarr", "frames", 1)
    whole = file.read_bytes()
    array = reader.open_array(episode(tmp_path / "x.zarr"), "frames")
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match="Error reading"):
            array[1].read().result()


def test_flipped_bit_in_what_the_recorder_wrote_is_an_error(tmp_path):
    """The recorder's own codecs, for actions and state as for frames."""
    write_episode(tmp_path / "x.zarr")
    for name in ("frames", "actions", "state"):
        file = chunk_file(tmp_path / "x.zarr", name, 0)
        whole = file.read_bytes()
        for position in (0, len(whole) // 2, len(whole) - 1):
            damaged = bytearray(whole)
            damaged[position] ^= 4
            file.write_bytes(damaged)
            with pytest.raises(ValueError, match="Error reading"):
                read(tmp_path / "x.zarr", name)


# --- actions whose zero chunks were left out -----------------------------------------------

PRESSES = np.array([[0, 0, 0], [1, 0, 0], [0, 0, 0], [0, 1, 1]], bool)  # rows 0 and 2 press nothing


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_left_out_zero_chunks_of_actions_mean_no_button(tmp_path, make_dataset, zarr_format):
    make_dataset(
        tmp_path / "x.zarr",
        [4],
        actions=3,
        zarr_format=zarr_format,
        rows=[PRESSES],
        write_empty_chunks=False,
        root_attributes={"format": None, "version": None},
    )
    if zarr_format == 3:  # one row a chunk, as in the older format
        group = zarr.open_group(tmp_path / "x.zarr" / "episode_0")
        group.create_array("actions", shape=(4, 3), dtype=bool, chunks=(1, 3), overwrite=True)[:] = PRESSES
    assert not chunk_file(tmp_path / "x.zarr", "actions", 0).exists()
    assert not chunk_file(tmp_path / "x.zarr", "actions", 2).exists()
    np.testing.assert_array_equal(reader.read_actions(episode(tmp_path / "x.zarr")), PRESSES)


def test_missing_action_chunk_is_an_error_where_zeros_were_written(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [4], actions=3, zarr_format=2, rows=[PRESSES], write_empty_chunks=True)
    chunk_file(tmp_path / "x.zarr", "actions", 0).unlink()  # row 2, all zeros, is there
    with pytest.raises(ValueError, match="missing"):
        reader.read_actions(episode(tmp_path / "x.zarr"))


def test_missing_action_chunk_is_an_error_where_none_is_there(tmp_path, make_dataset):
    rows = [np.zeros((4, 3), bool)]
    make_dataset(tmp_path / "x.zarr", [4], actions=3, zarr_format=2, rows=rows, write_empty_chunks=False)
    with pytest.raises(ValueError, match="missing"):
        reader.read_actions(episode(tmp_path / "x.zarr"))


def test_missing_action_chunk_is_an_error_in_our_own_format(tmp_path, make_dataset):
    make_dataset(
        tmp_path / "x.zarr",
        [4],
        actions=3,
        zarr_format=2,
        rows=[PRESSES],
        write_empty_chunks=False,
        root_attributes={"format": reader.FORMAT, "version": reader.VERSION},
    )
    with pytest.raises(ValueError, match="missing"):
        reader.read_actions(episode(tmp_path / "x.zarr"))


def test_damaged_action_chunk_is_an_error_where_zeros_are_left_out(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [4], actions=3, zarr_format=2, rows=[PRESSES], write_empty_chunks=False)
    chunk_file(tmp_path / "x.zarr", "actions", 1).write_bytes(b"")
    with pytest.raises(ValueError, match="Error reading"):
        reader.read_actions(episode(tmp_path / "x.zarr"))


@given(presses=st.lists(st.booleans(), min_size=1, max_size=23), rows=st.integers(1, 7))
def test_left_out_zero_chunks_of_several_rows(tmp_path_factory, make_dataset, presses, rows):
    """Whatever the chunk size: exact where something is pressed, an error where nothing ever is."""
    path = tmp_path_factory.mktemp("dataset") / "x.zarr"
    actions = np.array([[p, False] for p in presses])
    attributes = {"format": None, "version": None}
    make_dataset(path, [len(actions)], size=(1, 1), actions=2, state=0, rows=[actions], root_attributes=attributes)
    group = zarr.open_group(path / "episode_0")
    stored = group.create_array("actions", shape=actions.shape, dtype=bool, chunks=(rows, 2), overwrite=True)
    stored[:] = actions  # zarr-python leaves zero chunks out
    if actions.any():
        np.testing.assert_array_equal(reader.read_actions(episode(path)), actions)
    else:
        with pytest.raises(ValueError, match="missing"):
            reader.read_actions(episode(path))


# --- writing -------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 31, 32, 33, 70])
def test_round_trip(tmp_path, length):
    """Also across the blocks in which the writer flushes."""
    folder, frames, actions, state = write_episode(tmp_path / "x.zarr", length, fps=17.5, player="me")
    assert folder == tmp_path / "x.zarr" / "episode_0"
    for name, appended in (("frames", frames), ("actions", actions), ("state", state)):
        stored = read(tmp_path / "x.zarr", name)
        assert stored.dtype == appended.dtype
        np.testing.assert_array_equal(stored, appended)
    assert episode(tmp_path / "x.zarr").attrs == {"fps": 17.5, "player": "me", "frame_count": length}


def test_what_is_written_is_plain_zarr_v3(tmp_path):
    """zarr-python alone reads it; frames are one a chunk; every array is checksummed."""
    _, frames, actions, state = write_episode(tmp_path / "x.zarr", 40)
    root = zarr.open_group(tmp_path / "x.zarr", mode="r")
    assert dict(root.attrs) == {
        "format": "framewise",
        "version": 1,
        "keys": list(KEYS),
        "attributes": list(ATTRIBUTES),
    }
    group = root["episode_0"]
    for name, appended in (("frames", frames), ("actions", actions), ("state", state)):
        np.testing.assert_array_equal(group[name][:], appended)
        assert group[name].metadata.zarr_format == 3
        assert "crc32c" in (tmp_path / "x.zarr" / "episode_0" / name / "zarr.json").read_text()
    assert group["frames"].chunks == (1, 3, 8, 10)


def test_zeros_are_written_not_left_out(tmp_path):
    """A missing chunk means a loss only if black frames and idle buttons have their chunks too."""
    with recording(tmp_path / "x.zarr", KEYS, ATTRIBUTES):
        writer = EpisodeWriter(tmp_path / "x.zarr", 0)
        for _ in range(40):
            writer.append(np.zeros((3, 8, 10), np.uint8), np.zeros(2, bool), np.zeros(2, np.float32))
        writer.commit({})
    assert chunk_file(tmp_path / "x.zarr", "frames", 39).exists()
    for name, shape in (("frames", (40, 3, 8, 10)), ("actions", (40, 2)), ("state", (40, 2))):
        stored = read(tmp_path / "x.zarr", name)
        assert stored.shape == shape
        assert not stored.any()
    assert not reader.read_actions(episode(tmp_path / "x.zarr")).any()


def test_the_callers_arrays_may_be_filled_anew(tmp_path):
    frame, action, state = np.zeros((3, 8, 10), np.uint8), np.zeros(2, bool), np.zeros(2, np.float32)
    with recording(tmp_path / "x.zarr", KEYS, ATTRIBUTES):
        writer = EpisodeWriter(tmp_path / "x.zarr", 0)
        for t in range(4):
            frame[:], action[:], state[:] = t, t % 2, t
            writer.append(frame, action, state)
        writer.commit({})
    for name, expected in (("frames", [0, 1, 2, 3]), ("actions", [0, 1, 0, 1]), ("state", [0, 1, 2, 3])):
        np.testing.assert_array_equal(read(tmp_path / "x.zarr", name).reshape(4, -1)[:, 0], expected)


def test_state_is_optional(tmp_path):
    write_episode(tmp_path / "x.zarr", attributes=())
    assert set(episode(tmp_path / "x.zarr").arrays) == {"frames", "actions"}


def test_a_game_without_state_values_is_recorded(tmp_path):
    with recording(tmp_path / "x.zarr", KEYS, ()):
        writer = EpisodeWriter(tmp_path / "x.zarr", 0)
        writer.append(np.ones((3, 8, 10), np.uint8), np.ones(2, bool), np.zeros(0, np.float32))
        writer.commit({})
    assert set(episode(tmp_path / "x.zarr").arrays) == {"frames", "actions"}


def test_nothing_is_visible_before_commit(tmp_path):
    with recording(tmp_path / "x.zarr", KEYS, ()):
        writer = EpisodeWriter(tmp_path / "x.zarr", 0)
        for _ in range(70):
            writer.append(np.ones((3, 8, 10), np.uint8), np.ones(2, bool), None)
            assert LocalStore(tmp_path / "x.zarr").episode_names() == []
        writer.commit({})
        assert LocalStore(tmp_path / "x.zarr").episode_names() == ["episode_0"]


@pytest.mark.parametrize("length", [0, 3, 70])
def test_abort_leaves_nothing(tmp_path, length):
    with recording(tmp_path / "x.zarr", KEYS, ()):
        before = sorted(p.name for p in (tmp_path / "x.zarr").iterdir())
        writer = EpisodeWriter(tmp_path / "x.zarr", 0)
        for _ in range(length):
            writer.append(np.ones((3, 8, 10), np.uint8), np.ones(2, bool), None)
        writer.abort()
        assert sorted(p.name for p in (tmp_path / "x.zarr").iterdir()) == before


def test_commit_never_overwrites(tmp_path):
    write_episode(tmp_path / "x.zarr", seed=1)
    folder, frames, *_ = write_episode(tmp_path / "x.zarr", seed=2)  # both ask for number 0
    assert folder.name == "episode_1"
    assert not np.array_equal(read(tmp_path / "x.zarr", "frames"), frames)
    np.testing.assert_array_equal(read(tmp_path / "x.zarr", "frames", 1), frames)


def test_commit_takes_the_next_free_number(tmp_path):
    for number in (3, 4, 6):
        write_episode(tmp_path / "x.zarr", number=number)
    assert write_episode(tmp_path / "x.zarr", number=3)[0].name == "episode_5"


def test_a_second_recorder_is_refused(tmp_path):
    with recording(tmp_path / "x.zarr", KEYS, ATTRIBUTES):
        message = user_error(recording(tmp_path / "x.zarr", KEYS, ATTRIBUTES).__enter__)
        assert "another process is recording" in message
    write_episode(tmp_path / "x.zarr")  # the first has ended: the next may


def test_other_actions_or_state_are_refused(tmp_path):
    write_episode(tmp_path / "x.zarr")
    for keys, attributes in ((("right", "left"), ATTRIBUTES), (KEYS, ("health",)), (("left",), ATTRIBUTES)):
        message = user_error(recording(tmp_path / "x.zarr", keys, attributes).__enter__)
        assert "choose another folder" in message


def test_a_killed_recorder_leaves_what_it_committed(tmp_path):
    """SIGKILL in the middle of the second episode: the first stays, the leftovers go, the next appends."""
    program = f"""
        import os, signal
        import numpy as np
        from pathlib import Path
        from BC_training.common.storage.writer import EpisodeWriter, recording
        path = Path({str(tmp_path / "x.zarr")!r})
        with recording(path, {KEYS!r}, ()):
            for number in range(2):
                writer = EpisodeWriter(path, number)
                for i in range(40):
                    writer.append(np.full((3, 8, 10), i, np.uint8), np.ones(2, bool), None)
                if number == 1:
                    os.kill(os.getpid(), signal.SIGKILL)
                writer.commit({{}})
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False)
    assert killed.returncode == -9
    assert list((tmp_path / "x.zarr").glob(".partial-*"))
    assert LocalStore(tmp_path / "x.zarr").episode_names() == ["episode_0"]
    folder, frames, *_ = write_episode(tmp_path / "x.zarr", number=1, attributes=())
    assert not list((tmp_path / "x.zarr").glob(".partial-*"))
    assert folder.name == "episode_1"
    assert (read(tmp_path / "x.zarr", "frames")[:, 0, 0, 0] == np.arange(40)).all()
    np.testing.assert_array_equal(read(tmp_path / "x.zarr", "frames", 1), frames)


def test_recording_into_a_newer_format_is_refused(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [2], root_attributes={"version": reader.VERSION + 1})
    user_error(recording(tmp_path / "x.zarr", KEYS, ATTRIBUTES).__enter__)


def test_an_episode_without_frames_is_not_published(tmp_path):
    with recording(tmp_path / "x.zarr", ("jump",), ()), pytest.raises(UserError, match="no frame"):
        EpisodeWriter(tmp_path / "x.zarr", 0).commit({})
    assert LocalStore(tmp_path / "x.zarr").episode_names() == []


def test_nothing_is_appended_to_zarr_v2(tmp_path, make_older_dataset):
    make_older_dataset(tmp_path / "x.zarr", [3])
    root = reader.read_root(LocalStore(tmp_path / "x.zarr"))
    with (
        pytest.raises(UserError, match="zarr v2"),
        recording(tmp_path / "x.zarr", tuple(root["keys"]), tuple(root["attributes"])),
    ):
        pass


def test_recording_leaves_nothing_but_the_dataset(tmp_path):
    write_episode(tmp_path / "x.zarr")
    assert sorted(p.name for p in (tmp_path / "x.zarr").iterdir()) == ["episode_0", "zarr.json"]


def test_a_recording_without_an_episode_leaves_nothing(tmp_path):
    with recording(tmp_path / "x.zarr", ("jump",), ()):
        pass
    assert not list(tmp_path.iterdir())


def test_a_recorded_episode_opens_from_one_file(tmp_path, monkeypatch):
    write_episode(tmp_path / "x.zarr")
    asked = []
    monkeypatch.setattr(LocalStore, "_read", lambda self, key: asked.append(key) or (self.path / key).read_bytes())
    episode(tmp_path / "x.zarr")
    assert asked == ["episode_0/zarr.json"]


def test_an_array_changed_after_recording_is_seen(tmp_path):
    """Not hidden by the copy of its metadata in the group."""
    write_episode(tmp_path / "x.zarr", 3)
    zarr.open_array(tmp_path / "x.zarr/episode_0/actions").resize((2, 2))
    assert episode(tmp_path / "x.zarr").arrays["actions"].shape == (2, 2)


def test_a_remote_place_to_record_into_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = user_error(recording(Path("s3://bucket/x.zarr"), KEYS, ()).__enter__)
    assert "local folder" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_chunk_that_decompresses_to_more_than_declared_is_refused(tmp_path, make_dataset, zarr_format):
    make_dataset(tmp_path / "x.zarr", [2], zarr_format=zarr_format)
    larger = np.zeros(3 * 24 * 32 + 1, np.uint8)
    content = Blosc().encode(larger) if zarr_format == 2 else Zstd().encode(larger)
    if zarr_format == 3:
        content += struct.pack("<I", google_crc32c.value(content))
    chunk_file(tmp_path / "x.zarr", "frames", 1).write_bytes(content)
    array = reader.open_array(episode(tmp_path / "x.zarr"), "frames")
    with pytest.raises(ValueError, match="End of data expected"):
        array[1].read().result()
