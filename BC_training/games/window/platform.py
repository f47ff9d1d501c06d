"""The desktop of this machine."""

import contextlib
import sys
from collections.abc import Iterator

from BC_training.common.errors import UserError
from BC_training.games.window.desktop import Desktop


@contextlib.contextmanager
def end_is_user_error() -> Iterator[None]:
    """Turns the end of the desktop, while it is used, into a UserError."""
    ended: tuple[type[Exception], ...] = ()
    if sys.platform == "linux":
        from Xlib.error import ConnectionClosedError

        ended = (ConnectionClosedError,)
    try:
        yield
    except ended as error:
        raise UserError("the desktop has ended, and the game with it: log in and start it again") from error


def open_desktop() -> Desktop:
    """The desktop that this program runs on.

    Raises:
        UserError: there is none, the platform is not known here, or a package is missing.
    """
    if sys.platform == "win32":
        from BC_training.games.window.windows import WindowsDesktop

        return WindowsDesktop()
    if sys.platform != "linux":
        raise UserError(f"windows are captured on Linux with X11 and on Windows, not on {sys.platform}")
    try:
        from BC_training.games.window.x11 import X11Desktop
    except ImportError as error:
        raise UserError(f"windows are captured with another package ({error.name}): uv sync --extra window") from error
    return X11Desktop()
