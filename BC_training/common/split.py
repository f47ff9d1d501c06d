"""Splits episodes into those for training and those for validation and test."""

from collections.abc import Sequence

import numpy as np

SPLITS = ("train", "val", "test")


def split_groups(groups: Sequence[Sequence[int]], shares: dict[str, float], seed: int) -> dict[str, list[int]] | None:
    """Splits each group of episodes separately, at random from ``seed``, and joins the parts.

    A group's split does not depend on the other groups. Every split with a share above 0 gets at least
    one episode of each group; the whole of a group with too few episodes goes into training.

    Args:
        shares: one for each split; they sum to 1.

    Returns:
        The episodes of "train", "val" and "test" in ascending order; None if every group has too few.
    """
    wanted = {name: shares[name] for name in SPLITS if shares.get(name, 0) > 0}
    enough = max(2, len(wanted))
    if all(len(group) < enough for group in groups):
        return None
    split: dict[str, list[int]] = {name: [] for name in SPLITS}
    for group in groups:
        order = np.random.default_rng(seed).permutation(group)
        sizes = _sizes(wanted, len(group)) if len(group) >= enough else {"train": len(group)}
        start = 0
        for name in SPLITS:
            end = start + sizes.get(name, 0)
            split[name] += [int(e) for e in order[start:end]]
            start = end
    return {name: sorted(episodes) for name, episodes in split.items()}


def _sizes(shares: dict[str, float], count: int) -> dict[str, int]:
    """How many of ``count`` episodes each split gets: at least one, and "train" also the rest."""
    sizes = {name: max(1, round(share * count)) for name, share in shares.items()}
    while sum(sizes.values()) > count:
        largest = max(sizes, key=lambda name: sizes[name])
        sizes[largest] -= 1
    sizes["train"] += count - sum(sizes.values())
    return sizes
