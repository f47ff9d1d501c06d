"""The commands; ``command_line`` has their options. Without a sub-command it trains."""

import typer

from BC_training import command_line as cli
from BC_training.experiment_commands import experiments
from BC_training.visualize_commands import visualize

console = cli.make_console()
app = cli.make_app(
    "Record someone playing a game, train a policy that plays like them, watch it play.\n\n"
    f"Without a sub-command it trains: [bold]{cli.PROGRAM} --config configs/quickstart.yaml[/bold]"
)
app.add_typer(experiments)
app.add_typer(visualize, name="visualize")
command = cli.commands_of(app)


@command(
    "--config configs/quickstart.yaml",
    "--config configs/pure_cnn.yaml dataset.path=data/mine.zarr",
    "--config configs/pure_cnn.yaml 'dataset.path=[data/mine.zarr, data/other.zarr]'",
)
def train(config: cli.Config, overrides: cli.Overrides = None) -> None:
    """Train a policy, recording its dataset first if that is missing, and let it play."""
    from BC_training.train import train

    with cli.resumable():
        train(cli.load(config, overrides), console)


@command(
    "record --game doom/deadly_corridor --player expert --episodes 40 --out data/x.zarr",
    "record --player BC_training/checkpoints/quickstart --label expert --size 72x128 --out data/corrected.zarr",
    "record --player human --game window/Crispy --keybinds auto --fps 20 --size 144x256 --out data/mine.zarr",
)
def record(
    out: cli.NewDataset = None,
    game: cli.Game = "doom/deadly_corridor",
    player: cli.Player = "expert",
    episodes: cli.Episodes = 40,
    seed: cli.Seed = 10_000,
    size: cli.Size = "288x512",
    noise: cli.Noise = 0.0,
    noise_frames: cli.NoiseFrames = 6,
    label: cli.Label = None,
    mix: cli.Mix = 0.0,
    video: cli.MayBeVideo = None,
    workers: cli.Workers = None,
    keybinds: cli.KeysFile = None,
    show_keys: cli.ShowKeys = False,
    takeover: cli.Takeover = None,
    unfinished: cli.Unfinished = "ask",
    fps: cli.GameFps = None,
    hotkeys: cli.Hotkeys = None,
    all_inputs: cli.AllInputs = False,
    state: cli.State = None,
    state_names: cli.StateNames = None,
) -> None:
    """Record a player's episodes in a game, labelled by the player itself or by another; or a person's."""
    from BC_training.play.human.command import record_command

    options = game, player, episodes, seed, cli.parse_size(size or ""), noise, noise_frames, label, mix, video
    window = fps, hotkeys, all_inputs, state, state_names
    record_command(out, options, workers, console, keybinds, show_keys, takeover, unfinished, window)


@command(
    "play BC_training/checkpoints/mine --game window/Crispy --keybinds keybinds.json",
    "play BC_training/checkpoints/mine --game window/Crispy --takeover RCTRL --record data/corrected.zarr",
    "play BC_training/checkpoints/mine --game window/Crispy --delay-test",
)
def play(
    checkpoint: cli.Checkpoint,
    game: cli.WindowGame,
    keybinds: cli.PlayedKeys = "auto",
    fps: cli.GameFps = None,
    takeover: cli.Takeover = None,
    record: cli.Corrections = None,
    seconds: cli.Seconds = None,
    hotkeys: cli.Hotkeys = None,
    all_inputs: cli.AllInputs = False,
    json: cli.Json = None,
    decode: cli.Decode = None,
    state: cli.State = None,
    delay_test: cli.DelayTest = False,
) -> None:
    """Let a policy play in a window of this desktop, live; a person starts, stops and takes over."""
    from BC_training.play.live.command import play_command

    options = fps, takeover, record, seconds, hotkeys, all_inputs, json, decode, state, delay_test
    play_command(checkpoint, game, keybinds, *options, console)


@command(
    "doctor --game window/Crispy --keybinds keybinds.json",
    note="Exit code: 0 the game reacts, 1 something is wrong, 2 it cannot be tried.",
)
def doctor(
    game: cli.WindowGame,
    keybinds: cli.KeysFile = None,
    size: cli.Size = "288x512",
    hotkeys: cli.Hotkeys = None,
    json: cli.Json = None,
) -> None:
    """Move the mouse and press keys in a window of this desktop, and say whether and how late its game reacts."""
    from BC_training.play.live.command import doctor_command

    if doctor_command(game, keybinds, cli.parse_size(size or ""), hotkeys, json, console):
        raise typer.Exit(1)


@command(
    "rollout --player BC_training/checkpoints/quickstart --video play.mp4",
    "rollout --player expert --episodes 100 --json expert.json",
    "rollout --player BC_training/checkpoints/quickstart --decode thresholds.attack=0.3 --decode hysteresis=0.1",
)
def rollout(
    player: cli.Player,
    game: cli.Game = "doom/deadly_corridor",
    episodes: cli.Episodes = 20,
    seed: cli.Seed = 0,
    workers: cli.Workers = None,
    json: cli.Json = None,
    video: cli.FirstVideo = None,
    decode: cli.Decode = None,
    means: cli.Means = None,
) -> None:
    """Let a player play, and score it beside random and the expert."""
    from BC_training.play.rollout import rollout

    options = {"episodes": episodes, "seed": seed, "workers": workers, "reference_means": means}
    rollout(player, game, console, **options, json_file=json, video=video, decode=decode or [])


@command(
    "evaluate BC_training/checkpoints/quickstart --split val",
    "evaluate BC_training/checkpoints/quickstart --tune",
    "evaluate BC_training/checkpoints/quickstart --diagnose --tolerance 5",
)
def evaluate(
    checkpoint: cli.Checkpoint,
    data: cli.Data = None,
    split: cli.Split = None,
    json: cli.Json = None,
    tune: cli.Tune = False,
    force: cli.Force = False,
    diagnose: cli.Diagnose = False,
    tolerance: cli.Tolerance = 3,
) -> None:
    """Score a checkpoint's predictions on recorded episodes, and say whether it only repeats held buttons."""
    from BC_training.evaluation.evaluate import evaluate

    options = {"tune": tune, "force": force, "diagnose": diagnose, "tolerance": tolerance}
    evaluate(checkpoint, console, data=data, split=split, json_file=json, **options)


@command(
    "inference --checkpoint BC_training/checkpoints/quickstart --out predictions.parquet",
    "inference --checkpoint BC_training/checkpoints/quickstart --episode 3 --out predictions.csv --json latency.json",
)
def inference(
    checkpoint: cli.Policy, out: cli.Predictions, data: cli.Data = None, episode: cli.Episode = 0, json: cli.Json = None
) -> None:
    """Predict a recorded episode as in play: a table of true and predicted buttons with their probabilities."""
    from BC_training.evaluation.predict import predict

    predict(checkpoint, out, console, data=data, episode=episode, json_file=json)


@command(
    "compare BC_training/checkpoints/*", "compare BC_training/checkpoints/a BC_training/checkpoints/b --plot ab.png"
)
def compare(
    checkpoints: cli.Checkpoints = None,
    json: cli.Json = None,
    csv: cli.Csv = None,
    markdown: cli.Markdown = None,
    plot: cli.Plot = None,
) -> None:
    """Compare runs: cost of training, scores on recordings and in play, latency."""
    from BC_training.reports.compare.compare import compare

    compare(checkpoints or [], console, json_file=json, csv_file=csv, markdown_file=markdown, plot_file=plot)


@command(
    "convert recordings/ --from sessions --keybinds keybinds.json --out data/mine.zarr",
    "convert freedoom2.wad --from doom-demo --size 72x128 --fps 17.5 --out data/demos.zarr",
    "convert data/mine.zarr --from events --keybinds other.json --fps 10 --shift 1 --out data/other.zarr",
    "convert data/mine.zarr --to lerobot --out data/mine-lerobot",
)
def convert(
    source: cli.Source,
    out: cli.Converted,
    kind: cli.Kind = None,
    to: cli.To = None,
    size: cli.Size = None,
    fps: cli.Fps = None,
    keybinds: cli.Keybinds = None,
    iwad: cli.Iwad = None,
    camera: cli.Camera = None,
    pwad: cli.Pwad = None,
    leave_out: cli.LeaveOut = None,
    time_unit: cli.TimeUnit = "us",
    turn: cli.Turn = None,
    shift: cli.Shift = 0.0,
    video: cli.AsVideo = False,
    allow_missing: cli.AllowMissing = False,
    workers: cli.Workers = None,
) -> None:
    """Convert recordings of another kind into a dataset, or a dataset into another kind."""
    given = {"keybinds": keybinds, "iwad": iwad, "pwad": pwad, "camera": camera, "leave-out": leave_out, "turn": turn}
    given |= {"allow-missing": allow_missing, "time-unit": time_unit != "us", "video": video, "shift": shift}
    cli.require_conversion(kind, to, fps, given)
    frame_size = None if size is None else cli.parse_size(size)
    if kind is None:
        from BC_training.convert.lerobot.export import export

        export(source, out, frame_size, fps, workers, console)
        return
    from BC_training.convert.conversion import Options, convert

    chosen = kind, frame_size, fps, keybinds, iwad, camera, tuple(pwad or ()), tuple(leave_out or ())
    convert(source, out, Options(*chosen, time_unit, turn or "axis", video, allow_missing, shift), workers, console)


@command("analyze data/quickstart.zarr")
def analyze(data: cli.Dataset, out: cli.Page = None, actions: cli.Actions = None, json: cli.Json = None) -> None:
    """Show what is in a dataset: tables here, and a page to open in a browser."""
    from BC_training.reports.dataset.analyze import analyze

    names = None if actions is None else [name.strip() for name in actions.split(",")]
    analyze(data, console, out=out, actions=names, json_file=json)


@command("cache", "cache --clear")
def cache(clear: cli.Clear = False, folder: cli.Caches = None) -> None:
    """List or clear the disk caches of decoded frames (dataset.cache=disk)."""
    from BC_training.data.cache import clear_caches, default_folder, list_caches

    (clear_caches if clear else list_caches)(folder or default_folder(), console)


@command(
    "validate data/mine.zarr",
    "validate data/mine.zarr --repair data/good.zarr --json findings.json",
    note="Exit code: 0 clean (or nothing worse than info), 1 errors or warnings, 2 cannot be read.",
)
def validate(data: cli.Dataset, repair: cli.Repair = None, json: cli.Json = None, workers: cli.Workers = None) -> None:
    """Read a dataset from end to end and list what is wrong with it, by episode and frame."""
    from BC_training.validate.validate import validate

    findings = validate(data, console, workers=workers, json_file=json, repair_to=repair)
    if any(finding.severity != "info" for finding in findings):
        raise typer.Exit(1)


def main() -> None:
    cli.run(app, default="train")


if __name__ == "__main__":
    main()
