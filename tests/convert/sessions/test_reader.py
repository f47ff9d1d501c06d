"""Sessions with encoded videos: every frame has its actions and its state, and faults are refused in one line."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conversions import converted, opened
from dataset_files import user_error
from recorded_sessions import frame_of, number_of, write_inputs, write_keybinds, write_memory, write_session

from BC_training.common.dataset import ZarrGameplayDataset

UNEVEN = np.cumsum([0, *[16_000, 33_000, 21_000, 50_000] * 10])  # 41 frames, a mean of 30 ms
EVENTS = [
    (5_000, "KEY_UP", "W"),  # held from before the video
    (50_000, "KEY_DOWN", "w"),
    (51_000, "KEY_DOWN", "W"),  # repeat
    (52_000, "KEY_UP", "W"),
    (70_000, "MOUSE_DOWN", "Button1"),
    (90_000, "KEY_DOWN", "ctrl"),
    (120_000, "MOUSE_UP", "BUTTON1"),  # the other button of the action still holds it
    (136_000, "KEY_UP", "CTRL"),
    (140_000, "KEY_DOWN", "F1"),
    (140_000, "KEY_DOWN", "W"),
]


@pytest.fixture
def binds(tmp_path):
    return write_keybinds(tmp_path / "binds.json")


def read(source, binds, **options):
    """The first session's fps, frame numbers, actions bool [N, A], state float32 [N, S] or None, and recording."""
    found = opened(source, "sessions", keybinds=binds, **options)
    recording = found.read(found.episodes[0])
    frames, actions, state = zip(*recording.steps, strict=True)
    numbers = [number_of(frame) for frame in frames]
    return (
        recording.fps,
        numbers,
        np.array([action.buttons for action in actions]),
        None if state[0] is None else np.array(state),
        recording,
    )


def test_every_frame_is_exact_and_has_the_buttons_that_were_held(tmp_path, binds):
    write_session(tmp_path / "s" / "a", UNEVEN, EVENTS)
    found = opened(tmp_path / "s", "sessions", keybinds=binds)
    assert (found.button_names, found.attributes) == (("forward", "fire", "idle"), ())
    recording = found.read("a")
    frames, actions, states = zip(*recording.steps, strict=True)
    np.testing.assert_array_equal(frames, [frame_of(n, (24, 32)).transpose(2, 0, 1) for n in range(41)])
    assert set(states) == {None}
    forward, fire, idle = np.array([action.buttons for action in actions]).T
    # Shown at 0, 16, 49, 70, 120, 136, 169, ... ms
    np.testing.assert_array_equal(np.flatnonzero(forward), [0, 2, *range(5, 41)])
    np.testing.assert_array_equal(np.flatnonzero(fire), [3, 4])
    assert not idle.any()
    assert recording.fps == pytest.approx(1 / 0.030)
    intervals = np.diff(UNEVEN)
    assert recording.attrs["frame_interval_cv"] == pytest.approx(intervals.std() / intervals.mean())
    assert recording.attrs["unbound_presses"] == 1
    assert recording.notes == ("1 of 6 presses are of buttons without an action (F1)",)


def test_state_is_the_last_row_at_or_before_the_frame(tmp_path, binds):
    rows = [(0, 100, 5), (15_999, 90, 5), (16_001, 80, 5), (49_000, 70, 4), (70_001, 60, 3)]
    write_session(tmp_path / "s" / "a", UNEVEN, (), rows)
    _, _, _, state, recording = read(tmp_path / "s", binds)
    np.testing.assert_array_equal(state[:6].T, [[100, 90, 70, 70, 60, 60], [5, 5, 4, 4, 3, 3]])
    assert state.dtype == np.float32
    assert recording.attrs["frames_dropped_before_state"] == 0
    assert recording.attrs["state_age_max_s"] == pytest.approx((UNEVEN[-1] - 70_001) / 1e6)


def test_frames_before_the_first_state_are_left_out(tmp_path, binds):
    # The frame of 49 ms is shown until 70 ms: the row of 60 ms is within it.
    write_session(tmp_path / "s" / "a", UNEVEN, EVENTS, [(60_000, 7, 7)])
    _, numbers, actions, state, recording = read(tmp_path / "s", binds)
    assert numbers == list(range(2, 41))
    assert (state == 7).all()
    np.testing.assert_array_equal(np.flatnonzero(actions[:, 1]), [1, 2])  # still frames 3 and 4
    assert recording.attrs["frames_dropped_before_state"] == 2
    assert "first 2 frames" in recording.notes[-1]


def test_with_fps_a_frame_is_the_last_one_shown_and_has_every_press_of_its_interval(tmp_path, binds):
    rows = [(t, t, 0) for t in range(0, 1_300_000, 1_000)]
    write_session(tmp_path / "s" / "a", UNEVEN, EVENTS, rows)
    fps, numbers, actions, state, recording = read(tmp_path / "s", binds, fps=10)
    grid = np.arange(0, 1_230_000, 100_000)  # the last frame is shown until 1200 + 30 ms
    assert fps == 10
    assert numbers == [int(np.flatnonzero(t >= UNEVEN)[-1]) for t in grid]
    np.testing.assert_array_equal(np.flatnonzero(actions[:, 0]), [0, *range(1, 13)])
    np.testing.assert_array_equal(np.flatnonzero(actions[:, 1]), [0, 1])
    np.testing.assert_array_equal(state[:, 0], grid)
    assert recording.attrs["recorded_fps"] == pytest.approx(1 / 0.030)
    assert "--fps 34 is above the 33.33 " in user_error(read, tmp_path / "s", binds, fps=34)


@pytest.mark.parametrize("fps", [30, 15, 10])
def test_rounded_time_stamps_neither_repeat_nor_lose_a_frame(tmp_path, binds, fps):
    write_session(tmp_path / "s" / "a", [round(i * 1e6 / 30) for i in range(90)])
    _, numbers, _, _, _ = read(tmp_path / "s", binds, fps=fps)
    assert numbers == list(range(0, 90, 30 // fps))


def test_times_on_another_clock_need_the_videos_start(tmp_path, binds):
    epoch = 1_700_000_000_000_000
    events = [(epoch + t, kind, key) for t, kind, key in EVENTS]
    folder = write_session(tmp_path / "s" / "a", UNEVEN, events, [(epoch, 1, 1)])
    assert "add metadata.json with" in user_error(read, tmp_path / "s", binds)
    (folder / "metadata.json").write_text(f'{{"video_start_us": {epoch}, "game": "x"}}')
    _, _, actions, _, _ = read(tmp_path / "s", binds)
    np.testing.assert_array_equal(np.flatnonzero(actions[:, 1]), [3, 4])
    (folder / "metadata.json").write_text(f'{{"video_start_us": {epoch + 10**12}}}')
    assert "correct video_start_us" in user_error(read, tmp_path / "s", binds)


def test_sessions_are_in_numeric_order_and_one_may_be_given_alone(tmp_path, binds):
    for name in ("run10", "run9", ".trash", "x"):
        (tmp_path / "s" / name).mkdir(parents=True)
    (tmp_path / "s" / "x" / "zarr.json").write_text("{}")
    (tmp_path / "s" / "README").write_text("mine")
    assert opened(tmp_path / "s", "sessions", keybinds=binds).episodes == ("run9", "run10")
    write_inputs(tmp_path / "s" / "run9" / "inputs.csv", [])
    assert opened(tmp_path / "s" / "run9", "sessions", keybinds=binds).episodes == ("run9",)


def test_recordings_of_another_frame_size_are_refused_one_by_one(tmp_path, binds):
    write_session(tmp_path / "s" / "a", UNEVEN, EVENTS)
    write_session(tmp_path / "s" / "b", UNEVEN, EVENTS, size=(96, 96))
    message = user_error(converted, tmp_path / "s", tmp_path / "x.zarr", "sessions", keybinds=binds)
    assert re.search(r"b: its frames are 96x96, those of .* add --size", message)
    assert len(ZarrGameplayDataset(tmp_path / "x.zarr").episodes) == 1


def test_a_killed_conversion_continues_to_the_same_dataset(tmp_path, binds):
    for i in range(4):
        write_session(tmp_path / "s" / f"s{i}", np.arange(100) * 10_000, EVENTS, [(0, i, 2)], size=(96, 96))
    command = [sys.executable, "-m", "BC_training", "convert", str(tmp_path / "s"), "--from", "sessions"]
    command += ["--keybinds", str(binds), "--workers", "1", "--out", str(tmp_path / "x.zarr")]
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while not (tmp_path / "x.zarr" / "episode_1").exists():
        assert killed.poll() is None
        time.sleep(0.005)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "x.zarr" / "episode_3").exists()
    assert "of 4 recordings are there" in converted(tmp_path / "s", tmp_path / "x.zarr", "sessions", keybinds=binds)
    converted(tmp_path / "s", tmp_path / "y.zarr", "sessions", keybinds=binds)
    one, two = ZarrGameplayDataset(tmp_path / "x.zarr"), ZarrGameplayDataset(tmp_path / "y.zarr")
    assert [e.attrs for e in one.episodes] == [e.attrs for e in two.episodes]
    assert not list((tmp_path / "x.zarr").glob(".partial*"))
    for e in range(4):
        np.testing.assert_array_equal(one.frames(e, range(100)), two.frames(e, range(100)))
        np.testing.assert_array_equal(one.actions(e), two.actions(e))
        np.testing.assert_array_equal(one.state(e), two.state(e))


TIMES = [i * 10_000 for i in range(60)]


@pytest.fixture
def session(tmp_path):
    return write_session(tmp_path / "s" / "a", TIMES, [(0, "KEY_DOWN", "W")], [(0, 1, 2), (10, 3, 4)])


def read_all(source, binds, **options):
    found = opened(source, "sessions", keybinds=binds, **options)
    return [list(found.read(name).steps) for name in found.episodes]


def refused(source, binds, *parts, **options):
    message = user_error(read_all, source, binds, **options)
    assert not [part for part in parts if part not in message], message


def test_options_that_cannot_be_used_are_refused(session, binds):
    refused(session, None, "needs --keybinds")
    refused(session / "inputs.csv", binds, "is not a folder")
    refused(session, binds, "unknown unit of time 'sec'", "(known: ms, ns, s, us)", time_unit="sec")


@pytest.mark.parametrize(("name", "content", "parts"), [
    ("inputs.csv", b"timestamp_us,event_type,key_or_button\n900000,KEY_DOWN,W\n", ["900000", "add metadata.json"]),
    ("memory_data.csv", b"timestamp_us,health,ammo\n700000,1,2\n", ["spans 700000", "add metadata.json"]),
    ("memory_data.csv", b"\xff\x00\xff", ["a/memory_data.csv"]),  # not taken for a missing file
    ("metadata.json", b"{", ["a/metadata.json is not a JSON object"]),
])  # fmt: skip
def test_damaged_files_are_refused(session, binds, name, content, parts):
    (session / name).write_bytes(content)
    refused(session, binds, f"a/{name}", *parts)


def test_sessions_with_different_memory_columns_are_refused(session, binds):
    other = write_session(session.parent / "b", TIMES, [], [(0, 1, 2)])
    write_memory(other / "memory_data.csv", [(0, 2, 1)], ("ammo", "health"))  # another order is fine
    (_, _, state), *_ = read_all(session.parent, binds)[1]
    assert list(state) == [1, 2]
    write_memory(other / "memory_data.csv", [(0, 1)], ("health",))
    refused(session.parent, binds, "b/memory_data.csv has the columns health", "a has health, ammo")
    (other / "memory_data.csv").unlink()
    refused(session.parent, binds, "b/memory_data.csv has the columns none")


@pytest.mark.parametrize(("unit", "scale"), [("ms", 1e3), ("s", 1e6), ("ns", 1e-3)])
def test_times_in_another_unit_are_read_with_the_option_that_the_error_names(session, binds, unit, scale):
    def write(scale):
        events = [(100_000, "KEY_DOWN", "W"), (300_000, "KEY_UP", "W"), (500_000, "MOUSE_DOWN", "BUTTON1")]
        write_inputs(session / "inputs.csv", [(t / scale, *event) for t, *event in events])
        write_memory(session / "memory_data.csv", [(t / scale, t / 10_000, 0) for t in TIMES])
        (session / "metadata.json").write_text(json.dumps({"video_start_us": 50_000 / scale}))

    write(1)
    expected = read_all(session, binds)[0]
    write(scale)
    refused(session, binds, "inputs.csv spans", f"add --time-unit {unit}")
    np.testing.assert_equal(read_all(session, binds, time_unit=unit)[0], expected)


def test_inputs_far_beyond_the_video_are_dropped_only_if_that_is_allowed(session, binds):
    write_inputs(session / "inputs.csv", [(t * 500_000, ("KEY_UP", "KEY_DOWN")[t % 2], "W") for t in range(1, 121)])
    refused(session, binds, "119 of 120 events of inputs.csv come after the video's end", "add --allow-missing")
    actions = np.array([action.buttons for _, action, _ in read_all(session, binds, allow_missing=True)[0]])
    np.testing.assert_array_equal(np.flatnonzero(actions[:, 0]), range(50, 60))


def test_a_folder_that_is_no_session_costs_only_itself(session, binds):
    (session.parent / "empty").mkdir()
    broken = write_session(session.parent / "b", TIMES, [])
    (broken / "memory_data.csv").write_text("")
    found = opened(session.parent, "sessions", keybinds=binds)
    assert found.attributes == ("health", "ammo")
    assert len(list(found.read("a").steps)) == 60
    assert "empty/video.mp4 is missing: restore it, or remove the session" in user_error(found.read, "empty")
    assert "b/memory_data.csv has no column timestamp_us" in user_error(found.read, "b")


def test_files_and_columns_that_are_not_read_are_noted(session, binds):
    (session / "memory_data.csv").write_text(",timestamp_us,health\n0,0,1\n1,10,3\n")
    (session / "video.mp4").rename(session / "2024-01-15 12-00-00.mkv")
    (session / "ram.csv").write_text("")
    (session / "metadata.json").write_text('{"codec": "x", "game": "y"}')
    found = opened(session, "sessions", keybinds=binds)
    assert found.attributes == ("health",)
    assert found.read("a").notes == (
        "ram.csv is not read",
        "of metadata.json is not read: codec",
        "the column of memory_data.csv without a name is left out: it numbers the rows",
    )
