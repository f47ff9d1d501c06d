"""Offline metrics of a checkpoint on a split of a dataset."""

import contextlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from BC_training.common import metrics
from BC_training.common.decode import Decoding
from BC_training.common.errors import UserError
from BC_training.common.files import require_writable, write_whole
from BC_training.evaluation import diagnose as diagnosis
from BC_training.evaluation import events
from BC_training.evaluation.results import Evaluation
from BC_training.evaluation.split_predictions import SplitPredictions, default_split, predict_split
from BC_training.evaluation.tables import print_evaluation, tuning_table
from BC_training.evaluation.trained_data import Data
from BC_training.evaluation.tune import best_thresholds
from BC_training.play.say import say
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
) -> Evaluation:
    """Scores a checkpoint and prints its tables.

    It scores the actions that are taken without sampling. The validation split has chosen the checkpoint, so the test
    split, where the run has one, is scored too, unless ``split`` or ``data`` is given.

    Args:
        data: a dataset; None for the one it was trained on.
        split: "train", "val" or "test" of the run, or "all" episodes; None for "val", and with ``data`` for "all".
        tune: choose each button's threshold by its F1 here (``tune.best_threshold``) and write it into the checkpoint.
        force: tune also on a split other than the validation split.
        diagnose: score it also without parts of its input, which predicts the split four to six times.
        tolerance: frames by which a press or a release may be early or late, 0 or more.

    Returns:
        The scores; with ``tune`` those of the new thresholds, and those of the old ones in "before".

    Raises:
        UserError: checkpoint or dataset do not load or fit, the split is empty or not to be tuned on, or the
            checkpoint cannot be changed.
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
    if tune and not checkpoints.read(checkpoint).inputs.action_names:
        raise UserError(f"{checkpoint} has axes alone, and --tune chooses thresholds of buttons: leave it out")
    with changing(checkpoints.find(checkpoint)) if tune else contextlib.nullcontext():
        predictions = predict_split(checkpoint, console, data=data, split=split, ablate=diagnose)
        saved = predictions.saved
        decoding = saved.decoding
        result = score(predictions, decoding, tolerance)
        if tune:
            decoding = best_thresholds(decoding, predictions.samples.targets, predictions.probability)
            chosen = dict.fromkeys([*predictions.chosen_here, "thresholds"])
            predictions = replace(predictions, chosen_here=tuple(chosen))
            result = replace(score(predictions, decoding, tolerance), before=result)
            dataset, episodes = predictions.dataset, sorted(predictions.episodes)
            names = [dataset.episodes[e].name for e in episodes]
            tuned_on = TunedOn(tuple(names), fingerprint(dataset, episodes))
            if (decoding, tuned_on) != (saved.decoding, saved.tuned_on):
                write_decoding(saved.path, decoding, tuned_on)
    print_evaluation(result, predictions.title, console, saved.inputs.fps)
    if result.before is not None:
        console.print(tuning_table(result.before, result))
        outcome = "has its thresholds now" if decoding != saved.decoding else "had the best thresholds already"
        say(console, f"{saved.path} {outcome}, by {split}", highlight=False)
    if with_test and saved.split["test"]:
        result = replace(result, test=score_test(checkpoint, console, decoding, tolerance=tolerance, ablate=diagnose))
    if json_file is not None:
        save_evaluation(result, json_file)
    return result


def score_test(
    checkpoint: str | Path,
    console: Console,
    decoding: Decoding,
    *,
    data: Data = None,
    tolerance: int = events.TOLERANCE,
    ablate: bool = False,
) -> Evaluation:
    """Scores and prints the test split, on which nothing was chosen; the arguments are those of ``evaluate``."""
    predictions = predict_split(checkpoint, console, data=data, split="test", ablate=ablate)
    result = score(predictions, decoding, tolerance)
    print_evaluation(result, predictions.title, console, predictions.saved.inputs.fps)
    return result


def save_evaluation(result: Evaluation, file: Path) -> None:
    """Writes ``evaluation.json``, whole or not at all."""
    write_whole(file, json.dumps(result.to_dict(), indent=2) + "\n")


def score(predictions: SplitPredictions, decoding: Decoding, tolerance: int = events.TOLERANCE) -> Evaluation:
    """Scores predictions that are decoded without sampling; ``tolerance`` is that of ``evaluate``."""
    saved, true = predictions.saved, predictions.true
    names, shift = saved.inputs.action_names, saved.inputs.window.action_shift
    majority = np.asarray(saved.majority, bool)
    axes, done = predictions.axes, predictions.decoded(decoding, predictions.logits)
    known = predictions.samples.known
    report = metrics.report(true, predictions.probability, majority, names, decoding, shift, axes, done.axes, known)
    held = {"policy": done, **metrics.baselines(true, majority, shift, axes, known)}
    for name, scores in {"policy": report, **report["baselines"]}.items():
        scores["events"] = events.event_scores(true, held[name][0], names, tolerance, shift)
    ablated = {name: predictions.decoded(decoding, logits) for name, logits in predictions.ablated.items()}
    if ablated:
        report["ablations"] = {
            name: metrics.scores_at_changes(true, p.buttons, names, shift, axes, p.axes, known)
            for name, p in ablated.items()
        }
    report |= {"decoding": decoding, "step": saved.step, "split": predictions.split}
    report |= {"chosen_here": list(predictions.chosen_here)}
    report |= {"diagnosis": diagnosis.diagnose(true, done, held["majority"][0], shift, ablated, axes)}
    return Evaluation.from_dict(report)
