"""The metrics of steps are read late, unless a step takes long."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.progress import Progress as Bars

from BC_training.data.order import SampleOrder
from BC_training.training import step_log
from BC_training.training.progress import TrainingProgress
from BC_training.training.step_log import StepLog
from BC_training.training.train_state import StepMetrics


@pytest.mark.parametrize(
    ("seconds", "unread"),
    [
        (0.01, [0, 1, 2, 2, 2, 2, 2, 2]),
        (1.2, [0, 1, 2, 2, 0, 0, 0, 0]),  # so that a signal waits for one step only
    ],
)
def test_metrics_are_read_two_dispatches_late_unless_a_step_takes_long(monkeypatch, seconds, unread):
    now, read, found = [0.0], [], []

    class OnDevice:
        def __array__(self, dtype=None, copy=None):
            now[0] += seconds / len(StepMetrics._fields)
            return np.ones(1)

    setup: Any = SimpleNamespace(
        order=SampleOrder(num_samples=8, batch_size=1, seed=0),
        config=SimpleNamespace(training=SimpleNamespace(num_epochs=1), logging=SimpleNamespace(log_every_steps=1)),
        require_finite=lambda values, step: read.append(step),
    )
    tracker: Any = SimpleNamespace(log=lambda *_: None)
    monkeypatch.setattr(step_log, "perf_counter", lambda: now[0])
    progress = TrainingProgress()
    log = StepLog(setup, progress, tracker, Bars(disable=True))
    log.start_epoch()
    for steps in setup.order.dispatches(0, 1):
        found.append(steps.start - len(read))
        log.add(steps, StepMetrics(*(OnDevice() for _ in StepMetrics._fields)))
    log.read_all()
    assert found == unread
    assert read == list(range(1, 9))
    assert (progress.step, progress.loss_sum) == (8, 8.0)
