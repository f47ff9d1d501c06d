"""Predicts a recorded episode frame by frame as in play, for the table of the command ``inference``."""

import dataclasses
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from BC_training.common import metrics
from BC_training.common.action import Action
from BC_training.common.axes import AxisBins, RecordedAxes
from BC_training.common.errors import UserError
from BC_training.common.files import disk_full_is_user_error, require_writable
from BC_training.play.say import say

if TYPE_CHECKING:  # not at run time: --help needs no JAX
    import pyarrow as pa

    from BC_training.common.dataset import ZarrGameplayDataset
    from BC_training.play.policy import Policy

_BLOCK = 32  # frames read at once
_SUFFIXES = (".parquet", ".csv")


@dataclass(frozen=True)
class EpisodePredictions:
    """A recorded episode of N frames, and a policy's predictions.

    With an action shift of s, the prediction at frame t is of the buttons of frame t + s, which the recording has for
    the first N - s frames.
    """

    episode: str
    action_names: tuple[str, ...]
    true: np.ndarray  # bool [N - s, A]
    labelled: np.ndarray  # bool [N - s], False where a policy acted from whom a person may take over: not scored
    predicted: np.ndarray  # bool [N, A]
    probability: np.ndarray  # float32 [N, A] in [0, 1]
    thresholds: np.ndarray  # float32 [A]
    seconds: np.ndarray  # float64 [N] that Policy.act took for each frame; the first compiles
    fps: float | None  # frames per second; None if the recording does not say
    axis_names: tuple[str, ...]
    true_axes: np.ndarray  # float32 [N - s, X]
    predicted_axes: np.ndarray  # float32 [N, X]
    axis_bins: AxisBins | None

    def __len__(self) -> int:
        return len(self.predicted)

    @property
    def disagree(self) -> np.ndarray:
        """bool [N, A], False where nothing was recorded, or is labelled."""
        differs, labelled = np.zeros_like(self.predicted), self.labelled[: len(self.true), None]
        differs[: len(self.true)] = np.not_equal(self.true, self.predicted[: len(self.true)]) & labelled
        return differs

    @property
    def axes_disagree(self) -> np.ndarray:
        """bool [N, X], where an axis is more than one bin off; False where nothing was recorded, or is labelled."""
        differs = np.zeros(self.predicted_axes.shape, bool)
        if self.axis_bins is not None:
            true, predicted = map(self.axis_bins.find, (self.true_axes, self.predicted_axes[: len(self.true_axes)]))
            differs[: len(true)] = np.greater(np.abs(true - predicted), 1) & self.labelled[: len(true), None]
        return differs

    @property
    def exact_match(self) -> float | None:
        """The share of labelled frames with every button right and no axis more than one bin off; None without any."""
        wrong, labelled = np.concatenate([self.disagree, self.axes_disagree], axis=1), self.labelled[: len(self.true)]
        return float(1 - wrong[: len(self.true)][labelled].any(axis=1).mean()) if labelled.any() else None

    @property
    def per_axis(self) -> metrics.Report:
        """``RecordedAxes.scores``; nothing without axes or without any labelled frame."""
        labelled = self.labelled[: len(self.true_axes)]
        if self.axis_bins is None or not labelled.any():
            return {}
        true = self.true_axes[labelled]
        recorded = RecordedAxes(self.axis_names, self.axis_bins, true, true)
        return recorded.scores(self.predicted_axes[: len(labelled)][labelled])

    @property
    def latency_ms(self) -> dict[str, float | None]:
        """p50, p90 and p99 of ``Policy.act`` in milliseconds, without the first; None for a single frame."""
        rest = self.seconds[1:] * 1000
        return {f"p{p}": float(np.percentile(rest, p)) if len(rest) else None for p in (50, 90, 99)}

    def table(self) -> "pa.Table":
        """A row per frame: ``frame`` int32 and for each button ``NAME_true`` and ``NAME_predicted`` bool and
        ``NAME_probability`` float32, for each axis ``NAME_true`` and ``NAME_predicted`` float32; ``NAME_true`` is null
        where nothing was recorded."""
        import pyarrow as pa

        columns: dict[str, Any] = {"frame": pa.array(np.arange(len(self), dtype=np.int32))}
        missing = [None] * (len(self) - len(self.true))
        for i, name in enumerate(self.action_names):
            columns[f"{name}_true"] = pa.array([*self.true[:, i].tolist(), *missing], pa.bool_())
            columns[f"{name}_predicted"] = pa.array(self.predicted[:, i])
            columns[f"{name}_probability"] = pa.array(self.probability[:, i])
        for i, name in enumerate(self.axis_names):
            columns[f"{name}_true"] = pa.array([*self.true_axes[:, i].tolist(), *missing], pa.float32())
            columns[f"{name}_predicted"] = pa.array(self.predicted_axes[:, i])
        return pa.table(columns)


def open_episode(
    checkpoint: str | Path, data: str | Path | None, number: int
) -> "tuple[Policy, ZarrGameplayDataset, int]":
    """A policy that does not sample, a dataset, and the position in it of the episode with this number.

    ``data`` is a dataset, or None for the one the policy was trained on. Raises a UserError if checkpoint or dataset do
    not load or do not fit, or if there is no such episode.
    """
    from BC_training.data.several_datasets import SeveralDatasets
    from BC_training.evaluation.trained_data import open_dataset
    from BC_training.play.policy import Policy
    from BC_training.training import checkpoint as checkpoints

    saved = checkpoints.read(checkpoint)
    dataset = open_dataset(saved, data)
    if isinstance(dataset, SeveralDatasets):
        raise UserError(f"{saved.path} was trained on several datasets: name one that has all its buttons with --data")
    if dataset.frame_size != saved.inputs.recorded_size:
        ours, theirs = ("x".join(map(str, size)) for size in (saved.inputs.recorded_size, dataset.frame_size))
        raise UserError(f"{dataset.path} has frames of {theirs}; {saved.path} was trained on {ours}")
    position = _find_episode(dataset, number)
    return Policy.load(saved.path, dataclasses.replace(saved.decoding, temperature=None)), dataset, position


def _find_episode(dataset: "ZarrGameplayDataset", number: int) -> int:
    from BC_training.common.storage.store import episode_number

    numbers = [episode_number(info.name) for info in dataset.episodes]
    if number in numbers:
        return numbers.index(number)
    for skipped in dataset.skipped:
        if episode_number(skipped.name) == number:
            raise UserError(f"{dataset.path}: episode {number} cannot be used: {skipped.reason}")
    raise UserError(f"{dataset.path} has no episode {number} (it has {_ranges(numbers)}): choose one with --episode")


def _ranges(numbers: list[int]) -> str:
    """Rising numbers as "0 to 4, 6, 8 to 20"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in runs)


def predict_episode(
    policy: "Policy", dataset: "ZarrGameplayDataset", position: int, console: Console
) -> EpisodePredictions:
    """Shows a policy a recorded episode frame by frame, as in play.

    Its previous actions are the recorded ones, as in ``evaluate``, because the frames follow from those.
    """
    from rich.progress import track

    info, actions, axes = dataset.episodes[position], dataset.actions(position), dataset.axes(position)
    shift, inputs = policy.inputs.window.action_shift, policy.inputs
    states = dataset.state(position) if policy.inputs.window.state else None
    predicted, moved, probability, seconds = [], [], [], []
    policy.reset()
    frames = track(
        frames_of(dataset, position),
        f"predicting {info.name}",
        total=info.length,
        console=console,
        transient=True,
    )
    for t, frame in enumerate(frames):
        state = None if states is None else states[t]
        start = time.perf_counter()
        action = policy.act(frame, state)
        seconds.append(time.perf_counter() - start)
        policy.override(Action(actions[t], axes[t]))
        predicted.append(action.buttons)
        moved.append(action.axes)
        probability.append(policy.last_probabilities)
    return EpisodePredictions(
        info.name,
        dataset.action_names,
        actions[shift:],
        info.is_labelled[shift:],
        np.stack(predicted),
        np.stack(probability),
        policy.thresholds,
        np.array(seconds),
        info.fps or dataset.fps,
        inputs.axis_names,
        axes[shift:],
        np.stack(moved),
        inputs.axis_bins,
    )


def frames_of(dataset: "ZarrGameplayDataset", position: int) -> Iterator[np.ndarray]:
    """The frames of an episode in order, uint8 [3, H, W] each, read in blocks."""
    length = dataset.episodes[position].length
    for start in range(0, length, _BLOCK):
        yield from dataset.frames(position, np.arange(start, min(start + _BLOCK, length)))


def predict(
    checkpoint: str | Path,
    out: Path,
    console: Console,
    *,
    data: str | Path | None = None,
    episode: int = 0,
    json_file: Path | None = None,
) -> dict[str, Any]:
    """Writes ``EpisodePredictions.table`` of an episode to ``out``, a Parquet or CSV file by its suffix.

    Args:
        data: a dataset; None for the one the policy was trained on.
        episode: the number in the name of the episode's folder.
        json_file: where to write what is returned.

    Returns:
        checkpoint, data, episode (its name), frames, exact_match, per_axis (``RecordedAxes.scores``) and
        latency_ms ({p50, p90, p99}).

    Raises:
        UserError: that of ``open_episode``, or for a file that cannot be written (before any work).
    """
    if out.suffix not in _SUFFIXES:
        raise UserError(
            f"cannot write {out}: predictions are .parquet or .csv, call it {out.stem or 'predictions'}.parquet"
        )
    for file in (out, json_file):
        if file is not None:
            require_writable(file)
    policy, dataset, position = open_episode(checkpoint, data, episode)
    predictions = predict_episode(policy, dataset, position, console)
    result = {
        "checkpoint": str(checkpoint),
        "data": dataset.path,
        "episode": predictions.episode,
        "frames": len(predictions),
        "exact_match": predictions.exact_match,
        "per_axis": predictions.per_axis,
        "latency_ms": predictions.latency_ms,
    }
    with disk_full_is_user_error(out):
        _write_table(predictions.table(), out)
        if json_file is not None:
            json_file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    times = predictions.latency_ms.items()
    latency = ", ".join(f"{'–' if value is None else f'{value:.1f} ms'} ({name})" for name, value in times)
    match = f"exact match {metrics.number(predictions.exact_match)}; act takes {latency}"
    say(console, f"{predictions.episode} of {dataset.path}: {len(predictions):,} frames, {match}", highlight=False)
    for name, scores in predictions.per_axis.items():
        off = f"mean absolute error {scores['mean_absolute_error']:.4g}"
        near = f"at most one bin off in {scores['within_one_bin']:.1%}"
        say(console, f"{name}: {off}, {near}, correlation {metrics.number(scores['correlation'])}", highlight=False)
    say(console, f"written to {out}", highlight=False)
    return result


def _write_table(table: "pa.Table", out: Path) -> None:
    if out.suffix == ".csv":
        from pyarrow import csv

        csv.write_csv(table, out)
    else:
        from pyarrow import parquet

        parquet.write_table(table, out)
