"""The scores of a suite's players: ``suite.json``, its tables, and the files of scripted play."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from BC_training.common.json_object import JsonObject
from BC_training.common.metrics import number
from BC_training.play.intervals import (
    failed_text,
    interval_text,
    normalized_interval,
    play_statistics,
    reference_statistics,
)

_REFERENCES = ("random", "expert")


@dataclass(frozen=True)
class ScriptedPlay(JsonObject):
    """The returns of each scripted player in one game. The other fields are those of ``final_play``."""

    game: str
    episodes: int
    seed: int
    returns: dict[str, list[float]]


@dataclass(frozen=True)
class Normalized(JsonObject):
    """A normalised score, and its interval at 95 %, [low, high]; None where there is none."""

    normalized: float | None
    normalized_ci95: tuple[float, float] | None

    def __str__(self) -> str:
        return number(self.normalized) + interval_text(self.normalized_ci95, number)


@dataclass(frozen=True)
class Score(Normalized):
    """A player's ``play_statistics`` in one game."""

    returns: list[float]
    mean: float
    ci95: tuple[float, float] | None
    failed: int | None
    failed_ci95: tuple[float, float] | None


@dataclass(frozen=True)
class SuiteScores(JsonObject):
    """What ``suite.json`` holds.

    Attributes:
        games: by game and player. A game whose expert is no better than random has no normalised scores.
        mean: by player, over the games; None where a game lacks the player's score.
    """

    suite: str
    games: dict[str, dict[str, Score]]
    mean: dict[str, Normalized | None]

    @classmethod
    def of(cls, suite: str, returns: Mapping[str, Mapping[str, list[float]]], players: Sequence[str]) -> Self:
        """Scores ``returns``, by game and player, with random and the expert among them, and means of ``players``."""
        games, references = {}, {game: {who: played[who] for who in _REFERENCES} for game, played in returns.items()}
        for game, played in returns.items():
            known = reference_statistics(references[game])
            games[game] = {
                who: Score(returns=r, **vars(known.get(who) or play_statistics(r, references[game])))
                for who, r in played.items()
            }
        mean: dict[str, Normalized | None] = dict.fromkeys(players)
        for who in players:
            scores = [scored[who].normalized for scored in games.values() if who in scored]
            if None not in scores and len(scores) == len(games):
                sampled = [(played[who], references[game]) for game, played in returns.items()]
                interval = None if who in _REFERENCES else normalized_interval(sampled)
                mean[who] = Normalized(float(np.mean(scores)), interval)
        return cls(suite, games, mean)

    def markdown(self) -> str:
        """Two tables: normalised scores, and failed episodes."""
        tables = []
        for corner, rows in (("game", self._scores()), ("failed episodes", self._failures())):
            lines = [[corner, *self.mean], ["---", *["---:"] * len(self.mean)], *rows]
            tables.append("".join(f"| {' | '.join(line)} |\n" for line in lines))
        return "\n".join(tables)

    def tables(self) -> list[Table]:
        """Makes the same two tables for the screen."""
        tables = []
        for title, rows in (("normalized scores", self._scores()), ("failed episodes", self._failures())):
            heading = Text(f"{self.suite}: {title}", "table.title")
            table = Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD)
            table.add_column("game")
            for player in self.mean:
                table.add_column(player, justify="right")
            for row in rows:
                table.add_row(*row)
            tables.append(table)
        return tables

    def _scores(self) -> list[list[str]]:
        return [*self._rows(str), _row("mean", self.mean, self.mean, str)]

    def _failures(self) -> list[list[str]]:
        return self._rows(lambda score: failed_text(score.failed, score.failed_ci95, len(score.returns)))

    def _rows(self, cell: Callable[[Score], str]) -> list[list[str]]:
        return [_row(game.rpartition("/")[2], scores, self.mean, cell) for game, scores in self.games.items()]


def _row(name: str, scores: Mapping[str, Any], players: Iterable[str], cell: Callable[[Any], str]) -> list[str]:
    """A dash stands for a training that failed."""
    return [name, *("–" if scores.get(who) is None else cell(scores[who]) for who in players)]
