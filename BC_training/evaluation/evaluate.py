"""Offline metrics of a checkpoint on a split of a dataset."""

import contextlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from BC_training.common import events, metrics
from BC_training.common.decode import Decoding
from BC_training.common.errors import UserError
from BC_training.common.files import require_writable, write_whole
from BC_training.evaluation import diagnose as diagnosis
from BC_training.evaluation.split_predictions import SplitPredictions, default_split, predict_split
from BC_training.evaluation.tune import best_thresholds, changes_table
from BC_training.training import checkpoint as checkpoints
from BC_training.training.decoding_file import TunedOn, changing, write_decoding
from BC_training.training.resume import fingerprint


def evaluate(
    checkpoint: str | Path,
    console: Console,
    *,
    data: str | Path | None = None,
    split: str | None = None,
    json_file: Path | None = None,
    tune: bool = False,
    force: bool = False,
    diagnose: bool = False,
    tolerance: int = events.TOLERANCE,
) -> metrics.Report:
    """Scores a checkpoint and prints its tables.

    Buttons are those that a player would press that does not sample, also where the checkpoint's does.
    With ``diagnose`` the split is predicted four to six times in place of once. The validation split has chosen the
    checkpoint, so where the run set a test split aside, its scores are given beside, unless ``split`` or ``data`` asks
    for something else.

    Args:
        data: a dataset; None for the one it was trained on.
        split: "train", "val" or "test" as saved with the run, or "all" episodes; None for "val",
            with ``data`` for "all", since the run's split knows nothing of other episodes.
        json_file: where to write the report.
        tune: choose each action's threshold by its F1 here (``tune.best_threshold``) and write it into the
            checkpoint, whole or not at all.
        force: tune on another split than the validation split, too.
        diagnose: score it with parts of its input taken away, too.
        tolerance: frames by which a press or a release may be early or late, 0 or more.

    Returns:
        The report of ``score``; with ``tune`` that of the tuned thresholds, and in "before" that of
        those it had. In "test" that of the test split, where it is given.

    Raises:
        UserError: checkpoint or dataset do not load or do not fit, the split is empty or not to be tuned
            on, or the checkpoint cannot be changed.
    """
    if json_file is not None:
        require_writable(json_file)
    with_test = split is None and data is None
    split = split or default_split(data)
    if force and not tune:
        raise UserError("--force goes with --tune: scoring alone takes any split")
    if tune and split != "val" and not force:
        raise UserError(
            f"--tune on split '{split}': thresholds are chosen on val, which the run did not train on; "
            "--force tunes on it all the same"
        )
    with changing(checkpoints.find(checkpoint)) if tune else contextlib.nullcontext():
        predictions = predict_split(checkpoint, console, data=data, split=split, ablate=diagnose)
        saved = predictions.saved
        decoding = saved.decoding
        report = score(predictions, decoding, tolerance)
        if tune:
            decoding = best_thresholds(decoding, predictions.samples.targets, predictions.probability)
            chosen = dict.fromkeys([*predictions.chosen_here, "thresholds"])
            predictions = replace(predictions, chosen_here=tuple(chosen))
            report = {**score(predictions, decoding, tolerance), "before": report}
            if (decoding, tuned_on := _tuned_on(predictions)) != (saved.decoding, saved.tuned_on):
                write_decoding(saved.path, decoding, tuned_on)
    show_scores(predictions, report, console)
    if tune:
        console.print(changes_table(report["before"], report))
        said = "has its thresholds now" if decoding != saved.decoding else "had the best thresholds already"
        console.print(f"{saved.path} {said}, by {split}", soft_wrap=True, highlight=False, markup=False)
    if with_test and saved.split["test"]:
        report["test"] = score_test(checkpoint, console, decoding, tolerance=tolerance, ablate=diagnose)
    if json_file is not None:
        write_whole(json_file, json.dumps(report, indent=2) + "\n")
    return report


def score_test(
    checkpoint: str | Path,
    console: Console,
    decoding: Decoding,
    *,
    data: str | Path | None = None,
    tolerance: int = events.TOLERANCE,
    ablate: bool = False,
) -> metrics.Report:
    """The report of the test split, on which nothing was chosen, printed; arguments as in ``evaluate``."""
    predictions = predict_split(checkpoint, console, data=data, split="test", ablate=ablate)
    report = score(predictions, decoding, tolerance)
    show_scores(predictions, report, console)
    return report


def _tuned_on(predictions: SplitPredictions) -> TunedOn:
    """What identifies the frames that thresholds are tuned on."""
    dataset, episodes = predictions.dataset, sorted(predictions.episodes)
    return TunedOn(tuple(dataset.episodes[e].name for e in episodes), fingerprint(dataset, episodes))


def score(predictions: SplitPredictions, decoding: Decoding, tolerance: int = events.TOLERANCE) -> metrics.Report:
    """What predictions are worth, decoded without sampling.

    Args:
        tolerance: frames by which a press or a release may be early or late, 0 or more.

    Returns:
        ``metrics.report``, JSON types, with the checkpoint's "step", the "split", "chosen_here" of the
        predictions; "events" of
        ``events.event_scores``, here and in each of "baselines"; "diagnosis" of ``diagnose.diagnose``:
        "copycat", "reasons", "unchanged_match", "gains"; and where there are ablations "ablations", the
        name of each to its "exact_match", "change_match", "macro_f1" and "onset_f1".
    """
    saved, true = predictions.saved, predictions.true
    names, shift, majority = saved.inputs.action_names, saved.inputs.window.action_shift, np.asarray(saved.majority)
    report = metrics.report(true, predictions.probability, majority, names, decoding, shift)
    report |= {"step": saved.step, "split": predictions.split, "chosen_here": list(predictions.chosen_here)}
    pressed = predictions.pressed(decoding, predictions.logits)
    baselines = metrics.baselines(true, majority, shift)
    for scores, held in ((report, pressed), *((report["baselines"][name], p) for name, p in baselines.items())):
        scores["events"] = events.event_scores(true, held, names, tolerance, shift)
    ablated = {name: predictions.pressed(decoding, logits) for name, logits in predictions.ablated.items()}
    if ablated:
        report["ablations"] = diagnosis.ablation_scores(true, ablated, names, shift)
    report["diagnosis"] = diagnosis.diagnose(true, pressed, majority, shift, ablated)
    return report


def show_scores(predictions: SplitPredictions, report: metrics.Report, console: Console) -> None:
    """Prints the tables of a report."""
    print_report(report, predictions.title, console, predictions.saved.inputs.fps)
    temperature = predictions.saved.decoding.temperature
    if temperature is not None:
        note = f"these scores are without sampling; in play it samples at temperature {temperature:g}"
        console.print(note, style="yellow", soft_wrap=True, markup=False)
    if text := metrics.chosen_text(report):
        console.print(text, style="yellow", soft_wrap=True, markup=False)


def print_report(report: metrics.Report, title: str, console: Console, fps: float | None = None) -> None:
    console.print(metrics.summary_table(report, f"{title}, {report['frames']:,} frames"))
    console.print(metrics.action_table(report))
    console.print()
    console.print(events.event_table(report, fps))
    console.print()
    if "ablations" in report:
        console.print(diagnosis.ablation_table(report))
    if text := diagnosis.warning(report):
        console.print(text, style="yellow", markup=False)
