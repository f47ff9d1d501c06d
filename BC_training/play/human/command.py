"""The command ``record``, which knows a person's options."""

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from BC_training.common.errors import UserError
from BC_training.common.keybinds.play_keys import play_keys, raw_keybinds
from BC_training.common.schema import HUMAN, RecordConfig
from BC_training.games import GameSpec, make_game
from BC_training.play.human.options import PersonOptions
from BC_training.play.record import record
from BC_training.runtime.workers import closing_on_sigterm


def record_command(
    out: Path | None,
    options: tuple[Any, ...],
    workers: int | None,
    console: Console,
    keybinds: Path | None,
    show_keys: bool,
    takeover: str | None,
    unfinished: str,
    window: tuple[float | None, str | None, bool, str | None, Path | None],
) -> None:
    """Records, or shows the keys of a game; a UserError where options do not go together.

    Args:
        options: the fields of ``RecordConfig``, in their order; "video" may be None.
        window: frames per second, hotkeys, whether inputs of programs count, the address of the game's state and the
            file of its names, of a person's window.
    """
    is_window, video = GameSpec.parse(options[0]).kind == "window", options[-1]
    by_window = is_window and options[1] == HUMAN and takeover is None
    config = RecordConfig(*options[:-1], video=by_window if video is None else video)
    if by_window:
        if show_keys or unfinished != "ask":
            raise UserError("--show-keys and --unfinished are for games that this program opens, not for a window")
        from BC_training.play.live.options import live_options
        from BC_training.play.live.recorder import record_window

        record_window(_required(out), live_options(config, keybinds, *window), console)
        return
    if any(window):
        raise UserError("--fps, --hotkeys, --all-inputs and --state are for --game window/TITLE --player human")
    if takeover is not None:
        if config.player == HUMAN or config.label not in (None, HUMAN):
            raise UserError("--takeover KEY is for a person who corrects a player: name that with --player CHECKPOINT")
        config = replace(config, label=HUMAN)
    if not config.by_person and (keybinds is not None or show_keys or unfinished != "ask"):
        raise UserError("--keybinds, --show-keys and --unfinished are for a person: add --player human or --takeover")
    person = PersonOptions(keybinds, PersonOptions.takeover if takeover is None else takeover, unfinished)
    if show_keys:
        with closing_on_sigterm(), contextlib.closing(make_game(config.game, frame_size=config.frame_size)) as env:
            game: Any = env.unwrapped
            play_keys(keybinds, game.buttons, game.axes)
            print(json.dumps(raw_keybinds(keybinds, game.buttons, game.axes), indent=2))
    else:
        record(_required(out), config, workers, console, person)


def _required(out: Path | None) -> Path:
    if out is None:
        raise UserError("record needs a dataset to write to: add --out data/NAME.zarr")
    return out
