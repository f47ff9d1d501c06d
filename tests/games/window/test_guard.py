"""What a program holds down is let go of, also where nothing of it runs any more."""

import contextlib
import json
import os
import signal
import subprocess
import sys

import pytest
from scripted_person import ScriptedPerson, screen
from toy_windows import ToyWindow, wait_until
from Xlib import X

from BC_training.games.window.platform import open_desktop

PLAYER = """
import signal, sys
signal.signal(signal.SIGINT, lambda *_: None)
from BC_training.common.action import Action
from BC_training.games import make_game
game = make_game(sys.argv[1], frame_size=(20, 30))
game.reset()
game.step(Action.of([1, 1]))
print("holds", flush=True)
while True:
    signal.pause()
"""


@pytest.fixture(scope="module", autouse=True)
def display():
    with screen():
        yield


@pytest.fixture
def toy():
    with contextlib.closing(ToyWindow("Toy")) as window, contextlib.closing(ScriptedPerson(None)) as person:
        window.focus()
        person.point_at(*window.corner(20, 20))
        yield window


@pytest.fixture
def desktop():
    with contextlib.closing(open_desktop()) as opened:
        yield opened


def kinds(toy):
    return [kind for kind, _ in toy.seen()]


def test_a_game_that_is_killed_with_9_keeps_nothing_down_also_after_ctrl_c_in_its_terminal(toy, desktop, tmp_path):
    binds = {"version": "2.0", "actions": {"go": {"key": "W"}, "fire": {"mouse": "LEFT"}}}
    (tmp_path / "k.json").write_text(json.dumps(binds), encoding="utf-8")
    command = [sys.executable, "-c", PLAYER, f"window/Toy?keybinds={tmp_path / 'k.json'}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holds\n"
        assert desktop.held() == {("key", "W"), ("mouse", "LEFT")}
        os.killpg(process.pid, signal.SIGINT)
        process.kill()
    wait_until(lambda: not desktop.held())
    seen = kinds(toy)  # the server may have repeated the key meanwhile
    assert [kind for kind in seen if kind in (X.ButtonPress, X.ButtonRelease)] == [X.ButtonPress, X.ButtonRelease]
    assert [kind for kind in seen if kind in (X.KeyPress, X.KeyRelease)][-1] == X.KeyRelease


def test_the_guard_ends_with_the_desktop_and_leaves_others_keys_alone(toy, desktop):
    with contextlib.closing(open_desktop()) as player:
        assert player._guard._process is None  # it costs nothing where nothing is pressed
        player.press(("key", "W"))
        player.press(("key", "S"))
        guard = player._guard._process
        player.release_all()
        wait_until(lambda: not desktop.held())
        desktop.press(("key", "W"))
    assert guard.returncode == 0
    assert desktop.held() == {("key", "W")}


def test_a_guard_that_somebody_ended_is_replaced(toy, desktop):
    with contextlib.closing(open_desktop()) as player:
        player.press(("key", "W"))
        first = player._guard._process
        first.kill()
        first.wait()
        player.press(("key", "S"))
        assert player._guard._process.poll() is None
        wait_until(lambda: desktop.held() == {("key", "W"), ("key", "S")})
    assert not desktop.held()
