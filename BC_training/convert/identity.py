"""Which recordings of a source a dataset holds already, told by what is in them, not by where they lie."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from BC_training.common.errors import UserError

DIGEST, LABEL = "source_digest", "source"  # attributes of an episode that was converted
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


def label(source: Path, episode: str) -> str:
    """A recording's name for people; the folders tell the episode_0 of most sources apart."""
    return "/".join((*source.resolve().parts[-2:], episode))


def missing(
    source: Path, names: Sequence[str], digests: Sequence[str | None], existing: Sequence[dict[str, Any]]
) -> tuple[list[str], list[str]]:
    """(the recordings that the dataset has not, what to tell the user, a line each).

    Two recordings of a source may be alike to the bit: as many as the dataset holds of them count as there. One that
    was converted before digests were kept is known by its label alone.

    Args:
        names: the recordings at ``source``.
        digests: of each; None for one that cannot be read.
        existing: the attributes of the dataset's episodes.
    """
    held = Counter(attrs[DIGEST] for attrs in existing if isinstance(attrs.get(DIGEST), str))
    old = Counter(attrs.get(LABEL) for attrs in existing if DIGEST not in attrs and attrs.get(LABEL))
    labels = {attrs.get(LABEL) for attrs in existing if DIGEST in attrs}
    absent, by_label, changed = [], [], []
    for name, digest in zip(names, digests, strict=True):
        if digest is not None and held[digest]:
            held[digest] -= 1
        elif old[label(source, name)]:
            by_label.append(name)
        else:
            absent.append(name)
            if label(source, name) in labels:
                changed.append(name)
    notes = []
    if by_label:
        notes.append(
            f"{listed(by_label)} were converted before contents were compared and are known by the last folders of "
            "their path: if these are other recordings, convert them into another dataset"
        )
    if changed:
        notes.append(
            f"{listed(changed)} have the names of recordings that are there but other content, so they are added; "
            "where one was only corrected, remove its earlier episode"
        )
    return absent, notes


def listed(names: Sequence[str]) -> str:
    """The first three names, and how many more."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _raw(array: np.ndarray) -> bytes:
    return f"{array.dtype} {array.shape} ".encode() + np.ascontiguousarray(array).tobytes()
