"""DAgger: a policy plays, an expert labels the frames it reaches, and it is trained again on all there is.

Ross, Gordon and Bagnell: A Reduction of Imitation Learning and Structured Prediction to No-Regret
Online Learning, AISTATS 2011. A policy trained on an expert's play alone has never seen where its own
mistakes lead; here the dataset comes to hold these frames, with what the expert would press there.
"""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.errors import UserError
from BC_training.common.files import disk_full_is_user_error, write_whole
from BC_training.common.metrics import return_text
from BC_training.common.schema import Config, RecordConfig
from BC_training.common.settings.evaluation import RolloutConfig
from BC_training.common.storage.store import LocalStore, is_remote
from BC_training.common.storage.writer import next_number, require_appendable
from BC_training.play.intervals import interval_text
from BC_training.play.record import record_missing, recorded_episodes, require_players
from BC_training.reports.compare.runs import Run
from BC_training.reports.compare.scores import play_scores, training_costs
from BC_training.reports.compare.show import Column, markdown_table
from BC_training.runtime.devices import prepare_devices
from BC_training.runtime.interruption import Interruption
from BC_training.train import train
from BC_training.training import checkpoint
from BC_training.training.resume import find_start
from BC_training.training.run_folder import lock_run, run_folders
from BC_training.training.setup import Setup

_COLUMNS = (
    Column("round", "round", "{round}"),
    Column("mix", "mix", "{mix:.3g}"),
    Column("episodes", "episodes", "{episodes}"),
    Column("frames", "frames", "{frames:,}"),
    Column("minutes", "minutes", "{minutes:.1f}"),
    Column("exact_match", "exact, val", "{exact_match:.3f}"),
    Column("mean_return", "return", return_text),
    Column("normalized", "normalized", "{normalized:.3f}"),
    Column("normalized_low", "95 % interval", "{normalized_low:.3f} to {normalized_high:.3f}"),
    Column("failed", "failed", "{failed} ({failed_low:.1%} to {failed_high:.1%})"),
)


def dagger(
    config: Config, console: Console, *, rounds: int, episodes: int, mix: float = 0.0, label: str = "expert"
) -> dict[str, Any]:
    """Trains on the config's dataset, then ``rounds`` times records, adds to the dataset and trains again.

    Round k is a run of its own, ``<run>-round<k>``, and has a dataset of its own beside the config's,
    ``<run>-round<k>.zarr``: that of the round before and ``episodes`` more, played by the best
    checkpoint of the round before and labelled by ``label``, who acts in a share mix^k of the frames.
    The same call goes on where an earlier one stopped.

    Returns:
        label, mix, and of the scores game, skill, seed (the first), plays (episodes), random_mean and
        expert_mean with their ci95; rounds, a row each. The same is in
        ``<log_dir>/<run>-dagger/dagger.json``, and the table in ``dagger.md``.

    Raises:
        UserError: bad input, or rounds that were begun with other settings.
        Interrupted: SIGTERM or SIGINT came; what was finished is kept.
    """
    with Interruption():
        return _dagger(config, console, rounds, episodes, mix, label)


def _dagger(config: Config, console: Console, rounds: int, episodes: int, mix: float, label: str) -> dict[str, Any]:
    device = prepare_devices(config.system)
    play = _require_rounds_possible(config, label, mix)
    run, log_dir = run_folders(config)
    folder = log_dir.with_name(f"{run.name}-dagger")
    with lock_run(folder):
        data, rows, result = Path(config.dataset.path), [], {}
        for number in range(rounds + 1):
            share = mix**number if number else None
            console.print(f"round {number} of {rounds} on {device}", style="bold")
            if number:
                before, data = data, data.with_name(f"{run.name}-round{number}.zarr")
                record = _recording(config, play, before, episodes, label, mix**number, rows[-1]["checkpoint"])
                _aggregate(before, data, record, config.system.workers, console)
            this = _round_config(config, number, data)
            if not _is_finished(this, console):
                train(this, console)
            rows.append(_row(number, share, this))
            result = {"label": label, "mix": mix, **_play(this), "rounds": rows}
            write_whole(folder / "dagger.json", json.dumps(result, indent=2) + "\n")
            write_whole(folder / "dagger.md", f"{_caption(result)}\n\n{markdown_table(_COLUMNS, rows)}")
    table = Table(title=_caption(result), title_justify="left", box=None, padding=(0, 1, 0, 0))
    for column in _COLUMNS:
        table.add_column(column.heading, justify="right")
    for row in rows:
        table.add_row(*(column.cell(row) for column in _COLUMNS))
    console.print(table)
    console.print(f"also in {folder / 'dagger.json'} and dagger.md", soft_wrap=True, highlight=False, markup=False)
    return result


def _require_rounds_possible(config: Config, label: str, mix: float) -> RolloutConfig:
    """Finds bad input before anything is written or trained; returns how rounds are scored."""
    play, options, path = config.evaluation.rollout, config.dataset, Path(config.dataset.path)
    if jax.process_count() > 1:
        raise UserError("dagger runs in one process: start it without a launcher, system.distributed=null")
    if play is None:
        raise UserError("dagger scores each round in play: the config needs an evaluation.rollout section")
    if config.training.resume != "auto":
        raise UserError(
            f"training.resume={config.training.resume}: dagger goes on by itself; for new rounds choose another "
            "logging.run_name"
        )
    if is_remote(options.path):
        raise UserError(
            f"dagger adds to a copy of the dataset, but {options.path} is remote: copy it to a local folder"
        )
    if options.channel_order != "rgb":
        raise UserError("dagger adds RGB frames to the dataset's: dataset.channel_order=bgr does not go with them")
    recorded = options.record
    if recorded is None:
        recorded = RecordConfig(
            play.game, skill=play.skill, frame_size=ZarrGameplayDataset.from_config(options).frame_size
        )
    # The policy that will play does not exist yet; its place is taken by the labeller.
    names = require_players(replace(recorded, player=label, label=label, mix=mix))
    if path.exists():
        require_appendable(path, *names)
    return play


def _recording(
    config: Config, play: RolloutConfig, before: Path, episodes: int, label: str, mix: float, player: str
) -> RecordConfig:
    """How a round's episodes are recorded: with seeds that neither ``before`` nor the scores use."""
    dataset = ZarrGameplayDataset.from_config(config.dataset, before)
    recorded = config.dataset.record or RecordConfig(play.game, skill=play.skill)
    used = [e.attrs["seed"] for e in dataset.episodes if isinstance(e.attrs.get("seed"), int)]
    seed = max([recorded.seed - 1, *used]) + 1
    for first in sorted((play.seed, play.validation_seed)):
        if first < seed + episodes and seed < first + play.episodes:
            seed = first + play.episodes
    return RecordConfig(recorded.game, player, episodes, seed, recorded.skill, dataset.frame_size, label=label, mix=mix)


def _aggregate(before: Path, data: Path, record: RecordConfig, workers: int | None, console: Console) -> None:
    """Makes ``data`` of the episodes in ``before`` and those of ``record``, or completes it."""
    if not data.exists():
        unnamed = data.with_name(f".partial-{data.name}")  # a killed copy is made anew
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
    record_missing(data, record, workers, console, first_number=next_number(before))


def _link(source: str, target: str) -> None:
    """Shares the file where the file system can and nobody rewrites it: chunks, but not attributes."""
    if not source.endswith(".json"):
        try:
            os.link(source, target)
            return
        except OSError:
            pass
    shutil.copy2(source, target)


def _round_config(config: Config, number: int, data: Path) -> Config:
    """Of one round's training. Episodes stay in the split that they were in the round before."""
    dataset = replace(config.dataset, split=replace(config.dataset.split, by_player=True))
    if number:
        dataset = replace(dataset, path=str(data), record=None)
    logging = replace(config.logging, run_name=f"{config.logging.run_name}-round{number}")
    return replace(config, dataset=dataset, logging=logging)


def _is_finished(config: Config, console: Console) -> bool:
    """Whether the round was trained and scored as the config says.

    Raises:
        UserError: it was begun with other settings, or its dataset has changed.
    """
    run, log_dir = run_folders(config)
    if not (log_dir / "rollout.json").is_file():
        return False
    setup = Setup.build(config, console)
    if not find_start(config, setup.inputs, setup.fingerprint, console).progress.is_finished(config):
        return False
    assert config.evaluation.rollout is not None  # found before
    found, wanted = Run.read(run, log_dir), config.evaluation.rollout.final_play
    return {key: found.play.get(key) for key in wanted} == wanted and found.evaluation is not None


def _row(number: int, mix: float | None, config: Config) -> dict[str, Any]:
    run, dataset = Run.read(*run_folders(config)), ZarrGameplayDataset.from_config(config.dataset)
    play = play_scores(run.play)
    return {
        "round": number,
        "run": run.folder.name,
        "checkpoint": str(checkpoint.find(run.path)),
        "dataset": config.dataset.path,
        "mix": mix,
        "episodes": len(dataset.episodes),
        "frames": len(dataset),
        "minutes": training_costs(run.epochs, run.saved).total_minutes,
        "exact_match": None if run.evaluation is None else run.evaluation.exact_match,
        **{key: value for key, value in play.items() if key != "episodes"},
    }


def _play(config: Config) -> dict[str, Any]:
    """What the scores of a round, and of all others, are of."""
    play = Run.read(*run_folders(config)).play
    kept = {key: play[key] for key in ("game", "skill", "seed", "random_mean", "expert_mean")}
    kept |= {key: play.get(key) for key in ("random_ci95", "expert_ci95")}
    return kept | {"plays": play["episodes"]}


def _caption(result: dict[str, Any]) -> str:
    beside = ", ".join(
        f"{who} {return_text(result[f'{who}_mean'])}{interval_text(result[f'{who}_ci95'], return_text)}"
        for who in ("random", "expert")
        if result[f"{who}_mean"] is not None
    )
    seeds = f"seeds {result['seed']} to {result['seed'] + result['plays'] - 1}"
    return f"{result['game']}, skill {result['skill']}, {seeds} ({beside})"
