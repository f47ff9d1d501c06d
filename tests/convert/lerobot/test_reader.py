"""Import of LeRobot datasets: every value arrives, and damage is named."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot_datasets import (
    CAMERA,
    HEIGHT,
    LENGTHS,
    NAMES,
    WIDTH,
    WRITERS,
    actions,
    check,
    drop_column,
    edit_column,
    edit_file,
    edit_info,
    edit_rows,
    error_of,
    imported,
    numbers,
    picture,
    write_v21,
    write_v30,
    write_video,
)

from BC_training.common.dataset import ZarrGameplayDataset


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> dict[str, Path]:
    """A dataset of either version, which tests copy before they change it."""
    folder = tmp_path_factory.mktemp("lerobot")
    return {version: write(folder / version) for version, write in WRITERS.items()}


@pytest.fixture(params=list(WRITERS))
def source(request, written, tmp_path) -> Path:
    return Path(shutil.copytree(written[request.param], tmp_path / "source"))


@pytest.mark.parametrize("version", WRITERS)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"fps": 17.5},
        {"camera": "image"},
        {"state": False},
        {"action": "bool", "fps": 30},
        {"action": "int64", "camera": "image", "state": False},
    ],
)
def test_every_value_arrives_in_order(tmp_path, version, changes):
    dataset = imported(WRITERS[version](tmp_path / "lr", **changes), tmp_path / "x.zarr")
    check(dataset, changes.get("fps", 20))
    assert dataset.action_names == tuple(NAMES)
    assert dataset.state_names == (("health", "ammo") if changes.get("state", True) else ())
    assert dataset.episodes[1].attrs["tasks"] == ["play"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (NAMES, NAMES),
        ({"buttons": NAMES}, NAMES),
        ({"left": 2, "jump": 0, "fire": 1}, NAMES),
        ([NAMES], NAMES),
        ({"pad": ["jump"], "keys": ["fire", "left"]}, None),
        (["button"], ["button_0", "button_1", "button_2"]),
        (None, ["action_0", "action_1", "action_2"]),
        (["jump", "fire"], None),
        (["jump", "fire", "fire"], None),
    ],
)
def test_names_of_the_actions(tmp_path, written, names, expected):
    source = Path(shutil.copytree(written["v2.1"], tmp_path / "lr"))
    edit_info(lambda i: i["features"]["action"].update(names=names))(source)
    if expected is None:
        assert "name each once" in error_of(imported, source, tmp_path / "x.zarr")
    else:
        assert imported(source, tmp_path / "x.zarr").action_names == tuple(expected)


def test_one_action_is_a_plain_column(tmp_path, written):
    source = Path(shutil.copytree(written["v3.0"], tmp_path / "lr"))
    edit_info(lambda i: i["features"]["action"].update(names=["fire"], shape=[1]))(source)
    for file in source.glob("data/*/*.parquet"):
        table = pq.read_table(file)
        only = pa.array([row[0] for row in table["action"].to_pylist()], pa.float32())
        pq.write_table(table.set_column(table.schema.get_field_index("action"), "action", only), file)
    dataset = imported(source, tmp_path / "x.zarr")
    np.testing.assert_array_equal(dataset.actions(1), actions(1, 6)[:, :1])


def test_fps_thins_and_keeps_presses(tmp_path, source):
    dataset = imported(source, tmp_path / "x.zarr", fps=10)
    assert dataset.fps == 10
    assert [numbers(f) for f in dataset.frames(1, range(3))] == [(1, 0), (1, 2), (1, 4)]
    pressed = actions(1, 6)
    np.testing.assert_array_equal(dataset.actions(1), pressed[::2] | pressed[1::2])
    message = error_of(imported, source, tmp_path / "y.zarr", fps=30)
    assert message.startswith("--fps 30 is above the 20 of")


def test_several_cameras_need_a_choice(tmp_path, source):
    other = {"dtype": "video", "shape": [HEIGHT, WIDTH, 3], "names": None}
    edit_info(lambda i: i["features"].update({"observation.images.wrist": other}))(source)
    message = error_of(imported, source, tmp_path / "x.zarr")
    assert f"2 cameras ({CAMERA}, observation.images.wrist): choose one with --camera" in message
    assert f"did you mean '{CAMERA}'" in error_of(imported, source, tmp_path / "x.zarr", camera=CAMERA[:-1])
    assert not (tmp_path / "x.zarr").exists()
    check(imported(source, tmp_path / "x.zarr", camera=CAMERA))


def test_again_adds_nothing_and_another_dataset_is_appended(tmp_path, written):
    imported(written["v2.1"], tmp_path / "x.zarr")
    check(imported(written["v2.1"], tmp_path / "x.zarr"))
    other = Path(shutil.copytree(written["v3.0"], tmp_path / "other"))
    assert len(imported(other, tmp_path / "x.zarr").episodes) == 2 * len(LENGTHS)


def test_a_damaged_episode_does_not_stop_the_others(tmp_path, written):
    source = Path(shutil.copytree(written["v2.1"], tmp_path / "lr"))
    (source / "data/chunk-000/episode_000000.parquet").unlink()
    message = error_of(imported, source, tmp_path / "x.zarr")
    assert "1 of 3 recordings" in message
    assert "episode_000000.parquet is missing" in message
    assert [e.length for e in ZarrGameplayDataset(tmp_path / "x.zarr").episodes] == [6, 5]


def overwrite_middle(file: Path) -> None:
    content = bytearray(file.read_bytes())
    start = content.index(b"mdat") + 900
    content[start : start + 400] = bytes(400)
    file.write_bytes(content)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-200])


def film(count: int, fps: float = 20, size: int = 1) -> Callable[[Path], None]:
    return lambda file: write_video(file, [np.tile(picture(2, i), (size, size, 1)) for i in range(count)], fps)


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (edit_file("meta/info.json", Path.unlink), ["no meta/info.json", "give the folder"]),
        (edit_file("meta/info.json", lambda f: f.write_text("{")), ["cannot read", "info.json", "restore it"]),
        (edit_file("meta/info.json", lambda f: f.write_text("[]")), ["not a JSON object"]),
        (edit_info(lambda i: i.update(codebase_version="v1.6")), ["codebase_version 'v1.6'", "v2.1, v3.0"]),
        (edit_info(lambda i: i.pop("features")), ["no 'features'"]),
        (edit_info(lambda i: i["features"]["action"].pop("shape")), ["feature 'action'", "'shape'"]),
        (edit_info(lambda i: i["features"].pop("action")), ["no feature 'action'", CAMERA]),
        (edit_info(lambda i: i["features"].pop(CAMERA)), ["no camera", "action"]),
        (edit_info(lambda i: i.update(fps="20")), ["fps '20'", "correct it"]),
        (edit_info(lambda i: i.update(fps=0)), ["fps 0"]),
        (edit_info(lambda i: i.update(total_episodes=4)), ["counts 4 episodes", "has 3"]),
        (edit_info(lambda i: i["features"]["action"].update(shape=[3, 1])), ["shape [3, 1]"]),
        (edit_info(lambda i: i.update(data_path="../../{episode_index}.parquet")), ["data_path"]),
        (edit_info(lambda i: i.update(data_path="data/{secret}.parquet")), ["unknown placeholder {secret}"]),
        (edit_info(lambda i: i.update(data_path="../x.parquet")), ["leads out of the dataset", "'../x.parquet'"]),
        (edit_info(lambda i: i.update(data_path="/etc/x.parquet")), ["leads out of the dataset"]),
        (edit_info(lambda i: i.update(video_path="videos/../../x.mp4")), ["video_path", "leads out"]),
        (edit_info(lambda i: i.update(video_path=None)), ["video_path None is not a path"]),
        (edit_file("meta/episodes*", lambda f: f.unlink() if f.is_file() else shutil.rmtree(f)), ["episodes"]),
        (edit_file("data/*/*.parquet", Path.unlink), [".parquet is missing: restore it"]),
        (edit_file("data/*/*.parquet", truncate), ["cannot read", ".parquet"]),
        (edit_file("videos/**/*.mp4", Path.unlink), ["episode 2: the video is missing"]),
        (edit_file("videos/**/*.mp4", truncate), [".mp4, episode 2", "restore"]),
        (edit_file("videos/**/*.mp4", overwrite_middle), [".mp4, episode 2, frame", "restore"]),
        (edit_file("videos/**/*.mp4", film(4)), ["episode 2 has 4 pictures for 5 rows"]),
        (edit_file("videos/**/*.mp4", film(5, fps=10)), ["episode 2, frame 1", "0.1000 s", "0.0500 s"]),
        (edit_file("videos/**/*.mp4", film(5, size=2)), ["episode 2, frame 0", "64x128", "32x64"]),
        (edit_rows(lambda content: content.pop()), ["episode 2 has 4 rows", "5"]),
        (edit_rows(lambda content: content.reverse()), ["episode 2, frame 0", "frame_index is 4"]),
        (edit_column("observation.state", 3, [1.0, float("nan")]), ["episode 2: 'ammo' is not finite in row 3"]),
        (edit_column("observation.state", 3, None), ["episode 2", "'observation.state' lacks values"]),
        (edit_column("action", 1, [0.0, 0.5, 0.0]), ["episode 2, frame 1", "'fire' is 0.5", "press buttons"]),
        (edit_column("action", 1, [0.0, 1.0]), ["episode 2", "'action' lacks values"]),
        (edit_column("timestamp", 2, 0.13), ["episode 2, frame 2", "0.1300 s"]),
        (edit_column("timestamp", 2, float("nan")), ["episode 2, frame 2", "nan s"]),
        (drop_column("action"), ["no column 'action'"]),
        (drop_column("observation.state"), ["no column 'observation.state'"]),
    ],
)
def test_bad_input_is_named(tmp_path, source, damage, parts):
    damage(source)
    message = error_of(imported, source, tmp_path / "x.zarr")
    assert [part for part in parts if part not in message] == [], message


def test_a_button_that_is_missing_is_not_released(tmp_path):
    source = write_v21(tmp_path / "lr", action="bool", camera="image")
    edit_column("action", 1, [True, None, False])(source)
    assert "the column 'action' lacks values" in error_of(imported, source, tmp_path / "x.zarr")


def test_more_pictures_than_rows(tmp_path, written):
    source = Path(shutil.copytree(written["v2.1"], tmp_path / "lr"))
    edit_file("videos/**/*.mp4", film(6))(source)
    assert "more pictures than its 5 rows" in error_of(imported, source, tmp_path / "x.zarr")


def test_continuous_actions_are_refused_once(tmp_path, source):
    for file in source.glob("data/*/*.parquet"):
        table = pq.read_table(file)
        column = pa.array([[0.5, 0.0, 0.0]] * table.num_rows, pa.list_(pa.float32()))
        pq.write_table(table.set_column(table.schema.get_field_index("action"), "action", column), file)
    message = error_of(imported, source, tmp_path / "x.zarr")
    assert "episode 0, frame 0: action 'jump' is 0.5, not 0 or 1" in message
    assert "recordings of" not in message
    assert not (tmp_path / "x.zarr").exists()


@pytest.mark.parametrize("value", [b"no image", None])
def test_damaged_stored_image(tmp_path, value):
    source = write_v30(tmp_path / "lr", camera="image")
    edit_column(CAMERA, 3, {"bytes": value, "path": "x.png"})(source)
    message = error_of(imported, source, tmp_path / "x.zarr")
    assert "file-001.parquet, episode 2, frame 3" in message
    assert "restore the file" in message


@pytest.mark.parametrize("column", ["length", "data/file_index", f"videos/{CAMERA}/from_timestamp"])
def test_damaged_list_of_episodes_v30(tmp_path, written, column):
    source = Path(shutil.copytree(written["v3.0"], tmp_path / "lr"))
    file = source / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    content = table.to_pylist()
    content[1][column] = None
    pq.write_table(pa.Table.from_pylist(content, table.schema), file)
    assert f"episode 1 has '{column}' None" in error_of(imported, source, tmp_path / "x.zarr")
    pq.write_table(table.drop_columns([column]), file)
    assert f"has no column '{column}'" in error_of(imported, source, tmp_path / "x.zarr")


def test_damaged_list_of_episodes_v21(tmp_path, written):
    source = Path(shutil.copytree(written["v2.1"], tmp_path / "lr"))
    file = source / "meta" / "episodes.jsonl"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], "{", lines[2]]))
    assert "episodes.jsonl, line 2 is damaged" in error_of(imported, source, tmp_path / "x.zarr")
    file.write_text("\n".join([lines[0], lines[0], lines[2]]))
    assert "lists episode 0 twice" in error_of(imported, source, tmp_path / "x.zarr")


def test_a_wrong_place_in_a_shared_video(tmp_path, written):
    """Episode 1 said to begin a frame late: its pictures would be the neighbours'."""
    source = Path(shutil.copytree(written["v3.0"], tmp_path / "lr"))
    file = source / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    content = table.to_pylist()
    content[1][f"videos/{CAMERA}/from_timestamp"] += 0.05
    pq.write_table(pa.Table.from_pylist(content, table.schema), file)
    assert "file-000.mp4, episode 1 has 5 pictures for 6 rows" in error_of(imported, source, tmp_path / "x.zarr")
