"""Actions become keys, mouse buttons and motion in a window, and what a game pad does."""

import importlib
import math
from collections.abc import Collection, Mapping, Sequence

from BC_training.common.action import Action
from BC_training.common.errors import UserError, first_line
from BC_training.common.keybinds.button_names import Button
from BC_training.common.keybinds.play_keys import PAD_AXES, PAD_BUTTONS, PlayKeys
from BC_training.games.window.desktop import WHEEL, Desktop

# Whoever holds Alt never presses these.
_ALT = {("key", "LALT"), ("key", "RALT")}
_DENIED_WITH_ALT = {("key", "TAB"), ("key", "F4")}
# vgamepad's names of PAD_BUTTONS, where they are others.
_XUSB = {"LEFTSTICK": "LEFT_THUMB", "RIGHTSTICK": "RIGHT_THUMB"}
_XUSB |= {"LEFTSHOULDER": "LEFT_SHOULDER", "RIGHTSHOULDER": "RIGHT_SHOULDER"}


class Hands:
    """Holds and moves what actions say, and only while the window has the focus.

    A button of the game is pressed by the first key or mouse button that is bound to it. The wheel turns by a notch in
    each frame in which an action holds it. An axis that has a mouse moves that; another presses "less" or "more" from
    half their amount on. A virtual pad does what is bound to a pad alone. Alt+Tab and Alt+F4 are never pressed.

    Args:
        buttons, axes: the names of the game's.

    Raises:
        UserError: something is bound to a pad alone, and there can be none; see ``VirtualPad``.
    """

    def __init__(self, desktop: Desktop, window: int, keys: PlayKeys, buttons: Sequence[str], axes: Sequence[str]):
        self._desktop, self._window, self._keys = desktop, window, keys
        by_pad_last = sorted(keys.columns.items(), key=lambda item: item[0][0] == "pad")
        self._pressed_by = {column: button for button, column in reversed(by_pad_last)}
        self._buttons, pressed = len(buttons), set(range(len(buttons)))
        self._sticks: set[int] = set()  # the axes that are a stick's or a trigger's
        for x, axis in enumerate(keys.axes):
            sides = {len(buttons) + 2 * x, len(buttons) + 2 * x + 1}
            if axis.mouse is None and axis.pad is not None and not sides <= self._pressed_by.keys():
                self._sticks.add(x)
            elif axis.mouse is None:
                pressed |= sides & self._pressed_by.keys()
        uses_pad = bool(self._sticks) or any(self._pressed_by[column][0] == "pad" for column in pressed)
        self._pad = VirtualPad() if uses_pad else None
        self._held: set[Button] = set()
        self._owed = [0.0, 0.0]  # parts of a count that the mouse was not moved yet

    def do(self, action: Action) -> bool:
        """Does an action until the next one; returns False, with all released, where the window has no focus.

        Buttons of the mouse are left out while the pointer is over another window.
        """
        if not self._desktop.has_focus(self._window):
            self.rest()
            return False
        wanted = {self._pressed_by[i] for i, is_held in enumerate(action.buttons) if is_held}
        sticks: dict[str, float] = {}
        for x, amount in enumerate(action.axes):
            bind, less = self._keys.axes[x], self._buttons + 2 * x
            if bind.mouse is not None:
                self._owed[bind.mouse] += float(amount) * bind.counts
            elif x in self._sticks and bind.pad is not None:
                share = float(amount) / bind.amount
                # So that the game's stick is where it was when a recording got this amount.
                place = abs(share) * (1 - bind.dead_zone) + bind.dead_zone if share else 0.0
                sticks[bind.pad] = math.copysign(place, share * bind.pad_sign)
            elif abs(amount) >= bind.amount / 2 and (side := less + (amount > 0)) in self._pressed_by:
                wanted.add(self._pressed_by[side])
        if wanted & _ALT:
            wanted -= _DENIED_WITH_ALT
        if self._pad is not None:
            self._pad.do({name for device, name in wanted if device == "pad"}, sticks)
            wanted = {button for button in wanted if button[0] != "pad"}
        if any(device == "mouse" for device, _ in wanted) and not self._desktop.has_pointer(self._window):
            wanted = {button for button in wanted if button[0] != "mouse"}
        counts = [round(owed) for owed in self._owed]
        if any(counts):  # before the clicks: what a frame aims at is hit in that frame
            self._desktop.move(*counts)
        self._owed = [owed - count for owed, count in zip(self._owed, counts, strict=True)]
        for button in self._held - wanted:
            self._desktop.release(button)
        for button in wanted - self._held:
            self._desktop.press(button)
        self._held = wanted - WHEEL.keys()
        return True

    def rest(self) -> None:
        """Releases all."""
        self._desktop.release_all()
        if self._pad is not None:
            self._pad.do((), {})
        self._held, self._owed = set(), [0.0, 0.0]


class VirtualPad:
    """A game pad that is none, which programs take for an Xbox 360 controller. It is gone with this program.

    Raises:
        UserError: the package is missing, or what it needs of the system.
    """

    def __init__(self) -> None:
        try:
            library = importlib.import_module("vgamepad")
            self._pad = library.VX360Gamepad()
        except ImportError as error:
            raise UserError(
                f"a pad is pressed with other packages ({error.name}): uv pip install vgamepad libevdev; or bind keys "
                "or the mouse to what is bound to a pad alone"
            ) from error
        except Exception as error:  # the library has no type of its own
            raise UserError(
                f"there can be no virtual pad here ({first_line(error)}): on Linux install libevdev2, load the module "
                "uinput and get the right to write to /dev/uinput, on Windows install ViGEmBus; or bind keys"
            ) from error
        self._numbers = {name: library.XUSB_BUTTON[f"XUSB_GAMEPAD_{_XUSB.get(name, name)}"] for name in PAD_BUTTONS}

    def do(self, held: Collection[str], sticks: Mapping[str, float]) -> None:
        """What it does from now on.

        Args:
            held: of ``PAD_BUTTONS``, and ends of ``PAD_AXES`` such as "LEFTX+".
            sticks: where those of ``PAD_AXES`` are, from -1 to 1; the others are at rest.
        """
        for name, number in self._numbers.items():
            (self._pad.press_button if name in held else self._pad.release_button)(number)
        at = {name: sticks.get(name, 0.0) + (f"{name}+" in held) - (f"{name}-" in held) for name in PAD_AXES}
        at = {name: max(min(place, 1.0), -1.0) for name, place in at.items()}
        self._pad.left_joystick_float(at["LEFTX"], -at["LEFTY"])  # up is more there, and less in SDL
        self._pad.right_joystick_float(at["RIGHTX"], -at["RIGHTY"])
        self._pad.left_trigger_float(max(at["TRIGGERLEFT"], 0.0))
        self._pad.right_trigger_float(max(at["TRIGGERRIGHT"], 0.0))
        self._pad.update()
