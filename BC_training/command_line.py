"""What all commands share: their options, the screen, the expansion of paths, and how they end."""

import contextlib
import copy
import math
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from BC_training.common.errors import UserError, unknown
from BC_training.common.files import expand
from BC_training.runtime.compilation_cache import default_folder
from BC_training.runtime.devices import leave

if TYPE_CHECKING:  # --help answers faster without this import
    from BC_training.common.schema import Config as TrainingConfig

PROGRAM = "ranni" if Path(sys.argv[0]).stem == "ranni" else "uv run -m BC_training"

Text = str | None
File = Path | None

# Trainings
Config = Annotated[str, typer.Option(help="A YAML file, looked up as given, then inside BC_training/.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="Settings such as training.num_epochs=5.")]

# Games and players
Game = Annotated[str, typer.Option(help="The game, such as 'doom/deadly_corridor?skill=5'.")]
Player = Annotated[str, typer.Option(help="expert, random, noop or a checkpoint folder; to record also human.")]
Players = Annotated[list[str], typer.Argument(help="expert, random, noop or checkpoint folders.", metavar="PLAYERS")]
# An option takes one value, so this one takes none: the players are the arguments, wherever they stand.
BeforePlayers = Annotated[bool, typer.Option("--players", help="May stand before the players.")]
Episodes = Annotated[int, typer.Option(min=1, help="How many episodes.")]
Seed = Annotated[
    int, typer.Option(min=0, max=2**32 - 1, help="The first episode's seed; later episodes count up from it.")
]
Label = Annotated[Text, typer.Option(help="Who labels the frames: expert or a checkpoint; by default the player.")]
Size = Annotated[Text, typer.Option(metavar="HxW", help="Height and width of the frames in pixels: 72x128.")]
Noise = Annotated[
    float,
    typer.Option(min=0, max=1, help="Chance a frame that a random action is executed for a while, and not labelled."),
]
NoiseFrames = Annotated[int, typer.Option(min=1, help="How many frames such a while lasts.")]
Mix = Annotated[float, typer.Option(help="Chance a frame that the label is executed, not the player's action.")]
AsVideo = Annotated[bool, typer.Option("--video/--lossless", help="Keep the frames as H.264: an eighth of the size.")]
MayBeVideo = Annotated[
    bool | None, typer.Option("--video/--lossless", help="Keep the frames as H.264, as those of a person's window are.")
]
GameFps = Annotated[float | None, typer.Option("--fps", help="Frames per second, of a window; 20 by default.")]
Hotkeys = Annotated[Text, typer.Option(metavar="KEY,KEY,KEY", help="Start and stop, discard, end: F9,F10,F12.")]
AllInputs = Annotated[bool, typer.Option("--all-inputs", help="Of a window, also what programs press and move.")]
State = Annotated[Text, typer.Option(metavar="HOST:PORT", help="Of a window, where the game's state is sent.")]
StateNames = Annotated[File, typer.Option(help="The names of the state's values, one a line.")]
WindowGame = Annotated[str, typer.Option("--game", help="A window, such as window/TITLE or window/pid:4242.")]
PlayedKeys = Annotated[str, typer.Option("--keybinds", help="What presses a button, a JSON file; or auto.")]
Corrections = Annotated[File, typer.Option("--record", help="The dataset that gets what is played, with corrections.")]
Seconds = Annotated[float | None, typer.Option(min=0.1, help="Ends after so many seconds of play.")]
DelayTest = Annotated[bool, typer.Option("--delay-test", help="Only measure how late the game shows what is pressed.")]
Means = Annotated[
    tuple[float, float] | None,
    typer.Option("--reference-means", metavar="RANDOM EXPERT", help="Means to normalise scores by; no such play then."),
]
Decode = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="Decode a checkpoint's probabilities by another rule: threshold, thresholds.ACTION, temperature, "
        "hysteresis or exclusive. Repeatable.",
    ),
]

# Checkpoints
_CHECKPOINT = "A run's folder (its best is used) or one of its steps."
Checkpoint = Annotated[Path, typer.Argument(help=_CHECKPOINT)]
Policy = Annotated[Path, typer.Option(help=_CHECKPOINT)]
Checkpoints = Annotated[
    list[Path] | None, typer.Argument(help="Runs' folders (the best of each is used) or steps of different runs.")
]
Data = Annotated[Text, typer.Option(help="A dataset; by default the one the policy was trained on.")]
Split = Annotated[Text, typer.Option(help="train, val, test, or all episodes; by default val, and all with --data.")]
Episode = Annotated[int, typer.Option(min=0, help="The number in the episode's name.")]
Tune = Annotated[bool, typer.Option("--tune", help="Give each button the threshold of its best F1, in the checkpoint.")]
Force = Annotated[bool, typer.Option("--force", help="Tune on a split other than val, too.")]
Diagnose = Annotated[
    bool,
    typer.Option("--diagnose", help="Score it without its frames or previous actions, too: 4 to 6 times the work."),
]
Tolerance = Annotated[int, typer.Option(min=0, help="Frames by which a press or a release may be early or late.")]
Button = Annotated[
    Text, typer.Option(help="A button; by default those predicted as held, or the likeliest if none is.")
]
Method = Annotated[
    str, typer.Option(help="gradient (fast, of pixels) or occlusion (slow, of patches that are covered).")
]

# Datasets and recordings
Dataset = Annotated[str, typer.Argument(help="The dataset's folder, or its s3://, gs:// or http(s):// address.")]
KeysFile = Annotated[File, typer.Option("--keybinds", help="A person's keys, a JSON file; auto for a window.")]
ShowKeys = Annotated[bool, typer.Option("--show-keys", help="Print a person's keys, as a file has them, and end.")]
Takeover = Annotated[Text, typer.Option(help="The key with which a person takes over from the player.")]
Unfinished = Annotated[str, typer.Option(help="An episode that a person quits: ask, keep or drop.")]
NewDataset = Annotated[File, typer.Option(help="The dataset; created, or appended to.")]
Source = Annotated[Path, typer.Argument(help="A folder or file of recordings; with --to a dataset.")]
Converted = Annotated[
    Path, typer.Option(help="The dataset; created, continued or appended to. With --to a folder that is not there.")
]
Kind = Annotated[Text, typer.Option("--from", help="sessions, lerobot, minari, robomimic, doom-demo, events, owamcap.")]
To = Annotated[Text, typer.Option(help="lerobot.")]
Fps = Annotated[float | None, typer.Option(help="Frames per second; by default as they are.")]
Keybinds = Annotated[File, typer.Option(help="What presses a button, a JSON file; or auto.")]
Shift = Annotated[float, typer.Option(help="events: frames by which what was done counts for an earlier one.")]
Iwad = Annotated[File, typer.Option(help="doom-demo: the game's WAD.")]
Pwad = Annotated[list[Path] | None, typer.Option(help="doom-demo: a WAD that adds to it; repeatable.")]
Turn = Annotated[Text, typer.Option(help="doom-demo: turns as an axis, in degrees (the default), or as buttons.")]
Camera = Annotated[Text, typer.Option(help="Which one to use, where there are several.")]
LeaveOut = Annotated[list[str] | None, typer.Option(help="A state value not to convert; repeatable.")]
TimeUnit = Annotated[str, typer.Option(help="sessions: unit of the times, us, ms, s or ns.")]
AllowMissing = Annotated[
    bool, typer.Option("--allow-missing", help="sessions, owamcap: even if much of a recording is missing.")
]
Actions = Annotated[Text, typer.Option(help="Only these, such as attack,jump; by default all.")]
Repair = Annotated[
    Text, typer.Option(help="Write a new dataset here of the good episodes and the good starts of others.")
]
Clear = Annotated[bool, typer.Option("--clear", help="Remove all but those that are being built.")]
Caches = Annotated[File, typer.Option(help="Where they are; by default ~/.cache/bc_training.")]

# What is written, and by how many
Predictions = Annotated[Path, typer.Option(help="The table to write: .parquet or .csv.")]
Video = Annotated[Path, typer.Option(help="The MP4 to write.")]
FirstVideo = Annotated[File, typer.Option(help="Write the first episode to this MP4.")]
Rerun = Annotated[File, typer.Option(help="Write a Rerun recording, too; needs 'uv sync --extra rerun'.")]
Page = Annotated[File, typer.Option(help="The HTML page; by default beside the dataset, or in the run's logs.")]
Json = Annotated[File, typer.Option("--json", help="Write the result to this file.")]
Csv = Annotated[File, typer.Option(help="Write the table to this file, unrounded.")]
Markdown = Annotated[File, typer.Option(help="Write the table to this file.")]
Plot = Annotated[File, typer.Option(help="Draw scores in play against training time into this PNG.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes; by default one a core.")]


def make_app(about: str) -> typer.Typer:
    """Makes an app without commands, whose help is ``about``."""
    return typer.Typer(
        add_completion=False,
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        help=about,
    )


def commands_of(app: typer.Typer) -> Callable[..., Any]:
    """Returns a decorator that makes a function a command of ``app``, with examples in its help."""

    def command(*examples: str, note: str = "") -> Any:
        lines = ["Examples:", *(f"{PROGRAM} {example}" for example in examples), note]
        return app.command(epilog="\n\n".join(lines))

    return command


def parse_size(text: str) -> tuple[int, int]:
    """Reads "HxW" as (H, W). Raises a UserError where it is faulty or a side is shorter than 8 pixels."""
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None or min(int(match[1]), int(match[2])) < 8:
        raise UserError(f"--size {text} is not HEIGHTxWIDTH in pixels, at least 8x8; write --size 72x128")
    return int(match[1]), int(match[2])


def load(config: str, overrides: Sequence[str] | None) -> "TrainingConfig":
    """Loads a training's config. Raises a UserError where the file or an override is wrong."""
    from BC_training.common.config import load_config

    return load_config(config, overrides or [])


def require_conversion(kind: str | None, to: str | None, fps: float | None, readers: Mapping[str, Any]) -> None:
    """Raises a UserError where options of ``convert`` do not go together or mean nothing.

    Args:
        readers: the options that only --from knows, by name; a value counts as given where it is true.
    """
    if fps is not None and not 0 < fps < math.inf:
        raise UserError(f"--fps {fps:g} is not a number of frames per second above 0: write --fps 17.5")
    if (kind is None) == (to is None):
        raise UserError(
            "convert needs either --from KIND, to make a dataset, or --to lerobot, to write one out; see -h"
        )
    if to not in (None, "lerobot"):
        raise unknown("kind to write", to, ["lerobot"])
    for name, value in readers.items():
        if to and value:
            raise UserError(f"--{name} belongs to --from, it means nothing with --to: leave it out")


def make_console() -> Console:
    """Makes the screen, which shows names and messages as they are: "[v2]" is no markup, ":bug:" no emoji."""
    return Console(markup=False, emoji=False)


@contextlib.contextmanager
def resumable() -> Iterator[None]:
    """Ends a training that a signal has stopped with the exit code for it."""
    from BC_training.runtime.interruption import EXIT_CODE, Interrupted

    try:
        yield
    except Interrupted as interrupted:
        print(f"{interrupted}; run the same command again to go on", file=sys.stderr)
        if not interrupted.agreed:
            leave(EXIT_CODE)  # the other processes know nothing of it
        raise typer.Exit(EXIT_CODE) from None


def run(app: typer.Typer, default: str) -> None:
    """Runs the command that the arguments name, or ``default`` where they name none.

    The process exits with 2 after an error that the user can mend, 130 after an interruption, 1 after another error.
    """
    try:
        _keep_bytecode()
        command, arguments = _expanding_paths(app), sys.argv[1:]
        _refuse_game_options(arguments)
        commands = set(command.commands)
        if arguments and arguments[0] not in commands | {"-h", "--help"}:
            if not arguments[0].startswith("-") and "=" not in arguments[0]:
                raise unknown("command", arguments[0], commands, "see --help")
            arguments = [default, *arguments]
        command(arguments, prog_name=PROGRAM)
    except UserError as error:
        _fail(str(error), 2)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except Exception:
        traceback.print_exc()
        leave(1)


def _keep_bytecode() -> None:
    """Keeps bytecode in the cache folder where the environment forbids it beside the sources.

    Without it, this process and each that it starts would compile the 1,600 modules of a training: seconds.
    """
    if sys.dont_write_bytecode and sys.pycache_prefix is None:
        sys.dont_write_bytecode, sys.pycache_prefix = False, str(default_folder() / "bytecode")
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix


def _refuse_game_options(arguments: Sequence[str]) -> None:
    for option in ("skill", "delay"):
        if any(argument.partition("=")[0] == f"--{option}" for argument in arguments):
            raise UserError(
                f"--{option} is part of the game's name now: --game 'doom/deadly_corridor?{option}=VALUE', in quotes"
            )


def _fail(message: str, code: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    leave(code)


def _expanding_paths(app: typer.Typer) -> Any:
    """The click command of an app, in whose paths a leading ~ is the home folder, also after a "=".

    A text is a path where it holds a slash.
    """
    command: Any = typer.main.get_command(app)
    waiting = [command]
    while waiting:
        current = waiting.pop()
        waiting += getattr(current, "commands", {}).values()
        for parameter in current.params:
            if parameter.type.name in ("path", "text", "str"):
                parameter.type = _expanding(parameter.type)
    return command


def _expanding(kind: Any) -> Any:
    expanding = copy.copy(kind)

    def convert(value: Any, parameter: Any, context: Any) -> Any:
        found = kind.convert(value, parameter, context)
        is_path = isinstance(found, str) and found.startswith("~") and (kind.name == "path" or "/" in found)
        return expand(found) if is_path else found

    expanding.convert = convert
    return expanding
