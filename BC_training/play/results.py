"""What ``rollout`` finds, as ``rollout.json`` stores it. None stands for a number that has no value."""

from dataclasses import dataclass
from typing import Any

from BC_training.common.decode import Decoding
from BC_training.common.json_object import JsonObject
from BC_training.common.settings.evaluation import RolloutConfig
from BC_training.games import GameSpec

Interval = tuple[float, float]  # low and high, at 95 %


@dataclass(frozen=True)
class PlayScores(JsonObject):
    """What returns say of their player.

    Attributes:
        mean: of the returns.
        normalized: (mean - random's mean) / (expert's mean - random's mean); None without an expert who is better
            than random.
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
    """Episodes of a player, and what they say of it.

    Attributes:
        game: its spec.
        player: "expert", "random", "noop" or a checkpoint's folder.
        step: of a checkpoint; None for other players, as is decoding.
        decoding: how the checkpoint's probabilities became buttons.
        seed: the first episode's; the others count up.
        returns: of each episode.
        references: returns of random, and of the expert where there is one, in the same episodes of the game without
            its handicaps.
        restarts: how often the player's game died and was started again.
        random_mean, random_ci95, expert_mean, expert_ci95: of the references; None without expert.
        seen: what of the play the checkpoint has seen before (``seen_seeds``).
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


def final_play(options: RolloutConfig) -> dict[str, Any]:
    """Which episodes the best checkpoint plays when training ends: game, episodes and seed of a ``RolloutResult``."""
    return {"game": str(GameSpec.parse(options.known_game)), "episodes": options.episodes, "seed": options.seed}
