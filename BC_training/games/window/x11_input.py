"""Keyboard and mouse of X11: what is done with them, and doing it.

Input comes as raw events of XInput 2.1, which is the first that tells of the mouse while a game has grabbed it. Keys
are pressed and the mouse is moved by XTEST. Its relative motion is what a mouse's counts are: an absolute one makes
games whirl round.
"""

import itertools
import os
from collections.abc import Sequence
from typing import Any

from Xlib import X, error
from Xlib.display import Display
from Xlib.ext import composite, ge, xinput, xtest

from BC_training.common.errors import UserError, first_line
from BC_training.common.keybinds.button_names import Button, button_of, shown
from BC_training.games.window.desktop import WHEEL, InputEvent, InputSource
from BC_training.games.window.guard import Guard
from BC_training.games.window.injected import Injected
from BC_training.games.window.x11_keys import (
    MOUSE,
    WHEEL_NUMBERS,
    Device,
    Keyboard,
    RawEvent,
    devices,
    held_buttons,
    held_codes,
    mouse_button,
    parse_raw,
)

_EXTENSIONS = (composite.extname, xinput.extname, xtest.extname, ge.extname)
_RAW_MASK = (
    *(xinput.RawKeyPressMask, xinput.RawKeyReleaseMask, xinput.RawMotionMask),
    *(xinput.RawButtonPressMask, xinput.RawButtonReleaseMask),
)
# Run by the guard: words are the event and the number that release something.
_LET_GO = """
from Xlib import display, error
from Xlib.ext import xtest
try:
    server = display.Display()
except error.DisplayError:
    sys.exit()  # it is gone, and with it all that was held
for word in held:
    xtest.fake_input(server, *map(int, word.split(":")))
server.sync()
"""
_LOCKS = (X.LockMask, X.Mod2Mask)  # CapsLock and usually NumLock
_MODIFIERS = (X.ShiftMask, X.ControlMask, X.Mod1Mask)
_FARTHEST = 32767  # counts of one motion


class X11Input:
    """The part of ``Desktop`` that is about input; see there.

    Args:
        display: such as ":0"; None for the one that DISPLAY names.

    Raises:
        UserError: there is no display, or it lacks what is needed.
    """

    def __init__(self, display: str | None = None):
        try:
            self._display = Display(display)
        except (error.DisplayError, OSError) as fault:
            raise UserError(
                f"there is no X11 display to find windows on ({first_line(fault)}): start this on the game's desktop, "
                "or set DISPLAY"
            ) from fault
        self._display.set_error_handler(error.CatchError())  # windows may be closed at any time
        self._injected = Injected()
        self._guard = Guard(_LET_GO, os.environ | {"DISPLAY": self._display.get_display_name()})
        self._own: dict[Button, tuple[int, int]] = {}  # what is held, and the event and number that release it
        self._down: set[tuple[int, bool, int]] = set()  # what each device holds
        self._places: dict[tuple[int, int], float] = {}  # of devices that do not tell how far they moved
        self._hotkeys: dict[int, Button] = {}
        self._events: list[InputEvent] = []
        try:
            for name in _EXTENSIONS:
                if self._display.query_extension(name) is None:
                    raise UserError(f"the X server has no extension {name}: use one that has, such as Xorg or Xvfb")
            self._root = self._display.screen().root
            opcode = self._display.display.get_extension_major(xinput.extname)
            # python-xlib's own call announces 2.0, to which the server sends nothing while a game has the mouse.
            xinput.XIQueryVersion(display=self._display.display, opcode=opcode, major_version=2, minor_version=2)
            self._root.xinput_select_events([(xinput.AllDevices, sum(_RAW_MASK))])
            self._keyboard, self._devices = Keyboard(self._display), devices(self._display)
        except BaseException:
            self._display.close()
            raise

    def close(self) -> None:
        try:
            self.release_all()
            self._display.sync()
            self._display.close()
        except error.ConnectionClosedError:
            pass
        finally:
            self._guard.close()

    def events(self) -> list[InputEvent]:
        self._display.sync()  # until all has come that the server knows by now
        self._read()
        found, self._events = self._events, []
        return found

    def held(self) -> set[Button]:
        codes, mask = held_codes(self._display.query_keymap()), self._root.query_pointer().mask
        return {self._keyboard.button(code) for code in codes} | {mouse_button(n) for n in held_buttons(mask)}

    def press(self, button: Button) -> None:
        if button in WHEEL:
            self.scroll(*WHEEL[button])
        elif button not in self._own:
            if button[0] == "key":
                pressed, released, number = X.KeyPress, X.KeyRelease, self._keyboard.code(button)
            elif button in MOUSE:
                pressed, released, number = X.ButtonPress, X.ButtonRelease, MOUSE[button]
            else:
                raise UserError(f"there is no {shown(button)} to press: bind a key or another button of the mouse")
            self._own[button] = released, number
            self._tell_guard()
            self._fake(pressed, number)

    def release(self, button: Button) -> None:
        if button in self._own:
            self._fake(*self._own.pop(button))
            self._tell_guard()

    def _tell_guard(self) -> None:
        self._guard.hold(f"{event}:{number}" for event, number in self._own.values())

    def release_all(self) -> None:
        try:
            for button in list(self._own):
                self.release(button)
        except error.ConnectionClosedError:
            pass  # the server is gone, and with it all that was held

    def move(self, x: int, y: int) -> None:
        while x or y:
            step = [max(min(counts, _FARTHEST), -_FARTHEST) for counts in (x, y)]
            self._fake(X.MotionNotify, 1, *step)  # 1: relative
            x, y = x - step[0], y - step[1]

    def scroll(self, x: int, y: int) -> None:
        for button, (right, up) in WHEEL.items():
            for _ in range(max(x * right + y * up, 0)):
                self._fake(X.ButtonPress, WHEEL_NUMBERS[button])
                self._fake(X.ButtonRelease, WHEEL_NUMBERS[button])

    def grab_hotkeys(self, names: Sequence[str]) -> None:
        keys = {name: button_of("key", name) for name in names}
        if bad := [name for name, key in keys.items() if key is None]:
            raise UserError(f"hotkey {bad[0]!r} is no key: write a name such as F9")
        codes = {self._keyboard.code(key): key for key in keys.values() if key is not None}
        for code in self._hotkeys:
            self._root.ungrab_key(code, X.AnyModifier)
        self._hotkeys = codes
        clashes = []
        for code in codes:
            for locks, modifiers in itertools.product(_subsets(_LOCKS), _subsets(_MODIFIERS)):
                clash = error.CatchError(error.BadAccess)
                self._root.grab_key(code, locks | modifiers, False, X.GrabModeAsync, X.GrabModeAsync, onerror=clash)
                if not modifiers:  # window managers use keys together with modifiers
                    clashes.append((code, clash))
        self._display.sync()
        if taken := [code for code, clash in clashes if clash.get_error() is not None]:
            self.grab_hotkeys(())
            raise UserError(
                f"another program has the hotkey {shown(codes[taken[0]])}: choose another, or end that program"
            )

    def _fake(self, event: int, number: int, x: int = 0, y: int = 0) -> None:
        self._injected.add((event, x, y) if event == X.MotionNotify else (event, number))
        xtest.fake_input(self._display, event, number, x=x, y=y)
        self._display.flush()

    def _read(self) -> None:
        """Takes all that came."""
        while self._display.pending_events():
            event = self._display.next_event()
            if event.type == ge.GenericEventCode:
                if raw := parse_raw(event.evtype, event.data):
                    self._take(raw)
            elif event.type == X.MappingNotify:
                self._display.refresh_keyboard_mapping(event)
                self._keyboard = Keyboard(self._display)
            else:
                self._note(event)

    def _note(self, event: Any) -> None:
        """Takes an event that is no input."""

    def _take(self, raw: RawEvent) -> None:
        if raw.source not in self._devices:  # it was plugged in
            self._devices = devices(self._display)
        device = self._devices.get(raw.source, Device(False, False))
        if raw.kind == xinput.RawMotion:
            x, y = (self._moved(raw.source, axis, value, device) for axis, value in enumerate((raw.x, raw.y)))
            if x or y:
                source = self._source(device, (X.MotionNotify, x, y))
                self._events.append(InputEvent(raw.time, "motion", None, x, y, source))
            return
        is_key = raw.kind in (xinput.RawKeyPress, xinput.RawKeyRelease)
        is_press = raw.kind in (xinput.RawKeyPress, xinput.RawButtonPress)
        event = ((X.ButtonRelease, X.ButtonPress), (X.KeyRelease, X.KeyPress))[is_key][is_press]
        source = self._source(device, (event, raw.detail))
        button = self._keyboard.button(raw.detail) if is_key else mouse_button(raw.detail)
        if button in WHEEL:
            if is_press:
                self._events.append(InputEvent(raw.time, "wheel", button, *WHEEL[button], source))
            return
        held = raw.source, is_key, raw.detail
        if is_press and held in self._down:
            return  # a repeat
        (self._down.add if is_press else self._down.discard)(held)
        if is_key and raw.detail in self._hotkeys:
            if is_press:
                self._events.append(InputEvent(raw.time, "hotkey", self._hotkeys[raw.detail], source=source))
        else:
            self._events.append(InputEvent(raw.time, "press" if is_press else "release", button, source=source))

    def _moved(self, source: int, axis: int, value: float | None, device: Device) -> float:
        """How far a device moved on an axis."""
        if value is None or not device.absolute:
            return value or 0.0
        before = self._places.get((source, axis), value)
        self._places[source, axis] = value
        return value - before

    def _source(self, device: Device, what: tuple[float, ...]) -> InputSource:
        if not device.by_program:
            return "device"
        return "own" if self._injected.take(what) else "program"


def _subsets(masks: Sequence[int]) -> list[int]:
    """The sums of none, some or all of the masks."""
    return [sum(some) for some in itertools.product(*((0, mask) for mask in masks))]
