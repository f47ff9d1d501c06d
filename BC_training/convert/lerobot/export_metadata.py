"""Writes the metadata and the statistics of an exported LeRobot dataset, format v3.0."""

import json
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from BC_training.common.storage.writer import Names
from BC_training.convert.lerobot.features import BUTTONS
from BC_training.convert.lerobot.parquet import read_columns

CAMERA = "observation.images.screen"
_CHUNK = 1000  # files in a folder
_DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
_QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
_OWN = {"timestamp": "float32"} | dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), "int64")

Stats = dict[str, dict[str, Any]]  # each feature's "min", "max", "mean", "std", "count" and quantiles, as lists


def data_file(episode: int) -> str:
    """An episode's parquet file, relative to the dataset's folder."""
    return _DATA_PATH.format(chunk_index=episode // _CHUNK, file_index=episode % _CHUNK)


def video_file(episode: int) -> str:
    """An episode's MP4, relative to the dataset's folder."""
    return _VIDEO_PATH.format(video_key=CAMERA, chunk_index=episode // _CHUNK, file_index=episode % _CHUNK)


def write_metadata(
    folder: Path,
    fps: float,
    size: tuple[int, int],
    names: Names,
    lengths: list[int],
    tasks: list[list[str]],
    histograms: list[np.ndarray],
) -> None:
    """Writes ``meta/`` for the episodes whose rows and videos lie in ``folder``.

    ``size`` is (H, W) of the frames in pixels. Each episode has a number of frames, its tasks (the rows hold the number
    of the first one), and a histogram int64 [3, 256]: how many pixels have which value of R, G and B.
    """
    features = _features(fps, size, names)
    task_names = list(dict.fromkeys(chain.from_iterable(tasks)))
    columns = [name for name, feature in features.items() if feature["dtype"] != "video"]
    starts = list(accumulate(lengths, initial=0))
    rows, tables = [], []
    for episode, (length, texts, histogram) in enumerate(zip(lengths, tasks, histograms, strict=True)):
        table = read_columns(folder / data_file(episode), columns)
        tables.append(table)
        place = {"chunk_index": episode // _CHUNK, "file_index": episode % _CHUNK}
        stats = _stats(table, columns) | {CAMERA: _image_stats(histogram, length)}
        rows.append(
            {
                "episode_index": episode,
                "tasks": texts,
                "length": length,
                **{f"data/{name}": value for name, value in place.items()},
                "dataset_from_index": starts[episode],
                "dataset_to_index": starts[episode + 1],
                **{f"videos/{CAMERA}/{name}": value for name, value in place.items()},
                f"videos/{CAMERA}/from_timestamp": 0.0,
                f"videos/{CAMERA}/to_timestamp": length / fps,
                **{f"stats/{name}/{key}": v for name, values in stats.items() for key, v in values.items()},
                "meta/episodes/chunk_index": 0,
                "meta/episodes/file_index": 0,
            }
        )
    episodes = folder / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
    episodes.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), episodes)
    pq.write_table(_tasks_table(task_names), folder / "meta" / "tasks.parquet")
    stats = _stats(pa.concat_tables(tables), columns) | {CAMERA: _image_stats(np.sum(histograms, axis=0), sum(lengths))}
    (folder / "meta" / "stats.json").write_text(json.dumps(stats, indent=4), encoding="utf-8")
    info = {
        "codebase_version": "v3.0",
        "robot_type": None,
        "total_episodes": len(lengths),
        "total_frames": sum(lengths),
        "total_tasks": len(task_names),
        "chunks_size": _CHUNK,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": int(fps) if fps == int(fps) else fps,
        "splits": {"train": f"0:{len(lengths)}"},
        "data_path": _DATA_PATH,
        "video_path": _VIDEO_PATH,
        "features": features,
    }
    (folder / "meta" / "info.json").write_text(json.dumps(info, indent=4), encoding="utf-8")


def _features(fps: float, size: tuple[int, int], names: Names) -> dict[str, Any]:
    features: dict[str, Any] = {}
    for name, columns in (("observation.state", names.attributes), ("action", names.keys + names.axes)):
        if columns:
            features[name] = {"dtype": "float32", "shape": [len(columns)], "names": list(columns)}
    if names.axes:  # without them the values tell: all are 0 and 1
        features["action"]["info"] = {BUTTONS: list(names.keys)}
    video = {"height": size[0], "width": size[1], "codec": "h264", "pix_fmt": "yuv420p"}
    video |= {"is_depth_map": False, "fps": fps, "channels": 3}
    described = {f"video.{name}": value for name, value in video.items()} | {"has_audio": False}
    axes = ["height", "width", "channels"]
    features[CAMERA] = {"dtype": "video", "shape": [*size, 3], "names": axes, "info": described}
    return features | {name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in _OWN.items()}


def _tasks_table(names: list[str]) -> pa.Table:
    """The tasks in the form in which pandas writes a frame with the column task_index and the index "task".

    LeRobot reads the file with pandas, finds a task by its position and takes its index.
    """
    kinds = {"task_index": ("int64", "int64"), "task": ("unicode", "object")}
    described = [
        {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": dtype, "metadata": None}
        for name, (kind, dtype) in kinds.items()
    ]
    pandas = {"index_columns": ["task"], "column_indexes": [], "columns": described, "pandas_version": "2.2.0"}
    table = pa.table({"task_index": pa.array(range(len(names)), pa.int64()), "task": pa.array(names, pa.string())})
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})


def _stats(table: pa.Table, columns: list[str]) -> Stats:
    stats = {}
    for name in columns:
        column: Any = table.column(name).combine_chunks()
        flat = column.flatten() if pa.types.is_fixed_size_list(column.type) else column
        values = flat.to_numpy(zero_copy_only=False).astype(np.float64).reshape(table.num_rows, -1)
        described = {"min": values.min(0), "max": values.max(0), "mean": values.mean(0), "std": values.std(0)}
        described |= {key: np.quantile(values, q, axis=0) for key, q in _QUANTILES.items()}
        stats[name] = {key: value.tolist() for key, value in described.items()} | {"count": [table.num_rows]}
    return stats


def _image_stats(histogram: np.ndarray, frames: int) -> dict[str, Any]:
    """Statistics [3, 1, 1] of pixel values in [0, 1], from their counts int64 [3, 256]."""
    levels = np.arange(256) / 255
    pixels = histogram.sum(axis=1)
    mean = histogram @ levels / pixels
    present, cumulative = histogram > 0, histogram.cumsum(axis=1)
    described = {
        "min": levels[present.argmax(axis=1)],
        "max": levels[255 - present[:, ::-1].argmax(axis=1)],
        "mean": mean,
        "std": np.sqrt(np.maximum(histogram @ levels**2 / pixels - mean**2, 0)),
    }
    described |= {key: levels[(cumulative >= q * pixels[:, None]).argmax(axis=1)] for key, q in _QUANTILES.items()}
    return {key: value.reshape(3, 1, 1).tolist() for key, value in described.items()} | {"count": [frames]}
