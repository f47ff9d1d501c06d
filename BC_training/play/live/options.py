"""How a person's window is recorded, and how a policy plays in one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from BC_training.common.errors import UserError
from BC_training.common.keybinds.play_keys import PlayKeys
from BC_training.common.schema import RecordConfig
from BC_training.games import GameSpec
from BC_training.play.live.labels import AUTO
from BC_training.play.live.state import read_names

# What leaves the game or the desktop, and is not pressed by itself.
DENIED = tuple(("key", name) for name in ("ESC", "LMETA", "RMETA", "PRINTSCREEN"))
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
        state: "HOST:PORT", where the game's state is sent to; None without one.
        state_names: of its values.
    """

    game: GameSpec
    size: tuple[int, int]
    keybinds: Path
    hotkeys: tuple[str, ...] = HOTKEYS
    lossless: bool = False
    all_inputs: bool = False
    episodes: int = 1000
    state: str | None = None
    state_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlayOptions:
    """How a policy plays in a window.

    Attributes:
        game: the spec, of the kind "window", with its rate.
        keybinds: the file that says what presses a button; ``AUTO`` for a policy of recordings that were made so.
        hotkeys: as ``HOTKEYS``; the first starts and pauses, the last ends.
        takeover: the key with which a person takes over; None: by what the game uses.
        seconds: of play, until it ends; None for no end.
        record: the dataset that gets what was played.
        json_file: where to write the result.
        all_inputs: what other programs press takes over, too, and not only a person at a device.
        decode: KEY=VALUE changes of the checkpoint's decoding.
        state: as in ``LiveOptions``.
    """

    game: GameSpec
    keybinds: Path = AUTO
    hotkeys: tuple[str, ...] = HOTKEYS
    takeover: str | None = None
    seconds: float | None = None
    record: Path | None = None
    json_file: Path | None = None
    all_inputs: bool = False
    decode: Sequence[str] = ()
    state: str | None = None


def live_options(
    config: RecordConfig,
    keybinds: Path | None,
    fps: float | None,
    hotkeys: str | None,
    all_inputs: bool,
    state: str | None,
    state_names: Path | None,
) -> LiveOptions:
    """The options as a user gives them.

    Args:
        fps: frames per second; None for what the game's spec says.
        hotkeys: their names with commas between.
        state_names: the file that has them.

    Raises:
        UserError: no keybinds, or options out of range.
    """
    game, in_spec = window_spec(config.game, fps)
    if keybinds is None and in_spec is None:
        raise UserError("say what is a button with --keybinds FILE, or --keybinds auto for every key that is pressed")
    if (state is None) != (state_names is None):
        raise UserError("--state HOST:PORT and --state-names FILE, which names its values, go together")
    keys, names = hotkey_names(hotkeys), () if state_names is None else read_names(state_names)
    path = Path(in_spec or "") if keybinds is None else keybinds
    return LiveOptions(game, config.frame_size, path, keys, not config.video, all_inputs, config.episodes, state, names)


def hotkey_names(given: str | None) -> tuple[str, ...]:
    """The names in a text with commas between; None for ``HOTKEYS``."""
    return HOTKEYS if given is None else tuple(key.strip() for key in given.split(","))


def window_spec(game: str, fps: float | None) -> tuple[GameSpec, str | None]:
    """A window's spec with another rate, without the keybinds that it names, and these; None for ``fps`` keeps it."""
    spec = GameSpec.parse(game)
    given = dict(spec.options) | ({} if fps is None else {"fps": f"{fps:g}"})
    keybinds = given.pop("keybinds", None)
    query = "&".join(f"{key}={value}" for key, value in given.items())
    return GameSpec.parse(f"{spec.kind}/{spec.name}" + (f"?{query}" if query else "")), keybinds


def denied_columns(keys: PlayKeys) -> list[int]:
    """The columns of ``DENIED``, which a policy presses only where somebody has bound them in a file."""
    return [keys.columns[key] for key in DENIED if key in keys.columns]
