"""What is seen and done in a window: only what is meant for it counts."""

import time
from collections.abc import Sequence
from typing import Any

from BC_training.common.keybinds.button_names import Button
from BC_training.games.window.desktop import WHEEL, Desktop, InputEvent, Region
from BC_training.play.live.events import Event
from BC_training.play.live.state import GameState


class Watch:
    """What is seen and done in a window.

    Attributes:
        focused: whether the window had the focus at the last look.
        happened: what the desktop told at the last look, whatever it was meant for.
        down: the keys and buttons that are noted as held.
        state: of the game.
        ignored: how many presses and motions of programs were left out.
    """

    def __init__(self, desktop: Desktop, window: int, region: Region | None, fps: float, pads: Any, state: GameState):
        self.state = state
        self.desktop, self.window, self.region, self.fps, self._pads = desktop, window, region, fps, pads
        self.focused, self.ignored = False, 0
        self.happened: list[InputEvent] = []
        self.down: set[Button] = set()
        self._looked = time.perf_counter()

    def look(self, all_inputs: bool, hotkeys: Sequence[Button]) -> tuple[list[Event], list[Button]]:
        """What happened since the last look, and the hotkeys that were pressed.

        Nothing counts where the window had not the focus both at the last look and now: it may be meant for another.
        The game's state counts always.
        """
        now = time.perf_counter()
        self.happened, pad = self.desktop.events(), self._pads.events()
        happened = self.happened
        had, self.focused = self.focused, self.desktop.has_focus(self.window)
        rows: list[Event] = []
        if had and self.focused:
            rows = [*self._noted(happened, all_inputs), *pad]
        elif had:
            rows = [Event(self._looked, "unfocus")]
        elif self.focused:
            rows = self.begin(now, hotkeys)
        self._looked = now
        for row in rows:
            self._hold(row)
        rows += self.state.receive()
        return rows, [event.button for event in happened if event.kind == "hotkey" and event.button is not None]

    def begin(self, now: float, hotkeys: Sequence[Button]) -> list[Event]:
        """The rows with which an episode begins, and what follows a time without focus."""
        known = self.state.rows
        if not self.focused:
            return [*known, Event(now, "unfocus")]
        held = self.desktop.held() - WHEEL.keys() - set(hotkeys)
        return [*known, Event(now, "focus"), *(Event(now, "press", *button, source="held") for button in sorted(held))]

    def _noted(self, happened: Sequence[InputEvent], all_inputs: bool) -> list[Event]:
        """The events that count."""
        rows, clicks = [], [e for e in happened if e.kind in ("press", "wheel") and e.button and e.button[0] == "mouse"]
        elsewhere = bool(clicks) and not self.desktop.has_pointer(self.window)  # such as into the frame
        for event in happened:
            button = event.button or ("", "")
            is_program = event.source != "device"
            if event.kind == "hotkey" or (elsewhere and event in clicks):
                continue
            if is_program and not all_inputs and not (event.kind == "release" and button in self.down):
                self.ignored += event.kind != "release"
                continue
            rows.append(Event(event.time, event.kind, *button, event.x, event.y, "program" if is_program else "device"))
        return rows

    def _hold(self, row: Event) -> None:
        if row.kind == "press":
            self.down.add((row.device, row.name))
        elif row.kind == "release":
            self.down.discard((row.device, row.name))
        elif row.kind in ("focus", "unfocus"):
            self.down.clear()
