"""How far a training is, beside its state: what a checkpoint must hold for the training to go on."""

import math
from dataclasses import dataclass
from functools import reduce
from typing import Any

from BC_training.common import metrics
from BC_training.common.schema import Config
from BC_training.common.settings.rules import keys_that_change
from BC_training.data.order import SampleOrder
from BC_training.games import GameSpec


@dataclass
class TrainingProgress:
    """How far a training is, beside its state."""

    step: int = 0  # steps taken
    epochs: int = 0  # closed epochs: trained, evaluated and logged
    loss_sum: float = 0.0  # over the steps of the open epoch
    seconds: float = 0.0  # that these took
    waited: float = 0.0  # seconds of these that went into waiting for data
    best_score: float | None = None  # the best checkpoint's; higher is better
    best_step: int | None = None
    patience_score: float | None = None  # the last score that early stopping took for a gain
    evaluations_without_gain: int = 0  # since then
    log_bytes: int = 0  # bytes of metrics.jsonl so far
    wandb_id: str | None = None

    def describe(self, epochs: int) -> str:
        """The step, and the epoch that is open, of ``epochs``."""
        return f"step {self.step:,}, epoch {min(self.epochs + 1, epochs)} of {epochs}"

    def is_finished(self, config: Config) -> bool:
        """Whether the last epoch is closed, or early stopping has run out of patience."""
        stopping = config.training.early_stopping
        out_of_patience = stopping is not None and self.evaluations_without_gain >= stopping.patience
        return self.epochs >= config.training.num_epochs or out_of_patience

    def speed(self, order: SampleOrder) -> tuple[float, float]:
        """The open epoch's frames per second, and the share of its time that went into waiting for data."""
        taken = self.step - self.epochs * order.steps_per_epoch
        return taken * order.batch_size * order.targets_per_sample / self.seconds, self.waited / self.seconds

    def note_scores(self, config: Config, report: metrics.Report) -> bool:
        """Takes in an evaluation; returns whether it is the best so far.

        The report has "rollout", the mean return, only after epochs that played.
        """
        if config.evaluation.best_metric == "rollout" and "rollout" not in report:
            return False
        stopping = config.training.early_stopping
        score = _score(report, config.evaluation.known_metric)
        is_best = self.best_score is None or score > self.best_score
        if is_best:
            self.best_score, self.best_step = score, self.step
        if stopping is not None:
            score = _score(report, _stopping_metric(config))
            if self.patience_score is None or score > self.patience_score + stopping.min_delta:
                self.patience_score, self.evaluations_without_gain = score, 0
            else:
                self.evaluations_without_gain += 1
        return is_best

    def forget_other_metrics(self, before: Config, now: Config) -> None:
        """Forgets the scores that cannot be compared with those that ``now`` asks for."""
        if _measure(before, before.evaluation.known_metric) != _measure(now, now.evaluation.known_metric):
            self.best_score = self.best_step = None
        if _measure(before, _stopping_metric(before)) != _measure(now, _stopping_metric(now)):
            self.patience_score, self.evaluations_without_gain = None, 0

    def close_epoch(self) -> None:
        self.epochs += 1
        self.loss_sum = self.seconds = self.waited = 0.0


def _stopping_metric(config: Config) -> str:
    stopping = config.training.early_stopping
    return (stopping and stopping.metric) or config.evaluation.known_metric


def _measure(config: Config, metric: str) -> dict[str, Any]:
    """A metric, and the settings that its value depends on."""
    score = metric if metric in ("loss", "rollout") else "buttons"
    found: dict[str, Any] = {"metric": metric}
    for key in keys_that_change(Config, score):
        found[key] = reduce(getattr, key.split("."), config)
    if score == "rollout":
        found["evaluation.rollout.game"] = GameSpec.parse(found["evaluation.rollout.game"])
    return found


def _score(report: metrics.Report, name: str) -> float:
    """The value of a metric, so that higher is better and undefined is worst."""
    value = report[name]
    if value is None or math.isnan(value):
        return -math.inf
    return -value if name == "loss" else value
