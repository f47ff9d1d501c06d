"""The command line. Without a sub-command it trains."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from BC_training import data_commands, visualize_commands
from BC_training.command_line import as_command, make_console, refuse_game_options, run_command
from BC_training.common.errors import unknown
from BC_training.runtime.devices import leave

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
app.add_typer(visualize_commands.app, name="visualize")
console = make_console()

Workers = Annotated[int | None, typer.Option(min=1, help="Processes; by default one a core.")]
Game = Annotated[str, typer.Option(help="The game, such as 'doom/deadly_corridor?skill=5'.")]
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
    from BC_training.train import train

    with _resumable():
        train(load_config(config, overrides or []), console)


@app.command(
    epilog="Examples:\n\n"
    "uv run -m BC_training suite\n\n"
    "uv run -m BC_training suite --config my_suite.yaml evaluation.rollout.episodes=20"
)
def suite(
    config: Annotated[str, typer.Option(help="A YAML file of games and variants.")] = "configs/suite.yaml",
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings of every training.")] = None,
) -> None:
    """Record, train and play several games with several variants, unattended, into one table."""
    from BC_training.experiments.suite import Suite, suite

    with _resumable():
        suite(Suite.load(config, overrides or []), console)


@app.command(
    epilog="Examples:\n\n"
    "uv run -m BC_training record --game doom/deadly_corridor --player expert --episodes 40 --out data/x.zarr\n\n"
    "uv run -m BC_training record --noise 0.03 --episodes 100 --out data/recovery.zarr\n\n"
    "uv run -m BC_training record --player BC_training/checkpoints/quickstart --label expert --height 72 --width 128 "
    "--out data/corrected.zarr"
)
def record(
    out: Annotated[Path, typer.Option(help="The dataset; created, or appended to.")],
    game: Game = "doom/deadly_corridor",
    player: Annotated[str, typer.Option(help="expert, random, noop or a checkpoint folder.")] = "expert",
    episodes: Annotated[int, typer.Option(min=1)] = 40,
    seed: Annotated[int, typer.Option(min=0, help="The first episode's; later ones count up.")] = 10_000,
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
    label: Annotated[
        str | None,
        typer.Option(help="Who labels the frames, such as expert; by default the player."),
    ] = None,
    mix: Annotated[
        float, typer.Option(help="Chance a frame that the label is executed, not the player's action.")
    ] = 0.0,
    workers: Workers = None,
) -> None:
    """Record a player's episodes in a game, labelled by the player itself or by another."""
    from BC_training.common.schema import RecordConfig
    from BC_training.play.record import record

    config = RecordConfig(game, player, episodes, seed, (height, width), noise, noise_frames, label, mix)
    record(out, config, workers, console)


@app.command(
    epilog="Examples:\n\n"
    "uv run -m BC_training evaluate BC_training/checkpoints/quickstart --split val\n\n"
    "uv run -m BC_training evaluate BC_training/checkpoints/quickstart --tune\n\n"
    "uv run -m BC_training evaluate BC_training/checkpoints/quickstart --diagnose --tolerance 5"
)
def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="A run's folder (its best is used) or one of its steps.")],
    data: Annotated[str | None, typer.Option(help="A dataset; by default the one it was trained on.")] = None,
    split: Annotated[
        str | None, typer.Option(help="train, val, test, or all episodes; by default val, and all with --data.")
    ] = None,
    json: JsonFile = None,
    tune: Annotated[
        bool, typer.Option("--tune", help="Give each action the threshold of its best F1, in the checkpoint.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Tune on a split other than val, too.")] = False,
    diagnose: Annotated[
        bool,
        typer.Option("--diagnose", help="Score it without its frames or previous actions, too: 4 to 6 times the work."),
    ] = False,
    tolerance: Annotated[
        int, typer.Option(min=0, help="Frames by which a press or a release may be early or late.")
    ] = 3,
) -> None:
    """Score a checkpoint's predictions on recorded episodes, and say whether it only repeats what is pressed."""
    from BC_training.evaluation.evaluate import evaluate

    evaluate(
        checkpoint,
        console,
        data=data,
        split=split,
        json_file=json,
        tune=tune,
        force=force,
        diagnose=diagnose,
        tolerance=tolerance,
    )


@app.command(
    epilog="Examples:\n\n"
    "uv run -m BC_training rollout --player BC_training/checkpoints/quickstart --video play.mp4\n\n"
    "uv run -m BC_training rollout --player expert --episodes 100 --json expert.json\n\n"
    "uv run -m BC_training rollout --player BC_training/checkpoints/quickstart --decode temperature=1\n\n"
    "uv run -m BC_training rollout --player BC_training/checkpoints/quickstart --decode threshold=0.4 "
    "--decode thresholds.attack=0.3 --decode hysteresis=0.1 "
    "--decode 'exclusive=\\[\\[turn_left,turn_right],\\[move_left,move_right]]'"
)
def rollout(
    player: Annotated[str, typer.Option(help="expert, random, noop or a checkpoint folder.")],
    game: Game = "doom/deadly_corridor",
    episodes: Annotated[int, typer.Option(min=1)] = 20,
    seed: Annotated[int, typer.Option(min=0, help="The first episode's; later ones count up.")] = 0,
    workers: Workers = None,
    json: JsonFile = None,
    video: Annotated[Path | None, typer.Option(help="Write the first episode to this MP4.")] = None,
    decode: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Decode a checkpoint's probabilities by another rule: threshold, thresholds.ACTION, temperature, "
            "hysteresis or exclusive. Repeatable.",
        ),
    ] = None,
) -> None:
    """Let a player play, and score it beside random and the expert."""
    from BC_training.play.rollout import rollout

    rollout(
        player,
        game,
        console,
        episodes=episodes,
        seed=seed,
        workers=workers,
        json_file=json,
        video=video,
        decode=decode or [],
    )


@app.command(
    epilog="Examples:\n\n"
    "uv run -m BC_training dagger --config configs/resnet_policy.yaml --rounds 3 --episodes 20\n\n"
    "uv run -m BC_training dagger --config configs/temporal_cnn.yaml dataset.path=data/few.zarr "
    "dataset.record.episodes=12 dataset.record.noise=0 logging.run_name=few"
)
def dagger(
    config: Annotated[str, typer.Option(help="A YAML file, looked up as given, then inside BC_training/.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings such as training.num_epochs=5.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="After the first training, of the config's dataset.")] = 3,
    episodes: Annotated[int, typer.Option(min=1, help="Recorded in each of these rounds.")] = 20,
    mix: Annotated[float, typer.Option(help="In round k the labeller acts in a share mix^k of the frames.")] = 0.0,
    label: Annotated[str, typer.Option(help="Who labels what the policy reaches: expert or a checkpoint.")] = "expert",
) -> None:
    """Train in rounds: the policy plays, an expert labels its frames, it is trained again (DAgger)."""
    from BC_training.common.config import load_config
    from BC_training.experiments.dagger import dagger

    with _resumable():
        dagger(load_config(config, overrides or []), console, rounds=rounds, episodes=episodes, mix=mix, label=label)


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
    from BC_training.reports.compare.compare import compare

    compare(checkpoints or [], console, json_file=json, csv_file=csv, markdown_file=markdown, plot_file=plot)


@contextlib.contextmanager
def _resumable() -> Iterator[None]:
    """Ends a training that a signal has stopped with the code that says so."""
    from BC_training.runtime.interruption import EXIT_CODE, Interrupted

    try:
        yield
    except Interrupted as interrupted:
        print(f"{interrupted}; run the same command again to go on", file=sys.stderr)
        if not interrupted.agreed:
            leave(EXIT_CODE)  # the other processes do not know of it
        raise typer.Exit(EXIT_CODE) from None


def main() -> None:
    run_command(_run)


def _run() -> None:
    arguments = sys.argv[1:]
    refuse_game_options(arguments)
    command = as_command(app)
    commands = set(command.commands)
    if arguments and arguments[0] not in commands | {"-h", "--help"}:
        if not arguments[0].startswith("-") and "=" not in arguments[0]:
            raise unknown("command", arguments[0], commands, "see --help")
        arguments = ["train", *arguments]
    command(arguments, prog_name="BC_training")


if __name__ == "__main__":
    main()
