"""Rewards to learn from in fine-tuning (``finetune.reward``); scores stay the games' own."""

from collections.abc import Mapping


def hurt_and_kills(before: Mapping[str, float], after: Mapping[str, float], reward: float) -> float:
    """The game's reward, and 2 for each point of health and 100 for each kill.

    In deadly_corridor a step's own reward is the way made. A hit often kills some steps later: so it counts at once.
    """
    return reward + 2.0 * (after["health"] - before["health"]) + 100.0 * (after["kills"] - before["kills"])


def health(before: Mapping[str, float], after: Mapping[str, float], reward: float) -> float:
    """The game's reward, and 2 for each point of health: in health_gathering_supreme a step alive is 2, a medkit 25."""
    return reward + 2.0 * (after["health"] - before["health"])


def bullets(before: Mapping[str, float], after: Mapping[str, float], reward: float) -> float:
    """The game's reward less half a point for each bullet: in defend_the_center, where a kill is 1, they are few."""
    return reward + 0.5 * (after["ammo"] - before["ammo"])
