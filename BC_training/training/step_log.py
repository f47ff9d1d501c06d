"""Reads, checks, shows and logs the metrics of training steps."""

from collections import deque
from collections.abc import Iterator
from time import perf_counter
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.progress import Progress as Bars

from BC_training.data.loader import Tier
from BC_training.training.progress import TrainingProgress
from BC_training.training.setup import Setup
from BC_training.training.tracking import Tracker
from BC_training.training.train_state import StepMetrics

LAG = 2  # dispatches until a step's metrics are read, so that reading never stalls the next step
_SLOW = 1.0  # seconds; a dispatch that takes longer is waited for, so that a signal waits for one dispatch, not three
_NOTEWORTHY_WAIT = 0.05  # share of an epoch's time


class StepLog:
    """Reads the metrics of steps ``LAG`` dispatches late; ``progress``, a new bar and the log follow what was read."""

    def __init__(self, setup: Setup, progress: TrainingProgress, tracker: Tracker, bars: Bars):
        self._setup, self._progress, self._tracker, self._bars = setup, progress, tracker, bars
        total = setup.order.steps_per_epoch * setup.config.training.num_epochs
        self._bar = bars.add_task("compiling", total=total, status="")
        self._pending: deque[tuple[range, StepMetrics]] = deque()

    def start_epoch(self) -> None:
        """Starts the clock of an epoch, or of what is left of one."""
        self._started, self._seconds_before = perf_counter(), self._progress.seconds
        self._dispatches, self._lag = 0, LAG

    def next_batch(self, batches: Iterator[Any]) -> Any:
        """The next batch; the time that it takes counts as waiting for data."""
        before = perf_counter()
        batch = next(batches)
        self._progress.waited += perf_counter() - before
        return batch

    def add(self, steps: range, metrics: StepMetrics) -> None:
        """Takes the metrics [K] of a dispatch and reads earlier ones; raises a UserError if one is not finite."""
        self._pending.append((steps, metrics))
        self._dispatches += 1
        while len(self._pending) > self._lag:
            self._read_oldest()
        # With several processes a signal counts some dispatches later in any case.
        slow = self._dispatches == LAG + 1 and perf_counter() - self._started > _SLOW
        if slow and jax.process_count() == 1:
            self._lag = 0

    def read_all(self) -> None:
        """Reads what is left, so that ``progress`` counts every step."""
        while self._pending:
            self._read_oldest()
        self._progress.seconds = self._seconds_before + perf_counter() - self._started

    def _read_oldest(self) -> None:
        steps, metrics = self._pending.popleft()
        columns = {name: np.asarray(values) for name, values in metrics._asdict().items()}
        self._progress.seconds = self._seconds_before + perf_counter() - self._started
        for i, step in enumerate(steps):
            values = {name: float(column[i]) for name, column in columns.items()}
            self._progress.step, self._progress.loss_sum = step + 1, self._progress.loss_sum + values["loss"]
            self._setup.require_finite(values, step + 1)
            self._show(values)

    def _show(self, values: dict[str, float]) -> None:
        progress, config = self._progress, self._setup.config
        rate, waited = progress.speed(self._setup.order)
        status = f"{rate:,.0f} frames/s  data {waited:.0%}  loss {values['loss']:.4f}"
        epoch = f"epoch {progress.epochs + 1}/{config.training.num_epochs}"
        self._bars.update(self._bar, completed=progress.step, description=epoch, status=status)
        if progress.step % config.logging.log_every_steps == 0:
            speed = {"frames_per_second": rate, "data_wait": waited}
            self._tracker.log("train", progress.step, {"epoch": progress.epochs + 1, **values, **speed})


def advise_on_waiting(tier: Tier, waited: float, console: Console) -> None:
    """Prints what would make the training wait less for its data, if that is a noteworthy share of the time."""
    if waited > _NOTEWORTHY_WAIT:
        hint = f"; {tier.faster} would help" if tier.faster else ""
        console.print(f"the step waits for data {waited:.0%} of the time{hint}", soft_wrap=True)
