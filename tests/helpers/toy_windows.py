"""Small windows of an X server, and a window manager."""

import contextlib
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from Xlib import XK, X, Xatom
from Xlib.display import Display
from Xlib.protocol import event
from Xlib.xobject.drawable import Window

SHOWN = X.KeyPressMask | X.KeyReleaseMask | X.ButtonPressMask | X.ButtonReleaseMask | X.StructureNotifyMask


class ToyWindow:
    """A window in one colour, which it keeps, that notes the keys and buttons that reach it."""

    def __init__(self, title: str, size=(120, 80), place=(50, 40), colour=0xFF0000):
        self._display = Display()
        root = self._display.screen().root
        self._window = root.create_window(
            *place, *size, 0, X.CopyFromParent, background_pixel=colour, event_mask=SHOWN, border_pixel=0
        )
        self._window.set_wm_name(title.encode("latin-1", "replace"))
        self._window.set_wm_normal_hints(flags=1, x=place[0], y=place[1])  # 1: the place is the user's wish
        self._set("_NET_WM_NAME", "UTF8_STRING", 8, title.encode())
        self._set("_NET_WM_PID", "CARDINAL", 32, [os.getpid()])
        self.show()

    def _set(self, name: str, kind: str, bits: int, value) -> None:
        self._window.change_property(self._display.get_atom(name), self._display.get_atom(kind), bits, value)

    @property
    def id(self) -> int:
        return self._window.id

    def show(self) -> None:
        self._window.map()
        wait_until(lambda: _is_shown(self._window) and self._is_listed())

    def _is_listed(self) -> bool:
        """Whether a window manager, if there is one, knows the window."""
        root = self._display.screen().root
        managed, listed = (
            root.get_full_property(self._display.get_atom(name), X.AnyPropertyType)
            for name in ("_NET_SUPPORTING_WM_CHECK", "_NET_CLIENT_LIST")
        )
        return managed is None or (listed is not None and self._window.id in listed.value)

    def hide(self) -> None:
        self._window.unmap()
        self._display.sync()

    def minimise(self) -> None:
        """Asks the window manager."""
        root, change = self._display.screen().root, self._display.get_atom("WM_CHANGE_STATE")
        message = event.ClientMessage(window=self._window, client_type=change, data=(32, [3, 0, 0, 0, 0]))
        root.send_event(message, event_mask=X.SubstructureRedirectMask | X.SubstructureNotifyMask)
        wait_until(lambda: not _is_shown(self._window))

    def paint(self, colour: int, x: int = 0, y: int = 0, width: int = 4000, height: int = 4000) -> None:
        """Fills a part; the rest and all that appears later stay in the window's own colour."""
        self._window.fill_rectangle(self._window.create_gc(foreground=colour), x, y, width, height)
        self._display.sync()

    def place(self, **where: int) -> None:
        """Moves it or gives it another size; a window manager does so later."""
        self._window.configure(**where)

        def is_there() -> bool:
            of_frame, own = self._frame().get_geometry(), self._window.get_geometry()
            return all(getattr(own if name in ("width", "height") else of_frame, name) == where[name] for name in where)

        wait_until(is_there)

    def cover(self) -> None:
        """Puts it above all others; a window manager does so later."""
        self._window.configure(stack_mode=X.Above)
        root = self._display.screen().root

        def seen() -> list[Window]:  # a window manager keeps one of a pixel on top
            return [w for w in root.query_tree().children if _is_shown(w) and w.get_geometry().width > 1]

        wait_until(lambda: self._frame() == seen()[-1])

    def _frame(self) -> Window:
        """The child of the screen that has it: what a window manager put around it, or itself."""
        window = self._window
        while (parent := window.query_tree().parent) != self._display.screen().root:
            window = parent
        return window

    def focus(self) -> None:
        self._window.set_input_focus(X.RevertToParent, X.CurrentTime)
        self._display.sync()

    def corner(self, x: int = 0, y: int = 0) -> tuple[int, int]:
        """Where its pixel (x, y) is on the screen."""
        root = self._display.screen().root
        place = root.translate_coords(self._window, x, y)
        return place.x, place.y

    def take_mouse(self) -> None:
        """As games do that turn by the mouse."""
        events = X.ButtonPressMask | X.PointerMotionMask
        self._window.grab_pointer(True, events, X.GrabModeAsync, X.GrabModeAsync, self._window, X.NONE, X.CurrentTime)
        self._display.sync()

    def seen(self) -> list[tuple[int, int]]:
        """The type of each key or button that reached it since the last call, with its number."""
        self._display.sync()
        events = [self._display.next_event() for _ in range(self._display.pending_events())]
        kinds = (X.KeyPress, X.KeyRelease, X.ButtonPress, X.ButtonRelease)
        return [(e.type, e.detail) for e in events if e.type in kinds]

    def destroy(self) -> None:
        self._window.destroy()
        self._display.sync()

    def close(self) -> None:
        self._display.close()


def _is_shown(window: Window) -> bool:
    return window.get_attributes().map_state == X.IsViewable


class ReactingWindow(ToyWindow):
    """A game: white while a key is held that it knows, and else a pattern that goes where the mouse goes.

    Args:
        delays: seconds from a press to its effect, by the keys' names in X11.
        is_accelerated: whether the pattern goes a quarter further if the mouse moves far at once.
        lasts: how many presses of keys it knows until it closes.
        blinks: seconds after which a quarter of it becomes black or white, whatever else is shown; 0 for never.
    """

    def __init__(
        self, title: str, delays: Mapping[str, float], is_accelerated=False, lasts=10_000, blinks=0.0, **options
    ):
        super().__init__(title, colour=0, **options)
        self._blinks = blinks
        self._delays, self._is_accelerated, self._lasts = delays, is_accelerated, lasts
        self._is_over, self._is_ready = threading.Event(), threading.Event()
        self._game = threading.Thread(target=self._play, daemon=True)
        self._game.start()
        assert self._is_ready.wait(20)

    def _play(self) -> None:
        colours = np.random.default_rng(0).integers(0, 256, 500).repeat(3).reshape(500, 3) @ [1 << 16, 1 << 8, 1]
        with contextlib.closing(Display()) as display:
            window, at, place, left = display.create_resource_object("window", self.id), None, 0, self._lasts
            window.change_attributes(event_mask=X.KeyPressMask | X.KeyReleaseMask | X.PointerMotionMask)
            codes = {display.keysym_to_keycode(XK.string_to_keysym(key)): s for key, s in self._delays.items()}
            pen = window.create_gc(foreground=0)

            def draw() -> None:
                for column in range(-1, 101):  # of 4 pixels
                    pen.change(foreground=int(colours[(column - place // 4) % 500]))
                    window.fill_rectangle(pen, 4 * column + place % 4, 0, 4, 300)
                display.sync()

            draw()
            self._is_ready.set()
            while not self._is_over.wait(0.001):
                while display.pending_events():
                    happened = display.next_event()
                    if happened.type == X.MotionNotify:
                        moved = happened.root_x - (happened.root_x if at is None else at)
                        at = happened.root_x
                        place += 5 * moved // 4 if self._is_accelerated and abs(moved) > 50 else moved
                        draw()
                    elif happened.type == X.KeyPress and happened.detail in codes:
                        time.sleep(codes[happened.detail])
                        pen.change(foreground=0xFFFFFF)
                        window.fill_rectangle(pen, 0, 0, 400, 300)
                        left -= 1
                    elif happened.type == X.KeyRelease and happened.detail in codes:
                        draw()
                if self._blinks:
                    pen.change(foreground=0xFFFFFF * (int(time.monotonic() / self._blinks) % 2))
                    window.fill_rectangle(pen, 0, 0, 100, 300)
                if not left:
                    window.destroy()
                    left -= 1
                display.sync()

    def close(self) -> None:
        self._is_over.set()
        self._game.join()
        super().close()


class WalkingWindow(ToyWindow):
    """A game of one place, "x": it grows while "d" is held, "r" makes it 0. It is sent two hundred times a second.

    Without the focus it holds nothing, as games do.

    Attributes:
        address: where it is sent to, HOST:PORT.
        at: where it is.
        pressed: the keys that were pressed, in order, as X11 names them.
        is_held: whether "d" is.
    """

    SPEED = 10.0  # a second

    def __init__(self, title: str, **options):
        super().__init__(title, colour=0x404040, **options)
        with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as free:
            free.bind(("127.0.0.1", 0))
            self._to = free.getsockname()
        self.address, self.at, self.pressed, self.is_held = f"127.0.0.1:{self._to[1]}", 0.0, [], False
        self._is_over, self._is_silent, self._is_ready = threading.Event(), threading.Event(), threading.Event()
        self._game = threading.Thread(target=self._play, daemon=True)
        self._game.start()
        assert self._is_ready.wait(20)

    def be_silent(self, is_so: bool = True) -> None:
        """Sends nothing from now on, or sends again."""
        (self._is_silent.set if is_so else self._is_silent.clear)()

    def _play(self) -> None:
        sender, before = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), time.monotonic()
        with contextlib.closing(Display()) as display, contextlib.closing(sender):
            display.create_resource_object("window", self.id).change_attributes(
                event_mask=X.KeyPressMask | X.KeyReleaseMask | X.FocusChangeMask
            )
            display.change_keyboard_control(auto_repeat_mode=X.AutoRepeatModeOff)  # no releases of what is held
            names = ("d", "r", "Escape", "Alt_L", "F4")
            keys = {display.keysym_to_keycode(XK.string_to_keysym(key)): key for key in names}
            display.sync()
            self._is_ready.set()
            while not self._is_over.wait(0.005):
                while display.pending_events():
                    happened = display.next_event()
                    self.is_held = self.is_held and happened.type != X.FocusOut
                    if happened.type not in (X.KeyPress, X.KeyRelease):
                        continue
                    key = keys.get(happened.detail)
                    if happened.type == X.KeyPress:
                        self.pressed.append(key)
                    if key == "d":
                        self.is_held = happened.type == X.KeyPress
                    elif key == "r":
                        self.at = 0.0
                now = time.monotonic()
                if self.is_held:
                    self.at += self.SPEED * (now - before)
                before = now
                if not self._is_silent.is_set():
                    sender.sendto(json.dumps({"x": self.at}).encode(), self._to)

    def close(self) -> None:
        self._is_over.set()
        self._game.join()
        super().close()


@contextlib.contextmanager
def openbox(home: Path) -> Iterator[None]:
    """The window manager, until it shows windows and until it is gone."""
    environment = os.environ | {"HOME": str(home), "XDG_CONFIG_HOME": str(home)}
    process = subprocess.Popen(
        ["openbox", "--sm-disable"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        with contextlib.closing(Display()) as display:
            check, root = display.get_atom("_NET_SUPPORTING_WM_CHECK"), display.screen().root
            wait_until(lambda: root.get_full_property(check, Xatom.WINDOW) is not None)
            first = root.create_window(0, 0, 9, 9, 0, X.CopyFromParent)

            def shows() -> bool:  # it forgets windows that appear while it starts
                first.unmap()
                first.map()
                display.sync()
                time.sleep(0.05)
                return _is_shown(first)

            wait_until(shows)
            first.destroy()
        yield
    finally:
        process.terminate()
        process.wait()


def wait_until(is_so: Callable[[], bool], seconds: float = 20) -> None:
    """Returns as soon as ``is_so()``; fails after so many seconds."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.005)
