"""Buttons are held from press to release under any names, also where one of the two was lost."""

import json
from collections import Counter
from io import StringIO
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from conversions import converted, opened
from dataset_files import user_error
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded_sessions import write_session

from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.errors import UserError
from BC_training.common.keybinds.file import read_keybinds
from BC_training.convert.sessions import held_buttons
from BC_training.convert.sessions.held_buttons import describe_unmatched, held_actions, identify
from BC_training.convert.sessions.tables import Inputs, read_inputs

FRAMES = 400
EDGES = np.arange(FRAMES + 1) * 100_000.0  # 40 s at 10 frames a second
ASSUMED = 15  # frames
BUTTONS = [("key", "A"), ("key", "B"), ("mouse", "A"), ("key", "C")]


def inputs_of(events):
    """Inputs with events (time, button, down)."""
    times, buttons, down = zip(*events, strict=True) if events else ((), (), ())
    return Inputs(np.array(times, float), list(buttons), np.array(down, bool))


@settings(max_examples=150)
@given(data=st.data())
def test_a_button_held_at_any_moment_of_a_frame_is_held_in_it(data):
    edges = np.array(sorted(data.draw(st.sets(st.integers(0, 12), min_size=2, max_size=6))), float)
    columns = {("key", "A"): 0, ("mouse", "A"): 0, ("key", "B"): 1}
    event = st.tuples(st.integers(-4, 14), st.sampled_from(BUTTONS), st.booleans())
    events = sorted(data.draw(st.lists(event, max_size=12)), key=lambda e: e[0])
    assumed = data.draw(st.integers(1, 20))
    with mock.patch.object(held_buttons, "UNMATCHED_SECONDS", assumed / 1e6):
        got, unmatched = held_actions(inputs_of(events), columns, 2, edges)

    # By brute force: decide at every half microsecond from the events before and after.
    expected, expected_unmatched = np.zeros_like(got), Counter()
    moments = np.arange(edges[0], edges[-1], 0.5)
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


W = ("key", "W")
REPEATS = [(t * 1e5, W, True) for t in range(10, 300)]


@pytest.mark.parametrize(("events", "frames", "unmatched"), [
    ([(1e6, W, True), (39e6, W, False)], range(10, 390), []),
    ([(1e6, W, True)], range(10, 10 + ASSUMED), [(1e6, W, True)]),
    ([(30e6, W, False)], range(300 - ASSUMED, 300), [(30e6, W, False)]),
    ([(1e6, W, False), (39e6, W, True)], [*range(10), *range(390, 400)], []),  # held as the video begins and ends
    (REPEATS, range(10, 299 + ASSUMED), [(29.9e6, W, True)]),
    ([*REPEATS, (35e6, W, False)], range(10, 350), []),
    (
        [(1e6, W, True), (20e6, W, True), (21e6, W, False)],  # a press long after a press is a new one
        [*range(10, 10 + ASSUMED), *range(200, 210)],
        [(1e6, W, True)],
    ),
    # A second release reaches back to the first at most:
    ([(1.8e6, W, True), (2e6, W, False), (2.5e6, W, False)], range(18, 25), [(2.5e6, W, False)]),
])  # fmt: skip
def test_a_lost_press_or_release_is_assumed_for_the_stated_time(events, frames, unmatched):
    held, found = held_actions(inputs_of(events), {W: 0}, 1, EDGES)
    assert (list(np.flatnonzero(held)), found) == (list(frames), unmatched)


def test_unmatched_events_are_named_with_second_and_frame():
    unmatched = [(1.25e6, W, True), (30e6, ("mouse", "LEFT"), False), (99e6, W, False)]
    assert describe_unmatched(unmatched, EDGES, 0.0) == (
        "1 press without a release and 2 releases without a press, taken to be held for 1.5 s at most: "
        "W pressed at 1.250 s (frame 12), mouse LEFT released at 30.000 s (frame 300), W released at 99.000 s"
    )
    assert "and 93 more" in describe_unmatched([(1.0, W, True)] * 101, EDGES, 0.0)


def down(time, *button):
    return f"{time}00000", "KEY_DOWN", *button


def up(time, *button):
    return f"{time}00000", "KEY_UP", *button


def write_binds(tmp_path, actions, **more):
    (tmp_path / "binds.json").write_text(json.dumps({"version": "2.0", "actions": actions, **more}))
    return tmp_path / "binds.json"


def held(tmp_path, binds, rows):
    """(frames of each action, notes, unmatched) for rows of ``down`` and ``up``, whose times are tenths of a second."""
    keybinds = read_keybinds(write_binds(tmp_path, {f"a{i}": {"index": i, "key": b} for i, b in enumerate(binds)}))
    columns = ["timestamp_us", "event_type", "key_or_button", "scan_code"][: len(rows[0])]
    (tmp_path / "inputs.csv").write_text("\n".join(map(",".join, [columns, *rows])), encoding="utf-8")
    inputs = read_inputs(tmp_path / "inputs.csv")
    buttons, notes = identify(inputs, keybinds, Path("inputs.csv"))
    inputs = Inputs(inputs.times, buttons, inputs.down)
    actions, unmatched = held_actions(inputs, keybinds.columns, len(binds), EDGES)
    return [list(np.flatnonzero(column)) for column in actions.T], notes, unmatched


@pytest.mark.parametrize(("bound", "press", "release"), [
    ("1", "!", "1"), ("1", "1", "!"), ("1", "exclam", "1"), ("!", "!", "1"), ("/", "?", "KEY_SLASH"),
    ("A", "<65>", "'a'"),
    ("W", "'W'", "'w'"), ("W", r"'\x17'", "w"), ("W", "w", "\x17"), ("I", r"'\t'", "'i'"),
    ("SPACE", " ", "Key.space"), (" ", "' '", "Space"), ("SHIFT", "Key.shift_r", "shift"),
    ("LSHIFT", "Shift_L", "VK_SHIFT"), ("ctrl", "ControlLeft", "KEY_LEFTCTRL"),
])  # fmt: skip
def test_a_key_may_have_another_name_at_its_release(tmp_path, bound, press, release):
    frames, _, unmatched = held(tmp_path, [bound], [down(10, press), up(300, release)])
    assert (frames, unmatched) == ([list(range(10, 300))], [])


@pytest.mark.parametrize(("binds", "rows", "frames"), [
    # A shifted name that is bound itself is a key of its own.
    (["1", "!"], [down(10, "1"), down(20, "!"), up(25, "1"), up(30, "!")], [range(10, 25), range(20, 30)]),
    # Two keys of a French keyboard are one on a US keyboard: an unbound key is not ended by its neighbour.
    (['"'], [down(10, '""""'), down(20, "'"), up(25, "'"), up(30, '""""')], [range(10, 30)]),
    # One code is one key under every name.
    (["W"], [down(10, "ц", "17"), up(20, "w", "17"), down(30, "ф", "30"), up(40, "ф", "30")], [range(10, 20)]),
    # A code distinguishes a French digit from a shifted US one.
    (["1", "7"], [down(10, "&", "2"), up(12, "1", "2"), down(20, "7", "8"), up(22, "è", "8")], [[10, 11], [20, 21]]),
    # Codes that both sides share, or that are not known, are ignored.
    (
        ["LSHIFT", "W"],
        [
            *[down(10, "ShiftLeft", "16"), down(11, "ShiftRight", "16")],
            *[up(12, "ShiftRight", "16"), up(60, "ShiftLeft", "16")],
            *[down(70, "a", "0"), up(71, "a", "0"), down(72, "w", "0"), up(73, "w", "0")],
        ],
        [range(10, 60), [72]],
    ),
    # A key may be one action with Shift and another without.
    (["1", "!"], [down(10, "1", "2"), up(12, "1", "2"), down(20, "!", "2"), up(22, "!", "2")], [[10, 11], [20, 21]]),
])  # fmt: skip
def test_a_key_is_identified_by_its_name_and_its_code(tmp_path, binds, rows, frames):
    found, _, unmatched = held(tmp_path, binds, rows)
    assert (found, unmatched) == ([list(own) for own in frames], [])


def test_renamed_keys_are_noted(tmp_path):
    _, notes, _ = held(tmp_path, ["1"], [down(10, "!"), up(11, "1")])
    assert notes == ["presses with Shift are taken for those of a US keyboard: 1 of ! as 1"]
    _, notes, _ = held(tmp_path, ["W"], [down(10, "ц", "17"), up(20, "w", "17")])
    assert notes == ["the key of code 17 is named W, Ц: taken as W"]


@pytest.mark.parametrize(("bound", "fits", "does_not"), [
    ("SHIFT", ["LSHIFT", "RSHIFT", "SHIFT"], ["LCTRL"]),
    ("LSHIFT", ["LSHIFT"], ["RSHIFT", "SHIFT"]),
])  # fmt: skip
def test_a_bind_without_a_side_fits_both(tmp_path, bound, fits, does_not):
    for name in (*fits, *does_not):
        frames, _, _ = held(tmp_path, [bound], [down(10, name), up(20, name)])
        assert frames == [list(range(10, 20)) if name in fits else []], name


def test_a_code_of_two_actions_is_refused(tmp_path):
    message = user_error(held, tmp_path, ["W", "A"], [down(10, "w", "5"), down(20, "a", "5")])
    assert "code 5 is named A, W, which are bound to several actions: correct the codes, or remove" in message


def test_the_frames_in_notes_are_those_of_the_dataset(tmp_path):
    events = [(0, "KEY_DOWN", "W"), (1, "KEY_UP", "W"), (2_000_000, "KEY_UP", "W")]
    write_session(tmp_path / "s", np.arange(60) * 50_000, events, [(500_000, 1, 1)])
    recording = opened(tmp_path / "s", "sessions", keybinds=write_binds(tmp_path, BOUND)).read("s")
    assert recording.attrs["frames_dropped_before_state"] == 10
    assert "W released at 2.000 s (frame 30)" in recording.notes[-1]


BOUND = {"forward": {"index": 0, "key": "w"}, "fire": {"index": 1, "mouse": "left"}}


def printed_and_error(tmp_path, binds, **sessions):
    """The printed text, and the error or "", for sessions of 3 s at 20 frames per second."""
    for name, events in sessions.items():
        write_session(tmp_path / "s" / name, np.arange(60) * 50_000, events)
    output = StringIO()
    try:
        converted(tmp_path / "s", tmp_path / "x.zarr", "sessions", output, keybinds=binds)
    except UserError as error:
        return output.getvalue(), str(error)
    return output.getvalue(), ""


def test_a_session_is_refused_if_all_its_presses_are_unbound_and_not_if_it_has_none(tmp_path):
    events = {"a": [(0, "KEY_DOWN", "Up"), (1, "MOUSE_DOWN", "right")], "b": [], "c": [(0, "KEY_DOWN", "'w'")]}
    printed, error = printed_and_error(tmp_path, write_binds(tmp_path, BOUND), **events)
    fault = "2 of 2 presses are of buttons without an action; pressed were UP, mouse RIGHT; bound are W, mouse LEFT"
    assert fault in error
    assert "1 of 3" in error
    assert "never pressed in what was converted: fire\n" in printed
    assert len(ZarrGameplayDataset(tmp_path / "x.zarr").episodes) == 2


@pytest.mark.parametrize(("half", "lacks"), [("DOWN", "presses but no releases"), ("UP", "releases but no presses")])
def test_presses_alone_and_releases_alone_are_refused_where_they_are_many(tmp_path, half, lacks):
    keys = list("abcdefghijkl")
    binds = write_binds(tmp_path, {"move": {"index": 0, "key": keys}})
    at = 200_000 if half == "DOWN" else 2_500_000
    many = [(at + i * 20_000, f"KEY_{half}", key) for i, key in enumerate(keys)]
    _, error = printed_and_error(tmp_path, binds, a=many, b=many[:9])
    assert "1 of 2" in error
    assert f"a/inputs.csv has {lacks}" in error


def test_all_assumptions_are_printed_and_counted(tmp_path):
    events = [(0, "KEY_DOWN", "W"), (5, "MOUSE_MOVE", "3"), (2_000_000, "KEY_UP", "w"), (2_900_000, "MOUSE_UP", "LEFT")]
    events += [(2_910_000, "KEY_UP", "W"), (2_950_000, "MOUSE_DOWN", "LEFT")]
    printed, error = printed_and_error(tmp_path, write_binds(tmp_path, BOUND, game="x"), a=events)
    assert error == ""
    assert "the key binds' entries 'game' are not used" in printed
    assert "a: 1 event of no button left out (MOUSE_MOVE)\n" in printed
    assert "a: 2 releases without a press, taken to be held" in printed
    assert "mouse LEFT released at 2.900 s (frame 58), W released at 2.910 s (frame 58)" in printed
    attrs = ZarrGameplayDataset(tmp_path / "x.zarr").episodes[0].attrs
    assert (attrs["unmatched_releases"], "unmatched_presses" in attrs) == (2, False)
