"""Scores whether buttons are pressed and released when the recording presses and releases them.

In an onset frame a button is held that was not held in the frame before; in an offset frame it is
no longer held. Recorded events are compared with those of the predicted sequence, so a policy that
flickers pays for every event that it makes up.
"""

from collections.abc import Sequence

import numpy as np

from BC_training.common.metrics import Report, target_counts, targets

KINDS = ("onset", "offset")
TOLERANCE = 3  # frames; about 0.2 s of most recordings, the time in which a person reacts


def event_scores(
    true: Sequence[np.ndarray],
    predicted: np.ndarray,
    action_names: Sequence[str],
    tolerance: int,
    action_shift: int = 0,
) -> Report:
    """Precision, recall and F1 of onsets and offsets.

    Within an episode, as many recorded and predicted events of one kind and button as possible are
    matched one to one, at most ``tolerance`` frames apart. Before the first frame that is scored,
    both sequences hold what was recorded there; before an episode they hold nothing.

    Args:
        true: the recorded buttons, one bool [N_i, A] for each episode.
        predicted: bool [N, A], the actions of each episode from ``action_shift`` on, all episodes
            in a row.
        tolerance: in frames, 0 or more.

    Returns:
        "tolerance"; "exact" and "within" (the tolerance), each with "onset" and "offset" over all
        buttons, and "per_action", which maps each button to "onset" and "offset". Each of these
        counts "recorded" and "predicted" events and, with M of them matched, has "precision"
        M / predicted, "recall" M / recorded and "f1" 2 M / (predicted + recorded), None where the
        denominator is 0.
    """
    actual = targets(true, action_shift)
    reach = min(tolerance, len(actual))  # no two frames are further apart
    lengths = np.array(target_counts(true, action_shift))
    first = np.concatenate([_held_before(a, action_shift) for a in true if len(a) > action_shift])
    starts = (np.cumsum(lengths) - lengths)[lengths > 0]
    # One timeline holds all episodes, with gaps so wide that events of two episodes never match.
    times = np.arange(len(actual)) + np.repeat(np.arange(len(lengths)), lengths) * reach
    row = len(actual) + (len(lengths) + 1) * reach
    recorded, made_up = (_event_times(held, first, starts, times, row) for held in (actual, predicted))
    return {
        "tolerance": tolerance,
        "exact": _by_action(recorded, made_up, 0, row, action_names),
        "within": _by_action(recorded, made_up, reach, row, action_names),
    }


def match_events(recorded: np.ndarray, predicted: np.ndarray, tolerance: int) -> np.ndarray:
    """The recorded events of a largest one-to-one matching of events at most ``tolerance`` apart.

    The earliest two that are near enough are matched first. No matching is larger: two pairs that
    cross can exchange partners, so some largest matching is in the order of time, and the earliest
    pair can replace its first.

    Args:
        recorded, predicted: times, ascending int64 [R] and [P].

    Returns:
        int64 [M], indices into ``recorded``.
    """
    ours, theirs, matched = recorded.tolist(), predicted.tolist(), []  # lists: an index costs a fifth of an array's
    i = j = 0
    while i < len(ours) and j < len(theirs):
        ahead = theirs[j] - ours[i]
        if ahead > tolerance:
            i += 1
        elif ahead < -tolerance:
            j += 1
        else:
            matched.append(i)
            i, j = i + 1, j + 1
    return np.array(matched, np.int64)


def _held_before(actions: np.ndarray, action_shift: int) -> np.ndarray:
    """bool [1, A], the buttons held in the frame before the first target."""
    return actions[action_shift - 1 : action_shift] if action_shift else np.zeros_like(actions[:1])


def _event_times(held: np.ndarray, first: np.ndarray, starts: np.ndarray, times: np.ndarray, row: int) -> np.ndarray:
    """int64, ascending: the times of all onsets, each button in a row of length ``row``, then of all offsets."""
    before = np.roll(held, 1, axis=0)
    before[starts] = first
    events = np.concatenate([held & ~before, before & ~held], axis=1).T
    column, frame = np.nonzero(events)
    return column * row + times[frame]


def _by_action(
    recorded: np.ndarray, predicted: np.ndarray, tolerance: int, row: int, action_names: Sequence[str]
) -> Report:
    matched = recorded[match_events(recorded, predicted, tolerance)]
    # int64 [3, kinds, A]
    counts = np.stack([np.bincount(t // row, minlength=2 * len(action_names)) for t in (matched, recorded, predicted)])
    counts = counts.reshape(3, len(KINDS), len(action_names))
    pooled = {kind: _scores(*counts[:, k].sum(axis=1).tolist()) for k, kind in enumerate(KINDS)}
    per_action = {
        name: {kind: _scores(*counts[:, k, a].tolist()) for k, kind in enumerate(KINDS)}
        for a, name in enumerate(action_names)
    }
    return {**pooled, "per_action": per_action}


def _scores(matched: int, recorded: int, predicted: int) -> Report:
    return {
        "recorded": recorded,
        "predicted": predicted,
        "precision": matched / predicted if predicted else None,
        "recall": matched / recorded if recorded else None,
        "f1": 2 * matched / (predicted + recorded) if predicted + recorded else None,
    }
