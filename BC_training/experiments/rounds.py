"""The scores of rounds of DAgger: ``dagger.json`` and its table."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from rich.table import Table

from BC_training.common.files import write_whole
from BC_training.common.json_object import JsonObject
from BC_training.common.metrics import return_text
from BC_training.play.intervals import interval_text
from BC_training.play.results import Interval, RolloutResult
from BC_training.reports.compare.show import Column, markdown_table

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


@dataclass(frozen=True)
class Round(JsonObject):
    """A round's training and its scores.

    Attributes:
        mix: the share of the round's new frames in which the labeller acted; None for round 0, which has none.
        episodes, frames: in the dataset; of the frames those that are labelled.
        minutes: the time of training.
        normalized_low, normalized_high: the interval of ``normalized`` at 95 %; ``failed`` episodes likewise.
    """

    round: int
    run: str
    checkpoint: str
    dataset: str
    mix: float | None
    episodes: int
    frames: int
    minutes: float | None
    exact_match: float | None
    mean_return: float
    normalized: float | None
    normalized_low: float | None
    normalized_high: float | None
    failed: int | None
    failed_low: float | None
    failed_high: float | None


@dataclass(frozen=True)
class Rounds(JsonObject):
    """What ``dagger.json`` holds.

    Attributes:
        game, seed, plays: the episodes that each round is scored on: the first seed, and how many.
        random_mean, expert_mean: these players' scores in them, with intervals at 95 %; None without an expert.
    """

    label: str
    mix: float
    game: str
    seed: int
    plays: int
    random_mean: float
    expert_mean: float | None
    random_ci95: Interval | None
    expert_ci95: Interval | None
    rounds: tuple[Round, ...]

    @classmethod
    def of(cls, label: str, mix: float, rounds: Sequence[Round], play: RolloutResult) -> Self:
        """Collects ``rounds``, each of which was scored on the episodes of ``play``."""
        kept = ("game", "seed", "random_mean", "expert_mean", "random_ci95", "expert_ci95")
        values = {name: getattr(play, name) for name in kept}
        return cls(label=label, mix=mix, plays=play.episodes, rounds=tuple(rounds), **values)

    @property
    def caption(self) -> str:
        references = {"random": (self.random_mean, self.random_ci95), "expert": (self.expert_mean, self.expert_ci95)}
        beside = ", ".join(
            f"{who} {return_text(mean)}{interval_text(ci95, return_text)}"
            for who, (mean, ci95) in references.items()
            if mean is not None
        )
        return f"{self.game}, seeds {self.seed} to {self.seed + self.plays - 1} ({beside})"

    def table(self) -> Table:
        table = Table(title=self.caption, title_justify="left", box=None, padding=(0, 1, 0, 0))
        for column in _COLUMNS:
            table.add_column(column.heading, justify="right")
        for row in self.rounds:
            table.add_row(*(column.cell(vars(row)) for column in _COLUMNS))
        return table

    def save(self, folder: Path) -> None:
        """Writes ``dagger.json`` and the table, ``dagger.md``."""
        write_whole(folder / "dagger.json", json.dumps(self.to_dict(), indent=2) + "\n")
        table = markdown_table(_COLUMNS, [vars(row) for row in self.rounds])
        write_whole(folder / "dagger.md", f"{self.caption}\n\n{table}")
