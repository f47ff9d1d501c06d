"""Windows on Linux with X11.

Frames are MIT-SHM images of a window's own pixmap, which the Composite extension keeps: covered or partly off the
screen, it is whole. It is named anew for each frame, as a pixmap that was named before the window was hidden or resized
stays as it was for ever.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from Xlib import X, Xatom, error
from Xlib.ext import composite

from BC_training.common.errors import UserError
from BC_training.games.window.desktop import (
    Geometry,
    NotShown,
    Region,
    WindowInfo,
    WindowQuery,
    WindowState,
    choose,
)
from BC_training.games.window.x11_input import X11Input
from BC_training.games.window.x11_picture import SharedPictures

_TRIES = 5  # to read a window that is being resized
_GONE = (error.BadWindow, error.BadDrawable)


class X11Desktop(X11Input):
    """See ``Desktop``.

    Args:
        display: such as ":0"; None for the one that DISPLAY names.

    Raises:
        UserError: there is no display, or it lacks what is needed.
    """

    def __init__(self, display: str | None = None):
        super().__init__(display)
        self._watched: set[int] = set()
        self._iconic: dict[int, bool] = {}  # whether a window is minimised, as far as nothing changed since
        self._pictures: SharedPictures | None = None
        try:
            self._pictures = SharedPictures(self._display.get_display_name())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._pictures is not None:
            self._pictures.close()
        super().close()

    def windows(self) -> list[WindowInfo]:
        listed = self._property(self._root, "_NET_CLIENT_LIST", Xatom.WINDOW)
        ids = list(listed) if listed is not None else list(self._named_below(self._root))
        return [window for i in ids if (window := self._info(i)) is not None]

    def find(self, what: WindowQuery) -> WindowInfo:
        if what.window is not None and (window := self._info(what.window)) is not None:
            return window  # also one that no window manager lists
        return choose(self.windows(), what)

    def _info(self, window: int) -> WindowInfo | None:
        """None for what is no window, or has no title."""
        found = self._window(window)
        try:
            title = self._title(found)
            pid = self._property(found, "_NET_WM_PID", Xatom.CARDINAL)
        except _GONE:
            return None
        return WindowInfo(window, title, int(pid[0]) if pid else None) if title else None

    def _title(self, window: Any) -> str | None:
        for name in ("_NET_WM_NAME", "WM_NAME"):
            found = window.get_full_property(self._atom(name), X.AnyPropertyType)
            if found is not None and found.format == 8 and found.value:
                encoding = "latin-1" if found.property_type == Xatom.STRING else "utf-8"
                return found.value.decode(encoding, "replace")
        return None

    def _named_below(self, parent: Any) -> Iterator[int]:
        """The windows that are shown and have a title, where no window manager lists them."""
        for child in parent.query_tree().children:
            try:
                if child.get_attributes().map_state != X.IsViewable:
                    continue
                if self._title(child):
                    yield child.id
                else:
                    yield from self._named_below(child)
            except _GONE:
                continue

    def geometry(self, window: int) -> Geometry:
        found = self._window(window)
        try:
            size = found.get_geometry()
            corner = found.translate_coords(self._root, 0, 0)
            return Geometry(-corner.x, -corner.y, size.width, size.height, self._state(window))
        except _GONE:
            return Geometry(0, 0, 0, 0, "closed")

    def _state(self, window: int) -> WindowState:
        try:
            self._watch(window)
            is_shown = self._window(window).get_attributes().map_state == X.IsViewable
        except _GONE:
            return "closed"
        return "shown" if is_shown and not self._is_iconic(window) else "hidden"

    def _is_iconic(self, window: int) -> bool:
        """Whether it is minimised: some desktops go on to draw such a window."""
        self._read()
        if window not in self._iconic:
            states = self._property(self._window(window), "_NET_WM_STATE", Xatom.ATOM)
            self._iconic[window] = states is not None and self._atom("_NET_WM_STATE_HIDDEN") in states
        return self._iconic[window]

    def _watch(self, window: int) -> None:
        """Keeps a pixmap of a window from now on, and hears when it is minimised."""
        if window not in self._watched:
            self._watched.add(window)
            self._window(window).composite_redirect_window(composite.RedirectAutomatic)
            self._window(window).change_attributes(event_mask=X.PropertyChangeMask)

    def grab(self, window: int, region: Region | None = None) -> UInt8[np.ndarray, "h w 3"]:
        self._watch(window)
        found = self._window(window)
        for _ in range(_TRIES):
            unnamed = error.CatchError()
            pixmap = found.composite_name_window_pixmap(onerror=unnamed)
            try:
                size = found.get_geometry()  # answered after the naming
                if unnamed.get_error() is None and not self._is_iconic(window):
                    picture = self._picture(pixmap.id, size, region)
                    if picture is not None:
                        return picture[..., 2::-1]
                    continue  # it was resized in between
            except _GONE:
                pass
            finally:
                pixmap.free()
            if (state := self._state(window)) != "shown":
                remedy = "start the game again" if state == "closed" else "show it again"
                raise NotShown(f"the window {window:#x} is {state}: {remedy}", state)
        raise NotShown(f"the window {window:#x} cannot be read, as it changes all the time", "hidden")

    def _picture(self, pixmap: int, size: Any, region: Region | None) -> UInt8[np.ndarray, "h w 4"] | None:
        assert self._pictures is not None
        part = region or Region(0, 0, size.width, size.height)
        if part.x + part.width > size.width or part.y + part.height > size.height:
            raise UserError(f"region {part} is not within the window, which has {size.width}x{size.height} pixels")
        if size.depth not in (24, 32):
            raise UserError(f"the display has {size.depth} bits a pixel: windows are captured with 24 or 32")
        border = size.border_width
        return self._pictures.read(pixmap, part.x + border, part.y + border, part.width, part.height)

    def has_focus(self, window: int) -> bool:
        focus = self._display.get_input_focus().focus
        if focus == X.PointerRoot:
            return self.has_pointer(window)
        try:
            while not isinstance(focus, int) and focus.id != self._root.id:
                if focus.id == window:
                    return True
                focus = focus.query_tree().parent
        except _GONE:
            pass  # it changes now
        return False

    def has_pointer(self, window: int) -> bool:
        found = self._root
        try:
            while found.id != window:
                found = found.query_pointer().child
                if isinstance(found, int):
                    return False
        except _GONE:
            return False
        return True

    def _note(self, event: Any) -> None:
        if event.type == X.PropertyNotify:
            self._iconic.pop(event.window.id, None)

    def _window(self, window: int) -> Any:
        return self._display.create_resource_object("window", window)

    def _atom(self, name: str) -> int:
        return self._display.get_atom(name)

    def _property(self, window: Any, name: str, kind: int) -> Sequence[int] | None:
        found = window.get_full_property(self._atom(name), kind)
        return None if found is None else found.value
