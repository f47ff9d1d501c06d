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

from BC_training.common import checkpoint
from BC_training.common.checkpoint_writer import make_folder, run_folders
from BC_training.common.config import load_config, parse_overrides, read_yaml
from BC_training.common.devices import prepare_devices
from BC_training.common.errors import UserError, unknown, write_whole
from BC_training.common.metrics import normalize_score
from BC_training.common.schema import Config
from BC_training.common.sharding import from_main
from BC_training.common.yaml_values import settle
from BC_training.games import require_game
from BC_training.games.episodes import say_restarts
from BC_training.games.players import BUILT_IN, EXPERTS
from BC_training.rollout import RESAMPLES, SMALL, confidence_interval, play_episodes
from BC_training.train import train

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
                    **parse_overrides(overrides),
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
        suite, games (of each its players' scores: returns, mean, ci95, normalized, normalized_ci95), mean
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
    console.print(_table(result, [*BUILT_IN, *variants]))
    if is_main:
        write_whole(folder / "suite.json", json.dumps(result, indent=2) + "\n")
        write_whole(folder / "suite.md", to_markdown(result, [*BUILT_IN, *variants]))
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
    normalized: dict[str, list[np.ndarray]] = {}  # of each player's episodes, an array a game
    for game, players in returns.items():
        low, high = (float(np.mean(players[who])) for who in ("random", "expert"))
        can_normalize = high > low
        games[game] = {}
        for who, values in players.items():
            interval = confidence_interval(values)
            games[game][who] = {
                "returns": values,
                "mean": float(np.mean(values)),
                "ci95": interval,
                "normalized": normalize_score(float(np.mean(values)), low, high),
                "normalized_ci95": [normalize_score(e, low, high) for e in interval]
                if interval and can_normalize
                else None,
            }
            of_games = normalized.setdefault(who, [])
            if can_normalize:
                of_games.append((np.array(values) - low) / (high - low))
    whole = {who: scores for who, scores in normalized.items() if len(scores) == len(games)}
    mean = {
        who: {
            "normalized": float(np.mean([scores.mean() for scores in whole[who]])),
            "normalized_ci95": _interval_of_mean(whole[who]),
        }
        if who in whole
        else None
        for who in normalized
    }
    return {"games": games, "mean": mean}


def _interval_of_mean(scores: Sequence[np.ndarray]) -> list[float] | None:
    """[low, high] at 95 % of the mean over games, by percentile bootstrap of the episodes of each.

    None where a game has a single episode, which says nothing of the spread.
    """
    if min(map(len, scores)) < 2:
        return None
    rng = np.random.default_rng(0)
    means = [rng.choice(values, (RESAMPLES, len(values))).mean(axis=1) for values in scores]
    return np.percentile(np.mean(means, axis=0), [2.5, 97.5]).tolist()


def to_markdown(result: dict[str, Any], players: Sequence[str]) -> str:
    lines = [["game", *players], ["---", *["---:"] * len(players)], *_rows(result, players)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _table(result: dict[str, Any], players: Sequence[str]) -> Table:
    title = Text(f"{result['suite']}: normalized scores", "table.title")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("game")
    for player in players:
        table.add_column(player, justify="right")
    for row in _rows(result, players):
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
    interval = score["normalized_ci95"]
    return f"{score['normalized']:.3f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")


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
