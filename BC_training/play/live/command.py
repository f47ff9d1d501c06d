"""The commands ``play`` and ``doctor``."""

from pathlib import Path

from rich.console import Console

from BC_training.common.errors import UserError
from BC_training.games import GameSpec
from BC_training.play.live.doctor import delay_test, doctor
from BC_training.play.live.labels import AUTO
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
    is_delay_test: bool,
    console: Console,
) -> None:
    """Plays, or tests the delay; a UserError where the game is no window."""
    spec, in_spec = _window(game, fps, "play")
    path = Path(in_spec) if keybinds == "auto" and in_spec else Path(keybinds)
    options = PlayOptions(
        spec, path, hotkey_names(hotkeys), takeover, seconds, record, json_file, all_inputs, decode or (), state
    )
    (delay_test if is_delay_test else play_window)(str(checkpoint), options, console)


def doctor_command(
    game: str,
    keybinds: Path | None,
    size: tuple[int, int],
    hotkeys: str | None,
    json_file: Path | None,
    console: Console,
) -> list[str]:
    """What is wrong, a line each; a UserError where the game is no window."""
    spec, in_spec = _window(game, None, "doctor")
    path = Path(in_spec) if keybinds is None and in_spec else keybinds
    return doctor(spec, None if path == AUTO else path, size, hotkey_names(hotkeys), json_file, console)


def _window(game: str, fps: float | None, command: str) -> tuple[GameSpec, str | None]:
    spec, keybinds = window_spec(game, fps)
    if spec.kind != "window":
        raise UserError(f"{command} is for windows: --game window/TITLE; 'rollout --game {game}' plays the others")
    return spec, keybinds
