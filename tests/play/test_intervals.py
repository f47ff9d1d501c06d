"""Intervals hold the true value as often as they say, also where samples lack what is rare."""

import numpy as np
import pytest
from scipy import stats

from BC_training.play import intervals
from BC_training.play.intervals import (
    failed_text,
    mean_interval,
    normalized_interval,
    play_statistics,
    reference_statistics,
    wilson_interval,
)

RANDOM, EXPERT = [0.0, 20.0, -20.0, 0.0], [100.0, 100.0, 98.0, 102.0]
REFERENCES = {"random": RANDOM, "expert": EXPERT}


def coverage(draw, true, episodes, rounds=120):
    """The shares of samples whose two intervals, of the mean and of the normalised score, hold ``true``."""
    rng, held = np.random.default_rng(0), np.zeros(2)
    for _ in range(rounds):
        returns = draw(rng, episodes)
        references = {"random": rng.normal(0, 0.1, episodes), "expert": rng.normal(1, 0.02, episodes)}
        scores = play_statistics(returns, references)
        held += [low - 1e-9 <= true <= high + 1e-9 for low, high in (scores.ci95, scores.normalized_ci95)]
    return held / rounds


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(intervals, "RESAMPLES", 1000)


@pytest.mark.parametrize("episodes", [20, 100])
@pytest.mark.parametrize(
    ("draw", "true"),
    [
        *((lambda rng, n, p=p: (rng.random(n) >= p).astype(float), 1 - p) for p in (0.0, 0.01, 0.02, 0.05, 0.5)),
        *(
            (lambda rng, n, p=p: np.where(rng.random(n) < p, rng.uniform(-0.1, 0.5, n), 1.0), 1 - p * 0.8)
            for p in (0.01, 0.02, 0.05)
        ),
        (lambda rng, n: rng.normal(0.5, 0.2, n), 0.5),
        (lambda rng, n: rng.exponential(0.6, n), 0.6),
        (lambda rng, n: rng.poisson(12, n) / 20, 0.6),
        (lambda rng, n: np.where(rng.random(n) < 0.7, rng.normal(0.95, 0.03, n), rng.normal(0.1, 0.05, n)), 0.695),
    ],
)
def test_intervals_hold_the_truth_in_nine_of_ten_samples_at_least(draw, true, episodes):
    """A bootstrap's holds it in one of five where deaths are rare."""
    assert coverage(draw, true, episodes).min() >= 0.9


def test_returns_of_two_kinds_are_covered_whatever_their_shares():
    """The ends of the share of failures are then quantiles of a beta distribution."""
    for n in (10, 20, 50, 100, 200):
        k = np.arange(n + 1)
        high = np.append(stats.beta.ppf(0.975, k[:-1] + intervals.UNSEEN, n - k[:-1]), 1)
        low = np.append(0, stats.beta.ppf(0.025, k[1:], n - k[1:] + intervals.UNSEEN))
        shares = np.linspace(0.0005, 0.5, 2000)[:, None]
        held = (stats.binom.pmf(k, n, shares) * ((low <= shares) & (shares <= high))).sum(axis=1)
        assert held.min() >= 0.938
        for failed in (0, 1, n // 2, n):
            found = mean_interval([0.0] * failed + [1.0] * (n - failed), {"random": [0.0], "expert": [1.0]})
            assert found == pytest.approx([1 - high[failed], 1 - low[failed]], abs=0.03)


def test_the_interval_of_returns_that_vary_is_about_students():
    rng, ratios = np.random.default_rng(1), []
    for _ in range(50):
        returns = rng.normal(50, 20, 100)
        low, high = mean_interval(returns, REFERENCES)
        half = stats.t.ppf(0.975, 99) * returns.std(ddof=1) / 10
        ratios.append((high - low) / (2 * half))
    assert 1.0 < np.mean(ratios) < 1.2


def test_equal_returns_leave_room_for_what_was_not_seen():
    """The room is about the share p of other episodes with (1 - p)^n = 0.05."""
    references = {"random": [0.0, 0.0], "expert": [100.0, 100.0]}
    for n in (20, 100):
        low, high = mean_interval([100.0] * n, references)
        assert high == pytest.approx(100)
        assert low == pytest.approx(100 * 0.05 ** (1 / n), rel=0.02)
        low, high = mean_interval([0.0] * n, references)
        assert low == 0
        assert high == pytest.approx(100 * (1 - 0.05 ** (1 / n)), rel=0.15)


def test_returns_that_do_not_show_their_spread_have_no_interval():
    assert mean_interval([1.0], REFERENCES) is None
    assert mean_interval([2.0, 2.0, 2.0], {"random": [2.0, 2.0, 2.0]}) is None
    assert mean_interval([2.0, 2.0, 2.0], {}) is None
    assert normalized_interval([([1.0], REFERENCES)]) is None
    assert normalized_interval([([1.0, 2.0], {"random": RANDOM})]) is None
    assert normalized_interval([([1.0, 2.0], {"random": RANDOM, "expert": [1.0]})]) is None


def test_an_expert_that_may_be_no_better_than_random_gives_no_interval():
    close = {"random": [0.0, 10.0, 5.0, 2.0], "expert": [9.0, 1.0, 4.0, 8.0]}
    scores = play_statistics([1.0, 9.0], close)
    assert scores.normalized is not None
    assert scores.normalized_ci95 is None
    worse = play_statistics([1.0, 9.0], {"random": EXPERT, "expert": RANDOM})
    assert {key for key, value in vars(worse).items() if value is not None} == {"mean", "ci95"}


def test_few_episodes_of_the_references_make_the_score_less_certain():
    rng = np.random.default_rng(0)
    returns = rng.normal(50, 1, 100)
    widths = []
    for n in (5, 500):
        low, high = normalized_interval([(returns, {"random": rng.normal(0, 30, n), "expert": rng.normal(100, 30, n)})])
        widths.append(high - low)
    assert widths[0] > 4 * widths[1]


def test_random_and_expert_have_intervals_of_their_means_and_none_of_0_and_1():
    found = reference_statistics(REFERENCES)
    scores = [(found[who].normalized, found[who].normalized_ci95) for who in ("random", "expert")]
    assert scores == [(0, None), (1, None)]
    low, high = found["expert"].ci95
    assert low < 100 < high
    # The same returns of another player are a sample of its score.
    assert play_statistics(list(EXPERT), REFERENCES).normalized_ci95 is not None


def test_an_interval_does_not_depend_on_the_blocks_it_is_drawn_in(monkeypatch):
    returns = np.random.default_rng(0).normal(50, 20, 300)
    whole = mean_interval(returns, REFERENCES)
    assert mean_interval(returns, REFERENCES) == whole
    monkeypatch.setattr(intervals, "_BLOCK", 300 * 7)
    assert mean_interval(returns, REFERENCES) == pytest.approx(whole, abs=0.5)


def test_failed_episodes_are_those_nearer_to_random_than_to_the_expert():
    scores = play_statistics([49.0, 50.0, 51.0, -300.0], REFERENCES)
    assert scores.failed == 2
    assert scores.failed_ci95 == wilson_interval(2, 4)
    assert failed_text(scores.failed, scores.failed_ci95, 4) == "2 of 4 (15.0 to 85.0 %)"
    for references in ({"random": RANDOM}, {"random": EXPERT, "expert": RANDOM}, {}):
        scores = play_statistics([1.0, 2.0], references)
        assert (scores.failed, scores.failed_ci95) == (None, None)
        assert failed_text(scores.failed, scores.failed_ci95, 2) == "–"


@pytest.mark.parametrize(("count", "episodes"), [(0, 1), (1, 1), (0, 20), (1, 100), (50, 100), (100, 100), (3, 7)])
def test_the_interval_of_a_share_is_wilsons(count, episodes):
    theirs = stats.binomtest(count, episodes).proportion_ci(0.95, method="wilson")
    ours = wilson_interval(count, episodes)
    assert ours == pytest.approx([theirs.low, theirs.high], abs=1e-6)
    assert 0 <= ours[0] < ours[1] <= 1
    assert wilson_interval(0, 0) is None


def test_intervals_hold_the_mean_whatever_the_scale():
    for scale in (1e-12, 1.0, 1e12):
        returns = np.array([0.1, 0.1, 0.1 + 1e-16, 0.3]) * scale
        low, high = mean_interval(returns, {})
        assert low <= returns.mean() <= high
        assert high - low < scale
