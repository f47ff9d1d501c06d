"""What a fine-tuning shows and logs, and the scores at its end."""

import math
from typing import Any

from rich.console import Console
from rich.progress import Progress as Bars
from rich.progress import TaskID

from BC_training.common.errors import UserError
from BC_training.common.metrics import number, return_text
from BC_training.common.settings.finetune import FinetuneConfig
from BC_training.finetuning.playing import Playing
from BC_training.training.progress import TrainingProgress
from BC_training.training.tracking import Tracker
from BC_training.training.train_state import TrainState

_SHARES = {"games": "data_wait", "inference": "inference", "update": "update"}  # of an iteration's time
_ROWS = 20  # of the table, however long the run


def show(
    bars: Bars, bar: TaskID, playing: Playing, progress: TrainingProgress, options: FinetuneConfig, last: dict[str, Any]
) -> None:
    """Brings the progress bar up to date; ``last`` is the row of the iteration before, if there was one."""
    status = f"return {return_text(playing.mean_score)}"
    if "inference" in last:
        shares = ", ".join(f"{name} {last[key]:.0%}" for name, key in _SHARES.items())
        status = f"{last['frames_per_second']:,.0f} agent steps/s ({shares})  KL {last['kl']:.3f}  {status}"
    status = "waits for the window's focus, or its state" if playing.waits else status
    iteration = f"iteration {progress.epochs + 1}/{options.iterations}"
    done = progress.step + playing.steps * options.games
    bars.update(bar, completed=min(done, options.steps), description=iteration, status=status)


def log_iteration(
    tracker: Tracker,
    progress: TrainingProgress,
    playing: Playing,
    state: TrainState,
    means: dict[str, float],
    options: FinetuneConfig,
    played: dict[str, float] | None,
    clone_mean: float | None,
) -> dict[str, Any]:
    """Logs an iteration, whose time is ``progress.seconds``: its losses, speed, episodes and, where it was, its play.

    Returns the row for checkpoints and the table.
    """
    seconds, spent = progress.seconds, playing.seconds
    lengths = [episode.frames for episode in playing.finished]
    row = {
        "epoch": progress.epochs + 1,
        "train_loss": means["loss"],
        "frames_per_second": options.batch / seconds,
        "data_wait": spent["games"] / seconds,
        "inference": spent["inference"] / seconds,
        "update": 1 - sum(spent.values()) / seconds,
        "return": playing.mean_score,
        "episodes": len(lengths),
        "games_died": playing.died,
        "length": sum(lengths) / len(lengths) if lengths else None,
        "explained_variance": playing.explained_variance,
        "kl_weight": float(state.opt_state["kl"]),
        **{name: value for name, value in means.items() if name != "loss"},
    }
    row = {name: value for name, value in row.items() if value is not None}
    tracker.log("epoch", progress.step, row)
    if played is not None:
        of_clone = {} if clone_mean is None else {"clone_mean": clone_mean}
        tracker.log("rollout", progress.step, {"epoch": row["epoch"], **played, **of_clone})
        row = row | {"val": {"rollout": played["mean"]}}
    return row


def require_finite(means: dict[str, float], step: int) -> None:
    """Raises a UserError if an update's metrics are not finite."""
    if not all(map(math.isfinite, means.values())):
        raise UserError(
            f"the updates up to agent step {step:,} are not finite (loss {means['loss']}, gradient norm "
            f"{means['grad_norm']}), the checkpoints before are kept: lower finetune.learning_rate"
        )


class IterationTable:
    """Printed rows: twenty over the run, and of each iteration that plays for a score."""

    _COLUMNS = ("steps", "return", "played", "KL", "entropy", "value loss", "clipped", "steps/s", "")

    def __init__(self, console: Console, options: FinetuneConfig):
        self._console, self._options = console, options
        self._every = max(options.iterations // _ROWS, 1)
        console.print("  ".join(f"{heading:>10}" for heading in self._COLUMNS), style="bold", soft_wrap=True)

    def add(self, row: dict[str, Any], is_best: bool) -> None:
        played = row.get("val", {}).get("rollout")
        if played is None and row["epoch"] % self._every and row["epoch"] > 1:
            return
        cells = [f"{row['epoch'] * self._options.batch:,}", return_text(row.get("return")), return_text(played)]
        cells += [number(row[name]) for name in ("kl", "entropy", "value_loss", "clipped")]
        cells += [f"{row['frames_per_second']:,.0f}", "best" if is_best else ""]
        self._console.print("  ".join(f"{cell:>10}" for cell in cells), highlight=False, soft_wrap=True)
