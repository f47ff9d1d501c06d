"""Windows on Windows, by its own calls alone.

Frames are what PrintWindow draws, with the part of it that the graphics card draws (Windows 8.1 and newer). So a window
may be covered or partly off the screen. Its limits: a game in exclusive full screen is black, as some with copy
protection are; a frame takes longer than on X11; and a game that hangs holds up whoever looks at it.

What is injected reaches no window of a program that runs with higher rights.
"""

import ctypes
from typing import Any

import numpy as np
from jaxtyping import UInt8

from BC_training.common.errors import UserError
from BC_training.games.window import windows_api as w
from BC_training.games.window.desktop import Geometry, NotShown, Region, WindowInfo, WindowQuery, choose
from BC_training.games.window.windows_input import WindowsInput

_LONGEST_TITLE = 512


class WindowsDesktop(WindowsInput):
    """See ``Desktop``.

    Args:
        api: the calls of ``windows_api.py``; None for those of this system.

    Raises:
        UserError: this is not Windows, or nobody is logged in.
    """

    def __init__(self, api: Any = None):
        api = api or w.load()
        # Pixels are pixels of the screen, whatever the scaling; it fails where they are already.
        api.SetProcessDpiAwarenessContext(w.PER_MONITOR_AWARE_V2)
        self._canvas_of: tuple[int, int] | None = None  # (width, height)
        super().__init__(api)

    def close(self) -> None:
        self._drop_canvas()
        super().close()

    def windows(self) -> list[WindowInfo]:
        found: list[int] = []

        def note(window: int, _: int) -> int:
            found.append(window)
            return 1

        self._api.EnumWindows(w.ENUM_WINDOWS(note), 0)
        shown = (window for window in found if self._api.IsWindowVisible(window) and not self._is_cloaked(window))
        return [info for window in shown if (info := self._info(window)).title]

    def find(self, what: WindowQuery) -> WindowInfo:
        if what.window is not None and self._api.IsWindow(what.window):
            return self._info(what.window)
        return choose(self.windows(), what)

    def _info(self, window: int) -> WindowInfo:
        title, pid = ctypes.create_unicode_buffer(_LONGEST_TITLE), ctypes.c_uint32()
        self._api.GetWindowTextW(window, title, _LONGEST_TITLE)
        self._api.GetWindowThreadProcessId(window, ctypes.byref(pid))
        return WindowInfo(window, title.value, pid.value)

    def _is_cloaked(self, window: int) -> bool:
        """Whether nobody can see it though it is not hidden, as an app that sleeps."""
        cloaked = ctypes.c_uint32()
        self._api.DwmGetWindowAttribute(window, w.DWMWA_CLOAKED, ctypes.byref(cloaked), 4)
        return bool(cloaked.value)

    def geometry(self, window: int) -> Geometry:
        area, corner = w.RECT(), w.POINT()
        if not self._api.IsWindow(window) or not self._api.GetClientRect(window, ctypes.byref(area)):
            return Geometry(0, 0, 0, 0, "closed")
        self._api.ClientToScreen(window, ctypes.byref(corner))
        is_shown = self._api.IsWindowVisible(window) and not self._api.IsIconic(window) and area.right > 0 < area.bottom
        return Geometry(corner.x, corner.y, area.right, area.bottom, "shown" if is_shown else "hidden")

    def grab(self, window: int, region: Region | None = None) -> UInt8[np.ndarray, "h w 3"]:
        place = self.geometry(window)
        part = region or Region(0, 0, place.width, place.height)
        if place.state == "shown":
            if part.x + part.width > place.width or part.y + part.height > place.height:
                size = f"{place.width}x{place.height}"
                raise UserError(f"region {part} is not within the window, which has {size} pixels")
            self._resize_canvas(place.width, place.height)
            if self._api.PrintWindow(window, self._canvas, w.PW_CLIENTONLY | w.PW_RENDERFULLCONTENT):
                self._api.GdiFlush()
                picture = self._pixels[part.y : part.y + part.height, part.x : part.x + part.width].copy()
                return picture[..., 2::-1]
        state = "closed" if self.geometry(window).state == "closed" else "hidden"
        remedy = "start the game again" if state == "closed" else "show it again"
        raise NotShown(f"the window {window:#x} is {state}: {remedy}", state)

    def _resize_canvas(self, width: int, height: int) -> None:
        """Makes what PrintWindow draws on, uint8 [height, width, 4], blue, green, red and an unused byte."""
        if self._canvas_of == (width, height):
            return
        self._drop_canvas()
        header = w.BITMAPINFOHEADER(ctypes.sizeof(w.BITMAPINFOHEADER), width, -height, 1, 32)  # from the top down
        bits = ctypes.c_void_p()
        self._canvas = self._api.CreateCompatibleDC(None)
        self._bitmap = self._api.CreateDIBSection(self._canvas, ctypes.byref(header), 0, ctypes.byref(bits), None, 0)
        if not self._bitmap or not bits.value:
            self._api.DeleteDC(self._canvas)
            raise UserError(f"Windows has no memory for a picture of {width}x{height} pixels: close other programs")
        self._api.SelectObject(self._canvas, self._bitmap)
        memory = (ctypes.c_uint8 * 4 * width * height).from_address(bits.value)
        self._pixels, self._canvas_of = np.ctypeslib.as_array(memory), (width, height)

    def _drop_canvas(self) -> None:
        if self._canvas_of is not None:
            self._canvas_of = None
            self._api.DeleteDC(self._canvas)
            self._api.DeleteObject(self._bitmap)

    def has_focus(self, window: int) -> bool:
        return self._api.GetForegroundWindow() == window

    def has_pointer(self, window: int) -> bool:
        place, pointer = self.geometry(window), w.POINT()
        self._api.GetCursorPos(ctypes.byref(pointer))
        is_within = 0 <= pointer.x - place.x < place.width and 0 <= pointer.y - place.y < place.height
        over = self._api.WindowFromPoint(pointer)
        return is_within and bool(over) and self._api.GetAncestor(over, w.GA_ROOT) == window
