"""The command ``play``."""

from pathlib import Path

from rich.console import Console

from BC_training.common.errors import UserError
from BC_training.play.live.options import PlayOptions, hotkey_names, window_spec
from BC_training.play.live.play import play_window


def play_command(
    checkpoint: Path,
    game: str,
    keybinds: str,
    fps: float | None,
    takeover: str | None,
    record: Path | None,
    seconds: float | None,
    hotkeys: str | None,
    all_inputs: bool,
    json_file: Path | None,
    decode: list[str] | None,
    state: str | None,
    console: Console,
) -> None:
    """Plays; a UserError where the game is no window."""
    spec, in_spec = window_spec(game, fps)
    if spec.kind != "window":
        raise UserError(f"play is for windows: --game window/TITLE; 'rollout --game {game}' plays the others")
    path = Path(in_spec) if keybinds == "auto" and in_spec else Path(keybinds)
    options = PlayOptions(
        spec, path, hotkey_names(hotkeys), takeover, seconds, record, json_file, all_inputs, decode or (), state
    )
    play_window(str(checkpoint), options, console)
