"""Whether times fit their video: the right unit is found, and no healthy recording is refused."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from BC_training.common.errors import UserError
from BC_training.convert.sessions import clock, coverage
from BC_training.convert.sessions.files import Inputs

METADATA = Path("a/metadata.json")
SECOND = 1e6


def inputs_of(events):
    """Inputs of (time, button, down)."""
    ordered = sorted(events, key=lambda event: event[0])
    times = np.array([time for time, _, _ in ordered], np.float64)
    return Inputs(times, [("key", button) for _, button, _ in ordered], np.array([d for _, _, d in ordered], bool))


@st.composite
def recordings(draw):
    """(events of a person in microseconds, when the video began or None, its length)."""
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
    """As a session is checked, for times in ``unit``: the notes."""
    scale, inputs = clock.UNITS[unit], inputs_of(events)
    streams = (
        []
        if not events
        else [clock.input_stream(Path("a/inputs.csv"), Inputs(inputs.times * scale, inputs.buttons, inputs.down))]
    )
    if memory is not None:
        streams.append(clock.memory_stream(Path("a/memory_data.csv"), np.array(memory, np.float64) * scale))
    begins = None if start is None else start * scale
    notes = clock.check_unit(streams, unit, begins, length, METADATA)
    edges = (begins or 0.0) + np.array([0.0, length])
    for stream in streams:
        clock.require_overlap(stream, edges, begins)
        notes += coverage.notes(stream, edges, allowed=False)
    return notes


@settings(max_examples=150)
@given(recordings())
def test_no_healthy_recording_is_refused(recording):
    events, start, length = recording
    began = start or 0.0
    if events and (min(t for t, _, _ in events) >= began + length or max(t for t, _, _ in events) < began):
        return  # wholly outside
    check(events, "us", start, length)


@settings(max_examples=100)
@given(st.data(), st.floats(1, 1800), st.sampled_from([1, 20, 60, 500]), st.sampled_from([None, 0.0, 1.7e15]))
def test_no_healthy_memory_is_refused(data, seconds, rate, start):
    length, began = seconds * SECOND, start or 0.0
    steady = data.draw(st.booleans())
    count = data.draw(st.integers(1, 400))
    if steady:  # a reader that runs from before the video until after it
        rows = np.linspace(0, length + SECOND, max(count, 2)) if rate > 100 else np.arange(0, length, SECOND / rate)
    else:  # rows where something changed
        rows = np.cumsum([0, *data.draw(st.lists(st.floats(0.016, 60), max_size=9))]) * SECOND
        rows = rows[rows < length]
    check([], "us", start, length, began + rows)


@settings(max_examples=100)
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
    with pytest.raises(UserError, match=f"add --time-unit {unit}$"):
        check(other, "us", None if start is None else start / scale, length)
    check(other, unit, None if start is None else start / scale, length)
    with pytest.raises(UserError, match=r"add --time-unit us$"):
        check(events, unit, start, length)


def typed(seconds_between=0.5, until=60.0):
    """A press of 0.2 s every so often, in microseconds."""
    downs = np.arange(0.4, until, seconds_between) * SECOND
    return [event for t in downs for event in ((t, "W", True), (t + 0.2 * SECOND, "W", False))]


@pytest.mark.parametrize("unit", ["ms", "s", "ns"])
def test_without_the_videos_start_the_unit_is_asked_for_first(unit):
    epoch, scale = 1.7e15, clock.UNITS[unit]
    events = [((t + epoch) / scale, b, d) for t, b, d in typed()]
    with pytest.raises(UserError, match=rf"add --time-unit {unit}$"):
        check(events, "us", None, 60 * SECOND)
    with pytest.raises(UserError, match=r"add metadata\.json with"):
        check(events, unit, None, 60 * SECOND)
    check(events, unit, epoch / scale, 60 * SECOND)


def test_a_start_in_another_unit_than_the_times_is_named_with_its_value():
    events = [(t + 1.7e15, b, d) for t, b, d in typed()]
    with pytest.raises(UserError, match=r"video_start_us seems to be in milli.* write it as 1700000000000000$"):
        check(events, "us", 1.7e12, 60 * SECOND)
    in_ms = [(t / 1000, b, d) for t, b, d in events]
    with pytest.raises(UserError, match=r"write it as 1700000000000 and add --time-unit ms$"):
        check(in_ms, "us", 1.7e15, 60 * SECOND)
    check(in_ms, "ms", 1.7e12, 60 * SECOND)


def test_files_in_two_units_are_not_mended_by_an_option():
    rows = np.arange(0, 60 * SECOND, 50_000)
    with pytest.raises(
        UserError, match=r"memory_data\.csv spans .* times of inputs.csv and memory_data.csv in one unit"
    ):
        check(typed(), "us", None, 60 * SECOND, rows / 1000)
    in_ms = [(t / 1000, b, d) for t, b, d in typed()]
    with pytest.raises(UserError, match=r"write the times of"):
        check(in_ms, "us", None, 60 * SECOND, rows)
    with pytest.raises(UserError, match=r"add --time-unit ms$"):
        check(in_ms, "us", None, 60 * SECOND, rows / 1000)
    check(in_ms, "ms", None, 60 * SECOND, rows / 1000)


ROWS = np.arange(0, 60 * SECOND, 50_000)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (ROWS[ROWS < 20 * SECOND], r"has no row in 40\.0 s of the video's 60\.0 s, the longest time from 19\.9 s on"),
        (ROWS[(ROWS < 10 * SECOND) | (ROWS > 30 * SECOND)], r"has no row in 20\.1 s"),
        (ROWS[ROWS > 20 * SECOND], r"begins 20\.1 s after the video does"),
        (
            np.arange(0, 300 * SECOND, 50_000),
            r"4799 of 6000 rows .* go on for 239\.9 s more, .* part of it missing\?",
        ),
    ],
)
def test_a_reader_that_failed_is_refused_unless_that_is_allowed(rows, said):
    with pytest.raises(UserError, match=rf"{said}.*restore what is missing, or add --allow-missing$"):
        check([], "us", None, 60 * SECOND, rows)
    stream = clock.memory_stream(Path("m.csv"), rows)
    coverage.notes(stream, np.array([0, 60 * SECOND]), allowed=True)


def test_what_is_missing_is_said_where_it_is_too_little_to_refuse():
    assert check([], "us", None, 60 * SECOND, ROWS) == []
    (note,) = check([], "us", None, 60 * SECOND, ROWS[ROWS < 50 * SECOND])
    assert "memory_data.csv has no row in 10.1 s of the video's 60.0 s" in note
    (note,) = check([], "us", None, 60 * SECOND, [0, 7e5, 9e5, 31e6])  # where something changed
    assert "the longest time from 0.9 s on: the values of before stay" in note
    (note,) = check(typed(until=70.0), "us", None, 60 * SECOND)
    assert "40 of 280 events of inputs.csv come after the video's end" not in note
    assert "events of inputs.csv come after the video's end: they go on for" in note


def test_inputs_that_go_on_or_fall_silent_are_said_or_refused():
    assert check(typed(), "us", None, 60 * SECOND) == []
    with pytest.raises(UserError, match=r"594 of 600 events .* go on for 29\d\.\d s more, the video lasts 3\.0 s"):
        check([(0.4e6 + i * 0.5e6, "W", i % 2 == 0) for i in range(600)], "us", None, 3 * SECOND)
    with pytest.raises(UserError, match=r"ends 89\.9 s before .* never paused for more than 0\.3 s: restore"):
        check(typed(until=30.0), "us", None, 120 * SECOND)
    late = [(t + 90 * SECOND, b, d) for t, b, d in typed(until=30.0)]
    with pytest.raises(UserError, match=r"inputs\.csv begins 90\.4 s after the video does, .* --allow-missing"):
        check(late, "us", None, 121 * SECOND)
    (note,) = check(typed(until=40.0), "us", None, 61 * SECOND)
    assert note == "inputs.csv ends 20.9 s before the video does, which lasts 61.0 s"


def test_a_few_presses_at_the_very_start_are_asked_about_not_refused():
    (note,) = check([(400, "W", True), (1400, "A", True)], "us", None, 3 * SECOND)
    assert note == "a/inputs.csv spans 0.001 s of a video of 3 s: if its times are milliseconds, add --time-unit ms"
    assert check([(0, "W", True), (30, "A", True)], "us", None, 3 * SECOND) == []


@pytest.mark.parametrize(("count", "seconds"), [(2, 3), (50, 30)])
def test_numbers_of_frames_are_no_times(count, seconds):
    events = [(8.0 + i * 10, "W", i % 2 == 0) for i in range(count)]
    with pytest.raises(UserError, match="fit none of us, ms, s, ns, are they numbers of frames"):
        check(events, "us", None, seconds * SECOND)


def test_a_quick_press_alone_is_not_taken_for_another_unit():
    (note,) = check([(5 * SECOND, "W", True), (5.008 * SECOND, "W", False)], "us", None, 7200 * SECOND)
    assert note.startswith("inputs.csv ends 7195.0 s before")


def test_a_split_video_is_not_taken_for_another_unit():
    presses = [(0.4e6 + i * 0.5e6, "W", i % 2 == 0) for i in range(2000)]
    with pytest.raises(UserError, match=r"1994 of 2000 events .* come after the video's end"):
        check(presses, "us", None, 3 * SECOND)


def test_keys_held_from_the_start_and_released_long_after_the_end_are_no_other_unit():
    events = [(0.0, f"F{i}", True) for i in range(8)] + [(9 * SECOND, "F0", False)]
    (note,) = check(events, "us", None, 3 * SECOND)
    assert "1 of 9 events of inputs.csv come after the video's end" in note


def test_a_player_who_pauses_for_long_may_fall_silent():
    events = [*typed(until=15.0), *[(t + 25 * SECOND, b, d) for t, b, d in typed(until=5.0)]]
    (note,) = check(events, "us", None, 90 * SECOND)
    assert note.startswith("inputs.csv ends 59.9 s")
