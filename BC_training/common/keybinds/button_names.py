"""Gives each button one name, whatever a recorder calls it.

Recorders name buttons in the spelling of the library they use: pynput (``'w'``, ``Key.shift_l``,
``<65>``, ``Button.left``), Windows (``VK_SPACE``, ``VK_LBUTTON``), browsers (``KeyW``, ``Digit1``,
``ArrowLeft``), Linux's evdev (``KEY_W``, ``BTN_LEFT``) and X11 (``Shift_L``, ``period``). All of them
become the name that is printed on a US keyboard: W, 1, SPACE, LSHIFT, a full stop.
"""

import re

Button = tuple[str, str]  # device "key", "mouse" or "pad", name in upper case

_SHIFTED = dict(zip('!@#$%^&*()_+{}|:"<>?~', "1234567890-=[]\\;',./`", strict=True))  # on a US keyboard
_SHIFT_OF = {base: shifted for shifted, base in _SHIFTED.items()}
_NAMES_OF_SHIFTED = (  # X11's, in the same order
    "EXCLAM AT NUMBERSIGN DOLLAR PERCENT ASCIICIRCUM AMPERSAND ASTERISK PARENLEFT PARENRIGHT UNDERSCORE PLUS BRACELEFT "
    "BRACERIGHT BAR COLON QUOTEDBL LESS GREATER QUESTION ASCIITILDE"
)

# Each name's other spellings, in upper case without white space, and without "_" and "-" between letters.
_KEYS = {
    "SPACE": "SPACEBAR SPC",
    "ENTER": "RETURN",
    "ESC": "ESCAPE",
    "BACKSPACE": "BKSP",
    "TAB": "ISOLEFTTAB BACKTAB",
    "CAPSLOCK": "CAPITAL CAPS",
    "NUMLOCK": "",
    "SCROLLLOCK": "",
    "PAGEUP": "PRIOR PGUP",
    "PAGEDOWN": "NEXT PGDN PGDOWN",
    "HOME": "",
    "END": "",
    "INSERT": "INS",
    "DELETE": "DEL",
    "PRINTSCREEN": "SNAPSHOT PRINT SYSRQ PRTSC PRTSCN PRTSCR",
    "PAUSE": "BREAK",
    "MENU": "APPS CONTEXTMENU COMPOSE",
    "LALT": "LMENU",
    "RALT": "RMENU ALTGR ALTGRAPH ISOLEVEL3SHIFT",
    "NUMPAD+": "ADD",
    "NUMPAD-": "SUBTRACT",
    "NUMPAD*": "MULTIPLY",
    "NUMPAD/": "DIVIDE",
    "NUMPAD.": "DECIMAL",
    "LEFT": "ARROWLEFT LEFTARROW",
    "RIGHT": "ARROWRIGHT RIGHTARROW",
    "UP": "ARROWUP UPARROW",
    "DOWN": "ARROWDOWN DOWNARROW",
    "INTLBACKSLASH": "OEM102 102ND",
    "`": "GRAVE BACKQUOTE BACKTICK QUOTELEFT OEM3 OEMTILDE",
    "-": "MINUS HYPHEN OEMMINUS",
    "=": "EQUAL EQUALS OEMPLUS",
    "[": "BRACKETLEFT LEFTBRACKET LBRACKET LEFTBRACE OEM4 OEMOPENBRACKETS",
    "]": "BRACKETRIGHT RIGHTBRACKET RBRACKET RIGHTBRACE OEM6 OEMCLOSEBRACKETS",
    "\\": "BACKSLASH OEM5 OEMPIPE",
    ";": "SEMICOLON OEM1 OEMSEMICOLON",
    "'": "APOSTROPHE QUOTE QUOTERIGHT OEM7 OEMQUOTES",
    ",": "COMMA OEMCOMMA",
    ".": "PERIOD DOT FULLSTOP OEMPERIOD",
    "/": "SLASH FORWARDSLASH OEM2 OEMQUESTION",
}
_KEYS |= dict(zip(_SHIFTED, _NAMES_OF_SHIFTED.split(), strict=True))
_KEY = {spelling: name for name, others in _KEYS.items() for spelling in (name, *others.split())}
_WINDOWS_ONLY = {"MENU": "ALT", "BACK": "BACKSPACE", "SCROLL": "SCROLLLOCK"}

_MODIFIERS = {
    "SHIFT": "SHIFT",
    "CTRL": "CTRL CONTROL CTL",
    "ALT": "ALT OPTION",
    "META": "META SUPER WIN WINDOWS CMD COMMAND GUI OS",
}
MODIFIERS: tuple[Button, ...] = tuple(("key", name) for name in _MODIFIERS)
_MODIFIER = {spelling: name for name, others in _MODIFIERS.items() for spelling in others.split()}
_SIDED = re.compile(rf"(LEFT|L|RIGHT|R)?({'|'.join(_MODIFIER)})(?:KEY)?(LEFT|L|RIGHT|R)?")

_ON_NUMPAD = re.compile(r"(?:NUMPAD|KEYPAD|NUM|KP)(.+)")
_NUMPAD = {
    "+": "ADD PLUS",
    "-": "SUBTRACT MINUS",
    "*": "MULTIPLY ASTERISK STAR",
    "/": "DIVIDE SLASH",
    ".": "DECIMAL DOT PERIOD DELETE DEL COMMA",
    "=": "EQUAL EQUALS",
    "ENTER": "RETURN",
    **dict(zip("012345678", ["INSERT", "END", "DOWN", "NEXT", "LEFT", "BEGIN", "RIGHT", "HOME", "UP"], strict=True)),
    "3": "NEXT PAGEDOWN",
    "9": "PRIOR PAGEUP",
}
_NUMPAD_KEY = {spelling: name for name, others in _NUMPAD.items() for spelling in (name, *others.split())}

# Windows' virtual key codes and X keysyms, whose numbers pynput writes for keys without a character.
_NUMBERED = {
    **{8: "BACKSPACE", 9: "TAB", 13: "ENTER", 16: "SHIFT", 17: "CTRL", 18: "ALT", 19: "PAUSE", 20: "CAPSLOCK"},
    **dict(enumerate(["SPACE", "PAGEUP", "PAGEDOWN", "END", "HOME", "LEFT", "UP", "RIGHT", "DOWN"], 32)),
    **{27: "ESC", 44: "PRINTSCREEN", 45: "INSERT", 46: "DELETE", 91: "LMETA", 92: "RMETA", 93: "MENU"},
    **{code: chr(code) for code in (*range(48, 58), *range(65, 91))},
    **dict(enumerate((f"NUMPAD{i}" for i in "0123456789*+"), 96)),
    **{109: "NUMPAD-", 110: "NUMPAD.", 111: "NUMPAD/", 144: "NUMLOCK", 145: "SCROLLLOCK", 226: "INTLBACKSLASH"},
    **{111 + i: f"F{i}" for i in range(1, 25)},
    **dict(enumerate(["LSHIFT", "RSHIFT", "LCTRL", "RCTRL", "LALT", "RALT"], 160)),
    **dict(enumerate(";=,-./`", 186)),
    **dict(enumerate("[\\]'", 219)),
    **{65456 + i: f"NUMPAD{i}" for i in range(10)},
    **{65437: "NUMPAD5", 65027: "RALT"},
}

_MOUSE = {
    "LEFT": "LEFT L 1 PRIMARY",
    "RIGHT": "RIGHT R SECONDARY",
    "MIDDLE": "MIDDLE M CENTER",
    "X1": "X1 SIDE BACK 8",  # X11 calls the side buttons 8 and 9
    "X2": "X2 EXTRA FORWARD 9",
}
MOUSE_BUTTONS = tuple(_MOUSE)
WHEEL_BUTTONS = ("WHEELUP", "WHEELDOWN", "WHEELLEFT", "WHEELRIGHT")  # a notch of it is a press
_MOUSE_BUTTON = {spelling: name for name, others in _MOUSE.items() for spelling in others.split()}
# MOUSE2 is the right button in games, BUTTON2 the middle one in X11: the BUTTON names stay as they are.
_WHOLE_MOUSE = {"MOUSE2": "RIGHT", "MOUSE3": "MIDDLE", "MOUSE4": "X1", "MOUSE5": "X2", "BTNMOUSE": "LEFT"}
_SURELY_MOUSE = re.compile(r"[LRM]MB|BTN.*|.*MOUSE.*|(?:[LRM]|LEFT|RIGHT|MIDDLE)BUTTON|XBUTTON[12]")

_LIBRARY = re.compile(r"(?:[A-Z]+\.)*(KEYS?|BUTTON|MOUSEBUTTON|KEYCODE)\.(?=.)")
_PREFIX = re.compile(r"(?:SDL_SCANCODE|SDLK|GLFW_KEY|KEY|VK|XK|DIK|K)_(?=.)")
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|(.))")
_ESCAPED = {"t": "\t", "n": "\n", "r": "\r"}
_CONTROL = {"\t": "TAB", "\n": "ENTER", "\r": "ENTER", "\b": "BACKSPACE", "\x1b": "ESC", "\x7f": "BACKSPACE"}


def button_of(device: str | None, text: str) -> Button | None:
    """The button that ``text`` names; None if it names none, or both the arrow key and the mouse button "left".

    The ``device`` is "key", "mouse", or None if only the name shows it. A name in no table stays as it is, in upper
    case. The character " " is the space bar; other white space around a name is ignored.
    """
    stripped = text.strip() or (text if len(text) == 1 and device != "mouse" else "")
    if not stripped:
        return None
    upper = _unquoted(stripped).upper()
    library = _LIBRARY.match(upper)
    of_device = None if library is None else "mouse" if "BUTTON" in library[1] else "key"
    squeezed = _squeezed(upper[library.end() :] if library else upper.removeprefix("VK_"))
    mouse, key = _mouse_name(squeezed), key_name(stripped)
    if mouse and (of_device == "mouse" or (of_device is None and _SURELY_MOUSE.fullmatch(squeezed))):
        return "mouse", mouse
    if device is None and of_device is None and squeezed in ("LEFT", "RIGHT"):
        return None
    if device == "mouse" or (device is None and mouse and not key):
        return "mouse", mouse or upper
    return "key", key or upper


def key_name(text: str) -> str | None:
    """The name of a keyboard's key; None if ``text`` is in no table."""
    if number := re.fullmatch(r"<(\d+)>", text):
        return _NUMBERED.get(int(number[1]))
    written = _unquoted(text)
    if len(written) == 1:
        return _key_of_character(written, quoted=written != text)
    upper = written.upper()
    if library := _LIBRARY.match(upper):
        upper = upper[library.end() :]
    prefix = _PREFIX.match(upper)
    bare = upper[prefix.end() :] if prefix else upper
    if len(bare) == 1:
        return bare
    squeezed = _squeezed(bare)
    if prefix and prefix[0] in ("VK_", "DIK_") and squeezed in _WINDOWS_ONLY:
        return _WINDOWS_ONLY[squeezed]
    if squeezed in _KEY:
        return _KEY[squeezed]
    if re.fullmatch(r"F([1-9]|1\d|2[0-4])", squeezed):
        return squeezed
    if letter := re.fullmatch(r"KEY([A-Z0-9])|(?:DIGIT|ALPHA|D)([0-9])", squeezed):
        return letter[1] or letter[2]
    if modifier := _SIDED.fullmatch(squeezed):
        return ((modifier[1] or modifier[3] or "")[:1]) + _MODIFIER[modifier[2]]
    if (numpad := _ON_NUMPAD.fullmatch(squeezed)) and numpad[1] in _NUMPAD_KEY:
        return f"NUMPAD{_NUMPAD_KEY[numpad[1]]}"
    return None


def exists(button: Button) -> bool:
    """Whether a keyboard or a mouse surely has the button; keys of one character depend on the layout and count."""
    device, name = button
    return name in MOUSE_BUTTONS + WHEEL_BUTTONS if device == "mouse" else len(name) == 1 or key_name(name) is not None


def is_key(text: str) -> bool:
    """Whether ``text`` surely names a key; a digit may also be a mouse button."""
    return key_name(text.strip()) is not None and not text.strip().isdecimal()


def shifted(button: Button) -> Button | None:
    """The key's name with Shift on a US keyboard; None if it does not change."""
    device, name = button
    return (device, _SHIFT_OF[name]) if device == "key" and name in _SHIFT_OF else None


def sides(button: Button) -> tuple[Button, ...]:
    """The left and the right key of a modifier named without a side; empty for other buttons."""
    device, name = button
    return ((device, f"L{name}"), (device, f"R{name}")) if button in MODIFIERS else ()


def also_named(button: Button) -> tuple[Button, ...]:
    """Other names that a key's release may have: with or without Shift, with or without a side."""
    device, name = button
    if device != "key":
        return ()
    if other := _SHIFTED.get(name) or _SHIFT_OF.get(name):
        return ((device, other),)
    return ((device, name[1:]),) if (device, name[1:]) in MODIFIERS else sides(button)


def is_character(button: Button) -> bool:
    """Whether, by its name, the keyboard's layout decides which key this is."""
    return len(button[1]) == 1 or key_name(button[1]) is None


def shown(button: Button) -> str:
    """The button's name in one line; the device is added where it is no key: the mouse has a LEFT, too."""
    device, name = button
    return ("" if device == "key" else f"{device} ") + (name if name.isprintable() else repr(name))


def _squeezed(name: str) -> str:
    return re.sub(r"[\s_]|(?<=\w)-(?=\w)", "", name)


def _unquoted(text: str) -> str:
    """The text without the quotes that ``repr`` adds: 'w', '\\x17', "'", <Key.space: ' '>."""
    if enum := re.fullmatch(r"<((?:Key|Button)\.\w+)\b.*>", text):
        return enum[1]
    if len(text) > 2 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1]
    elif not re.fullmatch(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4})", text):
        return text
    return _ESCAPE.sub(lambda m: chr(int(m[1] or m[2], 16)) if m[1] or m[2] else _ESCAPED.get(m[3], m[3]), text)


def _key_of_character(character: str, quoted: bool) -> str | None:
    """A character's key. With Ctrl, pynput writes a letter's control character, quoted: '\\x17' is W, '\\t' is I."""
    if character == " ":
        return "SPACE"
    if not quoted and character in _CONTROL:
        return _CONTROL[character]
    if 1 <= ord(character) <= 26 or 28 <= ord(character) <= 31:
        base = chr(ord(character) + 64)
        return _SHIFTED.get(base, base)
    upper = character.upper()  # a dotless i has another key's capital, a sharp s has two letters
    return _CONTROL.get(character, upper if upper.lower() == character.lower() else character)


def _mouse_name(squeezed: str) -> str | None:
    if squeezed in _WHOLE_MOUSE:
        return _WHOLE_MOUSE[squeezed]
    if squeezed.isdecimal():  # 1 is the middle button in a browser, the left one elsewhere
        return None
    return _MOUSE_BUTTON.get(re.sub(r"MOUSE|BUTTON|BTN|CLICK|MB(?=\d|$)", "", squeezed))
