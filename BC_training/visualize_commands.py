"""The commands of ``visualize``."""

from BC_training import command_line as cli

console = cli.make_console()
visualize = cli.make_app("Make a video of an episode, of what a policy looks at, or of play, or a page about a run.")
visual_command = cli.commands_of(visualize)


@visual_command(
    "visualize episode BC_training/checkpoints/quickstart --out episode.mp4",
    "visualize episode BC_training/checkpoints/quickstart --data data/mine.zarr --out episode.mp4 --rerun episode.rrd",
)
def episode(
    checkpoint: cli.Checkpoint, out: cli.Video, data: cli.Data = None, episode: cli.Episode = 0, rerun: cli.Rerun = None
) -> None:
    """Show a recorded episode: recorded and predicted buttons, probabilities, and where they disagree."""
    from BC_training.videos.episode import film_episode

    film_episode(checkpoint, out, console, data=data, episode=episode, rerun=rerun)


@visual_command("visualize saliency BC_training/checkpoints/quickstart --action attack --out saliency.mp4")
def saliency(
    checkpoint: cli.Checkpoint,
    out: cli.Video,
    data: cli.Data = None,
    episode: cli.Episode = 0,
    action: cli.Button = None,
    method: cli.Method = "gradient",
) -> None:
    """Show, as heat over the newest frame, which pixels a policy's buttons depend on."""
    from BC_training.videos.saliency import film_saliency

    film_saliency(checkpoint, out, console, data=data, episode=episode, action=action, method=method)


@visual_command("visualize rollouts --players BC_training/checkpoints/quickstart expert --out side.mp4")
def rollouts(
    names: cli.Players,
    out: cli.Video,
    players: cli.BeforePlayers = False,
    game: cli.Game = "doom/deadly_corridor",
    seed: cli.Seed = 0,
    workers: cli.Workers = None,
    rerun: cli.Rerun = None,
) -> None:
    """Let several players play one episode, that of a seed, and show them side by side."""
    from BC_training.videos.rollouts import film_rollouts

    film_rollouts(names, game, out, console, seed=seed, workers=workers, rerun=rerun)


@visual_command(
    "visualize report BC_training/checkpoints/quickstart",
    "visualize report BC_training/checkpoints/quickstart/last --split train --out train.html",
)
def report(checkpoint: cli.Checkpoint, out: cli.Page = None, data: cli.Data = None, split: cli.Split = None) -> None:
    """Write one HTML page about a run: play, training, scores, calibration, mistakes, config."""
    from BC_training.reports.run.report import report

    report(checkpoint, console, data=data, split=split, out=out)
