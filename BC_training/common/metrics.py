"""Scores how well predicted actions match recorded ones, over a whole split.

A score without a value, such as the precision of a button that is never predicted, is ``None``
and appears as a dash, never as 0.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from BC_training.common.axes import AxisBins, RecordedAxes
from BC_training.common.decode import DecodeSettings, Decoding
from BC_training.common.decoder import decode_episodes

Report = dict[str, Any]


def majority_actions(actions: np.ndarray) -> np.ndarray:
    """bool [A], the commonest combination of buttons among ``actions`` bool [N, A].

    Among equally common ones it is the first when rows are sorted by their first button, then the next.
    """
    if not actions.shape[1]:
        return np.zeros(0, bool)
    packed = np.packbits(np.ascontiguousarray(actions), axis=1)
    packed = np.pad(packed, ((0, 0), (0, -packed.shape[1] % 8)))
    # Each row becomes a number whose highest bit is the first button, so numbers sort as rows do.
    first, *others = packed.view(">u8").astype(np.uint64).T
    rows = first
    for word in others:
        (_, rank), (values, digit) = (np.unique(x, return_inverse=True) for x in (rows, word))
        rows = rank * len(values) + digit
    numbers, counts = np.unique(rows, return_counts=True)
    return actions[np.argmax(rows == numbers[counts.argmax()])].copy()


def class_weights(frequencies: np.ndarray, mode: Literal["none", "sqrt", "balanced"], maximum: float) -> np.ndarray:
    """The weight of each button's loss where it is held, relative to where it is not.

    With f the frequency, "balanced" is (1 - f) / f, which gives both sides the same weight, "sqrt"
    is its square root, and "none" is 1. Weights are clipped to [1 / maximum, maximum]; a button
    that is never, or always, held has 1.

    Args:
        frequencies: float [A], the share of frames with each button held.

    Returns:
        float32 [A].
    """
    varies = (frequencies > 0) & (frequencies < 1)
    odds = np.ones_like(frequencies)
    np.divide(1 - frequencies, frequencies, out=odds, where=varies)
    weights = odds ** {"none": 0.0, "sqrt": 0.5, "balanced": 1.0}[mode]
    return np.clip(weights, 1 / maximum, maximum).astype(np.float32)


def previous_actions(actions: Sequence[np.ndarray]) -> np.ndarray:
    """[N, A], each episode's buttons or axes [N_i, A] one frame late; before its first none is held or moved."""
    return np.concatenate([np.concatenate([np.zeros_like(a[:1]), a[:-1]]) for a in actions])


def report(
    true: Sequence[np.ndarray],
    probability: np.ndarray,
    majority: np.ndarray,
    action_names: Sequence[str],
    decoding: Decoding | float,
    action_shift: int = 0,
    axes: RecordedAxes | None = None,
    moved: np.ndarray | None = None,
    known: np.ndarray | None = None,
) -> Report:
    """Scores predictions, and two baselines that need no frame.

    Args:
        true: the recorded buttons, one bool [N_i, A] for each episode.
        probability: float [N, A] in [0, 1], the predictions for the actions of each episode from
            ``action_shift`` on, all episodes in a row.
        majority: bool [A], the commonest combination of the training split.
        decoding: decides, without sampling, which buttons count as predicted; or one threshold for all.
        action_shift: how many frames the predicted action lies ahead of the frame that is seen.
        known: bool [N, A], False where a button was not recorded: neither predictions nor baselines count there.
        axes, moved: the recorded axes and float32 [N, X], the predicted ones; None without axes.

    Returns:
        What ``scores_at_changes`` returns, "decoding" (its dict), "frames", "change_frames", and
        "baselines" with the same scores of "majority" (always the training majority, with all axes at 0) and
        "repeat_previous" (the action of the frame before the one that is seen).
    """
    changes = change_frames(true, action_shift, axes)
    if not isinstance(decoding, Decoding):
        decoding = DecodeSettings(decoding).decoding(action_names)
    probability = probability if known is None else probability * known
    predicted = decode_episodes(decoding, probability, target_counts(true, action_shift))
    return {
        **scores_at_changes(true, predicted, action_names, action_shift, axes, moved, known),
        "decoding": decoding.to_dict(),
        "frames": len(changes),
        "change_frames": int(changes.sum()),
        "baselines": {
            name: scores_at_changes(true, held, action_names, action_shift, axes, still, known)
            for name, (held, still) in baselines(true, majority, action_shift, axes, known).items()
        },
    }


def baselines(
    true: Sequence[np.ndarray],
    majority: np.ndarray,
    action_shift: int = 0,
    axes: RecordedAxes | None = None,
    known: np.ndarray | None = None,
) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
    """The predictions of the baselines of ``report``, by name: bool [N, A], and float32 [N, X] where there are axes."""
    previous = held_before_seen(true, action_shift)
    moved = None if axes is None else axes.previous
    return {
        "majority": (
            np.broadcast_to(majority, previous.shape) & (True if known is None else known),
            None if moved is None else np.zeros_like(moved),
        ),
        "repeat_previous": (previous, moved),
    }


def target_counts(true: Sequence[np.ndarray], action_shift: int = 0) -> list[int]:
    """How many targets each episode has."""
    return [max(len(actions) - action_shift, 0) for actions in true]


def targets(true: Sequence[np.ndarray], action_shift: int = 0) -> np.ndarray:
    """[N, A], the buttons or axes to predict: those of each episode from ``action_shift`` on."""
    return np.concatenate([actions[action_shift:] for actions in true])


def held_before_seen(true: Sequence[np.ndarray], action_shift: int = 0) -> np.ndarray:
    """[N, A], the buttons or axes, for each target, of the frame before the one that is seen."""
    return np.concatenate([previous_actions([a])[: max(len(a) - action_shift, 0)] for a in true])


def change_frames(true: Sequence[np.ndarray], action_shift: int = 0, axes: RecordedAxes | None = None) -> np.ndarray:
    """bool [N], whether the target differs from ``held_before_seen``, an axis by more than one bin."""
    changed = (targets(true, action_shift) != held_before_seen(true, action_shift)).any(axis=1)
    return changed if axes is None else changed | axes.changes()


def recorded_axes(
    names: tuple[str, ...], bins: AxisBins | None, true: Sequence[np.ndarray], action_shift: int
) -> RecordedAxes | None:
    """The axes of a split, one float32 [N_i, X] an episode, for the scores; None without bins."""
    if bins is None:
        return None
    return RecordedAxes(names, bins, targets(true, action_shift), held_before_seen(true, action_shift))


def scores_at_changes(
    true: Sequence[np.ndarray],
    predicted: np.ndarray,
    action_names: Sequence[str],
    action_shift: int = 0,
    axes: RecordedAxes | None = None,
    moved: np.ndarray | None = None,
    known: np.ndarray | None = None,
) -> Report:
    """The scores of ``predicted`` bool [N, A] and ``moved`` float32 [N, X]: those of ``scores``, and others.

    "exact_match" and "change_match", the same on ``change_frames``, count a frame whose buttons are all right and
    whose axes are at most one bin off. "per_axis" is that of ``RecordedAxes.scores``. "onset_f1" scores presses at
    the moment a button goes down. It counts, in one sum, the frames and buttons where the button was released
    in the frame before the target's (before an episode's first frame all are): 2 TP / (2 TP + FP + FN),
    with TP recorded and predicted as held now, FP only predicted, FN only recorded.
    """
    actual, changes = targets(true, action_shift), change_frames(true, action_shift, axes)
    released = ~np.concatenate([previous_actions([a])[action_shift:] for a in true])
    matches, per_axis = (actual == predicted).all(axis=1), {}
    if axes is not None:
        assert moved is not None
        matches, per_axis = matches & axes.right(moved), axes.scores(moved)
    hits = int((released & actual & predicted).sum())
    onsets, presses = int((released & actual).sum()), int((released & predicted).sum())
    return {
        **scores(actual, predicted, action_names, known),
        "exact_match": _ratio(int(matches.sum()), len(matches)),
        "change_match": _ratio(int(matches[changes].sum()), int(changes.sum())),
        "onset_f1": _ratio(2 * hits, onsets + presses),
        "per_axis": per_axis,
    }


def scores(
    true: np.ndarray, predicted: np.ndarray, action_names: Sequence[str], known: np.ndarray | None = None
) -> Report:
    """Exact match, scores of each button, and the distance between button distributions.

    Per button, with true and false positives and negatives TP, FP, TN, FN:
    accuracy (TP + TN) / N, precision TP / (TP + FP), recall TP / (TP + FN),
    F1 2 TP / (2 TP + FP + FN), each None where its denominator is 0;
    frequency and predicted_frequency are the shares of frames with the button held.
    macro_f1 averages the F1 that have a value; exact_match is the share of frames with every
    button right.

    l1, l2 and kl compare how presses are distributed over the buttons. With f_a the true and
    g_a the predicted frequency of button a, the distributions are p_a = f_a / sum_b f_b and
    q_a = g_a / sum_b g_b, and

        l1 = sum_a |p_a - q_a|,  l2 = sqrt(sum_a (p_a - q_a)^2),  kl = sum_a p_a ln(p_a / q_a),

    the last over p_a > 0. All are None where one side presses nothing; kl is None (infinite)
    where a button that is pressed is never predicted.

    Args:
        true: bool [N, A].
        predicted: bool [N, A].
        known: bool [N, A], False where a button was not recorded; both are False there. A button's N are the others.
    """
    both = (true & predicted).sum(axis=0, dtype=np.int64)
    held, pressed = true.sum(axis=0, dtype=np.int64), predicted.sum(axis=0, dtype=np.int64)
    per_action = {}
    for a, name in enumerate(action_names):
        frames = len(true) if known is None else int(known[:, a].sum())
        tp, fp, fn = int(both[a]), int(pressed[a] - both[a]), int(held[a] - both[a])
        per_action[name] = {
            "accuracy": _ratio(frames - fp - fn, frames),
            "precision": _ratio(tp, tp + fp),
            "recall": _ratio(tp, tp + fn),
            "f1": _ratio(2 * tp, 2 * tp + fp + fn),
            "frequency": _ratio(int(held[a]), frames),
            "predicted_frequency": _ratio(int(pressed[a]), frames),
        }
    f1 = [s["f1"] for s in per_action.values() if s["f1"] is not None]
    return {
        "exact_match": _ratio(int((true == predicted).all(axis=1).sum()), len(true)),
        "macro_f1": _ratio(math.fsum(f1), len(f1)),
        "per_action": per_action,
        **_distribution_distances(held, pressed),
    }


def _ratio(numerator: float, denominator: float) -> float | None:
    return numerator / denominator if denominator else None


def _distribution_distances(held: np.ndarray, pressed: np.ndarray) -> dict[str, float | None]:
    if not held.sum() or not pressed.sum():
        return {"l1": None, "l2": None, "kl": None}
    p, q = held / held.sum(), pressed / pressed.sum()
    some = p > 0
    kl = None if (q[some] == 0).any() else float((p[some] * np.log(p[some] / q[some])).sum())
    return {"l1": float(np.abs(p - q).sum()), "l2": float(np.sqrt(((p - q) ** 2).sum())), "kl": kl}


def flatten(values: Report, prefix: str = "") -> dict[str, float]:
    """A flat dict for trackers, "val/per_action/attack/f1" to a number, without values that are no number."""
    flat: dict[str, float] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}/")
        elif isinstance(value, int | float):
            flat[f"{prefix}{key}"] = value
    return flat


def number(value: float | None) -> str:
    """Three decimals, or a dash for an undefined value."""
    return "–" if value is None else f"{value:.3f}"


def normalize_score(mean: float, random_mean: float, expert_mean: float | None) -> float | None:
    """0 for random, 1 for the expert; None without an expert, or if it does no better than random."""
    if expert_mean is None or expert_mean <= random_mean:
        return None
    return (mean - random_mean) / (expert_mean - random_mean)


def return_text(value: float | None) -> str:
    """A return in units of its game, with three significant digits or as a whole number; None is a dash."""
    if value is None:
        return "–"
    return f"{value:z.{sum(abs(value) < limit for limit in (100, 10, 1))}f}"
