"""How a person's window is recorded."""

from dataclasses import dataclass
from pathlib import Path

from BC_training.common.errors import UserError
from BC_training.common.schema import RecordConfig
from BC_training.games import GameSpec

HOTKEYS = ("F9", "F10", "F12")  # that start and stop an episode, discard it, and end the recording


@dataclass(frozen=True)
class LiveOptions:
    """How a person's window is recorded.

    Attributes:
        game: the spec, of the kind "window".
        size: (H, W) of the frames in pixels.
        keybinds: the file, or ``AUTO``.
        hotkeys: as ``HOTKEYS``.
        lossless: frames are kept as they are, and not as a video.
        all_inputs: what programs press and move is recorded, too, and not only what a person does.
        episodes: the most of them.
    """

    game: GameSpec
    size: tuple[int, int]
    keybinds: Path
    hotkeys: tuple[str, ...] = HOTKEYS
    lossless: bool = False
    all_inputs: bool = False
    episodes: int = 1000


def live_options(
    config: RecordConfig, keybinds: Path | None, fps: float | None, hotkeys: str | None, all_inputs: bool
) -> LiveOptions:
    """The options as a user gives them.

    Args:
        fps: frames per second; None for what the game's spec says.
        hotkeys: their names with commas between.

    Raises:
        UserError: no keybinds, or options out of range.
    """
    spec = GameSpec.parse(config.game)
    given = dict(spec.options) | ({} if fps is None else {"fps": f"{fps:g}"})
    in_spec = given.pop("keybinds", None)
    if keybinds is None and in_spec is None:
        raise UserError("say what is a button with --keybinds FILE, or --keybinds auto for every key that is pressed")
    query = "&".join(f"{key}={value}" for key, value in given.items())
    game = GameSpec.parse(f"{spec.kind}/{spec.name}" + (f"?{query}" if query else ""))
    keys = HOTKEYS if hotkeys is None else tuple(key.strip() for key in hotkeys.split(","))
    path = Path(in_spec or "") if keybinds is None else keybinds
    return LiveOptions(game, config.frame_size, path, keys, not config.video, all_inputs, config.episodes)
