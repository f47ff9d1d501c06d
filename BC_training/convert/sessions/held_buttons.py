"""Finds which actions' buttons were held in which frame, from presses and releases.

A button is held from its press to its release, however long that is; presses in between are repeats.
Where the press or the release is missing, the button is assumed to be held for ``UNMATCHED_SECONDS``:

- before a release without a press, but not from before the previous release;
- after a press without a release, or one that another press follows after a longer time. A repeat is a
  press, too, so a repeated button is held until that long after its last repeat.

Events whose other half may lie before the video's beginning or after its end are not listed as unmatched.
"""

from collections import Counter
from pathlib import Path

import numpy as np

from BC_training.common.errors import UserError
from BC_training.common.keybinds.button_names import Button, also_named, is_character, shown
from BC_training.common.keybinds.file import Keybinds
from BC_training.convert.sessions.tables import Inputs

UNMATCHED_SECONDS = 1.5  # above the longest wait for the first repeat that Windows offers, 1 s
_LISTED = 8  # buttons or events named in a line
_MANY = 10  # so many unmatched events are no accident

Unmatched = tuple[float, Button, bool]  # time in microseconds, button, whether it is a press


def held_actions(
    inputs: Inputs, columns: dict[Button, int], actions: int, edges: np.ndarray
) -> tuple[np.ndarray, list[Unmatched]]:
    """bool [N, actions], whether an action's button was held at any moment of a frame, and the unmatched events.

    These are the bound buttons' presses and releases without the other half, in order of time. Frame k is shown from
    edges[k] until edges[k + 1]: ``edges`` is float64 [N + 1], microseconds.
    """
    bound = UNMATCHED_SECONDS * 1e6
    held = np.zeros((len(edges) - 1, actions), bool)
    holds: dict[Button, tuple[float, float]] = {}  # a held button's first and last press
    released: dict[Button, float] = {}
    unmatched: list[Unmatched] = []

    def mark(button: Button, down: float, up: float) -> None:
        if button not in columns:
            return
        first = int(np.searchsorted(edges[1:], down, side="right"))
        last = int(np.searchsorted(edges[:-1], up, side="left"))
        if down >= edges[0]:  # even the shortest press counts
            last = max(last, first + 1)
        held[first:last, columns[button]] = True

    def lose_release(button: Button) -> None:
        first, last = holds.pop(button)
        unmatched.append((last, button, True))
        mark(button, first, last + bound)

    for time, button, down in zip(inputs.times, inputs.buttons, inputs.down, strict=True):
        if down:
            if button in holds and time - holds[button][1] > bound:
                lose_release(button)
            holds[button] = holds.get(button, (time, time))[0], time
            continue
        button = next((other for other in (button, *also_named(button)) if other in holds), button)
        if button in holds:
            mark(button, holds.pop(button)[0], time)
        else:
            since = max(time - bound, released.get(button, -np.inf))
            if since < time:
                mark(button, since, time)
            if button in released or since > edges[0]:
                unmatched.append((time, button, False))
        released[button] = time
    for button, (first, last) in list(holds.items()):
        if last + bound >= edges[-1]:
            mark(button, first, np.inf)
        else:
            lose_release(button)
    return held, sorted(event for event in unmatched if event[1] in columns)


def identify(inputs: Inputs, binds: Keybinds, path: Path) -> tuple[list[Button], list[str]]:
    """E buttons, where every key has one name, the bound one if it has that, and notes for the user, one line each.

    Keys are recognised by their codes if the recorder wrote them, otherwise by their names with and without Shift.
    Raises a UserError if the names of one code are bound to several actions.
    """
    renamed, notes = _by_code(inputs, binds, path)
    keys, shifted = [], Counter[tuple[Button, Button]]()
    for button, code, down in zip(inputs.buttons, inputs.codes or [""] * len(inputs.buttons), inputs.down, strict=True):
        key = renamed.get((code, button), button)
        if (base := binds.same_key.get(key)) is not None:
            shifted[key, base] += bool(down)
            key = base
        keys.append(key)
    if shifted := +shifted:
        listed = ", ".join(f"{count} of {shown(key)} as {shown(base)}" for (key, base), count in shifted.items())
        notes.append(f"presses with Shift are taken for those of a US keyboard: {listed}")
    return keys, notes


def require_both_halves(inputs: Inputs, binds: Keybinds, unmatched: list[Unmatched], path: Path) -> None:
    """Raises a UserError if only presses or only releases were recorded."""
    halves = {bool(down) for button, down in zip(inputs.buttons, inputs.down, strict=True) if button in binds.columns}
    if len(halves) == 1 and len(unmatched) >= _MANY:
        there, lacks = ("presses", "releases") if True in halves else ("releases", "presses")
        fault = f"{there} but no {lacks}, so that nothing says how long a button was held"
        raise UserError(f"{path} has {fault}: record both, or remove the session")


def describe_unmatched(unmatched: list[Unmatched], edges: np.ndarray, start: float) -> str:
    """One line that names the first events with their seconds after ``start`` and their frames by ``edges``."""
    listed = []
    for time, button, down in unmatched[:_LISTED]:
        frame = int(np.searchsorted(edges, time, side="right")) - 1
        shows = f" (frame {frame})" if 0 <= frame < len(edges) - 1 else ""
        listed.append(f"{shown(button)} {'pressed' if down else 'released'} at {(time - start) / 1e6:.3f} s{shows}")
    more = f" and {len(unmatched) - _LISTED} more" if len(unmatched) > _LISTED else ""
    presses = sum(down for _, _, down in unmatched)
    counts = [(presses, "press", "release"), (len(unmatched) - presses, "release", "press")]
    what = " and ".join(f"{n} {_plural(n, one)} without a {other}" for n, one, other in counts if n)
    return f"{what}, taken to be held for {UNMATCHED_SECONDS:g} s at most: {', '.join(listed)}{more}"


def _plural(count: int, word: str) -> str:
    return word if count == 1 else f"{word}{'es' if word.endswith('s') else 's'}"


def list_buttons(buttons: list[Button]) -> str:
    """The names of the first buttons, each once."""
    names = sorted({shown(button) for button in buttons})
    return ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")


def _by_code(inputs: Inputs, binds: Keybinds, path: Path) -> tuple[dict[tuple[str, Button], Button], list[str]]:
    """Maps a code and a button to the one button that stands for all names of this code; and notes."""
    names: dict[str, dict[Button, None]] = {}
    for button, code in zip(inputs.buttons, inputs.codes, strict=False):
        if button[0] == "key" and code not in ("", "0", "-1"):  # recorders write these for an unknown key
            names.setdefault(code, {})[button] = None
    renamed, notes = {}, []
    for code, found in names.items():
        # Browsers have one code for both Shift keys: a key that no layout renames goes by its name.
        several = sum(not is_character(button) for button in found) > 1
        same = [button for button in found if not several or is_character(button)]
        bound = [button for button in same if button in binds.columns]
        if len(same) < 2 or (len(bound) == 2 and bound[1] in also_named(bound[0])):
            continue
        if len({binds.columns[button] for button in bound}) > 1:
            fault = f"the key of code {code} is named {list_buttons(bound)}, which are bound to several actions"
            raise UserError(f"{path}: {fault}: correct the codes, or remove their column to go by the names")
        renamed |= {(code, button): (bound or same)[0] for button in same}
        if bound:
            notes.append(f"the key of code {code} is named {list_buttons(same)}: taken as {shown(bound[0])}")
    return renamed, notes
