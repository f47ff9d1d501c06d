"""The numbers of a run that are compared, from the files that it has left."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from BC_training.common.json_object import JsonObject
from BC_training.evaluation.results import AxisScores, Evaluation
from BC_training.play.results import RolloutResult
from BC_training.training.checkpoint import Checkpoint


@dataclass(frozen=True)
class TrainingCosts:
    """The speed and time of a training; None where the log lacks the checkpoint's epochs."""

    frames_per_second: float | None = None  # the epochs' median
    minutes: float | None = None  # up to the checkpoint, with its part of an epoch that was not over
    total_minutes: float | None = None  # in all epochs


@dataclass(frozen=True)
class Row(JsonObject):
    """A run in a comparison. None stands for what its files do not say.

    Attributes:
        checkpoint_mb: its size in 10^6 bytes.
        rarest_action: the button held in the fewest validation frames, of those held at all.
        normalized: the mean return, 0 for random and 1 for the expert.
        latency_p50_ms, latency_p99_ms: percentiles of the time that ``Policy.act`` takes for a frame.
        per_axis: scores of the validation split.
    """

    run: str
    checkpoint: str
    step: int
    model: str
    parameters: int
    checkpoint_mb: float
    frames_per_second: float | None
    minutes: float | None
    total_minutes: float | None
    exact_match: float | None
    macro_f1: float | None
    rarest_action: str | None
    rarest_f1: float | None
    onset_f1: float | None
    test_exact_match: float | None
    test_macro_f1: float | None
    test_onset_f1: float | None
    mean_return: float | None
    normalized: float | None
    normalized_low: float | None
    normalized_high: float | None
    failed: int | None
    failed_low: float | None
    failed_high: float | None
    episodes: int | None
    latency_p50_ms: float | None
    latency_p99_ms: float | None
    per_axis: dict[str, AxisScores]

    @property
    def cells(self) -> dict[str, Any]:
        """The values by the keys of columns, those of an axis as "NAME/mean_absolute_error"."""
        of_axes = {f"{name}/{key}": value for name, s in self.per_axis.items() for key, value in vars(s).items()}
        return {key: value for key, value in vars(self).items() if key != "per_axis"} | of_axes


@dataclass(frozen=True)
class Comparison(JsonObject):
    """What ``compare`` finds."""

    device: str  # on which the latency was measured
    runs: list[Row]  # in the order of the checkpoints given
    notes: list[str]  # what is missing and how to get it, and what does not compare


def training_costs(epochs: Sequence[dict[str, Any]], saved: Checkpoint) -> TrainingCosts:
    """The costs of a training from the epochs' rows in ``metrics.jsonl``.

    An epoch's time is its steps * batch size / frames per second, with waiting for data, but without compiling,
    validating, saving, recording and play.
    """
    if not epochs or epochs[-1]["epoch"] < saved.epoch:
        return TrainingCosts()
    total = until = before = 0
    a_step = saved.config.training.batch_size * saved.inputs.window.targets if saved.config.finetune is None else 1
    for row in epochs:
        frames = (row["step"] - before) * a_step
        total += frames / row["frames_per_second"]
        before = row["step"]
        if before <= saved.step:
            until = total
    until += saved.progress.seconds
    speed = statistics.median(row["frames_per_second"] for row in epochs)
    return TrainingCosts(speed, until / 60, max(total, until) / 60)


def validation_scores(found: Evaluation | None) -> dict[str, Any]:
    """A row's scores on the validation and the test split."""
    held = {} if found is None else {name: s for name, s in found.per_action.items() if s.frequency}
    rarest = min(held, key=lambda name: held[name].frequency or 0, default=None)
    row: dict[str, Any] = {"rarest_action": rarest, "rarest_f1": None if rarest is None else held[rarest].f1}
    row["per_axis"] = {} if found is None else found.per_axis
    for key in ("exact_match", "macro_f1", "onset_f1"):
        row |= {key: getattr(found, key, None), f"test_{key}": getattr(found and found.test, key, None)}
    return row


def play_scores(play: RolloutResult | None) -> dict[str, Any]:
    """A row's scores in play."""
    normalized, failed = play and play.normalized_ci95, play and play.failed_ci95
    return {
        "mean_return": play and play.mean,
        "normalized": play and play.normalized,
        "normalized_low": normalized and normalized[0],
        "normalized_high": normalized and normalized[1],
        "failed": play and play.failed,
        "failed_low": failed and failed[0],
        "failed_high": failed and failed[1],
        "episodes": play and play.episodes,
    }
