from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from BC_training.evaluation.events import KINDS, event_scores, match_events

times = st.lists(st.integers(0, 12), unique=True, max_size=8).map(sorted)


def most_matches(recorded: list[int], predicted: list[int], tolerance: int) -> int:
    """The size of a largest one-to-one matching, by trying all of them."""

    @cache
    def most(i: int, taken: int) -> int:
        if i == len(recorded):
            return 0
        free = [j for j, t in enumerate(predicted) if not taken >> j & 1 and abs(t - recorded[i]) <= tolerance]
        return max([most(i + 1, taken), *(1 + most(i + 1, taken | 1 << j) for j in free)])

    return most(0, 0)


def events(actions: np.ndarray, before: np.ndarray, kind: str) -> list[list[int]]:
    """The frames of each button's onsets or offsets."""
    found = []
    for a in range(actions.shape[1]):
        held, frames = before[a], []
        for t, now in enumerate(actions[:, a]):
            if now != held and now == (kind == "onset"):
                frames.append(t)
            held = now
        found.append(frames)
    return found


@st.composite
def sequences(draw) -> tuple[list[np.ndarray], np.ndarray, int]:
    """Recordings, predictions for them in a row, and the shift that these are for."""
    count, shift = draw(st.integers(1, 3)), draw(st.integers(0, 2))
    true = [draw(hnp.arrays(bool, (draw(st.integers(1, 9)), count))) for _ in range(draw(st.integers(1, 3)))]
    true.append(draw(hnp.arrays(bool, (shift + 1, count))))  # one at least has a target
    return true, draw(hnp.arrays(bool, (sum(max(len(a) - shift, 0) for a in true), count))), shift


def parts(true: list[np.ndarray], predicted: np.ndarray, shift: int) -> list[np.ndarray]:
    return np.split(predicted, np.cumsum([max(len(a) - shift, 0) for a in true])[:-1])


@given(times, times, st.integers(0, 4))
def test_the_matching_is_a_largest_one(recorded, predicted, tolerance):
    matched = match_events(np.array(recorded, np.int64), np.array(predicted, np.int64), tolerance).tolist()
    assert len(matched) == most_matches(recorded, predicted, tolerance)
    assert len(set(matched)) == len(matched)


def test_a_tolerance_may_be_longer_than_the_recording():
    true, predicted = [np.eye(3, 1, dtype=bool)], np.eye(3, 1, -2, dtype=bool)
    wide = event_scores(true, predicted, ["a"], 10**19)
    assert wide["tolerance"] == 10**19
    assert wide["within"]["onset"]["f1"] == 1


@given(sequences(), st.integers(0, 4))
def test_event_scores_equal_those_counted_by_hand(pair, tolerance):
    true, predicted, shift = pair
    names = [f"a{i}" for i in range(predicted.shape[1])]
    ours = event_scores(true, predicted, names, tolerance, shift)
    assert ours["tolerance"] == tolerance
    for part, allowed in (("exact", 0), ("within", tolerance)):
        for kind in KINDS:
            counts = np.zeros((len(names), 3), int)  # matched, recorded, predicted
            for actions, guess in zip(true, parts(true, predicted, shift), strict=True):
                before = actions[shift - 1] if 0 < shift < len(actions) else np.zeros(len(names), bool)
                pairs = zip(events(actions[shift:], before, kind), events(guess, before, kind), strict=True)
                for a, (there, found) in enumerate(pairs):
                    counts[a] += [most_matches(there, found, allowed), len(there), len(found)]
            entries = [ours[part]["per_action"][name][kind] for name in names]
            for entry, (hits, recorded, made) in zip(
                [*entries, ours[part][kind]], [*counts, counts.sum(0)], strict=True
            ):
                assert (entry["recorded"], entry["predicted"]) == (recorded, made)
                assert entry["precision"] == (hits / made if made else None)
                assert entry["recall"] == (hits / recorded if recorded else None)
                assert entry["f1"] == (2 * hits / (made + recorded) if made + recorded else None)


def test_events_of_two_episodes_are_never_matched():
    """The last frame of one and the first of the other lie side by side."""
    press = np.array([[0], [0], [1]], bool)
    true, predicted = [press, np.zeros((2, 1), bool)], np.array([[0], [0], [0], [1], [1]], bool)
    scores = event_scores(true, predicted, ["a"], 3)["within"]["onset"]
    assert (scores["recorded"], scores["predicted"], scores["f1"]) == (1, 1, 0)


def test_random_presses_find_a_quarter_of_the_events():
    rng = np.random.default_rng(0)
    true = list(np.split(rng.random((9_500, 7)) < 0.5, 100))
    scores = event_scores(true, rng.random((9_500, 7)) < 0.5, list("abcdefg"), 3)
    assert scores["exact"]["onset"]["f1"] == pytest.approx(0.25, abs=0.02)
