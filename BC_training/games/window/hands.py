"""Actions become keys, mouse buttons and motion in a window."""

from collections.abc import Sequence

from BC_training.common.action import Action
from BC_training.common.errors import UserError
from BC_training.common.keybinds.button_names import Button
from BC_training.common.keybinds.play_keys import PlayKeys
from BC_training.games.window.desktop import WHEEL, Desktop


class Hands:
    """Holds and moves what actions say, and only while the window has the focus.

    A button of the game is pressed by the first key or mouse button that is bound to it. The wheel turns by a notch in
    each frame in which an action holds it. An axis that has a mouse moves that; another presses "less" or "more" from
    half their amount on.

    Args:
        buttons, axes: the names of the game's.

    Raises:
        UserError: something is bound to a pad alone.
    """

    def __init__(self, desktop: Desktop, window: int, keys: PlayKeys, buttons: Sequence[str], axes: Sequence[str]):
        self._desktop, self._window, self._keys = desktop, window, keys
        self._pressed_by: dict[int, Button] = {}
        for button, column in keys.columns.items():
            if button[0] != "pad":
                self._pressed_by.setdefault(column, button)
        needed = {f"button '{name}'": {i} for i, name in enumerate(buttons)}
        for x, name in enumerate(axes):
            sides = {len(buttons) + 2 * x, len(buttons) + 2 * x + 1}
            needed[f"axis '{name}'"] = sides if keys.axes[x].mouse is None else set()
        for what, columns in needed.items():
            if not columns <= self._pressed_by.keys():
                raise UserError(f"{what} is bound to a pad alone, which is not played here: bind keys or the mouse")
        self._buttons = len(buttons)
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
        for x, amount in enumerate(action.axes):
            bind, less = self._keys.axes[x], self._buttons + 2 * x
            if bind.mouse is not None:
                self._owed[bind.mouse] += float(amount) * bind.counts
            elif abs(amount) >= bind.amount / 2:
                wanted.add(self._pressed_by[less + (amount > 0)])
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
        self._held, self._owed = set(), [0.0, 0.0]
