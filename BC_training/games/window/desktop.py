"""What a desktop can do for a game that plays in one of its windows: one interface, a module for each platform.

Times are seconds of ``time.perf_counter()``, which never goes back. Keys and buttons have the names of keybinds files
(``common/keybinds/button_names.py``), ``("key", "W")`` or ``("mouse", "LEFT")``; a notch of the wheel is one of
``WHEEL``.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from jaxtyping import UInt8

from BC_training.common.errors import UserError
from BC_training.common.keybinds.button_names import Button

# The wheel as buttons of the mouse, and the notches to the right and up of each.
WHEEL: dict[Button, tuple[int, int]] = {
    ("mouse", "WHEELUP"): (0, 1),
    ("mouse", "WHEELDOWN"): (0, -1),
    ("mouse", "WHEELLEFT"): (-1, 0),
    ("mouse", "WHEELRIGHT"): (1, 0),
}

# "hidden" is a window that is minimised, or that nobody can see for another reason than what covers it.
WindowState = Literal["shown", "hidden", "closed"]
# Who pressed: a person at a device, another program, or this ``Desktop`` itself.
InputSource = Literal["device", "program", "own"]


class NotShown(UserError):
    """A window has no picture now, since it is hidden or closed."""

    def __init__(self, message: str, state: WindowState):
        super().__init__(message)
        self.state: WindowState = state


@dataclass(frozen=True)
class WindowQuery:
    """Which window is meant: by a part of its title, by its number, or by the process that opened it.

    A title that is equal wins over titles that contain it. Upper and lower case are the same.
    """

    title: str = ""
    window: int | None = None
    pid: int | None = None

    @classmethod
    def parse(cls, text: str) -> "WindowQuery":
        """Reads ``TITLE``, ``id:0x3a00007`` or ``pid:4242``; raises a UserError if it is none of these."""
        kind, _, number = text.partition(":")
        if kind in ("id", "pid"):
            if not re.fullmatch(r"0[xX][0-9a-fA-F]{1,16}|\d{1,19}", number):
                raise UserError(f"window {text!r}: {kind}: takes a number, such as id:0x3a00007 or pid:4242")
            value = int(number, 0 if number[:2].lower() == "0x" else 10)
            return cls(window=value) if kind == "id" else cls(pid=value)
        if not text.strip():
            raise UserError("a window needs a name: write a part of its title, id:0x3a00007 or pid:4242")
        return cls(title=text)

    def __str__(self) -> str:
        if self.window is not None:
            return f"id:{self.window:#x}"
        return self.title if self.pid is None else f"pid:{self.pid}"


@dataclass(frozen=True)
class WindowInfo:
    """A window of the desktop."""

    id: int
    title: str
    pid: int | None  # None where the desktop does not know

    def __str__(self) -> str:
        return f"'{self.title}' (id:{self.id:#x}" + (f", pid:{self.pid})" if self.pid else ")")


@dataclass(frozen=True)
class Region:
    """A part of a window, in pixels from the upper left corner of what the program draws."""

    x: int
    y: int
    width: int
    height: int

    @classmethod
    def parse(cls, text: str) -> "Region":
        """Reads ``x,y,width,height``; raises a UserError if it is not four numbers."""
        if not re.fullmatch(r"\d{1,5},\d{1,5},[1-9]\d{0,4},[1-9]\d{0,4}", text):
            raise UserError(f"region {text!r} is none: write x,y,width,height in pixels, such as 0,40,640,480")
        return cls(*map(int, text.split(",")))

    def __str__(self) -> str:
        return f"{self.x},{self.y},{self.width},{self.height}"


@dataclass(frozen=True)
class Geometry:
    """Where a window's client area is, which is what the program draws, without the frame that the desktop adds.

    Attributes:
        x, y: of its upper left corner on the desktop, in pixels; may be negative.
        width, height: in pixels; 0 where the window is closed.
    """

    x: int
    y: int
    width: int
    height: int
    state: WindowState


@dataclass(frozen=True)
class InputEvent:
    """What a keyboard or a mouse did, whichever window has the focus.

    Attributes:
        time: when it happened, in seconds of ``time.perf_counter()``.
        kind: "press" and "release" of ``button``, without the repeats of a key that is held; "motion" of the mouse by
            ``x`` and ``y``; "wheel" by ``x`` and ``y`` notches, whose ``button`` is one of ``WHEEL``; "hotkey", a press
            of one of the grabbed hotkeys, which is reported in no other way.
        button: None for "motion".
        x, y: counts of the mouse to the right and down; or notches of the wheel to the right and up.
        source: see ``InputSource``. A press by a program is "own" where this ``Desktop`` injected the same shortly
            before.
    """

    time: float
    kind: Literal["press", "release", "motion", "wheel", "hotkey"]
    button: Button | None
    x: float = 0.0
    y: float = 0.0
    source: InputSource = "device"


class Desktop(Protocol):
    """A desktop with windows, keyboard and mouse. It belongs to one thread.

    Whoever opens one closes it: what it holds down is then released, its hotkeys are free, and games draw as before.
    """

    def windows(self) -> list[WindowInfo]:
        """All windows that have a title."""
        ...

    def find(self, what: WindowQuery) -> WindowInfo:
        """The window that is meant; raises a UserError that lists what there is where it is none or several."""
        ...

    def geometry(self, window: int) -> Geometry:
        """Where a window is now."""
        ...

    def grab(self, window: int, region: Region | None = None) -> UInt8[np.ndarray, "h w 3"]:
        """What a window shows now, RGB, also where others cover it or the desktop ends.

        The array is the caller's; it may be a view with any strides.

        Raises:
            NotShown: the window is hidden or closed.
            UserError: the region is not within the window.
        """
        ...

    def has_focus(self, window: int) -> bool:
        """Whether keys that are pressed now reach the window."""
        ...

    def has_pointer(self, window: int) -> bool:
        """Whether a click reaches the window now: the pointer is over it, and nothing covers it there."""
        ...

    def events(self) -> list[InputEvent]:
        """What happened since the last call, or since this desktop was opened, in order."""
        ...

    def held(self) -> set[Button]:
        """The keys and buttons that are down now, whoever pressed them."""
        ...

    def press(self, button: Button) -> None:
        """Presses a key or a button of the mouse, or turns the wheel by a notch; nothing where this holds it already.

        Raises:
            UserError: the keyboard or the mouse has none of this name.
        """
        ...

    def release(self, button: Button) -> None:
        """Releases what ``press`` pressed; nothing where it did not."""
        ...

    def move(self, x: int, y: int) -> None:
        """Moves the mouse by so many counts to the right and down."""
        ...

    def scroll(self, x: int, y: int) -> None:
        """Turns the wheel by so many notches to the right and up."""
        ...

    def release_all(self) -> None:
        """Releases all that ``press`` holds."""
        ...

    def grab_hotkeys(self, names: Sequence[str]) -> None:
        """From now on the keys of these names, such as "F9", are hotkeys: no window sees them.

        They count with Shift, Ctrl, Alt and the locks as well. Hotkeys of an earlier call are free again.

        Raises:
            UserError: no such key, or another program has it already; then none of them is grabbed.
        """
        ...

    def close(self) -> None:
        """Releases and frees all; a second call does nothing."""
        ...


def choose(windows: Sequence[WindowInfo], what: WindowQuery) -> WindowInfo:
    """The one of ``windows`` that is meant; raises a UserError that lists them where it is none or several."""
    if what.window is not None:
        found = [window for window in windows if window.id == what.window]
    elif what.pid is not None:
        found = [window for window in windows if window.pid == what.pid]
    else:
        wanted = what.title.casefold()
        found = [window for window in windows if window.title.casefold() == wanted]
        found = found or [window for window in windows if wanted in window.title.casefold()]
    if len(found) == 1:
        return found[0]
    listed = ", ".join(map(str, found or windows)) or "none at all"
    if found:
        raise UserError(f"{len(found)} windows are meant by '{what}': {listed}; name one of them by its id")
    raise UserError(f"no window is meant by '{what}'; there are: {listed}; start the game first, in a window")
