"""Which recordings of a source a dataset holds already, told by what is in them, not by where they lie."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from BC_training.common.errors import UserError

# Attributes of an episode that was converted: a name for people, what is in it, and where it was, from the dataset.
LABEL, DIGEST, PLACE = "source", "source_digest", "source_path"
_SAMPLE = 1 << 16  # bytes read at each of three places of a file


def content_digest(parts: Iterable[bytes | str | np.ndarray]) -> str:
    """A hexadecimal digest of a recording's raw content, to be the same wherever the recording lies."""
    sum_ = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part if isinstance(part, bytes) else _raw(part)
        sum_.update(f"{len(raw)}:".encode())  # so that no part can pass for the end of the one before it
        sum_.update(raw)
    return sum_.hexdigest()[:32]


def sampled(file: Path) -> Iterator[bytes]:
    """A file's size and three pieces of it, for ``content_digest``: a long video is not read whole.

    Raises:
        UserError: it cannot be read.
    """
    try:
        size = file.stat().st_size
        yield str(size).encode()
        with open(file, "rb") as opened:
            for start in sorted({0, max(0, size // 2 - _SAMPLE // 2), max(0, size - _SAMPLE)}):
                opened.seek(start)
                yield opened.read(_SAMPLE)
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}; restore it, or remove the recording") from error


def describe(source: Path, episode: str, digest: str, place: Path, out: Path) -> dict[str, str]:
    """The attributes by which the dataset ``out`` will know a recording; see ``missing``."""
    return {LABEL: _label(source, episode), DIGEST: digest, PLACE: _relative(place, out)}


def missing(
    source: Path,
    recordings: Sequence[tuple[str, str | None, Path]],
    existing: Sequence[dict[str, Any]],
    out: Path,
) -> tuple[list[str], list[str]]:
    """(the recordings that the dataset has not, what to tell the user, a line each).

    A recording is there if its content is, converted from the same place, or from one where nothing is any more: then
    it was moved. Of two copies that both exist each is a recording of its own. One that was converted before digests
    were kept is known by its label alone.

    Args:
        recordings: (name, digest, place) of those at ``source``; no digest where it cannot be read.
        existing: the attributes of the dataset's episodes.
        out: the dataset.
    """
    digested = [attrs for attrs in existing if isinstance(attrs.get(DIGEST), str) and isinstance(attrs.get(PLACE), str)]
    exists = {place: (out / place).exists() for place in {attrs[PLACE] for attrs in digested}}
    here = {(attrs[PLACE], _name(attrs), attrs[DIGEST]) for attrs in digested}
    moved = Counter(attrs[DIGEST] for attrs in digested if not exists[attrs[PLACE]])
    places = {(attrs[PLACE], _name(attrs)) for attrs in digested}
    old = {attrs.get(LABEL) for attrs in existing if DIGEST not in attrs}
    absent, by_label, changed = [], [], []
    for name, digest, place in recordings:
        at = (_relative(place, out), _label(source, name).rpartition("/")[2])
        if digest is not None and (*at, digest) in here:
            continue
        if digest is not None and moved[digest]:
            moved[digest] -= 1
        elif _label(source, name) in old:
            by_label.append(name)
        else:
            absent.append(name)
            if digest is not None and at in places:
                changed.append(name)
    notes = []
    if by_label:
        notes.append(
            f"{_listed(by_label)}: converted before contents were compared, known by the last folders of their path; "
            "if these are other recordings, convert them into another dataset"
        )
    if changed:
        notes.append(
            f"{_listed(changed)}: not what was converted from there before, so added; if it was only corrected, remove "
            "its earlier episode"
        )
    return absent, notes


def _label(source: Path, episode: str) -> str:
    """The folders tell the episode_0 of most sources apart."""
    return "/".join((*source.resolve().parts[-2:], episode))


def _name(attrs: dict[str, Any]) -> str:
    return str(attrs.get(LABEL)).rpartition("/")[2]


def _relative(place: Path, out: Path) -> str:
    """A path from the dataset, which stays right where both are moved together."""
    try:
        return Path(os.path.relpath(os.path.realpath(place), os.path.realpath(out))).as_posix()
    except ValueError:  # on another drive
        return place.resolve().as_posix()


def _listed(names: Sequence[str]) -> str:
    """The first three names, and how many more."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _raw(array: np.ndarray) -> bytes:
    return f"{array.dtype} {array.shape} ".encode() + np.ascontiguousarray(array).tobytes()
