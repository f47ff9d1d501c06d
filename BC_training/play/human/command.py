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
from BC_training.games import make_game
from BC_training.play.human.options import PersonOptions
from BC_training.play.record import record


def record_command(
    out: Path | None,
    options: tuple[Any, ...],
    workers: int | None,
    console: Console,
    keybinds: Path | None,
    show_keys: bool,
    takeover: str | None,
    unfinished: str,
) -> None:
    """Records, or shows the keys of a game; a UserError where options do not go together.

    Args:
        options: the fields of ``RecordConfig``, in their order.
    """
    config = RecordConfig(*options)
    if takeover is not None:
        if config.player == HUMAN or config.label not in (None, HUMAN):
            raise UserError("--takeover KEY is for a person who corrects a player: name that with --player CHECKPOINT")
        config = replace(config, label=HUMAN)
    if not config.by_person and (keybinds is not None or show_keys or unfinished != "ask"):
        raise UserError("--keybinds, --show-keys and --unfinished are for a person: add --player human or --takeover")
    person = PersonOptions(keybinds, PersonOptions.takeover if takeover is None else takeover, unfinished)
    if show_keys:
        with contextlib.closing(make_game(config.game, frame_size=config.frame_size)) as env:
            game: Any = env.unwrapped
            play_keys(keybinds, game.buttons, game.axes)
            print(json.dumps(raw_keybinds(keybinds, game.buttons, game.axes), indent=2))
    elif out is None:
        raise UserError("record needs a dataset to write to: add --out data/NAME.zarr")
    else:
        record(out, config, workers, console, person)
