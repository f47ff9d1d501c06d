"""LeRobot datasets arrive value for value, and damage to rows and videos is named with its place."""

import re
from collections.abc import Callable
from functools import partial
from io import StringIO
from pathlib import Path

import lerobot_datasets as lr
import numpy as np
import pytest
from conversions import converted
from dataset_files import user_error
from recorded_sessions import write_sound

from BC_training.common.dataset import ZarrGameplayDataset


@pytest.mark.parametrize(("version", "changes"), [
    ("v2.1", {}),
    ("v3.0", {}),
    ("v2.1", {"camera": "image", "fps": 17.5}),
    ("v3.0", {"camera": "image", "action": "bool", "fps": 30}),
    ("v3.0", {"action": "int64", "state": False}),
])  # fmt: skip
def test_every_value_arrives_in_order(tmp_path, version, changes):
    dataset = lr.imported(lr.WRITERS[version](tmp_path / "lr", **changes), tmp_path / "x.zarr")
    lr.check(dataset, changes.get("fps", 20))
    state_names = ("health", "ammo") if changes.get("state", True) else ()
    assert (dataset.action_names, dataset.state_names) == (tuple(lr.NAMES), state_names)
    assert dataset.episodes[1].attrs["tasks"] == ["play"]


def test_with_fps_frames_are_left_out_and_presses_are_kept(tmp_path, filmed):
    dataset = lr.imported(filmed, tmp_path / "x.zarr", fps=10)
    assert dataset.fps == 10
    assert [lr.numbers(f) for f in dataset.frames(1, range(3))] == [(1, 0), (1, 2), (1, 4)]
    pressed = lr.actions(1, 6)
    np.testing.assert_array_equal(dataset.actions(1), pressed[::2] | pressed[1::2])
    assert user_error(lr.imported, filmed, tmp_path / "y.zarr", fps=30).startswith("--fps 30 is above the 20 of")


def test_a_second_conversion_adds_nothing_and_another_dataset_is_appended(tmp_path, written):
    lr.imported(written["v2.1", "video"], tmp_path / "x.zarr")
    lr.check(lr.imported(written["v2.1", "video"], tmp_path / "x.zarr"))
    assert len(lr.imported(written["v3.0", "image"], tmp_path / "x.zarr").episodes) == 2 * len(lr.LENGTHS)


def test_a_damaged_episode_does_not_stop_the_others(tmp_path, v21):
    (v21 / "data/chunk-000/episode_000000.parquet").unlink()
    message = user_error(lr.imported, v21, tmp_path / "x.zarr")
    assert "1 of 3 recordings" in message
    assert "episode_000000.parquet is missing" in message
    assert [e.length for e in ZarrGameplayDataset(tmp_path / "x.zarr").episodes] == [6, 5]


def overwrite(file: Path, start: int, size: int) -> None:
    content = bytearray(file.read_bytes())
    start += content.index(b"mdat")
    content[start : start + size] = bytes(size)
    file.write_bytes(content)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-200])


def film(count: int, fps: float = 20, size: int = 1) -> Callable[[Path], None]:
    return lambda file: lr.write_video(file, [np.tile(lr.picture(2, i), (size, size, 1)) for i in range(count)], fps)


@pytest.mark.parametrize(("damage", "parts"), [
    (lr.edit_file("data/*/*.parquet", Path.unlink), [".parquet is missing: restore it"]),
    (lr.edit_file("data/*/*.parquet", truncate), ["cannot read", ".parquet"]),
    (lr.edit_file("videos/**/*.mp4", Path.unlink), ["episode 2: the video is missing"]),
    (lr.edit_file("videos/**/*.mp4", truncate), [".mp4, episode 2", "restore"]),
    (lr.edit_file("videos/**/*.mp4", write_sound), [".mp4 holds no video: restore it"]),
    (lr.edit_file("videos/**/*.mp4", partial(overwrite, start=900, size=400)), ["episode 2, frame", "cannot decode"]),
    (lr.edit_file("videos/**/*.mp4", partial(overwrite, start=800, size=4)), ["picture is damaged: restore"]),
    (lr.edit_file("videos/**/*.mp4", film(4)), ["episode 2 has 4 pictures for 5 rows"]),
    (lr.edit_file("videos/**/*.mp4", film(5, fps=10)), ["episode 2, frame 1", "0.1000 s", "0.0500 s"]),
    (lr.edit_file("videos/**/*.mp4", film(5, size=2)), ["episode 2, frame 0", "64x128", "32x64"]),
    (lr.edit_rows(lambda content: content.pop()), ["episode 2 has 4 rows", "5"]),
    (lr.edit_rows(lambda content: content.reverse()), ["episode 2, frame 0", "frame_index is 4"]),
    (lr.edit_column("observation.state", 3, [1.0, float("nan")]), ["episode 2: 'ammo' is not finite in row 3"]),
    (lr.edit_column("observation.state", 3, None), ["episode 2", "'observation.state' lacks values"]),
    (lr.edit_column("action", 1, [0.0, float("nan"), 0.0]), ["episode 2, frame 1", "'fire' is nan, a button's is"]),
    (lr.edit_column("action", 1, [0.0, 1.0]), ["episode 2", "'action' lacks values"]),
    (lr.edit_column("timestamp", 2, 0.13), ["episode 2, frame 2", "0.1300 s"]),
    (lr.edit_column("timestamp", 2, float("nan")), ["episode 2, frame 2", "nan s"]),
    *[(lr.edit_tables(lambda t, name=name: t.drop_columns([name])), [f"no column '{name}'"])
      for name in ("action", "observation.state")],
])  # fmt: skip
def test_damage_is_named_with_its_episode_and_frame(filmed, damage, parts):
    damage(filmed)
    message = user_error(lr.read, filmed)
    assert not [part for part in parts if part not in message], message


def test_more_pictures_than_rows_are_refused(copy):
    source = copy("v2.1", "video")
    lr.edit_file("videos/**/*.mp4", film(6))(source)
    assert "more pictures than its 5 rows" in user_error(lr.read, source)


def test_continuous_actions_become_axes_with_the_datasets_names(tmp_path, source):
    lr.act()(source)
    output = StringIO()
    dataset = lr.imported(source, tmp_path / "x.zarr", output=output)
    assert "the action becomes axes, not buttons: 'jump' is -0.5 in " in output.getvalue()
    assert (dataset.action_names, dataset.axis_names) == ((), tuple(lr.NAMES))
    for e, length in enumerate(lr.LENGTHS):
        np.testing.assert_array_equal(dataset.axes(e), lr.amounts(length))
        assert [lr.numbers(f) for f in dataset.frames(e, range(length))] == [(e, i) for i in range(length)]
    assert "3 of 3 recordings are there" in converted(source, tmp_path / "x.zarr", "lerobot")


def test_one_amount_of_any_episode_makes_axes_of_all(source):
    lr.edit_column("action", 1, [0.0, 0.5, 1.0])(source)
    found = lr.opened(source)
    assert (found.button_names, found.axis_names) == ((), tuple(lr.NAMES))
    (note,) = found.notes
    assert note.startswith("the action becomes axes, not buttons: 'fire' is 0.5 in ")
    assert note.endswith("episode 2, frame 1")
    steps = lr.read(source)
    np.testing.assert_array_equal([action.axes for _, action, _ in steps[0]], lr.actions(0, 4))
    np.testing.assert_array_equal(steps[2][1][1].axes, np.array([0, 0.5, 1], np.float32))


@pytest.mark.parametrize("bad", [float("nan"), float("-inf"), 1e39])
def test_an_amount_that_is_not_finite_costs_its_episode_and_is_named_with_its_place(tmp_path, source, bad):
    lr.act()(source)
    lr.edit_column("action", 3, [0.0, bad, 0.0])(source)
    message = user_error(lr.imported, source, tmp_path / "x.zarr")
    assert re.search(rf"1 of 3 .*\.parquet, episode 2, frame 3: action 'fire' is {re.escape(str(bad))}, no", message)
    assert [e.length for e in ZarrGameplayDataset(tmp_path / "x.zarr").episodes] == [4, 6]


def test_the_metadata_may_say_which_values_are_buttons(source):
    lr.act(lambda values: np.c_[values[:, :2] * 0, values[:, 2]])(source)
    lr.set_feature("action", info={"buttons": ["left"]})(source)
    found = lr.opened(source)
    assert (found.button_names, found.axis_names, found.notes) == (("left",), ("jump", "fire"), ())
    steps = [action for _, action, _ in found.read(found.episodes[0]).steps]
    np.testing.assert_array_equal([action.buttons for action in steps], [[False], [True]] * 2)
    np.testing.assert_array_equal([action.axes for action in steps], np.zeros((4, 2)))
    lr.set_feature("action", info={"buttons": ["jump", "left"]})(source)
    lr.act()(source)
    assert "action 'jump' is -0.5, a button's is 0 or 1: correct it" in user_error(lr.read, source)
    for wrong in (["lefd"], "left", [1], [["left"]], {}):
        lr.set_feature("action", info={"buttons": wrong})(source)
        assert "no list of names of its values: correct it, or remove it" in user_error(lr.opened, source)


def test_with_fps_axes_are_those_of_the_frames_that_stay(source):
    lr.act()(source)
    (first, *_), (whole, *_) = lr.read(source, fps=10), lr.read(source)
    np.testing.assert_array_equal([a.axes for _, a, _ in first], [a.axes for _, a, _ in whole[::2]])
