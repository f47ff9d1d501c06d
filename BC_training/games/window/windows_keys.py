"""Windows' numbers of keys and buttons."""

from BC_training.common.errors import UserError
from BC_training.common.keybinds.button_names import Button, also_named, key_name, shown

# The flags of pressing and releasing a button of the mouse, in raw input and in SendInput, and its data there.
MOUSE: dict[Button, tuple[int, int, int, int, int]] = {
    ("mouse", "LEFT"): (0x001, 0x002, 0x0002, 0x0004, 0),
    ("mouse", "RIGHT"): (0x004, 0x008, 0x0008, 0x0010, 0),
    ("mouse", "MIDDLE"): (0x010, 0x020, 0x0020, 0x0040, 0),
    ("mouse", "X1"): (0x040, 0x080, 0x0080, 0x0100, 1),
    ("mouse", "X2"): (0x100, 0x200, 0x0080, 0x0100, 2),
}
MOUSE_KEYS: dict[int, Button] = {  # the mouse's buttons are virtual keys, too
    **{1: ("mouse", "LEFT"), 2: ("mouse", "RIGHT"), 4: ("mouse", "MIDDLE")},
    **{5: ("mouse", "X1"), 6: ("mouse", "X2")},
}
_SHIFT, _CTRL, _ALT, _ENTER, _NO_KEY = 16, 17, 18, 13, 255
_SIDED = {_SHIFT: "SHIFT", _CTRL: "CTRL", _ALT: "ALT"}
_RIGHT_SHIFT = 0x36  # its scan code; other right keys have E0
# What the keypad's keys are without NumLock, when they have no E0 as the keys of these names do.
_KEYPAD = dict(zip((45, 35, 40, 34, 37, 12, 39, 36, 38, 33, 46), "0123456789.", strict=True))
_KEYS = {name: number for number in range(1, _NO_KEY) if (name := key_name(f"<{number}>")) is not None}
_EXTENDED = frozenset(  # keys whose scan code follows E0
    (
        *("RCTRL", "RALT", "LMETA", "RMETA", "MENU", "INSERT", "DELETE", "HOME", "END", "PAGEUP", "PAGEDOWN"),
        *("LEFT", "RIGHT", "UP", "DOWN", "NUMLOCK", "PRINTSCREEN", "NUMPAD/", "NUMPADENTER"),
    )
)


def named(number: int) -> Button:
    """The key with this virtual key code."""
    return "key", key_name(f"<{number}>") or f"VK{number}"


def raw_key(number: int, scan: int, extended: bool) -> Button | None:
    """The key of a raw event: its virtual key code, scan code, and whether E0 stood before that."""
    if number == _NO_KEY:
        return None  # a part of the sequence of another key
    if number in _SIDED:
        is_right = scan == _RIGHT_SHIFT if number == _SHIFT else extended
        return "key", ("R" if is_right else "L") + _SIDED[number]
    if number == _ENTER and extended:
        return "key", "NUMPADENTER"
    if number in _KEYPAD and not extended:
        return "key", f"NUMPAD{_KEYPAD[number]}"
    return named(number)


def key_number(button: Button) -> tuple[int, bool]:
    """The virtual key code of a key and whether E0 stands before its scan code; a UserError where there is none."""
    for _, name in (button, *also_named(button)):
        if name == "NUMPADENTER":
            return _ENTER, True
        if name in _KEYS:
            return _KEYS[name], name in _EXTENDED
    raise UserError(f"this keyboard has no key {shown(button)}: bind another one")
