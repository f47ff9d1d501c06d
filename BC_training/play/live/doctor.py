"""Whether a game in a window reacts to what is pressed, and how late: ``doctor``, and the delay test of ``play``."""

import json
import math
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from BC_training.common.errors import UserError
from BC_training.common.files import require_writable, write_whole
from BC_training.games import GameSpec
from BC_training.play.live.changes import Turn, compared
from BC_training.play.live.labels import Binding
from BC_training.play.live.options import PlayOptions
from BC_training.play.live.play import nothing_seen, policy_binding
from BC_training.play.live.reaction import COUNTS, NOTHING, Ended, Reaction, Reactions, reactions_of
from BC_training.play.live.recorder import hotkey_buttons
from BC_training.play.policy import Policy
from BC_training.play.say import say

_KEYS = ("W", "A", "S", "D", "UP", "DOWN", "LEFT", "RIGHT", "SPACE")  # without a keybinds file
_CHECKS, _PRESSES = 3, 20  # rounds of the doctor and of the delay test
_PARTS = 10  # into which the mouse's counts are split, to find its acceleration
_PART_SECONDS = 0.05  # between them: a game adds up what comes within a frame
_DECISIONS = 11


def doctor(
    game: GameSpec,
    keybinds: Path | None,
    size: tuple[int, int],
    hotkeys: Sequence[str],
    json_file: Path | None,
    console: Console,
) -> list[str]:
    """Moves the mouse and presses keys in a game's window, and returns what is wrong, a line each.

    Args:
        keybinds: what is pressed; None for the mouse and usual keys, of which one that reacts is enough.
        size: (H, W) of the frames in which a change has to be seen.

    Raises:
        UserError: no such window, keybinds that bind nothing, a window that is closed meanwhile, or an end before
            anything was tried.
    """
    if json_file is not None:
        require_writable(json_file)
    binding = Binding.of_names(_KEYS, ("mouse_x",), "") if keybinds is None else Binding.from_file(keybinds)
    turn = None
    with reactions_of(game, binding, size, hotkey_buttons(hotkeys, binding), lambda line: say(console, line)) as tried:
        found = _tried(tried, {*binding.buttons, *binding.axes}, _CHECKS, console)
        reacts = {reaction.name for reaction in found if reaction.is_seen}
        mouse = [x for x, bind in enumerate(binding.keys.axes) if bind.mouse == 0 and binding.axes[x] in reacts]
        if mouse and not found[-1].is_seen:
            try:
                turn = _turn(tried, mouse[0], COUNTS / binding.keys.axes[mouse[0]].counts)
            except Ended:
                say(console, "ended by a hotkey: the mouse's acceleration is not known")
    faults = _faults(found, keybinds is not None, tried.arrived > 0, turn)
    _print(found, console)
    if turn is not None:
        say(console, _told(turn, size[1]))
    for fault in faults:
        say(console, fault)
    if not faults:
        say(console, "the game reacts")
    if json_file is not None:
        result = {"game": str(game), "reactions": {r.name: r.to_dict() for r in found}}
        result |= {"mouse": None if turn is None else turn._asdict(), "faults": faults}
        write_whole(json_file, json.dumps(result, indent=2) + "\n")
    return faults


def delay_test(checkpoint: str, options: PlayOptions, console: Console) -> dict[str, Any]:
    """Measures how long a policy's buttons and axes take to change the picture, and says what follows for training.

    Raises:
        UserError: as in ``play_window``, or nothing that was pressed changed the picture.
    """
    if given := [name for name in ("takeover", "seconds", "record", "state") if getattr(options, name) is not None]:
        raise UserError(f"--delay-test lets no policy play: leave out --{given[0]}")
    policy, fps = Policy.load(checkpoint), options.game.arguments["fps"]
    binding = policy_binding(policy, options)
    hotkeys, size = hotkey_buttons(options.hotkeys, binding), policy.inputs.recorded_size
    if options.json_file is not None:
        require_writable(options.json_file)
    decisions = []
    for _ in range(_DECISIONS):
        begun = time.perf_counter()
        policy.act(*nothing_seen(policy))
        decisions.append(time.perf_counter() - begun)
    decision = float(np.median(decisions[1:]))  # the first compiles
    with reactions_of(options.game, binding, size, hotkeys, lambda line: say(console, line)) as tried:
        found = _tried(tried, {*policy.inputs.action_names, *policy.inputs.axis_names}, _PRESSES, console)
    _print(found, console)
    seconds = [value for reaction in found[:-1] if reaction.is_seen for value in reaction.seconds]
    if not seconds or found[-1].is_seen:
        reason = "nothing that was pressed changed the picture" if not seconds else _MOVES
        raise UserError(f"the delay is not known: {reason}; 'doctor --game {options.game}' looks for the reason")
    delay, capture = float(np.median(seconds)), float(np.median(tried.capture))
    late, shift, without = recommended(delay, capture + decision, fps)
    times = f"press {1000 * delay:.0f}, capture {1000 * capture:.0f}, decision {1000 * decision:.0f} ms"
    say(console, f"delay: {late} frames later than in the next one ({times}, at {fps:g} frames a second)")
    say(
        console,
        f"train with dataset.action_shift={shift} on recordings of this window, in which the game was as late; with "
        f"{without} on such as had no delay, as those of an expert within the game",
    )
    result = {"game": str(options.game), "fps": fps, "reactions": {r.name: r.to_dict() for r in found}}
    result |= {"press_ms": 1000 * delay, "capture_ms": 1000 * capture, "decision_ms": 1000 * decision}
    result |= {"delay": late, "action_shift": shift, "action_shift_without_delay": without}
    if options.json_file is not None:
        write_whole(options.json_file, json.dumps(result, indent=2) + "\n")
    return result


def recommended(delay: float, response: float, fps: float) -> tuple[int, int, int]:
    """The delay of play in frames, and the ``action_shift`` for recordings with the game's delay, and without any.

    The delay is by how many frames later than in the next one an action shows. A recording of the same window holds
    what the game adds to it, and so a policy is late only by the whole frames that it takes to respond. Without the
    delay in the recording, a frame of it costs nothing, and a shift pays for what is more (docs/FINDINGS.md).

    Args:
        delay: seconds from a press to the change of the picture.
        response: seconds of capture and decision.
    """
    late = max(math.ceil((delay + response) * fps) - 1, 0)
    return late, int(response * fps), max(late - 1, 0)


_MOVES = "the picture changes as often without a press: go where it rests, or where less moves"


def _tried(tried: Reactions, names: Collection[str], rounds: int, console: Console) -> list[Reaction]:
    try:
        tried.wait_for_start()
    except Ended:
        raise UserError("ended before anything was pressed: nothing is known") from None
    with console.status("") as status:
        found = tried.run(tried.moves(names), rounds, status.update)
    found = [reaction for reaction in found if reaction.tries or reaction.name == NOTHING]
    if len(found) == 1:
        raise UserError("ended before anything was pressed: nothing is known")
    return found


def _faults(found: Sequence[Reaction], are_bound: bool, arrived: bool, turn: Turn | None) -> list[str]:
    *pressed, nothing = found
    unseen = [reaction.name for reaction in pressed if not reaction.is_seen]
    if nothing.is_seen:
        return [_MOVES]
    if not arrived:
        return [
            "the system passed on nothing of what was pressed: on Windows the game probably runs as administrator, "
            "then start it without; on Wayland it has to run under XWayland"
        ]
    if len(unseen) == len(pressed):
        return [
            "the system passed on what was pressed, and the picture never changed: does the game wait in a menu, is it "
            "paused, or are its keys other ones? Name them with --keybinds"
        ]
    faults = []
    if are_bound and unseen:
        faults = [
            f"{', '.join(unseen)}: nothing changed; are the keys those of the game, and is there something to do?"
        ]
    if turn is not None and turn.is_accelerated:
        faults.append("the mouse is accelerated: turn that off in the game and in the system, and record again")
    return faults


def _told(turn: Turn, width: int) -> str:
    moved = [f"by {p} of {width} pixels" if p is not None else "further than can be told" for p in turn[:2]]
    text = f"{COUNTS} counts of the mouse move the picture {moved[0]}, ten times {COUNTS // _PARTS} {moved[1]}"
    return text if turn.is_accelerated is not None else f"{text}; it does not come back, so acceleration is not known"


def _print(found: Sequence[Reaction], console: Console) -> None:
    table = Table("", "seen", "p50 ms", "p95 ms", "most ms", "changed", "by itself", box=None)
    for reaction in found:
        values = reaction.to_dict()
        times = ("–" if (v := values[name]) is None else f"{v:.0f}" for name in ("p50_ms", "p95_ms", "most_ms"))
        shares = ("–" if (v := values[name]) is None else f"{v:.1%}" for name in ("share", "usual_share"))
        table.add_row(reaction.name, f"{values['seen']} of {values['tries']}", *times, *shares)
    console.print(table)


def _turn(tried: Reactions, axis: int, amount: float) -> Turn:
    """Moves the mouse at once and in parts, and compares how far the picture went."""
    pictures = [tried.settled()]
    for parts, sign in ((1, 1), (1, -1), (_PARTS, 1), (_PARTS, -1)):
        for _ in range(parts):
            tried.do(tried.moved(axis, sign * amount / parts))
            time.sleep(_PART_SECONDS)
        pictures.append(tried.settled())
    return compared(*pictures[:4])
