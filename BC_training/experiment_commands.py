"""The commands that run several trainings."""

from typing import Annotated

import typer

from BC_training import command_line as cli

Rounds = Annotated[int, typer.Option(min=1, help="Rounds after the first training, on the config's dataset.")]
RoundLabel = Annotated[str, typer.Option(help="Who labels the frames: expert, a checkpoint, or human, who takes over.")]
RoundMix = Annotated[float, typer.Option(help="In round k the labeller acts in a share mix^k of the frames.")]
Trials = Annotated[int, typer.Option(help="How many trials there shall be, those that failed or were pruned, too.")]
Objective = Annotated[
    cli.Text,
    typer.Option(
        help="The score that trials are compared by: loss, macro_f1, exact_match, rollout, change_match, onset_f1, "
        "per_action/NAME/f1, ...; by default evaluation.best_metric."
    ),
]
Storage = Annotated[str, typer.Option(help="How the trials are kept: journal, also on a shared folder, or sqlite.")]
Prune = Annotated[bool, typer.Option(help="End a trial whose score is worse than the median at the same epoch.")]
Drawn = Annotated[
    list[str] | None,
    typer.Argument(help="What is drawn, KEY=LOW..HIGH, KEY=log:LOW..HIGH or 'KEY=A|B|C', and settings of every trial."),
]

console = cli.make_console()
experiments = cli.make_app("")
command = cli.commands_of(experiments)


@command("suite", "suite --config my_suite.yaml evaluation.rollout.episodes=20")
def suite(config: cli.Config = "configs/suite.yaml", overrides: cli.Overrides = None) -> None:
    """Record, train and play several games with several variants, unattended, into one table."""
    from BC_training.experiments.suite import Suite, suite

    with cli.resumable():
        suite(Suite.load(config, overrides or []), console)


@command(
    "dagger --config configs/resnet_policy.yaml --rounds 3 --episodes 20",
    "dagger --config configs/temporal_cnn.yaml dataset.path=data/few.zarr dataset.record.episodes=12",
    "dagger --config configs/pure_cnn.yaml --label human --takeover LSHIFT --rounds 2 --episodes 5",
)
def dagger(
    config: cli.Config,
    overrides: cli.Overrides = None,
    rounds: Rounds = 3,
    episodes: cli.Episodes = 20,
    mix: RoundMix = 0.0,
    label: RoundLabel = "expert",
    takeover: cli.Takeover = None,
    keybinds: cli.KeysFile = None,
) -> None:
    """Train in rounds: the policy plays, an expert or a person corrects it, it is trained again (DAgger)."""
    from BC_training.experiments.dagger import dagger

    person = {"takeover": takeover, "keybinds": keybinds}
    with cli.resumable():
        dagger(cli.load(config, overrides), console, rounds=rounds, episodes=episodes, mix=mix, label=label, **person)


@command(
    "finetune --config configs/finetune.yaml",
    "finetune --config configs/finetune.yaml finetune.from=BC_training/checkpoints/mine finetune.game=doom/basic",
)
def finetune(config: cli.Config, overrides: cli.Overrides = None) -> None:
    """Make a policy better than its teacher by play in its game (PPO), as near to its clone as asked."""
    from BC_training.experiments.finetune import finetune
    from BC_training.finetuning.setup import load_config

    with cli.resumable():
        finetune(load_config(config, overrides or []), console)


@command(
    "sweep --config configs/quickstart.yaml --trials 30 training.learning_rate=log:1e-4..1e-2 model.dropout=0..0.5",
    "sweep --config configs/quickstart.yaml 'training.loss=bce|focal' training.batch_size=log:32..256 system.workers=1",
    "sweep --config configs/quickstart.yaml --objective rollout evaluation.rollout.every_n_epochs=1 model.width=8..32",
    note="The same command, started again, goes on; started elsewhere on the same folders, it takes part.",
)
def sweep(
    config: cli.Config,
    overrides: Drawn = None,
    trials: Trials = 30,
    objective: Objective = None,
    storage: Storage = "journal",
    prune: Prune = True,
) -> None:
    """Try settings: many trainings with drawn ones, whose bad ones end early, and which of them matter."""
    from BC_training.experiments.sweep import Sweep, sweep

    with cli.resumable():
        plan = Sweep.load(config, overrides or [], objective)
        sweep(plan, console, trials=trials, storage=storage, prune=prune)
