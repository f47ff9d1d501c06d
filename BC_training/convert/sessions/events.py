"""Events of inputs.csv: which of them press or release a button, and which button that is."""

import re

from BC_training.common.errors import UserError
from BC_training.convert.sessions.button_names import Button, button_of

EVENTS = ("KEY_DOWN", "KEY_UP", "MOUSE_DOWN", "MOUSE_UP")
_BUTTON_EVENT = re.compile(
    r"(?:WM|EV|ON)?(?:SYS)?(?P<device>KEYBOARD|KEY|MOUSEBUTTON|MOUSE|BUTTON|POINTER)?"
    r"(?:(?P<down>DOWN|PRESS|PRESSED|REPEAT|REPEATED|HOLD)|UP|RELEASE|RELEASED)"
)  # a repeat is one more press of what is held
_NO_BUTTON = re.compile(
    r"MOVE|MOTION|DRAG|HOVER|POSITION|DELTA|WHEEL|SCROLL|FOCUS|BLUR|ENTER|LEAVE|RESIZE|WINDOW|EV(?:REL|ABS|MSC|SYN)"
)


def is_no_button(event: str) -> bool:
    """Whether an event is of the mouse's movement, its wheel or the window."""
    return _NO_BUTTON.search(_letters(event)) is not None


def read_event(where: str, event: str, text: str) -> tuple[Button, bool]:
    """The button that an event is of, and whether it goes down.

    Args:
        where: the file and the line, for errors.
        event: the type; KEY_DOWN and other spellings of it, such as keydown or "press".
        text: the name of the button.

    Raises:
        UserError: another type, or no button is named.
    """
    kind = _BUTTON_EVENT.fullmatch(_letters(event))
    if kind is None:
        raise UserError(
            f"{where}: event_type {event!r} is none of {', '.join(EVENTS)}; write one of these, or remove these rows"
        )
    device = kind["device"] and ("key" if kind["device"].startswith("KEY") else "mouse")
    button = button_of(device, text)
    if button is None and text.strip():
        raise UserError(
            f"{where}: {text!r} may be a key or a button of the mouse: write KEY_... or MOUSE_... as event_type"
        )
    if button is None:
        raise UserError(f"{where}: key_or_button is empty; name the key (such as SPACE or COMMA) or remove the line")
    return button, kind["down"] is not None


def _letters(event: str) -> str:
    return re.sub(r"[^A-Z]", "", event.upper())
