import importlib.util
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conversions import converted
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcap.writer import Writer
from mutations import change_file, changed, require_one_line
from recorded_sessions import number_of, write_video

from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.errors import UserError
from BC_training.convert.owamcap.file import read_mcap
from BC_training.play.live.labels import AUTO

BEGIN = 1_751_017_792.0  # when the first picture was taken
LATER = 0.5  # where that is in the video
FPS, COUNT = 10, 20
W, A, SHIFT, LSHIFT, LEFT_BUTTON = 0x57, 0x41, 0x10, 0xA0, 1
MESSAGES = {
    "screen": "desktop/ScreenCaptured",
    "keyboard": "desktop/KeyboardEvent",
    "keyboard/state": "desktop/KeyboardState",
    "mouse": "desktop/MouseEvent",
    "mouse/state": "desktop/MouseState",
    "mouse/raw": "desktop/RawMouseEvent",
    "window": "desktop/WindowInfo",
}
Message = tuple[float, str, dict[str, Any]]  # the frame during which it came, and may be half of one


def write_mcap(file: Path, messages: Sequence[Message], schemas: dict[str, str] = MESSAGES, chunk_size: int = 1 << 20):
    """As open-world-agents' writer does: JSON messages, by the time at which they were queued."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "wb") as opened:
        writer, channels = Writer(opened, chunk_size=chunk_size), {}
        writer.start(profile="owa")
        for frame, topic, data in messages:
            if topic not in channels:
                schema = writer.register_schema(schemas[topic], "jsonschema", b"{}")
                channels[topic] = writer.register_channel(topic, "json", schema)
            time = round((BEGIN + frame / FPS) * 1e9)
            writer.add_message(channels[topic], time, json.dumps(data).encode(), time)
        writer.finish()


def screen(frame: float, video: str = "play.mkv") -> Message:
    pts = round((LATER + frame / FPS) * 1e9)
    return frame, "screen", {"utc_ns": 1, "shape": [32, 24], "media_ref": {"uri": video, "pts_ns": pts}}


def key(frame: float, event: str, vk: int) -> Message:
    return frame, "keyboard", {"event_type": event, "vk": vk, "timestamp": None}


def raw(frame: float, x: int = 0, y: int = 0, flags: int = 0, data: int = 0, us_flags: int = 0) -> Message:
    moved = {"last_x": x, "last_y": y, "us_flags": us_flags, "button_flags": flags, "button_data": data}
    return frame, "mouse/raw", moved | {"device_handle": 65595, "timestamp": None}


def keys_down(frame: float, *vks: int) -> Message:
    return frame, "keyboard/state", {"buttons": list(vks), "timestamp": None}


def mouse_down(frame: float, *buttons: str) -> Message:
    return frame, "mouse/state", {"x": 5, "y": 6, "buttons": list(buttons)}


def window(frame: float, number: int, title: str) -> Message:
    return frame, "window", {"title": title, "rect": [0, 0, 9, 9], "hWnd": number}


def write(folder: Path, messages: Sequence[Message] = (), *, video: int = COUNT, count: int = COUNT, **how) -> Path:
    """A recording with these messages beside those of the screen, and a video of so many frames."""
    all_of_them = sorted([*map(screen, range(count)), *messages], key=lambda message: message[0])
    write_mcap(folder / "play.mcap", all_of_them, **how)
    write_video(folder / "play.mkv", [round(1e6 * (LATER + t / FPS)) for t in range(video)])
    return folder


@pytest.fixture
def keybinds(tmp_path) -> Path:
    file = tmp_path / "keys.json"
    actions = {"go": {"key": "W"}, "run": {"key": "SHIFT"}, "fire": {"mouse": "LEFT"}, "next": {"mouse": "WHEELDOWN"}}
    file.write_text(json.dumps({"version": "2.0", "actions": actions, "axes": {"turn": {"mouse": "X", "counts": 2}}}))
    return file


def labels(out: Path) -> tuple[dict[str, list[int]], dict[int, float]]:
    """The frames in which each button is held, of those that are, and the axis where it is not at rest."""
    data = ZarrGameplayDataset(out)
    columns = zip(data.action_names, data.actions(0).T, strict=True)
    turn = data.axes(0)[:, 0] if data.axis_names else np.zeros(0)
    held = {name: np.flatnonzero(column).tolist() for name, column in columns if column.any()}
    return held, {int(t): float(turn[t]) for t in np.flatnonzero(turn)}


def shown(out: Path, episode: int = 0) -> list[int]:
    data = ZarrGameplayDataset(out)
    return [number_of(frame) for frame in data.frames(episode, range(data.episodes[episode].length))]


DONE = [
    *(key(2.5, "press", W), key(2.9, "press", W), key(4.2, "release", W), key(5.1, "press", W), key(5.2, "release", W)),
    *(key(7.5, "press", LSHIFT), key(8.5, "release", LSHIFT)),
    *(raw(3.1, 10, 5), raw(3.2, -4), raw(3.9, 8, us_flags=8), raw(4.0, 1), raw(6.5, 9000, 9000, us_flags=1)),
    *(
        raw(10.5, flags=0x1),
        raw(11.5, 2, flags=0x2),
        raw(13.5, flags=0x400, data=65416),
        raw(14.5, flags=0x400, data=120),
    ),
]


def test_a_frames_label_is_what_was_done_from_it_to_the_next(tmp_path, keybinds):
    write(tmp_path / "in", DONE)
    said = converted(tmp_path / "in", tmp_path / "x.zarr", "owamcap", keybinds=keybinds)
    held = {"go": [2, 3, 4, 5], "run": [7, 8], "fire": [10, 11], "next": [13]}
    assert labels(tmp_path / "x.zarr") == (held, {3: 7.0, 4: 0.5, 11: 1.0})
    assert shown(tmp_path / "x.zarr") == list(range(COUNT))
    data = ZarrGameplayDataset(tmp_path / "x.zarr")
    assert data.fps == pytest.approx(FPS)
    assert data.episodes[0].attrs["repaired_events"] == 0
    assert "1 motions that tell a place, such as a tablet's, were left out" in said
    assert "play: pressed, and bound to nothing: mouse WHEELUP" in said


def test_at_a_lower_rate_buttons_are_those_of_all_frames_and_motion_is_their_sum(tmp_path, keybinds):
    write(tmp_path / "in", DONE)
    converted(tmp_path / "in", tmp_path / "x.zarr", "owamcap", keybinds=keybinds, fps=5.0)
    assert labels(tmp_path / "x.zarr") == (
        {"go": [1, 2], "run": [3, 4], "fire": [5], "next": [6]},
        {1: 7, 2: 0.5, 5: 1},
    )
    assert shown(tmp_path / "x.zarr") == list(range(0, COUNT, 2))
    with pytest.raises(UserError, match="--fps 11 is above the 10 of the video"):
        converted(tmp_path / "in", tmp_path / "y.zarr", "owamcap", keybinds=keybinds, fps=11.0)


def test_names_of_older_versions_are_read(tmp_path, keybinds):
    moved = {"dx": 6, "dy": -1, "button_flags": 0, "button_data": 0}
    write(tmp_path / "in", [(3.5, "mouse/raw", moved)])
    converted(tmp_path / "in", tmp_path / "x.zarr", "owamcap", keybinds=keybinds)
    assert labels(tmp_path / "x.zarr") == ({}, {3: 3.0})


def test_the_state_of_each_second_repairs_what_was_lost(tmp_path, keybinds):
    """And says what was held at the start. It is not believed where an event has just come."""
    messages = [
        *(keys_down(0.1, W, LEFT_BUTTON, 0xAD), mouse_down(0.1)),
        *(key(1.5, "release", W), keys_down(2.0, W)),  # the state was asked before
        *(key(3.5, "press", W), keys_down(6.5), mouse_down(6.5, "left")),
        *(raw(8.5, flags=0x40), keys_down(10.5, SHIFT, LSHIFT), mouse_down(10.5, "left")),
        *(raw(11.5, flags=0x2), key(12.5, "release", LSHIFT), mouse_down(13.0), keys_down(14.5)),
    ]
    write(tmp_path / "in", messages)
    said = converted(tmp_path / "in", tmp_path / "x.zarr", "owamcap", keybinds=keybinds)
    go = [0, 1, *range(3, 7)]
    assert labels(tmp_path / "x.zarr")[0] == {"go": go, "fire": list(range(6, 12)), "run": [10, 11, 12]}
    assert "3 lost presses and releases were repaired" in said
    assert ZarrGameplayDataset(tmp_path / "x.zarr").episodes[0].attrs["repaired_events"] == 3


def test_what_was_done_in_another_window_does_not_count(tmp_path, keybinds):
    messages = [
        *(
            window(0.2, 7, "A game"),
            window(10.2, 8, "A letter"),
            window(13.2, 7, "A game, paused"),
            window(18, 7, "A game"),
        ),
        *(key(9.5, "press", W), key(11.5, "release", W), key(12.5, "press", W), key(12.6, "release", W)),
        *(window(19.5, 9, "A terminal"), key(19.6, "press", W)),
        *(raw(11.5, 50, flags=1), raw(12.5, flags=2), key(15.5, "press", W), key(15.6, "release", W)),
    ]
    write(tmp_path / "in", messages)
    said = converted(tmp_path / "in", tmp_path / "x.zarr", "owamcap", keybinds=keybinds)
    assert labels(tmp_path / "x.zarr") == ({"go": [9, 10, 11, 15]}, {})
    assert "another window than 'A game' was active for 0.3 s: nothing counts as pressed there" in said
    attrs = ZarrGameplayDataset(tmp_path / "x.zarr").episodes[0].attrs
    assert attrs["window"] == "A game"
    assert attrs["unfocused"] == [[10, 13], [19, 19]]


def test_without_raw_input_buttons_and_wheel_are_those_of_the_other_listener(tmp_path, keybinds):
    place = {"x": 7, "y": 8, "button": None, "pressed": None, "dx": None, "dy": None}
    click = place | {"event_type": "click", "button": "left"}
    messages = [
        *((2.5, "mouse", click | {"pressed": True}), (4.5, "mouse", click | {"pressed": False})),
        *((3.5, "mouse", place | {"event_type": "move"}), mouse_down(3.7, "left")),
        (5.5, "mouse", place | {"event_type": "scroll", "dx": 0, "dy": -2}),
    ]
    write(tmp_path / "in", messages)
    said = converted(tmp_path / "in", tmp_path / "x.zarr", "owamcap", keybinds=keybinds)
    assert labels(tmp_path / "x.zarr") == ({"fire": [2, 3, 4], "next": [5]}, {})
    assert "no raw mouse was recorded" in said
    write(tmp_path / "in", [*messages, raw(6.5, 2)])  # then it is left out, as raw input has all of it, too
    converted(tmp_path / "in", tmp_path / "y.zarr", "owamcap", keybinds=keybinds)
    assert labels(tmp_path / "y.zarr")[1] == {6: 1.0}


def test_with_auto_each_key_of_all_recordings_is_a_button(tmp_path):
    write(tmp_path / "in/one", [key(2.5, "press", W), key(3.5, "release", W), key(4.5, "press", 0xAD)])
    write(
        tmp_path / "in/two",
        [key(2.5, "press", 0xBC), key(3.5, "release", 0xBC), raw(2.2, 1, 0, 0x4), raw(2.3, 0, 0, 0x8)],
    )
    (tmp_path / "in/torn.mcap").write_bytes(b"no MCAP at all")
    with pytest.raises(UserError, match=r"1 of 3 .* \(torn: .*torn.mcap: it is no MCAP file: remove it\)"):
        converted(tmp_path / "in", tmp_path / "x.zarr", "owamcap", keybinds=AUTO)
    data = ZarrGameplayDataset(tmp_path / "x.zarr")
    assert (data.action_names, data.axis_names) == ((",", "W", "mouse_RIGHT"), ("mouse_x",))
    assert [data.actions(e).any(axis=0).tolist() for e in (0, 1)] == [[False, True, False], [True, False, True]]
    (tmp_path / "in/torn.mcap").unlink()
    assert "2 of 2 recordings are there" in converted(tmp_path / "in", tmp_path / "x.zarr", "owamcap", keybinds=AUTO)
    write(tmp_path / "still")
    with pytest.raises(UserError, match="no key was pressed and the mouse was not moved"):
        converted(tmp_path / "still/play.mcap", tmp_path / "y.zarr", "owamcap", keybinds=AUTO)


def test_a_video_that_is_shorter_costs_the_frames_that_it_lacks(tmp_path, keybinds):
    write(tmp_path / "in", DONE, video=17)
    said = converted(tmp_path / "in", tmp_path / "x.zarr", "owamcap", keybinds=keybinds)
    assert shown(tmp_path / "x.zarr") == list(range(17))
    assert "3 pictures of 20 are not in play.mkv and left out" in said
    write(tmp_path / "in", DONE, video=10)
    with pytest.raises(
        UserError, match=r"shows 0.5 to 1.4 s and lacks 10 of 20 pictures, of 0.5 to 2.4 s: .*--allow-missing"
    ):
        converted(tmp_path / "in", tmp_path / "y.zarr", "owamcap", keybinds=keybinds)
    converted(tmp_path / "in", tmp_path / "y.zarr", "owamcap", keybinds=keybinds, allow_missing=True)
    assert ZarrGameplayDataset(tmp_path / "y.zarr").episodes[0].length == 10


def test_a_file_that_was_cut_off_is_used_up_to_there(tmp_path, keybinds):
    write(tmp_path / "in", DONE, chunk_size=512)
    file = tmp_path / "in/play.mcap"
    whole = file.read_bytes()
    middle = len(whole) // 2
    for size in range(middle - 600, middle + 600, 8):  # also within the nine bytes with which a record begins
        file.write_bytes(whole[:size])
        taken = read_mcap(file)
        assert taken.notes[0] == "play.mcap is cut off: what is before is used"
        assert 2 < len(taken.times) < COUNT - 2
    assert "is cut off" in converted(tmp_path / "in", tmp_path / "x.zarr", "owamcap", keybinds=keybinds)
    assert ZarrGameplayDataset(tmp_path / "x.zarr").episodes[0].length == len(taken.times)
    file.write_bytes(whole[:1000] + bytes(100) + whole[1100:])
    with pytest.raises(UserError, match=r"play.mcap: it is damaged \(.*\): restore it"):
        converted(tmp_path / "in", tmp_path / "y.zarr", "owamcap", keybinds=keybinds)


def test_what_cannot_be_read_is_one_line(tmp_path, keybinds):
    def fails(message: str, messages: Sequence[Message] = (), **how) -> None:
        write(tmp_path / "in", messages, **how)
        with pytest.raises(UserError, match=message) as caught:
            converted(tmp_path / "in", tmp_path / "x.zarr", "owamcap", keybinds=keybinds)
        assert "\n" not in str(caught.value)

    older = MESSAGES | {"keyboard": "owa.env.desktop.msg.KeyboardEvent"}
    fails("has no picture .* but desktop/KeyboardEvent: record the screen", DONE[:2], count=0)
    fails("has no picture .* but no message at all", count=0)
    fails("keyboard has messages of an unknown kind, owa.env.desktop.msg.KeyboardEvent: 'owl mcap", DONE, schemas=older)
    fails("a message of keyboard, desktop/KeyboardEvent, is damaged .KeyError: 'up'", [key(1, "up", W)])
    fails("a message of keyboard, desktop/KeyboardEvent, is damaged", [(1, "keyboard", {"event_type": "press"})])
    fails("are not in one video", [screen(3.5, "other.mkv")])
    fails("are not in one video", [screen(0, "data:image/png;base64,iVBO")], count=0)
    write_mcap(tmp_path / "in/play.mcap", [screen(0), screen(9), screen(4), screen(12)])
    with pytest.raises(UserError, match=r"play.mcap: the computer's clock was set back by 0.5 s while it was recorded"):
        converted(tmp_path / "in", tmp_path / "x.zarr", "owamcap", keybinds=keybinds)
    write(tmp_path / "in")
    (tmp_path / "in/play.mkv").unlink()
    with pytest.raises(UserError, match=r"its video .*play.mkv is missing: put it there, or remove the recording"):
        converted(tmp_path / "in", tmp_path / "x.zarr", "owamcap", keybinds=keybinds)
    with pytest.raises(UserError, match="needs --keybinds FILE, or --keybinds auto"):
        converted(tmp_path / "in", tmp_path / "x.zarr", "owamcap")


@pytest.mark.parametrize("examples", [12, pytest.param(300, marks=pytest.mark.slow)])
def test_a_damaged_recording_is_converted_or_refused_in_one_line(tmp_path, keybinds, examples):
    place = {"x": 7, "y": 8, "button": "left", "pressed": True, "dx": 0, "dy": 1}
    one_of_each = [
        *(
            (0.0, "keyboard/state", {"buttons": [W]}),
            (0.1, "mouse/state", {"buttons": ["left"]}),
            window(0.2, 7, "A game"),
        ),
        *(raw(0.3, 5, flags=0x400, data=120), key(0.4, "press", W), screen(0.5), screen(1.5), screen(2.5)),
        *((2.6, "mouse", place | {"event_type": "click"}), (2.7, "mouse", place | {"event_type": "scroll"})),
    ]
    write(tmp_path / "original", DONE)

    @settings(max_examples=examples, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def check(data):
        for name in ("in", "x.zarr"):
            shutil.rmtree(tmp_path / name, ignore_errors=True)
        shutil.copytree(tmp_path / "original", tmp_path / "in")
        if data.draw(st.booleans()):
            messages = [list(message) for message in one_of_each]
            changing = data.draw(st.sampled_from(messages))
            changing[2] = data.draw(changed(changing[2]))
            write_mcap(tmp_path / "in/play.mcap", messages)
        else:
            change_file(data, tmp_path / "in" / data.draw(st.sampled_from(["play.mcap", "play.mkv"])))
        try:
            converted(
                tmp_path / "in", tmp_path / "x.zarr", "owamcap", keybinds=data.draw(st.sampled_from([AUTO, keybinds]))
            )
        except UserError as error:
            require_one_line(error)

    check()


def test_a_missing_package_is_named_with_what_installs_it(tmp_path, monkeypatch, keybinds):
    write(tmp_path / "in")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="install it with 'uv sync --extra owamcap'"):
        converted(tmp_path / "in", tmp_path / "x.zarr", "owamcap", keybinds=keybinds)
