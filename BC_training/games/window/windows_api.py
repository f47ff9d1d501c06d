"""The structures and calls of 64-bit Windows that a desktop needs.

Sizes are written out, as ``ctypes.wintypes`` has other ones on other systems, where these are tested.
"""

import ctypes
import sys
from types import SimpleNamespace
from typing import Any

from BC_training.common.errors import UserError

_i16, _u16, _i32, _u32 = ctypes.c_int16, ctypes.c_uint16, ctypes.c_int32, ctypes.c_uint32
_handle, _size, _ssize, _text = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_ssize_t, ctypes.c_wchar_p

INPUT_MOUSE, INPUT_KEYBOARD = 0, 1
KEYEVENTF_EXTENDEDKEY, KEYEVENTF_KEYUP, KEYEVENTF_SCANCODE = 1, 2, 8
MOUSEEVENTF_MOVE, MOUSEEVENTF_WHEEL, MOUSEEVENTF_HWHEEL, WHEEL_DELTA = 0x0001, 0x0800, 0x1000, 120
WM_QUIT, WM_INPUT, WM_HOTKEY, WM_APP = 0x0012, 0x00FF, 0x0312, 0x8000
RIM_TYPEMOUSE, RIM_TYPEKEYBOARD, RID_INPUT = 0, 1, 0x10000003
RIDEV_INPUTSINK = 0x0100  # also while another window has the focus
MOUSE_MOVE_ABSOLUTE, RI_KEY_BREAK, RI_KEY_E0, RI_MOUSE_WHEEL, RI_MOUSE_HWHEEL = 1, 1, 2, 0x0400, 0x0800
MOD_ALT, MOD_CONTROL, MOD_SHIFT, MOD_NOREPEAT = 1, 2, 4, 0x4000
HWND_MESSAGE, GA_ROOT, DWMWA_CLOAKED, PER_MONITOR_AWARE_V2 = -3, 2, 14, -4
PW_CLIENTONLY, PW_RENDERFULLCONTENT = 1, 2


class POINT(ctypes.Structure):
    _fields_ = (("x", _i32), ("y", _i32))


class RECT(ctypes.Structure):
    _fields_ = (("left", _i32), ("top", _i32), ("right", _i32), ("bottom", _i32))


class MSG(ctypes.Structure):
    _fields_ = (
        *(("hwnd", _handle), ("message", _u32), ("wParam", _size), ("lParam", _ssize), ("time", _u32), ("pt", POINT)),
        ("lPrivate", _u32),
    )


class MOUSEINPUT(ctypes.Structure):
    _fields_ = (
        *(("dx", _i32), ("dy", _i32), ("mouseData", _u32), ("dwFlags", _u32), ("time", _u32), ("dwExtraInfo", _size)),
    )


class KEYBDINPUT(ctypes.Structure):
    _fields_ = (("wVk", _u16), ("wScan", _u16), ("dwFlags", _u32), ("time", _u32), ("dwExtraInfo", _size))


class _Input(ctypes.Union):
    _fields_ = (("mi", MOUSEINPUT), ("ki", KEYBDINPUT))


class INPUT(ctypes.Structure):
    _anonymous_ = ("either",)
    _fields_ = (("type", _u32), ("either", _Input))


class RAWINPUTDEVICE(ctypes.Structure):
    _fields_ = (("usUsagePage", _u16), ("usUsage", _u16), ("dwFlags", _u32), ("hwndTarget", _handle))


class RAWINPUTHEADER(ctypes.Structure):
    _fields_ = (("dwType", _u32), ("dwSize", _u32), ("hDevice", _handle), ("wParam", _size))


class RAWMOUSE(ctypes.Structure):
    _fields_ = (
        *(("usFlags", _u16), ("_padding", _u16), ("usButtonFlags", _u16), ("usButtonData", _i16)),
        *(("ulRawButtons", _u32), ("lLastX", _i32), ("lLastY", _i32), ("ulExtraInformation", _u32)),
    )


class RAWKEYBOARD(ctypes.Structure):
    _fields_ = (
        *(("MakeCode", _u16), ("Flags", _u16), ("Reserved", _u16), ("VKey", _u16)),
        *(("Message", _u32), ("ExtraInformation", _u32)),
    )


class _RawData(ctypes.Union):
    _fields_ = (("mouse", RAWMOUSE), ("keyboard", RAWKEYBOARD))


class RAWINPUT(ctypes.Structure):
    _anonymous_ = ("data",)
    _fields_ = (("header", RAWINPUTHEADER), ("data", _RawData))


class BITMAPINFOHEADER(ctypes.Structure):
    _fields_ = (
        *(("biSize", _u32), ("biWidth", _i32), ("biHeight", _i32), ("biPlanes", _u16), ("biBitCount", _u16)),
        *(("biCompression", _u32), ("biSizeImage", _u32), ("biXPelsPerMeter", _i32), ("biYPelsPerMeter", _i32)),
        *(("biClrUsed", _u32), ("biClrImportant", _u32)),
    )


def _to(kind: Any) -> Any:
    return ctypes.POINTER(kind)


# On 64 bits Windows has one calling convention: this is what WINFUNCTYPE would make.
ENUM_WINDOWS = ctypes.CFUNCTYPE(_i32, _handle, _ssize)

# What each call of a library gives back and takes.
CALLS: dict[str, dict[str, tuple[Any, tuple[Any, ...]]]] = {
    "user32": {
        "ClientToScreen": (_i32, (_handle, _to(POINT))),
        "CreateWindowExW": (_handle, (_u32, _text, _text, _u32, *(_i32,) * 4, *(_handle,) * 4)),
        "DestroyWindow": (_i32, (_handle,)),
        "DispatchMessageW": (_ssize, (_to(MSG),)),
        "EnumWindows": (_i32, (ENUM_WINDOWS, _ssize)),
        "GetAncestor": (_handle, (_handle, _u32)),
        "GetAsyncKeyState": (_i16, (_i32,)),
        "GetClientRect": (_i32, (_handle, _to(RECT))),
        "GetCursorPos": (_i32, (_to(POINT),)),
        "GetForegroundWindow": (_handle, ()),
        "GetMessageW": (_i32, (_to(MSG), _handle, _u32, _u32)),
        "GetRawInputData": (_u32, (_ssize, _u32, _to(RAWINPUT), _to(_u32), _u32)),
        "GetSystemMetrics": (_i32, (_i32,)),
        "GetWindowTextW": (_i32, (_handle, ctypes.c_void_p, _i32)),
        "GetWindowThreadProcessId": (_u32, (_handle, _to(_u32))),
        "IsIconic": (_i32, (_handle,)),
        "IsWindow": (_i32, (_handle,)),
        "IsWindowVisible": (_i32, (_handle,)),
        "MapVirtualKeyW": (_u32, (_u32, _u32)),
        "PostThreadMessageW": (_i32, (_u32, _u32, _size, _ssize)),
        "PrintWindow": (_i32, (_handle, _handle, _u32)),
        "RegisterHotKey": (_i32, (_handle, _i32, _u32, _u32)),
        "RegisterRawInputDevices": (_i32, (_to(RAWINPUTDEVICE), _u32, _u32)),
        "SendInput": (_u32, (_u32, _to(INPUT), _i32)),
        "SetProcessDpiAwarenessContext": (_i32, (_handle,)),
        "UnregisterHotKey": (_i32, (_handle, _i32)),
        "WindowFromPoint": (_handle, (POINT,)),
    },
    "gdi32": {
        "CreateCompatibleDC": (_handle, (_handle,)),
        "CreateDIBSection": (_handle, (_handle, _to(BITMAPINFOHEADER), _u32, _to(_handle), _handle, _u32)),
        "DeleteDC": (_i32, (_handle,)),
        "DeleteObject": (_i32, (_handle,)),
        "GdiFlush": (_i32, ()),
        "SelectObject": (_handle, (_handle, _handle)),
    },
    "dwmapi": {"DwmGetWindowAttribute": (_i32, (_handle, _u32, _to(_u32), _u32))},
    "kernel32": {"GetCurrentThreadId": (_u32, ())},
}


def load() -> SimpleNamespace:
    """All ``CALLS`` by their names; raises a UserError on another system."""
    found = SimpleNamespace()
    if sys.platform != "win32":
        raise UserError("this system is not Windows")
    for library, calls in CALLS.items():
        opened = ctypes.WinDLL(library)
        for name, (gives, takes) in calls.items():
            call = getattr(opened, name)
            call.restype, call.argtypes = gives, takes
            setattr(found, name, call)
    return found
