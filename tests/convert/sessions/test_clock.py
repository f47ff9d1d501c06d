"""Times in a wrong unit are recognised, missing parts are noted or refused, and no healthy recording is refused."""

import re
from pathlib import Path

import numpy as np
import pytest
from dataset_files import user_error
from hypothesis import given, settings
from hypothesis import strategies as st

from BC_training.convert.sessions import clock, coverage
from BC_training.convert.sessions.tables import Inputs

SECOND = 1e6


@st.composite
def recordings(draw):
    """A person's events in microseconds, the video's start or None, and its length."""
    length = draw(st.floats(1, 1800)) * SECOND
    start = draw(st.sampled_from([None, 0.0, 5e6, 1e12, 1.7e15]))
    before = 0 if start is None else draw(st.sampled_from([0, 0.1, 5])) * length
    press = st.tuples(st.floats(-before, length + 2 * SECOND), st.floats(0.02, 5), st.sampled_from("WASD"))
    events = []
    for down, seconds, button in draw(st.lists(press, max_size=30)):
        # A button is up before it is down again.
        if all(button != b or not down - SECOND * 5 <= t <= down + SECOND * 5 for t, b, _ in events):
            events += [(down, button, True), (down + seconds * SECOND, button, False)]
    at_once = draw(st.integers(0, 6))  # held when the recorder began
    events += [(-before + i * 30.0, f"F{i}", True) for i in range(at_once)]
    began = start or 0.0
    return [(t + began, b, d) for t, b, d in events if t + began >= 0], start, length


def check(events, unit, start, length, memory=None):
    """The notes of a session's checks, for events (time, button, down) whose times are in ``unit``."""
    scale, streams = clock.UNITS[unit], []
    if events:
        times, buttons, down = zip(*sorted(events, key=lambda event: event[0]), strict=True)
        inputs = Inputs(np.array(times, float) * scale, [("key", button) for button in buttons], np.array(down, bool))
        streams.append(clock.input_stream(Path("a/inputs.csv"), inputs))
    if memory is not None:
        streams.append(clock.memory_stream(Path("a/memory_data.csv"), np.array(memory, np.float64) * scale))
    begins = None if start is None else start * scale
    notes = clock.check_unit(streams, unit, begins, length, Path("a/metadata.json"))
    edges = (begins or 0.0) + np.array([0.0, length])
    for stream in streams:
        clock.require_overlap(stream, edges, begins)
        notes += coverage.notes(stream, edges, allowed=False)
    return notes


@settings(max_examples=60)
@given(recordings())
def test_no_healthy_recording_is_refused(recording):
    events, start, length = recording
    began = start or 0.0
    if events and (min(t for t, _, _ in events) >= began + length or max(t for t, _, _ in events) < began):
        return  # wholly outside
    check(events, "us", start, length)


@settings(max_examples=40)
@given(st.data(), st.floats(1, 1800), st.sampled_from([1, 20, 60, 500]), st.sampled_from([None, 0.0, 1.7e15]))
def test_no_healthy_memory_is_refused(data, seconds, rate, start):
    length, began = seconds * SECOND, start or 0.0
    count = data.draw(st.integers(1, 400))
    if data.draw(st.booleans()):  # a reader that runs from before the video until after it
        rows = np.linspace(0, length + SECOND, max(count, 2)) if rate > 100 else np.arange(0, length, SECOND / rate)
    else:  # rows where something changed
        rows = np.cumsum([0, *data.draw(st.lists(st.floats(0.016, 60), max_size=9))]) * SECOND
        rows = rows[rows < length]
    check([], "us", start, length, began + rows)


@settings(max_examples=40)
@given(recordings(), st.sampled_from(["ms", "s", "ns"]))
def test_a_wrong_unit_is_named_and_the_named_one_is_taken(recording, unit):
    events, start, length = recording
    events = [event for event in events if event[1] in "WASD"]
    began = start or 0.0
    shown = [t - began for t, _, _ in events]
    presses = sum(not down for _, _, down in events)
    within = [t for t in shown if 0 <= t <= length]
    if presses < 3 or len(within) < 0.8 * len(shown) or not within or max(within) - min(within) < 0.2 * length:
        return  # too little to tell
    scale = clock.UNITS[unit]
    other = [(t / scale, b, d) for t, b, d in events]
    begins = None if start is None else start / scale
    assert user_error(check, other, "us", begins, length).endswith(f"add --time-unit {unit}")
    check(other, unit, begins, length)
    assert user_error(check, events, unit, start, length).endswith("add --time-unit us")


def typed(until=60.0, since=0.0, scale=1.0, epoch=0.0):
    """A press of 0.2 s every half a second, in units of ``scale`` microseconds."""
    downs = epoch + (since + np.arange(0.4, until, 0.5)) * SECOND
    return [event for t in downs for event in ((t / scale, "W", True), ((t + 0.2 * SECOND) / scale, "W", False))]


def alternating(count, first=0.4e6, every=0.5e6):
    return [(first + i * every, "W", i % 2 == 0) for i in range(count)]


EPOCH = 1.7e15
ROWS = np.arange(0, 60 * SECOND, 50_000)


@pytest.mark.parametrize("unit", ["ms", "s", "ns"])
def test_without_the_videos_start_the_unit_is_asked_for_first(unit):
    scale = clock.UNITS[unit]
    events = typed(scale=scale, epoch=EPOCH)
    assert user_error(check, events, "us", None, 60 * SECOND).endswith(f"add --time-unit {unit}")
    assert "add metadata.json with" in user_error(check, events, unit, None, 60 * SECOND)
    check(events, unit, EPOCH / scale, 60 * SECOND)


@pytest.mark.parametrize(("events", "start", "seconds", "rows", "message"), [
    (typed(epoch=EPOCH), 1.7e12, 60, None, r"video_start_us seems to be in milli.* write it as 1700000000000000$"),
    (typed(epoch=EPOCH, scale=1e3), EPOCH, 60, None, r"write it as 1700000000000 and add --time-unit ms$"),
    (typed(), None, 60, ROWS / 1000, r"data\.csv spans .* times of inputs.csv and memory_data.csv in one unit"),
    (typed(scale=1e3), None, 60, ROWS, r"write the times of"),
    (typed(scale=1e3), None, 60, ROWS / 1000, r"add --time-unit ms$"),
    *[(alternating(count, 8, 10), None, seconds, None, "fit none of us, ms, s, ns, are they numbers of frames")
      for count, seconds in ((2, 3), (50, 30))],
    (alternating(600), None, 3, None, r"594 of 600 events .* go on for 29\d\.\d s more, the video lasts 3\.0 s"),
    (alternating(2000), None, 3, None, r"1994 of 2000 events .* come after the video's end"),  # no other unit
    (typed(30), None, 120, None, r"ends 89\.9 s before .* never paused for more than 0\.3 s: restore"),
    (typed(30, 90), None, 121, None, r"inputs\.csv begins 90\.4 s after the video does, .* --allow-missing"),
    ([], None, 60, ROWS[ROWS < 20e6], r"no row in 40\.0 s of the video's 60\.0 s, .* 19\.9 s on.*--allow-missing$"),
    ([], None, 60, ROWS[(ROWS < 10e6) | (ROWS > 30e6)], r"has no row in 20\.1 s.*add --allow-missing$"),
    ([], None, 60, ROWS[ROWS > 20e6], r"begins 20\.1 s after the video does.*add --allow-missing$"),
    ([], None, 60, np.arange(0, 300e6, 50_000), r"4799 of 6000 rows .* 239\.9 s more, .*add --allow-missing$"),
])  # fmt: skip
def test_times_that_do_not_fit_the_video_are_refused(events, start, seconds, rows, message):
    assert re.search(message, user_error(check, events, "us", start, seconds * SECOND, rows))
    if "allow-missing" in message and rows is not None:
        coverage.notes(clock.memory_stream(Path("m.csv"), rows), np.array([0, seconds * SECOND]), allowed=True)


@pytest.mark.parametrize(("events", "seconds", "rows", "notes"), [
    (typed(), 60, None, []),
    ([], 60, ROWS, []),
    ([(0, "W", True), (30, "A", True)], 3, None, []),
    ([], 60, ROWS[ROWS < 50e6], ["memory_data.csv has no row in 10.1 s of the video's 60.0 s"]),
    # Rows only where something changed:
    ([], 60, [0, 7e5, 9e5, 31e6], ["the longest time from 0.9 s on: the values of before stay"]),
    (typed(70), 60, None, ["events of inputs.csv come after the video's end: they go on for"]),
    (typed(40), 61, None, ["inputs.csv ends 20.9 s before the video does, which lasts 61.0 s"]),
    ([(400, "W", True), (1400, "A", True)], 3, None,
     ["a/inputs.csv spans 0.001 s of a video of 3 s: if its times are milliseconds, add --time-unit ms"]),
    # One quick press is not taken for another unit, nor are keys released long after the end:
    ([(5e6, "W", True), (5.008e6, "W", False)], 7200, None, ["inputs.csv ends 7195.0 s before"]),
    ([*((0.0, f"F{i}", True) for i in range(8)), (9e6, "F0", False)], 3, None, ["1 of 9 events of inputs.csv"]),
    # A player who pauses for long may fall silent:
    ([*typed(15), *typed(5, 25)], 90, None, ["inputs.csv ends 59.9 s"]),
])  # fmt: skip
def test_a_small_part_that_is_missing_is_noted(events, seconds, rows, notes):
    found = check(events, "us", None, seconds * SECOND, rows)
    assert [note for note, part in zip(found, notes, strict=True) if part not in note] == []


def test_times_in_the_stated_unit_are_accepted():
    check(typed(scale=1e3), "ms", None, 60 * SECOND, ROWS / 1000)
    check(typed(epoch=EPOCH, scale=1e3), "ms", 1.7e12, 60 * SECOND)
