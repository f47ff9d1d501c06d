"""LeRobot datasets to convert, written with pyarrow and PyAV alone, not by the package's exporter."""

import io
import json
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from conversions import converted
from dataset_files import edit_json
from PIL import Image

from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.convert.lerobot.reader import LeRobotSource, open_source
from BC_training.convert.source import Options

HEIGHT, WIDTH = 32, 64
ON, OFF = (220, 120, 40), (20, 40, 120)
CAMERA = "observation.images.top"
NAMES = ["jump", "fire", "left"]
LENGTHS = (4, 6, 5)


def picture(episode: int, frame: int) -> np.ndarray:
    """uint8 [H, W, 3] with the two numbers in binary: the frame's on top, the episode's below."""
    image = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    for row, number in enumerate((frame, episode)):
        for bit in range(8):
            image[row * 16 : row * 16 + 16, bit * 8 : bit * 8 + 8] = ON if number >> bit & 1 else OFF
    return image


def numbers(frame: np.ndarray) -> tuple[int, int]:
    """(episode, frame) of an image uint8 [3, H, W] after lossy coding, which keeps its colours."""
    blocks = frame[:, 8::16, 4::8].astype(int)
    bits = np.abs(blocks - np.array(ON)[:, None, None]).max(0) < 40
    assert (bits | (np.abs(blocks - np.array(OFF)[:, None, None]).max(0) < 40)).all()
    return tuple(int(row @ (1 << np.arange(8))) for row in bits)[::-1]


def actions(episode: int, length: int) -> np.ndarray:
    return np.array([[(i + episode) & 1, i & 2, i == 0] for i in range(length)], bool)


def state(episode: int, length: int) -> np.ndarray:
    return np.array([[episode, i + 0.25] for i in range(length)], np.float32)


def write_video(file: Path, pictures: Sequence[np.ndarray], fps: float) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    rate = Fraction(fps).limit_denominator(1000)
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "10", "g": "4"})
        stream.pix_fmt, stream.height, stream.width = "yuv420p", pictures[0].shape[0], pictures[0].shape[1]
        for image in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def png(image: np.ndarray) -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": "frame-000000.png"}


def rows(episode: int, length: int, first: int, options: dict[str, Any]) -> pa.Table:
    pressed = actions(episode, length).astype(options["action"])
    columns = {
        "action": pa.array(pressed.tolist(), pa.list_(pa.from_numpy_dtype(pressed.dtype))),
        "timestamp": pa.array((np.arange(length) / options["fps"]).astype(np.float32)),
        "frame_index": pa.array(range(length), pa.int64()),
        "episode_index": pa.array([episode] * length, pa.int64()),
        "index": pa.array(range(first, first + length), pa.int64()),
        "task_index": pa.array([0] * length, pa.int64()),
    }
    if options["state"]:
        columns["observation.state"] = pa.array(state(episode, length).tolist(), pa.list_(pa.float32(), 2))
    if options["camera"] == "image":
        columns[CAMERA] = pa.array([png(picture(episode, i)) for i in range(length)])
    return pa.table(columns)


def info(version: str, options: dict[str, Any], **more: Any) -> dict[str, Any]:
    features: dict[str, Any] = {
        CAMERA: {"dtype": options["camera"], "shape": [HEIGHT, WIDTH, 3], "names": ["height", "width", "channels"]},
        "action": {"dtype": options["action"], "shape": [3], "names": options["names"]},
    }
    if options["state"]:
        features["observation.state"] = {"dtype": "float32", "shape": [2], "names": {"values": ["health", "ammo"]}}
    for name in ("timestamp", "frame_index", "episode_index", "index", "task_index"):
        features[name] = {"dtype": "float32" if name == "timestamp" else "int64", "shape": [1], "names": None}
    return {
        "codebase_version": version,
        "fps": options["fps"],
        "total_episodes": len(LENGTHS),
        "total_frames": sum(LENGTHS),
        "features": features,
    } | more


DEFAULTS = {"camera": "video", "action": "float32", "names": NAMES, "state": True, "fps": 20}


def write_v21(root: Path, **changes: Any) -> Path:
    """One parquet file and one MP4 an episode; two episodes a chunk, so that the third is in chunk-001."""
    options = DEFAULTS | changes
    (root / "meta").mkdir(parents=True)
    paths = {
        "chunks_size": 2,
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    }
    (root / "meta" / "info.json").write_text(json.dumps(info("v2.1", options, **paths)))
    listed = [{"episode_index": e, "tasks": ["play"], "length": n} for e, n in enumerate(LENGTHS)]
    (root / "meta" / "episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in listed))
    (root / "meta" / "tasks.jsonl").write_text('{"task_index": 0, "task": "play"}\n')
    for e, length in enumerate(LENGTHS):
        data = root / f"data/chunk-{e // 2:03d}/episode_{e:06d}.parquet"
        data.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(rows(e, length, sum(LENGTHS[:e]), options), data)
        if options["camera"] == "video":
            pictures = [picture(e, i) for i in range(length)]
            write_video(root / f"videos/chunk-{e // 2:03d}/{CAMERA}/episode_{e:06d}.mp4", pictures, options["fps"])
    return root


def write_v30(root: Path, **changes: Any) -> Path:
    """Episodes 0 and 1 share a parquet file and an MP4, episode 2 has the next."""
    options = DEFAULTS | changes
    (root / "meta" / "episodes" / "chunk-000").mkdir(parents=True)
    paths = {
        "chunks_size": 1000,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    }
    (root / "meta" / "info.json").write_text(json.dumps(info("v3.0", options, **paths)))
    listed = []
    for file, episodes in enumerate([(0, 1), (2,)]):
        tables, pictures = [], []
        for e in episodes:
            length, first = LENGTHS[e], sum(LENGTHS[:e])
            row = {"episode_index": e, "tasks": ["play"], "length": length}
            row |= {"data/chunk_index": 0, "data/file_index": file}
            row |= {"dataset_from_index": first, "dataset_to_index": first + length, "stats/action/max": [1.0] * 3}
            if options["camera"] == "video":
                start = len(pictures) / options["fps"]
                row |= {f"videos/{CAMERA}/chunk_index": 0, f"videos/{CAMERA}/file_index": file}
                row |= {f"videos/{CAMERA}/from_timestamp": start}
                row |= {f"videos/{CAMERA}/to_timestamp": start + length / options["fps"]}
            tables.append(rows(e, length, first, options))
            pictures += [picture(e, i) for i in range(length)]
            listed.append(row)
        data = root / f"data/chunk-000/file-{file:03d}.parquet"
        data.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.concat_tables(tables), data)
        if options["camera"] == "video":
            write_video(root / f"videos/{CAMERA}/chunk-000/file-{file:03d}.mp4", pictures, options["fps"])
    pq.write_table(pa.Table.from_pylist(listed), root / "meta/episodes/chunk-000/file-000.parquet")
    return root


WRITERS = {"v2.1": write_v21, "v3.0": write_v30}


Edit = Callable[[Path], Any]  # changes a dataset


def imported(source: Path, out: Path, **options: Any) -> ZarrGameplayDataset:
    converted(source, out, "lerobot", **options)
    return ZarrGameplayDataset(out)


def opened(root: Path, **options: Any) -> LeRobotSource:
    return open_source(root, Options("lerobot", **options))


def read(root: Path, **options: Any) -> list[list[Any]]:
    """Each episode's steps, without a dataset written."""
    found = opened(root, **options)
    return [list(found.read(episode).steps) for episode in found.episodes]


def check(dataset: ZarrGameplayDataset, fps: float = 20) -> None:
    assert [e.length for e in dataset.episodes] == list(LENGTHS)
    assert dataset.fps == fps
    for e, length in enumerate(LENGTHS):
        np.testing.assert_array_equal(dataset.actions(e), actions(e, length))
        if dataset.state_names:
            np.testing.assert_array_equal(dataset.state(e), state(e, length))
        assert [numbers(f) for f in dataset.frames(e, range(length))] == [(e, i) for i in range(length)]


def check_read(root: Path, **options: Any) -> None:
    """Checks all steps of a dataset, without writing it; its pictures must be stored without loss."""
    for e, steps in enumerate(read(root, **options)):
        frames, acted, values = zip(*steps, strict=True)
        np.testing.assert_array_equal([action.buttons for action in acted], actions(e, LENGTHS[e]))
        assert not any(len(action.axes) for action in acted)
        np.testing.assert_array_equal(values, state(e, LENGTHS[e]))
        np.testing.assert_array_equal(frames, [picture(e, i).transpose(2, 0, 1) for i in range(LENGTHS[e])])


def edit_info(change: Callable[[dict[str, Any]], Any]) -> Edit:
    return lambda root: edit_json(root / "meta" / "info.json", change)


def set_info(**changes: Any) -> Edit:
    return edit_info(lambda info: info.update(changes))


def set_feature(name: str, **changes: Any) -> Edit:
    return edit_info(lambda info: info["features"][name].update(changes))


def edit_file(pattern: str, change: Callable[[Path], Any]) -> Edit:
    """Changes the last file that matches."""
    return lambda root: change(sorted(root.glob(pattern))[-1])


def edit_tables(change: Callable[[pa.Table], pa.Table]) -> Edit:
    """Changes all rows."""

    def edit(root: Path) -> None:
        for file in root.glob("data/*/*.parquet"):
            pq.write_table(change(pq.read_table(file)), file)

    return edit


def amounts(length: int) -> np.ndarray:
    """float32 [N, 3] for an episode's action, of which the last column has only 0 and 1."""
    return np.array([[i / 7 - 0.5, 300.0 * i, i % 2] for i in range(length)], np.float32)


def act(change: Callable[[np.ndarray], np.ndarray] = lambda values: values) -> Edit:
    """Puts ``amounts`` in place of all actions, as float64."""
    kind = pa.list_(pa.float64())

    def acting(t: pa.Table) -> pa.Table:
        rows = change(amounts(max(LENGTHS)))[t["frame_index"].to_numpy()]
        return t.set_column(t.schema.get_field_index("action"), "action", pa.array(rows.tolist(), kind))

    return edit_tables(acting)


def replace_column(name: str, change: Callable[[pa.ChunkedArray], Any]) -> Edit:
    return edit_tables(lambda t: t.set_column(t.schema.get_field_index(name), name, change(t[name])))


def rewrite(file: Path, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    """Changes the rows of a parquet file, which keeps its schema."""
    table = pq.read_table(file)
    content = table.to_pylist()
    change(content)
    pq.write_table(pa.Table.from_pylist(content, table.schema), file)


def edit_rows(change: Callable[[list[dict[str, Any]]], Any]) -> Edit:
    """Changes the rows of episode 2, a file of its own in either version."""
    return edit_file("data/*/*.parquet", lambda file: rewrite(file, change))


def edit_column(name: str, frame: int, value: Any) -> Edit:
    return edit_rows(lambda content: content[frame].update({name: value}))


def edit_episodes(change: Callable[[list[dict[str, Any]]], Any]) -> Edit:
    """Changes the list of episodes of either version."""

    def edit(root: Path) -> None:
        lines = root / "meta/episodes.jsonl"
        if not lines.exists():
            return rewrite(root / "meta/episodes/chunk-000/file-000.parquet", change)
        content = [json.loads(line) for line in lines.read_text("utf-8").split("\n") if line]
        change(content)
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
        lines.write_bytes(text.encode("utf-8", "backslashreplace"))  # a half of a character becomes JSON's \\udxxx
        return None

    return edit
