"""The numbers of a run that are compared, from the files it has left; None is what a file does not say."""

import statistics
from collections.abc import Sequence
from typing import Any

from BC_training.common.metrics import normalize_score
from BC_training.training.checkpoint import Checkpoint

Row = dict[str, Any]


def training_costs(epochs: Sequence[dict[str, Any]], saved: Checkpoint) -> Row:
    """Speed and time of a training; None where the log lacks the checkpoint's epochs.

    An epoch's time is its steps * batch size / frames per second. It has waiting for data in it, but
    not compiling, validating, saving, recording or play.

    Args:
        epochs: the rows of that kind in ``metrics.jsonl``.

    Returns:
        frames_per_second (the epochs' median), minutes (up to the checkpoint, with its part of an
        epoch that was not over), total_minutes (of all epochs).
    """
    if not epochs or epochs[-1]["epoch"] < saved.epoch:
        return {"frames_per_second": None, "minutes": None, "total_minutes": None}
    total = until = before = 0
    a_step = saved.config.training.batch_size * saved.inputs.window.targets
    for row in epochs:
        frames = (row["step"] - before) * a_step
        total += frames / row["frames_per_second"]
        before = row["step"]
        if before <= saved.step:
            until = total
    until += saved.progress.seconds
    return {
        "frames_per_second": statistics.median(row["frames_per_second"] for row in epochs),
        "minutes": until / 60,
        "total_minutes": max(total, until) / 60,
    }


def validation_scores(report: dict[str, Any]) -> Row:
    """Of ``evaluation.json``; the rarest action is the one held in the fewest frames, of those held at all."""
    held = {name: scores for name, scores in report.get("per_action", {}).items() if scores["frequency"]}
    rarest = min(held, key=lambda name: held[name]["frequency"], default=None)
    return {
        "exact_match": report.get("exact_match"),
        "macro_f1": report.get("macro_f1"),
        "rarest_action": rarest,
        "rarest_f1": None if rarest is None else held[rarest]["f1"],
        "onset_f1": report.get("onset_f1"),
        **{f"test_{key}": report.get("test", {}).get(key) for key in ("exact_match", "macro_f1", "onset_f1")},
    }


def play_scores(play: dict[str, Any]) -> Row:
    """Of ``rollout.json``: the mean return, normalised by those of random and the expert, and the failed episodes.

    The interval is that of the file. Older ones have none: it takes the returns of random and the expert.
    """
    mean, low, high = (play.get(key) for key in ("mean", "random_mean", "expert_mean"))
    normalized, failed = play.get("normalized_ci95") or (None, None), play.get("failed_ci95") or (None, None)
    return {
        "mean_return": mean,
        "normalized": None if mean is None or low is None else normalize_score(mean, low, high),
        "normalized_low": normalized[0],
        "normalized_high": normalized[1],
        "failed": play.get("failed"),
        "failed_low": failed[0],
        "failed_high": failed[1],
        "episodes": play.get("episodes"),
    }
