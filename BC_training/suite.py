"""Several games, several variants: records, trains and plays all of them unattended, and writes one table."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from BC_training.common import checkpoint
from BC_training.common.checkpoint_writer import run_folders
from BC_training.common.config import load_config, parse_overrides, read_yaml
from BC_training.common.errors import UserError, unknown
from BC_training.common.metrics import normalize_score
from BC_training.common.schema import Config
from BC_training.games import require_game
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
            UserError: the file or one of the configs is not right, or a game does not exist or has no expert.
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
        configs = {}
        for game, own in games.items():
            require_game(game)
            if game not in EXPERTS:
                raise UserError(f"suite {file}: {game} has no expert to learn from")
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
                configs[game, variant] = load_config(base, settings)
        return cls(file.stem, configs)


def suite(plan: Suite, console: Console) -> dict[str, Any]:
    """Runs a suite's trainings one after the other, and the scripted players.

    What an earlier try finished stands. A training that fails is said, and the next one begins.

    Returns:
        suite, games (of each its players' scores: returns, mean, ci95, normalized, normalized_ci95), mean
        (over the games, of each player: normalized, normalized_ci95; None where a game lacks it).

    Raises:
        UserError: at the end, if a training failed.
        Interrupted: a training was interrupted; what there was to save is saved.
    """
    folder = Path(next(iter(plan.configs.values())).logging.log_dir) / plan.name
    folder.mkdir(parents=True, exist_ok=True)
    games = list(dict.fromkeys(game for game, _ in plan.configs))
    variants = list(dict.fromkeys(variant for _, variant in plan.configs))
    returns = {game: _scripted(plan.configs[game, variants[0]], folder, console) for game in games}
    failed = []
    for number, ((game, variant), config) in enumerate(plan.configs.items(), 1):
        console.rule(f"{game}, {variant} ({number} of {len(plan.configs)})")
        played = _played(config)
        if played is None:
            try:
                train(config, console, {who: returns[game][who] for who in ("random", "expert")})
            except UserError as error:
                console.print(f"failed: {error}", style="red", soft_wrap=True, markup=False)
                failed.append(f"{game} {variant} ({error})")
            played = _played(config)
        else:
            console.print("finished before", soft_wrap=True)
        if played is not None:
            returns[game][variant] = played["returns"]
    result = {"suite": plan.name, **summarize(returns)}
    console.print(_table(result, [*BUILT_IN, *variants]))
    (folder / "suite.json").write_text(json.dumps(result, indent=2) + "\n")
    (folder / "suite.md").write_text(to_markdown(result, [*BUILT_IN, *variants]))
    console.print(f"written to {folder / 'suite.md'} and suite.json", soft_wrap=True, highlight=False)
    if failed:
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
        games[game] = {}
        for who, values in players.items():
            interval = confidence_interval(values)
            games[game][who] = {
                "returns": values,
                "mean": float(np.mean(values)),
                "ci95": interval,
                "normalized": normalize_score(float(np.mean(values)), low, high),
                "normalized_ci95": interval and [normalize_score(end, low, high) for end in interval],
            }
            of_games = normalized.setdefault(who, [])
            if high > low:
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


def _interval_of_mean(scores: Sequence[np.ndarray]) -> list[float]:
    """[low, high] at 95 % of the mean over games, by percentile bootstrap of the episodes of each."""
    rng = np.random.default_rng(0)
    means = [rng.choice(values, (RESAMPLES, len(values))).mean(axis=1) for values in scores]
    return np.percentile(np.mean(means, axis=0), [2.5, 97.5]).tolist()


def to_markdown(result: dict[str, Any], players: Sequence[str]) -> str:
    lines = [["game", *players], ["---", *["---:"] * len(players)], *_rows(result, players)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _table(result: dict[str, Any], players: Sequence[str]) -> Table:
    table = Table(title=f"{result['suite']}: normalized scores", title_justify="left", box=box.SIMPLE_HEAD)
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
    options = config.evaluation.rollout
    assert options is not None  # Suite.load names its game
    seeds = range(options.seed, options.seed + options.episodes)
    file = folder / f"{options.game.rpartition('/')[2]}.json"
    played = {"game": options.game, "seeds": [seeds.start, seeds.stop], "skill": options.skill}
    if file.is_file():
        saved = json.loads(file.read_text())
        if {key: saved.get(key) for key in played} == played:
            return saved["returns"]
    returns = {}
    for player in BUILT_IN:
        game_options = {"frame_size": SMALL, "skill": options.skill}
        outcomes = play_episodes(options.game, player, seeds, game_options, config.system.workers, console)
        returns[player] = [outcome.score for outcome in outcomes]
    file.write_text(json.dumps(played | {"returns": returns}) + "\n")
    return returns


def _played(config: Config) -> dict[str, Any] | None:
    """The scores in play that a finished training of this very config has left."""
    run_dir, log_dir = run_folders(config)
    files = log_dir / "config.yaml", log_dir / "rollout.json"
    if not all(file.is_file() for file in files) or load_config(files[0]) != config:
        return None
    play = json.loads(files[1].read_text())
    return play if play["step"] == checkpoint.read(run_dir).step else None
