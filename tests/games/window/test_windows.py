"""Windows' calls, played by functions that are called through the same C types as there."""

import ctypes
import queue
import sys
import threading
import time
from contextlib import closing
from types import SimpleNamespace

import numpy as np
import pytest
from dataset_files import user_error

from BC_training.common.keybinds.button_names import button_of
from BC_training.games.window import windows_api as w
from BC_training.games.window.desktop import Geometry, NotShown, Region, WindowQuery
from BC_training.games.window.injected import Injected
from BC_training.games.window.platform import open_desktop
from BC_training.games.window.windows import WindowsDesktop
from BC_training.games.window.windows_keys import raw_key

GAME, OTHER, HIDDEN, MENU = 0x1_0000_0A01, 0xA02, 0xA03, 0xA04  # a handle may have more than 32 bits


class FakeWindows:
    """A desktop with a game in a window of 40x30 at (-5, 100)."""

    def __init__(self):
        self.titles = {GAME: "Toy — game", OTHER: "Other", HIDDEN: "Toy of yore", MENU: ""}
        self.shown, self.iconic, self.open = {GAME, OTHER, MENU}, set(), {GAME, OTHER, HIDDEN, MENU}
        self.size, self.pointer, self.foreground = (40, 30), (0, 110), GAME
        self.sent, self.raw, self.taken, self.hotkeys, self.down = [], {}, set(), {}, set()
        self.messages, self.asleep, self.bitmaps = queue.Queue(), threading.Event(), 0
        self.api = SimpleNamespace()
        for library in w.CALLS.values():
            for name, (gives, takes) in library.items():
                setattr(self.api, name, ctypes.CFUNCTYPE(gives, *takes)(self._answer(name)))

    def _answer(self, name):
        return getattr(self, name, lambda *_: 0)

    def event(self, message, wparam=0, lparam=0):
        self.messages.put((message, wparam, lparam))

    def input(self, **fields):
        """A raw event of a device; ``VKey`` makes it one of the keyboard."""
        raw = w.RAWINPUT()
        raw.header.hDevice = fields.pop("device", 77)
        raw.header.dwType = w.RIM_TYPEKEYBOARD if "VKey" in fields else w.RIM_TYPEMOUSE
        for name, value in fields.items():
            setattr(raw.keyboard if "VKey" in fields else raw.mouse, name, value)
        self.raw[len(self.raw) + 1] = raw
        self.event(w.WM_INPUT, lparam=len(self.raw))

    # What Windows does

    def EnumWindows(self, callback, value):
        return all(callback(window, value) for window in self.titles)

    def GetWindowTextW(self, window, text, most):
        title = self.titles[window][: most - 1]
        ctypes.memmove(text, ctypes.create_unicode_buffer(title), ctypes.sizeof(ctypes.c_wchar) * (len(title) + 1))
        return len(title)

    def GetWindowThreadProcessId(self, window, pid):
        pid[0] = 42 if window in (GAME, HIDDEN) else 43
        return 1

    def IsWindow(self, window):
        return window in self.open

    def IsWindowVisible(self, window):
        return window in self.shown

    def IsIconic(self, window):
        return window in self.iconic

    def GetClientRect(self, window, rect):
        rect[0] = w.RECT(0, 0, *self.size)
        return 1

    def ClientToScreen(self, window, point):
        point[0].x, point[0].y = point[0].x - 5, point[0].y + 100
        return 1

    def GetForegroundWindow(self):
        return self.foreground

    def GetCursorPos(self, point):
        point[0] = w.POINT(*self.pointer)
        return 1

    def WindowFromPoint(self, point):
        return GAME + 1 if (point.x, point.y) == self.pointer else 0  # a part of the game's

    def GetAncestor(self, window, flag):
        return GAME if (window, flag) == (GAME + 1, w.GA_ROOT) else window

    def GetSystemMetrics(self, which):
        return {0: 1920, 1: 1080}[which]

    def CreateCompatibleDC(self, _):
        return 0xDC

    def CreateDIBSection(self, dc, header, usage, bits, *_):
        fields = header[0]
        assert (fields.biSize, fields.biPlanes, fields.biBitCount, fields.biCompression) == (40, 1, 32, 0)
        width, height = fields.biWidth, -fields.biHeight
        self.memory = np.zeros((height, width, 4), np.uint8)
        bits[0] = self.memory.ctypes.data
        self.bitmaps += 1
        return 0xB1

    def DeleteObject(self, bitmap):
        self.bitmaps -= bitmap == 0xB1
        return 1

    def PrintWindow(self, window, dc, flags):
        if flags != w.PW_CLIENTONLY | w.PW_RENDERFULLCONTENT or dc != 0xDC or window not in self.shown:
            return 0
        height, width, _ = self.memory.shape
        self.memory[..., 0], self.memory[..., 1] = np.arange(width), np.arange(height)[:, None]
        self.memory[..., 2] = 200
        return 1

    def GetAsyncKeyState(self, number):
        return -32768 if number in self.down else 1

    def MapVirtualKeyW(self, number, kind):
        return {87: 0x11, 37: 0x4B, 16: 0x2A, 13: 0x1C, 19: 0x45, 44: 0x54}[number] if kind == 0 else 0

    def SendInput(self, count, given, size):
        assert (count, size) == (1, 40)
        self.sent.append(w.INPUT.from_buffer_copy(given[0]))
        return 0 if self.foreground is None else 1

    def CreateWindowExW(self, extended, kind, *rest):
        assert kind == "STATIC"
        assert rest[6] == ctypes.c_void_p(w.HWND_MESSAGE).value
        return 0xF00

    def RegisterRawInputDevices(self, devices, count, size):
        found = {(d.usUsagePage, d.usUsage, d.dwFlags, d.hwndTarget) for d in devices[:count]}
        return size == 16 and found == {(1, 2, w.RIDEV_INPUTSINK, 0xF00), (1, 6, w.RIDEV_INPUTSINK, 0xF00)}

    def GetMessageW(self, message, *_):
        self.asleep.set()
        kind, wparam, lparam = self.messages.get()
        message[0].message, message[0].wParam, message[0].lParam = kind, wparam, lparam
        return kind != w.WM_QUIT

    def PostThreadMessageW(self, thread, message, wparam, lparam):
        self.event(message, wparam, lparam)
        return thread == 9

    def GetCurrentThreadId(self):
        return 9

    def GetRawInputData(self, which, command, data, size, header):
        assert (command, header, size[0]) == (w.RID_INPUT, 24, ctypes.sizeof(w.RAWINPUT))
        data[0] = self.raw[which]
        return ctypes.sizeof(w.RAWINPUT)

    def RegisterHotKey(self, window, number, modifiers, key):
        assert modifiers & w.MOD_NOREPEAT
        assert number not in self.hotkeys
        if (modifiers & ~w.MOD_NOREPEAT, key) in self.taken:
            return 0
        self.hotkeys[number] = modifiers & ~w.MOD_NOREPEAT, key
        return 1

    def UnregisterHotKey(self, window, number):
        return self.hotkeys.pop(number, None) is not None


@pytest.fixture
def fake():
    return FakeWindows()


@pytest.fixture
def desktop(fake):
    with closing(WindowsDesktop(fake.api)) as opened:
        yield opened
    assert fake.bitmaps == 0
    assert not fake.hotkeys


def events(desktop):
    """All that came by now: the thread takes messages in order."""
    desktop._in_thread(lambda: None)
    return desktop.events()


SIZES = {"POINT": 8, "RECT": 16, "MSG": 48, "MOUSEINPUT": 32, "KEYBDINPUT": 24, "INPUT": 40, "RAWINPUTDEVICE": 16}
SIZES |= {"RAWINPUTHEADER": 24, "RAWMOUSE": 24, "RAWKEYBOARD": 16, "RAWINPUT": 48, "BITMAPINFOHEADER": 40}


@pytest.mark.parametrize("name", SIZES)
def test_structures_have_the_sizes_that_64_bit_windows_gives_them(name):
    assert ctypes.sizeof(getattr(w, name)) == SIZES[name]


def test_fields_are_where_windows_has_them():
    assert (w.INPUT.mi.offset, w.INPUT.ki.offset, w.MOUSEINPUT.dwExtraInfo.offset) == (8, 8, 24)
    assert (w.KEYBDINPUT.dwFlags.offset, w.KEYBDINPUT.dwExtraInfo.offset) == (4, 16)
    assert (w.RAWMOUSE.usButtonFlags.offset, w.RAWMOUSE.lLastX.offset) == (4, 12)
    assert (w.RAWKEYBOARD.VKey.offset, w.RAWINPUT.mouse.offset, w.MSG.lParam.offset) == (6, 24, 24)


def test_windows_are_found_by_title_number_and_process(desktop, fake):
    assert [str(window) for window in desktop.windows()] == [
        "'Toy — game' (id:0x100000a01, pid:42)",
        "'Other' (id:0xa02, pid:43)",
    ]
    for text in ("toy", f"id:{GAME}", "pid:42"):
        assert desktop.find(WindowQuery.parse(text)).id == GAME
    assert desktop.find(WindowQuery.parse(f"id:{HIDDEN:#x}")).title == "Toy of yore"
    assert "there are: 'Toy — game'" in user_error(lambda: desktop.find(WindowQuery.parse("chess")))


def test_a_window_s_state_place_focus_and_pointer_are_told(desktop, fake):
    assert desktop.geometry(GAME) == Geometry(-5, 100, 40, 30, "shown")
    assert desktop.has_focus(GAME)
    assert not desktop.has_focus(OTHER)
    assert desktop.has_pointer(GAME)
    assert not desktop.has_pointer(OTHER)
    fake.pointer = (0, 130)  # below
    assert not desktop.has_pointer(GAME)
    fake.foreground = None
    assert not desktop.has_focus(GAME)


def test_pictures_are_rgb_of_the_client_area_and_the_caller_s(desktop, fake):
    picture = desktop.grab(GAME)
    x, y = np.meshgrid(np.arange(40), np.arange(30))
    expected = np.stack([np.full_like(x, 200), y, x], axis=-1)
    np.testing.assert_array_equal(picture, expected)
    np.testing.assert_array_equal(desktop.grab(GAME, Region(3, 4, 10, 20)), expected[4:24, 3:13])
    fake.size = (64, 48)
    assert desktop.grab(GAME).shape == (48, 64, 3)
    assert fake.bitmaps == 1
    np.testing.assert_array_equal(picture, expected)
    assert "64x48" in user_error(lambda: desktop.grab(GAME, Region(60, 0, 5, 5)))


def test_minimised_and_closed_windows_have_no_picture(desktop, fake):
    fake.iconic.add(GAME)
    with pytest.raises(NotShown, match="hidden: show it again"):
        desktop.grab(GAME)
    fake.open.remove(GAME)
    with pytest.raises(NotShown, match="closed: start the game again") as caught:
        desktop.grab(GAME)
    assert caught.value.state == "closed"


def test_keys_are_sent_by_scan_codes(desktop, fake):
    for name in ("W", "LEFT", "SHIFT", "NUMPADENTER", "PRINTSCREEN", "PAUSE"):
        desktop.press(("key", name))
        desktop.press(("key", name))
        desktop.release(("key", name))
        desktop.release(("key", name))
    keys = [(s.type, s.ki.wVk, s.ki.wScan, s.ki.dwFlags) for s in fake.sent]
    scan, extended, up = w.KEYEVENTF_SCANCODE, w.KEYEVENTF_EXTENDEDKEY, w.KEYEVENTF_KEYUP
    down = [(0x11, scan), (0x4B, scan | extended), (0x2A, scan), (0x1C, scan | extended), (0x37, scan | extended)]
    assert keys[:10] == [(1, 0, code, flags | end) for code, flags in down for end in (0, up)]
    assert keys[10:] == [(1, 19, 0, 0), (1, 19, 0, up)]


def test_the_mouse_is_moved_by_counts_clicked_and_its_wheel_turned(desktop, fake):
    desktop.move(-20, 7)
    desktop.press(("mouse", "LEFT"))
    desktop.press(("mouse", "X2"))
    desktop.press(("mouse", "WHEELUP"))
    desktop.scroll(2, -1)
    desktop.release_all()
    sent = [(s.mi.dx, s.mi.dy, s.mi.dwFlags, ctypes.c_int32(s.mi.mouseData).value) for s in fake.sent]
    assert {s.type for s in fake.sent} == {w.INPUT_MOUSE}
    assert sent[:3] == [(-20, 7, 1, 0), (0, 0, 0x0002, 0), (0, 0, 0x0080, 2)]
    assert sent[3:6] == [(0, 0, 0x0800, 120), (0, 0, 0x1000, 240), (0, 0, 0x0800, -120)]
    assert sent[6:] == [(0, 0, 0x0004, 0), (0, 0, 0x0100, 2)]


def test_the_guard_releases_what_a_program_held_that_was_killed(desktop, fake, monkeypatch):
    told = []
    monkeypatch.setattr(desktop._guard, "hold", lambda words: told.append(" ".join(words)))
    for button in (("key", "LEFT"), ("mouse", "X2")):
        desktop.press(button)
    sent = []

    def send(count, given, size):
        sent.extend(w.INPUT.from_buffer_copy(given, size * i) for i in range(count))

    monkeypatch.setattr(ctypes, "WinDLL", lambda name: SimpleNamespace(SendInput=send), raising=False)
    monkeypatch.setattr(sys, "stdin", ["", *told])
    exec(desktop._guard._code)  # it is a process of its own elsewhere
    key, button = sent
    up = w.KEYEVENTF_SCANCODE | w.KEYEVENTF_EXTENDEDKEY | w.KEYEVENTF_KEYUP
    assert (key.type, key.ki.wScan, key.ki.dwFlags) == (w.INPUT_KEYBOARD, 0x4B, up)
    assert (button.type, button.mi.dwFlags, button.mi.mouseData) == (w.INPUT_MOUSE, 0x0100, 2)
    desktop.release_all()
    assert told[-1] == ""


def test_a_system_that_takes_no_input_says_so(desktop, fake):
    fake.foreground = None
    assert "unlock the screen" in user_error(lambda: desktop.move(1, 1))


def test_raw_input_becomes_events(desktop, fake):
    fake.input(VKey=87, MakeCode=0x11)
    fake.input(VKey=87, MakeCode=0x11)  # a repeat
    fake.input(lLastX=-20, lLastY=7, usButtonFlags=0x001)
    fake.input(usButtonFlags=0x0400, usButtonData=-240)
    fake.input(usButtonFlags=0x0800, usButtonData=120)
    fake.input(VKey=87, MakeCode=0x11, Flags=w.RI_KEY_BREAK)
    fake.input(VKey=255, MakeCode=0x2A, Flags=2)
    fake.input(usButtonFlags=0x002)
    found = [(e.kind, e.button and e.button[1], e.x, e.y, e.source) for e in events(desktop)]
    assert found == [
        ("press", "W", 0, 0, "device"),
        ("motion", None, -20, 7, "device"),
        ("press", "LEFT", 0, 0, "device"),
        ("wheel", "WHEELDOWN", 0, -2, "device"),
        ("wheel", "WHEELRIGHT", 1, 0, "device"),
        ("release", "W", 0, 0, "device"),
        ("release", "LEFT", 0, 0, "device"),
    ]
    assert not events(desktop)


def test_what_this_program_injects_is_told_from_what_others_do(desktop, fake):
    desktop.press(("key", "W"))
    desktop.move(3, -4)
    fake.input(device=None, VKey=37, MakeCode=0x4B, Flags=w.RI_KEY_E0)
    fake.input(device=None, VKey=87, MakeCode=0x11)
    fake.input(device=None, lLastX=3, lLastY=-4)
    fake.input(device=None, lLastX=3, lLastY=-4)
    fake.input(VKey=87, MakeCode=0x11)
    assert [e.source for e in events(desktop)] == ["program", "own", "own", "program", "device"]


def test_a_tablet_s_places_become_motion(desktop, fake):
    for x, y in ((32768, 32768), (32768 + 6553, 32768), (0, 0)):
        fake.input(usFlags=w.MOUSE_MOVE_ABSOLUTE, lLastX=x, lLastY=y)
    moved = [(round(e.x), round(e.y)) for e in events(desktop)]
    assert moved == [(192, 0), (-1152, -540)]


def test_hotkeys_are_grabbed_with_modifiers_and_reported_alone(desktop, fake):
    desktop.grab_hotkeys(["F9", "F10"])
    assert set(fake.hotkeys.values()) == {(mask, key) for mask in range(8) for key in (120, 121)}
    fake.input(VKey=121, MakeCode=0x44)
    fake.event(w.WM_HOTKEY, next(n for n, what in fake.hotkeys.items() if what == (w.MOD_SHIFT, 121)))
    assert [(e.kind, e.button) for e in events(desktop)] == [("hotkey", ("key", "F10"))]
    desktop.grab_hotkeys(["F11"])
    assert {key for _, key in fake.hotkeys.values()} == {122}
    fake.taken = {(w.MOD_ALT, 120), (0, 123)}
    desktop.grab_hotkeys(["F9"])  # another program may have it with a modifier
    assert "has the hotkey F12" in user_error(lambda: desktop.grab_hotkeys(["F9", "F12"]))
    assert not fake.hotkeys


def test_held_keys_and_buttons_are_known(desktop, fake):
    fake.down = {2, 16, 160, 87}
    assert desktop.held() == {("mouse", "RIGHT"), ("key", "LSHIFT"), ("key", "W")}


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        *[((16, 0x36, False), "Shift_R"), ((16, 0x2A, False), "Shift_L"), ((17, 0x1D, True), "Control_R")],
        *[((18, 0x38, False), "Alt_L"), ((13, 0x1C, True), "KP_Enter"), ((13, 0x1C, False), "Return")],
        *[
            ((37, 0x4B, True), "Left"),
            ((37, 0x4B, False), "KP_4"),
            ((100, 0x4B, False), "KP_4"),
            ((187, 13, False), "="),
        ],
    ],
)
def test_raw_keys_have_the_names_of_keybinds_files(raw, name):
    assert raw_key(*raw) == button_of("key", name)


def test_other_systems_are_told_in_one_line(monkeypatch):
    assert "not Windows" in user_error(WindowsDesktop)
    monkeypatch.setattr("sys.platform", "darwin")
    assert "not on darwin" in user_error(open_desktop)


def test_input_that_never_came_back_is_forgotten(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    injected = Injected()
    injected.add("a")
    injected.add("b")
    now[0] = 1.0
    assert injected.take("b")
    assert not injected.take("a")  # it would have come before
    injected.add("c")
    now[0] = 4.0
    assert not injected.take("c")
