"""A person who is recorded in a window: what they do is done between two frames, however busy the machine is."""

import io
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from BC_training.games import GameSpec
from BC_training.games.window.desktop import InputEvent
from BC_training.games.window.x11 import X11Desktop
from BC_training.play.live import recorder
from BC_training.play.live.options import LiveOptions

TITLE = "A game"
SIZE = 24, 36


class ScriptedDesktop(X11Desktop):
    """Plays ``script[n]`` in the recorder's n-th look, so that it falls between the frames n - 2 and n - 1.

    The first look is number 0.
    """

    script: dict[int, Callable[[], object]]
    latest: "ScriptedDesktop"

    def __init__(self) -> None:
        super().__init__()
        ScriptedDesktop.latest = self
        self._looks = 0

    def events(self) -> list[InputEvent]:
        self.script.get(self._looks, lambda: None)()
        assert self._looks < max(self.script) + 100, "nothing ended the recording"
        self._looks += 1
        return super().events()

    @classmethod
    def lose(cls) -> None:
        """As where the X server ends."""
        cls.latest._display.display.socket.shutdown(socket.SHUT_RDWR)


def record(
    monkeypatch: pytest.MonkeyPatch, out: Path, script: dict[int, Callable[[], object]], keybinds: Path, **options
) -> list[str]:
    """Records with all inputs, as a test has no device, until the script presses F12; returns what was said."""
    monkeypatch.setattr(recorder, "open_desktop", ScriptedDesktop)
    ScriptedDesktop.script = script
    said = io.StringIO()
    given = LiveOptions(GameSpec.parse(f"window/{TITLE}?fps=50"), SIZE, keybinds, all_inputs=True)
    recorder.record_window(out, replace(given, **options), Console(file=said, width=1000))
    return said.getvalue().splitlines()
