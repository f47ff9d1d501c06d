"""Compares runs: the costs of training, how well they predict, and how well and how fast they play."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import jax
import numpy as np
from rich.console import Console
from rich.progress import Progress

from BC_training.common.errors import UserError
from BC_training.common.files import disk_full_is_user_error, require_writable
from BC_training.data.several_datasets import open_configured
from BC_training.play.policy import Policy
from BC_training.play.say import say
from BC_training.reports.compare.runs import COMMAND, Run, assemble, incomparable, names_of, require_same_play
from BC_training.reports.compare.scores import Comparison, Row
from BC_training.reports.compare.show import draw, tables, to_csv, to_markdown

_WARM_UP, _TIMED = 20, 300  # frames given to a policy
_DIFFERENT = 64  # frames, which then come again


def compare(
    paths: Sequence[Path],
    console: Console,
    *,
    json_file: Path | None = None,
    csv_file: Path | None = None,
    markdown_file: Path | None = None,
    plot_file: Path | None = None,
) -> Comparison:
    """Prints what runs cost and score, from their checkpoints and logs, and measures how fast they act.

    Args:
        paths: checkpoints, one per run.
        plot_file: a PNG of the score in play against the time of training.

    Raises:
        UserError: nothing to compare, no checkpoint, a run twice, rollouts of different games or seeds, nothing to
            draw, or a file that cannot be written; all before measuring.
    """
    _require_files([json_file, csv_file, markdown_file, plot_file])
    if plot_file is not None and plot_file.suffix != ".png":
        raise UserError(f"cannot write {plot_file}: plots are PNG, call it {plot_file.with_suffix('.png').name}")
    if not paths:
        raise UserError(f"nothing to compare: give checkpoints, {COMMAND} compare BC_training/checkpoints/quickstart")
    runs = [Run.read(path) for path in paths]
    names = names_of(runs)
    require_same_play(names, runs)
    notes, without_best = incomparable(names, runs)
    rows: list[Row] = []
    for name, run in zip(names, runs, strict=True):
        row, lacks = assemble(name, run, runs)
        rows.append(row)
        notes += lacks
    if plot_file is not None and all(None in (row.normalized, row.minutes) for row in rows):
        raise UserError(f"nothing to draw: no run has both minutes and a score in play; {notes[0]}")
    with Progress(console=console, transient=True, auto_refresh=False) as progress:  # its thread would cost time
        for i, run in progress.track(list(enumerate(runs)), description="measuring latency"):
            milliseconds, note = _latency(run)
            p50, p99 = np.percentile(milliseconds, [50, 99]).tolist()
            rows[i] = replace(rows[i], latency_p50_ms=p50, latency_p99_ms=p99)
            notes += [f"{rows[i].run}: {note}"] if note else []
    result = Comparison(jax.devices()[0].device_kind, rows, notes)
    for table in tables(rows, without_best):
        console.print(table, "")
    console.print(f"p50, p99: milliseconds that Policy.act takes for a frame on {result.device}", highlight=False)
    for note in notes:
        say(console, note, highlight=False)
    texts = {json_file: json.dumps(result.to_dict(), indent=2, allow_nan=False) + "\n", csv_file: to_csv(rows)}
    for file, text in (texts | {markdown_file: to_markdown(rows, notes)}).items():
        if file is not None:
            with disk_full_is_user_error(file):
                file.write_text(text, encoding="utf-8")
    if plot_file is not None:
        with disk_full_is_user_error(plot_file):
            note = draw(plot_file, rows)
        if note is not None:
            say(console, note, highlight=False)
    return result


def _require_files(files: Sequence[Path | None]) -> None:
    named = [file for file in files if file is not None]
    for i, file in enumerate(named):
        if file.resolve() in [other.resolve() for other in named[:i]]:
            raise UserError(f"two results would go to {file}: choose another file for each")
        require_writable(file)


def _latency(run: Run) -> tuple[np.ndarray, str | None]:
    """Milliseconds that ``Policy.act`` takes for a frame, float64 [N], after a warm-up, and a note on the frames."""
    inputs, note = run.saved.inputs, None
    try:
        frames, states = _recorded(run)
    except UserError as error:
        note = f"latency is of random frames, not recorded ones ({error})"
        frames = np.random.default_rng(0).integers(0, 256, (_DIFFERENT, 3, *inputs.recorded_size), np.uint8)
        states = np.zeros((_DIFFERENT, len(inputs.state_names)), np.float32)
    policy = Policy.load(run.path)
    policy.reset()
    times = []
    for i in range(_WARM_UP + _TIMED):
        frame, state = frames[i % len(frames)], states[i % len(frames)]
        before = perf_counter()
        policy.act(frame, state)
        times.append(perf_counter() - before)
    return np.array(times[_WARM_UP:]) * 1e3, note


def _recorded(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Frames uint8 [n, 3, H, W] and states float32 [n, S] from the start of the first validation episode.

    Raises a UserError where the dataset is missing or another one lies in its place.
    """
    dataset = open_configured(run.saved.config.dataset)
    if dataset.frame_size != run.saved.inputs.recorded_size:
        raise UserError(f"{dataset.path} has frames of another size")
    if dataset.state_names != run.saved.inputs.state_names:
        raise UserError(f"{dataset.path} has other state values")
    episode = dataset.find(run.saved.split["val"][:1])[0]
    first = range(min(_DIFFERENT, dataset.episodes[episode].length))
    state = dataset.state(episode) if dataset.state_names else np.zeros((len(first), 0), np.float32)
    return dataset.frames(episode, first), state[: len(first)]
