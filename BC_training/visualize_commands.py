"""The commands that make videos and pages; ``__main__`` adds them to its own as ``visualize``."""

from pathlib import Path
from typing import Annotated

import typer

from BC_training.command_line import make_console
from BC_training.common.settings.evaluation import SEEDS

app = typer.Typer(
    no_args_is_help=True,
    help="Make a video of an episode, of what a policy looks at, or of play, or a page about a run.",
)
console = make_console()

Checkpoint = Annotated[Path, typer.Argument(help="A run's folder (its best is used) or one of its steps.")]
Data = Annotated[str | None, typer.Option(help="A dataset; by default the one it was trained on.")]
Episode = Annotated[int, typer.Option(min=0, help="The number in the episode's name.")]
Out = Annotated[Path, typer.Option(help="The MP4 to write.")]
Rerun = Annotated[Path | None, typer.Option(help="Write a Rerun recording, too; needs 'uv sync --extra rerun'.")]


@app.command(
    epilog="Examples:\n\n"
    "uv run -m BC_training visualize episode BC_training/checkpoints/quickstart --out episode.mp4\n\n"
    "uv run -m BC_training visualize episode BC_training/checkpoints/quickstart --data data/mine.zarr --episode 3 "
    "--out episode.mp4 --rerun episode.rrd"
)
def episode(checkpoint: Checkpoint, out: Out, data: Data = None, episode: Episode = 0, rerun: Rerun = None) -> None:
    """Show a recorded episode: recorded and predicted buttons, probabilities, and where they disagree."""
    from BC_training.videos.episode import film_episode

    film_episode(checkpoint, out, console, data=data, episode=episode, rerun=rerun)


@app.command(
    epilog="Examples:\n\n"
    "uv run -m BC_training visualize saliency BC_training/checkpoints/quickstart --action attack --out saliency.mp4\n\n"
    "uv run -m BC_training visualize saliency BC_training/checkpoints/quickstart --method occlusion --out saliency.mp4"
)
def saliency(
    checkpoint: Checkpoint,
    out: Out,
    data: Data = None,
    episode: Episode = 0,
    action: Annotated[
        str | None, typer.Option(help="A button; by default those predicted as held, or the likeliest if none is.")
    ] = None,
    method: Annotated[
        str, typer.Option(help="gradient (fast, of pixels) or occlusion (slow, of patches that are covered).")
    ] = "gradient",
) -> None:
    """Show, as heat over the newest frame, which pixels a policy's buttons depend on."""
    from BC_training.videos.saliency import film_saliency

    film_saliency(checkpoint, out, console, data=data, episode=episode, action=action, method=method)


@app.command(
    epilog="Examples:\n\n"
    "uv run -m BC_training visualize rollouts --players BC_training/checkpoints/quickstart expert --out side.mp4\n\n"
    "uv run -m BC_training visualize rollouts --players expert random noop --game doom/basic --seed 7 "
    "--out side.mp4"
)
def rollouts(
    names: Annotated[list[str], typer.Argument(help="expert, random, noop or checkpoint folders.", metavar="PLAYERS")],
    out: Out,
    # An option takes one value, so this one takes none: the players are the arguments, wherever they stand.
    players: Annotated[bool, typer.Option("--players", help="May stand before the players.")] = False,
    game: Annotated[
        str, typer.Option(help="The game, such as 'doom/deadly_corridor?skill=5'.")
    ] = "doom/deadly_corridor",
    seed: Annotated[int, typer.Option(min=0, max=SEEDS - 1, help="The episode that all play.")] = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; by default one a core.")] = None,
    rerun: Rerun = None,
) -> None:
    """Let several players play one seed, and show them side by side."""
    from BC_training.videos.rollouts import film_rollouts

    del players
    film_rollouts(names, game, out, console, seed=seed, workers=workers, rerun=rerun)


@app.command(
    epilog="Examples:\n\n"
    "uv run -m BC_training visualize report BC_training/checkpoints/quickstart\n\n"
    "uv run -m BC_training visualize report BC_training/checkpoints/quickstart/last --split train --out train.html"
)
def report(
    checkpoint: Checkpoint,
    out: Annotated[
        Path | None, typer.Option(help="The HTML page; by default report.html in the run's folder of logs.")
    ] = None,
    data: Data = None,
    split: Annotated[
        str | None, typer.Option(help="train, val, test, or all episodes; by default val, and all with --data.")
    ] = None,
) -> None:
    """Write one HTML page about a run: play, training, scores, calibration, mistakes, config."""
    from BC_training.reports.run.report import report

    report(checkpoint, console, data=data, split=split, out=out)
