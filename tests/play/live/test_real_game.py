"""The whole loop in a real game: a person is recorded in its window, a policy is trained, and plays there."""

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import trainings
from live_recording import ScriptedDesktop, record
from rich.console import Console
from toy_windows import openbox, wait_until

from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.errors import UserError
from BC_training.games import GameSpec
from BC_training.games.window.desktop import WindowQuery
from BC_training.games.window.platform import open_desktop
from BC_training.play.live import play
from BC_training.play.live.options import PlayOptions
from BC_training.play.live.play import play_window

DOOM, WAD = shutil.which("dsda-doom", path="/usr/games"), Path("/usr/share/games/doom/freedoom1.wad")
COMMAND = (
    *("-iwad", str(WAD), "-vidmode", "software", "-window", "-geometry", "320x240", "-nosound", "-nomusic", "-nojoy"),
    *("-warp", "1", "1", "-skill", "1", "-nomonsters"),
)
GAME = GameSpec.parse("window/doom?fps=20")
BINDS = {
    "version": "2.0",
    "actions": {"forward": {"key": "W"}, "fire": {"mouse": "LEFT"}},
    "axes": {"turn": {"mouse": "X", "counts": 20}},
}

pytestmark = pytest.mark.skipif(
    DOOM is None or not WAD.exists(), reason="dsda-doom and freedoom are not installed (apt install dsda-doom freedoom)"
)


@pytest.fixture
def doom(display, tmp_path) -> Iterator[None]:
    environment = os.environ | {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path), "SDL_AUDIODRIVER": "dummy"}
    with openbox(tmp_path):
        process = subprocess.Popen(
            [str(DOOM), *COMMAND], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
        )
        try:
            with contextlib.closing(open_desktop()) as desktop:
                seen = [np.zeros(0)]

                def is_there() -> bool:  # the level, no longer wiped in; the game opens its window twice
                    time.sleep(0.15)
                    try:
                        window = desktop.find(WindowQuery(title="doom")).id
                        seen.append(np.array(desktop.grab(window)))
                    except UserError:
                        return False
                    if len(seen) < 8 or seen[-1].shape != seen[-2].shape:
                        return False
                    bar = seen[-1][len(seen[-1]) * 9 // 10 :]
                    moved = np.abs(seen[-1].astype(float) - seen[-2]).mean()  # lights and the face always do
                    return desktop.has_focus(window) and bar.std() > 20 and moved < 1

                wait_until(is_there, seconds=60)
            yield
        finally:
            process.kill()  # it asks whether to quit
            process.wait()


def changes(data: ZarrGameplayDataset, episode: int) -> np.ndarray:
    """How much each frame differs from the one before, float64 [N - 1]; in motion hardly any two are alike."""
    frames = data.frames(episode, range(data.episodes[episode].length)).astype(float)
    return np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))


def test_a_policy_plays_a_real_game_in_the_window_that_it_was_recorded_in(tmp_path, monkeypatch, doom, person):
    """The person turns to the right and walks; a policy of it turns and walks as well."""
    keybinds, mine, played = tmp_path / "keybinds.json", tmp_path / "mine.zarr", tmp_path / "played.zarr"
    keybinds.write_text(json.dumps(BINDS))
    presses = {
        2: lambda: person.tap("F9"),
        6: lambda: person.press("w"),
        16: lambda: person.button(1, True),
        20: lambda: person.button(1, False),
        36: lambda: person.tap("F9"),  # two episodes, of which the second begins with the key down
        38: lambda: person.tap("F9"),
        70: lambda: (person.release("w"), person.tap("F12")),
    }

    def look(number: int) -> None:
        if number >= 6:
            person.move(60, 0)
        presses.get(number, lambda: None)()

    script = {number: lambda number=number: look(number) for number in range(71)}
    record(monkeypatch, mine, script, keybinds, game=GAME, size=(24, 32), lossless=True)
    data = ZarrGameplayDataset(mine)
    forward, fire = data.actions(0).T
    walking = np.flatnonzero(forward)
    assert walking.tolist() == list(range(3, len(forward)))
    assert np.flatnonzero(fire).tolist() == [13, 14, 15, 16, 17]
    assert (data.axes(0)[3:, 0] == 3).all()
    assert changes(data, 0)[:2].min() < 0.5  # lights flicker now and then
    assert np.median(changes(data, 0)[5:]) > 0.5

    changed = ["training.num_epochs=12", "training.learning_rate=0.02", "evaluation.every_n_epochs=12"]
    trainings.run(tmp_path, mine, *changed, "logging.report=false")
    monkeypatch.setattr(play, "open_desktop", ScriptedDesktop)
    ScriptedDesktop.script = {2: lambda: person.tap("F9"), 36: lambda: person.tap("F12")}
    options = PlayOptions(GAME, keybinds, record=played)
    result = play_window(str(tmp_path / "c/pure_cnn"), options, Console(file=StringIO()))
    data = ZarrGameplayDataset(played)
    assert result.frames >= 30
    assert not any(result.by_person)
    assert data.actions(0)[3:, 0].all()
    assert (data.axes(0)[3:, 0] > 1).all()
    assert np.median(changes(data, 0)[5:]) > 0.5
