"""The command line. Without a sub-command it trains."""

import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from BC_training import data_commands, visualize_commands
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
app.add_typer(data_commands.app)
app.add_typer(visualize_commands.app)
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
    delay: Annotated[int, typer.Option(min=0, help="Tics (1/35 s) by which the player's actions come late.")] = 0,
    workers: Workers = None,
    json: JsonFile = None,
    video: Annotated[Path | None, typer.Option(help="Write the first episode to this MP4.")] = None,
) -> None:
    """Let a player play, and score it beside random and the expert."""
    from BC_training.rollout import rollout

    rollout(
        player,
        game,
        console,
        episodes=episodes,
        seed=seed,
        skill=skill,
        delay=delay,
        workers=workers,
        json_file=json,
        video=video,
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


def main() -> None:
    arguments = sys.argv[1:]
    commands = set(typer.main.get_group(app).commands)
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
