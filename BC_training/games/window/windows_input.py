"""Keyboard and mouse of Windows: what is done with them, and doing it.

Input comes as raw input, which a thread reads, since Windows sends it to a window's messages. Keys are pressed by scan
codes, as games that read the keyboard themselves see no other, and the mouse is moved by relative motion.
"""

import ctypes
import itertools
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from BC_training.common.errors import UserError
from BC_training.common.keybinds.button_names import Button, button_of, shown
from BC_training.games.window import windows_api as w
from BC_training.games.window.desktop import WHEEL, InputEvent, InputSource
from BC_training.games.window.guard import Guard
from BC_training.games.window.injected import Injected
from BC_training.games.window.windows_keys import MOUSE, MOUSE_KEYS, key_number, named, raw_key

_NO_SCAN_CODE = "PAUSE"  # its scan code is a sequence, which SendInput cannot send
_PRINT_SCREEN = 0x37  # MapVirtualKey knows another one, that of Alt+PrintScreen
_EITHER_SIDE = (16, 17, 18)  # Shift, Ctrl and Alt, which have numbers for their sides, too
# Run by the guard: words are structures INPUT, as hexadecimal digits, that release something.
_LET_GO = """
import ctypes
given = bytes.fromhex("".join(held))
ctypes.WinDLL("user32").SendInput(len(held), given, len(given) // len(held))
"""
_FAILED = 0xFFFFFFFF
_METRICS = {False: (0, 1), True: (78, 79)}  # of the size of the first screen, and of all together


class WindowsInput:
    """The part of ``Desktop`` that is about input; see there.

    Args:
        api: the calls of ``windows_api.py``.
    """

    def __init__(self, api: Any):
        self._api, self._injected, self._guard = api, Injected(), Guard(_LET_GO)
        self._own: dict[Button, None] = {}  # what is held
        self._down: set[tuple[int | None, Button]] = set()  # what each device holds
        self._places: dict[int | None, tuple[float, float]] = {}  # of mice that do not tell how far they moved
        self._hotkeys: dict[int, Button] = {}  # by the number that was registered
        self._events: deque[InputEvent] = deque()
        self._tasks: queue.Queue[Callable[[], Any]] = queue.Queue()
        self._answers: queue.Queue[Any] = queue.Queue()
        self._thread = threading.Thread(target=self._listen, name="raw input", daemon=True)
        self._thread.start()
        self._answered()

    def close(self) -> None:
        if self._thread.is_alive():
            try:
                self.release_all()
            finally:
                self._guard.close()
                self._in_thread(self._free_hotkeys)
                self._api.PostThreadMessageW(self._thread_id, w.WM_QUIT, 0, 0)
                self._thread.join()

    def events(self) -> list[InputEvent]:
        return [self._events.popleft() for _ in range(len(self._events))]

    def held(self) -> set[Button]:
        numbers = [n for n in range(1, 255) if n not in _EITHER_SIDE and self._api.GetAsyncKeyState(n) < 0]
        return {MOUSE_KEYS.get(n) or named(n) for n in numbers}

    def press(self, button: Button) -> None:
        if button in WHEEL:
            self.scroll(*WHEEL[button])
        elif button not in self._own:
            self._tell_guard([*self._own, button])
            self._set(button, True)
            self._own[button] = None

    def release(self, button: Button) -> None:
        if button in self._own:
            del self._own[button]
            self._set(button, False)
            self._tell_guard(self._own)

    def _tell_guard(self, held: Iterable[Button]) -> None:
        self._guard.hold(bytes(self._input(button, False)).hex() for button in held)

    def release_all(self) -> None:
        for button in list(self._own):
            self.release(button)

    def move(self, x: int, y: int) -> None:
        if x or y:
            self._mouse(("motion", x, y), w.MOUSEEVENTF_MOVE, dx=x, dy=y)

    def scroll(self, x: int, y: int) -> None:
        for flag, notches in ((w.MOUSEEVENTF_HWHEEL, x), (w.MOUSEEVENTF_WHEEL, y)):
            if notches:
                self._mouse((flag, notches), flag, mouseData=notches * w.WHEEL_DELTA & 0xFFFFFFFF)

    def grab_hotkeys(self, names: Sequence[str]) -> None:
        keys = {name: button_of("key", name) for name in names}
        if bad := [name for name, key in keys.items() if key is None]:
            raise UserError(f"hotkey {bad[0]!r} is no key: write a name such as F9")
        wanted = [key for key in keys.values() if key is not None]
        numbers = [key_number(key)[0] for key in wanted]

        def grab() -> None:
            self._free_hotkeys()
            masks = [sum(some) for some in itertools.product((0, w.MOD_ALT), (0, w.MOD_CONTROL), (0, w.MOD_SHIFT))]
            for (key, number), mask in itertools.product(zip(wanted, numbers, strict=True), masks):
                hotkey = len(self._hotkeys) + 1
                if self._api.RegisterHotKey(None, hotkey, mask | w.MOD_NOREPEAT, number):
                    self._hotkeys[hotkey] = key
                elif not mask:
                    self._free_hotkeys()
                    raise UserError(
                        f"another program has the hotkey {shown(key)}, or Windows: choose another, or end that program"
                    )

        self._in_thread(grab)

    def _free_hotkeys(self) -> None:
        for hotkey in self._hotkeys:
            self._api.UnregisterHotKey(None, hotkey)
        self._hotkeys = {}

    def _set(self, button: Button, is_press: bool) -> None:
        self._send((button, is_press), self._input(button, is_press))

    def _input(self, button: Button, is_press: bool) -> w.INPUT:
        """What presses or releases a key or a button of the mouse."""
        if button in MOUSE:
            *_, down, up, data = MOUSE[button]
            return _of_mouse(down if is_press else up, mouseData=data)
        if button[0] != "key":
            raise UserError(f"there is no {shown(button)} to press: bind a key or another button of the mouse")
        number, extended = key_number(button)
        flags = 0 if is_press else w.KEYEVENTF_KEYUP
        if button[1] == _NO_SCAN_CODE:
            key = w.KEYBDINPUT(number, 0, flags, 0, 0)
        else:
            scan = _PRINT_SCREEN if button[1] == "PRINTSCREEN" else self._api.MapVirtualKeyW(number, 0)
            flags |= w.KEYEVENTF_SCANCODE | (w.KEYEVENTF_EXTENDEDKEY if extended else 0)
            key = w.KEYBDINPUT(0, scan, flags, 0, 0)
        return w.INPUT(w.INPUT_KEYBOARD, w._Input(ki=key))

    def _mouse(self, what: tuple[Any, ...], flags: int, **more: int) -> None:
        self._send(what, _of_mouse(flags, **more))

    def _send(self, what: tuple[Any, ...], given: w.INPUT) -> None:
        self._injected.add(what)
        if self._api.SendInput(1, ctypes.byref(given), ctypes.sizeof(w.INPUT)) != 1:
            raise UserError("Windows takes no input now: unlock the screen, or start this as the user who has it")

    # The thread

    def _listen(self) -> None:
        """Reads messages until the end."""
        window = None
        try:
            self._thread_id = self._api.GetCurrentThreadId()
            # A window that nobody sees, of a class that Windows has; only its thread gets its messages.
            window = self._api.CreateWindowExW(0, "STATIC", None, 0, 0, 0, 0, 0, w.HWND_MESSAGE, None, None, None)
            kinds = [w.RAWINPUTDEVICE(1, usage, w.RIDEV_INPUTSINK, window) for usage in (2, 6)]  # mouse and keyboard
            raw = (w.RAWINPUTDEVICE * 2)(*kinds)
            if not window or not self._api.RegisterRawInputDevices(raw, 2, ctypes.sizeof(w.RAWINPUTDEVICE)):
                raise UserError("Windows gives no raw input: start this on a desktop that someone is logged in to")
        except BaseException as error:
            self._answers.put(error)
            return
        self._answers.put(None)
        message = w.MSG()
        while self._api.GetMessageW(ctypes.byref(message), None, 0, 0) > 0:
            if message.message == w.WM_INPUT:
                self._take(message.lParam)
            elif message.message == w.WM_HOTKEY and (key := self._hotkeys.get(message.wParam)):
                source: InputSource = "own" if self._injected.take((key, True)) else "device"
                self._events.append(InputEvent(time.perf_counter(), "hotkey", key, source=source))
            elif message.message == w.WM_APP:
                try:
                    self._answers.put(self._tasks.get()())
                except BaseException as error:
                    self._answers.put(error)
            self._api.DispatchMessageW(ctypes.byref(message))
        self._api.DestroyWindow(window)

    def _in_thread(self, task: Callable[[], Any]) -> Any:
        """What ``task`` returns or raises in the thread, which alone may register hotkeys."""
        self._tasks.put(task)
        self._api.PostThreadMessageW(self._thread_id, w.WM_APP, 0, 0)
        return self._answered()

    def _answered(self) -> Any:
        answer = self._answers.get()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _take(self, which: int) -> None:
        """Reads a raw event."""
        now, raw, size = time.perf_counter(), w.RAWINPUT(), ctypes.c_uint32(ctypes.sizeof(w.RAWINPUT))
        header = ctypes.sizeof(w.RAWINPUTHEADER)
        if self._api.GetRawInputData(which, w.RID_INPUT, ctypes.byref(raw), ctypes.byref(size), header) == _FAILED:
            return
        device = raw.header.hDevice  # None for what a program injects
        if raw.header.dwType == w.RIM_TYPEKEYBOARD:
            key = raw.keyboard
            button = raw_key(key.VKey, key.MakeCode, bool(key.Flags & w.RI_KEY_E0))
            if button is not None and button not in self._hotkeys.values():
                self._button(now, device, button, not key.Flags & w.RI_KEY_BREAK)
        elif raw.header.dwType == w.RIM_TYPEMOUSE:
            self._take_mouse(now, device, raw.mouse)

    def _take_mouse(self, now: float, device: int | None, mouse: w.RAWMOUSE) -> None:
        x, y = self._moved(device, mouse)
        if x or y:
            self._events.append(InputEvent(now, "motion", None, x, y, self._source(device, ("motion", x, y))))
        for button, (down, up, *_) in MOUSE.items():
            for flag in (down, up):
                if mouse.usButtonFlags & flag:
                    self._button(now, device, button, flag == down)
        for raw_flag, flag, across in (
            (w.RI_MOUSE_WHEEL, w.MOUSEEVENTF_WHEEL, False),
            (w.RI_MOUSE_HWHEEL, w.MOUSEEVENTF_HWHEEL, True),
        ):
            if mouse.usButtonFlags & raw_flag:
                notches = mouse.usButtonData / w.WHEEL_DELTA
                x, y = (notches, 0.0) if across else (0.0, notches)
                button = next(b for b, (right, up) in WHEEL.items() if right * x + up * y > 0)
                self._events.append(InputEvent(now, "wheel", button, x, y, self._source(device, (flag, notches))))

    def _moved(self, device: int | None, mouse: w.RAWMOUSE) -> tuple[float, float]:
        """How far a mouse moved; tablets and virtual machines tell where it is, in 65,536ths of the screen."""
        if not mouse.usFlags & w.MOUSE_MOVE_ABSOLUTE:
            return mouse.lLastX, mouse.lLastY
        wide, high = (self._api.GetSystemMetrics(metric) for metric in _METRICS[bool(mouse.usFlags & 2)])
        place = mouse.lLastX * wide / 65536, mouse.lLastY * high / 65536
        before, self._places[device] = self._places.get(device, place), place
        return place[0] - before[0], place[1] - before[1]

    def _button(self, now: float, device: int | None, button: Button, is_press: bool) -> None:
        source = self._source(device, (button, is_press))
        if is_press and (device, button) in self._down:
            return  # a repeat
        (self._down.add if is_press else self._down.discard)((device, button))
        self._events.append(InputEvent(now, "press" if is_press else "release", button, source=source))

    def _source(self, device: int | None, what: tuple[Any, ...]) -> InputSource:
        if device is not None:
            return "device"
        return "own" if self._injected.take(what) else "program"


def _of_mouse(flags: int, **more: int) -> w.INPUT:
    return w.INPUT(w.INPUT_MOUSE, w._Input(mi=w.MOUSEINPUT(dwFlags=flags, **more)))
