"""Reads and checks a LeRobot dataset's metadata: its features, and where its episodes lie.

v3.0: several episodes share a parquet file and an MP4, and ``meta/episodes`` has the beginning of each.
v2.1 and v2.0: each episode has files of its own, named by its number.
"""

import json
import re
import string
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from BC_training.common.errors import UserError, first_line, unknown
from BC_training.common.files import parse_json_object, read_json_object
from BC_training.convert.lerobot.features import Feature, choose_camera, is_text, is_whole, read_features
from BC_training.convert.lerobot.parquet import is_file, open_columns, read_rows

VERSIONS = ("v2.0", "v2.1", "v3.0")
_CHUNK = 1000  # LeRobot's own chunks_size, for metadata without one
_NUMBER_FORMAT = re.compile(r"(0?[>=])?0?\d{0,2}d?")  # Python's formats for a whole number that is padded on the left


@dataclass(frozen=True)
class Episode:
    """The place of one episode."""

    index: int  # the episode's number
    length: int  # the number of frames
    tasks: tuple[str, ...]  # descriptions of what the player was to do
    data: Path  # the parquet file with the rows
    video: Path | None  # the MP4 with the frames; None if they are images in ``data``
    start: float = 0.0  # seconds into ``video`` at which the episode begins
    end: float | None = None  # seconds into ``video`` at which the next one begins; None if ``video`` holds one episode


@dataclass(frozen=True)
class Layout:
    """The content of the metadata."""

    root: Path  # the dataset's folder
    fps: float  # frames per second
    features: dict[str, Feature]  # every column's "dtype", "shape" and "names"
    camera: str  # the feature with the frames
    episodes: tuple[Episode, ...]  # in the order of their numbers


def read_layout(root: Path, camera: str | None) -> Layout:
    """Reads the metadata; ``camera`` is the one of several to use.

    Raises a UserError if this is no LeRobot dataset of a version in ``VERSIONS``, the camera is missing or not chosen,
    or the metadata is damaged.
    """
    file = root / "meta" / "info.json"
    if not is_file(file):
        remedy = "give the folder that holds meta, data and videos"
        raise UserError(f"{root} is no LeRobot dataset, it has no meta/info.json: {remedy}")
    info, place = read_json_object(file), str(file)
    version = re.sub(r"^[vV]?(\d+\.\d+)(\.0)?$", r"v\1", str(info.get("codebase_version")).strip())
    if version not in VERSIONS:
        remedy = f"{place} names it; convert the dataset with LeRobot's own tools first"
        raise unknown("codebase_version", str(info.get("codebase_version")), VERSIONS, remedy)
    features = read_features(place, info)
    camera = choose_camera(place, features, camera)
    fps = info.get("fps")
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps < 1e6:
        raise UserError(f"{place} has fps {repr(fps)[:100]}, not a number above 0: correct it")
    read = _episodes_v3 if version == "v3.0" else _episodes_v2
    episodes = list(read(root, info, camera, features[camera]["dtype"] == "video"))
    counts = Counter(episode.index for episode in episodes)
    if repeated := [index for index, count in counts.items() if count > 1]:
        raise UserError(f"{root}/meta lists episode {repeated[0]} twice: restore its list of episodes")
    total = info.get("total_episodes")
    if total is not None and total != len(episodes):
        counts = f"counts {repr(total)[:100]} episodes, the list beside it has {len(episodes)}"
        raise UserError(f"{place} {counts}: restore the missing files, or correct total_episodes")
    return Layout(root, float(fps), features, camera, tuple(sorted(episodes, key=lambda episode: episode.index)))


def within(root: Path, name: str) -> Path | None:
    """The file ``name``, with "/" between folders, below ``root``; None if it is not below."""
    # Links are not resolved: LeRobot's downloads may be links into a cache elsewhere.
    path = PurePosixPath(name)
    if path.is_absolute() or PureWindowsPath(name).anchor or ".." in path.parts or "\\" in name or "\0" in name:
        return None
    return root / path


def _read_json_lines(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, object) for each line of a JSON Lines file in any of JSON's encodings."""
    try:
        content = file.read_bytes()
        # Not splitlines, because a text may hold other line separators.
        lines = content.decode(json.detect_encoding(content)).split("\n")
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {file} ({first_line(error)}): restore it") from error
    for i, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = parse_json_object(line)
        except ValueError as error:
            raise UserError(f"{file}, line {i} is damaged ({first_line(error)}): restore it") from error
        yield f"{file}, line {i}", row


def _episodes_v3(root: Path, info: dict[str, Any], camera: str, is_video: bool) -> Iterator[Episode]:
    files = sorted(root.glob("meta/episodes/*/*.parquet"))
    if not files:
        raise UserError(f"{root} lists no episodes (meta/episodes/chunk-000/file-000.parquet): restore it")
    whole = ["episode_index", "length", "data/chunk_index", "data/file_index"]
    times = []
    if is_video:
        whole += [f"videos/{camera}/{name}" for name in ("chunk_index", "file_index")]
        times = [f"videos/{camera}/{name}" for name in ("from_timestamp", "to_timestamp")]
    tasks = _Tasks(root)
    for file in files:
        named = {"tasks"} & set(open_columns(file, whole + times).schema.names)
        for row in read_rows(file, [*named, *whole, *times]):
            place = f"{file}: episode {row['episode_index']}"
            numbers = _numbers(row, whole, times, place)
            values = {"chunk_index": numbers["data/chunk_index"], "file_index": numbers["data/file_index"]}
            data = _path(root, info, "data_path", values)
            texts = tasks.texts(row.get("tasks"), place)
            episode = Episode(int(numbers["episode_index"]), int(numbers["length"]), texts, data, None)
            if is_video:
                values = {name: numbers[f"videos/{camera}/{name}"] for name in ("chunk_index", "file_index")}
                video = _path(root, info, "video_path", {**values, "video_key": camera})
                start, end = (numbers[name] for name in times)
                episode = replace(episode, video=video, start=start, end=end)
            yield episode


def _episodes_v2(root: Path, info: dict[str, Any], camera: str, is_video: bool) -> Iterator[Episode]:
    size = _CHUNK if info.get("chunks_size") is None else info["chunks_size"]
    if not is_whole(size) or size < 1:
        raise UserError(f"{root}/meta/info.json has chunks_size {size!r}, not a whole number above 0: restore it")
    tasks = _Tasks(root)
    for place, row in _read_json_lines(root / "meta" / "episodes.jsonl"):
        numbers = _numbers(row, ["episode_index", "length"], [], place)
        index, length = int(numbers["episode_index"]), int(numbers["length"])
        values = {"episode_chunk": index // size, "episode_index": index, "video_key": camera}
        video = _path(root, info, "video_path", values) if is_video else None
        texts = tasks.texts(row.get("tasks"), place)
        yield Episode(index, length, texts, _path(root, info, "data_path", values), video)


def _numbers(row: dict[str, Any], whole: list[str], times: list[str], place: str) -> dict[str, float]:
    """The numbers in an episode's row: those of ``whole`` as int >= 0, those of ``times`` as float."""
    found: dict[str, float] = {}
    for name in (*whole, *times):
        value: Any = row.get(name)
        valid = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**53
        if not valid or (name in whole and (value < 0 or value != int(value))):
            raise UserError(f"{place} has '{name}' {str(value)[:100]}: restore it")
        found[name] = int(value) if name in whole else float(value)
    return found


class _Tasks:
    """Finds the texts of tasks; ``meta/tasks`` is read only if an episode has a task's number."""

    def __init__(self, root: Path):
        self._root, self._table = root, None

    def texts(self, tasks: Any, place: str) -> tuple[str, ...]:
        """The tasks of an episode, which are stored as a text, a number, a list of these, or null."""
        listed = tasks if isinstance(tasks, list) else [] if tasks in (None, "") else [tasks]
        return tuple(self._text(task, place) for task in listed if task is not None)

    def _text(self, task: Any, place: str) -> str:
        if is_whole(task):
            if self._table is None:
                self._table = self._read()
            task = self._table.get(task, task)
        if not is_text(task):
            fault = f"the task {str(task)[:100]!r}, no text and no number in meta/tasks"
            raise UserError(f"{place} has {fault}: write its text there")
        return task

    def _read(self) -> dict[int, Any]:
        """The texts by number."""
        file, lines, text = self._root / "meta" / "tasks.parquet", self._root / "meta" / "tasks.jsonl", "task"
        rows: list[dict[str, Any]] = []
        if is_file(lines):
            rows = [row for _, row in _read_json_lines(lines)]
        elif is_file(file):
            if text not in open_columns(file, ["task_index"]).schema.names:
                text = "__index_level_0__"  # pandas' name for an unnamed index
            rows = read_rows(file, ["task_index", text])
        return {row["task_index"]: row.get(text) for row in rows if is_whole(row.get("task_index"))}


def _path(root: Path, info: dict[str, Any], template_name: str, values: dict[str, Any]) -> Path:
    """The file named by a template of info.json, in the syntax of ``str.format``.

    Raises a UserError if the template is malformed or leads out of the dataset's folder.
    """
    template = info.get(template_name)
    place = f"{root}/meta/info.json: {template_name} {template!r}"
    if not isinstance(template, str):
        raise UserError(f"{place} is not a path: restore it")
    name = ""
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise UserError(f"{place} is malformed ({error}): restore it") from error
    for literal, key, number_format, conversion in parts:
        name += literal
        if key is None:
            continue
        written = f"{{{key}{'!' + conversion if conversion else ''}{':' + number_format if number_format else ''}}}"
        if key not in values:  # Formatter itself would also reach attributes of the values
            raise UserError(f"{place} has the unknown placeholder {written}; known are {', '.join(values)}: restore it")
        allowed = _NUMBER_FORMAT.fullmatch(number_format or "") if is_whole(values[key]) else not number_format
        if conversion or not allowed:
            example = f"{{{key}:03d}}" if is_whole(values[key]) else f"{{{key}}}"
            raise UserError(f"{place} has the placeholder {written} in an unknown format: write it as {example}")
        name += format(values[key], number_format or "")
    path = within(root, name)
    if path is None:
        raise UserError(f"{place} leads out of the dataset ({name!r}): correct it to a path within the folder")
    return path
