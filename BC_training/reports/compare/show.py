"""Shows a comparison as tables, Markdown, CSV and a picture. A dash stands for what a run lacks."""

import csv
import io
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from BC_training.common.metrics import return_text
from BC_training.play.video_text import drawable, substitutions
from BC_training.reports.compare.scores import Row

DASH = "–"
_AXIS = "Axis "  # begins the title of an axis's table


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    key: str  # names the row's value; None there makes the cell a dash
    heading: str
    form: str | Callable[[Any], str]  # a format string for the row, or a function of the value
    best: Callable[..., Any] | None = None  # chooses the best value; None where none is better

    def cell(self, row: Mapping[str, Any]) -> str:
        if row.get(self.key) is None:
            return DASH
        return self.form.format_map(row) if isinstance(self.form, str) else self.form(row[self.key])


def axis_columns(rows: Sequence[Row]) -> dict[str, list[Column]]:
    """The columns of each axis, by the title of its table."""
    number, share = "{:.4g}".format, "{:.3f}".format
    return {
        f"{_AXIS}{name}": [
            Column(f"{name}/mean_absolute_error", "error", number, min),
            Column(f"{name}/within_one_bin", "within one bin", share, max),
            Column(f"{name}/correlation", "correlation", share, max),
            Column(f"{name}/direction", "right side", share, max),
            Column(f"{name}/predicted_zeros", "at 0", share),
        ]
        for name in dict.fromkeys(name for row in rows for name in row.per_axis)
    }


def groups(rows: Sequence[Row]) -> dict[str, list[Column]]:
    """The columns beside the run's name, by the title of their table."""
    rarest = {row.rarest_action for row in rows} - {None}
    one = len(rarest) == 1  # then the heading names it, else every cell
    test = [
        Column("test_exact_match", "test exact match", "{test_exact_match:.3f}", max),
        Column("test_macro_f1", "test macro F1", "{test_macro_f1:.3f}", max),
        Column("test_onset_f1", "test onset F1", "{test_onset_f1:.3f}", max),
    ]
    validation = [
        Column("exact_match", "exact match", "{exact_match:.3f}", max),
        Column("macro_f1", "macro F1", "{macro_f1:.3f}", max),
        Column(
            "rarest_f1",
            f"F1 of {rarest.pop()}" if one else "F1 of the rarest action",
            "{rarest_f1:.3f}" if one else "{rarest_f1:.3f} {rarest_action}",
            max,
        ),
        Column("onset_f1", "onset F1", "{onset_f1:.3f}", max),
    ]
    of_axes = axis_columns(rows)
    if of_axes:  # there may be no buttons, and then no scores of them
        validation = [c for c in validation if any(getattr(row, c.key) is not None for row in rows)]
        test = [c for c in test if any(getattr(row, c.key) is not None for row in rows)]
    return {
        "Training": [
            Column("model", "model", "{model}"),
            Column("parameters", "parameters", "{parameters:,}", min),
            Column("frames_per_second", "frames/s", "{frames_per_second:,.0f}", max),
            Column("minutes", "minutes", "{minutes:.2f}", min),
            Column("total_minutes", "in total", "{total_minutes:.2f}", min),
            Column("checkpoint_mb", "MB", "{checkpoint_mb:.1f}", min),
        ],
        "Validation": validation,
        **of_axes,
        **({"Test": test} if any(getattr(row, c.key) is not None for row in rows for c in test) else {}),
        "Play": [
            Column("mean_return", "return", return_text, max),
            Column("normalized", "normalized", "{normalized:.3f}", max),
            Column("normalized_low", "95 % interval", "{normalized_low:.3f} to {normalized_high:.3f}"),
            Column("failed", "failed", "{failed} ({failed_low:.1%} to {failed_high:.1%})"),
            Column("episodes", "episodes", "{episodes}"),
            Column("latency_p50_ms", "p50 ms", "{latency_p50_ms:.2f}", min),
            Column("latency_p99_ms", "p99 ms", "{latency_p99_ms:.2f}", min),
        ],
    }


def tables(rows: Sequence[Row], without_best: set[str]) -> list[Table]:
    """One table for each group, in 80 columns, with the best value of a column in bold where its values compare."""
    found = []
    for title, columns in groups(rows).items():
        table = Table(title=Text(title, "table.title"), title_justify="left", box=None, padding=(0, 1, 0, 0))
        table.add_column("run", overflow="fold")
        for column in columns:
            table.add_column(Text(column.heading), justify="left" if column.key == "model" else "right")
        for row in rows:
            bold = [c.key not in without_best and is_best(row, c, rows) for c in columns]
            cells = [Text(c.cell(row.cells), "bold" if b else "") for c, b in zip(columns, bold, strict=True)]
            table.add_row(Text(row.run), *cells)
        found.append(table)
    return found


def is_best(row: Row, column: Column, rows: Sequence[Row]) -> bool:
    """Whether the row's value is the column's best one, where several rows have one and they differ."""
    values = {r.cells.get(column.key) for r in rows} - {None}
    return column.best is not None and len(values) > 1 and row.cells.get(column.key) == column.best(values)


def to_markdown(rows: Sequence[Row], notes: Sequence[str]) -> str:
    """One table and the notes as a list below it."""
    columns = [Column("run", "run", "{run}")]
    for title, group in groups(rows).items():
        axis = title.removeprefix(_AXIS)
        columns += group if axis == title else [replace(c, heading=f"{axis} {c.heading}") for c in group]
    return markdown_table(columns, [row.cells for row in rows]) + "".join(
        [*(["\n"] if notes else []), *(f"- {note}\n" for note in notes)]
    )


def markdown_table(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [[c.heading for c in columns], ["---" if c.key in ("run", "model") else "---:" for c in columns]]
    lines += [[c.cell(row) for c in columns] for row in rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def to_csv(rows: Sequence[Row]) -> str:
    """All ``cells`` of the rows, unrounded; what is missing is empty."""
    text = io.StringIO()
    keys = dict.fromkeys(key for row in rows for key in row.cells)
    writer = csv.DictWriter(text, keys, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.cells for row in rows)
    return text.getvalue()


def draw(file: Path, rows: Sequence[Row]) -> str | None:
    """Draws a PNG of the score in play against the minutes of training, for the rows that have both.

    Returns a line about names that cannot be drawn, or None.
    """
    from matplotlib.figure import Figure  # here: it takes a while, and not all want a picture

    points = [(row, row.minutes, row.normalized) for row in rows]
    points = [(row, x, y) for row, x, y in points if x is not None and y is not None]
    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    axes = figure.subplots()
    ends = []
    for i, (row, x, y) in enumerate(points):
        low, high = row.normalized_low, row.normalized_high
        interval = None if low is None or high is None else [[y - low], [high - y]]
        axes.errorbar([x], [y], interval, fmt="o", capsize=4, color=f"C{i}")
        ends.append((y if low is None else low, y if high is None else high))
    axes.set(xlabel="minutes of training, up to the checkpoint", ylabel="return in play (random 0, expert 1)")
    axes.set_title("mean and its 95 % interval", fontsize="medium", loc="left")
    axes.set_xlim(0, 1.15 * max(x for _, x, _ in points))
    axes.margins(y=0.15)
    axes.grid(alpha=0.3)
    figure.draw_without_rendering()  # settles where the axes are
    names = [row.run for row, _, _ in points]
    _label(axes, drawable(names), [(x, y) for _, x, y in points], ends)
    figure.savefig(file, format="png")
    return substitutions(names, "runs")


def _label(
    axes: Any, names: Sequence[str], points: Sequence[tuple[float, float]], ends: Sequence[tuple[float, float]]
) -> None:
    """Names the points where possible at places free of other names and of intervals, whose ends are (low, high)."""
    from matplotlib.transforms import Bbox

    taken = []
    for (x, _), interval in zip(points, ends, strict=True):
        box = axes.transData.transform([(x, end) for end in interval])
        taken.append(Bbox([box[0] - 12, box[1] + 12]))
    for i, (name, point) in enumerate(zip(names, points, strict=True)):
        label = axes.annotate(
            name, point, xytext=(0, 0), textcoords="offset points", color=f"C{i}", va="center", parse_math=False
        )
        label.set_in_layout(False)
        for up, side in itertools.product((0, 12, -12, 24, -24, 36, -36, 48, -48), ("left", "right")):
            label.set(position=(8 if side == "left" else -8, up), horizontalalignment=side)
            box = label.get_window_extent()
            if axes.bbox.containsx(box.x0) and axes.bbox.containsx(box.x1) and not box.count_overlaps(taken):
                break
        taken.append(label.get_window_extent())
