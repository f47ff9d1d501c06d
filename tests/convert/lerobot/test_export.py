"""Export to LeRobot v3.0: what is in the files, and the way back."""

import json
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr
from rich.console import Console

from BC_training import __main__ as command_line
from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.errors import UserError
from BC_training.common.files import locked
from BC_training.convert import Options, convert
from BC_training.convert.lerobot import export as lerobot_export
from BC_training.convert.lerobot import meta as lerobot_meta
from BC_training.convert.lerobot.export import export

LENGTHS = (7, 40, 5)
CAMERA = "observation.images.screen"


def number_frames(path: Path, lengths=LENGTHS) -> None:
    """Replaces the frames by smooth ones that encode episode and frame as brightness."""
    for e, length in enumerate(lengths):
        stored: Any = zarr.open_group(path)[f"episode_{e}/frames"]
        width = stored.shape[3]
        frames = np.empty(stored.shape, np.uint8)
        frames[:, :, :, : width // 2] = np.arange(length).reshape(-1, 1, 1, 1) * 6
        frames[:, :, :, width // 2 :] = 60 * e + 20
        stored[:] = frames


@pytest.fixture
def source(tmp_path, make_dataset) -> Path:
    make_dataset(tmp_path / "x.zarr", LENGTHS, fps=17.5)
    number_frames(tmp_path / "x.zarr")
    return tmp_path / "x.zarr"


def exported(source: Path, out: Path, size=None, fps=None, workers: int = 1) -> Path:
    export(source, out, size, fps, workers, Console(quiet=True))
    return out


def imported(source: Path, out: Path) -> ZarrGameplayDataset:
    convert(source, out, Options("lerobot"), 1, Console(quiet=True))
    return ZarrGameplayDataset(out)


def error_of(*args: Any, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        exported(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def numbers(frames: np.ndarray) -> list[tuple[int, int]]:
    """(episode, frame) of each of frames uint8 [N, 3, H, W] by ``number_frames``, after lossy coding."""
    width = frames.shape[3]
    left = frames[:, :, :, : width // 2 - 2].mean((1, 2, 3)) / 6
    right = (frames[:, :, :, width // 2 + 2 :].mean((1, 2, 3)) - 20) / 60
    assert np.abs(left - left.round()).max() < 0.4
    return [(round(e), round(i)) for e, i in zip(right, left, strict=True)]


@pytest.mark.parametrize("workers", [1, 2])
def test_there_and_back(tmp_path, source, workers):
    before = ZarrGameplayDataset(source)
    after = imported(exported(source, tmp_path / "lr", workers=workers), tmp_path / "back.zarr")
    assert after.action_names == before.action_names
    assert after.state_names == before.state_names
    assert after.fps == 17.5
    assert [e.length for e in after.episodes] == list(LENGTHS)
    for e, length in enumerate(LENGTHS):
        np.testing.assert_array_equal(after.actions(e), before.actions(e))
        np.testing.assert_array_equal(after.state(e), before.state(e))
        frames = after.frames(e, range(length))
        assert numbers(frames) == [(e, i) for i in range(length)]
        assert np.abs(frames.astype(int) - before.frames(e, range(length))).mean() < 1.5


def test_colours_survive(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [3], size=(32, 48))
    stored: Any = zarr.open_group(tmp_path / "x.zarr")["episode_0/frames"]
    frames = np.empty(stored.shape, np.uint8)
    for i, colour in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255)]):
        frames[:, :, :, i * 16 : i * 16 + 16] = np.array(colour)[:, None, None]
    stored[:] = frames
    after = imported(exported(tmp_path / "x.zarr", tmp_path / "lr"), tmp_path / "back.zarr").frames(0, range(3))
    assert np.abs(after.astype(int) - frames)[:, :, :, 4::8].max() <= 4
    with av.open(str(tmp_path / "lr/videos" / CAMERA / "chunk-000/file-000.mp4")) as container:
        assert next(container.decode(video=0)).colorspace == 6  # BT.601


def test_a_colon_in_a_relative_path_is_no_protocol(tmp_path, source, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = exported(source, Path("take:2"))
    after = imported(out, Path("back:2.zarr"))
    assert numbers(after.frames(0, [0])) == [(0, 0)]


def test_one_action_without_state(tmp_path, make_dataset):
    (before,) = make_dataset(tmp_path / "x.zarr", [6], actions=1, state=0)
    out = exported(tmp_path / "x.zarr", tmp_path / "lr")
    assert pq.read_table(out / "data/chunk-000/file-000.parquet")["action"].to_pylist() == before.actions[:, 0].tolist()
    after = imported(out, tmp_path / "back.zarr")
    assert after.state_names == ()
    np.testing.assert_array_equal(after.actions(0), before.actions)


def test_info(tmp_path, source):
    out = exported(source, tmp_path / "lr")
    assert sorted(p.name for p in out.iterdir()) == ["data", "meta", "videos"]
    info = json.loads((out / "meta/info.json").read_text())
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
    assert not (tmp_path / "lr.partial").exists()


def test_a_whole_rate_is_a_whole_number(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [3], fps=30.0)
    assert '"fps": 30,' in (exported(tmp_path / "x.zarr", tmp_path / "lr") / "meta/info.json").read_text()


def test_rows(tmp_path, source):
    out, before = exported(source, tmp_path / "lr"), ZarrGameplayDataset(source)
    table = pq.read_table(out / "data/chunk-000/file-001.parquet")
    assert str(table.schema.field("action").type) == "fixed_size_list<element: float>[7]"
    assert str(table.schema.field("timestamp").type) == "float"
    columns = table.to_pydict()
    np.testing.assert_array_equal(columns["action"], before.actions(1).astype(np.float32))
    np.testing.assert_array_equal(columns["observation.state"], before.state(1))
    np.testing.assert_allclose(columns["timestamp"], np.arange(40) / 17.5, rtol=1e-6)
    assert columns["frame_index"] == list(range(40))
    assert columns["index"] == list(range(7, 47))
    assert set(columns["episode_index"]) == {1}
    assert set(columns["task_index"]) == {0}
    with av.open(str(out / "videos" / CAMERA / "chunk-000/file-001.mp4")) as container:
        times = [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
    np.testing.assert_allclose(times, np.arange(40) / 17.5, atol=1e-6)  # LeRobot's tolerance is 1e-4


def test_a_thousand_files_a_folder():
    assert lerobot_meta.data_file(999) == "data/chunk-000/file-999.parquet"
    assert lerobot_meta.data_file(1000) == "data/chunk-001/file-000.parquet"
    assert lerobot_meta.video_file(2001) == f"videos/{CAMERA}/chunk-002/file-001.mp4"


def test_episodes_and_tasks(tmp_path, source):
    zarr.open_group(source)["episode_0"].attrs["tasks"] = ["find the key"]
    zarr.open_group(source)["episode_1"].attrs["game"] = "doom/e1m1"
    zarr.open_group(source)["episode_2"].attrs["tasks"] = ["find the key"]
    out = exported(source, tmp_path / "lr")
    rows = pq.read_table(out / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [{k: v for k, v in row.items() if not k.startswith("stats/")} for row in rows][1] == {
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
    tasks = pq.read_table(out / "meta/tasks.parquet")
    assert tasks.to_pydict() == {"task_index": [0, 1], "task": ["find the key", "play doom/e1m1"]}
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]
    indices = [pq.read_table(out / f"data/chunk-000/file-00{e}.parquet")["task_index"][0].as_py() for e in range(3)]
    assert indices == [0, 1, 0]


def test_statistics(tmp_path, make_dataset):
    written = make_dataset(tmp_path / "x.zarr", [5, 9])
    out = exported(tmp_path / "x.zarr", tmp_path / "lr")
    totals = json.loads((out / "meta/stats.json").read_text())
    rows = pq.read_table(out / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    second = {name: {key: rows[1][f"stats/{name}/{key}"] for key in totals[name]} for name in totals}
    for stats, episodes in ((totals, written), (second, written[1:])):
        pixels = np.concatenate([e.frames for e in episodes]).transpose(1, 0, 2, 3).reshape(3, -1) / 255
        state = np.concatenate([e.state for e in episodes if e.state is not None]).astype(np.float64)
        actions = np.concatenate([e.actions for e in episodes]).astype(np.float64)
        for name, values in ((CAMERA, pixels.T), ("observation.state", state), ("action", actions)):
            shape = (3, 1, 1) if name == CAMERA else values.shape[1:]
            expected = {"min": values.min(0), "max": values.max(0), "mean": values.mean(0), "std": values.std(0)}
            # A pixel's value is one of 256: no mean of two.
            method = "inverted_cdf" if name == CAMERA else "linear"
            expected |= {f"q{q:02d}": np.quantile(values, q / 100, 0, method=method) for q in (1, 10, 50, 90, 99)}
            assert set(stats[name]) == {*expected, "count"}
            for key, value in expected.items():
                np.testing.assert_allclose(stats[name][key], value.reshape(shape), atol=1e-9, err_msg=f"{name} {key}")
            assert stats[name]["count"] == [sum(len(e.frames) for e in episodes)]
    assert totals["index"]["max"] == [13]


def test_size_and_fps(tmp_path, source):
    out = exported(source, tmp_path / "lr", size=(12, 16), fps=10)
    after, before = imported(out, tmp_path / "back.zarr"), ZarrGameplayDataset(source)
    kept = [[int(i) for i in np.unique((np.arange(n) * 10 / 17.5).astype(int), return_index=True)[1]] for n in LENGTHS]
    assert after.fps == 10
    assert after.frame_size == (12, 16)
    for e, frames in enumerate(kept):
        assert numbers(after.frames(e, range(len(frames)))) == [(e, i) for i in frames]
        pressed = np.logical_or.reduceat(before.actions(e), frames, axis=0)
        np.testing.assert_array_equal(after.actions(e), pressed)
    index = pq.read_table(out / "data/chunk-000/file-002.parquet")["index"].to_pylist()
    assert index == list(range(len(kept[0]) + len(kept[1]), sum(map(len, kept))))


def test_continues_where_it_stopped(tmp_path, source, monkeypatch):
    encode, encoded = lerobot_export._encode, []

    def stopped(file: Path, *args: Any) -> None:
        encoded.append(file.name)
        if file.name == "file-001.mp4":
            file.write_bytes(b"half")
            raise KeyboardInterrupt
        encode(file, *args)

    monkeypatch.setattr(lerobot_export, "_encode", stopped)
    with pytest.raises(KeyboardInterrupt):
        exported(source, tmp_path / "lr")
    assert not (tmp_path / "lr").exists()
    assert "with other options: finish it" in error_of(source, tmp_path / "lr", fps=10)

    monkeypatch.setattr(lerobot_export, "_encode", lambda f, *args: (encoded.append(f.name), encode(f, *args)))
    out = exported(source, tmp_path / "lr")
    assert encoded == ["file-000.mp4", "file-001.mp4", "file-001.mp4", "file-002.mp4"]
    assert [e.length for e in imported(out, tmp_path / "back.zarr").episodes] == list(LENGTHS)


def test_two_at_once(tmp_path, source):
    progress = tmp_path / "lr.partial" / lerobot_export._PROGRESS
    progress.mkdir(parents=True)
    with locked(progress / ".lock"):
        assert "another process exports to" in error_of(source, tmp_path / "lr")
    exported(source, tmp_path / "lr")


def test_refusals(tmp_path, make_dataset):
    source = tmp_path / "x.zarr"
    make_dataset(source, [4, 4], size=(15, 24), fps=17.5)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "thesis.tex").touch()
    assert "exists and is no empty folder: remove it" in error_of(source, tmp_path / "there")
    assert "exists and is no empty folder" in error_of(source, tmp_path / "there" / "thesis.tex")
    assert "no dataset at" in error_of(tmp_path / "none.zarr", tmp_path / "lr")
    assert "15x24 have an odd side" in error_of(source, tmp_path / "lr")
    assert "add --size 14x24" in error_of(source, tmp_path / "lr")
    assert "--fps 20 is above the 17.5 of" in error_of(source, tmp_path / "lr", size=(14, 24), fps=20)
    zarr.open_group(source)["episode_1"].attrs["fps"] = 20
    message = error_of(source, tmp_path / "lr", size=(14, 24))
    assert "17.5 frames per second in episode_0 and 20 in episode_1" in message
    assert "add --fps 17.5" in message
    del zarr.open_group(source)["episode_1"].attrs["fps"]
    assert "episode_1 does not say its frames per second" in error_of(source, tmp_path / "lr", size=(14, 24))
    assert not (tmp_path / "lr").exists()
    assert not (tmp_path / "lr.partial").exists()


def test_a_folder_that_is_empty_is_filled(tmp_path, source):
    (tmp_path / "lr").mkdir()
    assert len(imported(exported(source, tmp_path / "lr"), tmp_path / "back.zarr").episodes) == len(LENGTHS)


def test_a_folder_that_was_filled_meanwhile_is_kept(tmp_path, source, monkeypatch):
    write = lerobot_export.write_metadata

    def filled(*args: Any) -> None:
        write(*args)
        (tmp_path / "lr").mkdir()
        (tmp_path / "lr" / "thesis.tex").touch()

    monkeypatch.setattr(lerobot_export, "write_metadata", filled)
    assert "is there by now: move it away and run the same command again" in error_of(source, tmp_path / "lr")
    monkeypatch.undo()
    (tmp_path / "lr").rename(tmp_path / "away")
    monkeypatch.setattr(lerobot_export, "_encode", None)  # nothing is encoded again
    exported(source, tmp_path / "lr")


def test_brackets_and_colons_in_paths_are_printed_as_they_are(tmp_path, source):
    out = tmp_path / "games [old]" / ":smile: [bold]lr"
    out.parent.mkdir()
    console = Console(record=True, width=40)
    export(source, out, None, None, 1, console)
    assert f"to {out}\n" in console.export_text()


@pytest.mark.parametrize(
    ("tasks", "expected"),
    [
        ("find the key", ["find the key"]),
        (["find the key", "open [it]\u2028"], ["find the key", "open [it]\u2028"]),
        ([], ["play"]),
        (None, ["play"]),
    ],
)
def test_all_tasks_of_an_episode_are_kept(tmp_path, source, tasks, expected):
    zarr.open_group(source)["episode_1"].attrs["tasks"] = tasks
    out = exported(source, tmp_path / "lr")
    rows = pq.read_table(out / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [row["tasks"] for row in rows] == [["play"], expected, ["play"]]
    names = pq.read_table(out / "meta/tasks.parquet")["task"].to_pylist()
    index = pq.read_table(out / "data/chunk-000/file-001.parquet")["task_index"][0].as_py()
    assert names[index] == expected[0]
    assert sorted(names) == sorted({"play", *expected})
    back = imported(out, tmp_path / "back.zarr")
    assert [e.attrs["tasks"] for e in back.episodes] == [["play"], expected, ["play"]]


@pytest.mark.parametrize("tasks", [3, {"text": "play"}, [3], ["play", None], "\ud83d"])
def test_tasks_that_are_no_texts_are_refused(tmp_path, source, tasks):
    zarr.open_group(source)["episode_1"].attrs["tasks"] = tasks
    assert "episode_1 has the attribute 'tasks'" in error_of(source, tmp_path / "lr")
    assert not (tmp_path / "lr.partial").exists()


@pytest.mark.parametrize("fps", [1e-9, 1e12])
def test_a_rate_that_a_video_cannot_have_is_refused(tmp_path, source, fps):
    for episode in range(3):
        zarr.open_group(source)[f"episode_{episode}"].attrs["fps"] = fps
    assert "frames per second, a video has 0.001 to 1e+06: correct 'fps'" in error_of(source, tmp_path / "lr")


def test_a_side_that_the_codec_cannot_have_is_refused(tmp_path, source):
    assert "a side above the video's 16384: add --size" in error_of(source, tmp_path / "lr", size=(8, 16_386))


def test_episodes_are_numbered_without_gaps(tmp_path, source):
    (source / "episode_1").rename(source / "episode_7")
    back = imported(exported(source, tmp_path / "lr"), tmp_path / "back.zarr")
    assert [e.length for e in back.episodes] == [LENGTHS[0], LENGTHS[2], LENGTHS[1]]


def test_episodes_of_different_rates_with_fps(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [8, 8], fps=20.0)
    zarr.open_group(tmp_path / "x.zarr")["episode_1"].attrs["fps"] = 10.0
    after = imported(exported(tmp_path / "x.zarr", tmp_path / "lr", fps=10), tmp_path / "back.zarr")
    assert [e.length for e in after.episodes] == [4, 8]


def test_a_damaged_frame_stops_it(tmp_path, source):
    (source / "episode_1/frames/c/3/0/0/0").unlink()
    message = error_of(source, tmp_path / "lr")
    assert "episode_1: cannot read 'frames'" in message
    assert not (tmp_path / "lr").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "either --from KIND"),
        (["--from", "lerobot", "--to", "lerobot"], "either --from KIND"),
        (["--to", "lerobt"], "did you mean 'lerobot'"),
        (["--to", "lerobot", "--camera", "top"], "--camera belongs to --from"),
        (["--to", "lerobot", "--size", "13x16"], "odd side"),
        (["--to", "lerobot", "--fps", "nan"], "--fps nan is not a number of frames per second above 0"),
        (["--from", "lerobot", "--fps", "0"], "--fps 0 is not a number"),
        (["--from", "lerobot", "--fps=-5"], "--fps -5 is not a number"),
        (["--from", "lerobot", "--fps", "inf"], "--fps inf is not a number"),
        (["--from", "lerobot"], "no meta/info.json"),
        (["--from", "lerobot", "--camera", "top"], "no meta/info.json"),
    ],
)
def test_command_line_refuses(monkeypatch, capsys, tmp_path, source, arguments, message):
    monkeypatch.setattr(sys, "argv", ["BC_training", "convert", str(source), "--out", str(tmp_path / "o"), *arguments])
    with pytest.raises(SystemExit) as exit_:
        command_line.main()
    error = capsys.readouterr().err
    assert exit_.value.code == 2
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "o").exists()


def test_command_line_there_and_back(monkeypatch, tmp_path, source):
    there = [str(source), "--to", "lerobot", "--out", str(tmp_path / "lr")]
    back = [str(tmp_path / "lr"), "--from", "lerobot", "--camera", CAMERA, "--out", str(tmp_path / "y.zarr")]
    for arguments in (there, back):
        monkeypatch.setattr(sys, "argv", ["BC_training", "convert", *arguments, "--workers", "1"])
        with pytest.raises(SystemExit) as exit_:
            command_line.main()
        assert not exit_.value.code
    assert [e.length for e in ZarrGameplayDataset(tmp_path / "y.zarr").episodes] == list(LENGTHS)
