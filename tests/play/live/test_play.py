import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import trainings
from live_recording import TITLE, ScriptedDesktop
from rich.console import Console
from toy_windows import ToyWindow, wait_until
from Xlib import X

from BC_training.common.action import Action
from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.errors import UserError
from BC_training.common.storage.writer import EpisodeWriter, Names, recording
from BC_training.games import GameSpec
from BC_training.games.window.x11 import X11Desktop
from BC_training.play.live import play
from BC_training.play.live.options import PlayOptions
from BC_training.play.live.play import play_window

SIZE = 24, 36
BINDS = {
    "version": "2.0",
    "actions": {"go": {"key": "W"}, "fire": {"mouse": "LEFT"}},
    "axes": {"turn": {"mouse": "X", "counts": 4}},
}
GAME = GameSpec.parse(f"window/{TITLE}?fps=50")


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> Path:
    """One that walks and turns right where it sees white, and does nothing where it sees black."""
    folder = tmp_path_factory.mktemp("policy")
    with recording(folder / "d.zarr", Names(("go", "fire"), ("turn",))):
        for number in range(4):
            writer = EpisodeWriter(folder / "d.zarr", number)
            for t in range(60):
                light = (t // 6 + number) % 2
                frame = np.full((3, *SIZE), 255 * light, np.uint8)
                writer.append(frame, Action.of(np.array([light, 0], bool), np.array([3.0 * light])), None)
            writer.commit({"fps": 50.0})
    changes = ["training.num_epochs=25", "training.learning_rate=0.01", "evaluation.rollout=null"]
    trainings.run(folder, folder / "d.zarr", *changes, "logging.report=false")
    return folder / "c/pure_cnn"


@pytest.fixture
def options(tmp_path) -> PlayOptions:
    (tmp_path / "keybinds.json").write_text(json.dumps(BINDS))
    return PlayOptions(GAME, tmp_path / "keybinds.json", takeover="RCTRL", all_inputs=True)


def played(monkeypatch, policy: Path, options: PlayOptions, script: dict[int, Callable[[], object]]):
    """Plays until the script presses F12; returns the result and what was said."""
    monkeypatch.setattr(play, "open_desktop", ScriptedDesktop)
    ScriptedDesktop.script, said = script, StringIO()
    return play_window(str(policy), options, Console(file=said, width=1000)), said.getvalue()


def presses(seen: list[tuple[int, int]]) -> list[bool]:
    """True for each key or button that was pressed, False for each that was released."""
    return [kind in (X.KeyPress, X.ButtonPress) for kind, _ in seen]


def test_the_window_gets_what_the_policy_decides_and_keeps_nothing(monkeypatch, policy, options, window, person):
    seen: list[list[tuple[int, int]]] = []
    pointer: list[int] = []

    def look(colour: int) -> None:
        seen.append(window.seen())
        pointer.append(person.pointer()[0])
        window.paint(colour)

    script = {
        2: lambda: person.tap("F9"),
        6: lambda: look(0xFFFFFF),
        16: lambda: look(0),
        26: lambda: look(0xFFFFFF),
        36: lambda: (look(0xFFFFFF), person.tap("F12")),
    }
    result, said = played(monkeypatch, policy, options, script)
    assert list(map(presses, [*seen, window.seen()])) == [[], [True], [False], [True], [False]]
    moved = np.diff(pointer) / 12  # in frames; the policy turns by 3 degrees of 4 counts
    assert moved[1] <= 2
    assert 7 <= moved[0] <= 10
    assert 7 <= moved[2] <= 10
    assert moved[0] == round(moved[0])
    assert "F9 lets the policy play" in said
    assert result.frames > 30
    assert result.to_dict()["loop_ms"]["p99"] > 0


def test_nothing_is_pressed_without_the_focus_or_when_it_is_paused(monkeypatch, policy, options, window, person):
    window.paint(0xFFFFFF)
    with closing(ToyWindow("A letter", place=(500, 0))) as other:
        counts: list[int] = []

        def count() -> None:
            counts.append(len(window.seen()))

        script = {
            2: lambda: person.tap("F9"),
            8: count,  # W went down
            9: other.focus,
            14: lambda: (other.seen(), window.seen()),
            20: lambda: (counts.append(len(other.seen())), window.focus()),
            26: lambda: person.tap("F9"),
            30: lambda: window.seen(),
            36: lambda: (count(), person.tap("F12")),
        }
        played(monkeypatch, policy, options, script)
    assert counts == [1, 0, 0]


@pytest.mark.parametrize("how", ["hide", "destroy"])
def test_nothing_stays_pressed_when_the_window_is_hidden_or_closed(monkeypatch, policy, options, window, person, how):
    window.paint(0xFFFFFF)
    with closing(X11Desktop()) as desktop:
        held: list[set] = []
        script = {
            2: lambda: person.tap("F9"),
            8: lambda: (held.append(desktop.held()), getattr(window, how)()),
            12: lambda: (held.append(desktop.held()), person.tap("F12")),
        }
        played(monkeypatch, policy, options, script)
        assert [*held, desktop.held()] == [{("key", "W")}, *[set()] * len(held)]
    assert len(held) == (2 if how == "hide" else 1)  # the window that is closed ends it


def test_the_end_of_the_desktop_while_a_key_is_held_keeps_what_was_recorded(
    monkeypatch, tmp_path, policy, options, window, person
):
    window.paint(0xFFFFFF)
    options = replace(options, record=tmp_path / "more.zarr")
    script = {2: lambda: person.tap("F9"), 12: ScriptedDesktop.lose}
    with pytest.raises(UserError, match="the desktop has ended, and the game with it"):
        played(monkeypatch, policy, options, script)
    assert ZarrGameplayDataset(tmp_path / "more.zarr").episodes[0].length == 9
    wait_until(lambda: presses(window.seen())[-1:] == [False])


@pytest.mark.parametrize("key", ["RCTRL", None])
def test_a_person_takes_over_and_only_their_frames_are_labelled(
    monkeypatch, tmp_path, policy, options, window, person, key
):
    """With a key while that is held; without one by pressing what the game uses, and for a while after."""
    window.paint(0xFFFFFF)
    monkeypatch.setattr(play, "_CONTROL_SECONDS", 0.1)
    options = PlayOptions(GAME, options.keybinds, takeover=key, record=tmp_path / "more.zarr", all_inputs=True)
    script = {
        2: lambda: person.tap("F9"),
        8: lambda: person.press("Control_R") if key else None,
        12: lambda: person._fake(X.ButtonPress, 1),
        14: lambda: person._fake(X.ButtonRelease, 1),
        18: lambda: person.release("Control_R") if key else None,
        30: lambda: person.tap("F12"),
    }
    result, said = played(monkeypatch, policy, options, script)
    data = ZarrGameplayDataset(tmp_path / "more.zarr")
    (stretch,) = data.episodes[0].labelled
    go, fire = data.actions(0).T
    assert 3 <= len(stretch) <= 14
    assert sum(result.by_person) == len(stretch) + 1  # in the first the policy's keys were still down
    assert fire[stretch.start : stretch.stop].sum() in ((2, 3) if key else (1, 2))
    assert fire[: stretch.start].any() == (key is None)
    assert not fire[stretch.stop :].any()
    assert not go[stretch.start : stretch.stop].any()
    assert go[: stretch.start - 1].any()
    assert go[stretch.stop + 1 :].all()
    assert f"{len(stretch)} of them by the person" in said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"takeover": "W"}, "--takeover W: name a key that neither the game nor a hotkey uses"),
        ({"hotkeys": ("F9", "F10", "W")}, "the hotkey W is bound in the game"),
        ({"game": GameSpec.parse("window/Nobody")}, "no window is meant by 'Nobody'"),
    ],
)
def test_what_cannot_be_played_is_said_in_one_line(policy, options, window, changes, message):
    with pytest.raises(UserError, match=message):
        play_window(str(policy), PlayOptions(**(vars(options) | changes)), Console(file=StringIO()))


def test_a_button_without_a_key_is_named(tmp_path, policy, options, window):
    binds = BINDS | {"actions": {"go": {"key": "W"}}}
    options.keybinds.write_text(json.dumps(binds))
    with pytest.raises(UserError, match="binds nothing to the policy's button 'fire'"):
        play_window(str(policy), options, Console(file=StringIO()))


def test_a_killed_command_releases_what_it_holds(policy, options, window, person, tmp_path):
    """By SIGTERM; the command is the user's."""
    window.paint(0xFFFFFF)
    command = [sys.executable, "-m", "BC_training", "play", str(policy), "--game", str(GAME)]
    command += ["--keybinds", str(options.keybinds), "--json", str(tmp_path / "p.json")]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
        try:
            assert process.stdout is not None
            assert "lets the policy play" in process.stdout.readline()
            time.sleep(0.3)
            person.tap("F9")
            wait_until(lambda: True in presses(window.seen()), 30)
            process.send_signal(signal.SIGTERM)
            process.wait(20)
        finally:
            process.kill()
    assert presses(window.seen()) == [False]
    assert process.returncode == 128 + signal.SIGTERM
