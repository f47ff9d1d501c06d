"""Where a run's numbers go: ``metrics.jsonl`` always, Weights & Biases if enabled."""

import json
import os
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from BC_training.common import metrics
from BC_training.common.config import to_dict
from BC_training.common.errors import disk_full_is_user_error
from BC_training.common.schema import Config


class Tracker:
    """Appends rows to ``<log_dir>/metrics.jsonl`` and mirrors them to W&B.

    W&B runs online with a key, otherwise offline; it never prompts, and no failure of it ends
    or delays the run.
    """

    def __init__(self, log_dir: Path, config: Config, console: Console, log_bytes=0, wandb_id=None):
        log_dir.mkdir(parents=True, exist_ok=True)
        self.path = log_dir / "metrics.jsonl"
        self.wandb_id = None
        if self.path.exists():
            import os

            os.truncate(self.path, log_bytes)
        self._file = open(self.path, "a", buffering=1)  # noqa: SIM115 (closed by __exit__)
        self._console = console
        self._wandb = self._start_wandb(log_dir, config) if config.logging.wandb.enabled else None

    def log(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Writes one row.

        Args:
            kind: "train", "epoch", "val" or "rollout": what the values are of; their prefix in W&B.
            step: training steps taken.
            values: flat, JSON types.
        """
        with disk_full_is_user_error(self.path):
            self._file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        if self._wandb is not None:
            try:
                self._wandb.log({f"{kind}/{key}": value for key, value in values.items()}, step=step)
            except Exception as error:
                self._give_up(error)

    def position(self):
        return self._file.tell()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()
        if self._wandb is not None:
            try:
                self._wandb.finish()
            except Exception as error:
                self._give_up(error)

    def _start_wandb(self, log_dir: Path, config: Config) -> Any:
        import wandb  # here: it takes a second, and is not needed when disabled

        os.environ.setdefault("WANDB_SILENT", "true")
        options = config.logging.wandb
        settings = wandb.Settings(init_timeout=20, login_timeout=5, silent=True, console="off")
        try:
            has_key = wandb.login(prompt=False, verify=False)  # looks in the environment and netrc, asks nobody
            mode, why = ("online", "") if has_key else ("offline", "no key")
        except Exception as error:  # a malformed key
            mode, why = "offline", _first_line(error)
        if os.environ.get("WANDB_MODE") in ("offline", "disabled"):
            mode, why = os.environ["WANDB_MODE"], f"WANDB_MODE={os.environ['WANDB_MODE']}"
        for attempt in (mode, "offline"):
            try:
                run = wandb.init(
                    project=options.project,
                    entity=options.entity,
                    name=config.logging.run_name,
                    tags=list(options.tags),
                    config=to_dict(config),
                    dir=log_dir,
                    mode=attempt,  # pyright: ignore[reportArgumentType]
                    settings=settings,
                )
            except Exception as error:
                why = _first_line(error)
                continue
            if why:
                self._say(f"W&B is {attempt} ({why}); the run is logged in {log_dir}")
            return run
        self._say(f"W&B does not start ({why}); the run is logged in {self.path} alone")
        return None

    def _give_up(self, error: Exception) -> None:
        self._wandb = None
        self._say(f"W&B failed ({_first_line(error)}); the run goes on and is logged in {self.path}")

    def _say(self, message: str) -> None:
        self._console.print(message, soft_wrap=True, markup=False)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


class EpochTable:
    """One printed row an epoch."""

    _COLUMNS = ("epoch", "train loss", "val loss", "exact match", "macro F1", "frames/s", "")

    def __init__(self, console: Console):
        self._console = console
        console.print("  ".join(f"{heading:>11}" for heading in self._COLUMNS), style="bold", soft_wrap=True)

    def add(self, row: dict[str, Any], is_best: bool) -> None:
        val = row.get("val", {})
        cells = [str(row["epoch"]), f"{row['train_loss']:.4f}"]
        cells += [metrics.number(val.get(name)) for name in ("loss", "exact_match", "macro_f1")]
        cells += [f"{row['frames_per_second']:,.0f}", "best" if is_best else ""]
        self._console.print("  ".join(f"{cell:>11}" for cell in cells), highlight=False, soft_wrap=True)


def training_progress(console: Console) -> Progress:
    """Bars with a status text and the time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}"),
        TimeRemainingColumn(),
        console=console,
        refresh_per_second=2,  # drawing takes from the cores that train
    )
