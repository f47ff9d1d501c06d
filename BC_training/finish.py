"""Ends a training: scores its best checkpoint, has it play, and writes the page about the run."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from BC_training.common.schema import Config
from BC_training.evaluation.evaluate import save_evaluation, score, score_test
from BC_training.evaluation.split_predictions import predict_split
from BC_training.evaluation.tables import print_evaluation
from BC_training.play.results import RolloutResult
from BC_training.play.rollout import rollout
from BC_training.reports.compare.runs import Run
from BC_training.reports.run.report import save_report
from BC_training.training import checkpoint
from BC_training.training.tracking import Tracker


def finish(
    config: Config,
    run_dir: Path,
    log_dir: Path,
    tracker: Tracker,
    step: int,
    console: Console,
    references: dict[str, list[float]] | None,
) -> None:
    """Scores the best checkpoint, offline and in play, and prints where everything is."""
    predictions = predict_split(run_dir, console, data=config.dataset.path, split="val")
    saved = predictions.saved
    scores = score(predictions, saved.decoding)
    print_evaluation(scores, predictions.title, console, saved.inputs.fps)
    if saved.split["test"]:
        scores = replace(scores, test=score_test(run_dir, console, saved.decoding, data=config.dataset.path))
    save_evaluation(scores, log_dir / "evaluation.json")
    places = {"checkpoint": checkpoint.find(run_dir), "metrics": tracker.path, "scores": log_dir / "evaluation.json"}
    result, played = play_best(config, run_dir, log_dir, tracker, step, console, references)
    places |= played
    if config.logging.report:
        places["report"] = log_dir / "report.html"
        save_report(Run.finished(run_dir, log_dir, saved, scores, result), predictions, scores, places["report"])
    print_places(places, console)


def play_best(
    config: Config,
    run_dir: Path,
    log_dir: Path,
    tracker: Tracker,
    step: int,
    console: Console,
    references: dict[str, list[float]] | None,
) -> tuple[RolloutResult | None, dict[str, Path]]:
    """Lets the best checkpoint play, where the config says so; returns its scores, and where they and the film are."""
    options = config.evaluation.rollout
    if options is None:
        return None, {}
    video = log_dir / "rollout.mp4" if options.video else None
    result = rollout(
        str(run_dir),
        options.known_game,
        console,
        episodes=options.episodes,
        seed=options.seed,
        workers=config.system.workers,
        json_file=log_dir / "rollout.json",
        video=video,
        references=references,
        reference_means=options.reference_means,
    )
    logged = ("mean", "normalized", "random_mean", "expert_mean", "failed")
    tracker.log("final", step, {k: getattr(result, k) for k in logged if getattr(result, k) is not None})
    return result, {"rollout": log_dir / "rollout.json"} | ({"video": video} if video else {})


def print_places(places: Mapping[str, Path], console: Console) -> None:
    """Prints where a run's results are."""
    for label, place in places.items():
        console.print(f"{label:>10}  {place}", soft_wrap=True, highlight=False, markup=False)
