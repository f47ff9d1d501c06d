"""pynput, Windows, browsers, evdev and X11 spell the same buttons differently."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from BC_training.common.keybinds.button_names import _KEYS, _NUMBERED, also_named, button_of, key_name, shown

SPELLINGS = {  # from the five libraries' documentation
    "W": ["w", "'w'", "'W'", '"w"', "KeyW", "KEY_W", "VK_W", "<87>", r"'\x17'", r"\x17", "\x17", " W ", "XK_w", "K_w"],
    "1": ["'1'", "Digit1", "KEY_1", "VK_1", "<49>", "D1", "K_1"],
    "SPACE": [" ", "' '", "space", "Key.space", "<Key.space: ' '>", "KEY_SPACE", "VK_SPACE", "<32>", "Spacebar"],
    "LSHIFT": ["Key.shift_l", "ShiftLeft", "KEY_LEFTSHIFT", "VK_LSHIFT", "Shift_L", "<160>", "left shift", "LShiftKey"],
    "SHIFT": ["Key.shift", "Shift", "VK_SHIFT", "<16>", "ShiftKey"],
    "RCTRL": ["Key.ctrl_r", "ControlRight", "KEY_RIGHTCTRL", "VK_RCONTROL", "Control_R", "right ctrl"],
    "LALT": ["Key.alt_l", "AltLeft", "KEY_LEFTALT", "VK_LMENU", "Alt_L"],
    "RALT": ["Key.alt_gr", "AltRight", "KEY_RIGHTALT", "VK_RMENU", "Alt_R", "AltGraph", "ISO_Level3_Shift", "<65027>"],
    "LMETA": ["Key.cmd_l", "MetaLeft", "KEY_LEFTMETA", "VK_LWIN", "Super_L", "left windows"],
    "ENTER": ["Key.enter", "Return", "KEY_ENTER", "VK_RETURN", "Enter", "\r"],
    "ESC": ["Key.esc", "Escape", "KEY_ESC", "VK_ESCAPE", "\x1b"],
    "BACKSPACE": ["Key.backspace", "BackSpace", "Backspace", "KEY_BACKSPACE", "VK_BACK"],
    "LEFT": ["Key.left", "ArrowLeft", "KEY_LEFT", "VK_LEFT", "Left", "<37>", "left arrow"],
    "PAGEUP": ["Key.page_up", "PageUp", "KEY_PAGEUP", "VK_PRIOR", "Prior", "Page_Up", "page up"],
    "CAPSLOCK": ["Key.caps_lock", "CapsLock", "KEY_CAPSLOCK", "VK_CAPITAL", "Caps_Lock"],
    ".": ["'.'", "Period", "KEY_DOT", "VK_OEM_PERIOD", "period", "<190>"],
    "-": ["'-'", "Minus", "KEY_MINUS", "VK_OEM_MINUS", "minus"],
    "'": [r"'\''", '"\'"', "Quote", "KEY_APOSTROPHE", "VK_OEM_7", "apostrophe", "<222>"],
    "\\": [r"'\\'", "Backslash", "KEY_BACKSLASH", "VK_OEM_5", "backslash"],
    "[": ["'['", "BracketLeft", "KEY_LEFTBRACE", "VK_OEM_4", "bracketleft"],
    "`": ["Backquote", "KEY_GRAVE", "VK_OEM_3", "grave"],
    "NUMPAD1": ["Numpad1", "KEY_KP1", "VK_NUMPAD1", "KP_1", "KP_End", "<97>", "<65457>"],
    "NUMPAD+": ["NumpadAdd", "KEY_KPPLUS", "VK_ADD", "KP_Add", "<107>"],
    "NUMPADENTER": ["NumpadEnter", "KEY_KPENTER", "KP_Enter"],
    "F12": ["Key.f12", "F12", "KEY_F12", "VK_F12", "<123>"],
}
MOUSE = {
    "LEFT": ["left", "Button.left", "<Button.left: 1>", "BTN_LEFT", "VK_LBUTTON", "MOUSE1", "Button1", "LMB"],
    "RIGHT": ["Button.right", "BTN_RIGHT", "VK_RBUTTON", "MOUSE2", "RightMouseButton"],
    "MIDDLE": ["Button.middle", "BTN_MIDDLE", "VK_MBUTTON", "MOUSE3", "mmb"],
    "X1": ["x1", "Button.x1", "Button.button8", "BTN_SIDE", "VK_XBUTTON1", "MOUSE4"],
    "X2": ["x2", "Button.x2", "Button.button9", "BTN_EXTRA", "VK_XBUTTON2", "MOUSE5"],
}


@pytest.mark.parametrize(("device", "table"), [("key", SPELLINGS), ("mouse", MOUSE)])
def test_all_spellings_of_a_button_are_known(device, table):
    for name, spellings in table.items():
        assert {text: button_of(device, text) for text in spellings} == dict.fromkeys(spellings, (device, name))


def test_every_name_in_the_table_names_itself():
    names = {*_KEYS, *_NUMBERED.values(), "LSHIFT", "RMETA", "NUMPAD0"}
    assert {name: key_name(name) for name in names} == {name: name for name in names}
    for other in names:
        for alike in also_named(("key", other)):
            assert ("key", other) in also_named(alike)


@pytest.mark.parametrize("name", ["BUTTON2", "MOUSE0", "3", "WHEEL_UP", "THUMB", "KEY_LEFT"])
def test_mouse_buttons_that_libraries_count_differently_keep_their_names(name):
    assert button_of("mouse", name.lower()) == ("mouse", name)


@pytest.mark.parametrize("name", ["JOYSTICK_7", "KEY_WHATEVER", "BUTTON1", "Ц", "A B", "<0>", "F123", "''"])
def test_unknown_names_become_upper_case(name):
    assert button_of("key", name.lower()) == ("key", name)


@pytest.mark.parametrize("letter", ["\u0131", "\u00df", "\u03c2"])
def test_a_letter_stays_if_its_capital_belongs_to_another_key(letter):
    assert button_of("key", letter) == button_of("key", f"'{letter}'") == ("key", letter)


@pytest.mark.parametrize("text", ["VK_LBUTTON", "BTN_LEFT", "Button.left", "MOUSE1", "LMB"])
def test_a_mouse_button_is_recognised_in_a_key_event(text):
    assert button_of("key", text) == button_of(None, text) == ("mouse", "LEFT")


def test_a_name_may_show_the_device():
    assert button_of(None, "w") == ("key", "W")
    assert button_of(None, "Key.left") == button_of(None, "ArrowLeft") == ("key", "LEFT")
    assert button_of(None, "middle") == ("mouse", "MIDDLE")
    assert button_of(None, "left") is None


@given(device=st.sampled_from(["key", "mouse", None]), text=st.text())
def test_any_text_names_a_button_or_none(device, text):
    button = button_of(device, text)
    if not text.strip() and len(text) != 1:
        assert button is None
    elif button is not None:
        assert button[0] in ("key", "mouse")
        assert button[1]
        assert shown(button).isprintable()
        assert button_of(device, text.swapcase().swapcase()) is not None
