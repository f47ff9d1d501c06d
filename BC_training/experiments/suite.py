"""Several games, several variants: records, trains and plays all of them unattended, and writes one table."""

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from BC_training.common.config import load_config, read_yaml
from BC_training.common.errors import UserError, unknown
from BC_training.common.files import write_whole
from BC_training.common.schema import Config
from BC_training.common.settings.typed import parse_overrides
from BC_training.common.settings.yaml_values import settle
from BC_training.experiments.suite_scores import ScriptedPlay, SuiteScores
from BC_training.games import GameSpec
from BC_training.play.players import BUILT_IN
from BC_training.play.references import scripted_returns
from BC_training.play.results import final_play
from BC_training.runtime.devices import prepare_devices
from BC_training.runtime.sharding import from_main
from BC_training.train import train
from BC_training.training import checkpoint
from BC_training.training.run_folder import make_folder, run_folders

_SECTIONS = ("variants", "settings", "games")


@dataclass(frozen=True)
class Suite:
    """The trainings of a suite, by game and variant; ``name`` is that of its file."""

    name: str
    configs: dict[tuple[str, str], Config]

    @classmethod
    def load(cls, path: str | Path, overrides: Sequence[str] = ()) -> "Suite":
        """Reads a suite, every training's config with it.

            variants: {NAME: CONFIG FILE, ...}
            settings: {KEY: VALUE, ...}               # for every training, such as training.num_epochs
            games: {ID: {KEY: VALUE, ...}, ...}       # for the trainings in each game

        A run is called <suite>-<scenario>-<variant>, a dataset data/<suite>/<scenario>.zarr.
        ``overrides``, a dotlist of settings for every training, win.

        Raises:
            UserError: the file or a config is faulty, a game does not exist or has no expert, or variants would
            play other episodes of a game than each other.
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
                raise UserError(f"suite {file}: variant {variant} is a config file, found '{base}'")
            if variant in BUILT_IN:
                raise UserError(f"suite {file}: '{variant}' is a scripted player: give the variant another name")
        configs: dict[tuple[str, str], Config] = {}
        for game, own in games.items():
            spec = GameSpec.parse(game)
            if spec.expert is None:
                raise UserError(f"suite {file}: {game} has no expert to learn from")
            if not isinstance(own or {}, dict):
                raise UserError(f"suite {file}: game {game} is a mapping of settings, found '{own}'")
            game, scenario = str(spec), spec.file_name
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


def suite(plan: Suite, console: Console) -> SuiteScores:
    """Runs a suite's trainings one after the other, and the scripted players.

    What an earlier call finished is kept. Where a training fails, the next one begins. The result
    is also in ``<log_dir>/<suite>``.

    Raises:
        UserError: at the end, if a training failed.
        Interrupted: a training was interrupted, and saved.
    """
    first = next(iter(plan.configs.values()))
    prepare_devices(first.system)
    is_main = jax.process_index() == 0
    console.quiet = console.quiet or not is_main
    folder = Path(first.logging.log_dir) / plan.name
    if is_main:
        make_folder(folder)
    variants = list(dict.fromkeys(variant for _, variant in plan.configs))
    scripted = {game: config for (game, variant), config in plan.configs.items() if variant == variants[0]}
    returns = from_main(lambda: {game: _scripted(config, folder, console) for game, config in scripted.items()})
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
            returns[game][variant] = played
    result = SuiteScores.of(plan.name, returns, [*BUILT_IN, *variants])
    console.print(*result.tables())
    if is_main:
        write_whole(folder / "suite.json", json.dumps(result.to_dict(), indent=2) + "\n")
        write_whole(folder / "suite.md", result.markdown())
    console.print(f"written to {folder / 'suite.md'} and suite.json", soft_wrap=True, highlight=False, markup=False)
    if failed := from_main(lambda: failed):
        raise UserError(f"{len(failed)} of {len(plan.configs)} trainings failed: {'; '.join(failed)}")
    return result


def _scripted(config: Config, folder: Path, console: Console) -> dict[str, list[float]]:
    """Returns of the scripted players on the episodes that policies will play, read from a file if an earlier call
    has written it."""
    played = _episodes(config)
    file = folder / f"{GameSpec.parse(played['game']).file_name}.json"
    with contextlib.suppress(ValueError):  # another program's file
        saved = ScriptedPlay.from_dict(_read(file))
        if saved == ScriptedPlay(**played, returns=saved.returns):
            return saved.returns
    game, seeds = GameSpec.parse(played["game"]), range(played["seed"], played["seed"] + played["episodes"])
    returns = scripted_returns(game.without_handicaps, BUILT_IN, seeds, config.system.workers, console)
    write_whole(file, json.dumps(ScriptedPlay(**played, returns=returns).to_dict()) + "\n")
    return returns


def _episodes(config: Config) -> dict[str, Any]:
    """Which episodes a training's best checkpoint plays."""
    assert config.evaluation.rollout is not None  # Suite.load has checked it
    return final_play(config.evaluation.rollout)


def _played(config: Config) -> list[float] | None:
    """The returns in play of a finished training with this very config; None if there is none."""
    run_dir, log_dir = run_folders(config)
    play, wanted = _read(log_dir / "rollout.json"), _episodes(config)
    try:
        trained, saved = load_config(log_dir / "config.yaml"), checkpoint.read(run_dir)
    except UserError:  # missing or incomplete: training mends it, or reports what is wrong
        return None
    metric = config.evaluation.best_metric or trained.evaluation.best_metric
    config = replace(config, evaluation=replace(config.evaluation, best_metric=metric))
    # A training that was stopped in its last play has the new config beside the scores of an older one.
    wanted |= {"step": saved.step, "decoding": saved.decoding.to_dict()}
    return play["returns"] if trained == config and {key: play.get(key) for key in wanted} == wanted else None


def _read(file: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if the file is missing or incomplete."""
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
