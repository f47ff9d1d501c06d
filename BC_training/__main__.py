"""The command line. Without a sub-command it trains."""

import re
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from BC_training.common.devices import leave
from BC_training.common.errors import UserError, unknown

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Record someone playing a game, train a policy that plays like them, watch it play.\n\n"
    "Without a sub-command it trains: [bold]uv run -m BC_training --config configs/quickstart.yaml[/bold]",
)
console = Console()

Workers = Annotated[int | None, typer.Option(min=1, help="Processes; by default one a core.")]
Skill = Annotated[int, typer.Option(min=1, max=5, help="Difficulty of the game.")]
Game = Annotated[str, typer.Option(help="The game's id.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the result to this file.")]


@app.command(
    epilog="Examples:\n\n"
    "uv run -m BC_training --config configs/quickstart.yaml\n\n"
    "uv run -m BC_training --config configs/pure_cnn.yaml training.batch_size=64 dataset.path=data/mine.zarr"
)
def train(
    config: Annotated[str, typer.Option(help="A YAML file, looked up as given, then inside BC_training/.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings such as training.num_epochs=5.")] = None,
) -> None:
    """Train a policy, recording its dataset first if that is missing, and let it play."""
    from BC_training.common.config import load_config
    from BC_training.common.interruption import EXIT_CODE, Interrupted
    from BC_training.train import train

    try:
        train(load_config(config, overrides or []), console)
    except Interrupted as interrupted:
        print(f"{interrupted}; run the same command again to go on", file=sys.stderr)
        if not interrupted.agreed:
            leave(EXIT_CODE)  # the other processes do not know of it
        raise typer.Exit(EXIT_CODE) from None


@app.command(
    epilog="Examples:\n\n"
    "uv run -m BC_training record --game doom/deadly_corridor --player expert --episodes 40 --out data/x.zarr\n\n"
    "uv run -m BC_training record --noise 0.03 --episodes 100 --out data/recovery.zarr"
)
def record(
    out: Annotated[Path, typer.Option(help="The dataset; created, or appended to.")],
    game: Game = "doom/deadly_corridor",
    player: Annotated[str, typer.Option(help="expert, random, noop or a checkpoint folder.")] = "expert",
    episodes: Annotated[int, typer.Option(min=1)] = 40,
    seed: Annotated[int, typer.Option(min=0, help="The first episode's; later ones count up.")] = 10_000,
    skill: Skill = 3,
    height: Annotated[int, typer.Option(min=8, help="Of the frames, in pixels.")] = 288,
    width: Annotated[int, typer.Option(min=8, help="Of the frames, in pixels.")] = 512,
    noise: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Chance a frame that a random action is executed for a while (the label stays the player's).",
        ),
    ] = 0.0,
    noise_frames: Annotated[int, typer.Option(min=1, help="How many frames such a while lasts.")] = 6,
    workers: Workers = None,
) -> None:
    """Record a player's episodes in a game."""
    from BC_training.common.schema import RecordConfig
    from BC_training.record import record

    config = RecordConfig(game, player, episodes, seed, skill, (height, width), noise, noise_frames)
    record(out, config, workers, console)


@app.command(epilog="Example:\n\nuv run -m BC_training evaluate BC_training/checkpoints/quickstart --split val")
def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="A run's folder (its best is used) or one of its steps.")],
    data: Annotated[str | None, typer.Option(help="A dataset; by default the one it was trained on.")] = None,
    split: Annotated[
        str | None, typer.Option(help="train, val, test, or all episodes; by default val, and all with --data.")
    ] = None,
    json: JsonFile = None,
) -> None:
    """Score a checkpoint's predictions on recorded episodes."""
    from BC_training.evaluate import evaluate

    evaluate(checkpoint, console, data=data, split=split, json_file=json)


@app.command(
    epilog="Examples:\n\n"
    "uv run -m BC_training rollout --player BC_training/checkpoints/quickstart --video play.mp4\n\n"
    "uv run -m BC_training rollout --player expert --episodes 100 --json expert.json"
)
def rollout(
    player: Annotated[str, typer.Option(help="expert, random, noop or a checkpoint folder.")],
    game: Game = "doom/deadly_corridor",
    episodes: Annotated[int, typer.Option(min=1)] = 20,
    seed: Annotated[int, typer.Option(min=0, help="The first episode's; later ones count up.")] = 0,
    skill: Skill = 3,
    workers: Workers = None,
    json: JsonFile = None,
    video: Annotated[Path | None, typer.Option(help="Write the first episode to this MP4.")] = None,
) -> None:
    """Let a player play, and score it beside random and the expert."""
    from BC_training.rollout import rollout

    rollout(
        player, game, console, episodes=episodes, seed=seed, skill=skill, workers=workers, json_file=json, video=video
    )


@app.command(
    epilog="Examples:\n\n"
    "uv run -m BC_training compare BC_training/checkpoints/*\n\n"
    "uv run -m BC_training compare BC_training/checkpoints/a BC_training/checkpoints/b --markdown ab.md --plot ab.png"
)
def compare(
    checkpoints: Annotated[
        list[Path] | None, typer.Argument(help="Runs' folders (the best of each is used) or steps of different runs.")
    ] = None,
    json: JsonFile = None,
    csv: Annotated[Path | None, typer.Option(help="Write the table to this file, unrounded.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the table to this file.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw scores in play against training time into this PNG.")] = None,
) -> None:
    """Compare runs: cost of training, scores on recordings and in play, latency."""
    from BC_training.compare import compare

    compare(checkpoints or [], console, json_file=json, csv_file=csv, markdown_file=markdown, plot_file=plot)


@app.command(
    epilog="Examples:\n\n"
    "uv run -m BC_training convert recordings/ --from sessions --keybinds keybinds.json --out data/mine.zarr\n\n"
    "uv run -m BC_training convert freedoom2.wad --from doom-demo --size 72x128 --fps 17.5 --out data/demos.zarr\n\n"
    "uv run -m BC_training convert data/mine.zarr --to lerobot --out data/mine-lerobot"
)
def convert(
    source: Annotated[Path, typer.Argument(help="A folder or file of recordings; with --to a dataset.")],
    out: Annotated[
        Path, typer.Option(help="The dataset; created, continued or appended to. With --to a folder that is not there.")
    ],
    kind: Annotated[
        str | None, typer.Option("--from", help="sessions, lerobot, minari, robomimic or doom-demo.")
    ] = None,
    to: Annotated[str | None, typer.Option(help="lerobot.")] = None,
    size: Annotated[str | None, typer.Option(help="HxW of the frames, such as 72x128; by default as they are.")] = None,
    fps: Annotated[float | None, typer.Option(help="Frames per second; by default as they are.")] = None,
    keybinds: Annotated[Path | None, typer.Option(help="sessions: the JSON that maps keys to actions.")] = None,
    iwad: Annotated[Path | None, typer.Option(help="doom-demo: the game's WAD.")] = None,
    camera: Annotated[str | None, typer.Option(help="Which one to use, where there are several.")] = None,
    pwad: Annotated[list[Path] | None, typer.Option(help="doom-demo: a WAD that adds to it; repeatable.")] = None,
    workers: Workers = None,
) -> None:
    """Convert recordings of another kind into a dataset, or a dataset into another kind."""
    from BC_training.convert import Options, convert

    if kind is not None and to is None:
        pwads = tuple(pwad or ())
        options = Options(kind, _size(size), fps, keybinds=keybinds, iwad=iwad, camera=camera, pwads=pwads)
        convert(source, out, options, workers, console)
        return
    if kind is not None or to is None:
        raise UserError(
            "convert needs either --from KIND, to make a dataset, or --to lerobot, to write one out; see -h"
        )
    if to != "lerobot":
        raise unknown("kind to write", to, ["lerobot"])
    for name, value in (("keybinds", keybinds), ("iwad", iwad), ("pwad", pwad), ("camera", camera)):
        if value:
            raise UserError(f"--{name} belongs to --from, it means nothing with --to: leave it out")
    from BC_training.convert.lerobot_export import export

    export(source, out, _size(size), fps, workers, console)


@app.command(
    epilog="Examples:\n\n"
    "uv run -m BC_training analyze data/quickstart.zarr\n\n"
    "uv run -m BC_training analyze data/mine.zarr --actions attack,jump --out mine.html --json mine.json"
)
def analyze(
    data: Annotated[str, typer.Argument(help="The dataset.")],
    out: Annotated[Path | None, typer.Option(help="The HTML page; by default NAME.html beside the dataset.")] = None,
    actions: Annotated[str | None, typer.Option(help="Only these, such as attack,jump; by default all.")] = None,
    json: JsonFile = None,
) -> None:
    """Show what is in a dataset: tables here, and a page to open in a browser."""
    from BC_training.analyze import analyze

    chosen = None if actions is None else [name.strip() for name in actions.split(",")]
    analyze(data, console, out=out, actions=chosen, json_file=json)


@app.command(epilog="Examples:\n\nuv run -m BC_training cache\n\nuv run -m BC_training cache --clear")
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove them all, those being built excepted.")] = False,
    folder: Annotated[Path | None, typer.Option(help="Where they are; by default ~/.cache/bc_training.")] = None,
) -> None:
    """List or clear the disk caches of decoded frames (dataset.cache=disk)."""
    from BC_training.common.cache import clear_caches, default_folder, list_caches

    (clear_caches if clear else list_caches)(folder or default_folder(), console)


@app.command(
    epilog="Examples:\n\n"
    "uv run -m BC_training validate data/mine.zarr\n\n"
    "uv run -m BC_training validate data/mine.zarr --repair data/good.zarr --json findings.json\n\n"
    "Exit code: 0 clean (or nothing worse than info), 1 errors or warnings, 2 cannot be read."
)
def validate(
    data: Annotated[str, typer.Argument(help="The dataset's folder, or its s3://, gs:// or http(s):// address.")],
    repair: Annotated[
        str | None, typer.Option(help="Write a new dataset here of the good episodes and the good starts of others.")
    ] = None,
    json: JsonFile = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; by default one for two cores.")] = None,
) -> None:
    """Read a dataset from end to end and list what is wrong with it, by episode and frame."""
    from BC_training.validate import validate

    findings = validate(data, console, workers=workers, json_file=json, repair_to=repair)
    if any(finding.severity != "info" for finding in findings):
        raise typer.Exit(1)


def _size(text: str | None) -> tuple[int, int] | None:
    """(H, W) of "HxW"."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None or min(int(match[1]), int(match[2])) < 8:
        raise UserError(f"--size {text} is not HEIGHTxWIDTH in pixels, at least 8x8; write --size 72x128")
    return int(match[1]), int(match[2])


def main() -> None:
    arguments = sys.argv[1:]
    commands = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    try:
        if arguments and arguments[0] not in commands | {"-h", "--help"}:
            if not arguments[0].startswith("-") and "=" not in arguments[0]:
                raise unknown("command", arguments[0], commands, "see --help")
            arguments = ["train", *arguments]
        app(arguments, prog_name="BC_training")
    except UserError as error:
        _fail(str(error), 2)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except Exception:
        traceback.print_exc()
        leave(1)


def _fail(message: str, code: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    leave(code)


if __name__ == "__main__":
    main()
