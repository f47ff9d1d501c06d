"""The results of ``rollout``, as ``rollout.json`` stores them. None stands for a number that has no value."""

from dataclasses import dataclass
from typing import Any

from BC_training.common.decode import Decoding
from BC_training.common.json_object import JsonObject
from BC_training.common.settings.evaluation import RolloutConfig
from BC_training.games import GameSpec

Interval = tuple[float, float]  # low and high, at 95 %


@dataclass(frozen=True)
class PlayScores(JsonObject):
    """The scores of a player's returns.

    Attributes:
        normalized: (mean - random's mean) / (expert's mean - random's mean); None unless the expert is better.
        failed: how many episodes are nearer to random's mean than to the expert's; None likewise.
        failed_ci95: of their share.
    """

    mean: float
    ci95: Interval | None
    normalized: float | None
    normalized_ci95: Interval | None
    failed: int | None
    failed_ci95: Interval | None


@dataclass(frozen=True)
class RolloutResult(PlayScores):
    """The episodes and scores of a player.

    Attributes:
        game: its spec.
        player: "expert", "random", "noop" or a checkpoint's folder.
        step, decoding: the checkpoint's; None for other players.
        seed: the first episode's; the others count up.
        references: returns of random, and of an expert, in the same episodes of the game without its handicaps.
        reference_means: of random and an expert, where the user gave them and they did not play.
        restarts: how often the player's game died.
        seen: which of the episodes the checkpoint has seen before (``seen_seeds``).
        video: the file of the first episode; None if it was not filmed.
    """

    game: str
    player: str
    step: int | None
    decoding: Decoding | None
    episodes: int
    seed: int
    returns: list[float]
    references: dict[str, list[float]]
    restarts: int
    random_mean: float
    random_ci95: Interval | None
    expert_mean: float | None
    expert_ci95: Interval | None
    seen: dict[str, int]
    video: str | None
    reference_means: tuple[float, float] | None = None


def final_play(options: RolloutConfig) -> dict[str, Any]:
    """The game, episodes and seed of the play at the end of a training, as a ``RolloutResult`` names them."""
    return {"game": str(GameSpec.parse(options.known_game)), "episodes": options.episodes, "seed": options.seed}
