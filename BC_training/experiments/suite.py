"""Several games, several variants: records, trains and plays all of them unattended, and writes one table."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from BC_training.common import metrics
from BC_training.common.config import load_config, read_yaml
from BC_training.common.errors import UserError, unknown
from BC_training.common.files import write_whole
from BC_training.common.schema import Config
from BC_training.common.settings.typed import parse_overrides
from BC_training.common.settings.yaml_values import settle
from BC_training.games import require_game
from BC_training.play.episodes import say_restarts
from BC_training.play.intervals import failed_text, interval_text, normalized_interval, play_statistics
from BC_training.play.players import BUILT_IN, EXPERTS
from BC_training.play.rollout import SMALL, play_episodes
from BC_training.runtime.devices import prepare_devices
from BC_training.runtime.sharding import from_main
from BC_training.train import train
from BC_training.training import checkpoint
from BC_training.training.run_folder import make_folder, run_folders

_REFERENCES = ("random", "expert")
_SECTIONS = ("variants", "settings", "games")


@dataclass(frozen=True)
class Suite:
    """What a suite's file says.

    Attributes:
        name: of the file.
        configs: the training of each game and variant.
    """

    name: str
    configs: dict[tuple[str, str], Config]

    @classmethod
    def load(cls, path: str | Path, overrides: Sequence[str] = ()) -> "Suite":
        """Reads a suite, every training's config with it.

            variants: {NAME: CONFIG FILE, ...}
            settings: {KEY: VALUE, ...}               # of every training, such as training.num_epochs
            games: {ID: {KEY: VALUE, ...}, ...}       # of those in this game

        A run is called <suite>-<scenario>-<variant>, a dataset data/<suite>/<scenario>.zarr.

        Args:
            overrides: a dotlist of settings for every training, which win.

        Raises:
            UserError: the file or one of the configs is not right, a game does not exist or has no expert, or the
            variants would play other episodes of one.
        """
        file, raw = read_yaml(path)
        for section in raw:
            if section not in _SECTIONS:
                raise unknown(f"section of the suite {file},", str(section), _SECTIONS)
        for section in _SECTIONS:
            if not isinstance(raw.get(section) or {}, dict):
                raise UserError(f"suite {file}: '{section}' is a mapping, found '{raw[section]}'")
        variants, games = raw.get("variants") or {}, raw.get("games") or {}
        if not variants or not games:
            raise UserError(f"suite {file}: write at least one of 'variants' and one of 'games'")
        variants = settle(variants, dict[str, str])
        for variant, base in variants.items():
            if not isinstance(base, str):
                raise UserError(f"suite {file}: what is of {variant} is a config file, found '{base}'")
            if variant in BUILT_IN:
                raise UserError(f"suite {file}: '{variant}' is a scripted player: give the variant another name")
        configs: dict[tuple[str, str], Config] = {}
        for game, own in games.items():
            require_game(game)
            if game not in EXPERTS:
                raise UserError(f"suite {file}: {game} has no expert to learn from")
            if not isinstance(own or {}, dict):
                raise UserError(f"suite {file}: what is of {game} is a mapping, found '{own}'")
            scenario = game.rpartition("/")[2]
            for variant, base in variants.items():
                settings = {
                    "dataset.path": f"data/{file.stem}/{scenario}.zarr",
                    "dataset.record.game": game,
                    "evaluation.rollout.game": game,
                    "logging.run_name": f"{file.stem}-{scenario}-{variant}",
                    **(raw.get("settings") or {}),
                    **(own or {}),
                    **parse_overrides(overrides, Config),
                }
                config = configs[game, variant] = load_config(base, settings)
                if config.evaluation.rollout is None:
                    raise UserError(f"suite {file}: {variant} does not play: give {base} an evaluation.rollout section")
                if _episodes(config) != _episodes(first := configs[game, next(iter(variants))]):
                    raise UserError(
                        f"suite {file}: variants play alike, but in {game} {variant} plays {_episodes(config)} and "
                        f"{next(iter(variants))} {_episodes(first)}: write evaluation.rollout.* under 'settings'"
                    )
        return cls(file.stem, configs)


def suite(plan: Suite, console: Console) -> dict[str, Any]:
    """Runs a suite's trainings one after the other, and the scripted players.

    What an earlier try finished stands. A training that fails is said, and the next one begins.

    Returns:
        suite, games (of each its players' scores: returns, and ``play_statistics`` of them), mean
        (over the games, of each player: normalized, normalized_ci95; None where a game lacks it). A game whose
        expert is no better than random has no normalized scores, so then there is no mean.

    Raises:
        UserError: at the end, if a training failed.
        Interrupted: a training was interrupted; what there was to save is saved.
    """
    first = next(iter(plan.configs.values()))
    prepare_devices(first.system)
    is_main = jax.process_index() == 0
    console.quiet = console.quiet or not is_main
    folder = Path(first.logging.log_dir) / plan.name
    if is_main:
        make_folder(folder)
    games = list(dict.fromkeys(game for game, _ in plan.configs))
    variants = list(dict.fromkeys(variant for _, variant in plan.configs))
    returns = from_main(lambda: {game: _scripted(plan.configs[game, variants[0]], folder, console) for game in games})
    failed = []
    for number, ((game, variant), config) in enumerate(plan.configs.items(), 1):
        console.rule(f"{game}, {variant} ({number} of {len(plan.configs)})")
        played = from_main(lambda config=config: _played(config))
        if played is None:
            try:
                train(config, console, {who: returns[game][who] for who in ("random", "expert")})
            except UserError as error:
                console.print(f"failed: {error}", style="red", soft_wrap=True, markup=False)
                failed.append(f"{game} {variant} ({error})")
            played = from_main(lambda config=config: _played(config))
        else:
            console.print("finished before", soft_wrap=True)
        if played is not None:
            returns[game][variant] = played["returns"]
    result = {"suite": plan.name, **summarize(returns)}
    players = [*BUILT_IN, *variants]
    console.print(_table(f"{plan.name}: normalized scores", _rows(result, players), players))
    console.print(_table(f"{plan.name}: failed episodes", _failures(result, players), players))
    if is_main:
        write_whole(folder / "suite.json", json.dumps(result, indent=2) + "\n")
        write_whole(folder / "suite.md", to_markdown(result, players))
    console.print(f"written to {folder / 'suite.md'} and suite.json", soft_wrap=True, highlight=False, markup=False)
    if failed := from_main(lambda: failed):
        raise UserError(f"of {len(plan.configs)} trainings {len(failed)} failed: {'; '.join(failed)}")
    return result


def summarize(returns: dict[str, dict[str, list[float]]]) -> dict[str, Any]:
    """The "games" and "mean" of ``suite``.

    Args:
        returns: of each game, of each player; "random" and "expert" among them.
    """
    games: dict[str, dict[str, Any]] = {}
    for game, players in returns.items():
        references = {who: players[who] for who in _REFERENCES}
        games[game] = {who: {"returns": r, **play_statistics(r, references)} for who, r in players.items()}
        for who in _REFERENCES:  # by definition 0 and 1, which is no sample's
            games[game][who]["normalized_ci95"] = None
    mean = {}
    for who in dict.fromkeys(who for players in returns.values() for who in players):
        scores = [players[who]["normalized"] for players in games.values() if who in players]
        mean[who] = None
        if None not in scores and len(scores) == len(games):
            sampled = [(players[who], {r: players[r] for r in _REFERENCES}) for players in returns.values()]
            interval = None if who in _REFERENCES else normalized_interval(sampled)
            mean[who] = {"normalized": float(np.mean(scores)), "normalized_ci95": interval}
    return {"games": games, "mean": mean}


def to_markdown(result: dict[str, Any], players: Sequence[str]) -> str:
    """Two tables: normalised scores, and failed episodes."""
    tables = []
    for corner, rows in (("game", _rows(result, players)), ("failed episodes", _failures(result, players))):
        lines = [[corner, *players], ["---", *["---:"] * len(players)], *rows]
        tables.append("".join(f"| {' | '.join(line)} |\n" for line in lines))
    return "\n".join(tables)


def _table(title: str, rows: Sequence[Sequence[str]], players: Sequence[str]) -> Table:
    table = Table(title=Text(title, "table.title"), title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("game")
    for player in players:
        table.add_column(player, justify="right")
    for row in rows:
        table.add_row(*row)
    return table


def _rows(result: dict[str, Any], players: Sequence[str]) -> list[list[str]]:
    """A line a game, and one of the mean: a dash where a training failed."""
    games = {game.rpartition("/")[2]: players for game, players in result["games"].items()}
    return [
        [name, *(_cell(scores.get(who)) for who in players)]
        for name, scores in (games | {"mean": result["mean"]}).items()
    ]


def _cell(score: dict[str, Any] | None) -> str:
    if score is None or score["normalized"] is None:
        return "–"
    return metrics.number(score["normalized"]) + interval_text(score["normalized_ci95"], metrics.number)


def _failures(result: dict[str, Any], players: Sequence[str]) -> list[list[str]]:
    """A line a game."""
    rows = []
    for game, scores in result["games"].items():
        played = [scores.get(who) for who in players]
        cells = ["–" if score is None else failed_text(score, len(score["returns"])) for score in played]
        rows.append([game.rpartition("/")[2], *cells])
    return rows


def _scripted(config: Config, folder: Path, console: Console) -> dict[str, list[float]]:
    """Returns of the scripted players on the episodes that the policies will play, from the file of an earlier try."""
    played = _episodes(config)
    game, seed = played["game"], played["seed"]
    file = folder / f"{game.rpartition('/')[2]}.json"
    saved = _read(file)
    if {key: saved.get(key) for key in played} == played:
        return saved["returns"]
    returns = {}
    for player in BUILT_IN:
        game_options, seeds = {"frame_size": SMALL, "skill": played["skill"]}, range(seed, seed + played["episodes"])
        outcomes = play_episodes(game, player, seeds, game_options, config.system.workers, console)
        say_restarts(sum(outcome.restarts for outcome in outcomes), console)
        returns[player] = [outcome.score for outcome in outcomes]
    write_whole(file, json.dumps(played | {"returns": returns}) + "\n")
    return returns


def _episodes(config: Config) -> dict[str, Any]:
    """Which episodes a training's best checkpoint plays."""
    assert config.evaluation.rollout is not None  # Suite.load has seen to it
    return config.evaluation.rollout.final_play


def _played(config: Config) -> dict[str, Any] | None:
    """The scores in play that a finished training of this very config has left; None without."""
    run_dir, log_dir = run_folders(config)
    play, wanted = _read(log_dir / "rollout.json"), _episodes(config)
    try:
        trained, saved = load_config(log_dir / "config.yaml"), checkpoint.read(run_dir)
    except UserError:  # nothing there, or not whole: training mends it, or says what is wrong
        return None
    # A training that was stopped in its last play has the new config beside what an older one played.
    wanted |= {"step": saved.step, "decoding": saved.decoding.to_dict()}
    return play if trained == config and {key: play.get(key) for key in wanted} == wanted else None


def _read(file: Path) -> dict[str, Any]:
    """What a JSON file holds; nothing if it is not there or not whole."""
    try:
        return dict(json.loads(file.read_text()))
    except (OSError, ValueError, TypeError):
        return {}
