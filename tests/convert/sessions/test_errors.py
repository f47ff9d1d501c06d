"""What is wrong with a session, said in one line: what, where, and what to do."""

import json

import av
import numpy as np
import pytest
from recorded_sessions import KEYBINDS, write_inputs, write_keybinds, write_memory, write_session, write_video

from BC_training.common.errors import UserError
from BC_training.convert import Options
from BC_training.convert.sessions.reader import open_source

TIMES = [i * 10_000 for i in range(60)]


def read_all(source, binds, **options):
    opened = open_source(source, Options("sessions", keybinds=binds, **options))
    return [list(opened.read(name).steps) for name in opened.episodes]


def refused(source, binds, *parts):
    with pytest.raises(UserError) as raised:
        read_all(source, binds)
    message = str(raised.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.fixture
def binds(tmp_path):
    return write_keybinds(tmp_path / "binds.json")


@pytest.fixture
def session(tmp_path):
    return write_session(tmp_path / "s" / "a", TIMES, [(0, "KEY_DOWN", "W")], [(0, 1, 2), (10, 3, 4)])


def bound(index, key):
    return {"index": index, "key": key}


def with_actions(**actions):
    return json.dumps({"version": "2.0", "actions": actions})


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("{", ("is not JSON", "correct it")),
        ("[]", ("is not a JSON object",)),
        (json.dumps(KEYBINDS | {"version": "1.0"}), ("version '1.0'", '"2.0"')),
        (json.dumps({"actions": {}}), ("version None",)),
        (with_actions(), ("binds no actions",)),
        (with_actions(a={"key": "W"}), ("action 'a'", "index")),
        (with_actions(a={"index": "0", "key": "W"}), ("action 'a'", "index")),
        (with_actions(a={"index": True}), ("action 'a'", "index")),
        (with_actions(a=3), ("action 'a'", "index")),
        (with_actions(a=bound(0, "W"), b=bound(0, "A")), ("'a' and 'b' both have index 0", "renumber")),
        (with_actions(a=bound(0, "W"), b=bound(2, "A")), ("must be 0 to 1, not 0, 2",)),
        (with_actions(a={"index": 0, "key": "w"}, b={"index": 1, "key": "W"}), ("key W", "'a' and 'b'", "keep it")),
        (with_actions(a=bound(0, "!"), b=bound(1, "exclam")), ("key ! is bound to both 'a' and 'b'",)),
        (with_actions(a={"index": 0, "mouse": 5}), ("mouse of action 'a' is 5", '"LEFT"')),
        (with_actions(a=bound(0, "")), ("key of action 'a' is ''", '"W"')),
        (with_actions(a=bound(0, "   ")), ("key of action 'a' is '   '", '"W"')),
        (with_actions(a=bound(0, ["W", None])), ("key of action 'a' is None",)),
        (with_actions(a={"index": 0, "mouse": "W"}), ("mouse of action 'a' is 'W', a key", 'write it as "key"')),
        (with_actions(a={"index": 0, "mouse": "VK_SPACE"}), ("'VK_SPACE', a key",)),
        (with_actions(a={"index": 0}), ("no button is bound to action 'a'", "or remove it")),
        (with_actions(a=bound(0, [])), ("no button is bound to action 'a'",)),
        (with_actions(a={"index": 0, "keys": ["W"]}), ("unknown entry 'keys'; known are index, key, mouse",)),
        (with_actions(a={"index": 0, "key": "W", "Mouse": "LEFT"}), ("unknown entry 'Mouse'",)),
        (with_actions(**{" ": bound(0, "W")}), ("' ' is no name of an action",)),
        ('{"version": "2.0", "actions": {"a": {"index": 0, "key": "W", "key": "A"}}}', ("twice", "'key'")),
        ("[" * 100_000, ("nested too deep",)),
    ],
)
def test_keybinds(session, binds, text, parts):
    binds.write_text(text)
    refused(session, binds, str(binds), *parts)


def test_keybinds_are_needed_and_must_exist(session, tmp_path):
    refused(session, None, "needs --keybinds")
    refused(session, tmp_path / "none.json", "cannot read", "none.json", "check the path")


HEADER = "timestamp_us,event_type,key_or_button\n"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ("no column timestamp_us, event_type, key_or_button", "it has none")),
        ("timestamp_us,event_type\n", ("no column key_or_button",)),
        ("timestamp_us,event_type,key_or_button,event_type\n", ("event_type twice",)),
        (HEADER + "1,KEY_DOWN,W\n2,CLICK,W\n", ("line 3", "'CLICK'", "KEY_DOWN, KEY_UP", "remove these rows")),
        (HEADER + "1,press,left\n", ("line 2", "'left' may be a key or a button of the mouse", "MOUSE_")),
        (HEADER + "1,MOUSE_DOWN, \n", ("line 2", "key_or_button is empty")),
        (HEADER + "1,KEY_DOWN,   \n", ("line 2", "key_or_button is empty", "SPACE")),
        (HEADER + "soon,KEY_DOWN,W\n", ("line 2", "'soon' is not a number")),
        (HEADER + "nan,KEY_DOWN,W\n", ("line 2", "'nan' is not a number")),
        (HEADER + "5,KEY_DOWN,W\n4,KEY_UP,W\n", ("line 3", "4 is before 5", "sort the rows")),
        (HEADER + "5,KEY_DOWN\n", ("line 2", "2 values for 3 columns")),
        (HEADER + "5,KEY_DOWN,\n", ("line 2", "key_or_button is empty")),
        (HEADER + "1,KEY_DOWN,\xff\n", ("not a CSV in UTF-8",)),
        (HEADER + "900000,KEY_DOWN,W\n", ("900000", "add metadata.json")),
    ],
)
def test_inputs(session, binds, text, parts):
    (session / "inputs.csv").write_text(text, encoding="latin-1")
    refused(session, binds, "a/inputs.csv", *parts)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("health,ammo\n1,2\n", ("no column timestamp_us",)),
        ("timestamp_us,health,ammo\n", ("no row",)),
        ("timestamp_us,health,ammo\n0,1,2\n1,1,nan\n", ("line 3", "ammo is 'nan'")),
        ("timestamp_us,health,ammo\n0,,2\n", ("line 2", "health is ''")),
        ("timestamp_us,health,ammo\n0,inf,2\n", ("line 2", "health is 'inf'")),
        ("timestamp_us,health,ammo\n0,1e39,2\n", ("line 2", "health is '1e39'")),
        ("timestamp_us,health,ammo\n0,full,2\n", ("line 2", "health is 'full'", 'add --leave-out "health"')),
        ("timestamp_us,health,ammo\n700000,1,2\n", ("spans 700000", "add metadata.json")),
    ],
)
def test_memory(session, binds, text, parts):
    (session / "memory_data.csv").write_text(text)
    refused(session, binds, "a/memory_data.csv", *parts)


def test_memory_columns_differ_between_sessions(session, binds):
    other = write_session(session.parent / "b", TIMES, [], [(0, 1, 2)])
    write_memory(other / "memory_data.csv", [(0, 2, 1)], ("ammo", "health"))  # another order is fine
    (_, _, state), *_ = read_all(session.parent, binds)[1]
    assert list(state) == [1, 2]
    write_memory(other / "memory_data.csv", [(0, 1)], ("health",))
    refused(session.parent, binds, "b/memory_data.csv has the columns health", "a has health, ammo")
    (other / "memory_data.csv").unlink()
    refused(session.parent, binds, "b/memory_data.csv has the columns none")


def test_truth_values_and_a_byte_order_mark_are_read(session, binds):
    (session / "memory_data.csv").write_text("\ufefftimestamp_us,alive\n0,True\n15000,false\n\n", encoding="utf-8")
    states = [state[0] for _, _, state in read_all(session, binds)[0]]
    assert states[:4] == [1, 1, 0, 0]


@pytest.mark.parametrize("text", ["{", '{"video_start_us": "now"}', '{"video_start_us": NaN}'])
def test_metadata(session, binds, text):
    (session / "metadata.json").write_text(text)
    refused(session, binds, "a/metadata.json")


@pytest.mark.parametrize("name", ["video.mp4", "inputs.csv"])
def test_missing_file(session, binds, name):
    (session / name).unlink()
    refused(session, binds, f"a/{name} is missing", "restore it")


def blotted(data):
    """With damage in the middle of the coded pictures."""
    middle = data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 2
    return data[:middle] + bytes(400) + data[middle + 400 :]


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (lambda data: b"", ("is damaged",)),
        (lambda data: b"not a video" * 100, ("is damaged",)),
        (blotted, ("is damaged",)),
    ],
)
def test_damaged_video(session, binds, damage, parts):
    video = session / "video.mp4"
    write_video(video, TIMES, size=(96, 128), codec="libx264", faststart=True)
    video.write_bytes(damage(video.read_bytes()))
    refused(session, binds, "a/video.mp4", "restore it", *parts)


def test_video_whose_index_is_lost(session, binds):
    video = session / "video.mp4"
    video.write_bytes(video.read_bytes()[:-200])
    refused(session, binds, "a/video.mp4 is damaged")


def test_video_of_one_frame(session, binds):
    write_video(session / "video.mp4", [0])
    refused(session, binds, "has 1 frames", "2 are needed")


def test_video_without_pictures(session, binds):
    with av.open(str(session / "video.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 8000
        container.mux(stream.encode(silence))
        container.mux(stream.encode())
    refused(session, binds, "holds no video")


def test_source_is_a_file(tmp_path, binds):
    write_inputs(tmp_path / "inputs.csv", [])
    refused(tmp_path / "inputs.csv", binds, "is not a folder")


@pytest.mark.parametrize("unit", ["ms", "s", "ns"])
def test_times_in_another_unit_are_read_as_the_error_says(session, binds, unit):
    events = [(100_000, "KEY_DOWN", "W"), (300_000, "KEY_UP", "W"), (500_000, "MOUSE_DOWN", "BUTTON1")]
    scale = {"ms": 1e3, "s": 1e6, "ns": 1e-3}[unit]
    write_inputs(session / "inputs.csv", events)
    write_memory(session / "memory_data.csv", [(t, t / 10_000, 0) for t in TIMES])
    (session / "metadata.json").write_text('{"video_start_us": 50000}')
    expected = read_all(session, binds)[0]
    write_inputs(session / "inputs.csv", [(t / scale, *event) for t, *event in events])
    write_memory(session / "memory_data.csv", [(t / scale, t / 10_000, 0) for t in TIMES])
    (session / "metadata.json").write_text(json.dumps({"video_start_us": 50_000 / scale}))
    refused(session, binds, "inputs.csv spans", f"add --time-unit {unit}")
    for one, other in zip(expected, read_all(session, binds, time_unit=unit)[0], strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_unit_that_is_none_is_refused(session, binds):
    with pytest.raises(UserError, match=r"unknown unit of time 'sec'.*\(known: ms, ns, s, us\)"):
        read_all(session, binds, time_unit="sec")


def test_inputs_far_beyond_the_video_are_dropped_only_if_that_is_allowed(session, binds):
    write_inputs(session / "inputs.csv", [(t * 500_000, ("KEY_UP", "KEY_DOWN")[t % 2], "W") for t in range(1, 121)])
    refused(session, binds, "119 of 120 events of inputs.csv come after the video's end", "add --allow-missing")
    actions = np.array([action for _, action, _ in read_all(session, binds, allow_missing=True)[0]])
    np.testing.assert_array_equal(np.flatnonzero(actions[:, 0]), range(50, 60))


def test_a_folder_that_is_no_session_costs_only_itself(session, binds):
    (session.parent / "empty").mkdir()
    (session.parent / "empty" / ".DS_Store").write_text("")
    broken = write_session(session.parent / "b", TIMES, [])
    (broken / "memory_data.csv").write_text("")
    opened = open_source(session.parent, Options("sessions", keybinds=binds))
    assert opened.attributes == ("health", "ammo")
    assert len(list(opened.read("a").steps)) == 60
    with pytest.raises(UserError, match=r"empty/video\.mp4 is missing: restore it, or remove the session"):
        opened.read("empty")
    with pytest.raises(UserError, match=r"b/memory_data\.csv has no column timestamp_us"):
        opened.read("b")


def test_memory_that_cannot_be_read_is_not_taken_for_none(session, binds):
    (session / "memory_data.csv").write_bytes(b"\xff\x00\xff")
    refused(session, binds, "a/memory_data.csv")


def test_what_a_session_holds_beside_its_files_is_said(session, binds):
    (session / "memory_data.csv").write_text(",timestamp_us,health\n0,0,1\n1,10,3\n")
    (session / "video.mp4").rename(session / "2024-01-15 12-00-00.mkv")
    (session / "ram.csv").write_text("")
    (session / "metadata.json").write_text('{"codec": "x", "game": "y"}')
    opened = open_source(session, Options("sessions", keybinds=binds))
    assert opened.attributes == ("health",)
    assert opened.read("a").notes == (
        "ram.csv is not read",
        "of metadata.json is not read: codec",
        "the column of memory_data.csv without a name is left out: it numbers the rows",
    )
