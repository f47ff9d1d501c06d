"""The configuration's section on scores of the validation split and scores in play."""

import math
from dataclasses import dataclass
from typing import Literal

from BC_training.common.decode import DecodeSettings
from BC_training.common.errors import UserError, require, require_at_least
from BC_training.common.settings.rules import FREE, ON_REQUEST, setting

_MEANS = "evaluation.rollout.reference_means"
SEEDS = 2**32  # games take seeds from 0 to one less than this


@dataclass(frozen=True)
class RolloutConfig:
    """Episodes the best checkpoint plays when training ends, and others that checkpoints play before."""

    # the game's spec, such as doom/deadly_corridor?skill=5; null: what the dataset's episodes name
    game: str | None = setting(None, choosing=ON_REQUEST, scores=("rollout",))
    episodes: int = setting(20, choosing=ON_REQUEST, scores=("rollout",))
    seed: int = 0  # of the first episode that the best checkpoint plays
    # play after every so many epochs, too; null: only when training ends
    every_n_epochs: int | None = setting(None, choosing=ON_REQUEST)
    # the first seed of the episodes during training; the final score plays others
    validation_seed: int = setting(1000, choosing=ON_REQUEST, scores=("rollout",))
    video: bool = True
    # the mean returns of random and of an expert, between which scores are normalised; null: these play, too
    reference_means: tuple[float, float] | None = setting(None, FREE)

    def __post_init__(self) -> None:
        require_at_least(1, self, "evaluation.rollout", "episodes")
        for name in ("seed", "validation_seed"):
            possible = 0 <= getattr(self, name) <= SEEDS - self.episodes
            require(possible, f"evaluation.rollout.{name}", getattr(self, name), "0 or more, the last one below 2^32")
        every, first = self.every_n_epochs, self.validation_seed
        require(every is None or every >= 1, "evaluation.rollout.every_n_epochs", every, "at least 1, or null")
        apart = abs(first - self.seed) >= self.episodes
        if (means := self.reference_means) is not None:
            rule = "two numbers, random's and a higher one"
            require(len(means) == 2 and -math.inf < means[0] < means[1] < math.inf, _MEANS, list(means), rule)
            object.__setattr__(self, "reference_means", tuple(means))
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
    # null: macro_f1, or loss where there are axes; rollout: the mean return
    best_metric: Literal["macro_f1", "exact_match", "loss", "rollout"] | None = None
    rollout: RolloutConfig | None = setting(None, FREE)

    def __post_init__(self) -> None:
        require_at_least(1, self, "evaluation", "every_n_epochs", "batch_size")
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
    def known_metric(self) -> str:
        """What chooses the best checkpoint, once it is known: the set-up of a training asks the dataset."""
        assert self.best_metric is not None, "evaluation.best_metric is not known yet"
        return self.best_metric

    def is_due(self, epoch: int, epochs: int) -> bool:
        """Whether the ``epoch``-th of ``epochs`` ends with metrics of the validation split."""
        return epoch % self.every_n_epochs == 0 or epoch == epochs or self.is_play_due(epoch, epochs)

    def is_play_due(self, epoch: int, epochs: int) -> bool:
        """Whether the ``epoch``-th of ``epochs`` ends with episodes of play."""
        every = self.rollout.every_n_epochs if self.rollout is not None else None
        return every is not None and (epoch % every == 0 or epoch == epochs)
