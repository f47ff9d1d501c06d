import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import zarr
from dataset_files import (
    chunk_file,
    damage_frame,
    flip_bit,
    lose_frame,
    read_array,
    read_episode,
    rewrite,
    shard_index,
    user_error,
)
from filmed_datasets import moving

from BC_training.common.action import Action
from BC_training.common.errors import UserError
from BC_training.common.storage import array_writer, reader
from BC_training.common.storage.store import LocalStore
from BC_training.common.storage.writer import EpisodeWriter, Names, existing_episodes, recording

KEYS, ATTRIBUTES = ("left", "right"), ("health", "ammo")
ROW = (np.ones((3, 8, 10), np.uint8), Action.of([1, 1]), None)


def record(path: Path, rows: list[tuple], number: int = 0, attributes: tuple[str, ...] = (), **attrs) -> Path:
    """Records one episode of (frame, action, state); returns its folder."""
    with recording(path, Names(KEYS, (), attributes)):
        writer = EpisodeWriter(path, number)
        for frame, buttons, state in rows:
            writer.append(frame, buttons if isinstance(buttons, Action) else Action.of(buttons), state)
        return writer.commit(attrs)


def write_episode(path: Path, length: int = 3, number: int = 0, seed: int = 0, attributes=ATTRIBUTES, **attrs):
    """Records one episode of random values; returns its folder and the arrays."""
    rng = np.random.default_rng(seed)
    arrays = {
        "frames": rng.integers(0, 256, (length, 3, 8, 10), np.uint8),
        "actions": rng.random((length, len(KEYS))) < 0.5,
        "state": rng.normal(size=(length, len(attributes))).astype(np.float32),
    }
    return record(path, list(zip(*arrays.values(), strict=True)), number, attributes, **attrs), arrays


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.parametrize("length", [1, 31, 32, 33, 70])
def test_what_is_recorded_is_read_back(tmp_path, length):
    """Also across the blocks in which the writer flushes."""
    folder, arrays = write_episode(tmp_path / "x.zarr", length, fps=17.5, player="me")
    assert folder == tmp_path / "x.zarr" / "episode_0"
    for name, appended in arrays.items():
        stored = read_array(tmp_path / "x.zarr", name)
        assert stored.dtype == appended.dtype
        np.testing.assert_array_equal(stored, appended)
    (info,) = existing_episodes(tmp_path / "x.zarr")
    assert info.attrs == {"fps": 17.5, "player": "me", "frame_count": length}
    assert names_in(tmp_path / "x.zarr") == ["episode_0", "zarr.json"]


def test_what_is_written_is_plain_zarr_v3(tmp_path):
    """zarr-python alone reads it; frames are one a chunk; every array has a checksum."""
    _, arrays = write_episode(tmp_path / "x.zarr", 40)
    root = zarr.open_group(tmp_path / "x.zarr", mode="r")
    assert dict(root.attrs) == {"format": "framewise", "version": 1, "keys": list(KEYS), "attributes": list(ATTRIBUTES)}
    group = root["episode_0"]
    for name, appended in arrays.items():
        np.testing.assert_array_equal(group[name][:], appended)
        assert group[name].metadata.zarr_format == 3
        file = chunk_file(tmp_path / "x.zarr", name, 0)
        flip_bit(file)
        with pytest.raises(ValueError, match="Error reading"):
            read_array(tmp_path / "x.zarr", name)
    assert group["frames"].chunks == (1, 3, 8, 10)


def test_zeros_are_written_and_not_left_out(tmp_path):
    """A missing chunk means a loss only if black frames and idle buttons have their chunks too."""
    row = (np.zeros((3, 8, 10), np.uint8), np.zeros(2, bool), np.zeros(2, np.float32))
    record(tmp_path / "x.zarr", [row] * 40, attributes=ATTRIBUTES)
    _, index = shard_index(tmp_path / "x.zarr", 39)
    assert (index[:40] < 2**63).all()
    for name, shape in (("frames", (40, 3, 8, 10)), ("actions", (40, 2)), ("state", (40, 2))):
        stored = read_array(tmp_path / "x.zarr", name)
        assert stored.shape == shape
        assert not stored.any()
    assert not reader.read_actions(read_episode(tmp_path / "x.zarr")).any()


@pytest.mark.parametrize("length", [1, 3, 4, 5, 8, 300])
def test_frames_are_in_shards_of_bounded_size_and_read_as_single_chunks_do(tmp_path, length, monkeypatch):
    monkeypatch.setattr(array_writer, "_SHARD_BYTES", 4 * 3 * 8 * 10 + 5)
    folder, arrays = write_episode(tmp_path / "x.zarr", length)
    assert len(list((folder / "frames").glob("c.*"))) == -(-length // 4)
    write_episode(tmp_path / "y.zarr", length)
    rewrite(tmp_path / "y.zarr", 0, "frames", arrays["frames"])  # as older versions wrote them
    for rows in ([0], [length - 1, 0], range(0, length, 3)):
        for path in (tmp_path / "x.zarr", tmp_path / "y.zarr"):
            stored = reader.open_array(read_episode(path), "frames")[np.array(rows)].read().result()
            np.testing.assert_array_equal(stored, arrays["frames"][list(rows)])
    monkeypatch.undo()
    folder, _ = write_episode(tmp_path / "z.zarr", 300)
    assert len(list((folder / "frames").glob("c.*"))) == 2


def test_a_frame_that_is_missing_or_damaged_in_a_shard_is_an_error_and_the_others_are_read(tmp_path):
    _, arrays = write_episode(tmp_path / "x.zarr", 40)
    lose_frame(tmp_path / "x.zarr", 7)
    damage_frame(tmp_path / "x.zarr", 9)
    stored = reader.open_array(read_episode(tmp_path / "x.zarr"), "frames")
    for row, reason in ((7, "is missing"), (9, "DATA_LOSS")):
        with pytest.raises(ValueError, match=reason):
            stored[row].read().result()
    good = [row for row in range(40) if row not in (7, 9)]
    np.testing.assert_array_equal(stored[np.array(good)].read().result(), arrays["frames"][good])


def test_an_episode_may_have_a_video_and_its_rows_come_without_frames(tmp_path):
    rows = [(frame, [1, 0], None) for frame in moving(30)]
    path = tmp_path / "x.zarr"
    with recording(path, Names(KEYS)):
        for number, count in enumerate((30, 20)):
            writer = EpisodeWriter(path, number, 20.0 if number == 0 else None)
            for frame, buttons, _ in rows[:count]:
                writer.append(frame if number == 0 else None, Action.of(buttons), None)
            writer.commit({}, [path / "episode_0" / "frames.mp4"] if number else [])
        short = EpisodeWriter(path, 2)
        for _ in range(31):
            short.append(None, Action.of([1, 0]), None)
        with pytest.raises(UserError, match="the video has 30 frames for 31 rows"):
            short.commit({}, [path / "episode_0" / "frames.mp4"])
        short.abort()
    np.testing.assert_array_equal(read_array(path, "frames", 1), read_array(path, "frames")[:20])
    assert names_in(path / "episode_0") == ["actions", "frames.mp4", "zarr.json"]
    assert names_in(path) == ["episode_0", "episode_1", "zarr.json"]


def test_the_callers_arrays_may_be_reused(tmp_path):
    frame, action, state = np.zeros((3, 8, 10), np.uint8), Action.of([0, 0]), np.zeros(2, np.float32)
    with recording(tmp_path / "x.zarr", Names(KEYS, (), ATTRIBUTES)):
        writer = EpisodeWriter(tmp_path / "x.zarr", 0)
        for t in range(4):
            frame[:], action.buttons[:], state[:] = t, t % 2, t
            writer.append(frame, action, state)
        writer.commit({})
    for name, expected in (("frames", [0, 1, 2, 3]), ("actions", [0, 1, 0, 1]), ("state", [0, 1, 2, 3])):
        np.testing.assert_array_equal(read_array(tmp_path / "x.zarr", name).reshape(4, -1)[:, 0], expected)


@pytest.mark.parametrize("state", [None, np.zeros(0, np.float32)])
def test_an_episode_without_state_values_has_no_state(tmp_path, state):
    record(tmp_path / "x.zarr", [(*ROW[:2], state)])
    assert set(read_episode(tmp_path / "x.zarr").arrays) == {"frames", "actions"}


@pytest.mark.parametrize("length", [0, 3, 70])
def test_an_episode_appears_by_commit_and_abort_leaves_nothing(tmp_path, length):
    path = tmp_path / "x.zarr"
    with recording(path, Names(KEYS)):
        before = names_in(path)
        for finished in (False, True):
            writer = EpisodeWriter(path, 0)
            for _ in range(length):
                writer.append(*ROW)
                assert LocalStore(path).episode_names() == []
            if not finished:
                writer.abort()
                assert names_in(path) == before
            elif length == 0:
                with pytest.raises(UserError, match="no frame"):
                    writer.commit({})
            else:
                writer.commit({})
    assert names_in(tmp_path) == (["x.zarr"] if length else [])  # a dataset without an episode is removed
    assert [info.name for info in existing_episodes(path)] == ["episode_0"] * (length > 0)


def test_an_episode_is_never_overwritten_but_gets_the_next_free_number(tmp_path):
    path = tmp_path / "x.zarr"
    for number in (3, 4, 6):
        folder, arrays = write_episode(path, number=number, seed=number)
    assert folder.name == "episode_6"
    folder, later = write_episode(path, number=3, seed=1)
    assert folder.name == "episode_5"
    np.testing.assert_array_equal(read_array(path, "frames", 5), later["frames"])
    np.testing.assert_array_equal(read_array(path, "frames", 6), arrays["frames"])


def test_a_second_recorder_is_refused_until_the_first_has_ended(tmp_path):
    with recording(tmp_path / "x.zarr", Names(KEYS, (), ATTRIBUTES)):
        message = user_error(recording(tmp_path / "x.zarr", Names(KEYS, (), ATTRIBUTES)).__enter__)
        assert "another process is recording" in message
    write_episode(tmp_path / "x.zarr")


def test_a_killed_recorder_leaves_what_it_committed(tmp_path):
    """It is killed during the second episode: the first stays, leftovers are removed, the next is appended."""
    program = f"""
        import os, signal
        import numpy as np
        from pathlib import Path
        from BC_training.common.action import Action
        from BC_training.common.storage.writer import EpisodeWriter, Names, recording
        path = Path({str(tmp_path / "x.zarr")!r})
        with recording(path, Names({KEYS!r})):
            for number in range(2):
                writer = EpisodeWriter(path, number)
                for i in range(40):
                    writer.append(np.full((3, 8, 10), i, np.uint8), Action.of([1, 1]), None)
                if number == 1:
                    os.kill(os.getpid(), signal.SIGKILL)
                writer.commit({{}})
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False)
    assert killed.returncode == -9
    assert list((tmp_path / "x.zarr").glob(".partial-*"))
    assert LocalStore(tmp_path / "x.zarr").episode_names() == ["episode_0"]
    folder, arrays = write_episode(tmp_path / "x.zarr", number=1, attributes=())
    assert not list((tmp_path / "x.zarr").glob(".partial-*"))
    assert folder.name == "episode_1"
    assert (read_array(tmp_path / "x.zarr", "frames")[:, 0, 0, 0] == np.arange(40)).all()
    np.testing.assert_array_equal(read_array(tmp_path / "x.zarr", "frames", 1), arrays["frames"])


# --- places that are refused


def test_a_dataset_that_cannot_be_created_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    for path in (
        tmp_path / "file/x.zarr",
        tmp_path / "file/folder/x.zarr",
        tmp_path / ("x" * 300),
        Path("/proc/x.zarr"),
    ):
        message = user_error(recording(path, Names(KEYS, (), ATTRIBUTES)).__enter__)
        assert message.startswith(f"cannot create {path}: ")
        assert message.endswith("; choose another folder")
    assert "is a file, a dataset is a folder" in user_error(recording(tmp_path / "file", Names(KEYS)).__enter__)
    assert names_in(tmp_path) == ["file"]


def test_a_remote_place_to_record_into_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "local folder" in user_error(recording(Path("s3://bucket/x.zarr"), Names(KEYS)).__enter__)
    assert names_in(tmp_path) == []


def test_a_dataset_that_episodes_do_not_fit_is_refused(tmp_path, make_dataset, make_older_dataset):
    write_episode(tmp_path / "x.zarr")
    for keys, attributes in ((("right", "left"), ATTRIBUTES), (KEYS, ("health",)), (("left",), ATTRIBUTES)):
        message = user_error(recording(tmp_path / "x.zarr", Names(keys, (), attributes)).__enter__)
        assert "choose another folder" in message
    make_dataset(tmp_path / "new.zarr", [2], root_attributes={"version": reader.VERSION + 1})
    assert "newer" in user_error(recording(tmp_path / "new.zarr", Names(KEYS, (), ATTRIBUTES)).__enter__)
    make_older_dataset(tmp_path / "old.zarr", [3])
    root = reader.read_root(LocalStore(tmp_path / "old.zarr"))
    names = Names(tuple(root["keys"]), (), tuple(root["attributes"]))
    assert "zarr v2, which is read but not written" in user_error(recording(tmp_path / "old.zarr", names).__enter__)
    assert len(existing_episodes(tmp_path / "old.zarr")) == 1


# --- the copy of the arrays' metadata in the episode's own


def test_a_recorded_episode_opens_from_one_file(tmp_path, monkeypatch):
    write_episode(tmp_path / "x.zarr")
    asked = []
    monkeypatch.setattr(LocalStore, "_read", lambda self, key: asked.append(key) or (self.path / key).read_bytes())
    read_episode(tmp_path / "x.zarr")
    assert asked == ["episode_0/zarr.json"]


def test_an_array_that_was_changed_after_recording_is_read_as_it_is(tmp_path):
    write_episode(tmp_path / "x.zarr", 3)
    zarr.open_array(tmp_path / "x.zarr/episode_0/actions").resize((2, 2))
    assert read_episode(tmp_path / "x.zarr").arrays["actions"].shape == (2, 2)
