"""How often 95 % intervals of a mean return, and of a normalised score, hold the true one, and how wide they are.

    uv run python benchmarks/intervals.py

Of each kind of game random and the expert are played as often as the policy, and the true means are known.
"""

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats

from BC_training.play.intervals import mean_interval, normalized_interval

Draw = Callable[[np.random.Generator, int], np.ndarray]
RESAMPLES = 1000


def ceiling(deaths: float) -> Draw:
    """About 2280, but for deaths, whose returns are anything below half of that."""

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        return np.where(rng.random(n) < deaths, rng.uniform(-116, 1140, n), rng.normal(2280, 2, n))

    return draw


def two(share: float) -> Draw:
    return lambda rng, n: (rng.random(n) < share).astype(float)


CORRIDOR = (lambda rng, n: rng.uniform(-116, 340, n), ceiling(0.0))
ARRIVE = (two(0.06), two(1.0))
# Of each kind the policy, random, the expert, and the policy's true mean, random's and the expert's.
KINDS: dict[str, tuple[Draw, tuple[Draw, Draw], tuple[float, float, float]]] = {
    **{
        f"{p:.0%} die, else at the ceiling": (ceiling(p), CORRIDOR, (2280 * (1 - p) + 512 * p, 112.0, 2280.0))
        for p in (0.01, 0.02, 0.05, 0.2)
    },
    **{f"{p:.0%} do not arrive, else equal": (two(1 - p), ARRIVE, (1 - p, 0.06, 1.0)) for p in (0.0, 0.01, 0.05, 0.5)},
    "normal": (
        lambda rng, n: rng.normal(5, 2, n),
        (lambda rng, n: rng.normal(0, 2, n), lambda rng, n: rng.normal(10, 2, n)),
        (5, 0, 10),
    ),
    "skewed": (
        lambda rng, n: rng.exponential(500, n) + 284,
        (lambda rng, n: rng.normal(312, 60, n), lambda rng, n: rng.exponential(700, n) + 284),
        (784, 312, 984),
    ),
    "kills": (
        lambda rng, n: rng.poisson(18, n).astype(float),
        (lambda rng, n: rng.poisson(11, n).astype(float), lambda rng, n: rng.poisson(28, n).astype(float)),
        (18, 11, 28),
    ),
    "two modes": (
        lambda rng, n: np.where(rng.random(n) < 0.7, rng.normal(2200, 60, n), rng.normal(300, 150, n)),
        CORRIDOR,
        (0.7 * 2200 + 0.3 * 300, 112.0, 2280.0),
    ),
}


def of_mean(values: np.ndarray, references: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, Any]:
    """The intervals of the mean of float64 [n], by method."""
    n, mean, error = len(values), values.mean(), values.std(ddof=1) / np.sqrt(len(values))
    found = {"ours": mean_interval(values, references)}
    if error == 0:  # no other says more than a point
        return found | dict.fromkeys(("percentile", "BCa", "bootstrap-t", "Student t"), (mean, mean))
    samples = values[rng.integers(0, n, (RESAMPLES, n))]
    means, errors = samples.mean(axis=1), samples.std(axis=1, ddof=1) / np.sqrt(n)
    found["percentile"] = np.quantile(means, [0.025, 0.975])
    z0 = stats.norm.ppf(np.clip((np.mean(means < mean) + np.mean(means <= mean)) / 2, 1e-4, 1 - 1e-4))
    centred = values - mean
    a = (centred**3).sum() / (6 * (centred**2).sum() ** 1.5)
    z = z0 + stats.norm.ppf([0.025, 0.975])
    found["BCa"] = np.quantile(means, stats.norm.cdf(z0 + z / (1 - a * z)))
    t = (means - mean)[errors > 0] / errors[errors > 0]
    found["bootstrap-t"] = mean - np.quantile(t, [0.975, 0.025]) * error
    found["Student t"] = mean + stats.t.ppf([0.025, 0.975], n - 1) * error
    return found


def of_score(values: np.ndarray, references: dict[str, np.ndarray]) -> dict[str, Any]:
    """The intervals of the normalised score: ours, and that of Student's t with the references' means taken as true."""
    random, expert = references["random"].mean(), references["expert"].mean()
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    fixed = (values.mean() + np.array([-half, half]) - random) / (expert - random)
    return {"score, ours": normalized_interval([(values, references)]), "score, fixed scale": fixed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--episodes", type=int, nargs="+", default=[20, 100])
    arguments = parser.parse_args()
    for n in arguments.episodes:
        heading = None
        for kind, (policy, (random, expert), (mean, low, high)) in KINDS.items():
            rng = np.random.default_rng(0)
            inside: dict[str, int] = {}
            widths: dict[str, list[float]] = {}
            for _ in range(arguments.rounds):
                values = policy(rng, n)
                references = {"random": random(rng, n), "expert": expert(rng, n)}
                score = (mean - low) / (high - low)
                intervals = {m: (i, mean, high - low) for m, i in of_mean(values, references, rng).items()}
                intervals |= {m: (i, score, 1.0) for m, i in of_score(values, references).items()}
                for method, (interval, true, scale) in intervals.items():
                    bottom, top = (-np.inf, np.inf) if interval is None else interval
                    inside[method] = inside.get(method, 0) + int(bottom <= true <= top)
                    widths.setdefault(method, []).append((top - bottom) / scale)
            if heading is None:
                heading = list(inside)
                print(f"\n| {n} episodes | {' | '.join(heading)} |\n|---|{'---:|' * len(heading)}")
            cells = (f"{inside[m] / arguments.rounds:.3f} ({np.median(widths[m]):.3f})" for m in heading)
            print(f"| {kind} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
