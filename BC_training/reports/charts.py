"""Line charts and small square plots as SVG: ``charts.html`` draws what is placed here, in the page's colours."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from BC_training.common.axes import AxisBins
from BC_training.reports.page import TEMPLATES
from BC_training.reports.run.calibration import PrecisionRecall, Reliability

Point = tuple[float, float]
POINTS = 300  # the most in a line; a longer one is averaged
_MARKED = 60  # a line of at most so many points has a dot at each
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 360, 210, 44, 10, 8, 22
_FRAME = {"width": _WIDTH, "height": _HEIGHT, "left": _LEFT, "right": _WIDTH - _RIGHT} | {
    "top": _TOP,
    "bottom": _HEIGHT - _BOTTOM,
}
_SIDE, _EDGE = 200, 24  # a square plot, and the room for its numbers
_CELLS = 41  # the most along a side of a plot of amounts, an odd number


@dataclass(frozen=True)
class Line:
    """One line of a chart."""

    name: str
    points: Sequence[Point]  # (x, y), x rising
    dashed: bool = False  # marks what the other lines are compared with
    band: Sequence[tuple[float, float, float]] = ()  # (x, low, high) of an interval around it


@dataclass(frozen=True)
class Dots:
    """Dots of one kind in a chart."""

    name: str
    points: Sequence[tuple[float, float, str]]  # (x from 0 to 1, y, words about it)


def line_chart(
    title: str,
    lines: Sequence[Line],
    steps: float,
    mark: float | None = None,
    unit_range: bool = False,
    unit: str = "step",
) -> Markup:
    """Lines over training steps, or another ``unit``; one without points is left out.

    Args:
        steps: where the x axis ends.
        mark: the step of a vertical line.
        unit_range: the y axis goes from 0 to 1; otherwise it fits what is drawn.
    """
    lines = [line for line in lines if line.points]
    if not lines:
        return empty_chart(title, "not in the log")
    values = [y for line in lines for _, y in line.points]
    values += [y for line in lines for part in line.band for y in part[1:]]
    low, high = (0.0, 1.0) if unit_range else _padded(min(values), max(values))
    steps = max(steps, 1)

    def at(x: float, y: float) -> str:
        return f"{across(x)},{up(y)}"

    def across(x: float) -> str:
        return _across(x / steps)

    def up(y: float) -> str:
        return _up((y - low) / (high - low))

    drawn = []
    for i, line in enumerate(lines):
        points = thinned(line.points)
        dots = points if len(points) <= _MARKED and not line.dashed else []
        edge = [at(x, y) for x, _, y in line.band] + [at(x, y) for x, y, _ in reversed(line.band)]
        drawn.append(
            {
                "name": line.name,
                "colour": f"c{i % 4}",
                "dashed": line.dashed,
                "points": " ".join(at(x, y) for x, y in points),
                "edge": " ".join(edge),
                "dots": [(across(x), up(y), f"{line.name}, {unit} {x:,.0f}: {y:.4g}") for x, y in dots],
            }
        )
    return _draw(
        "line_chart",
        title,
        "; ".join(f"{line.name} {line.points[0][1]:.4g} to {line.points[-1][1]:.4g}" for line in lines),
        rows=[(up(y), _short(y)) for y in ticks(low, high)],
        columns=[(across(x), _short(x)) for x in ticks(0, steps, 4)],
        mark=across(mark) if mark is not None and mark <= steps else None,
        lines=drawn,
        frame=_FRAME,
    )


def dot_chart(
    title: str, kinds: Sequence[Dots], columns: Sequence[tuple[float, str]], line: Line | None = None
) -> Markup:
    """Dots, and a line over them.

    Args:
        kinds: in the order of their colours; one without dots is left out, but keeps its colour.
        columns: (x from 0 to 1, words) below the x axis.
        line: x from 0 to 1.
    """
    values = [y for dots in kinds for _, y, _ in dots.points]
    if not values:
        return empty_chart(title, "nothing to show yet")
    low, high = _padded(min(values), max(values))

    def up(y: float) -> str:
        return _up((y - low) / (high - low))

    drawn: list[dict[str, Any]] = []
    if line is not None:
        points = " ".join(f"{_across(x)},{up(y)}" for x, y in line.points)
        drawn.append({"name": line.name, "colour": f"c{len(kinds)}", "points": points, "dots": []})
    for i, dots in enumerate(kinds):
        if dots.points:
            placed = [(_across(x), up(y), words) for x, y, words in dots.points]
            drawn.append({"name": dots.name, "colour": f"c{i}", "points": "", "dots": placed})
    return _draw(
        "line_chart",
        title,
        "; ".join(f"{len(dots.points)} {dots.name}" for dots in kinds if dots.points),
        rows=[(up(y), _short(y)) for y in ticks(low, high)],
        columns=[(_across(x), words) for x, words in columns],
        mark=None,
        lines=[{"dashed": False, "edge": "", **entry} for entry in drawn],
        frame=_FRAME,
    )


def empty_chart(title: str, words: str) -> Markup:
    return _draw("empty_chart", title, words)


def reliability_plot(name: str, measured: Reliability) -> Markup:
    """The share held against the predicted probability, a dot per bin, and each bin's number of predictions."""
    bins, most = len(measured.size), max(int(measured.size.max()), 1)
    width, bars, dots = _SIDE / bins, [], []
    for i, size in enumerate(measured.size.tolist()):
        height = 44 * size / most
        words = f"{i / bins:g} to {(i + 1) / bins:g}: {size:,} predictions"
        if size:
            x, y = measured.predicted[i], measured.observed[i]
            words += f", mean {x:.3f}, held in {y:.1%}"
            dots.append((*_square(x, y), f"predicted {x:.3f}, held in {y:.1%}"))
        bars.append(
            (f"{_EDGE + i * width + 1:.1f}", f"{_SIDE - height:.1f}", f"{width - 2:.1f}", f"{height:.1f}", words)
        )
    words = f"calibration error {measured.error:.3f}"
    line = " ".join(f"{x},{y}" for x, y, _ in dots)
    return _plot(name, words, "Reliability", bars=bars, ideal=(_SIDE, 0), line=line, dots=dots, ring=None)


def precision_recall_plot(
    name: str, curve: PrecisionRecall | None, held: float, chosen: tuple[float, Point | None]
) -> Markup:
    """Precision against recall, with the chosen threshold on it.

    Args:
        curve: None where the button is never held.
        held: the share of frames in which it is held, which is the precision of guessing.
        chosen: the threshold, and (recall, precision) there, or None where nothing is predicted.
    """
    if curve is None:
        return empty_chart(name, "never held in this split")
    threshold, place = chosen
    guess = _square(0, held)[1]
    shown = np.unique(np.linspace(0, len(curve.recall) - 1, POINTS).round().astype(int))
    recall, precision = curve.recall[shown].tolist(), curve.precision[shown].tolist()
    # The line has steps, as the average precision adds them up.
    corners = [(x, y) for *ends, y in zip([0.0, *recall], recall, precision, strict=False) for x in ends]
    line = " ".join(",".join(_square(x, y)) for x, y in corners)
    ring = None
    if place is not None:
        words = f"at {threshold:.3g}: precision {place[1]:.3f}, recall {place[0]:.3f}"
        ring = (*_square(*place), words)
    words = f"average precision {curve.average:.3f}"
    return _plot(name, words, "Precision against recall", bars=[], ideal=(guess, guess), line=line, dots=[], ring=ring)


def amounts_plot(name: str, words: str, true: np.ndarray, predicted: np.ndarray, bins: AxisBins, axis: int) -> Markup:
    """How often each amount of an axis is predicted where each is recorded, finer near 0 as its bins are.

    Args:
        true, predicted: float [N].
        axis: its position in ``bins``.
    """
    side = min(bins.count, _CELLS)
    edges = np.linspace(-1, 1, side + 1) * (1 + 1 / (side - 1))  # the outermost cells have ±1 in their middle
    alone = AxisBins((bins.scales[axis],), bins.count, bins.mu)
    across, up = (alone.squeeze(amounts[:, None])[:, 0] for amounts in (true, predicted))
    counts = np.histogram2d(across, up, [edges, edges])[0]
    width, cells = _SIDE / side, []
    for i, j in np.argwhere(counts):
        share = counts[i, j] / counts.max()
        place = f"{_EDGE + i * width:.1f}", f"{_SIDE - (j + 1) * width:.1f}"
        cells.append((*place, f"{width:.1f}", f"{share**0.5:.2f}", f"{counts[i, j]:,.0f} frames"))
    middles = (side // 2 + np.array([-1, -0.5, 0, 0.5, 1]) * (side // 2) + 0.5) / side
    labels = bins.scales[axis] * np.array([-1, 0, 0, 0, 1])
    half = bins.scales[axis] * float(np.expm1(0.5 * np.log1p(bins.mu))) / bins.mu
    labels[1], labels[3] = -half, half
    grid = [(*_square(at, at), f"{label:.3g}") for at, label in zip(middles.tolist(), labels.tolist(), strict=True)]
    parts: dict[str, Any] = {"bars": [], "cells": cells, "line": "", "dots": [], "ring": None, "grid": grid, "room": 14}
    return _plot(name, words, "Predicted against recorded amounts", ideal=(_SIDE, 0), **parts)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """About so many multiples of 1, 2 or 5 times a power of ten from ``low`` to ``high``."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def thinned(points: Sequence[Point]) -> list[Point]:
    """At most ``POINTS`` points, each the mean of as many neighbours; the last group may be smaller."""
    group = -(-len(points) // POINTS)
    if group == 1:
        return list(points)
    parts = [np.asarray(points[i : i + group]).mean(axis=0) for i in range(0, len(points), group)]
    return [(float(x), float(y)) for x, y in parts]


def _across(share: float) -> str:
    return f"{_LEFT + (_WIDTH - _LEFT - _RIGHT) * share:.1f}"


def _up(share: float) -> str:
    return f"{_TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - share):.1f}"


def _padded(low: float, high: float) -> tuple[float, float]:
    room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return (0.0 if 0 <= low < (high - low) else low - room), high + room


def _short(value: float) -> str:
    if abs(value) >= 1_000_000:
        return f"{value / 1e6:g}M"
    if abs(value) >= 10_000:
        return f"{value / 1e3:g}k"
    return f"{value:.4g}".replace("e-0", "e-")


def _square(x: float, y: float) -> tuple[str, str]:
    return f"{_EDGE + _SIDE * x:.1f}", f"{_SIDE * (1 - y):.1f}"


def _plot(name: str, words: str, what: str, **parts: Any) -> Markup:
    """A square plot, both axes from 0 to 1 but where ``parts`` have another grid."""
    grid = [(*_square(value, value), f"{value:g}") for value in (0, 0.5, 1)]
    parts = {"grid": grid, "cells": [], "side": _SIDE, "edge": _EDGE, "room": 0} | parts
    return _draw("square_plot", name, words, what=what, **parts)


def _draw(macro: str, title: str, words: str, **parts: Any) -> Markup:
    return getattr(TEMPLATES.get_template("charts.html").module, macro)(title, words, **parts)
