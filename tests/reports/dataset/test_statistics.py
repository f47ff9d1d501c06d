"""Statistics equal those of loops that count, and of NumPy."""

import itertools
import statistics as python_statistics
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from BC_training.common import metrics
from BC_training.reports.dataset import samples
from BC_training.reports.dataset.axes import LEVELS, AxisStatistics, levels, peaks
from BC_training.reports.dataset.statistics import ActionStatistics, StateStatistics, presses, strips

episodes_of_actions = st.lists(
    st.integers(1, 12).flatmap(lambda n: st.lists(st.tuples(*[st.booleans()] * 3), min_size=n, max_size=n)),
    min_size=1,
    max_size=4,
)


def runs_by_hand(column: list[bool]) -> list[tuple[int, int]]:
    """(first frame, frames) of each press, counted frame by frame."""
    found: list[tuple[int, int]] = []
    for t, held in enumerate(column):
        if held and t > 0 and column[t - 1]:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        elif held:
            found.append((t, 1))
    return found


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_presses_are_the_runs_of_held_frames(column):
    starts, lengths = presses(np.array(column))
    assert list(zip(starts.tolist(), lengths.tolist(), strict=True)) == runs_by_hand(column)


@given(episodes_of_actions)
def test_frequencies_presses_and_durations_equal_counting(episodes):
    gathered = ActionStatistics(["a", "b", "c"], timed=False)
    for episode in episodes:
        gathered.add(np.array(episode, bool), None)
    total = sum(len(e) for e in episodes)
    for a, action in enumerate(gathered.result()["actions"]):
        lengths = sorted(length for e in episodes for _, length in runs_by_hand([row[a] for row in e]))
        assert action["frequency"] == pytest.approx(sum(lengths) / total)
        assert action["presses"] == len(lengths)
        assert action["presses_per_minute"] is None
        assert action["presses_per_1000_frames"] == pytest.approx(1000 * len(lengths) / total)
        duration = action["duration"]
        assert duration["unit"] == "frames"
        if lengths:
            assert duration["median"] == python_statistics.median_low(lengths)
            # The shortest that at least nine in ten do not exceed.
            assert duration["p90"] == next(x for x in lengths if 10 * sum(y <= x for y in lengths) >= 9 * len(lengths))
            assert duration["longest"] == lengths[-1]
        else:
            assert duration["median"] is duration["p90"] is duration["longest"] is None
        edges = [*duration["histogram_edges"], float("inf")]
        expected = [sum(low <= x < high for x in lengths) for low, high in itertools.pairwise(edges)]
        assert duration["histogram"] == expected


@given(episodes_of_actions)
def test_combinations_and_baselines_equal_counting(episodes):
    arrays = [np.array(e, bool) for e in episodes]
    gathered = ActionStatistics(["a", "b", "c"], timed=False)
    for array in arrays:
        gathered.add(array, None)
    result = gathered.result()
    rows = [row for episode in episodes for row in episode]
    total = len(rows)
    for a, b in itertools.product(range(3), repeat=2):
        both, held = sum(row[a] and row[b] for row in rows), sum(row[a] for row in rows)
        assert result["cooccurrence"]["both"][a][b] == pytest.approx(both / total)
        assert result["cooccurrence"]["conditional"][a][b] == (pytest.approx(both / held) if held else None)
    repeated = sum(row == (e[t - 1] if t else (False,) * 3) for e in episodes for t, row in enumerate(e))
    base, counts = result["baselines"], Counter(rows)
    assert base["repeat_previous"] == pytest.approx(repeated / total)
    assert base["nothing_held"] == pytest.approx(rows.count((False,) * 3) / total)
    assert base["majority"] == pytest.approx(max(counts.values()) / total)
    assert result["distinct_combinations"] == len(counts)
    majority = metrics.majority_actions(np.concatenate(arrays))
    assert result["combinations"][0]["actions"] == [n for n, on in zip("abc", majority, strict=True) if on]


def test_durations_and_rates_follow_each_episodes_frame_rate():
    held = np.array([[True], [True], [False], [True], [False], [False]])
    gathered = ActionStatistics(["a"], timed=True)
    gathered.add(held, 10.0)
    gathered.add(held, 60.0)
    action = gathered.result()["actions"][0]
    # 0.2 s and 0.1 s; 2/60 s and 1/60 s.
    assert action["duration"]["longest"] == 0.2
    assert action["duration"]["median"] == 0.033
    bins = zip(action["duration"]["histogram_edges"], action["duration"]["histogram"], strict=True)
    assert {edge: n for edge, n in bins if n} == {0.0: 2, 0.1: 1, 0.2: 1}
    assert action["presses_per_minute"] == pytest.approx(4 / ((0.6 + 0.1) / 60))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 2**32 - 1))
def test_state_statistics_equal_numpys(lengths, seed):
    rng = np.random.default_rng(seed)
    episodes = [rng.normal(1000, 3, (n, 4)).astype(np.float32) for n in lengths]
    for episode in episodes:
        episode[:, 1] = 7
        episode[rng.random(len(episode)) < 0.4, 2] = rng.choice([np.nan, np.inf])
        episode[:, 3] = np.nan
    gathered = StateStatistics(["varies", "constant", "holes", "never"], sum(lengths))
    for episode in episodes:
        gathered.add(episode)
    result = gathered.result()
    everything = np.concatenate(episodes).astype(np.float64)
    for s, entry in enumerate(result):
        finite = everything[np.isfinite(everything[:, s]), s]
        assert entry["undefined"] == pytest.approx(1 - len(finite) / len(everything))
        if not len(finite):
            assert all(entry[key] is None for key in ("min", "max", "mean", "std", "histogram"))
            continue
        assert (entry["min"], entry["max"]) == (finite.min(), finite.max())
        assert entry["mean"] == pytest.approx(finite.mean(), rel=1e-12)
        assert entry["std"] == pytest.approx(finite.std(), rel=1e-6, abs=1e-9)
        assert sum(entry["histogram"]) == len(finite)
    assert result[1]["histogram"] == [len(everything)]
    long = [e for e in episodes if len(e) > 1]  # a single frame cannot change
    assert result[1]["constant"] == result[3]["constant"] == (1 if long else None)
    alike = [len(set(e[:, 0].tolist())) == 1 for e in long]
    assert result[0]["constant"] == (pytest.approx(sum(alike) / len(long)) if long else None)


def test_state_histogram_samples_frames_evenly_across_episodes(monkeypatch):
    monkeypatch.setattr("BC_training.reports.dataset.statistics.STATE_SAMPLE", 10)
    gathered = StateStatistics(["t"], 40)
    for start in range(0, 40, 5):
        gathered.add(np.arange(start, start + 5, dtype=np.float32)[:, None])
    assert np.concatenate(gathered._sample)[:, 0].tolist() == list(range(0, 40, 4))


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(1, 50))
def test_strips_hold_every_column(column, columns):
    step, (row,) = strips(np.array(column)[:, None], columns)
    assert step == -(-len(column) // columns)
    expected = [any(column[i : i + step]) for i in range(0, len(column), step)]
    lengths = [int(n) for n in row.split(",")] if row else []
    decoded: list[bool] = []
    for i, length in enumerate(lengths):
        decoded += [i % 2 == 1] * length
    assert decoded + [len(lengths) % 2 == 1] * (len(expected) - len(decoded)) == expected


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(1, 30))
def test_spread_stays_inside_and_reaches_all_over(lengths, count):
    positions = samples.spread(len(lengths), count)
    assert len(positions) == min(count, len(lengths))
    assert positions == sorted(set(positions))
    assert set(positions) <= set(range(len(lengths)))
    places = samples.spread_frames(lengths, count)
    assert all(0 <= frame < lengths[episode] for episode, frame in places)
    assert len({episode for episode, _ in places}) == min(count, len(lengths))


def test_every_onset_is_as_likely_to_be_shown():
    held = np.array([[False], [True], [True], [False], [True]])
    chosen: Counter[tuple[int, int]] = Counter()
    for seed in range(200):
        onsets = samples.Onsets(1)
        onsets._rng = np.random.default_rng(seed)
        for episode in range(4):
            onsets.add(episode, held)
        chosen[onsets.chosen[0]] += 1
    assert set(chosen) == {(e, t) for e in range(4) for t in (1, 4)}
    assert min(chosen.values()) > 10  # 25 expected


amounts = st.just(0.0) | st.floats(-1e3, 1e3, width=32)


@given(st.lists(st.lists(amounts, min_size=1, max_size=20), min_size=1, max_size=4))
def test_statistics_of_an_axis_equal_those_of_all_its_amounts(episodes):
    gathered = AxisStatistics(["x"], sum(map(len, episodes)))
    for episode in episodes:
        gathered.add(np.array(episode, np.float32)[:, None])
    (found,) = gathered.result()
    everything = [v for episode in episodes for v in episode]
    before = [v for episode in episodes for v in [0.0, *episode[:-1]]]
    moved = [v for v in everything if v]
    assert (found["name"], found["min"], found["max"]) == ("x", min(everything), max(everything))
    assert found["mean"] == pytest.approx(np.mean(everything), abs=1e-6)
    assert found["std"] == pytest.approx(np.std(everything), abs=1e-6)
    assert found["zeros"] == pytest.approx(everything.count(0) / len(everything))
    assert found["zero_error"] == pytest.approx(np.abs(everything).mean())
    assert found["repeat_error"] == pytest.approx(np.abs(np.subtract(everything, before)).mean())
    assert sum(found["histogram"]) == len(moved)
    assert found["scale"] == pytest.approx(np.percentile(np.abs(moved), 99.5) if moved else 1)
    assert found["histogram_edges"][0] == (-found["scale"] if min(everything) < 0 else 0)


def test_an_amount_falls_into_its_bin_and_those_beyond_into_the_outermost():
    gathered = AxisStatistics(["x", "still"], 1000)
    values = np.zeros((1000, 2), np.float32)
    values[:400, 0], values[400:800, 0], values[900] = 1, -0.5, [1e6, 0]
    gathered.add(values)
    moved, still = gathered.result()
    assert (moved["zeros"], still["zeros"]) == (pytest.approx(0.199), 1)
    assert moved["scale"] == 1
    assert {i: n for i, n in enumerate(moved["histogram"]) if n} == {8: 400, 31: 401}
    assert sum(still["histogram"]) == 0


def test_a_timeline_shows_the_amount_furthest_from_0_of_each_column():
    axes = np.array([[0, 1], [3, -2], [-4, 0], [0, 0], [2, 1e-6]], np.float32)
    np.testing.assert_array_equal(peaks(axes, 2), np.array([[3, -2], [-4, 0], [2, 1e-6]], np.float32))
    np.testing.assert_array_equal(peaks(axes, 1), axes)
    drawn = levels(np.array([0, 1, -1, 0.5, 9, -9, 1e-9, -1e-9]), 1.0)
    assert [LEVELS.index(c) - 31 for c in drawn] == [0, 31, -31, 16, 31, -31, 1, -1]
    assert len(set(LEVELS)) == 63
