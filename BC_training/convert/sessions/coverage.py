"""Finds the parts of a video without inputs or memory values, and the parts of those without video."""

import numpy as np

from BC_training.common.errors import UserError
from BC_training.convert.sessions.clock import Stream

_MOST_OUTSIDE = 0.25  # largest share of a stream's rows after the video's end, if they go on for long
_MOST_QUIET = 0.5  # largest share of the video before or after all events, if these are frequent
_MOST_MISSING = 0.25  # largest share of the video without memory rows, if their rate is steady
_MOMENT, _LONG = 1e6, 10e6  # microseconds
_REMEDY = "restore what is missing, or add --allow-missing"


def notes(stream: Stream, edges: np.ndarray, allowed: bool) -> list[str]:
    """Describes what is missing from a stream or from the video, one line each.

    Raises a UserError if too much is missing, unless it is ``allowed``. Frame k is shown from edges[k] until
    edges[k + 1]: ``edges`` is float64 [N + 1], microseconds.
    """
    gaps = _missing_memory if stream.noun == "rows" else _quiet_ends
    return [*_after_the_end(stream, edges, allowed), *gaps(stream, edges, allowed)]


def _after_the_end(stream: Stream, edges: np.ndarray, allowed: bool) -> list[str]:
    """Notes on events or rows after the video's end; too many are an error unless ``allowed``."""
    end, length = edges[-1], edges[-1] - edges[0]
    beyond = float(stream.times[-1] - end)
    if beyond <= _MOMENT:
        return []
    late = int(np.sum(stream.times > end))
    text = (
        f"{late} of {len(stream.times)} {stream.noun} of {stream.path.name} come after the video's end: they go on for "
        f"{_seconds(beyond)} more, the video lasts {_seconds(length)}; is a part of it missing?"
    )
    if late > _MOST_OUTSIDE * len(stream.times) and beyond > max(_LONG, length / 2) and not allowed:
        raise UserError(f"{stream.path}: {text} {_REMEDY}")
    return [text]


def _quiet_ends(stream: Stream, edges: np.ndarray, allowed: bool) -> list[str]:
    """Notes on a long time before the first or after the last input.

    It is an error, unless ``allowed``, if it is most of the video although inputs are frequent in the rest.
    """
    length = edges[-1] - edges[0]
    within = stream.times[stream.times <= edges[-1]]
    pause = float(np.max(np.diff(within), initial=0.0))
    notes = []
    ends = stream.times[-1] if len(within) == len(stream.times) else edges[-1]
    for quiet, where in (
        (float(within[0] - edges[0]), "begins {} after the video does"),
        (float(edges[-1] - ends), "ends {} before the video does"),
    ):
        if quiet <= max(_LONG, length / 4):
            continue
        text = f"{stream.path.name} {where.format(_seconds(quiet))}, which lasts {_seconds(length)}"
        if len(within) >= 50 and quiet > max(3 * _LONG, _MOST_QUIET * length, 10 * pause) and not allowed:
            paused = f"never paused for more than {_seconds(pause)}"
            raise UserError(f"{stream.path.parent}: {text}, and {paused}: {_REMEDY}")
        notes.append(text)
    return notes


def _missing_memory(stream: Stream, edges: np.ndarray, allowed: bool) -> list[str]:
    """Notes on long times without a memory row; the session's reader notes a late beginning.

    Some programs write a row only where a value changes, so rows may rightly be far apart. Too much missing is an
    error, unless ``allowed``, only where the rate was steady otherwise.
    """
    length = edges[-1] - edges[0]
    intervals = np.diff(stream.times)
    usual = float(np.median(intervals)) if len(intervals) else 0.0
    steady = len(intervals) >= 10 and np.quantile(intervals, 0.9) <= 5 * np.quantile(intervals, 0.1)
    begins = np.clip(stream.times, edges[0], edges[-1])
    ends = np.append(begins[1:], edges[-1])
    gaps = ends - begins
    long = gaps > max(_MOMENT, 10 * usual)
    late, missing = float(begins[0] - edges[0]), float(gaps[long].sum())
    notes = []
    if long.any():
        at = int(np.argmax(gaps))
        notes.append(
            f"{stream.path.name} has no row in {_seconds(missing)} of the video's {_seconds(length)}, the longest time "
            f"from {_seconds(begins[at] - edges[0])} on: the values of before stay"
        )
    if not allowed and max(late, (late + missing) * steady) > _MOST_MISSING * length:
        what = notes[0] if missing > late else f"{stream.path.name} begins {_seconds(late)} after the video does"
        raise UserError(f"{stream.path.parent}: {what}: {_REMEDY}")
    return notes


def _seconds(microseconds: float) -> str:
    return f"{microseconds / 1e6:.1f} s"
