"""Shows an evaluation on the terminal."""

from collections.abc import Iterable
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from BC_training.common.metrics import number
from BC_training.evaluation.events import KINDS
from BC_training.evaluation.results import AblationScores, AxisScores, ButtonScores, Evaluation, EventPair, Scores

_SUMMARY = {"exact_match": "exact match", "change_match": "changes", "macro_f1": "macro F1", "l1": "L1", "l2": "L2"}
_SUMMARY["kl"] = "KL"
_BUTTON = {"accuracy": "acc", "precision": "prec", "recall": "rec", "f1": "F1"}
_BUTTON |= {"frequency": "held", "predicted_frequency": "pred"}
_ABLATION = {"exact_match": "exact match", "change_match": "changes", "macro_f1": "macro F1", "onset_f1": "onset F1"}
_OF_BUTTONS = {"macro_f1", "l1", "l2", "kl", "onset_f1"}  # scores that have no value without buttons
_AXIS = {"mean_absolute_error": "error", "within_one_bin": "±1 bin", "correlation": "corr", "direction": "side"}
_AXIS |= {"zeros": "zeros", "predicted_zeros": "pred"}
_TIGHT: dict[str, Any] = {"box": None, "padding": (0, 1, 0, 0)}  # fits 80 columns


def print_evaluation(found: Evaluation, title: str, console: Console, fps: float | None = None) -> None:
    """Prints the tables of an evaluation and notes on it; ``fps`` gives the tolerance of events in seconds."""
    console.print(summary_table(found, f"{title}, {found.frames:,} frames"))
    if found.per_action:
        console.print(button_table(found), "")
        console.print(event_table(found, fps), "")
    if found.per_axis:
        console.print(axis_table(found), "")
    if found.ablations is not None:
        console.print(ablation_table(found))
    notes = [found.warning, found.chosen_text]
    if found.decoding.temperature is not None:
        heat = f"{found.decoding.temperature:g}"
        notes.insert(1, f"these scores are without sampling; in play it samples at temperature {heat}")
    for note in filter(None, notes):
        console.print(note, style="yellow", markup=False)


def summary_table(found: Evaluation, title: str) -> Table:
    """The scores of the whole split, those of the policy beside those of the baselines."""
    shown = _with_value(_SUMMARY, found)
    table = _table(title, shown.values(), box=box.SIMPLE_HEAD)
    for name, scores in _beside_baselines(found).items():
        table.add_row(name, *_numbers(scores, shown))
    return table


def button_table(found: Evaluation) -> Table:
    """The scores of each button, and its F1 under the baselines."""
    thresholds = found.decoding.thresholds
    differ = len(set(thresholds.values())) > 1
    title = (
        f"By action at {found.decoding.describe()}: accuracy, precision, recall, F1, share of frames held "
        "and predicted, F1 of the majority and repeat-previous baselines"
    )
    headings = [*(["at"] if differ else []), *_BUTTON.values(), "F1 maj", "F1 rep"]
    table = _table(title, headings, "action", **_TIGHT)
    for name, scores in found.per_action.items():
        base = [number(found.baselines[b].per_action[name].f1) for b in ("majority", "repeat_previous")]
        at = [number(thresholds[name])] if differ else []
        table.add_row(Text(name), *at, *_numbers(scores, _BUTTON), *base)
    return table


def axis_table(found: Evaluation) -> Table:
    """The scores of each axis, above those of keeping it at 0 and of repeating the amount before."""
    rule = "mean" if found.decoding.axes == "mean" else "likeliest bin"
    title = (
        f"Axes by their {rule}: mean absolute error, share of frames at most one bin off, correlation, share of the "
        "frames that move in which the side is right, share of frames at 0 recorded and predicted; then of the axis "
        "kept at 0 and of repeat-previous"
    )
    table = _table(title, _AXIS.values(), "axis", **_TIGHT)
    players = {"  zero": found.baselines["majority"], "  repeat previous": found.baselines["repeat_previous"]}
    for name, scores in found.per_axis.items():
        rows = {name: scores} | {player: theirs.per_axis[name] for player, theirs in players.items()}
        for heading, row in rows.items():
            table.add_row(Text(heading), f"{row.mean_absolute_error:.4g}", *_numbers(row, [*_AXIS][1:]))
    return table


def event_table(found: Evaluation, fps: float | None) -> Table:
    """Onsets and offsets of the policy beside those of the baselines, then of each button."""
    tolerance = found.events.tolerance
    frames = f"{tolerance} frame{'s' * (tolerance != 1)}" + (f" ({tolerance / fps:.2f} s)" if fps else "")
    title = (
        "Presses (onsets) and releases (offsets): how many are recorded and predicted, F1 of those predicted "
        f"in the frame itself, and within {frames}, which repeating reaches one frame late"
    )
    headings = [heading for kind in KINDS for heading in (f"{kind}s", "pred", "F1", f"±{tolerance}")]
    table = _table(title, headings, **_TIGHT)

    def add(name: str, exact: EventPair, within: EventPair) -> None:
        cells = []
        for ours, near in ((exact.onset, within.onset), (exact.offset, within.offset)):
            cells += [str(ours.recorded), str(ours.predicted), number(ours.f1), number(near.f1)]
        table.add_row(Text(name), *cells)

    for name, scores in _beside_baselines(found).items():
        add(name, scores.events.exact, scores.events.within)
    for name, exact in found.events.exact.per_action.items():
        add(name, exact, found.events.within.per_action[name])
    return table


def ablation_table(found: Evaluation) -> Table:
    """The scores of the ablations below those of the intact policy."""
    shown = _with_value(_ABLATION, found)
    table = _table("The policy with a part of its input taken away", shown.values(), box=box.SIMPLE_HEAD)
    for name, scores in {"intact": found, **(found.ablations or {})}.items():
        table.add_row(name.replace("_", " "), *_numbers(scores, shown))
    return table


def tuning_table(before: Evaluation, after: Evaluation) -> Table:
    """The thresholds and F1 of each button before and after they were tuned."""
    title = (
        f"Tuned on {after.split}: exact match {number(before.exact_match)} -> {number(after.exact_match)}, "
        f"macro F1 {number(before.macro_f1)} -> {number(after.macro_f1)}"
    )
    table = _table(title, ("threshold", "tuned", "F1", "tuned F1"), "action", box=box.SIMPLE_HEAD)
    for name in after.per_action:
        thresholds = [number(found.decoding.thresholds[name]) for found in (before, after)]
        table.add_row(Text(name), *thresholds, *(number(found.per_action[name].f1) for found in (before, after)))
    return table


def _table(title: str, headings: Iterable[str], first: str = "", **style: Any) -> Table:
    table = Table(title=Text(title, "table.title"), title_justify="left", **style)
    table.add_column(first, no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _beside_baselines(found: Evaluation) -> dict[str, Scores]:
    return {"policy": found} | {name.replace("_", " "): scores for name, scores in found.baselines.items()}


def _with_value(columns: dict[str, str], found: Evaluation) -> dict[str, str]:
    """The columns that have a value also without buttons, where there are none."""
    return {key: heading for key, heading in columns.items() if found.per_action or key not in _OF_BUTTONS}


def _numbers(scores: Scores | ButtonScores | AxisScores | AblationScores, names: Iterable[str]) -> list[str]:
    return [number(getattr(scores, name)) for name in names]
