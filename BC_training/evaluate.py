"""Offline metrics of a checkpoint on a split of a dataset."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.progress import Progress

from BC_training.common import checkpoint as checkpoints
from BC_training.common import metrics
from BC_training.common.compilation_cache import use_compilation_cache
from BC_training.common.dataset import SPLITS, ZarrGameplayDataset
from BC_training.common.errors import UserError, require_writable, unknown
from BC_training.common.loader import Batch, Tier, make_tier
from BC_training.common.resume import fingerprint
from BC_training.common.samples import Samples
from BC_training.common.sharding import one_device
from BC_training.common.train_state import make_predict


def predict_logits(predict: Callable[[Batch], jax.Array], tier: Tier, samples: int, batch_size: int) -> np.ndarray:
    """float32 [samples, A], the logits of every sample of ``tier`` in order."""
    devices = tier.mesh.size
    size = -(-min(batch_size, samples) // devices) * devices

    def order() -> Iterator[np.ndarray]:
        for start in range(0, samples, size):
            # The last batch repeats its end, so that one compiled shape serves all.
            yield np.minimum(np.arange(start, start + size), samples - 1)

    logits = [np.asarray(predict(batch)) for batch in tier.batches(order())]
    return np.concatenate(logits)[:samples]


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a checkpoint predicts on a split.

    Attributes:
        saved: the checkpoint.
        dataset: with its labels loaded.
        split: its name.
        episodes: the split's, positions in ``dataset.episodes``.
        samples: theirs, N; ``samples.targets`` is bool [N, A], what was to be predicted.
        logits: float32 [N, A], of each button of each sample, in order.
    """

    saved: checkpoints.Checkpoint
    dataset: ZarrGameplayDataset
    split: str
    episodes: list[int]
    samples: Samples
    logits: np.ndarray

    @property
    def probability(self) -> np.ndarray:
        """float32 [N, A]."""
        return np.asarray(jax.nn.sigmoid(self.logits))

    def report(self) -> metrics.Report:
        """``metrics.report``, with the checkpoint's "step" and the "split"."""
        report = metrics.report(
            [self.dataset.actions(e) for e in self.episodes],
            self.probability,
            np.asarray(self.saved.majority),
            self.saved.inputs.action_names,
            self.saved.threshold,
            self.saved.inputs.window.action_shift,
        )
        return report | {"step": self.saved.step, "split": self.split}


def predict_split(
    checkpoint: str | Path, console: Console, *, data: str | Path | None = None, split: str | None = None
) -> Predictions:
    """Predicts every frame of a split; see ``evaluate``."""
    use_compilation_cache()
    saved = checkpoints.read(checkpoint)
    model = checkpoints.read_model(saved)
    config = saved.config
    dataset = ZarrGameplayDataset.from_config(config.dataset, data)
    dataset.load_labels()
    if dataset.action_names != saved.inputs.action_names:
        raise UserError(
            f"{dataset.path} has actions {', '.join(dataset.action_names)}; {saved.path} was trained on "
            f"{', '.join(saved.inputs.action_names)}"
        )
    if saved.inputs.window.state and dataset.state_names != saved.inputs.state_names:
        raise UserError(
            f"{dataset.path} has state values {', '.join(dataset.state_names) or 'none'}; {saved.path} was trained on "
            f"{', '.join(saved.inputs.state_names)}"
        )
    split = split or ("val" if data is None else "all")
    if data is not None and split != "all" and saved.fingerprint not in (None, fingerprint(dataset)):
        raise UserError(
            f"{dataset.path} is not the dataset that {saved.path} was trained on, whose split '{split}' says nothing "
            "of it: use --split all"
        )
    episodes = _episodes(dataset, saved, split)
    samples = Samples(dataset, episodes, saved.inputs.window)
    predict = make_predict(model)
    with Progress(console=console, transient=True) as progress:
        options = dataclasses.replace(config.dataset, cache="none")
        tier = make_tier(options, samples, saved.inputs.frame_size, progress, one_device())
        bar = progress.add_task("evaluating", total=len(samples))

        def counted(batch: Batch) -> jax.Array:
            progress.update(bar, advance=len(batch["frames"]))
            return predict(model.params, model.batch_stats, batch)

        logits = predict_logits(counted, tier, len(samples), config.evaluation.batch_size)
    return Predictions(saved, dataset, split, episodes, samples, logits)


def evaluate(
    checkpoint: str | Path,
    console: Console,
    *,
    data: str | Path | None = None,
    split: str | None = None,
    json_file: Path | None = None,
) -> metrics.Report:
    """Scores a checkpoint and prints its tables.

    Args:
        data: a dataset; None for the one it was trained on.
        split: "train", "val" or "test" as saved with the run, or "all" episodes; None for "val",
            with ``data`` for "all", since the run's split knows nothing of other episodes.
        json_file: where to write the report.

    Returns:
        The report of ``metrics.report``, with the checkpoint's "step" and the "split".

    Raises:
        UserError: checkpoint or dataset do not load or do not fit, or the split is empty.
    """
    if json_file is not None:
        require_writable(json_file)
    return show_scores(predict_split(checkpoint, console, data=data, split=split), console, json_file)


def show_scores(predictions: Predictions, console: Console, json_file: Path | None = None) -> metrics.Report:
    """Scores predictions, prints the tables and writes the report."""
    report = predictions.report()
    episodes, dataset = len(predictions.episodes), predictions.dataset
    title = f"{predictions.saved.path} on {predictions.split} of {dataset.path}: {episodes} episodes"
    print_report(report, title, console)
    if json_file is not None:
        json_file.write_text(json.dumps(report, indent=2) + "\n")
    return report


def print_report(report: metrics.Report, title: str, console: Console) -> None:
    console.print(metrics.summary_table(report, f"{title}, {report['frames']:,} frames"))
    console.print(metrics.action_table(report))


def _episodes(dataset: ZarrGameplayDataset, saved: checkpoints.Checkpoint, split: str) -> list[int]:
    if split == "all":
        return list(range(len(dataset.episodes)))
    if split not in SPLITS:
        raise unknown("split", split, (*SPLITS, "all"))
    if not saved.split[split]:
        raise UserError(f"the run of {saved.path} has no episodes in split '{split}'")
    return dataset.find(saved.split[split])
