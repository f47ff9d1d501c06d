"""The config section ``training.weight_by_return``: what the episodes' scores say about how much each is trained on."""

import math
from dataclasses import dataclass

from BC_training.common.errors import UserError, require
from BC_training.common.files import expand_fields
from BC_training.common.settings.rules import FREE, setting


@dataclass(frozen=True)
class WeightByReturnConfig:
    """One of ``temperature`` and ``top``; a score is the return of an episode, higher is better."""

    # t: frames are drawn in proportion to exp(z / t), z being the score of their episode, standardised
    temperature: float | None = None
    top: float | None = None  # the share of the training episodes that is trained on, those with the best scores
    scores: str | None = setting(None, FREE)  # a YAML or JSON file, EPISODE: SCORE; null: as recorded
    digest: str | None = None  # of the scores; the training sets it, so that it never goes on with others

    def __post_init__(self) -> None:
        expand_fields(self, "training.weight_by_return", "scores")
        here, temperature, top = "training.weight_by_return", self.temperature, self.top
        if (temperature is None) == (top is None):
            found = "neither temperature nor top" if top is None else "both temperature and top"
            raise UserError(f"config: {here} has {found}: write one, such as {here}.top=0.3")
        require(temperature is None or 0 < temperature < math.inf, f"{here}.temperature", temperature, "more than 0")
        require(top is None or 0 < top <= 1, f"{here}.top", top, "more than 0, at most 1")
