"""A window as a game: frames at fixed moments, and actions that become keys and motion only where they belong."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
from dataset_files import user_error
from scripted_person import ScriptedPerson, screen
from toy_windows import ToyWindow, wait_until
from Xlib import X

from BC_training.common.action import Action
from BC_training.games import GameSpec, make_game
from BC_training.games.window.clock import Ticks
from BC_training.games.window.desktop import NotShown, Region, WindowQuery
from BC_training.games.window.game import letterboxed
from BC_training.games.window.platform import open_desktop

KEYBINDS = {
    "version": "2.0",
    "actions": {
        "fire": {"mouse": "LEFT", "index": 1},
        "forward": {"key": ["W", "UP"], "index": 0},
        "run": {"pad": "B", "key": "SHIFT", "index": 2},
        "zoom": {"mouse": "WHEELUP", "index": 3},
    },
    "axes": {
        "turn": {"mouse": "X", "counts": 8},
        "lean": {"less": {"key": "Q"}, "more": {"key": "E"}, "amount": 2},
    },
}
DOOM, WAD = shutil.which("dsda-doom", path="/usr/games"), Path("/usr/share/games/doom/freedoom1.wad")


@pytest.fixture(scope="module", autouse=True)
def display():
    with screen():
        yield


@pytest.fixture
def toy():
    with contextlib.closing(ToyWindow("Toy", (160, 80), (40, 30))) as window:
        window.focus()
        yield window


@pytest.fixture
def keybinds(tmp_path):
    path = tmp_path / "keybinds.json"
    path.write_text(json.dumps(KEYBINDS), encoding="utf-8")
    return path


@pytest.fixture
def opened():
    """Opens games, which are closed at the end."""
    with contextlib.ExitStack() as stack:
        yield (
            lambda spec, **more: (
                stack.enter_context(contextlib.closing(make_game(spec, **({"frame_size": (40, 80)} | more)))).unwrapped
            )
        )


@pytest.fixture
def observer():
    with contextlib.closing(open_desktop()) as desktop:
        yield desktop


def over(toy, x=20, y=20):
    """Puts the pointer over the window."""
    with contextlib.closing(ScriptedPerson(None)) as person:
        person.point_at(*toy.corner(x, y))


def inputs(observer):
    return [(e.kind, e.button[1] if e.button else (e.x, e.y)) for e in observer.events()]


def test_specs_name_windows_and_their_options():
    for text in ("window/Toy — game", "window/id:0x3a00007", "window/pid:4242", "window/Toy?fps=30&region=0,4,64,48"):
        assert str(GameSpec.parse(text)) == text
    assert str(GameSpec.parse("window/id:15?fps=20")) == "window/id:0xf"
    assert GameSpec.parse("window/Toy?fps=17.5").arguments == {"fps": 17.5, "region": "", "keybinds": ""}
    assert "1 to 240" in user_error(lambda: GameSpec.parse("window/Toy?fps=0"))
    assert "takes a number" in user_error(lambda: GameSpec.parse("window/pid:doom"))
    assert "needs a name" in user_error(lambda: GameSpec.parse("window/"))
    assert "write x,y,width,height" in user_error(lambda: Region.parse("0,0,10"))
    assert "no window is meant" in user_error(lambda: make_game("window/Toy"))


def test_frames_are_scaled_and_letterboxed(toy, opened):
    toy.paint(0x0000FF, 80, 0, 80, 80)
    game = opened("window/Toy?fps=200", frame_size=(40, 60))
    observation, info = game.reset()
    frame = np.moveaxis(observation["frame"], 0, -1)
    assert frame.shape == (40, 60, 3)
    assert frame.dtype == np.uint8
    assert info["missed"] == 0
    assert (frame[:5] == 0).all()
    assert (frame[35:] == 0).all()
    assert (frame[5:35, :29] == (255, 0, 0)).all()
    assert (frame[5:35, 31:] == (0, 0, 255)).all()
    assert game.render() is None
    part = opened("window/Toy?region=80,0,40,80", frame_size=(20, 40), render_mode="rgb_array")
    frame = part.reset()[0]["frame"]
    assert (frame[2, :, 15:25] == 255).all()
    assert not frame[:, :, :15].any()
    assert not frame[:, :, 25:].any()
    assert part.render().shape == (80, 40, 3)
    assert (part.render() == (0, 0, 255)).all()


@pytest.mark.parametrize("shape", [(30, 50), (48, 64), (144, 256), (7, 300)])
def test_pictures_of_any_shape_fill_one_side_of_the_frame(shape):
    frame = letterboxed(np.full((*shape, 3), 255, np.uint8), (48, 64))
    rows, columns = frame.any(axis=(0, 2)).sum(), frame.any(axis=(0, 1)).sum()
    assert rows == 48 or columns == 64
    assert abs(rows / columns - shape[0] / shape[1]) < 0.02
    assert (frame[:, frame.any(axis=(0, 2))][:, :, frame.any(axis=(0, 1))] == 255).all()


def test_actions_become_keys_buttons_motion_and_wheel(toy, opened, observer, keybinds):
    over(toy)
    game = opened(f"window/Toy?fps=200&keybinds={keybinds}")
    assert (game.buttons, game.axes) == (("forward", "fire", "run", "zoom"), ("turn", "lean"))
    game.reset()
    observer.events()

    def step(buttons, axes):
        _, reward, *over, info = game.step(Action.of(buttons, axes))
        assert info["focused"]
        assert reward == 0
        assert over == [False, False]
        return sorted(inputs(observer), key=str)

    assert step([1, 0, 0, 0], [0, 0]) == [("press", "W")]
    assert step([1, 1, 1, 0], [0, 0]) == [("press", "LEFT"), ("press", "LSHIFT")]
    assert step([1, 1, 1, 0], [0.25, -0.9]) == [("motion", (2, 0))]
    assert step([0, 0, 0, 1], [0, -1]) == [
        *[("press", "Q"), ("release", "LEFT"), ("release", "LSHIFT"), ("release", "W"), ("wheel", "WHEELUP")],
    ]
    assert step([0, 0, 0, 1], [0, 2]) == [("press", "E"), ("release", "Q"), ("wheel", "WHEELUP")]
    assert step([0, 0, 0, 0], [0, 0]) == [("release", "E")]
    moved = [event for _ in range(16) for event in step([0, 0, 0, 0], [-0.2, 0])]  # 1.6 counts each
    assert sum(x for _, (x, _) in moved) in (-25, -26)
    assert len(moved) == 16
    step([1, 0, 0, 0], [0, 0])
    game.close()
    assert inputs(observer) == [("release", "W")]


def test_a_click_hits_what_the_mouse_was_moved_to_in_the_same_frame(toy, opened, observer, keybinds):
    over(toy)
    game = opened(f"window/Toy?fps=200&keybinds={keybinds}")
    game.reset()
    observer.events()
    game.step(Action.of([0, 1, 0, 0], [0.5, 0]))
    assert inputs(observer) == [("motion", (4, 0)), ("press", "LEFT")]


def test_nothing_is_injected_while_another_window_has_the_focus(toy, opened, observer, keybinds):
    with contextlib.closing(ToyWindow("Other", place=(400, 300))) as other:
        over(toy)
        game = opened(f"window/Toy?fps=200&keybinds={keybinds}")
        game.reset()
        act = Action.of([1, 1, 0, 1], [5, 2])
        game.step(act)
        other.focus()
        other.seen(), observer.events()
        _, _, _, _, info = game.step(act)
        assert not info["focused"]
        assert sorted(inputs(observer)) == [("release", "E"), ("release", "LEFT"), ("release", "W")]
        game.step(act)
        assert not observer.events()
        assert not [kind for kind, _ in other.seen() if kind == X.KeyPress]
        toy.focus()
        assert game.step(act)[4]["focused"]
        assert observer.held() >= {("key", "W"), ("key", "E")}


def test_no_click_goes_to_a_window_under_the_pointer(toy, opened, observer, keybinds):
    with contextlib.closing(ToyWindow("Other", place=(400, 300))) as other:
        over(other)
        toy.focus()
        game = opened(f"window/Toy?fps=200&keybinds={keybinds}")
        game.reset()
        observer.events()
        game.step(Action.of([1, 1, 0, 1], [0, 0]))
        assert inputs(observer) == [("press", "W")]
        over(toy)
        game.step(Action.of([1, 1, 0, 0], [0, 0]))
        assert ("press", "LEFT") in inputs(observer)


@pytest.mark.parametrize("how", ["hide", "destroy"])
def test_a_window_that_is_gone_ends_the_game_with_all_released(toy, opened, observer, keybinds, how):
    over(toy)
    game = opened(f"window/Toy?fps=200&keybinds={keybinds}")
    game.reset()
    game.step(Action.of([1, 1, 0, 0], [0, 0]))
    assert observer.held() == {("key", "W"), ("mouse", "LEFT")}
    getattr(toy, how)()
    with pytest.raises(NotShown, match=f"'Toy'.* is {'hidden' if how == 'hide' else 'closed'}"):
        game.step(Action.of([1, 1, 0, 0], [0, 0]))
    assert not observer.held()


def test_a_window_is_followed_when_it_moves_and_gets_another_size(toy, opened):
    game = opened("window/Toy?fps=200", frame_size=(40, 40))
    game.reset()
    toy.place(x=300, y=200, width=100, height=100)
    toy.paint(0x00FF00)
    assert (game.step(Action.of())[0]["frame"] == np.array([0, 255, 0])[:, None, None]).all()


@pytest.mark.parametrize(
    ("binds", "line"),
    [
        ({"actions": {}}, "binds nothing"),
        ({"actions": {"fire": {"pad": "A"}}}, "with other packages (vgamepad): uv pip install"),
        ({"axes": {"turn": {"pad": "LEFTX"}}}, "with other packages (vgamepad): uv pip install"),
        ({"actions": {"fire": {"key": "CRUMPET"}}}, "there is no such key"),
        ({"actions": ["fire"]}, "binds nothing"),
    ],
)
def test_keybinds_that_cannot_be_played_are_refused_in_one_line(toy, opened, keybinds, binds, line, monkeypatch):
    monkeypatch.setitem(sys.modules, "vgamepad", None)
    keybinds.write_text(json.dumps({"version": "2.0"} | binds), encoding="utf-8")

    def play():
        game = opened(f"window/Toy?keybinds={keybinds}")
        game.step(Action.of([1] * len(game.buttons), [1] * len(game.axes)))

    assert line in user_error(play)


class FakePad:
    """vgamepad's, as far as it is used; there is no device that it could make here."""

    made: ClassVar[list["FakePad"]] = []

    def __init__(self):
        self.made.append(self)
        self.held, self.places, self.reports = set(), {}, []

    def press_button(self, button):
        self.held.add(button)

    def release_button(self, button):
        self.held.discard(button)

    def left_joystick_float(self, x_value_float, y_value_float):
        self.places["left"] = round(x_value_float, 3), round(y_value_float, 3)

    def right_joystick_float(self, x_value_float, y_value_float):
        self.places["right"] = round(x_value_float, 3), round(y_value_float, 3)

    def left_trigger_float(self, value_float):
        self.places["l"] = round(value_float, 3)

    def right_trigger_float(self, value_float):
        self.places["r"] = round(value_float, 3)

    def update(self):
        moved = {name: place for name, place in self.places.items() if place not in (0, (0, 0))}
        self.reports.append((sorted(button.removeprefix("XUSB_GAMEPAD_") for button in self.held), moved))


XUSB = "A B X Y BACK GUIDE START LEFT_THUMB RIGHT_THUMB LEFT_SHOULDER RIGHT_SHOULDER DPAD_UP DPAD_DOWN DPAD_LEFT"
XUSB_BUTTON = {name: name for name in (f"XUSB_GAMEPAD_{name}" for name in (*XUSB.split(), "DPAD_RIGHT"))}


def test_a_virtual_pad_does_what_is_bound_to_a_pad_alone(toy, opened, observer, keybinds, monkeypatch):
    monkeypatch.setitem(sys.modules, "vgamepad", SimpleNamespace(VX360Gamepad=FakePad, XUSB_BUTTON=XUSB_BUTTON))
    actions = {"jump": "A", "duck": "LEFTSTICK", "aim": "TRIGGERLEFT+", "back": "LEFTY+"}
    axes = {"steer": {"pad": "-RIGHTX", "dead_zone": 0.2, "amount": 2}, "gas": {"pad": "TRIGGERRIGHT", "dead_zone": 0}}
    binds = {
        "version": "2.0",
        "actions": {name: {"pad": pad} for name, pad in actions.items()} | {"run": {"pad": "B", "key": "W"}},
        "axes": axes | {"lean": {"less": {"pad": "DPAD_LEFT"}, "more": {"pad": "DPAD_RIGHT"}}},
    }
    keybinds.write_text(json.dumps(binds), encoding="utf-8")
    game = opened(f"window/Toy?fps=200&keybinds={keybinds}")
    (pad,) = FakePad.made
    game.reset()
    observer.events(), pad.reports.clear()
    game.step(Action.of([1, 1, 1, 1, 1], [1, 0.5, -1]))
    game.step(Action.of([0, 0, 0, 0, 1], [-4, 0, 1]))
    assert pad.reports == [
        (["A", "DPAD_LEFT", "LEFT_THUMB"], {"left": (0, -1), "right": (-0.6, 0), "l": 1, "r": 0.5}),
        (["DPAD_RIGHT"], {"right": (1, 0)}),
    ]
    assert inputs(observer) == [("press", "W")]
    with contextlib.closing(ToyWindow("Other", place=(400, 300))) as other:
        other.focus()
        assert not game.step(Action.of([1] * 5, [1, 1, 1]))[4]["focused"]
    assert pad.reports[2:] == [([], {})]


def test_a_system_without_virtual_pads_says_what_it_lacks(toy, opened, keybinds, monkeypatch):
    def refuse():
        raise FileNotFoundError(2, "No such file or directory", "/dev/uinput")

    monkeypatch.setitem(sys.modules, "vgamepad", SimpleNamespace(VX360Gamepad=refuse))
    keybinds.write_text(json.dumps({"version": "2.0", "actions": {"fire": {"pad": "A"}}}), encoding="utf-8")
    line = user_error(lambda: opened(f"window/Toy?keybinds={keybinds}"))
    assert "no virtual pad here ([Errno 2] No such file or directory: '/dev/uinput'): on Linux" in line


def test_frames_come_at_fixed_moments_and_missed_ones_are_left_out(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    ticks, came = Ticks(10), []
    for busy in (0.03, 0.09, 0.13, 0.05, 0.35, 0.01, 0.02):
        now[0] += busy
        ticks.wait()
        came.append((round(now[0] - 100, 6), round(ticks.late, 6), ticks.missed))
    assert came == [
        *[(0.1, 0, 0), (0.2, 0, 0), (0.33, 0.03, 0), (0.4, 0, 0)],
        *[(0.75, 0.05, 2), (0.8, 0, 0), (0.9, 0, 0)],
    ]


@pytest.mark.skipif(not DOOM or not WAD.exists(), reason="dsda-doom and freedoom are not installed")
def test_a_real_game_is_seen_and_played(tmp_path, opened, observer):
    binds = {"actions": {"fire": {"mouse": "LEFT"}}, "axes": {"turn": {"mouse": "X"}}}
    (tmp_path / "doom.json").write_text(json.dumps({"version": "2.0"} | binds), encoding="utf-8")
    options = "-vidmode software -window -geometry 640x480 -nosound -nomusic -warp 1 1 -skill 1 -nomonsters"
    process = subprocess.Popen(
        [str(DOOM), "-iwad", str(WAD), *options.split()],
        env=os.environ | {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path), "SDL_AUDIODRIVER": "dummy"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: any("doom" in window.title for window in observer.windows()))
        doom = observer.find(WindowQuery.parse("doom")).id
        wait_until(lambda: observer.has_focus(doom) and observer.grab(doom)[430:].std() > 20)
        game = opened(f"window/doom?keybinds={tmp_path / 'doom.json'}", frame_size=(120, 160), render_mode="rgb_array")

        def ammunition():
            return game.render()[405:460, 20:95].copy()

        def look(buttons, axes):
            return game.step(Action.of(buttons, axes))[0]["frame"].astype(int)

        game.reset()
        wait_until(lambda: np.array_equal(look([0], [0]), look([0], [0])))  # the level is there
        full = ammunition()
        still = look([0], [0])
        observer.events()
        turned = [look([0], [400]) for _ in range(3)][-1]
        assert np.abs(turned[:, :95] - still[:, :95]).mean() > 5
        assert [(e.x, e.y) for e in observer.events() if e.kind == "motion"] == [(400, 0)] * 3
        assert np.array_equal(ammunition(), full)
        wait_until(lambda: look([1], [0]) is not None and not np.array_equal(ammunition(), full))
    finally:
        process.kill()  # it asks whether to quit
        process.wait()
