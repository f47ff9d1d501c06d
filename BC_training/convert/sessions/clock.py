"""Checks that inputs and memory values belong to their video: the unit of their times, and the video's start."""

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from BC_training.common.errors import UserError
from BC_training.common.storage.documents import finite
from BC_training.convert.sessions.folder import NAMES, VIDEO_START, read_metadata
from BC_training.convert.sessions.tables import Inputs

UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6, "ns": 1e-3}  # in microseconds
_WORDS = {"us": "microseconds", "ms": "milliseconds", "s": "seconds", "ns": "nanoseconds"}
# Presses and intervals shorter than these (microseconds) are unlikely; some memory readers are faster.
_PRESS, _EVENT_INTERVAL, _ROW_INTERVAL, _FASTEST_ROW_INTERVAL = 10_000.0, 5_000.0, 5_000.0, 500.0
_MANY = 10  # with fewer events or rows their mean interval means little


@dataclass(frozen=True)
class Stream:
    """The times in one file of a session."""

    path: Path
    times: np.ndarray  # float64 [E], ascending, microseconds
    pace: float | None  # the typical length of a press or an interval, microseconds; None if there are too few
    least: float  # a shorter pace is unlikely
    possible: float  # a shorter pace is impossible
    noun: str  # "events" or "rows"

    def misfits(self, start: float, length: float) -> bool:
        """Whether the times are unlikely for a video of that ``start`` and ``length``."""
        hasty = self.pace is not None and self.pace < self.least
        return (self.lies_outside(start, length) or hasty) and not self.fits(1, start, length)

    def lies_outside(self, start: float, length: float) -> bool:
        """Whether the times go on long after the video, or none lies within it."""
        return bool(self.times[-1] - start > 2 * length or self.times[-1] < start or self.times[0] > start + length)

    def fits_no_unit(self, length: float) -> bool:
        """Whether the times are too close together for any unit, as frame numbers are."""
        spans = self.times[-1] - self.times[0]
        return self.pace is not None and self.pace < _FASTEST_ROW_INTERVAL and bool(0 < spans < length / 100)

    def fits(self, ratio: float, start: float, length: float) -> bool:
        """Whether the times, multiplied by ``ratio``, are likely for that video."""
        shown = self.times * ratio - start
        covered = min(shown[-1], length) - max(shown[0], 0.0)
        return self._slow(ratio) and bool(covered >= 0.1 * length and np.mean(shown > length) <= 0.25)

    def lasts_as_long(self, ratio: float, length: float) -> bool:
        """Whether the times, multiplied by ``ratio``, are likely for a video whose start is unknown."""
        return self._slow(ratio) and bool(0.1 * length <= (self.times[-1] - self.times[0]) * ratio <= 2 * length)

    def _slow(self, ratio: float) -> bool:
        return self.pace is None or self.pace * ratio >= self.possible


def input_stream(path: Path, inputs: Inputs) -> Stream:
    """The inputs' stream; its pace is the median length of a press, or the mean interval if no press has a length."""
    pressed, lengths = {}, []
    for time, button, down in zip(inputs.times.tolist(), inputs.buttons, inputs.down.tolist(), strict=True):
        if down:
            pressed.setdefault(button, time)
        elif button in pressed and time > (since := pressed.pop(button)):
            lengths.append(time - since)
    if lengths:
        return Stream(path, inputs.times, float(np.median(lengths)), _PRESS, _PRESS, "events")
    return Stream(path, inputs.times, _mean_interval(inputs.times), _EVENT_INTERVAL, _EVENT_INTERVAL, "events")


def memory_stream(path: Path, times: np.ndarray) -> Stream:
    return Stream(path, times, _mean_interval(times), _ROW_INTERVAL, _FASTEST_ROW_INTERVAL, "rows")


def _mean_interval(times: np.ndarray) -> float | None:
    return float(times[-1] - times[0]) / (len(times) - 1) if len(times) >= _MANY else None


def video_start(path: Path, times: np.ndarray, length: float) -> float | None:
    """``video_start_us`` from metadata.json; None without it.

    Raises a UserError if another entry resembles it and has a plausible value for the inputs' ``times`` and the
    video's ``length``, which are in the same unit.
    """
    metadata = read_metadata(path)
    if VIDEO_START in metadata:
        return float(metadata[VIDEO_START])
    for name, value in metadata.items():
        likely = _looks_like_start(name) and finite(value)
        if likely and times.size and times[0] < value + length and times[-1] >= value:
            remedy = "rename the entry and write it in the unit of the times, or remove it"
            raise UserError(f"{path} has no {VIDEO_START} (did you mean {name}?): {remedy}")
    return None


def _looks_like_start(name: str) -> bool:
    plain = re.sub("[^a-z]", "", name.lower())
    begins = re.search("start|begin|offset|origin|first", plain)
    alike = difflib.SequenceMatcher(None, plain, "videostartus").ratio() >= 0.75
    return alike or bool(begins and re.search("video|firstframe|timestamp|[mun]s$", plain))


def check_unit(streams: list[Stream], unit: str, start: float | None, length: float, metadata: Path) -> list[str]:
    """Notes that name the streams whose times may not be in ``unit``.

    Raises a UserError if the times are unlikely in ``unit`` and likely in another one. The video begins at ``start``
    (None if unknown; the file ``metadata`` holds it) and lasts for ``length``, both in microseconds.
    """
    began, notes = start or 0.0, []
    others = {name: scale / UNITS[unit] for name, scale in UNITS.items() if name != unit}
    likely: dict[str, str] = {}
    for stream in streams:
        spans = float(stream.times[-1] - stream.times[0])
        lasts = f"{stream.path} spans {spans / 1e6:.4g} s of a video of {length / 1e6:.4g} s"
        fitting = [name for name, ratio in others.items() if stream.fits(ratio, began * ratio, length)]
        if not stream.misfits(began, length):
            if fitting and spans < length / 100:
                other = fitting[0]
                notes.append(f"{lasts}: if its times are {_WORDS[other]}, add --time-unit {other}")
            continue
        # Otherwise one quick press would mislead.
        conclusive = len(stream.times) >= _MANY or stream.lies_outside(began, length)
        if not fitting and conclusive and start is None and not stream.lasts_as_long(1, length):
            fitting = [name for name, ratio in others.items() if stream.lasts_as_long(ratio, length)]
        if not fitting and start:
            _require_one_unit(stream, unit, others, start, length, metadata)
        if fitting:
            likely[f"{lasts}; its times seem to be {_WORDS[fitting[0]]}, not {_WORDS[unit]}"] = fitting[0]
        elif stream.fits_no_unit(length):
            units = ", ".join(UNITS)
            raise UserError(f"{lasts}; its times fit none of {units}, are they numbers of frames? Write microseconds")
    if not likely:
        return notes
    message, other = next(iter(likely.items()))
    agree = len(set(likely.values())) == 1
    if len(likely) < len(streams):
        agree = not any(s.fits(1, began, length) for s in streams if not s.misfits(began, length))
    if not agree:
        raise UserError(f"{message}: write the times of {' and '.join(s.path.name for s in streams)} in one unit")
    raise UserError(f"{message}: add --time-unit {other}")


def _require_one_unit(
    stream: Stream, unit: str, others: dict[str, float], start: float, length: float, metadata: Path
) -> None:
    """Raises a UserError if only the times, or only ``start``, would have to be in another unit to fit the video."""
    for name, ratio in others.items():
        if stream.fits(1, start * ratio, length):
            fault = f"{VIDEO_START} seems to be in {_WORDS[name]}, {stream.path.name} in {_WORDS[unit]}"
            raise UserError(f"{metadata}: {fault}: write it as {start * ratio / UNITS[unit]:.0f}")
        if stream.fits(ratio, start, length):
            fault = f"seem to be {_WORDS[name]}, {VIDEO_START} in {metadata} {_WORDS[unit]}"
            remedy = f"write it as {start / UNITS[name]:.0f} and add --time-unit {name}"
            raise UserError(f"the times of {stream.path} {fault}: {remedy}")


def require_overlap(stream: Stream, edges: np.ndarray, start: float | None) -> None:
    """Raises a UserError if a stream lies wholly outside the video: then the clocks differ."""
    times = stream.times
    if times[0] < edges[-1] and (start is None or times[-1] >= edges[0]):
        return
    remedy = f"correct {VIDEO_START} in its {NAMES['metadata']}"
    if start is None:
        remedy = f'add {NAMES["metadata"]} with {{"{VIDEO_START}": <timestamp of the first frame>}} to the session'
    spans = f"{times[0]:.0f} to {times[-1]:.0f} us, but the video {edges[0]:.0f} to {edges[-1]:.0f}"
    raise UserError(f"{stream.path} spans {spans}: {remedy}")
