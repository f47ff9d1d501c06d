"""The configuration's section on scores: of the validation split, and in play."""

from dataclasses import dataclass, fields
from typing import Literal

from BC_training.common.decode import DecodeSettings
from BC_training.common.errors import UserError, require
from BC_training.common.settings.rules import FREE, ON_REQUEST, setting

SEEDS = 2**32  # games take those from 0 to one less


@dataclass(frozen=True)
class RolloutConfig:
    """Episodes the best checkpoint plays when training ends, and others that checkpoints play before."""

    # its spec, such as doom/deadly_corridor?skill=5; null: what the dataset's episodes name
    game: str | None = setting(None, choosing=ON_REQUEST, scores=("rollout",))
    episodes: int = setting(20, choosing=ON_REQUEST, scores=("rollout",))
    seed: int = 0  # the first episode's, of the best checkpoint
    # also play after every so many epochs, and the last; null: at the end only
    every_n_epochs: int | None = setting(None, choosing=ON_REQUEST)
    # the first episode's of these, apart from those of the final score
    validation_seed: int = setting(1000, choosing=ON_REQUEST, scores=("rollout",))
    video: bool = True

    def __post_init__(self) -> None:
        require(self.episodes >= 1, "evaluation.rollout.episodes", self.episodes, "at least 1")
        for name in ("seed", "validation_seed"):
            possible = 0 <= getattr(self, name) <= SEEDS - self.episodes
            require(possible, f"evaluation.rollout.{name}", getattr(self, name), "0 or more, the last one below 2^32")
        every, first = self.every_n_epochs, self.validation_seed
        require(every is None or every >= 1, "evaluation.rollout.every_n_epochs", every, "at least 1, or null")
        apart = abs(first - self.seed) >= self.episodes
        rule = "its episodes none of those from evaluation.rollout.seed on"
        require(every is None or apart, "evaluation.rollout.validation_seed", first, rule)

    @property
    def known_game(self) -> str:
        """The game, once it is known: the set-up of a training asks the dataset."""
        assert self.game is not None, "evaluation.rollout.game is not known yet"
        return self.game


@dataclass(frozen=True)
class EvaluationConfig(DecodeSettings):
    every_n_epochs: int = 1
    batch_size: int = setting(256, FREE)
    best_metric: Literal["macro_f1", "exact_match", "loss", "rollout"] = "macro_f1"  # rollout: the mean return
    rollout: RolloutConfig | None = setting(None, FREE)

    def __post_init__(self) -> None:
        require(self.every_n_epochs >= 1, "evaluation.every_n_epochs", self.every_n_epochs, "at least 1")
        require(self.batch_size >= 1, "evaluation.batch_size", self.batch_size, "at least 1")
        require(0 < self.threshold < 1, "evaluation.threshold", self.threshold, "between 0 and 1")
        mentioned = [*self.thresholds, *(name for group in self.exclusive for name in group)]
        try:
            self.decoding(["every other action", *mentioned])
        except UserError as error:
            raise UserError(f"config: evaluation.{error}") from error
        by_play = self.best_metric == "rollout"
        plays = self.rollout is not None and self.rollout.every_n_epochs is not None
        require(not by_play or plays, "evaluation.best_metric", "rollout", "needs evaluation.rollout.every_n_epochs")

    @property
    def decode_settings(self) -> DecodeSettings:
        """Those that decide which buttons are pressed, without the others."""
        return DecodeSettings(*(getattr(self, setting.name) for setting in fields(DecodeSettings)))

    def is_due(self, epoch: int, epochs: int) -> bool:
        """Whether the ``epoch``-th of ``epochs`` ends with metrics of the validation split."""
        return epoch % self.every_n_epochs == 0 or epoch == epochs or self.is_play_due(epoch, epochs)

    def is_play_due(self, epoch: int, epochs: int) -> bool:
        """Whether it ends with episodes of play, too."""
        every = self.rollout.every_n_epochs if self.rollout is not None else None
        return every is not None and (epoch % every == 0 or epoch == epochs)
