import json
import threading
from collections.abc import Callable
from contextlib import closing
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from dataset_files import user_error
from live_recording import TITLE
from rich.console import Console
from toy_windows import ReactingWindow, wait_until
from untrained import save_run
from Xlib import X

from BC_training import __main__ as command_line
from BC_training.common.preprocess import InputSpec
from BC_training.games import GameSpec
from BC_training.games.window.x11 import X11Desktop
from BC_training.play.live import doctor as module
from BC_training.play.live import reaction
from BC_training.play.live.changes import compared, shift
from BC_training.play.live.doctor import delay_test, doctor, recommended
from BC_training.play.live.labels import Binding
from BC_training.play.live.options import HOTKEYS, PlayOptions

GAME = GameSpec.parse(f"window/{TITLE}?fps=50")
SIZE = 75, 100
BINDS = {
    "version": "2.0",
    "actions": {"go": {"key": "W"}, "late": {"key": "E"}, "nothing": {"key": "R"}, "menu": {"key": "ESC"}},
    "axes": {"turn": {"mouse": "X", "counts": 4}},
}
DELAYS = {"w": 0.0, "e": 0.2, "Escape": 0.0}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Less patience, as these windows rest at once."""
    for name, value in (("_STILL", 0.3), ("_CHUNK", 0.05), ("_WATCH", 0.1), ("_WAIT", 0.5), ("_CALM", 1)):
        monkeypatch.setattr(reaction, name, value)
    monkeypatch.setattr(module, "_CHECKS", 2)
    monkeypatch.setattr(module, "_PART_SECONDS", 0.02)


@pytest.fixture
def window(person):
    opened = []

    def open_window(**options) -> ReactingWindow:
        opened.append(ReactingWindow(TITLE, DELAYS, place=(0, 0), size=(400, 300), **options))
        opened[0].focus()
        person.point_at(100, 100)
        return opened[0]

    yield open_window
    for window in opened:
        window.close()


@pytest.fixture
def keybinds(tmp_path) -> Path:
    (tmp_path / "keybinds.json").write_text(json.dumps(BINDS))
    return tmp_path / "keybinds.json"


class Said(StringIO):
    """A screen before which somebody does things when they read something."""

    def __init__(self, answers: dict[str, Callable[[], object]]):
        super().__init__()
        self._answers = answers

    def write(self, text: str) -> int:
        for read, answer in self._answers.items():
            if read in text:
                answer()
        return super().write(text)

    @property
    def console(self) -> Console:
        return Console(file=self, width=1000)


def all_are_up() -> bool:
    with closing(X11Desktop()) as desktop:
        return not desktop.held()


def test_the_doctor_says_what_reacts_how_late_and_what_does_not(tmp_path, window, person, keybinds):
    toy, said = window(), Said({"press F9": lambda: person.tap("F9")})
    faults = doctor(GAME, keybinds, SIZE, HOTKEYS, tmp_path / "d.json", said.console)
    found = json.loads((tmp_path / "d.json").read_text())
    go, late, nothing, turn, compared = found["reactions"].values()
    assert late["p50_ms"] >= 200
    assert late["p50_ms"] - go["p50_ms"] > 100
    assert go["share"] > 0.9
    assert turn["seen"] == turn["tries"]
    assert (nothing["seen"], compared["seen"]) == (0, 0)
    assert found["mouse"] == {"once": 25, "parts": 25, "is_accelerated": False}
    assert found["faults"] == faults
    assert [fault.partition(":")[0] for fault in faults] == ["nothing"]
    assert "menu is not pressed" in said.getvalue()
    escape, seen = person.code("Escape"), toy.seen()
    assert all(code != escape for _, code in seen)
    assert 0 < sum(kind == X.KeyPress for kind, _ in seen) == sum(kind == X.KeyRelease for kind, _ in seen)
    assert all_are_up()


def test_a_mouse_that_is_accelerated_is_wrong(monkeypatch, capsys, window, person):
    """With the keys that the doctor knows itself one is enough."""
    window(is_accelerated=True)
    said = Said({"press F9": lambda: person.tap("F9")})
    monkeypatch.setattr(command_line, "console", said.console)
    monkeypatch.setattr(module, "_KEYS", ("W",))
    monkeypatch.setattr("sys.argv", ["BC_training", "doctor", "--game", str(GAME), "--size", "75x100"])
    with pytest.raises(SystemExit) as end:
        command_line.main()
    assert end.value.code == 1
    *_, turned, fault = said.getvalue().splitlines()
    assert turned == "100 counts of the mouse move the picture by 31 of 100 pixels, ten times 10 by 25 of 100 pixels"
    assert fault.startswith("the mouse is accelerated")


def test_the_delay_of_a_policy_and_the_shift_that_follows_are_measured(
    monkeypatch, tmp_path, make_config, window, person, keybinds
):
    """Until a hotkey ends it."""
    toy = window()
    monkeypatch.setattr(module, "_PRESSES", 1000)
    monkeypatch.setattr(reaction, "_WAIT", 1.0)
    inputs = InputSpec(("late",), (), SIZE, (24, 32), 50.0)
    policy = save_run(tmp_path / "policy", make_config(), inputs)
    options = PlayOptions(GAME, keybinds, json_file=tmp_path / "t.json")
    pressed: list = []

    def end() -> None:
        wait_until(lambda: pressed.extend(toy.seen()) or len(pressed) >= 2)
        person.tap("F12")

    ending = threading.Thread(target=end)
    said = Said({"press F9": lambda: (person.tap("F9"), ending.start())})
    found = delay_test(str(policy), options, said.console)
    ending.join()
    assert "ended by a hotkey" in said.getvalue()
    assert found == json.loads((tmp_path / "t.json").read_text())
    assert found["reactions"]["late"]["p50_ms"] >= 200
    assert found["reactions"]["late"]["tries"] in (1, 2)
    assert found["delay"] >= 10
    assert found["action_shift_without_delay"] == found["delay"] - 1
    assert all_are_up()


@pytest.mark.parametrize(
    ("delay", "response", "expected"),
    [
        (0.03, 0.01, (0, 0, 0)),  # within a frame of 50 ms
        (0.06, 0.01, (1, 0, 0)),  # in the second
        (0.12, 0.01, (2, 0, 1)),
        (0.06, 0.07, (2, 1, 1)),  # the policy itself takes more than a frame
    ],
)
def test_a_shift_follows_from_the_frames_that_play_is_later_than_the_recording(delay, response, expected):
    assert recommended(delay, response, 20.0) == expected


def test_what_a_picture_does_by_itself_is_no_reaction(monkeypatch, tmp_path, window, person, keybinds):
    window(blinks=0.35)
    monkeypatch.setattr(reaction, "_WATCH", 0.4)
    keybinds.write_text(json.dumps({"version": "2.0", "actions": {"go": {"key": "W"}}}))
    said = Said({"press F9": lambda: person.tap("F9")})
    doctor(GAME, keybinds, SIZE, HOTKEYS, tmp_path / "d.json", said.console)
    go, compared = json.loads((tmp_path / "d.json").read_text())["reactions"].values()
    assert (go["seen"], compared["seen"]) == (2, 0)
    assert 0.7 < go["share"] < 0.8


def test_a_picture_that_changes_without_a_press_is_watched_for_longer(monkeypatch, window, keybinds):
    window(blinks=0.35)
    monkeypatch.setattr(reaction, "_WATCH", 0.01)
    monkeypatch.setattr(reaction, "_LONGEST", 0.16)
    binding, hotkeys = Binding.from_file(keybinds), [("key", name) for name in HOTKEYS]
    nothing = reaction.Reaction("nothing")
    with reaction.reactions_of(GAME, binding, SIZE, hotkeys, print) as tried:
        for _ in range(3):
            tried.try_nothing(nothing)
        assert tried.watch > 0.01
        assert not nothing.seconds or tried.watch >= 0.16
    assert nothing.tries == 3


def test_a_window_without_the_focus_is_waited_for_and_gets_nothing(window, person, keybinds):
    toy = window()
    keybinds.write_text(json.dumps({"version": "2.0", "actions": {"go": {"key": "W"}}}))
    with closing(ReactingWindow("A letter", {}, place=(420, 0), size=(100, 100))) as letter:
        letter.focus()
        seen: list = []

        def focus() -> None:
            seen.extend(letter.seen())
            toy.focus()

        answers = {"press F9": lambda: person.tap("F9"), "has not the focus": focus}
        doctor(GAME, keybinds, SIZE, HOTKEYS, None, Said(answers).console)
        assert not [*seen, *letter.seen()]
    assert toy.seen()


def test_what_cannot_be_tried_is_said_in_one_line(tmp_path, window, person, keybinds):
    console = Said({"press F9": lambda: person.tap("F9")}).console
    empty = tmp_path / "empty.json"
    empty.write_text('{"version": "2.0"}')
    nobody = GameSpec.parse("window/Nobody")
    assert "no window is meant by 'Nobody'" in user_error(doctor, nobody, keybinds, SIZE, HOTKEYS, None, console)
    window(lasts=2)
    assert "binds nothing" in user_error(doctor, GAME, empty, SIZE, HOTKEYS, None, console)
    ended = Said({"press F9": lambda: person.tap("F12")}).console
    assert "ended before anything" in user_error(doctor, GAME, keybinds, SIZE, HOTKEYS, None, ended)
    assert "is closed" in user_error(doctor, GAME, keybinds, SIZE, HOTKEYS, None, console)
    assert all_are_up()


def test_a_delay_test_takes_no_options_of_play(keybinds):
    options = PlayOptions(GAME, keybinds, seconds=3.0)
    assert "leave out --seconds" in user_error(delay_test, "nowhere", options, Console())


def test_a_picture_that_is_another_one_did_not_move():
    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 256, (2, 3, 40, 1, 60), np.uint8).repeat(4, 3).reshape(2, 3, 160, 60)
    assert shift(one, np.roll(one, 7, axis=2)) == 7
    assert shift(one, np.roll(one, -7, axis=2)) == -7
    assert shift(one, one) == 0
    assert shift(one, other) is None
    assert shift(np.zeros_like(one), np.zeros_like(one)) is None


def test_an_accelerated_mouse_is_told_also_where_the_picture_goes_too_far_to_be_measured():
    start = np.random.default_rng(0).integers(0, 256, (3, 40, 60), np.uint8)
    far, less = (np.roll(start, by, axis=2) for by in (28, 24))
    assert compared(start, far, start, less) == (None, None, True)
    assert compared(start, far, start, far) == (None, None, False)
    assert compared(start, far, less, far) == (None, 4, None)  # it did not come back
