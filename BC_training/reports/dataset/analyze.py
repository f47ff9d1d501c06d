"""Shows a dataset as numbers in the terminal, and as a page."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from BC_training.common.dataset import Skipped, ZarrGameplayDataset
from BC_training.common.errors import UserError
from BC_training.common.files import disk_full_is_user_error, require_writable
from BC_training.common.metrics import class_weights
from BC_training.common.schema import TrainingConfig
from BC_training.play.say import say
from BC_training.reports.dataset.axes import AxisStatistics, levels, peaks
from BC_training.reports.dataset.page import render
from BC_training.reports.dataset.samples import Onsets, Picture, read_pictures, spread
from BC_training.reports.dataset.statistics import ActionStatistics, StateStatistics, strips
from BC_training.reports.page import clean, error_text, number, without_secrets

# The most that is embedded of a large dataset; the page says what it leaves out.
TIMELINES = 200  # episodes
TIMELINE_COLUMNS = 4000  # an episode; more is finer than a screen
TIMELINE_CHARACTERS = 1_200_000
# Attributes that an episode may have.
FACTS = ("score", "seed", "player", "label", "mix", "game", "noise", "source")
WEIGHTS = ("none", "sqrt", "balanced")


def analyze(
    data: str | Path,
    console: Console,
    *,
    out: Path | None = None,
    actions: Sequence[str] | None = None,
    json_file: Path | None = None,
) -> dict[str, Any]:
    """Prints a dataset's statistics, writes them to a page and returns them.

    Episodes are read one at a time: their actions, axes and state, and few frames. One that cannot be used is listed.

    Args:
        out: the HTML file; None for the dataset's name beside it, or here if it is remote.
        actions: names of the buttons to look at, in that order; None for all.
        json_file: where to write the numbers.

    Raises:
        UserError: no dataset, nothing usable in it, a button it does not have, or a file that cannot be written.
    """
    dataset = ZarrGameplayDataset(data, actions=actions, validate_episodes=True)
    out = out or default_page(data)
    for file in (out, json_file):
        if file is not None:
            require_writable(file)
    if json_file is not None and json_file.resolve() == out.resolve():
        raise UserError(f"--out and --json name the same file {out}: choose two")
    report, timelines, pictures = _gather(dataset, str(data), console)
    page = render(report, timelines, pictures)
    with disk_full_is_user_error(out):
        out.write_text(page, encoding="utf-8")
        if json_file is not None:
            json_file.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    _print(report, console)
    say(console, f"wrote {out} ({len(page) / 1e6:.1f} MB): open it in a browser")
    return report


def default_page(data: str | Path) -> Path:
    """The dataset's name with .html instead of .zarr, beside it, or here for a remote one."""
    address = urlsplit(str(data))
    if len(address.scheme) > 1:  # one letter would be a drive
        name = Path(address.path.rstrip("/")).name or address.netloc
        return Path(name.removesuffix(".zarr") + ".html")
    folder = Path(data).resolve()
    return folder.parent / (folder.name.removesuffix(".zarr") + ".html")


def _gather(
    dataset: ZarrGameplayDataset, source: str, console: Console
) -> tuple[dict[str, Any], list[dict[str, Any]], list[Picture]]:
    """The numbers, the timelines and the sample frames."""
    names = [clean(name) for name in dataset.action_names]
    axis_names = [clean(name) for name in dataset.axis_names]
    states = [clean(name) for name in dataset.state_names]
    rates = [info.fps for info in dataset.episodes]
    known = [rate for rate in rates if rate]
    mean_rate = math.fsum(known) / len(known) if known else None
    skipped = list(dataset.skipped)
    usable: list[int] = []
    episodes: list[dict[str, Any]] = []
    timelines: dict[int, dict[str, Any]] = {}
    with_timeline = set(spread(len(dataset.episodes), TIMELINES))
    action_statistics = ActionStatistics(names, timed=bool(known))
    axis_statistics = AxisStatistics(axis_names, len(dataset))
    state_statistics = StateStatistics(states, len(dataset))
    movements: dict[int, np.ndarray] = {}
    onsets = Onsets(len(names))
    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        for e in progress.track(range(len(dataset.episodes)), description="reading episodes"):
            info = dataset.episodes[e]
            try:
                actions, axes = dataset.actions(e), dataset.axes(e)
                state = dataset.state(e) if states else None
            except UserError as error:
                skipped.append(Skipped(info.name, str(error)))
                continue
            usable.append(e)
            fps = rates[e] or mean_rate
            action_statistics.add(actions, fps)
            axis_statistics.add(axes)
            if state is not None:
                state_statistics.add(state)
            onsets.add(e, actions)
            episodes.append(_episode(info.name, info.attrs, actions, axes, rates[e], fps))
            if e in with_timeline:
                frames, rows = strips(actions, TIMELINE_COLUMNS)
                movements[e] = peaks(axes, frames)
                timelines[e] = {"name": info.name, "length": len(actions), "fps": fps, "step": frames, "rows": rows}
        if not usable:
            raise UserError(
                f"{dataset.path} has no usable episode ({len(skipped)} skipped; {skipped[0].name}: {skipped[0].reason})"
            )
        pictures, faults = read_pictures(dataset, usable, onsets, (names, axis_names), rates, progress)
    seconds = math.fsum(e["seconds"] for e in episodes) if known else None
    maximum = TrainingConfig().max_class_weight
    weights = {mode: class_weights(dataset.action_frequencies(usable), mode, maximum) for mode in WEIGHTS}
    report: dict[str, Any] = {
        "dataset": without_secrets(source),
        "episodes": len(usable),
        "frames": sum(e["frames"] for e in episodes),
        "labelled_frames": sum(len(frames) for e in usable for frames in dataset.episodes[e].labelled),
        "seconds": seconds,
        "hours": None if seconds is None else seconds / 3600,
        "fps": {"mean": mean_rate, "min": min(known), "max": max(known)} if known else None,
        "frame_size": [int(n) for n in dataset.frame_size],
        **action_statistics.result(),
        "axes": axis_statistics.result(),
        "max_class_weight": maximum,
        "state": state_statistics.result(),
        "per_episode": episodes,
        "skipped": [{"name": clean(s.name), "reason": error_text(s.reason)} for s in skipped],
        "unreadable_frames": [error_text(fault) for fault in faults],
    }
    for e, timeline in timelines.items():
        scales = [axis["scale"] for axis in report["axes"]]
        timeline["axes"] = [levels(amounts, scale) for amounts, scale in zip(movements[e].T, scales, strict=True)]
    for a, action in enumerate(report["actions"]):
        action["class_weight"] = {mode: float(weights[mode][a]) for mode in WEIGHTS}
    return report, _within(list(timelines.values()), TIMELINE_CHARACTERS), pictures


def _episode(
    name: str,
    attrs: dict[str, Any],
    actions: np.ndarray,
    axes: np.ndarray,
    own_fps: float | None,
    fps: float | None,
) -> dict[str, Any]:
    return {
        "name": clean(name),
        "frames": len(actions),
        "seconds": len(actions) / fps if fps else None,
        "fps": own_fps,
        "facts": {key: _plain(attrs[key]) for key in FACTS if attrs.get(key) is not None},
        "frequencies": actions.mean(axis=0).tolist(),
        "moving": (axes != 0).mean(axis=0).tolist(),
    }


def _within(timelines: list[dict[str, Any]], characters: int) -> list[dict[str, Any]]:
    """As many of the timelines, evenly spread, as fit, and at least one."""
    kept, count = timelines, len(timelines)
    while count > 1 and (size := sum(map(_characters, kept))) > characters:
        count = min(count - 1, max(1, int(count * characters / size)))
        kept = [timelines[i] for i in spread(len(timelines), count)]
    return kept


def _characters(timeline: dict[str, Any]) -> int:
    return sum(map(len, timeline["rows"] + timeline["axes"]))


def _plain(value: Any) -> float | int | str:
    """An attribute as a finite number or a short text."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return value
    return clean(value)


def _print(report: dict[str, Any], console: Console) -> None:
    hours = "" if report["hours"] is None else f", {report['hours']:.2f} hours at {_rates(report['fps'])} frames/s"
    height, width = report["frame_size"]
    counts = f"{report['episodes']:,} episodes, {report['frames']:,} frames of {height}x{width}"
    say(console, f"{report['dataset']}: {counts}{hours}")
    if (labelled := report["labelled_frames"]) < report["frames"]:
        say(console, f"{labelled:,} frames have a person's label; the policies' own are not learned from")
    for skipped in report["skipped"]:
        say(console, f"left out {skipped['name']}: {skipped['reason']}")
    for fault in report["unreadable_frames"]:
        say(console, f"a sample frame is missing: {fault}")
    if report["actions"]:
        console.print(_action_table(report))
        base, of = report["baselines"], " of the buttons" if report["axes"] else ""
        common = " + ".join(report["combinations"][0]["actions"]) or "nothing"
        console.print(
            f"Repeating the frame before is exactly right{of} in {base['repeat_previous']:.1%} of frames; "
            f"always '{common}', the commonest combination, in {base['majority']:.1%}.",
            markup=False,
        )
    if report["axes"]:
        console.print(_axis_table(report["axes"]))
    if report["state"]:
        console.print(_state_table(report["state"]))


def _table(title: str, first: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(first, overflow="ellipsis", max_width=24)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _action_table(report: dict[str, Any]) -> Table:
    timed = report["fps"] is not None
    unit = "s" if timed else "frames"
    title = f"Actions: share of frames held, presses, how long they last ({unit}), class weights"
    rate = "per min" if timed else "per 1,000"
    table = _table(title, "action", "held", "presses", rate, "median", "p90", "sqrt", "balanced")
    for action in report["actions"]:
        per = action["presses_per_minute"] if timed else action["presses_per_1000_frames"]
        length = action["duration"]
        table.add_row(
            Text(action["name"]),
            f"{action['frequency']:.1%}",
            f"{action['presses']:,}",
            f"{per:.1f}",
            *(number(length[q], ".2f" if timed else "g") for q in ("median", "p90")),
            *(f"{action['class_weight'][mode]:.2f}" for mode in WEIGHTS[1:]),
        )
    return table


def _axis_table(axes: list[dict[str, Any]]) -> Table:
    title = "Axes: share of frames of exactly 0, range, mean absolute error of always 0 and of the frame before"
    table = _table(title, "axis", "zeros", "min", "max", "mean", "std", "0", "before")
    for row in axes:
        values = (number(row[key], ".4g") for key in ("min", "max", "mean", "std", "zero_error", "repeat_error"))
        table.add_row(Text(row["name"]), f"{row['zeros']:.1%}", *values)
    return table


def _state_table(state: list[dict[str, Any]]) -> Table:
    title = "State: range, share of frames undefined, share of episodes in which it is constant"
    table = _table(title, "state", "min", "max", "mean", "std", "undefined", "constant")
    for row in state:
        values = (number(row[key], ".4g") for key in ("min", "max", "mean", "std"))
        shares = (number(row[key], ".0%") for key in ("undefined", "constant"))
        table.add_row(Text(row["name"]), *values, *shares)
    return table


def _rates(fps: dict[str, float]) -> str:
    low, high = f"{fps['min']:g}", f"{fps['max']:g}"
    return low if low == high else f"{low} to {high}"
