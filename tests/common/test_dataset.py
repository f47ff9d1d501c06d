import shutil
from functools import partial
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import zarr
from dataset_files import chunk_file, cut_off_end, flip_bit, rewrite, user_error
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.errors import UserError
from BC_training.common.metrics import class_weights
from BC_training.common.schema import DatasetConfig
from BC_training.common.storage import reader
from BC_training.common.storage.reader import as_float32
from BC_training.validate.validate import validate

# --- reading


@pytest.mark.parametrize("state", [0, 3])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_dataset_of_either_format_is_read_in_the_order_of_its_episodes_numbers(
    tmp_path, make_dataset, zarr_format, state
):
    path = tmp_path / "x.zarr"
    written = make_dataset(path, [4, 6, 2], state=state, numbers=[10, 2, 0], zarr_format=zarr_format, fps=17.08)
    (path / "episode_5").write_text("a file")
    for name in ("episode_x", "episode_3.bak", "my_episode_4", ".partial-6-123", "notes"):
        (path / name).mkdir()
    dataset = ZarrGameplayDataset(path)
    assert [e.name for e in dataset.episodes] == ["episode_0", "episode_2", "episode_10"]
    assert (len(dataset), dataset.frame_size, dataset.skipped) == (12, (24, 32), [])
    assert dataset.action_names == tuple(f"a{i}" for i in range(7))
    assert dataset.state_names == tuple(f"s{i}" for i in range(state))
    assert dataset.fps == pytest.approx(17.08)
    for i, episode in enumerate(reversed(written)):
        frames = dataset.frames(i, range(len(episode.frames)))
        assert (frames.dtype, dataset.actions(i).dtype) == (np.uint8, np.bool_)
        np.testing.assert_array_equal(frames, episode.frames)
        np.testing.assert_array_equal(dataset.actions(i), episode.actions)
        if state:
            assert dataset.state(i).dtype == np.float32
            np.testing.assert_array_equal(dataset.state(i), episode.state)


def test_the_state_of_a_dataset_without_one_is_an_error(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [2], state=0, root_attributes={"attributes": ["health"]})
    dataset = ZarrGameplayDataset(tmp_path / "x.zarr")
    assert dataset.state_names == ()
    assert "no state" in user_error(dataset.state, 0)


@given(indices=st.lists(st.integers(0, 5), max_size=12))
def test_frames_of_any_indices_are_read_in_any_order(tmp_path_factory, make_dataset, indices):
    path = tmp_path_factory.getbasetemp() / "frames_of_any_indices.zarr"
    if not path.exists():
        make_dataset(path, [6], size=(4, 5))
    dataset = ZarrGameplayDataset(path)
    frames = dataset.frames(0, indices)
    assert frames.shape == (len(indices), 3, 4, 5)
    np.testing.assert_array_equal(frames, dataset.frames(0, range(6))[np.asarray(indices, int)])


@pytest.mark.parametrize("index", [3, -1, 100])
def test_frames_beyond_the_episode_are_an_error(tmp_path, make_dataset, index):
    make_dataset(tmp_path / "x.zarr", [3])
    dataset = ZarrGameplayDataset(tmp_path / "x.zarr")
    with pytest.raises((UserError, IndexError)):
        dataset.frames(0, [index])


def test_chosen_actions_are_in_the_order_of_the_choice(tmp_path, make_dataset):
    written = make_dataset(tmp_path / "x.zarr", [30, 5])
    dataset = ZarrGameplayDataset(tmp_path / "x.zarr", actions=("a5", "a0"))
    dataset.load_labels()
    assert dataset.action_names == ("a5", "a0")
    for i, episode in enumerate(written):
        np.testing.assert_array_equal(dataset.actions(i), episode.actions[:, [5, 0]])
    together = np.concatenate([episode.actions for episode in written])[:, [5, 0]]
    np.testing.assert_allclose(dataset.action_frequencies([0, 1]), together.mean(axis=0), rtol=1e-12)


def test_an_unknown_action_names_the_nearest(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [2], actions=2, root_attributes={"keys": ["jump", "attack"]})
    message = user_error(partial(ZarrGameplayDataset, tmp_path / "x.zarr", actions=("jump", "atack")))
    assert "unknown action 'atack'; did you mean 'attack'" in message


def test_a_dataset_is_opened_as_its_config_says(tmp_path, make_dataset):
    (written,) = make_dataset(tmp_path / "x.zarr", [2])
    shutil.copytree(tmp_path / "x.zarr", tmp_path / "y.zarr")
    shutil.rmtree(tmp_path / "y.zarr" / "episode_0" / "frames")
    options = DatasetConfig(path=str(tmp_path / "x.zarr"), actions=("a1",), channel_order="bgr", validate_episodes=True)
    dataset = ZarrGameplayDataset.from_config(options)
    assert dataset.path == str(tmp_path / "x.zarr")
    np.testing.assert_array_equal(dataset.actions(0), written.actions[:, [1]])
    np.testing.assert_array_equal(dataset.frames(0, [1]), written.frames[[1], ::-1])
    with pytest.raises(UserError, match="1 skipped"):
        ZarrGameplayDataset.from_config(options, tmp_path / "y.zarr")


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_opening_reads_metadata_only(tmp_path, make_dataset, zarr_format):
    make_dataset(tmp_path / "x.zarr", [2, 3], zarr_format=zarr_format)
    metadata = {"zarr.json", ".zarray", ".zattrs", ".zgroup"}
    removed = [f for f in (tmp_path / "x.zarr").rglob("*") if f.is_file() and f.name not in metadata]
    for file in removed:
        file.unlink()
    assert len(removed) >= 9
    assert len(ZarrGameplayDataset(tmp_path / "x.zarr")) == 5


def test_the_rate_is_averaged_over_the_episodes_that_have_one(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [2, 2, 2], fps=None)
    assert ZarrGameplayDataset(tmp_path / "x.zarr").fps is None
    for number, fps in ((0, 10), (2, 15.5)):
        zarr.open_group(tmp_path / "x.zarr" / f"episode_{number}").attrs["fps"] = fps
    assert ZarrGameplayDataset(tmp_path / "x.zarr").fps == 12.75


def test_a_dataset_without_episodes_is_an_error(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [])
    assert "no episodes" in user_error(ZarrGameplayDataset, tmp_path / "x.zarr")


# --- faults


def replace(path: Path, name: str, array: np.ndarray) -> None:
    """Puts another array in place of one of episode 1."""
    rewrite(path, 1, name, array)


FAULTS = {  # planted in episode 1, which has 4 frames of 24x32, 7 actions and 3 state values
    "lengths differ": (lambda p: replace(p, "actions", np.ones((5, 7), bool)), "lengths differ: frames 4, actions 5"),
    "other frame size": (lambda p: replace(p, "frames", np.ones((4, 3, 32, 24), np.uint8)), "32x24"),
    "no frames": (lambda p: shutil.rmtree(p / "episode_1/frames"), "no array 'frames'"),
    "damaged metadata": (lambda p: (p / "episode_1/zarr.json").write_text("{"), "cannot read"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_episode_is_named_or_skipped(tmp_path, make_dataset, fault):
    path = tmp_path / "x.zarr"
    written = make_dataset(path, [4, 4, 4])
    damage, reason = FAULTS[fault]
    damage(path)
    message = user_error(ZarrGameplayDataset, path)
    assert "episode_1" in message
    assert reason in message
    assert "dataset.validate_episodes=true" in message

    dataset = ZarrGameplayDataset(path, validate_episodes=True)
    assert [e.name for e in dataset.episodes] == ["episode_0", "episode_2"]
    assert [s.name for s in dataset.skipped] == ["episode_1"]
    assert reason in dataset.skipped[0].reason
    np.testing.assert_array_equal(dataset.actions(1), written[2].actions)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_state_that_is_not_finite_is_an_error_or_skipped(tmp_path, make_dataset, bad):
    path = tmp_path / "x.zarr"
    written = make_dataset(path, [4, 4, 4])
    state = written[1].state.copy()
    state[2, 1] = bad
    replace(path, "state", state)
    message = user_error(ZarrGameplayDataset(path).load_labels)
    for part in ("episode_1", "'s1'", "frame 2", str(bad), "dataset.validate_episodes=true"):
        assert part in message

    dataset = ZarrGameplayDataset(path, validate_episodes=True)
    np.testing.assert_array_equal(dataset.frames(1, [0]), written[1].frames[[0]])
    dataset.load_labels()
    assert [s.name for s in dataset.skipped] == ["episode_1"]
    assert [e.name for e in dataset.episodes] == ["episode_0", "episode_2"]
    np.testing.assert_array_equal(dataset.frames(1, [0]), written[2].frames[[0]])  # positions have moved
    np.testing.assert_array_equal(dataset.actions(1), written[2].actions)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32, np.int64, np.uint8, ">f4"])
def test_a_state_of_other_numbers_is_read_as_float32(tmp_path, make_dataset, dtype):
    make_dataset(tmp_path / "x.zarr", [4, 4])
    values = np.arange(12).reshape(4, 3).astype(dtype) / (4 if np.dtype(dtype).kind == "f" else 1)
    replace(tmp_path / "x.zarr", "state", values.astype(dtype))
    dataset = ZarrGameplayDataset(tmp_path / "x.zarr")
    dataset.load_labels()
    assert dataset.state(1).dtype == np.float32
    np.testing.assert_array_equal(dataset.state(1), values.astype(np.float32))


@given(st.sampled_from(["i8", "i4", "u8", "f8"]), st.integers(-(2**31), 2**31 - 1), st.integers(0, 1))
def test_a_whole_number_that_float32_does_not_hold_is_reported(dtype, value, part):
    stored = np.array([[value]], dtype) if dtype != "u8" else np.array([[abs(value)]], dtype)
    if part and dtype == "f8":
        stored = stored / 16  # no whole number, or one that may be exact
    narrow, changed = as_float32(stored)
    exact = int(narrow[0, 0]) == int(stored[0, 0])
    assert changed[0, 0] == (float(stored[0, 0]).is_integer() and not exact)
    if stored.dtype.kind == "f":  # beside a fraction it is a measurement
        assert not as_float32(np.concatenate([stored, [[0.5]]]))[1].any()


def test_ids_that_float32_would_merge_are_refused_by_name(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [4, 4])
    replace(tmp_path / "x.zarr", "state", np.array([[1, 2, 3], [1, 2, 3], [1, 2**24 + 1, 3], [1, 2, 3]]))
    dataset = ZarrGameplayDataset(tmp_path / "x.zarr")
    for read in (dataset.load_labels, lambda: dataset.state(1)):
        with pytest.raises(UserError, match="episode_1: state 's1' is 16777217 at frame 2, which float32"):
            read()
    skipping = ZarrGameplayDataset(tmp_path / "x.zarr", validate_episodes=True)
    skipping.load_labels()
    assert [s.name for s in skipping.skipped] == ["episode_1"]


def test_measurements_and_placeholder_values_are_not_taken_for_ids(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [4, 4])
    state = np.array([[0.5, 1e30, 2.0**25 + 1], [1, 1e30, 1], [2.0**25 + 1, 1e30, 0.5], [1, 1e30, 0]])
    replace(tmp_path / "x.zarr", "state", state)
    dataset = ZarrGameplayDataset(tmp_path / "x.zarr")
    dataset.load_labels()
    np.testing.assert_array_equal(dataset.state(1), state.astype(np.float32))
    assert not [f for f in validate(tmp_path / "x.zarr", Console(file=StringIO()), workers=1) if f.severity == "error"]


def test_a_value_beyond_float32_is_an_error_in_training_and_in_validate(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [4, 4])
    replace(tmp_path / "x.zarr", "state", np.array([[1.5, 0, 0], [1.5, 0, 1e300], [1, 0, 0], [1, 0, 0]]))
    with pytest.raises(UserError, match="state 's2' is inf at frame 1"):
        ZarrGameplayDataset(tmp_path / "x.zarr").load_labels()
    findings = validate(tmp_path / "x.zarr", Console(file=StringIO()), workers=1)
    assert [(f.kind, f.spans) for f in findings if f.severity == "error"] == [("state_value", ((1, 1),))]


def test_actions_that_cannot_be_read_are_an_error_or_skipped(tmp_path, make_dataset):
    path = tmp_path / "x.zarr"
    make_dataset(path, [4, 4, 4])
    chunk_file(path, "actions", 0, 1).unlink()
    assert "episode_1: cannot read 'actions'" in user_error(ZarrGameplayDataset(path).load_labels)
    dataset = ZarrGameplayDataset(path, validate_episodes=True)
    dataset.load_labels()
    assert [s.name for s in dataset.skipped] == ["episode_1"]


def test_a_dataset_without_a_usable_episode_is_an_error(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [4, 4])
    for number in range(2):
        shutil.rmtree(tmp_path / "x.zarr" / f"episode_{number}" / "actions")
    message = user_error(partial(ZarrGameplayDataset, tmp_path / "x.zarr", validate_episodes=True))
    assert "no usable episode (2 skipped; episode_0" in message


@pytest.mark.parametrize(
    ("harm", "zarr_format"), [(Path.unlink, 2), (Path.unlink, 3), (cut_off_end, 2), (cut_off_end, 3), (flip_bit, 3)]
)
def test_a_missing_or_damaged_chunk_of_frames_is_an_error_and_never_zeros(tmp_path, make_dataset, harm, zarr_format):
    (written,) = make_dataset(tmp_path / "x.zarr", [4], zarr_format=zarr_format)
    harm(chunk_file(tmp_path / "x.zarr", "frames", 2))
    dataset = ZarrGameplayDataset(tmp_path / "x.zarr")
    for indices in ([2], [0, 1, 2, 3]):
        message = user_error(dataset.frames, 0, indices)
        assert "episode_0: cannot read 'frames'" in message
        assert "tensorstore_spec" not in message
    np.testing.assert_array_equal(dataset.frames(0, [0, 1, 3]), written.frames[[0, 1, 3]])


# --- split


def with_episodes(count: int) -> ZarrGameplayDataset:
    """A dataset with ``count`` episodes, as far as ``split`` sees it."""
    dataset = object.__new__(ZarrGameplayDataset)
    dataset.path, dataset.episodes = Path("x.zarr"), [None] * count  # pyright: ignore[reportAttributeAccessIssue]
    return dataset


@st.composite
def shares(draw) -> dict[str, float]:
    val = draw(st.floats(0.001, 0.9))
    test = draw(st.just(0.0) | st.floats(0.001, 0.998 - val).filter(lambda x: x > 0))
    return {"train": 1 - val - test, "val": val, "test": test}


@given(shares=shares(), count=st.integers(3, 200), seed=st.integers(0, 2**31 - 1))
def test_a_split_is_deterministic_and_takes_each_episode_once_and_is_near_its_shares(shares, count, seed):
    split = with_episodes(count).split(shares, seed)
    assert sorted(split) == ["test", "train", "val"]
    assert sorted(e for episodes in split.values() for e in episodes) == list(range(count))
    assert split == with_episodes(count).split(shares, seed)
    for name, share in shares.items():
        assert split[name] == sorted(split[name])
        assert bool(split[name]) == (share > 0)
        # Rounding moves a split by half an episode; what the others gain by theirs, by one and a half more.
        assert abs(len(split[name]) - share * count) <= 2


def test_every_part_with_a_share_gets_an_episode():
    def sizes(count, train, val, test):
        split = with_episodes(count).split({"train": train, "val": val, "test": test}, 0)
        return tuple(len(split[name]) for name in ("train", "val", "test"))

    assert sizes(100, 0.8, 0.1, 0.1) == (80, 10, 10)
    assert sizes(40, 0.9, 0.1, 0.0) == (36, 4, 0)
    assert sizes(2, 0.99, 0.01, 0.0) == (1, 1, 0)
    assert sizes(3, 0.98, 0.01, 0.01) == (1, 1, 1)
    assert sizes(10, 0.99, 0.01, 0.0) == (9, 1, 0)
    assert sizes(3, 0.1, 0.8, 0.1) == (1, 1, 1)


def test_a_split_is_shuffled_by_its_seed():
    splits = [with_episodes(50).split({"train": 0.8, "val": 0.2}, seed) for seed in range(5)]
    validation = {tuple(split["val"]) for split in splits}
    assert len(validation) == 5
    assert tuple(range(40, 50)) not in validation


@pytest.mark.parametrize(("count", "test"), [(1, 0.0), (2, 0.1)])
def test_too_few_episodes_to_split_are_an_error(count, test):
    message = user_error(with_episodes(count).split, {"train": 0.8 - test, "val": 0.2, "test": test}, 0)
    assert f"{count} usable episode" in message
    assert "record more" in message


def test_episodes_of_another_player_leave_the_others_in_their_split(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [2] * 14)
    root, shares = zarr.open_group(tmp_path / "x.zarr"), {"train": 0.7, "val": 0.3}
    for number in range(10, 14):
        root[f"episode_{number}"].attrs["player"] = "a" if number < 13 else "b"
    dataset = ZarrGameplayDataset(tmp_path / "x.zarr")
    before = with_episodes(10).split(shares, 0)
    split = dataset.split(shares, 0, by_player=True)
    assert sorted(split["train"] + split["val"]) == list(range(14))
    for name, episodes in before.items():
        assert [e for e in split[name] if e < 10] == episodes
    assert len([e for e in split["val"] if e in (10, 11, 12)]) == 1
    assert 13 in split["train"]  # a single one cannot be split
    assert dataset.split(shares, 0)["val"] != split["val"]


def test_episodes_are_found_by_name(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [2, 2, 2], numbers=[0, 2, 10])
    dataset = ZarrGameplayDataset(tmp_path / "x.zarr")
    assert dataset.find(["episode_10", "episode_0"]) == [2, 0]
    names = {"train": ["episode_10", "episode_0"], "val": ["episode_2"], "test": []}
    assert dataset.names_of({"train": [2, 0], "val": [1], "test": []}) == names
    message = user_error(dataset.find, ["episode_1"])
    assert "unknown episode 'episode_1'" in message
    assert "changed since the split" in message


def test_class_weights_follow_the_frequencies():
    def weights(mode, maximum):
        found = class_weights(np.array([0, 1, 0.5, 0.2, 0.01, 0.99]), mode, maximum)
        assert found.dtype == np.float32
        return found

    np.testing.assert_array_equal(weights("none", 10.0), np.ones(6))
    np.testing.assert_allclose(weights("balanced", 1000.0), [1, 1, 1, 4, 99, 1 / 99], rtol=1e-6)
    np.testing.assert_allclose(weights("sqrt", 1000.0), [1, 1, 1, 2, 99**0.5, 99**-0.5], rtol=1e-6)
    np.testing.assert_allclose(weights("balanced", 3.0), [1, 1, 1, 3, 3, 1 / 3], rtol=1e-6)
    np.testing.assert_array_equal(weights("balanced", 1.0), np.ones(6))


@pytest.mark.parametrize("damage", [None, b"", b"\x00" * 40])
def test_validate_episodes_skips_episodes_whose_frames_cannot_be_read(tmp_path, make_dataset, damage):
    make_dataset(tmp_path / "x.zarr", [3, 140, 3])
    chunk = tmp_path / "x.zarr/episode_1/frames/c/135/0/0/0"
    chunk.unlink() if damage is None else chunk.write_bytes(damage)
    dataset = ZarrGameplayDataset(tmp_path / "x.zarr", validate_episodes=True)
    lengths = []
    dataset.load_labels(lengths.append)
    assert [e.name for e in dataset.episodes] == ["episode_0", "episode_2"]
    assert lengths == [3, 140, 3]
    assert "135" in dataset.skipped[0].reason


def test_the_frame_size_is_that_of_most_episodes(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [2, 2, 2], size=(16, 16))
    rewrite(tmp_path / "x.zarr", 0, "frames", np.ones((2, 3, 8, 8), np.uint8))
    dataset = ZarrGameplayDataset(tmp_path / "x.zarr", validate_episodes=True)
    assert dataset.frame_size == (16, 16)
    assert [s.name for s in dataset.skipped] == ["episode_0"]


def test_the_state_is_decoded_once_within_its_memory_limit(tmp_path, make_dataset, monkeypatch):
    written = make_dataset(tmp_path / "d.zarr", [5, 5])
    monkeypatch.setattr("BC_training.common.dataset._STATE_MEMORY", written[0].state.nbytes)
    dataset = ZarrGameplayDataset(tmp_path / "d.zarr")
    decoded = []
    read_whole = reader.read_whole
    monkeypatch.setattr(reader, "read_whole", lambda array: decoded.append(array.shape) or read_whole(array))
    for _ in "12":
        for episode in (0, 1):
            np.testing.assert_array_equal(dataset.state(episode), written[episode].state)
    assert len(decoded) == 3
