"""Finds the files in a session's folder, however they are spelled, and reads its metadata."""

import re
from pathlib import Path
from typing import Any

from BC_training.common.errors import UserError
from BC_training.common.files import read_json_object
from BC_training.common.storage.documents import finite

NAMES = {"video": "video.mp4", "inputs": "inputs.csv", "memory": "memory_data.csv", "metadata": "metadata.json"}
VIDEO_START = "video_start_us"
_STEMS = {"video": "video", "inputs": "inputs?", "memory": "memory(data)?", "metadata": "meta(data)?"}  # letters only
_VIDEOS = {".mp4", ".mkv", ".mov", ".webm", ".avi", ".flv", ".ts", ".m4v", ".mpg", ".mpeg", ".wmv"}
_TABLES = {".csv", ".tsv", ".txt"}
_SUFFIXES = {"video": _VIDEOS, "inputs": _TABLES, "memory": _TABLES, "metadata": {".json"}}
_DESCRIPTIONS = {  # entries of metadata.json that do not concern the labels
    "author", "comment", "date", "description", "duration", "fps", "game", "height", "map", "notes", "player",
    "recorder", "resolution", "session", "title", "version", "width",
}  # fmt: skip


def session_names(path: Path) -> tuple[Path, list[str]]:
    """The folder that holds the sessions, and their names: ``path`` may be one session or hold several."""
    if any(_spelled(path, role) for role in ("video", "inputs", "memory")):
        return path.parent, [path.name]
    # A dataset may have been written beside the sessions.
    folders = (p for p in path.iterdir() if p.is_dir() and not (p / "zarr.json").exists())
    return path, [p.name for p in folders if not p.name.startswith((".", "$", "__MACOSX"))]


def find_file(folder: Path, role: str) -> Path:
    """The session's "video", "inputs", "memory" or "metadata" file; the last two need not exist.

    It is the file of ``NAMES``; otherwise the one with that name in another spelling, another kind of
    video, or an ending that an editor added; otherwise the only video. A UserError is raised if several files
    could be meant, or the video or the inputs are missing.
    """
    found = _spelled(folder, role)
    if not found and role == "video":
        found = [file for file in _visible(folder) if _suffix(file) in _VIDEOS]
    if len(found) > 1:
        listed = ", ".join(file.name for file in found)
        remedy = f"rename the one that is meant to {NAMES[role]}, or move the others away"
        raise UserError(f"{folder} has {listed}: {remedy}")
    if found:
        return found[0]
    if role in ("video", "inputs"):
        known = {file for other in NAMES for file in _spelled(folder, other)}
        others = ", ".join(file.name for file in _visible(folder) if file not in known)
        there = f" ({others} may be meant: then save it as that)" if others else ""
        raise UserError(f"{folder / NAMES[role]} is missing{there}: restore it, or remove the session")
    return folder / NAMES[role]


def read_metadata(path: Path) -> dict[str, Any]:
    """The entries with a value, {} without the file; ``video_start_us``, if present, is a finite number."""
    raw = read_json_object(path, unique=True) if path.exists() else {}
    start = raw.get(VIDEO_START)
    if start is not None and finite(start) is None:
        raise UserError(f"{path}: {VIDEO_START} is {start!r}: write the timestamp of the first frame, a number")
    return {name: value for name, value in raw.items() if value is not None}


def unread(folder: Path) -> list[str]:
    """Notes that name the tables, JSON files and entries of metadata.json that are not read."""
    read = {file for role in NAMES for file in _spelled(folder, role)}
    others = [file.name for file in _visible(folder) if file not in read and _suffix(file) in (".csv", ".tsv", ".json")]
    notes = [f"{name} is not read" for name in others if name.lower() != "keybinds.json"]
    metadata = find_file(folder, "metadata")
    fields = [name for name in read_metadata(metadata) if name != VIDEO_START and name.lower() not in _DESCRIPTIONS]
    return notes + ([f"of {metadata.name} is not read: {', '.join(fields)}"] if fields else [])


def _spelled(folder: Path, role: str) -> list[Path]:
    """The file of ``NAMES``, or else all files with that name in another spelling."""
    named = folder / NAMES[role]
    if named.exists():
        return [named]
    files = (file for file in _visible(folder) if _suffix(file) in _SUFFIXES[role])
    letters = ((file, re.sub("[^a-z]", "", file.name.lower().split(".")[0])) for file in files)
    return [file for file, stem in letters if re.fullmatch(_STEMS[role], stem)]


def _visible(folder: Path) -> list[Path]:
    files = (p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    return sorted(file for file in files if file.name.lower() not in ("thumbs.db", "desktop.ini"))


def _suffix(file: Path) -> str:
    """The suffix in lower case, without a ".txt" that an editor added."""
    name = file.name.lower()
    return Path(re.sub(r"(\.\w+)\.txt$", r"\1", name)).suffix
