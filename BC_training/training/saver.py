"""Saves a training: its state, and what else a checkpoint needs for playing and for going on."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import jax
from rich.console import Console

from BC_training.common.decode import Decoding
from BC_training.data.loader import Tier
from BC_training.runtime.interruption import Decider
from BC_training.training import checkpoint
from BC_training.training.checkpoint import CheckpointMeta, Delivery
from BC_training.training.checkpoint_writer import CheckpointWriter
from BC_training.training.resume import Start
from BC_training.training.run_folder import run_folders
from BC_training.training.setup import Setup
from BC_training.training.tracking import Tracker
from BC_training.training.train_state import TrainState


class Saver:
    """Saves states as checkpoints of one run. The first process writes; the others only keep in step.

    The attribute ``row`` has the metrics of the last epoch that ended.
    """

    def __init__(
        self,
        meta: CheckpointMeta,
        decoding: Decoding,
        start: Start,
        tracker: Tracker,
        decider: Decider,
        console: Console,
    ):
        """``meta`` and ``decoding`` are those of every checkpoint, but for how far the training is."""
        self._meta, self._decoding = meta, decoding
        self._progress, self._tracker, self._decider = start.progress, tracker, decider
        self._writer: CheckpointWriter | None = None
        self.row: dict[str, Any] = {}
        if jax.process_index() == 0:
            run_dir, _ = run_folders(meta.config)
            self._writer = CheckpointWriter(run_dir, meta.config.training.keep_last, console)
            if start.step_folder is not None:
                self.row = checkpoint.read(start.step_folder).metrics

    def save(self, state: TrainState, is_best: bool = False) -> None:
        """Begins to save ``state``; the next step may donate its buffers."""
        progress = self._progress
        progress.log_bytes = self._tracker.position()
        now = {"step": progress.step, "epoch": progress.epochs, "metrics": self.row, "progress": replace(progress)}
        if self._writer is not None:
            self._writer.save(state, replace(self._meta, **now), self._decoding, is_best)
        self._decider.note_save()

    def poll(self) -> None:
        if self._writer is not None:
            self._writer.poll()

    def settle(self) -> Path | None:
        assert self._writer is not None  # only the first process plays
        return self._writer.settle()

    def finish(self) -> None:
        if self._writer is not None:
            self._writer.finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._writer is not None:
            self._writer.__exit__(*exception)


def meta_of(setup: Setup, start: Start, tier: Tier, steps_per_dispatch: int) -> CheckpointMeta:
    """What each of a training's checkpoints holds beside its arrays, at the start.

    A run that goes on takes ``tier`` and ``steps_per_dispatch`` again.
    """
    return CheckpointMeta(
        step=start.progress.step,
        epoch=start.progress.epochs,
        config=setup.config,
        inputs=setup.inputs,
        split=setup.dataset.names_of(setup.split),
        seeds=setup.seeds,
        majority=setup.majority.tolist(),
        metrics={},
        fingerprint=setup.fingerprint,
        progress=start.progress,
        delivery=Delivery(jax.default_backend(), tier.name, steps_per_dispatch),
    )
