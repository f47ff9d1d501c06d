"""X11's numbers of keys and buttons, and what its raw events say."""

import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from Xlib import XK, X
from Xlib.display import Display
from Xlib.ext import xinput

from BC_training.common.errors import UserError
from BC_training.common.keybinds.button_names import Button, also_named, button_of, key_name, shown
from BC_training.games.window.desktop import WHEEL

MOUSE = {("mouse", "LEFT"): 1, ("mouse", "MIDDLE"): 2, ("mouse", "RIGHT"): 3, ("mouse", "X1"): 8, ("mouse", "X2"): 9}
WHEEL_NUMBERS = dict(zip(WHEEL, (4, 5, 6, 7), strict=True))
_MOUSE_BUTTONS = {number: button for button, number in (MOUSE | WHEEL_NUMBERS).items()}
# No keyboard has these keys; XKB keeps them for modifiers, whose names they share with the real ones.
_VIRTUAL_CODES = frozenset((92, 203, 204, 205, 206, 207))
_RAW = struct.Struct("<HIIHHI4x")  # device, time, key or button, source, words of the mask, flags
_WRAP = 2**32  # the server's milliseconds


def mouse_button(number: int) -> Button:
    """The button with this number; the wheel has numbers, too."""
    return _MOUSE_BUTTONS.get(number, ("mouse", f"BUTTON{number}"))


class Keyboard:
    """The keys by their codes, named by the first level of the layout."""

    def __init__(self, display: Display):
        first, last = display.display.info.min_keycode, display.display.info.max_keycode
        symbols = display.get_keyboard_mapping(first, last - first + 1)
        self._buttons = {code: _button(row[0]) for code, row in enumerate(symbols, first) if row and row[0]}
        self._codes: dict[Button, int] = {}
        for code in sorted(self._buttons, key=lambda code: (code in _VIRTUAL_CODES, code)):
            self._codes.setdefault(self._buttons[code], code)

    def button(self, code: int) -> Button:
        return self._buttons.get(code, ("key", f"CODE{code}"))

    def code(self, button: Button) -> int:
        """The code of a key; raises a UserError where the keyboard has none of this name."""
        for name in (button, *also_named(button)):
            if name in self._codes:
                return self._codes[name]
        raise UserError(f"this keyboard has no key {shown(button)}: bind another one")


@cache
def _names() -> dict[int, str]:
    """X11's names of keys by their numbers; of several the one that keybinds know."""
    for group in ("xkb", "xf86"):
        XK.load_keysym_group(group)
    named = [(name[3:], number) for name, number in vars(XK).items() if name.startswith("XK_")]
    named.sort(key=lambda pair: key_name(pair[0]) is None)
    names: dict[int, str] = {}
    for name, number in named:
        names.setdefault(number, name)
    return names


@cache
def _button(symbol: int) -> Button:
    """The key with this symbol: a character of Latin 1 or Unicode, or one that has a name."""
    if 0x20 <= symbol <= 0xFF:
        text = chr(symbol)
    elif symbol >> 24 == 1:
        text = chr(symbol & 0xFFFFFF)
    else:
        text = _names().get(symbol, f"SYMBOL{symbol:X}")
    return button_of("key", text) or ("key", text.upper())


@dataclass(frozen=True)
class Device:
    """A keyboard or a mouse as the server knows it."""

    by_program: bool  # XTEST, by which programs press keys
    absolute: bool  # it tells where the pointer is, not how far it moved, as tablets and virtual machines do


def devices(display: Display) -> dict[int, Device]:
    """All devices by their numbers."""
    found = {}
    for device in display.xinput_query_device(xinput.AllDevices).devices:
        moved = (c for c in device.classes if c.type == xinput.ValuatorClass and c.number == 0)
        absolute = any(c.mode == xinput.ModeAbsolute for c in moved)
        found[device.deviceid] = Device("XTEST" in str(device.name), absolute)
    return found


@dataclass(frozen=True)
class RawEvent:
    """A raw event of XInput 2.

    Attributes:
        kind: one of ``xinput.Raw...``.
        time: in seconds of ``time.perf_counter()``.
        detail: the code of the key or the number of the button.
        source: the number of the device.
        x, y: how far the mouse moved, or where it is; None where it did not move so.
    """

    kind: int
    time: float
    detail: int
    source: int
    x: float | None
    y: float | None


def parse_raw(kind: int, data: bytes) -> RawEvent | None:
    """Reads what follows an event's type; None for the copy that the server sends in the name of all devices."""
    device, stamp, detail, source, words, _ = _RAW.unpack_from(data)
    if device != source:
        return None
    mask = int.from_bytes(data[_RAW.size : _RAW.size + 4 * words], "little")
    # First come the accelerated values, then those of the device, which games read and which are injected.
    raw = _RAW.size + 4 * words + 8 * mask.bit_count()
    moved: list[float | None] = [None, None]
    for axis in (0, 1):
        if mask >> axis & 1:
            whole, part = struct.unpack_from("<iI", data, raw + 8 * (mask & ((1 << axis) - 1)).bit_count())
            moved[axis] = whole + part / 2**32
    return RawEvent(kind, seconds(stamp), detail, source, *moved)


def seconds(stamp: int) -> float:
    """The server's milliseconds, which begin anew after 49 days, in seconds of ``time.perf_counter()``.

    Both are the system's monotonic clock. The server may have rounded up.
    """
    now = time.perf_counter()
    milliseconds = now * 1000
    return min((stamp + _WRAP * round((milliseconds - stamp) / _WRAP)) / 1000, now)


def held_codes(bits: Sequence[int]) -> list[int]:
    """The codes of the keys that are down, of the answer to QueryKeymap."""
    return [code for code in range(8, 256) if bits[code // 8] >> code % 8 & 1]


def held_buttons(mask: int) -> list[int]:
    """The numbers of the mouse's buttons that are down, of a state mask, which knows the first five."""
    return [number for number in (1, 2, 3) if mask & (X.Button1Mask << number - 1)]
