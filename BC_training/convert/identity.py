"""Finds out which recordings a dataset holds already, by their content and not by where they lie."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from BC_training.common.errors import UserError

# Attributes of a converted episode: a name for people, the content, and the place relative to the dataset.
LABEL, DIGEST, PLACE = "source", "source_digest", "source_path"
_SAMPLE = 1 << 16  # bytes read at each of three places in a file


def content_digest(parts: Iterable[bytes | str | np.ndarray]) -> str:
    """A hexadecimal digest of a recording's raw content, the same wherever the recording lies."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part if isinstance(part, bytes) else _raw(part)
        digest.update(f"{len(raw)}:".encode())  # so that no part can pass for the end of the one before it
        digest.update(raw)
    return digest.hexdigest()[:32]


def sampled(file: Path) -> Iterator[bytes]:
    """A file's size and three pieces of it for ``content_digest``, so that a long video is not read whole."""
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
    """The attributes by which ``missing`` recognises a recording in the dataset ``out``."""
    # The last folders tell apart the episode_0 of most sources.
    label = "/".join((*source.resolve().parts[-2:], episode))
    return {LABEL: label, DIGEST: digest, PLACE: _relative(place, out)}


def missing(
    recordings: Sequence[tuple[str, str | None, Path]], existing: Sequence[dict[str, Any]], out: Path
) -> tuple[list[str], list[str]]:
    """The names of the recordings that the dataset ``out`` lacks, and notes for the user, one line each.

    The dataset has a recording if an episode has its content and was converted from the same place, or from a
    place where nothing is any more: then the recording was moved. Two copies that both exist are two recordings.

    Args:
        recordings: (name, digest, place) of each; the digest is None where it cannot be read.
        existing: the attributes of the dataset's episodes.
    """
    digested = [attrs for attrs in existing if isinstance(attrs.get(DIGEST), str) and isinstance(attrs.get(PLACE), str)]
    exists = {place: (out / place).exists() for place in {attrs[PLACE] for attrs in digested}}
    here = {(attrs[PLACE], _name(attrs), attrs[DIGEST]) for attrs in digested}
    moved = Counter(attrs[DIGEST] for attrs in digested if not exists[attrs[PLACE]])
    places = {(attrs[PLACE], _name(attrs)) for attrs in digested}
    absent, changed = [], []
    for name, digest, place in recordings:
        at = (_relative(place, out), name.rpartition("/")[2])
        if digest is not None and (*at, digest) in here:
            continue
        if digest is not None and moved[digest]:
            moved[digest] -= 1
            continue
        absent.append(name)
        if digest is not None and at in places:
            changed.append(name)
    if not changed:
        return absent, []
    listed = ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
    added = "not what was converted from there before, so added; if it was only corrected, remove its earlier episode"
    return absent, [f"{listed}: {added}"]


def _name(attrs: dict[str, Any]) -> str:
    return str(attrs.get(LABEL)).rpartition("/")[2]


def _relative(place: Path, out: Path) -> str:
    """The path from the dataset, which stays right where both are moved together."""
    try:
        return Path(os.path.relpath(os.path.realpath(place), os.path.realpath(out))).as_posix()
    except ValueError:  # on another drive
        return place.resolve().as_posix()


def _raw(array: np.ndarray) -> bytes:
    return f"{array.dtype} {array.shape} ".encode() + np.ascontiguousarray(array).tobytes()
