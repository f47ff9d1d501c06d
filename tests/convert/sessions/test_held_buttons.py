"""What was held when, from presses and releases under any names, some of which were lost."""

import json
from collections import Counter
from io import StringIO
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded_sessions import write_session
from rich.console import Console

from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.errors import UserError
from BC_training.convert import Options, convert
from BC_training.convert.sessions import held_buttons
from BC_training.convert.sessions.files import Inputs, read_inputs
from BC_training.convert.sessions.held_buttons import describe_unmatched, held_actions, identify
from BC_training.convert.sessions.keybinds import _bind, read_keybinds
from BC_training.convert.sessions.reader import open_source

FRAMES = 400
EDGES = np.arange(FRAMES + 1) * 100_000.0  # 40 s at 10 frames a second
ASSUMED = 15  # frames
BUTTONS = [("key", "A"), ("key", "B"), ("mouse", "A"), ("key", "C")]


def inputs_of(events, codes=()):
    """Events (time, button, down)."""
    times, buttons, down = zip(*events, strict=True) if events else ((), (), ())
    return Inputs(np.array(times, float), list(buttons), np.array(down, bool), list(codes))


@settings(max_examples=500)
@given(data=st.data())
def test_held_at_any_moment_of_the_frame_and_what_is_unmatched(data):
    edges = np.array(sorted(data.draw(st.sets(st.integers(0, 12), min_size=2, max_size=6))), float)
    columns = {("key", "A"): 0, ("mouse", "A"): 0, ("key", "B"): 1}
    event = st.tuples(st.integers(-4, 14), st.sampled_from(BUTTONS), st.booleans())
    events = sorted(data.draw(st.lists(event, max_size=12)), key=lambda e: e[0])
    assumed = data.draw(st.integers(1, 20))
    with mock.patch.object(held_buttons, "UNMATCHED_SECONDS", assumed / 1e6):
        got, unmatched = held_actions(inputs_of(events), columns, 2, edges)

    # By brute force: whether the events before and after say that it is held, at every half of a microsecond.
    expected, expected_unmatched = np.zeros_like(got), Counter()
    moments = np.arange(-30, 30, 0.5)
    for button, column in columns.items():
        own = [(t, down) for t, b, down in events if b == button]
        held = np.zeros(len(moments), bool)
        for i, moment in enumerate(moments):
            before = [e for e in own if e[0] <= moment]
            after = [e for e in own if e[0] > moment]
            if before and before[-1][1]:
                just_pressed = moment < before[-1][0] + assumed
                held[i] = just_pressed if not after or after[0][1] else True
                held[i] |= not after and before[-1][0] + assumed >= edges[-1]
            elif after and not after[0][1]:
                held[i] = moment >= after[0][0] - assumed
            held[i] |= any(t == moment and down for t, down in own)  # even if up in the same microsecond
        for k in range(len(edges) - 1):
            expected[k, column] |= held[(moments >= edges[k]) & (moments < edges[k + 1])].any()
        for (was, was_down), (t, down) in zip([(-99, False), *own], [*own, (99, True)], strict=True):
            if was_down and down and t - was > assumed and not (t == 99 and was + assumed >= edges[-1]):
                expected_unmatched[was, button, True] += 1
            if not was_down and not down and not (was == -99 and t - assumed <= edges[0]):
                expected_unmatched[t, button, False] += 1
    np.testing.assert_array_equal(got, expected)
    assert Counter(unmatched) == expected_unmatched
    assert unmatched == sorted(unmatched)


def frames_held(events):
    (held, unmatched) = held_actions(inputs_of(events), {("key", "W"): 0}, 1, EDGES)
    return list(np.flatnonzero(held)), unmatched


W = ("key", "W")


def test_a_hold_with_its_release_is_held_however_long():
    assert frames_held([(1e6, W, True), (39e6, W, False)]) == (list(range(10, 390)), [])


def test_a_lost_release_is_held_for_the_stated_time():
    assert frames_held([(1e6, W, True)]) == (list(range(10, 10 + ASSUMED)), [(1e6, W, True)])


def test_a_lost_press_is_held_for_the_stated_time():
    assert frames_held([(30e6, W, False)]) == (list(range(300 - ASSUMED, 300)), [(30e6, W, False)])


def test_what_is_held_as_the_video_begins_or_ends_is_not_unmatched():
    assert frames_held([(1e6, W, False), (39e6, W, True)]) == ([*range(10), *range(390, 400)], [])


def test_repeats_prove_that_it_is_held():
    repeats = [(t * 1e5, W, True) for t in range(10, 300)]
    assert frames_held(repeats) == (list(range(10, 299 + ASSUMED)), [(29.9e6, W, True)])
    assert frames_held([*repeats, (35e6, W, False)]) == (list(range(10, 350)), [])


def test_a_press_long_after_a_press_is_a_new_one():
    events = [(1e6, W, True), (20e6, W, True), (21e6, W, False)]
    assert frames_held(events) == ([*range(10, 10 + ASSUMED), *range(200, 210)], [(1e6, W, True)])


def test_a_second_release_reaches_back_to_the_first_at_most():
    events = [(1.8e6, W, True), (2e6, W, False), (2.5e6, W, False)]
    assert frames_held(events) == (list(range(18, 25)), [(2.5e6, W, False)])


def test_unmatched_events_are_named_with_second_and_frame():
    unmatched = [(1.25e6, W, True), (30e6, ("mouse", "LEFT"), False), (99e6, W, False)]
    assert describe_unmatched(unmatched, EDGES, 0.0) == (
        "1 press without a release and 2 releases without a press, taken to be held for 1.5 s at most: "
        "W pressed at 1.250 s (frame 12), mouse LEFT released at 30.000 s (frame 300), W released at 99.000 s"
    )
    assert "and 93 more" in describe_unmatched([(1.0, W, True)] * 101, EDGES, 0.0)


def held(tmp_path, binds, rows, header="timestamp_us,event_type,key_or_button"):
    """(frames of each action, notes) of rows in the words of a recorder, a time unit of 0.1 s."""
    (tmp_path / "binds.json").write_text(
        json.dumps({"version": "2.0", "actions": {f"a{i}": {"index": i, "key": b} for i, b in enumerate(binds)}})
    )
    (tmp_path / "inputs.csv").write_text(
        "\n".join([header, *(",".join([f"{row[0]}00000", *row[1:]]) for row in rows)]), encoding="utf-8"
    )
    keybinds = read_keybinds(tmp_path / "binds.json")
    inputs = read_inputs(tmp_path / "inputs.csv")
    buttons, notes = identify(inputs, keybinds, Path("inputs.csv"))
    actions, unmatched = held_actions(
        Inputs(inputs.times, buttons, inputs.down), keybinds.columns, len(keybinds.actions), EDGES
    )
    return [list(np.flatnonzero(column)) for column in actions.T], notes, unmatched


@pytest.mark.parametrize(
    ("bound", "press", "release"),
    [
        ("1", "!", "1"),
        ("1", "1", "!"),
        ("1", "exclam", "1"),
        ("/", "?", "KEY_SLASH"),
        ("W", "'W'", "'w'"),
        ("W", r"'\x17'", "w"),
        ("W", "w", "\x17"),
        ("I", r"'\t'", "'i'"),
        ("SPACE", " ", "Key.space"),
        (" ", "' '", "Space"),
        ("SHIFT", "Key.shift_r", "shift"),
        ("LSHIFT", "Shift_L", "VK_SHIFT"),
        ("ctrl", "ControlLeft", "KEY_LEFTCTRL"),
        ("A", "<65>", "'a'"),
        ("!", "!", "1"),
    ],
)
def test_press_and_release_of_one_key_under_two_names(tmp_path, bound, press, release):
    frames, _, unmatched = held(tmp_path, [bound], [(10, "KEY_DOWN", press), (300, "KEY_UP", release)])
    assert frames == [list(range(10, 300))]
    assert unmatched == []


def test_a_shifted_name_that_is_bound_itself_is_a_key_of_its_own(tmp_path):
    rows = [(10, "KEY_DOWN", "1"), (20, "KEY_DOWN", "!"), (25, "KEY_UP", "1"), (30, "KEY_UP", "!")]
    frames, notes, unmatched = held(tmp_path, ["1", "!"], rows)
    assert frames == [list(range(10, 25)), list(range(20, 30))]
    assert (notes, unmatched) == ([], [])


def test_presses_that_shift_renamed_are_said_to_be_of_a_us_keyboard(tmp_path):
    _, notes, _ = held(tmp_path, ["1"], [(10, "KEY_DOWN", "!"), (11, "KEY_UP", "1")])
    assert notes == ["presses with Shift are taken for those of a US keyboard: 1 of ! as 1"]


def test_an_unbound_key_is_not_ended_by_its_neighbour(tmp_path):
    """Two keys of a French keyboard that are one on a US keyboard."""
    rows = [(10, "KEY_DOWN", '""""'), (20, "KEY_DOWN", "'"), (25, "KEY_UP", "'"), (30, "KEY_UP", '""""')]
    frames, _, _ = held(tmp_path, ['"'], rows)
    assert frames == [list(range(10, 30))]


@pytest.mark.parametrize(
    ("bound", "fits", "does_not"),
    [
        (["SHIFT"], ["LSHIFT", "RSHIFT", "SHIFT"], ["LCTRL"]),
        (["LSHIFT"], ["LSHIFT"], ["RSHIFT", "SHIFT"]),
    ],
)
def test_a_bind_without_a_side_fits_both(tmp_path, bound, fits, does_not):
    for name in (*fits, *does_not):
        frames, _, _ = held(tmp_path, bound, [(10, "KEY_DOWN", name), (20, "KEY_UP", name)])
        assert frames == [list(range(10, 20)) if name in fits else []], name


WITH_CODE = "timestamp_us,event_type,key_or_button,scan_code"


def test_one_code_is_one_key_under_every_name(tmp_path):
    rows = [
        (10, "KEY_DOWN", "ц", "17"),
        (20, "KEY_UP", "w", "17"),
        (30, "KEY_DOWN", "ф", "30"),
        (40, "KEY_UP", "ф", "30"),
    ]
    frames, notes, unmatched = held(tmp_path, ["W"], rows, WITH_CODE)
    assert frames == [list(range(10, 20))]
    assert unmatched == []
    assert notes == ["the key of code 17 is named W, Ц: taken as W"]


def test_a_code_tells_a_french_digit_from_a_shifted_us_one(tmp_path):
    rows = [(10, "KEY_DOWN", "&", "2"), (12, "KEY_UP", "1", "2"), (20, "KEY_DOWN", "7", "8"), (22, "KEY_UP", "è", "8")]
    frames, _, _ = held(tmp_path, ["1", "7"], rows, WITH_CODE)
    assert frames == [[10, 11], [20, 21]]


def test_codes_that_both_sides_share_or_that_are_not_known_say_nothing(tmp_path):
    rows = [(10, "KEY_DOWN", "ShiftLeft", "16"), (11, "KEY_DOWN", "ShiftRight", "16")]
    rows += [(12, "KEY_UP", "ShiftRight", "16"), (60, "KEY_UP", "ShiftLeft", "16")]
    rows += [(70, "KEY_DOWN", "a", "0"), (71, "KEY_UP", "a", "0"), (72, "KEY_DOWN", "w", "0"), (73, "KEY_UP", "w", "0")]
    frames, _, _ = held(tmp_path, ["LSHIFT", "W"], rows, WITH_CODE)
    assert frames == [list(range(10, 60)), [72]]


def test_a_key_may_be_one_action_with_shift_and_another_without(tmp_path):
    rows = [(10, "KEY_DOWN", "1", "2"), (12, "KEY_UP", "1", "2"), (20, "KEY_DOWN", "!", "2"), (22, "KEY_UP", "!", "2")]
    frames, _, unmatched = held(tmp_path, ["1", "!"], rows, WITH_CODE)
    assert (frames, unmatched) == ([[10, 11], [20, 21]], [])


def test_binds_of_both_sides_to_one_action_fit_a_name_without_a_side():
    sides = {("key", "LCTRL"): 0, ("key", "RCTRL"): 0}
    assert _bind(["crouch"], sides).columns == {**sides, ("key", "CTRL"): 0}
    assert ("key", "CTRL") not in _bind(["a", "b"], {("key", "LCTRL"): 0, ("key", "RCTRL"): 1}).columns


def test_a_code_of_two_actions_is_refused(tmp_path):
    rows = [(10, "KEY_DOWN", "w", "5"), (20, "KEY_DOWN", "a", "5")]
    with pytest.raises(UserError, match=r"code 5 is named A, W, .* several actions: correct the codes, or remove"):
        held(tmp_path, ["W", "A"], rows, WITH_CODE)


@pytest.mark.parametrize(
    ("down", "up", "button"),
    [
        ("key_down", "keyup", "w"),
        ("KEY_PRESS", "KEY_RELEASE", "w"),
        ("KeyPressed", "KeyReleased", "w"),
        ("press", "release", "Key.left"),
        ("down", "up", "Button.left"),
        ("MOUSEBUTTONDOWN", "MOUSEBUTTONUP", "left"),
        ("ButtonPress", "ButtonRelease", "BTN_LEFT"),
        ("KEY_DOWN", "KEY_UP", "VK_LBUTTON"),
        ("WM_KEYDOWN", "WM_KEYUP", "VK_W"),
        ("KEY_REPEAT", "KEY_UP", "w"),
        ("key_hold", "key_up", "w"),
    ],
)
def test_events_in_other_words(tmp_path, down, up, button):
    bind = "LMB" if ("left" in button.lower() and not button.startswith("Key")) or "BUTTON" in button else button
    frames, _, _ = held(tmp_path, [bind], [(10, down, button), (20, up, button)])
    assert frames == [list(range(10, 20))]


def test_events_of_no_button_are_left_out_and_counted(tmp_path):
    names = [
        "MOUSE_MOVE",
        "mousemove",
        "WHEEL",
        "mouse_scroll",
        "FOCUS_LOST",
        "blur",
        "MouseEnter",
        "POINTER_MOTION",
        "wheel_up",
        "EV_SYN",
    ]
    (tmp_path / "inputs.csv").write_text(
        "\n".join(["timestamp_us,event_type,key_or_button", "5,KEY_DOWN,W", *(f"nan,{name}," for name in names * 2)])
    )
    inputs = read_inputs(tmp_path / "inputs.csv")
    assert inputs.buttons == [W]
    assert inputs.left_out == dict.fromkeys(names, 2)


def test_frames_in_the_lines_are_those_of_the_dataset(tmp_path):
    (tmp_path / "binds.json").write_text(json.dumps({"version": "2.0", **ONE}))
    events = [(0, "KEY_DOWN", "W"), (1, "KEY_UP", "W"), (2_000_000, "KEY_UP", "W")]
    write_session(tmp_path / "s", np.arange(60) * 50_000, events, [(500_000, 1, 1)])
    recording = open_source(tmp_path / "s", Options("sessions", keybinds=tmp_path / "binds.json")).read("s")
    assert recording.attrs["frames_dropped_before_state"] == 10
    assert "W released at 2.000 s (frame 30)" in recording.notes[-1]


def converted(tmp_path, binds, **sessions):
    """(what was printed, the error or None); sessions of 3 s at 20 frames a second."""
    (tmp_path / "binds.json").write_text(json.dumps({"version": "2.0", **binds}))
    for name, events in sessions.items():
        write_session(tmp_path / "s" / name, np.arange(60) * 50_000, events)
    output = StringIO()
    options = Options("sessions", keybinds=tmp_path / "binds.json")
    try:
        convert(tmp_path / "s", tmp_path / "x.zarr", options, 1, Console(file=output, width=500))
    except UserError as error:
        return output.getvalue(), str(error)
    return output.getvalue(), None


ONE = {"actions": {"forward": {"index": 0, "key": "w"}, "fire": {"index": 1, "mouse": "left"}}}


def test_a_session_without_a_fitting_press_is_refused_and_an_idle_one_is_not(tmp_path):
    events = {"a": [(0, "KEY_DOWN", "Up"), (1, "MOUSE_DOWN", "right")], "b": [], "c": [(0, "KEY_DOWN", "'w'")]}
    printed, error = converted(tmp_path, ONE, **events)
    assert error is not None
    assert (
        "2 of 2 presses are of buttons without an action; pressed were UP, mouse RIGHT; bound are W, mouse LEFT"
        in error
    )
    assert "1 of 3" in error
    assert "never pressed in what was converted: fire\n" in printed
    assert len(ZarrGameplayDataset(tmp_path / "x.zarr").episodes) == 2


@pytest.mark.parametrize(("half", "lacks"), [("DOWN", "presses but no releases"), ("UP", "releases but no presses")])
def test_presses_alone_and_releases_alone_are_refused_where_they_are_many(tmp_path, half, lacks):
    keys = list("abcdefghijkl")
    binds = {"actions": {"move": {"index": 0, "key": keys}}}
    at = 200_000 if half == "DOWN" else 2_500_000
    many = [(at + i * 20_000, f"KEY_{half}", key) for i, key in enumerate(keys)]
    _, error = converted(tmp_path, binds, a=many, b=many[:9])
    assert error is not None
    assert "1 of 2" in error
    assert f"a/inputs.csv has {lacks}" in error


def test_all_that_was_assumed_is_printed_and_kept(tmp_path):
    events = [
        (0, "KEY_DOWN", "W"),
        (2_000_000, "KEY_UP", "w"),
        (2_900_000, "MOUSE_UP", "LEFT"),
        (2_910_000, "KEY_UP", "W"),
    ]
    events = [(5, "MOUSE_MOVE", "3"), *events, (2_950_000, "MOUSE_DOWN", "LEFT")]
    printed, error = converted(tmp_path, {"game": "x", **ONE}, a=sorted(events))
    assert error is None
    assert "the key binds' entries 'game' are not used" in printed
    assert "a: 1 event of no button left out (MOUSE_MOVE)\n" in printed
    assert "a: 2 releases without a press, taken to be held" in printed
    assert "mouse LEFT released at 2.900 s (frame 58), W released at 2.910 s (frame 58)" in printed
    attrs = ZarrGameplayDataset(tmp_path / "x.zarr").episodes[0].attrs
    assert attrs["unmatched_releases"] == 2
    assert "unmatched_presses" not in attrs
