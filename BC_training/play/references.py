"""Known returns of scripted players, which need not be played again.

They are in ``reference_returns.json``, with the versions of the engine and of the code, and hold for no other. After a
change of a game, an expert or ViZDoom,

    uv run python -m BC_training.play.references

plays those of other versions again: half an hour of one core for all. Games that are named after it are added.
"""

import ast
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rich.console import Console

from BC_training.common.files import write_whole
from BC_training.games import GameSpec
from BC_training.play import scripted
from BC_training.play.players import BUILT_IN
from BC_training.play.say import say
from BC_training.play.scores import SMALL, play_episodes

FILE = Path(__file__).with_name("reference_returns.json")
HOW_TO_NORMALIZE = (
    "give the means of random and of an expert that you know, --reference-means RANDOM EXPERT or, in a config, "
    "evaluation.rollout.reference_means"
)
SEEDS = (range(100), range(1000, 1020), range(5000, 5100))  # for the final score, in training, and for the suite


def reference_players(game: GameSpec) -> list[str]:
    """The players between whom scores in a game are normalised."""
    return ["random"] if game.expert is None else ["random", "expert"]


def reference_returns(
    game: GameSpec,
    seeds: range,
    workers: int | None,
    console: Console,
    means: tuple[float, float] | None = None,
    own: Mapping[str, list[float]] = MappingProxyType({}),
) -> dict[str, list[float]]:
    """Returns of the ``reference_players`` in the episodes of ``seeds``, in the game without its handicaps.

    Args:
        means: those of random and an expert, which the user gives: they stand for all their returns.
        own: returns of players that have played already.
    """
    if means is not None:
        return {"random": [means[0]], "expert": [means[1]]}
    players = reference_players(game)
    missing = [player for player in players if player not in own]
    found = scripted_returns(game.without_handicaps, missing, seeds, workers, console) | dict(own)
    if "expert" not in players:
        say(console, f"{game} has no expert, so scores are not normalised: {HOW_TO_NORMALIZE}")
    return {player: found[player] for player in players}


def scripted_returns(
    game: GameSpec, players: Sequence[str], seeds: range, workers: int | None, console: Console
) -> dict[str, list[float]]:
    """Returns of players among "expert", "random" and "noop" in the episodes of ``seeds``; plays those not known."""
    known = {player: found for player in players if (found := known_returns(game, player, seeds)) is not None}
    if known:
        first, last = seeds.start, seeds.stop - 1
        say(console, f"{game}, seeds {first} to {last}: the returns of {' and '.join(known)} are known")
    for player in players:
        if player not in known:
            outcomes = play_episodes(str(game), player, seeds, SMALL, workers, console)
            known[player] = [outcome.score for outcome in outcomes]
    return {player: known[player] for player in players}


def known_returns(game: GameSpec, player: str, seeds: Sequence[int]) -> list[float] | None:
    """The returns of ``player`` in the episodes of ``seeds``; None unless all are known for this version."""
    entry = _read_file().get(str(game))
    if entry is None or entry["version"] != game_version(game):
        return None
    returns = {}
    for first, values in entry["returns"].get(player, {}).items():
        returns |= dict(enumerate(values, int(first)))
    return [returns[seed] for seed in seeds] if set(seeds) <= returns.keys() else None


@cache
def game_version(game: GameSpec) -> str:
    """The engine's version and a digest of the code of the game's kind, its experts and ``scripted.py``.

    Comments and docstrings do not count.
    """
    files = [Path(scripted.__file__), *sorted(game.code_folder.rglob("*.py"))]
    digest = hashlib.sha256("\0".join(map(_plain_code, files)).encode()).hexdigest()[:16]
    return f"{game.engine} {version(game.engine)}, code {digest}"


def _plain_code(file: Path) -> str:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        documented = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        if documented and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return ast.unparse(tree)


@cache
def _read_file() -> dict[str, Any]:
    return json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}


def main() -> None:
    """Plays what the file lacks of its games, and of those on the command line, and writes it, game by game."""
    console, known = Console(), dict(_read_file())
    for game in map(GameSpec.parse, dict.fromkeys([*known, *sys.argv[1:]])):
        if all(known_returns(game, player, seeds) is not None for player in BUILT_IN for seeds in SEEDS):
            continue
        returns: dict[str, dict[str, list[float]]] = {player: {} for player in BUILT_IN}
        for player in BUILT_IN:
            for seeds in SEEDS:
                outcomes = play_episodes(str(game), player, seeds, SMALL, None, console)
                returns[player][str(seeds.start)] = [outcome.score for outcome in outcomes]
        known[str(game)] = {"version": game_version(game), "returns": returns}
        write_whole(FILE, json.dumps(known, separators=(",", ":")).replace('],"', '],\n"') + "\n")
        say(console, f"{game}: written to {FILE}")


if __name__ == "__main__":
    main()
