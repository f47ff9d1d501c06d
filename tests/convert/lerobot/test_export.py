"""An export to LeRobot v3.0 has the right files, and comes back as it was."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr
from dataset_files import user_error
from lerobot_datasets import imported
from rich.console import Console

from BC_training import __main__ as command_line
from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.files import locked
from BC_training.convert.lerobot import export as lerobot_export
from BC_training.convert.lerobot.export import export
from BC_training.convert.lerobot.export_metadata import data_file, video_file

LENGTHS = (7, 40, 5)
CAMERA = "observation.images.screen"
DATA, VIDEO = "data/chunk-000/file-00{}.parquet", f"videos/{CAMERA}/chunk-000/file-00{{}}.mp4"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"


@pytest.fixture(scope="module")
def numbered(tmp_path_factory, make_dataset) -> Path:
    """Three episodes whose frames' brightness encodes episode and frame; tests that change them copy them."""
    path = tmp_path_factory.mktemp("numbered") / "x.zarr"
    make_dataset(path, LENGTHS, fps=17.5)
    for e, length in enumerate(LENGTHS):
        stored: Any = zarr.open_group(path)[f"episode_{e}/frames"]
        frames, width = np.empty(stored.shape, np.uint8), stored.shape[3]
        frames[:, :, :, : width // 2] = np.arange(length).reshape(-1, 1, 1, 1) * 6
        frames[:, :, :, width // 2 :] = 60 * e + 20
        stored[:] = frames
    return path


@pytest.fixture(scope="module")
def plain(numbered, tmp_path_factory) -> Path:
    return exported(numbered, tmp_path_factory.mktemp("plain") / "lr")


@pytest.fixture
def source(tmp_path, numbered) -> Path:
    return Path(shutil.copytree(numbered, tmp_path / "x.zarr"))


def exported(source: Path, out: Path, size=None, fps=None, workers: int = 1) -> Path:
    export(source, out, size, fps, workers, Console(quiet=True))
    return out


def attrs_of(source: Path, episode: int) -> Any:
    return zarr.open_group(source)[f"episode_{episode}"].attrs


def numbers(frames: np.ndarray) -> list[tuple[int, int]]:
    """(episode, frame) of each frame of ``numbered``, uint8 [N, 3, H, W], after lossy coding."""
    width = frames.shape[3]
    left = frames[:, :, :, : width // 2 - 2].mean((1, 2, 3)) / 6
    right = (frames[:, :, :, width // 2 + 2 :].mean((1, 2, 3)) - 20) / 60
    assert np.abs(left - left.round()).max() < 0.4
    return [(round(e), round(i)) for e, i in zip(right, left, strict=True)]


def test_a_dataset_comes_back_as_it_was(tmp_path, numbered):
    before = ZarrGameplayDataset(numbered)
    after = imported(exported(numbered, tmp_path / "lr", workers=2), tmp_path / "back.zarr")
    assert (after.action_names, after.state_names) == (before.action_names, before.state_names)
    assert after.fps == 17.5
    assert [e.length for e in after.episodes] == list(LENGTHS)
    for e, length in enumerate(LENGTHS):
        np.testing.assert_array_equal(after.actions(e), before.actions(e))
        np.testing.assert_array_equal(after.state(e), before.state(e))
        frames = after.frames(e, range(length))
        assert numbers(frames) == [(e, i) for i in range(length)]
        assert np.abs(frames.astype(int) - before.frames(e, range(length))).mean() < 1.5


@pytest.mark.parametrize("buttons", [2, 0])
def test_axes_come_back_to_the_bit(tmp_path, make_dataset, buttons):
    rows = [np.zeros((n, buttons), bool) for n in (6, 5)]  # values alone would not tell that they are buttons
    written = make_dataset(tmp_path / "x.zarr", [6, 5], actions=buttons, axes=3, state=0, rows=rows)
    for number, episode in enumerate(written):
        episode.axes[:, 1], episode.axes[:, 2] = np.arange(len(episode.axes)) % 2, 0
        episode.axes[:2, 2] = -1e-42, 3e38
        zarr.open_group(tmp_path / "x.zarr")[f"episode_{number}/axes"][:] = episode.axes
    lr = exported(tmp_path / "x.zarr", tmp_path / "lr")
    feature = json.loads((lr / "meta/info.json").read_text())["features"]["action"]
    names = [f"a{i}" for i in range(buttons)], [f"x{i}" for i in range(3)]
    assert (feature["names"], feature["info"]) == (names[0] + names[1], {"buttons": names[0]})
    table = pq.read_table(lr / DATA.format(0))["action"].to_pylist()
    np.testing.assert_array_equal(table, np.c_[written[0].actions, written[0].axes])
    after = imported(lr, tmp_path / "back.zarr")
    assert (list(after.action_names), list(after.axis_names)) == names
    for e, episode in enumerate(written):
        np.testing.assert_array_equal(after.axes(e).view(np.uint32), episode.axes.view(np.uint32))
        np.testing.assert_array_equal(after.actions(e), episode.actions)


def test_axes_that_may_add_up_are_not_left_out(tmp_path, make_dataset):
    (episode,) = make_dataset(tmp_path / "x.zarr", [8], axes=1, fps=20.0)
    axes: Any = zarr.open_group(tmp_path / "x.zarr")["episode_0/axes"]
    axes[:] = episode.axes.clip(-1, 1)
    after = imported(exported(tmp_path / "x.zarr", tmp_path / "lr", fps=10), tmp_path / "back.zarr")
    np.testing.assert_array_equal(after.axes(0), episode.axes.clip(-1, 1)[::2])
    axes[5] = -1.5
    message = user_error(exported, tmp_path / "x.zarr", tmp_path / "lr2", fps=10)
    assert "episode_0: axis 'x0' is -1.5 in frame 5, and an amount beyond 1" in message
    assert message.endswith("export without --fps")
    assert not (tmp_path / "lr2.partial").exists()
    exported(tmp_path / "x.zarr", tmp_path / "lr2", fps=20)  # leaves nothing out


def test_colours_are_exported_as_they_are(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [3], size=(32, 48))
    stored: Any = zarr.open_group(tmp_path / "x.zarr")["episode_0/frames"]
    frames = np.empty(stored.shape, np.uint8)
    for i, colour in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255)]):
        frames[:, :, :, i * 16 : i * 16 + 16] = np.array(colour)[:, None, None]
    stored[:] = frames
    after = imported(exported(tmp_path / "x.zarr", tmp_path / "lr"), tmp_path / "back.zarr").frames(0, range(3))
    assert np.abs(after.astype(int) - frames)[:, :, :, 4::8].max() <= 4
    with av.open(str(tmp_path / "lr" / VIDEO.format(0))) as container:
        assert next(container.decode(video=0)).colorspace == 6  # BT.601


def test_one_button_is_a_plain_column_and_a_state_may_be_missing(tmp_path, make_dataset):
    (before,) = make_dataset(tmp_path / "x.zarr", [6], actions=1, state=0, fps=30.0)
    out = exported(tmp_path / "x.zarr", tmp_path / "lr")
    assert pq.read_table(out / DATA.format(0))["action"].to_pylist() == before.actions[:, 0].tolist()
    assert '"fps": 30,' in (out / "meta/info.json").read_text()  # a whole rate is a whole number
    after = imported(out, tmp_path / "back.zarr")
    assert after.state_names == ()
    np.testing.assert_array_equal(after.actions(0), before.actions)


def test_the_metadata_describe_files_and_features(plain):
    assert sorted(p.name for p in plain.iterdir()) == ["data", "meta", "videos"]
    info = json.loads((plain / "meta/info.json").read_text())
    features = info.pop("features")
    assert info == {
        "codebase_version": "v3.0",
        "robot_type": None,
        "total_episodes": 3,
        "total_frames": sum(LENGTHS),
        "total_tasks": 1,
        "chunks_size": 1000,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": 17.5,
        "splits": {"train": "0:3"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    }
    assert features["action"] == {"dtype": "float32", "shape": [7], "names": [f"a{i}" for i in range(7)]}
    assert features["observation.state"] == {"dtype": "float32", "shape": [3], "names": ["s0", "s1", "s2"]}
    assert features[CAMERA]["shape"] == [24, 32, 3]
    assert features["timestamp"] == {"dtype": "float32", "shape": [1], "names": None}
    assert features["index"] == {"dtype": "int64", "shape": [1], "names": None}
    assert not plain.with_name("lr.partial").exists()


def test_rows_and_pictures_have_the_same_times(plain, numbered):
    before = ZarrGameplayDataset(numbered)
    table = pq.read_table(plain / DATA.format(1))
    assert str(table.schema.field("action").type) == "fixed_size_list<element: float>[7]"
    assert str(table.schema.field("timestamp").type) == "float"
    columns = table.to_pydict()
    np.testing.assert_array_equal(columns["action"], before.actions(1).astype(np.float32))
    np.testing.assert_array_equal(columns["observation.state"], before.state(1))
    np.testing.assert_allclose(columns["timestamp"], np.arange(40) / 17.5, rtol=1e-6)
    assert (columns["frame_index"], columns["index"]) == (list(range(40)), list(range(7, 47)))
    assert (set(columns["episode_index"]), set(columns["task_index"])) == ({1}, {0})
    with av.open(str(plain / VIDEO.format(1))) as container:
        times = [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
    np.testing.assert_allclose(times, np.arange(40) / 17.5, atol=1e-6)  # LeRobot's tolerance is 1e-4


def test_a_folder_holds_a_thousand_files():
    assert data_file(999) == "data/chunk-000/file-999.parquet"
    assert data_file(1000) == "data/chunk-001/file-000.parquet"
    assert video_file(2001) == f"videos/{CAMERA}/chunk-002/file-001.mp4"


def test_episodes_are_listed_with_all_their_tasks(tmp_path, source):
    tasks = [["find the key"], ["play doom/e1m1"], ["find the key", "open [it]\u2028"]]
    attrs_of(source, 0)["tasks"] = "find the key"
    attrs_of(source, 1)["game"] = "doom/e1m1"
    attrs_of(source, 2)["tasks"] = tasks[2]
    out = exported(source, tmp_path / "lr")
    rows = pq.read_table(out / EPISODES).to_pylist()
    assert [row["tasks"] for row in rows] == tasks
    assert {k: v for k, v in rows[1].items() if not k.startswith("stats/")} == {
        "episode_index": 1,
        "tasks": ["play doom/e1m1"],
        "length": 40,
        "data/chunk_index": 0,
        "data/file_index": 1,
        "dataset_from_index": 7,
        "dataset_to_index": 47,
        f"videos/{CAMERA}/chunk_index": 0,
        f"videos/{CAMERA}/file_index": 1,
        f"videos/{CAMERA}/from_timestamp": 0.0,
        f"videos/{CAMERA}/to_timestamp": pytest.approx(40 / 17.5),
        "meta/episodes/chunk_index": 0,
        "meta/episodes/file_index": 0,
    }
    table = pq.read_table(out / "meta/tasks.parquet")
    assert table.to_pydict() == {"task_index": [0, 1, 2], "task": ["find the key", "play doom/e1m1", tasks[2][1]]}
    assert json.loads(table.schema.metadata[b"pandas"])["index_columns"] == ["task"]
    assert [pq.read_table(out / DATA.format(e))["task_index"][0].as_py() for e in range(3)] == [0, 1, 0]
    assert [e.attrs["tasks"] for e in imported(out, tmp_path / "back.zarr").episodes] == tasks


def test_an_episode_without_a_task_has_the_task_play(tmp_path, source):
    attrs_of(source, 1)["tasks"], attrs_of(source, 2)["tasks"] = [], None
    rows = pq.read_table(exported(source, tmp_path / "lr") / EPISODES).to_pylist()
    assert [row["tasks"] for row in rows] == [["play"]] * 3


def test_statistics_are_those_of_the_values(tmp_path, make_dataset):
    written = make_dataset(tmp_path / "x.zarr", [5, 9])
    out = exported(tmp_path / "x.zarr", tmp_path / "lr")
    totals = json.loads((out / "meta/stats.json").read_text())
    rows = pq.read_table(out / EPISODES).to_pylist()
    second = {name: {key: rows[1][f"stats/{name}/{key}"] for key in totals[name]} for name in totals}
    for stats, episodes in ((totals, written), (second, written[1:])):
        pixels = np.concatenate([e.frames for e in episodes]).transpose(1, 0, 2, 3).reshape(3, -1) / 255
        state = np.concatenate([e.state for e in episodes if e.state is not None]).astype(np.float64)
        actions = np.concatenate([e.actions for e in episodes]).astype(np.float64)
        for name, values in ((CAMERA, pixels.T), ("observation.state", state), ("action", actions)):
            shape = (3, 1, 1) if name == CAMERA else values.shape[1:]
            expected = {"min": values.min(0), "max": values.max(0), "mean": values.mean(0), "std": values.std(0)}
            # A pixel has one of 256 values, so its quantiles are never a mean of two.
            method = "inverted_cdf" if name == CAMERA else "linear"
            expected |= {f"q{q:02d}": np.quantile(values, q / 100, 0, method=method) for q in (1, 10, 50, 90, 99)}
            assert set(stats[name]) == {*expected, "count"}
            for key, value in expected.items():
                np.testing.assert_allclose(stats[name][key], value.reshape(shape), atol=1e-9, err_msg=f"{name} {key}")
            assert stats[name]["count"] == [sum(len(e.frames) for e in episodes)]
    assert totals["index"]["max"] == [13]


def test_an_export_may_resize_frames_and_leave_some_out(tmp_path, numbered):
    out = exported(numbered, tmp_path / "lr", size=(12, 16), fps=10)
    after, before = imported(out, tmp_path / "back.zarr"), ZarrGameplayDataset(numbered)
    kept = [[int(i) for i in np.unique((np.arange(n) * 10 / 17.5).astype(int), return_index=True)[1]] for n in LENGTHS]
    assert (after.fps, after.frame_size) == (10, (12, 16))
    for e, frames in enumerate(kept):
        assert numbers(after.frames(e, range(len(frames)))) == [(e, i) for i in frames]
        pressed = np.logical_or.reduceat(before.actions(e), frames, axis=0)
        np.testing.assert_array_equal(after.actions(e), pressed)
    index = pq.read_table(out / DATA.format(2))["index"].to_pylist()
    assert index == list(range(len(kept[0]) + len(kept[1]), sum(map(len, kept))))


def test_episodes_of_different_rates_are_thinned_to_one(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [8, 8], fps=20.0)
    attrs_of(tmp_path / "x.zarr", 1)["fps"] = 10.0
    (tmp_path / "x.zarr" / "episode_1").rename(tmp_path / "x.zarr" / "episode_7")  # numbered without gaps
    after = imported(exported(tmp_path / "x.zarr", tmp_path / "lr", fps=10), tmp_path / "back.zarr")
    assert [e.length for e in after.episodes] == [4, 8]


def test_an_export_continues_where_it_stopped(tmp_path, numbered, monkeypatch):
    encode, encoded = lerobot_export._encode, []

    def stopped(file: Path, *args: Any) -> None:
        encoded.append(file.name)
        if file.name == "file-001.mp4":
            file.write_bytes(b"half")
            raise KeyboardInterrupt
        encode(file, *args)

    monkeypatch.setattr(lerobot_export, "_encode", stopped)
    with pytest.raises(KeyboardInterrupt):
        exported(numbered, tmp_path / "lr")
    assert not (tmp_path / "lr").exists()
    assert "with other options: finish it" in user_error(exported, numbered, tmp_path / "lr", fps=10)

    monkeypatch.setattr(lerobot_export, "_encode", lambda f, *args: (encoded.append(f.name), encode(f, *args)))
    out = exported(numbered, tmp_path / "lr")
    assert encoded == ["file-000.mp4", "file-001.mp4", "file-001.mp4", "file-002.mp4"]
    assert [e.length for e in imported(out, tmp_path / "back.zarr").episodes] == list(LENGTHS)


def test_two_exports_at_once_are_refused_and_an_empty_folder_is_filled(tmp_path, numbered):
    (tmp_path / "lr").mkdir()
    progress = tmp_path / "lr.partial" / lerobot_export._PROGRESS
    progress.mkdir(parents=True)
    with locked(progress / ".lock"):
        assert "another process exports to" in user_error(exported, numbered, tmp_path / "lr")
    exported(numbered, tmp_path / "lr")


def test_a_folder_that_was_filled_meanwhile_is_kept(tmp_path, numbered, monkeypatch):
    write = lerobot_export.write_metadata

    def filled(*args: Any) -> None:
        write(*args)
        (tmp_path / "lr").mkdir()
        (tmp_path / "lr" / "thesis.tex").touch()

    monkeypatch.setattr(lerobot_export, "write_metadata", filled)
    message = user_error(exported, numbered, tmp_path / "lr")
    assert "is there by now: move it away and run the same command again" in message
    monkeypatch.undo()
    (tmp_path / "lr").rename(tmp_path / "away")
    monkeypatch.setattr(lerobot_export, "_encode", None)  # nothing is encoded again
    exported(numbered, tmp_path / "lr")


def test_brackets_and_colons_in_paths_are_kept(tmp_path, numbered, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = Path("take:2 [old]") / ":smile: [bold]lr"
    out.parent.mkdir()
    console = Console(record=True, width=40)
    export(numbered, out, None, None, 1, console)
    assert f"to {out.absolute()}\n" in console.export_text()
    assert numbers(imported(out, Path("back:2.zarr")).frames(0, [0])) == [(0, 0)]


def test_a_dataset_that_cannot_be_exported_is_refused(tmp_path, make_dataset):
    source = tmp_path / "x.zarr"
    make_dataset(source, [4, 4], size=(15, 24), fps=17.5)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "thesis.tex").touch()

    def refused(part: str, source: Path = source, out: str = "lr", size: Any = (14, 24), **options: Any) -> None:
        assert part in user_error(exported, source, tmp_path / out, size=size, **options)

    refused("exists and is no empty folder: remove it", out="there")
    refused("exists and is no empty folder", out="there/thesis.tex")
    refused("no dataset at", tmp_path / "none.zarr")
    refused("15x24 have an odd side, which the video cannot have: add --size 14x24", size=None)
    refused("a side above the video's 16384: add --size", size=(8, 16_386))
    refused("--fps 20 is above the 17.5 of", fps=20)
    for tasks in (3, {"text": "play"}, [3], ["play", None], "\ud83d"):
        attrs_of(source, 1)["tasks"] = tasks
        refused("episode_1 has the attribute 'tasks'")
    attrs_of(source, 1).update({"fps": 20, "tasks": []})
    refused("17.5 frames per second in episode_0 and 20 in episode_1, LeRobot has one rate: add --fps 17.5")
    for fps in (1e-9, 1e12):
        attrs_of(source, 1)["fps"] = fps
        refused("frames per second, a video has 0.001 to 1e+06: correct 'fps'")
    del attrs_of(source, 1)["fps"]
    refused("episode_1 does not say its frames per second")
    assert not list(tmp_path.glob("lr*"))


def test_a_damaged_frame_stops_the_export(tmp_path, source):
    (source / "episode_1/frames/c/3/0/0/0").unlink()
    assert "episode_1: cannot read 'frames'" in user_error(exported, source, tmp_path / "lr")
    assert not (tmp_path / "lr").exists()


def run(monkeypatch, *arguments: object) -> int | str | None:
    """The exit code of ``convert``."""
    monkeypatch.setattr(sys, "argv", ["BC_training", "convert", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        command_line.main()
    return exit_.value.code


@pytest.mark.parametrize(("arguments", "message"), [
    ("", "either --from KIND"),
    ("--from lerobot --to lerobot", "either --from KIND"),
    ("--to lerobt", "did you mean 'lerobot'"),
    ("--to lerobot --camera top", "--camera belongs to --from"),
    ("--to lerobot --size 13x16", "odd side"),
    ("--to lerobot --fps nan", "--fps nan is not a number of frames per second above 0"),
    *[(f"--from lerobot --fps={fps}", f"--fps {fps} is not a number") for fps in ("0", "-5", "inf")],
    ("--from lerobot --camera top", "no meta/info.json"),
])  # fmt: skip
def test_the_command_line_refuses_in_one_line(monkeypatch, capsys, tmp_path, numbered, arguments, message):
    assert run(monkeypatch, numbered, "--out", tmp_path / "o", *arguments.split()) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "o").exists()


def test_the_command_line_converts_there_and_back(monkeypatch, tmp_path, numbered):
    lerobot, back = tmp_path / "lr", tmp_path / "y.zarr"
    assert not run(monkeypatch, numbered, "--to", "lerobot", "--out", lerobot, "--workers", 1)
    assert not run(monkeypatch, lerobot, "--from", "lerobot", "--camera", CAMERA, "--out", back, "--workers", 1)
    assert [e.length for e in ZarrGameplayDataset(back).episodes] == list(LENGTHS)
