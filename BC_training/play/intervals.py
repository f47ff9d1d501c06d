"""Mean, normalised score and failed episodes of a sample of returns, with 95 % intervals.

A bootstrap does not know what a sample lacks: where a player dies in one episode of a hundred, most samples of 20 hold
no death, and their interval is a wrong point. So each resample here also holds three quarters of an episode that was
not played: for the lower end as bad as the worst one or as random's mean, for the upper end as good as the best one or
as the expert's mean. A whole episode would give Gaffke's bound (Learned-Miller and Thomas, A New Confidence Interval
for the Mean of a Bounded Random Variable, 2019), which for returns of two kinds is the interval of Clopper and Pearson;
half of one is near that of Jeffreys. With three quarters, such returns are covered in at least 93.8 % of samples of 10
to 200, whatever their shares. ``benchmarks/intervals.py`` compares other intervals.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from BC_training.common.metrics import normalize_score
from BC_training.play.results import Interval, PlayScores

RESAMPLES = 10_000
UNSEEN = 0.75  # how much of an episode that was not played each resample holds
_TAILS = (0.025, 0.975)
_BLOCK = 1 << 20  # weights drawn at once, 8 MiB

Returns = Sequence[float] | np.ndarray
References = Mapping[str, Returns]  # by "random", and "expert" where the game has one


def play_statistics(returns: Returns, references: References) -> PlayScores:
    """The scores of returns; ``references`` are those of random and the expert on the same seeds."""
    mean, (random, expert) = float(np.mean(returns)), _reference_means(references)
    normalized = None if random is None else normalize_score(mean, random, expert)
    failed = None
    if random is not None and expert is not None and normalized is not None:
        failed = int((np.asarray(returns) < (random + expert) / 2).sum())
    return PlayScores(
        mean,
        mean_interval(returns, references),
        normalized,
        normalized_interval([(returns, references)]),
        failed,
        None if failed is None else wilson_interval(failed, len(returns)),
    )


def reference_statistics(references: References) -> dict[str, PlayScores]:
    """``play_statistics`` of random and the expert, whose normalised scores are 0 and 1 by definition."""
    return {who: replace(play_statistics(r, references), normalized_ci95=None) for who, r in references.items()}


def mean_interval(returns: Returns, references: References) -> Interval | None:
    """[low, high] of the mean return at 95 %.

    None for a single return, and where all returns and the references' means are equal: nothing then shows how far
    from them another may lie.
    """
    ends = _ends(returns, references)
    if len(returns) < 2 or ends[0] == ends[1]:
        return None
    low, high = _means(returns, ends, np.random.default_rng(0))
    mean = float(np.mean(returns))  # between the two but for rounding
    return min(_quantile(low, 0), mean), max(_quantile(high, 1), mean)


def normalized_interval(games: Sequence[tuple[Returns, References]]) -> Interval | None:
    """[low, high] at 95 % of a normalised score, averaged over games.

    The references' means are of samples, too. They are resampled as the player's is, independently, although the seeds
    are the same; in each, the unseen part of an episode moves the score outwards.

    Args:
        games: the player's returns and the references' in each; a reference of one return is exact, as given.

    Returns:
        None without an expert, where the expert may be no better than random, and where anybody played one episode.
    """
    rng, ends = np.random.default_rng(0), ([], [])
    for returns, references in games:
        if not {"random", "expert"} <= references.keys():
            return None
        samples = (returns, references["random"], references["expert"])
        if len(returns) < 2:
            return None
        player, random, expert = (
            _means(sample, _ends(sample, references), rng) if len(sample) > 1 else np.full((2, RESAMPLES), sample[0])
            for sample in samples
        )
        for end, worst in ((0, -math.inf), (1, math.inf)):
            zero, span = random[1 - end], expert[1 - end] - random[1 - end]
            score = np.full(RESAMPLES, worst)
            np.divide(player[end] - zero, span, out=score, where=span > 0)
            ends[end].append(score)
    interval = _quantile(np.mean(ends[0], axis=0), 0), _quantile(np.mean(ends[1], axis=0), 1)
    return interval if all(map(math.isfinite, interval)) else None


def wilson_interval(count: int, episodes: int) -> Interval | None:
    """[low, high] of a share at 95 %; None of no episodes.

    Wilson, Probable Inference, the Law of Succession, and Statistical Inference, JASA 22 (1927).
    """
    if episodes == 0:
        return None
    z2, share = 1.959964**2 / episodes, count / episodes
    middle, half = share + z2 / 2, math.sqrt(z2 * (share * (1 - share) + z2 / 4))
    return max(middle - half, 0.0) / (1 + z2), min((middle + half) / (1 + z2), 1.0)


def interval_text(interval: Sequence[float] | None, form: Callable[[float], str]) -> str:
    """ " (low to high)" to follow a value, or ""."""
    return "" if interval is None else f" ({' to '.join(map(form, interval))})"


def failed_text(failed: int | None, ci95: Interval | None, episodes: int) -> str:
    """ "1 of 100 (0.2 to 5.4 %)"; a dash where failing is not defined."""
    return "–" if ci95 is None else f"{failed} of {episodes} ({100 * ci95[0]:.1f} to {100 * ci95[1]:.1f} %)"


def _reference_means(references: References) -> tuple[float | None, float | None]:
    random, expert = (float(np.mean(references[who])) if who in references else None for who in ("random", "expert"))
    return random, expert


def _ends(returns: Returns, references: References) -> tuple[float, float]:
    """The lowest and the highest return that an episode that was not played is taken to have."""
    random, expert = _reference_means(references)
    known = [float(np.min(returns)), float(np.max(returns)), *(m for m in (random, expert) if m is not None)]
    return min(known), max(known)


def _means(returns: Returns, ends: tuple[float, float], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Resampled means, float64 [RESAMPLES], with the unseen part of an episode at the low end, and at the high end.

    Weights are drawn as in the Bayesian bootstrap (Rubin 1981): Dirichlet, 1 for each return.
    """

    def weights(count: int) -> np.ndarray:
        seen, unseen = rng.standard_exponential((count, len(returns))), rng.standard_gamma(UNSEEN, count)
        return np.column_stack([seen, unseen])

    values = np.asarray(returns, np.float64)
    low, high = resampled_means([np.append(values, end) for end in ends], np.ones(len(values) + 1), weights)
    return low, high


def resampled_means(
    totals: Sequence[np.ndarray], sizes: np.ndarray, draw: Callable[[int], np.ndarray], resamples: int | None = None
) -> np.ndarray:
    """float64 [len(totals), resamples], bootstrapped means over n units: sum_i w_i totals_i / sum_i w_i sizes_i.

    Args:
        totals: a float [n] for each mean, the sums of the units' values.
        sizes: float [n], how many values each unit has.
        draw: draws so many resamples' weights, float [resamples, n].
        resamples: None for ``RESAMPLES``.
    """
    resamples = RESAMPLES if resamples is None else resamples
    # The blocks decide the order of random numbers: they follow the returns, without the unseen part.
    found, block = [], max(_BLOCK // max(len(sizes) - 1, 1), 1)
    for start in range(0, resamples, block):
        weights = draw(min(block, resamples - start))
        found.append([weights @ values / (weights @ sizes) for values in totals])
    return np.concatenate(found, axis=1)


def _quantile(values: np.ndarray, end: int) -> float:
    """The lower (0) or upper (1) end of the range of 95 % of ``values``, which may be infinite."""
    return float(np.quantile(values, _TAILS[end], method="inverted_cdf"))
