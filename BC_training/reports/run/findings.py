"""Finds the numbers, pictures and texts of a run's report."""

import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from BC_training.common.action import Action
from BC_training.common.axes import RecordedAxes
from BC_training.common.config import to_dict, to_yaml
from BC_training.common.errors import UserError
from BC_training.data.several_datasets import paths_of
from BC_training.evaluation.results import Evaluation
from BC_training.evaluation.split_predictions import SplitPredictions
from BC_training.reports.compare.runs import Run, play_command
from BC_training.reports.compare.scores import TrainingCosts, training_costs
from BC_training.reports.page import clean, error_text, to_jpeg, without_secrets
from BC_training.reports.run import mistakes
from BC_training.reports.run.calibration import PrecisionRecall, Reliability, precision_recall, reliability
from BC_training.training.train_state import abstract_model

WORST = 12  # frames shown
APART = 2.0  # seconds between two of them in an episode
MISTAKES = 12  # pairs of combinations
VIDEO_LIMIT = 12_000_000  # bytes; a larger video is named instead of embedded
_APART_FRAMES = 30  # where no frame rate is known


@dataclass(frozen=True)
class WorstFrame:
    """A frame whose action is predicted badly."""

    place: str  # episode, frame and time, in words
    loss: float  # in nats
    true: np.ndarray  # bool [A + 2 X], the buttons held, and the sides that axes are on
    predicted: np.ndarray  # bool [A + 2 X]
    probability: np.ndarray  # float [A]
    picture: bytes | str  # a JPEG file, or why the frame cannot be shown
    amounts: list[tuple[float, float, bool]]  # of each axis, recorded and predicted, and whether that is right


@dataclass(frozen=True)
class Findings:
    """All that the page is drawn from; its texts are cleaned, not escaped."""

    run: Run
    names: list[str]  # the A buttons
    axis_names: list[str]  # the X axes
    axes: RecordedAxes | None  # None without axes
    moved: np.ndarray  # float32 [N, X], the predicted amounts
    dataset: str  # its address
    episodes: int  # how many the split has
    parameters: int  # how many the model has
    costs: TrainingCosts
    scores: Evaluation
    pooled: Reliability | None  # over all buttons and frames; None without buttons
    reliability: list[Reliability]  # for each button
    curves: list[PrecisionRecall | None]  # for each button; None where it is never held
    given_held: mistakes.Shares
    instead: mistakes.Shares
    mistakes: list[tuple[tuple[int, ...], tuple[int, ...], int]]
    worst: list[WorstFrame]  # the worst first
    video: bytes | str  # the rollout's MP4 file, or why it is not embedded
    config: str  # the run's settings as YAML
    missing: dict[str, str]  # why the page lacks its "training", "play" or "video", and how to get it

    @property
    def sides(self) -> list[str]:
        """The A + 2 X columns of ``mistakes.with_sides``."""
        return self.names + [f"{name} {side} 0" for name in self.axis_names for side in "<>"]


def find(run: Run, predictions: SplitPredictions, scores: Evaluation) -> Findings:
    saved, dataset = predictions.saved, predictions.dataset
    true, probability = predictions.samples.targets, predictions.probability
    axes, done = predictions.axes, predictions.decoded(saved.decoding, predictions.logits)
    wrong = (true != done.buttons).any(axis=1)
    held, pressed = true, done.buttons
    if axes is not None:
        wrong |= ~axes.right(done.axes)
        held, pressed = (mistakes.with_sides(a, axes.bins) for a in (Action(true, axes.targets), done))
    video = _video(run)
    missing = {}
    if saved.config.finetune is None and not any(row["kind"] in ("train", "val") for row in run.log):
        missing["training"] = (
            f"{run.log_dir / 'metrics.jsonl'} lacks the steps and epochs; only another training writes them"
        )
    if run.play is None:
        missing["play"] = f"{run.missing['rollout.json']}; to play: {play_command(run, [run])}"
    if isinstance(video, str):
        missing["video"] = video
    config = to_dict(saved.config)
    shown = [without_secrets(path) for path in saved.config.dataset.paths]
    config["dataset"]["path"] = shown if len(shown) > 1 else shown[0]
    known = np.ones_like(true) if predictions.samples.known is None else predictions.samples.known
    of_buttons = [(t[k], p[k]) for t, p, k in zip(true.T, probability.T, known.T, strict=True)]
    return Findings(
        run=run,
        names=[clean(name) for name in saved.inputs.action_names],
        axis_names=[clean(name) for name in saved.inputs.axis_names],
        axes=axes,
        moved=done.axes,
        dataset=", ".join(map(without_secrets, paths_of(dataset))),
        episodes=len(predictions.episodes),
        parameters=abstract_model(saved.config, saved.inputs).parameter_count,
        costs=training_costs(run.epochs, saved),
        scores=scores,
        pooled=reliability(true[known], probability[known]) if known.any() else None,
        reliability=[reliability(t, p) for t, p in of_buttons],
        curves=[precision_recall(t, p) for t, p in of_buttons],
        given_held=mistakes.predicted_given_held(held, pressed),
        instead=mistakes.pressed_instead(held, pressed),
        mistakes=mistakes.commonest_mistakes(held, pressed, wrong, MISTAKES),
        worst=_worst(predictions, held, pressed, done.axes),
        video=video,
        config=to_yaml(config),
        missing={part: clean(reason, 500) for part, reason in missing.items()},
    )


def _worst(predictions: SplitPredictions, held: np.ndarray, pressed: np.ndarray, moved: np.ndarray) -> list[WorstFrame]:
    samples, dataset, axes = predictions.samples, predictions.dataset, predictions.axes
    of_buttons, of_axes = predictions.saved.inputs.split_logits(predictions.logits)
    losses, amounts = np.zeros(len(samples)), [[] for _ in range(len(samples))]
    if samples.targets.size:
        losses += mistakes.frame_losses(samples.targets, of_buttons, samples.known)
    if axes is not None and samples.axis_targets is not None:
        losses += mistakes.axis_losses(samples.axis_targets, of_axes)
        parts = (axes.targets.tolist(), moved.tolist(), axes.near(moved).tolist())
        amounts = [list(zip(*frame, strict=True)) for frame in zip(*parts, strict=True)]
    places = samples.locate(np.arange(len(samples)))
    apart = round(APART * dataset.fps) if dataset.fps else _APART_FRAMES
    found = []
    for i in mistakes.worst(losses, places, WORST, apart):
        name, frame = places[i]
        seconds = f" · {frame / dataset.fps:,.1f} s" if dataset.fps else ""
        try:
            picture = to_jpeg(dataset.frames(dataset.find([name])[0], [frame])[0])
        except UserError as error:
            picture = error_text(error)
        place = f"{clean(name)} · frame {frame:,}{seconds}"
        probability = predictions.probability[i]
        found.append(WorstFrame(place, losses[i], held[i], pressed[i], probability, picture, amounts[i]))
    return found


def video_file(run: Run) -> Path | None:
    """The file of the video of the run's play, in its usual place without ``rollout.json``; None if not filmed."""
    if run.play is None:
        return run.log_dir / "rollout.mp4"
    if run.play.video is None:
        return None
    file = Path(run.play.video)
    # A run set aside, or copied, has its video with its logs.
    return run.log_dir / file.name if file.parent.name == run.saved.config.logging.run_name else file


def _video(run: Run) -> bytes | str:
    """The rollout's video, or why it is not embedded."""
    film = f"to film an episode: {play_command(run, [run])} --video {shlex.quote(str(run.log_dir / 'rollout.mp4'))}"
    file = video_file(run)
    if file is None:
        return f"{run.log_dir / 'rollout.json'} is of play that was not filmed; {film}"
    if not file.is_file():
        return f"there is no {file}; {film}"
    if run.play is None:
        return f"{file} is not known to be of this checkpoint, as {run.missing['rollout.json']}"
    size = file.stat().st_size
    if size > VIDEO_LIMIT:
        limit = f"more than the {VIDEO_LIMIT / 1e6:.0f} MB that are embedded"
        return f"{file} has {size / 1e6:.1f} MB, {limit}: open it by itself"
    return file.read_bytes()
