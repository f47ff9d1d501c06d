"""Offline metrics of a checkpoint on a split of a dataset."""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.progress import Progress

from BC_training.common import checkpoint as checkpoints
from BC_training.common import metrics
from BC_training.common.checkpoint_edit import editing, update_meta
from BC_training.common.compilation_cache import use_compilation_cache
from BC_training.common.dataset import SPLITS, ZarrGameplayDataset
from BC_training.common.decode import Decoding
from BC_training.common.errors import UserError, require_writable, unknown
from BC_training.common.loader import Batch, Tier, make_tier
from BC_training.common.resume import fingerprint
from BC_training.common.samples import Samples
from BC_training.common.sharding import one_device
from BC_training.common.train_state import make_predict
from BC_training.tune import best_thresholds, changes_table


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


def evaluate(
    checkpoint: str | Path,
    console: Console,
    *,
    data: str | Path | None = None,
    split: str | None = None,
    json_file: Path | None = None,
    tune: bool = False,
    force: bool = False,
) -> metrics.Report:
    """Scores a checkpoint and prints its tables.

    Buttons are those that a player would press that does not sample, also where the checkpoint's does.

    Args:
        data: a dataset; None for the one it was trained on.
        split: "train", "val" or "test" as saved with the run, or "all" episodes; None for "val",
            with ``data`` for "all", since the run's split knows nothing of other episodes.
        json_file: where to write the report.
        tune: choose each action's threshold by its F1 here (``tune.best_threshold``) and write it into the
            checkpoint, whole or not at all.
        force: tune on another split than the validation split, too.

    Returns:
        The report of ``metrics.report``, with the checkpoint's "step" and the "split"; with ``tune``
        that of the tuned thresholds, and in "before" that of those it had.

    Raises:
        UserError: checkpoint or dataset do not load or do not fit, the split is empty or not to be tuned
            on, or the checkpoint cannot be changed.
    """
    if json_file is not None:
        require_writable(json_file)
    split = split or ("val" if data is None else "all")
    if force and not tune:
        raise UserError("--force goes with --tune: scoring alone takes any split")
    if tune and split != "val" and not force:
        raise UserError(
            f"--tune on split '{split}': thresholds are chosen on val, which the run did not train on; "
            "--force tunes on it all the same"
        )
    use_compilation_cache()
    saved = checkpoints.read(checkpoint)
    with editing(saved.path) if tune else contextlib.nullcontext():
        return _evaluate(saved, console, data, split, json_file, tune)


def _evaluate(
    saved: checkpoints.Checkpoint,
    console: Console,
    data: str | Path | None,
    split: str,
    json_file: Path | None,
    tune: bool,
) -> metrics.Report:
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
    probability = np.asarray(jax.nn.sigmoid(logits))

    def scored(decoding: Decoding) -> metrics.Report:
        actions, shift = [dataset.actions(e) for e in episodes], saved.inputs.window.action_shift
        majority, names = np.asarray(saved.majority), saved.inputs.action_names
        report = metrics.report(actions, probability, majority, names, decoding, shift)
        return report | {"step": saved.step, "split": split}

    decoding = best_thresholds(saved.decoding, samples.targets, probability) if tune else saved.decoding
    report = scored(decoding)
    if tune:
        report["before"] = scored(saved.decoding)
        if decoding != saved.decoding:
            update_meta(saved.path, {"decoding": decoding.to_dict()})
    print_report(report, f"{saved.path} on {split} of {dataset.path}: {len(episodes)} episodes", console)
    if tune:
        console.print(changes_table(report["before"], report))
        said = "has its thresholds now" if decoding != saved.decoding else "had the best thresholds already"
        console.print(f"{saved.path} {said}", soft_wrap=True, highlight=False)
    if saved.decoding.temperature is not None:
        note = f"these scores are without sampling; in play it samples at temperature {saved.decoding.temperature:g}"
        console.print(note, style="yellow", soft_wrap=True)
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
