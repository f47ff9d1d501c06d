import json
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as oracle

from BC_training.common.decode import Decoding
from BC_training.common.decoder import decode_episodes
from BC_training.common.metrics import (
    flatten,
    majority_actions,
    normalize_score,
    previous_actions,
    report,
    return_text,
    scores,
)


def names(count: int) -> list[str]:
    return [f"a{i}" for i in range(count)]


@st.composite
def predictions(draw) -> tuple[np.ndarray, np.ndarray]:
    """Two bool [N, A]; often with buttons that are never, or always, held or predicted."""
    shape = (draw(st.integers(1, 30)), draw(st.integers(1, 6)))
    arrays = []
    for _ in range(2):
        array = draw(hnp.arrays(bool, shape))
        for column in range(shape[1]):
            constant = draw(st.sampled_from([None, None, False, True]))
            if constant is not None:
                array[:, column] = constant
        arrays.append(array)
    return arrays[0], arrays[1]


def same(ours: float | None, theirs: float) -> bool:
    """Equal; None stands for NaN."""
    return math.isnan(theirs) if ours is None else ours == pytest.approx(theirs, rel=1e-12, abs=1e-15)


@settings(max_examples=15)
@given(predictions())
def test_scores_equal_those_of_scikit_learn_and_scipy(pair):
    true, predicted = pair
    ours = scores(true, predicted, names(true.shape[1]))
    assert list(ours["per_action"]) == names(true.shape[1])
    for a, values in enumerate(ours["per_action"].values()):
        t, p = true[:, a], predicted[:, a]
        assert same(values["accuracy"], oracle.accuracy_score(t, p))
        assert same(values["precision"], oracle.precision_score(t, p, zero_division=np.nan))
        assert same(values["recall"], oracle.recall_score(t, p, zero_division=np.nan))
        assert same(values["f1"], oracle.f1_score(t, p, zero_division=np.nan))
        assert same(values["frequency"], t.mean())
        assert same(values["predicted_frequency"], p.mean())
    assert same(ours["exact_match"], (true == predicted).all(axis=1).mean())
    if true.shape[1] > 1:  # scikit-learn takes one column for a plain binary problem
        assert same(ours["exact_match"], oracle.accuracy_score(true, predicted))
        assert same(ours["macro_f1"], oracle.f1_score(true, predicted, average="macro", zero_division=np.nan))
    else:
        assert same(ours["macro_f1"], oracle.f1_score(true[:, 0], predicted[:, 0], zero_division=np.nan))
    if not true.any() or not predicted.any():
        assert (ours["l1"], ours["l2"], ours["kl"]) == (None, None, None)
        return
    p, q = true.mean(axis=0) / true.mean(axis=0).sum(), predicted.mean(axis=0) / predicted.mean(axis=0).sum()
    assert ours["l1"] == pytest.approx(np.linalg.norm(p - q, 1), abs=1e-12)
    assert ours["l2"] == pytest.approx(np.linalg.norm(p - q), abs=1e-12)
    kl = scipy.stats.entropy(p, q)
    assert ours["kl"] is None if math.isinf(kl) else ours["kl"] == pytest.approx(kl, abs=1e-12)


@given(st.lists(hnp.arrays(bool, st.tuples(st.integers(1, 6), st.just(3))), min_size=1, max_size=4))
def test_previous_actions_do_not_cross_episodes(episodes):
    previous = previous_actions(episodes)
    rows = iter(previous)
    for episode in episodes:
        for t in range(len(episode)):
            np.testing.assert_array_equal(next(rows), episode[t - 1] if t else np.zeros(3, bool))
    assert next(rows, None) is None
    assert previous.dtype == np.bool_


@given(st.data(), st.sampled_from([1, 2, 7, 8, 9, 63, 64, 65, 128, 140]))
def test_the_majority_is_the_commonest_combination_and_of_several_the_first_in_order(data, buttons):
    """As sorting whole rows says, whatever the number of buttons."""
    some = data.draw(st.lists(st.integers(0, 2**buttons - 1), min_size=1, max_size=6))
    rows = data.draw(st.lists(st.sampled_from(some), min_size=1, max_size=12))
    actions = np.array([[row >> (buttons - 1 - b) & 1 for b in range(buttons)] for row in rows], bool)
    combinations, counts = np.unique(actions, axis=0, return_counts=True)
    for order in "CF":  # chosen columns of a recording are in Fortran's
        found = majority_actions(np.asarray(actions, order=order))
        np.testing.assert_array_equal(found, combinations[counts.argmax()])


def test_a_flat_report_has_only_numbers_under_joined_names():
    values = {"a": 1.5, "b": {"c": None, "d": 2, "e": {"f": 0.0}}, "g": None, "h": ["x"], "i": "val"}
    assert flatten(values) == {"a": 1.5, "b/d": 2, "b/e/f": 0.0}
    assert flatten(values, "val/") == {"val/a": 1.5, "val/b/d": 2, "val/b/e/f": 0.0}


def test_a_report_scores_what_a_player_would_press():
    """With a shift, too, by which an episode has fewer predictions than frames."""
    rng = np.random.default_rng(0)
    true = [rng.random((n, 2)) < 0.4 for n in (30, 1, 20)]
    rules = Decoding({"a": 0.6, "b": 0.4}, hysteresis=0.3, exclusive=(("a", "b"),))
    p = rng.random((28 + 18, 2))
    values = report(true, p, np.zeros(2, bool), ("a", "b"), rules, 2)
    held = np.concatenate([decode_episodes(rules, p[:28], [28]), decode_episodes(rules, p[28:], [18])])
    actual = np.concatenate([true[0][2:], true[2][2:]])
    assert values["exact_match"] == (held == actual).all(axis=1).mean()
    assert values["per_action"]["a"]["predicted_frequency"] == held[:, 0].mean()
    assert values["decoding"] == rules.to_dict()
    other = report(true, p, np.zeros(2, bool), ("a", "b"), Decoding({"a": 0.6, "b": 0.4}), 2)
    assert other["exact_match"] == ((p >= [0.6, 0.4]) == actual).all(axis=1).mean() != values["exact_match"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (2281.4, "2281"),
        (-115.99, "-116"),
        (99.94, "99.9"),
        (7.156, "7.16"),
        (0.97351, "0.974"),
        (-0.2101, "-0.210"),
        (-0.0001, "0.000"),
    ],
)
def test_returns_have_three_digits(value, text):
    assert return_text(value) == text


@pytest.mark.parametrize(("expert", "expected"), [(300.0, 0.5), (-100.0, None), (-150.0, None), (None, None)])
def test_a_score_is_normalized_by_an_expert_better_than_random(expert, expected):
    assert normalize_score(100.0, -100.0, expert) == expected


@pytest.mark.parametrize("shift", [0, 2])
def test_a_report_equals_a_loop_over_episodes_and_frames(shift):
    """The baseline repeats what was held before the frame that is seen; an onset is a change before the target."""
    rng = np.random.default_rng(0)
    true = [rng.random((n, 3)) < 0.4 for n in (30, 1, 20)]
    predicted = [rng.random((max(len(a) - shift, 0), 3)) for a in true]
    values = report(true, np.concatenate(predicted), np.array([True, False, False]), names(3), 0.5, shift)
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    frames = []
    for actions, probability in zip(true, predicted, strict=True):
        held = [np.zeros(3, bool), *actions]  # before each frame
        frames += [(actions[t + shift], p >= 0.5, held[t], held[t + shift]) for t, p in enumerate(probability)]
    actual, pressed, before_seen, before = (np.stack(column) for column in zip(*frames, strict=True))
    changes = (actual != before_seen).any(axis=1)
    assert (values["frames"], values["change_frames"]) == (len(frames), changes.sum())
    majority = np.broadcast_to([True, False, False], actual.shape)
    baselines = values["baselines"]
    for found, guess in (
        (values, pressed),
        (baselines["repeat_previous"], before_seen),
        (baselines["majority"], majority),
    ):
        right = (actual == guess).all(axis=1)
        assert (found["exact_match"], found["change_match"]) == (right.mean(), right[changes].mean())
        onsets, presses = ~before & actual, ~before & guess
        assert found["onset_f1"] == 2 * (onsets & presses).sum() / (onsets.sum() + presses.sum())


def test_the_onset_f1_is_zero_without_new_presses_and_none_without_any_press():
    held = [np.array([[1, 0], [1, 0], [0, 1]], bool)]
    values = report(held, np.array([[0.0, 0], [1, 0], [0, 0]]), np.zeros(2, bool), ("a", "b"), 0.5)
    assert values["onset_f1"] == 0
    assert values["baselines"]["repeat_previous"]["onset_f1"] == 0
    nothing = report([np.zeros((3, 2), bool)], np.zeros((3, 2)), np.zeros(2, bool), ("a", "b"), 0.5)
    assert (nothing["onset_f1"], nothing["change_match"], nothing["macro_f1"]) == (None, None, None)
    assert json.loads(json.dumps(nothing, allow_nan=False)) == nothing
