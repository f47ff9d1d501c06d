"""Where a LeRobot dataset keeps what: its metadata, read and checked, but no frame.

v3.0: many episodes share a parquet file and an MP4, and ``meta/episodes`` says where each begins.
v2.1 and v2.0: files of its own for each episode, found by its number.
"""

import json
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads

from BC_training.common.errors import UserError, unknown

VERSIONS = ("v2.0", "v2.1", "v3.0")
_PLACEHOLDER = re.compile(r"\{(\w+)(?::0(\d)d)?\}")


@dataclass(frozen=True)
class Episode:
    """One episode's place.

    Attributes:
        index: its number.
        length: frames.
        tasks: what was to be done, in words.
        data: the parquet file with its rows.
        video: the MP4 with its frames; None if they are images in ``data``.
        start: seconds into ``video`` at which it begins.
        end: seconds into ``video`` at which the next begins; None if ``video`` is its own.
    """

    index: int
    length: int
    tasks: tuple[str, ...]
    data: Path
    video: Path | None
    start: float = 0.0
    end: float | None = None


@dataclass(frozen=True)
class Layout:
    """What the metadata says.

    Attributes:
        root: the dataset's folder.
        fps: frames per second.
        features: of every column its "dtype", "shape" and "names".
        camera: the feature with the frames.
        episodes: in the order of their numbers.
    """

    root: Path
    fps: float
    features: dict[str, dict[str, Any]]
    camera: str
    episodes: tuple[Episode, ...]


def read_layout(root: Path, camera: str | None) -> Layout:
    """Reads the metadata.

    Args:
        camera: which one to use; None if there is one.

    Raises:
        UserError: no LeRobot dataset of a version in ``VERSIONS``, a camera that is not there or
            not chosen, or damaged metadata.
    """
    info = _read_info(root)
    version = info.get("codebase_version")
    if version not in VERSIONS:
        remedy = f"{root}/meta/info.json names it; convert the dataset with LeRobot's own tools first"
        raise unknown("codebase_version", str(version), VERSIONS, remedy)
    features = _features(root, info)
    camera = _choose_camera(root, features, camera)
    fps = info.get("fps")
    if not isinstance(fps, int | float) or not 0 < fps < math.inf:
        raise UserError(f"{root}/meta/info.json has fps {fps!r}, not a number above 0: correct it")
    read = _episodes_v3 if version == "v3.0" else _episodes_v2
    episodes = read(root, info, camera, features[camera]["dtype"] == "video")
    if len({episode.index for episode in episodes}) != len(episodes):
        raise UserError(f"{root}/meta lists an episode twice: restore its list of episodes")
    total = info.get("total_episodes", len(episodes))
    if total != len(episodes):
        raise UserError(
            f"{root}/meta/info.json counts {total} episodes, the list beside it has {len(episodes)}: "
            "restore the missing files, or correct total_episodes"
        )
    return Layout(root, float(fps), features, camera, tuple(sorted(episodes, key=lambda episode: episode.index)))


def read_columns(file: Path, names: list[str], episode: int | None = None) -> pa.Table:
    """Columns of a parquet file; only the rows of ``episode`` if that is given.

    Raises:
        UserError: it is missing or damaged, or a column is.
    """
    try:
        return open_columns(file, names).to_table(
            columns={name: pads.field(name) for name in names},
            filter=None if episode is None else pads.field("episode_index") == episode,
        )
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"cannot read {file} ({reason(error)}): restore it") from error


def open_columns(file: Path, names: list[str]) -> pads.Dataset:
    """A parquet file for reading, once it is seen to have the columns.

    Raises:
        UserError: it has not, or is missing or damaged.
    """
    if not file.exists():
        raise UserError(f"{file} is missing: restore it")
    try:
        opened = pads.dataset(file, format="parquet")
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"cannot read {file} ({reason(error)}): restore it") from error
    for name in names:
        if name not in opened.schema.names:
            raise UserError(f"{file} has no column '{name}' (it has {', '.join(opened.schema.names)}): restore it")
    return opened


def reason(error: BaseException) -> str:
    """An error of a library as part of a line."""
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]


def _read_info(root: Path) -> dict[str, Any]:
    file = root / "meta" / "info.json"
    try:
        info = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"{root} is no LeRobot dataset, it has no meta/info.json: give the folder that holds meta, data and videos"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {file} ({reason(error)}): restore it") from error
    if not isinstance(info, dict):
        raise UserError(f"{file} is not a JSON object: restore it")
    return info


def _features(root: Path, info: dict[str, Any]) -> dict[str, dict[str, Any]]:
    features = info.get("features")
    if not isinstance(features, dict) or not features:
        raise UserError(f"{root}/meta/info.json has no 'features': restore it")
    for name, feature in features.items():
        shape = feature.get("shape") if isinstance(feature, dict) else None
        if not isinstance(shape, list) or not all(isinstance(n, int) for n in shape) or "dtype" not in feature:
            raise UserError(f"{root}/meta/info.json: feature '{name}' needs a 'dtype' and a 'shape': restore it")
    return features


def _choose_camera(root: Path, features: dict[str, dict[str, Any]], camera: str | None) -> str:
    cameras = [name for name, feature in features.items() if feature["dtype"] in ("video", "image")]
    if camera is not None:
        if camera not in cameras:
            raise unknown("camera", camera, cameras, f"{root}/meta/info.json names them")
        return camera
    if not cameras:
        raise UserError(f"{root} has no camera among its features ({', '.join(features)}): policies here need frames")
    if len(cameras) > 1:
        raise UserError(f"{root} has {len(cameras)} cameras ({', '.join(cameras)}): choose one with --camera")
    return cameras[0]


def _episodes_v3(root: Path, info: dict[str, Any], camera: str, is_video: bool) -> list[Episode]:
    files = sorted(root.glob("meta/episodes/*/*.parquet"))
    if not files:
        raise UserError(f"{root} lists no episodes (meta/episodes/chunk-000/file-000.parquet): restore it")
    number = {"episode_index": int, "length": int, "data/chunk_index": int, "data/file_index": int}
    video = {"chunk_index": int, "file_index": int, "from_timestamp": float, "to_timestamp": float}
    if is_video:
        number |= {f"videos/{camera}/{name}": kind for name, kind in video.items()}
    episodes = []
    for file in files:
        for row in read_columns(file, ["tasks", *number]).to_pylist():
            for name, kind in number.items():
                if not isinstance(row[name], int | float) or not math.isfinite(row[name]):
                    raise UserError(f"{file}: episode {row['episode_index']} has '{name}' {row[name]}: restore it")
                row[name] = kind(row[name])
            places = {"chunk_index": row["data/chunk_index"], "file_index": row["data/file_index"]}
            data = _path(root, info, "data_path", places)
            episode = Episode(row["episode_index"], row["length"], tuple(row["tasks"] or ()), data, None)
            if is_video:
                place = {name: row[f"videos/{camera}/{name}"] for name in video}
                file = _path(root, info, "video_path", {**place, "video_key": camera})
                episode = replace(episode, video=file, start=place["from_timestamp"], end=place["to_timestamp"])
            episodes.append(episode)
    return episodes


def _episodes_v2(root: Path, info: dict[str, Any], camera: str, is_video: bool) -> list[Episode]:
    file = root / "meta" / "episodes.jsonl"
    size = info.get("chunks_size")
    if not isinstance(size, int) or size < 1:
        raise UserError(f"{root}/meta/info.json has chunks_size {size!r}, not a whole number above 0: restore it")
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {file} ({reason(error)}): restore it") from error
    episodes = []
    for i, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            index, length, tasks = int(row["episode_index"]), int(row["length"]), tuple(row.get("tasks") or ())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{file}, line {i} is damaged ({type(error).__name__}: {reason(error)}): restore it"
            ) from error
        places = {"episode_chunk": index // size, "episode_index": index, "video_key": camera}
        video = _path(root, info, "video_path", places) if is_video else None
        episodes.append(Episode(index, length, tasks, _path(root, info, "data_path", places), video))
    return episodes


def _path(root: Path, info: dict[str, Any], template_name: str, values: dict[str, Any]) -> Path:
    """A file named by one of the templates of info.json.

    Raises:
        UserError: it is malformed, or leads out of the dataset's folder.
    """
    template = info.get(template_name)
    place = f"{root}/meta/info.json: {template_name} {template!r}"

    def fill(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise UserError(
                f"{place} has the unknown placeholder {match[0]}; known are {', '.join(values)}: restore it"
            )
        return str(values[match[1]]).zfill(int(match[2] or 0))

    if not isinstance(template, str):
        raise UserError(f"{place} is not a path: restore it")
    name = _PLACEHOLDER.sub(fill, template)
    # Not resolved: downloads by LeRobot may be links into a cache elsewhere.
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise UserError(f"{place} leads out of the dataset ({name!r}): correct it to a path within the folder")
    return root / path
