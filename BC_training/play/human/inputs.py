"""What a person does until a frame ends: events of keyboard, mouse and pad become an action."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import pygame
from pygame._sdl2 import controller

from BC_training.common.action import Action
from BC_training.common.keybinds.button_names import Button, button_of
from BC_training.common.keybinds.play_keys import PAD_AXES, PAD_BUTTONS, PUSHED, PlayKeys

_MOUSE = {1: "LEFT", 2: "MIDDLE", 3: "RIGHT", 4: "WHEELUP", 5: "WHEELDOWN", 6: "X1", 7: "X2"}


class Inputs:
    """Collects the events of a frame.

    Attributes:
        pressed: the columns of ``PlayKeys`` that were pressed since the last ``clear``.
    """

    def __init__(self, keys: PlayKeys, buttons: int):
        self._keys, self._buttons = keys, buttons
        self._down: set[Button] = set()
        self._sticks: dict[str, float] = dict.fromkeys(PAD_AXES, 0.0)
        self._pad = None
        controller.init()
        self.clear()

    def clear(self) -> None:
        """A frame begins; what is held down stays so."""
        self.pressed: set[int] = set()
        self._held = {self._keys.columns[button] for button in self._down if button in self._keys.columns}
        self._motion = [0, 0]

    def take(self, event: pygame.Event) -> str | None:
        """Notes an event.

        Returns what it means to the window: a control such as "pause", "close", "unfocused", "plugged" or "unplugged".
        """
        match event.type:
            case pygame.KEYDOWN | pygame.KEYUP:
                return self._press(_key(event.key), event.type == pygame.KEYDOWN)
            case pygame.MOUSEBUTTONDOWN | pygame.MOUSEBUTTONUP if event.button in _MOUSE:
                return self._press(("mouse", _MOUSE[event.button]), event.type == pygame.MOUSEBUTTONDOWN)
            case pygame.MOUSEMOTION:
                self._motion = [self._motion[0] + event.rel[0], self._motion[1] + event.rel[1]]
            case pygame.CONTROLLERBUTTONDOWN | pygame.CONTROLLERBUTTONUP if event.button < len(PAD_BUTTONS):
                return self._press(("pad", PAD_BUTTONS[event.button]), event.type == pygame.CONTROLLERBUTTONDOWN)
            case pygame.CONTROLLERAXISMOTION if event.axis < len(PAD_AXES):
                name = PAD_AXES[event.axis]
                self._sticks[name] = max(event.value / 32767, -1.0)
                for side, sign in (("+", 1), ("-", -1)):
                    self._press(("pad", name + side), self._sticks[name] * sign > PUSHED)
            case pygame.CONTROLLERDEVICEADDED if self._pad is None:
                self._open(event.device_index)
                return "plugged"
            case pygame.CONTROLLERDEVICEREMOVED if self._pad is not None and event.instance_id == self._number:
                self._pad = None
                self._sticks |= dict.fromkeys(PAD_AXES, 0.0)
                self._down = {button for button in self._down if button[0] != "pad"}
                return "unplugged"
            case pygame.QUIT:
                return "close"
            case pygame.WINDOWFOCUSLOST:
                return "unfocused"
        return None

    def _open(self, index: int) -> None:
        self._pad = controller.Controller(index)
        self._number = self._pad.as_joystick().get_instance_id()  # another each time that a pad is plugged in

    def _press(self, button: Button | None, down: bool) -> str | None:
        if button is None:
            return None
        button = self._keys.same_key.get(button, button)
        if not down:
            self._down.discard(button)
            return None
        if button not in self._down and button in self._keys.columns:
            self.pressed.add(self._keys.columns[button])
        self._down.add(button)
        return self._keys.controls.get(button)

    def action(self, *, pressed_only: bool = False) -> tuple[Action, bool]:
        """What was done since the last ``clear``, and whether the key for taking over was down.

        A button counts that was down at any moment.

        Args:
            pressed_only: a button counts only where it was pressed since then, as in a game that waits for a press.
        """
        columns = self.pressed if pressed_only else self.pressed | self._held
        moved = [self._axis(x, columns) for x in range(len(self._keys.axes))]
        takeover = self._buttons + 2 * len(self._keys.axes)
        return Action.of([c in columns for c in range(self._buttons)], moved), takeover in self.pressed | self._held

    def _axis(self, x: int, columns: set[int]) -> float:
        bind, less = self._keys.axes[x], self._buttons + 2 * x
        amount = float((less + 1 in columns) - (less in columns))
        if bind.pad is not None:
            stick = self._sticks[bind.pad] * bind.pad_sign
            amount += np.sign(stick) * max(abs(stick) - bind.dead_zone, 0) / (1 - bind.dead_zone)
        amount = min(max(amount, -1.0), 1.0) * bind.amount
        return amount if bind.mouse is None else amount + self._motion[bind.mouse] / bind.counts


@cache
def _key(number: int) -> Button | None:
    return button_of("key", pygame.key.name(number, use_compat=False))


def held_names(names: Sequence[str], action: Action, axes: Sequence[str]) -> str:
    """The held buttons and the axes that move, for the status line."""
    held = [name for name, down in zip(names, action.buttons, strict=True) if down]
    return " ".join(held + [f"{name} {v:+.2f}" for name, v in zip(axes, action.axes, strict=True) if v])
