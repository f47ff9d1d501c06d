"""Several games, several variants: records, trains and plays all of them unattended, and writes one table."""

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
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
            spec = GameSpec.parse(game)
            if spec.expert is None:
                raise UserError(f"suite {file}: {game} has no expert to learn from")
            if not isinstance(own or {}, dict):
                raise UserError(f"suite {file}: what is of {game} is a mapping, found '{own}'")
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

    What an earlier try finished stands. Where a training fails, the next one begins.

    Returns:
        What is also in ``<log_dir>/<suite>``.

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
        raise UserError(f"of {len(plan.configs)} trainings {len(failed)} failed: {'; '.join(failed)}")
    return result


def _scripted(config: Config, folder: Path, console: Console) -> dict[str, list[float]]:
    """Returns of the scripted players on the episodes that the policies will play, from the file of an earlier try."""
    played = _episodes(config)
    file = folder / f"{GameSpec.parse(played['game']).file_name}.json"
    with contextlib.suppress(TypeError):  # another program's file
        saved = ScriptedPlay.from_dict(_read(file))
        if saved == ScriptedPlay(**played, returns=saved.returns):
            return saved.returns
    game, seeds = GameSpec.parse(played["game"]), range(played["seed"], played["seed"] + played["episodes"])
    returns = scripted_returns(game.without_handicaps, BUILT_IN, seeds, config.system.workers, console)
    write_whole(file, json.dumps(ScriptedPlay(**played, returns=returns).to_dict()) + "\n")
    return returns


def _episodes(config: Config) -> dict[str, Any]:
    """Which episodes a training's best checkpoint plays."""
    assert config.evaluation.rollout is not None  # Suite.load has seen to it
    return final_play(config.evaluation.rollout)


def _played(config: Config) -> list[float] | None:
    """The returns in play that a finished training of this very config has left; None without."""
    run_dir, log_dir = run_folders(config)
    play, wanted = _read(log_dir / "rollout.json"), _episodes(config)
    try:
        trained, saved = load_config(log_dir / "config.yaml"), checkpoint.read(run_dir)
    except UserError:  # nothing there, or not whole: training mends it, or says what is wrong
        return None
    # A training that was stopped in its last play has the new config beside what an older one played.
    wanted |= {"step": saved.step, "decoding": saved.decoding.to_dict()}
    return play["returns"] if trained == config and {key: play.get(key) for key in wanted} == wanted else None


def _read(file: Path) -> dict[str, Any]:
    """What a JSON file holds; nothing if it is not there or not whole."""
    try:
        return dict(json.loads(file.read_text()))
    except (OSError, ValueError, TypeError):
        return {}
