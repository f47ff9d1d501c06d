"""Where a run's numbers go: ``metrics.jsonl`` always, Weights & Biases if enabled."""

import contextlib
import json
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from BC_training.common import metrics
from BC_training.common.schema import Config
from BC_training.data.order import SampleOrder
from BC_training.training.progress import TrainingProgress
from BC_training.training.wandb_mirror import WandbMirror

_FINISH_SECONDS = 30.0  # in which W&B may upload the rest
_INTERRUPTED_SECONDS = 5.0  # the same after an interruption


class Tracker:
    """Appends rows to ``<log_dir>/metrics.jsonl`` and mirrors them to W&B; no failure of either ends the run."""

    def __init__(
        self,
        log_dir: Path,
        config: Config,
        console: Console,
        *,
        position: int | None = None,
        wandb_id: str | None = None,
        writes: bool = True,
    ):
        """Opens the log.

        Args:
            position: where the log goes on, in bytes; what follows is cut off. None goes on at its end.
            wandb_id: the W&B run to continue; None for a new one.
            writes: False makes a tracker that does nothing, for the processes beside the first.
        """
        self.path = log_dir / "metrics.jsonl"
        self._console = console
        self._rows: RowFile | None = None
        self._mirror: WandbMirror | None = None
        if writes:
            log_dir.mkdir(parents=True, exist_ok=True)
            self._rows = RowFile(self.path, position, self._say)
            if config.logging.wandb.enabled:
                self._mirror = WandbMirror(log_dir, config, wandb_id, self._say)

    @property
    def wandb_id(self) -> str | None:
        return self._mirror.id if self._mirror is not None else None

    def log(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Writes one row.

        Args:
            kind: "train", "epoch", "val", "rollout" (after an epoch) or "final" (the rollout of the best): the prefix
                of the values in W&B, which keeps one value a step.
            step: training steps taken.
            values: flat, JSON types.
        """
        if self._rows is not None:
            self._rows.write(json.dumps({"kind": kind, "step": step, **values}))
        if self._mirror is not None:
            self._mirror.log({f"{kind}/{key}": value for key, value in values.items()}, step)

    def position(self) -> int:
        """Brings all rows to the disk, if it takes them; returns the size of ``metrics.jsonl`` in bytes."""
        return self._rows.sync() if self._rows is not None else 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if self._rows is not None:
            self._rows.close()
        if self._mirror is not None:
            self._mirror.finish(kind is not None, _FINISH_SECONDS if kind is None else _INTERRUPTED_SECONDS)

    def _say(self, message: str) -> None:
        self._console.print(message, soft_wrap=True, markup=False)


def open_tracker(log_dir: Path, config: Config, progress: TrainingProgress, console: Console) -> Tracker:
    """The tracker of a training that is at ``progress``, which gets the id of its W&B run."""
    # A finished run that is scored again also writes its last row, that of the rollout, again.
    is_kept = progress.is_finished(config) and config.evaluation.rollout is None
    position, is_main = None if is_kept else progress.log_bytes, jax.process_index() == 0
    tracker = Tracker(log_dir, config, console, position=position, wandb_id=progress.wandb_id, writes=is_main)
    progress.wandb_id = tracker.wandb_id or progress.wandb_id
    return tracker


def log_epoch(
    tracker: Tracker,
    progress: TrainingProgress,
    order: SampleOrder,
    report: metrics.Report | None,
    played: dict[str, float] | None,
) -> dict[str, Any]:
    """Logs the epoch that ends: its loss and speed and, where there are any, its scores and its play.

    Returns the row for checkpoints and the table: "epoch", "train_loss", "frames_per_second", "data_wait" and "val".
    """
    rate, waited = progress.speed(order)
    epoch, mean_loss = progress.epochs + 1, progress.loss_sum / order.steps_per_epoch
    row: dict[str, Any] = {"epoch": epoch, "train_loss": mean_loss, "frames_per_second": rate, "data_wait": waited}
    tracker.log("epoch", progress.step, row)
    if report is not None:
        tracker.log("val", progress.step, {"epoch": epoch, **metrics.flatten(report)})
    if played is not None:
        tracker.log("rollout", progress.step, {"epoch": epoch, **played})
    return row if report is None else row | {"val": report}


class RowFile:
    """A file of whole lines; those that a full disk does not take wait until it does.

    The first ``position`` bytes are kept, or all where that is None; ``say`` prints a line.
    """

    def __init__(self, path: Path, position: int | None, say: Callable[[str], None]):
        self._path, self._say = path, say
        self._waiting: deque[bytes] = deque()
        self._failing = False
        self._file = open(path, "a+b", buffering=0)  # noqa: SIM115 (close() is called)
        found = os.fstat(self._file.fileno()).st_size
        if position is not None and found < position:
            say(f"{path} has {found:,} bytes, not the {position:,} of the checkpoint: it goes on with what is there")
        self._size = self._end_of_lines(found if position is None else min(found, position))
        self._file.truncate(self._size)

    def write(self, line: str) -> None:
        self._waiting.append(line.encode() + b"\n")
        self._write_waiting()

    def sync(self) -> int:
        """Brings all lines to the disk, if it takes them; returns the file's size in bytes."""
        self._write_waiting()
        with contextlib.suppress(OSError):  # the next write prints it
            os.fsync(self._file.fileno())
        return self._size

    def close(self) -> None:
        self.sync()
        self._file.close()
        if self._waiting:
            self._say(f"the last {len(self._waiting)} rows are not in {self._path}: it could not be written")

    def _write_waiting(self) -> None:
        try:
            while self._waiting:
                rest = self._waiting[0]
                while rest:
                    rest = rest[self._file.write(rest) :]
                self._size += len(self._waiting.popleft())
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(self._size)  # no torn line is left
            if not self._failing:
                self._say(f"cannot write {self._path} ({error.strerror}): rows are kept until it can be written again")
            self._failing = True
            return
        if self._failing:
            self._say(f"{self._path} can be written again; no row is missing")
        self._failing = False

    def _end_of_lines(self, position: int) -> int:
        """Where the last whole line before ``position`` ends."""
        block = 1 << 16
        while position > 0:
            start = max(position - block, 0)
            self._file.seek(start)
            end = self._file.read(position - start).rfind(b"\n")
            if end >= 0:
                return start + end + 1
            position = start
        return 0


class EpochTable:
    """One printed row an epoch."""

    _COLUMNS = ("epoch", "train loss", "val loss", "exact match", "macro F1", "return", "frames/s", "")

    def __init__(self, console: Console):
        self._console = console
        console.print("  ".join(f"{heading:>11}" for heading in self._COLUMNS), style="bold", soft_wrap=True)

    def add(self, row: dict[str, Any], is_best: bool) -> None:
        val = row.get("val", {})
        cells = [str(row["epoch"]), f"{row['train_loss']:.4f}"]
        cells += [metrics.number(val.get(name)) for name in ("loss", "exact_match", "macro_f1")]
        cells += [metrics.return_text(val.get("rollout"))]
        cells += [f"{row['frames_per_second']:,.0f}", "best" if is_best else ""]
        self._console.print("  ".join(f"{cell:>11}" for cell in cells), highlight=False, soft_wrap=True)


def training_progress(console: Console) -> Progress:
    """Bars with a status text and the time left."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}", markup=False),
        TimeRemainingColumn(),
        console=console,
        refresh_per_second=2,  # drawing takes from the cores that train
    )
