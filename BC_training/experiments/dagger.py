"""DAgger: a policy plays, an expert labels the frames it reaches, and it is trained again on all there is.

Ross, Gordon and Bagnell: A Reduction of Imitation Learning and Structured Prediction to No-Regret
Online Learning, AISTATS 2011. A policy trained on an expert's play alone has never seen where its own
mistakes lead. Here the dataset gets these frames, with the buttons that the expert would press there.

Kelly et al.: HG-DAgger: Interactive Imitation Learning with Human Experts, ICRA 2019, for the label "human": a person
watches the policy and takes over where it goes wrong. Only the frames in which they do are learned from.
"""

import contextlib
import os
import shutil
from dataclasses import replace
from pathlib import Path

import jax
from rich.console import Console

from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.errors import UserError
from BC_training.common.files import disk_full_is_user_error
from BC_training.common.schema import HUMAN, Config, DatasetConfig, RecordConfig
from BC_training.common.settings.evaluation import RolloutConfig
from BC_training.common.storage.store import LocalStore, is_remote
from BC_training.common.storage.writer import next_number, require_appendable
from BC_training.experiments.rounds import Round, Rounds
from BC_training.games.dataset_game import game_of
from BC_training.play.human.options import PersonOptions
from BC_training.play.record import record_missing, recorded_episodes, require_players
from BC_training.play.results import final_play
from BC_training.reports.compare.runs import Run
from BC_training.reports.compare.scores import play_scores, training_costs
from BC_training.runtime.devices import prepare_devices
from BC_training.runtime.interruption import Interruption
from BC_training.train import train
from BC_training.training import checkpoint
from BC_training.training.run_folder import lock_run, run_folders
from BC_training.training.setup import Setup


def dagger(
    config: Config,
    console: Console,
    *,
    rounds: int,
    episodes: int,
    mix: float = 0.0,
    label: str = "expert",
    takeover: str | None = None,
    keybinds: Path | None = None,
) -> Rounds:
    """Trains on the config's dataset, then ``rounds`` times records, adds to the dataset and trains again.

    Round k is a run of its own, ``<run>-round<k>``, with a dataset of its own beside the config's,
    ``<run>-round<k>.zarr``: that of the round before and ``episodes`` more, which the best checkpoint
    of the round before plays and ``label`` labels, acting in a share mix^k of the frames. "human" is
    a person, who takes over by the key ``takeover`` and plays by the file ``keybinds``. The same call
    goes on where an earlier one stopped. The result is also in ``<log_dir>/<run>-dagger``.

    Raises:
        UserError: bad input, rounds that were begun with other settings, or a person who stops early.
        Interrupted: SIGTERM or SIGINT came; what was finished is kept.
    """
    if label != HUMAN and (takeover is not None or keybinds is not None):
        raise UserError("--takeover and --keybinds are for a person who corrects the policy: add --label human")
    person = PersonOptions(keybinds, PersonOptions.takeover if takeover is None else takeover)
    with Interruption():
        return _dagger(config, console, rounds, episodes, mix, label, person)


def _dagger(
    config: Config,
    console: Console,
    rounds: int,
    episodes: int,
    mix: float,
    label: str,
    person: PersonOptions,
) -> Rounds:
    device = prepare_devices(config.system)
    play = _require_rounds_possible(config, label, mix, person)
    config = replace(config, evaluation=replace(config.evaluation, rollout=play))
    run, log_dir = run_folders(config)
    folder = log_dir.with_name(f"{run.name}-dagger")
    with lock_run(folder):
        data, trained, result = Path(config.dataset.paths[0]), [], None
        for number in range(rounds + 1):
            share = mix**number if number else None
            console.print(f"round {number} of {rounds} on {device}", style="bold")
            if share is not None:
                before, data = data, data.with_name(f"{run.name}-round{number}.zarr")
                record = _recording(config.dataset, play, before, episodes, label, share, trained[-1].checkpoint)
                _aggregate(before, data, record, config.system.workers, console, person)
            round_config = _round_config(config, number, data)
            if not _is_finished(round_config, play, console):
                train(round_config, console)
            finished = Run.read(*run_folders(round_config))
            assert finished.play is not None, finished.missing
            trained.append(_round(number, share, round_config.dataset, finished))
            result = Rounds.of(label, mix, trained, finished.play)
            result.save(folder)
    assert result is not None
    console.print(result.table())
    console.print(f"also in {folder / 'dagger.json'} and dagger.md", soft_wrap=True, highlight=False, markup=False)
    return result


def _require_rounds_possible(config: Config, label: str, mix: float, person: PersonOptions) -> RolloutConfig:
    """Finds bad input before anything is written; returns how rounds are scored, and in which game."""
    play, options = config.evaluation.rollout, config.dataset
    if jax.process_count() > 1:
        raise UserError("dagger runs in one process: start it without a launcher, system.distributed=null")
    if play is None:
        raise UserError("dagger scores each round in play: the config needs an evaluation.rollout section")
    if config.training.resume != "auto":
        raise UserError(
            f"training.resume={config.training.resume}: dagger goes on by itself; for new rounds choose another "
            "logging.run_name"
        )
    if not isinstance(options.path, str):
        raise UserError(f"dagger adds to one dataset, and dataset.path names {len(options.path)}: name one")
    path = Path(options.path)
    if is_remote(options.path):
        raise UserError(
            f"dagger adds to a copy of the dataset, but {options.path} is remote: copy it to a local folder"
        )
    if options.channel_order != "rgb":
        raise UserError("dagger adds RGB frames to the dataset's: dataset.channel_order=bgr does not go with them")
    recorded = options.record
    if recorded is None:
        dataset = ZarrGameplayDataset.from_config(options)
        game = play.game or game_of(dataset)
        if game is None:
            raise UserError(
                f"dagger records more of the dataset's game, but the episodes of {path} do not name one game: "
                "set evaluation.rollout.game"
            )
        recorded = RecordConfig(game, frame_size=dataset.frame_size)
    play = replace(play, game=play.game or recorded.game)
    # The policy that will play does not exist yet; another stands in for it.
    player = "noop" if label == HUMAN else label
    names = require_players(replace(recorded, player=player, label=label, mix=mix, noise=0.0), person)
    if path.exists():
        require_appendable(path, names)
    return play


def _recording(
    options: DatasetConfig, play: RolloutConfig, before: Path, episodes: int, label: str, mix: float, player: str
) -> RecordConfig:
    """How a round's episodes are recorded: with seeds that neither ``before`` nor the scores use."""
    dataset = ZarrGameplayDataset.from_config(options, before)
    recorded = options.record or RecordConfig(play.known_game)
    used = [e.attrs["seed"] for e in dataset.episodes if isinstance(e.attrs.get("seed"), int)]
    seed = max([recorded.seed - 1, *used]) + 1
    for first in sorted((play.seed, play.validation_seed)):
        if first < seed + episodes and seed < first + play.episodes:
            seed = first + play.episodes
    return RecordConfig(recorded.game, player, episodes, seed, dataset.frame_size, label=label, mix=mix)


def _aggregate(
    before: Path,
    data: Path,
    record: RecordConfig,
    workers: int | None,
    console: Console,
    person: PersonOptions,
) -> None:
    """Makes ``data`` of the episodes in ``before`` and those of ``record``, or completes it."""
    if not data.exists():
        unnamed = data.with_name(f".partial-{data.name}")
        shutil.rmtree(unnamed, ignore_errors=True)
        with console.status(f"copying {before}"), disk_full_is_user_error(data):
            shutil.copytree(before, unnamed, copy_function=_link, ignore=shutil.ignore_patterns(".partial-*"))
            unnamed.rename(data)
    old, there = set(LocalStore(before).episode_names()), set(LocalStore(data).episode_names())
    seeds = range(record.seed, record.seed + record.episodes)
    ours = {e.name for e in recorded_episodes(data, record) if e.attrs["seed"] in seeds}
    odd = sorted((old - there) | (there - old - ours))
    if odd:
        raise UserError(
            f"{data} does not hold what this command says ({odd[0]} is not of {before}, nor by {record.player}, "
            f"labelled by {record.label}, mix {record.mix:g}, seed {seeds.start} to {seeds.stop - 1}): set the "
            "options back, or choose another logging.run_name"
        )
    record_missing(data, record, workers, console, first_number=next_number(before), person=person)


def _link(source: str, target: str) -> None:
    """Shares the file where the file system can and nobody rewrites it: chunks, but not attributes."""
    if not source.endswith(".json"):
        with contextlib.suppress(OSError):
            os.link(source, target)
            return
    shutil.copy2(source, target)


def _round_config(config: Config, number: int, data: Path) -> Config:
    """The config of one round's training, in which episodes stay in the split of the round before."""
    dataset = replace(config.dataset, split=replace(config.dataset.split, by_player=True))
    if number:
        dataset = replace(dataset, path=str(data), record=None)
    logging = replace(config.logging, run_name=f"{config.logging.run_name}-round{number}")
    return replace(config, dataset=dataset, logging=logging)


def _is_finished(config: Config, play: RolloutConfig, console: Console) -> bool:
    """Whether the round was trained and scored as the config says.

    Raises:
        UserError: it was begun with other settings, or its dataset has changed.
    """
    run, log_dir = run_folders(config)
    if not (log_dir / "rollout.json").is_file():
        return False
    if not Setup.build(config, console).find_start(console).progress.is_finished(config):
        return False
    found, wanted = Run.read(run, log_dir), final_play(play)
    is_played = found.play is not None and found.play.to_dict().items() >= wanted.items()
    return is_played and found.evaluation is not None


def _round(number: int, mix: float | None, data: DatasetConfig, run: Run) -> Round:
    dataset, play = ZarrGameplayDataset.from_config(data), play_scores(run.play)
    return Round(
        round=number,
        run=run.folder.name,
        checkpoint=str(checkpoint.find(run.path)),
        dataset=dataset.path,
        mix=mix,
        episodes=len(dataset.episodes),
        frames=sum(len(frames) for episode in dataset.episodes for frames in episode.labelled),
        minutes=training_costs(run.epochs, run.saved).total_minutes,
        exact_match=None if run.evaluation is None else run.evaluation.exact_match,
        **{key: value for key, value in play.items() if key != "episodes"},
    )
