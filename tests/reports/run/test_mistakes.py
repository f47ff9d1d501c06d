"""Mistakes and losses equal counts by hand and scikit-learn's."""

import numpy as np
from sklearn.metrics import log_loss

from BC_training.common.action import Action
from BC_training.common.axes import AxisBins
from BC_training.reports.run.mistakes import (
    axis_losses,
    commonest_mistakes,
    frame_losses,
    predicted_given_held,
    pressed_instead,
    with_sides,
    worst,
)


def test_shares_are_those_counted_one_by_one():
    rng = np.random.default_rng(1)
    true, predicted = rng.random((200, 4)) < 0.3, rng.random((200, 4)) < 0.4
    true[:, 3] = False
    given, instead = predicted_given_held(true, predicted), pressed_instead(true, predicted)
    assert given[3] == instead[3] == [None] * 4
    for a in range(3):
        for b in range(4):
            held = [p[b] for t, p in zip(true, predicted, strict=True) if t[a]]
            missed = [p[b] and not t[b] for t, p in zip(true, predicted, strict=True) if t[a] and not p[a]]
            assert given[a][b] == sum(held) / len(held)
            assert instead[a][b] == sum(missed) / len(missed)


def test_the_commonest_mistakes_come_first():
    true = np.array([[1, 0], [1, 0], [0, 1], [1, 1]], bool)
    predicted = np.array([[0, 1], [0, 1], [0, 0], [1, 1]], bool)
    wrong = (true != predicted).any(axis=1)
    assert commonest_mistakes(true, predicted, wrong, 5) == [((0,), (1,), 2), ((1,), (), 1)]
    assert len(commonest_mistakes(true, predicted, wrong, 1)) == 1
    assert commonest_mistakes(true, true, np.zeros(4, bool), 5) == []


def test_the_sides_of_axes_count_as_buttons():
    bins = AxisBins((1.0, 30.0), 21, 10.0)
    buttons = [[True], [False], [False]]
    sides = with_sides(Action.of(buttons, [[-0.5, 0], [0, 30], [0.001, -0.01]]), bins)  # the last are in the bin of 0
    np.testing.assert_array_equal(sides, [[1, 1, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]])
    np.testing.assert_array_equal(with_sides(Action.of(buttons, np.zeros((3, 0))), None), buttons)
    by_another_amount = commonest_mistakes(sides, sides, np.array([False, True, False]), 5)
    assert by_another_amount == [((4,), (4,), 1)]


def test_losses_are_those_of_scikit_learn():
    rng = np.random.default_rng(2)
    true, logits = rng.random((20, 3)) < 0.5, rng.normal(0, 3, (20, 3)).astype(np.float32)
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    expected = [log_loss(t, q, labels=[False, True]) for t, q in zip(true, p, strict=True)]
    np.testing.assert_allclose(frame_losses(true, logits), expected)


def test_losses_of_axes_are_those_of_scikit_learn():
    rng = np.random.default_rng(3)
    true, logits = rng.integers(0, 5, (20, 2)).astype(np.int32), rng.normal(0, 9, (20, 2, 5)).astype(np.float32)
    p = np.exp(logits.astype(np.float64))
    p /= p.sum(axis=-1, keepdims=True)
    expected = [log_loss(t, q, labels=range(5)) for t, q in zip(true, p, strict=True)]
    np.testing.assert_allclose(axis_losses(true, logits), expected)


def test_the_worst_frames_are_spread():
    places = [("a", t) for t in range(100)] + [("b", t) for t in range(100)]
    losses = np.concatenate([np.arange(100, 200), np.arange(100)]).astype(float)
    assert worst(losses, places, 4, 10) == [99, 89, 79, 69]  # twice a's share of four
    assert worst(losses, places, 2, 60) == [99, 39]
    assert worst(losses, places, 3, 60) == [99, 39, 199]  # no third of a is far enough
