"""The first game pad, read while a game's window has the focus."""

import os
import time

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

import pygame
from pygame._sdl2 import controller

from BC_training.common.keybinds.play_keys import PAD_AXES, PAD_BUTTONS
from BC_training.play.live.events import Event


class Pads:
    """Opens the first pad that there is or that is plugged in.

    Args:
        hotplug: False for those alone that are there now, as a virtual one will come.
    """

    def __init__(self, hotplug: bool = True):
        # Without a window of its own SDL reads no pad, unless it is told so.
        settings = {"SDL_VIDEODRIVER": "dummy", "SDL_JOYSTICK_ALLOW_BACKGROUND_EVENTS": "1"}
        before = {name: os.environ.get(name) for name in settings}
        os.environ.update(settings)
        try:
            pygame.display.init()
            controller.init()
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
        self._pad: controller.Controller | None = None
        self._opens = True
        self.events()  # tells of those that are there
        self._opens = hotplug

    def events(self) -> list[Event]:
        """What the pad did since the last call, with the time of this one."""
        now, rows = time.perf_counter(), []
        for event in pygame.event.get():
            match event.type:
                case pygame.CONTROLLERBUTTONDOWN | pygame.CONTROLLERBUTTONUP if event.button < len(PAD_BUTTONS):
                    kind = "press" if event.type == pygame.CONTROLLERBUTTONDOWN else "release"
                    rows.append(Event(now, kind, "pad", PAD_BUTTONS[event.button], source="device"))
                case pygame.CONTROLLERAXISMOTION if event.axis < len(PAD_AXES):
                    value = max(event.value / 32767, -1.0)
                    rows.append(Event(now, "stick", "pad", PAD_AXES[event.axis], value, source="device"))
                case pygame.CONTROLLERDEVICEADDED if self._opens and self._pad is None:
                    self._pad = controller.Controller(event.device_index)
                    self._number = self._pad.as_joystick().get_instance_id()
                case pygame.CONTROLLERDEVICEREMOVED if self._pad is not None and event.instance_id == self._number:
                    self._pad = None
                    rows += [Event(now, "release", "pad", name, source="device") for name in PAD_BUTTONS]
                    rows += [Event(now, "stick", "pad", name, source="device") for name in PAD_AXES]
        return rows

    def close(self) -> None:
        controller.quit()
        pygame.quit()
