"""The window that shows a game to the person who plays it."""

import os
import time
from collections.abc import Sequence

import numpy as np

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

import pygame
from pygame._sdl2 import controller

from BC_training.common.errors import UserError, first_line

_WITHOUT_SCREEN = ("offscreen", "dummy")  # SDL takes these by itself where there is no display
_SHARE = 0.85  # of the desktop that a window takes at most
_LINE = 22  # pixels


def require_display() -> tuple[int, int]:
    """The size of the desktop in pixels, on which windows can be opened from here on; a UserError without a display."""
    try:
        pygame.display.init()
        driver = pygame.display.get_driver()
        if driver in _WITHOUT_SCREEN and os.environ.get("SDL_VIDEODRIVER") != driver:
            raise UserError("SDL found none")
        return pygame.display.get_desktop_sizes()[0]
    except (pygame.error, UserError) as error:
        pygame.display.quit()
        raise UserError(
            f"there is no display to open a window on ({first_line(error)}): play on a desktop, or set DISPLAY"
        ) from error


class Window:
    """A picture, scaled up, and lines of text under it.

    Args:
        title: of the window.
        size: (H, W) of the pictures in pixels.
        lines: how many lines of text there are.

    Raises:
        UserError: there is no display.
    """

    def __init__(self, title: str, size: tuple[int, int], lines: int):
        desktop = require_display()
        pygame.font.init()
        self._font, self._lines = pygame.font.Font(None, _LINE), lines
        room = desktop[0] * _SHARE / size[1], (desktop[1] * _SHARE - lines * _LINE) / size[0]
        scale = min(room)
        scale = int(scale) if scale >= 1 else scale  # whole pixels where they fit
        width, height = max(int(size[1] * scale), 480), int(size[0] * scale) + lines * _LINE
        self._screen = pygame.display.set_mode((width, height), pygame.RESIZABLE)
        pygame.display.set_caption(title)

    def show(self, picture: np.ndarray, lines: Sequence[str]) -> None:
        """Shows a picture, uint8 [H, W, 3], as large as fits, and the lines."""
        height, width = picture.shape[:2]
        image = pygame.image.frombuffer(np.ascontiguousarray(picture).data, (width, height), "RGB")
        room = self._screen.get_width(), self._screen.get_height() - self._lines * _LINE
        scale = max(min(room[0] / width, room[1] / height), 0.05)
        size = int(width * scale), int(height * scale)
        self._screen.fill((20, 20, 20))
        left = (room[0] - size[0]) // 2
        self._screen.blit(pygame.transform.scale(image, size), (left, 0))
        for i, line in enumerate(lines):
            text = self._font.render(line, True, (230, 230, 230))
            self._screen.blit(text, (6, room[1] + i * _LINE + 3))
        pygame.display.flip()

    def next_event(self, seconds: float) -> pygame.Event | None:
        """The next event, or None once the time is over and all that came is taken."""
        until = time.monotonic() + seconds
        event = pygame.event.wait(whole) if (whole := int(seconds * 1000)) > 0 else pygame.event.poll()
        if event.type == pygame.NOEVENT and seconds > 0:
            time.sleep(max(until - time.monotonic(), 0))  # the rest of a millisecond
            event = pygame.event.poll()
        return None if event.type == pygame.NOEVENT else event

    def capture(self, mouse: bool) -> None:
        """Keeps the mouse in the window and hides it, or lets it go."""
        pygame.event.set_grab(mouse)
        pygame.mouse.set_visible(not mouse)

    def close(self) -> None:
        controller.quit()  # pygame.quit() forgets it, and the next window would have no pads
        pygame.quit()
