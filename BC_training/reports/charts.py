"""Line charts and small square plots as SVG, without a script.

Colours are those of the page's style, light and dark; names pass ``escape``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from BC_training.reports.run.calibration import PrecisionRecall, Reliability

Point = tuple[float, float]
POINTS = 300  # of a line; a longer one is averaged
_MARKED = 60  # a line of at most so many points has a dot at each
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 360, 210, 44, 10, 8, 22
_SIDE, _EDGE = 200, 24  # of a square plot, and the room for its numbers


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        name: in the legend.
        points: (x, y), x rising.
        dashed: for what it is compared with.
        band: (x, low, high) of an interval around it.
    """

    name: str
    points: Sequence[Point]
    dashed: bool = False
    band: Sequence[tuple[float, float, float]] = ()


def line_chart(
    title: str, lines: Sequence[Line], steps: float, mark: float | None = None, unit_range: bool = False
) -> str:
    """Lines over training steps; one without points is left out.

    Args:
        steps: where the x axis ends.
        mark: the step of a vertical line.
        unit_range: the y axis goes from 0 to 1; otherwise it fits what is drawn.
    """
    lines = [line for line in lines if line.points]
    heading = f"<b>{escape(title)}</b>"
    if not lines:
        return f'<figure><figcaption>{heading}<span class="empty">not in the log</span></figcaption></figure>'
    values = [y for line in lines for _, y in line.points] + [
        y for line in lines for part in line.band for y in part[1:]
    ]
    low, high = (0.0, 1.0) if unit_range else _padded(min(values), max(values))
    steps = max(steps, 1)

    def at(x: float, y: float) -> str:
        across = _LEFT + (_WIDTH - _LEFT - _RIGHT) * x / steps
        return f"{across:.1f},{_TOP + (_HEIGHT - _TOP - _BOTTOM) * (high - y) / (high - low):.1f}"

    bottom = _HEIGHT - _BOTTOM
    parts = []
    for y in ticks(low, high):
        place = at(0, y).split(",")[1]
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{place}" y2="{place}"/>')
        parts.append(f'<text class="end" x="{_LEFT - 6}" y="{float(place) + 3:.1f}">{_short(y)}</text>')
    for x in ticks(0, steps, 4):
        place = at(x, low).split(",")[0]
        parts.append(f'<text class="middle" x="{place}" y="{bottom + 15}">{_short(x)}</text>')
    if mark is not None and mark <= steps:
        place = at(mark, low).split(",")[0]
        parts.append(f'<line class="mark" x1="{place}" x2="{place}" y1="{_TOP}" y2="{bottom}"/>')
    legend = []
    for i, line in enumerate(lines):
        colour = f"c{i % 4}"
        points = thinned(line.points)
        if line.band:
            edge = [at(x, y) for x, _, y in line.band] + [at(x, y) for x, y, _ in reversed(line.band)]
            parts.append(f'<polygon class="{colour}" points="{" ".join(edge)}"/>')
        kind = f"{colour} dashed" if line.dashed else colour
        parts.append(f'<polyline class="{kind}" points="{" ".join(at(x, y) for x, y in points)}"/>')
        if len(points) <= _MARKED and not line.dashed:
            for x, y in points:
                cx, cy = at(x, y).split(",")
                words = escape(f"{line.name}, step {x:,.0f}: {y:.4g}")
                parts.append(f'<circle class="{colour}" cx="{cx}" cy="{cy}" r="2.6"><title>{words}</title></circle>')
        legend.append(f'<span class="key {kind}">{escape(line.name)}</span>')
    words = "; ".join(f"{line.name} {line.points[0][1]:.4g} to {line.points[-1][1]:.4g}" for line in lines)
    return (
        f'<figure><figcaption>{heading}<span class="legend">{"".join(legend)}</span></figcaption>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(f"{title}: {words}")}">'
        f"{''.join(parts)}</svg></figure>"
    )


def reliability_plot(name: str, measured: Reliability) -> str:
    """Share held against predicted probability, a dot a bin, and how many predictions each bin has."""
    parts, bins = [_frame()], len(measured.size)
    most = max(int(measured.size.max()), 1)
    width = _SIDE / bins
    for i, size in enumerate(measured.size.tolist()):
        height = 44 * size / most
        left, top = _EDGE + i * width + 1, _SIDE - height
        words = f"{i / bins:g} to {(i + 1) / bins:g}: {size:,} predictions"
        if size:
            words += f", mean {measured.predicted[i]:.3f}, held in {measured.observed[i]:.1%}"
        parts.append(
            f'<rect class="count" x="{left:.1f}" y="{top:.1f}" width="{width - 2:.1f}" height="{height:.1f}">'
            f"<title>{words}</title></rect>"
        )
    parts.append(f'<line class="ideal" x1="{_EDGE}" x2="{_EDGE + _SIDE}" y1="{_SIDE}" y2="0"/>')
    some = measured.size > 0
    pairs = list(zip(measured.predicted[some].tolist(), measured.observed[some].tolist(), strict=True))
    parts.append(f'<polyline class="c0" points="{" ".join(_square(x, y) for x, y in pairs)}"/>')
    for x, y in pairs:
        cx, cy = _square(x, y).split(",")
        words = f"predicted {x:.3f}, held in {y:.1%}"
        parts.append(f'<circle class="c0" cx="{cx}" cy="{cy}" r="3.2"><title>{words}</title></circle>')
    return _plot(name, f"calibration error {measured.error:.3f}", parts, "Reliability")


def precision_recall_plot(
    name: str, curve: PrecisionRecall | None, held: float, chosen: tuple[float, Point | None]
) -> str:
    """Precision against recall, with the chosen threshold on it.

    Args:
        curve: None where the button is never held.
        held: the share of frames in which it is: the precision of guessing.
        chosen: the threshold, and (recall, precision) there; None where nothing is predicted.
    """
    if curve is None:
        return f"<figure><figcaption><b>{escape(name)}</b><span>never held in this split</span></figcaption></figure>"
    threshold, place = chosen
    guess = _square(0, held).split(",")[1]
    parts = [_frame(), f'<line class="ideal" x1="{_EDGE}" x2="{_EDGE + _SIDE}" y1="{guess}" y2="{guess}"/>']
    shown = np.unique(np.linspace(0, len(curve.recall) - 1, POINTS).round().astype(int))
    recall, precision = curve.recall[shown].tolist(), curve.precision[shown].tolist()
    # In steps, as the average precision adds them up.
    corners = [(x, y) for *ends, y in zip([0.0, *recall], recall, precision, strict=False) for x in ends]
    parts.append(f'<polyline class="c0" points="{" ".join(_square(x, y) for x, y in corners)}"/>')
    words = f"average precision {curve.average:.3f}"
    if place is not None:
        cx, cy = _square(*place).split(",")
        at = f"at {threshold:.3g}: precision {place[1]:.3f}, recall {place[0]:.3f}"
        parts.append(f'<circle class="c1 ring" cx="{cx}" cy="{cy}" r="5"><title>{at}</title></circle>')
    return _plot(name, words, parts, "Precision against recall")


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from ``low`` to ``high``, about so many: multiples of 1, 2 or 5 times a power of ten."""
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


def _padded(low: float, high: float) -> tuple[float, float]:
    room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return (0.0 if 0 <= low < (high - low) else low - room), high + room


def _short(value: float) -> str:
    if abs(value) >= 1_000_000:
        return f"{value / 1e6:g}M"
    if abs(value) >= 10_000:
        return f"{value / 1e3:g}k"
    return f"{value:.4g}".replace("e-0", "e-")


def _square(x: float, y: float) -> str:
    return f"{_EDGE + _SIDE * x:.1f},{_SIDE * (1 - y):.1f}"


def _frame() -> str:
    """Grid and numbers of a square plot, both axes from 0 to 1."""
    parts = []
    for value in (0, 0.5, 1):
        x, y = _square(value, value).split(",")
        parts.append(f'<line x1="{_EDGE}" x2="{_EDGE + _SIDE}" y1="{y}" y2="{y}"/>')
        parts.append(f'<line x1="{x}" x2="{x}" y1="0" y2="{_SIDE}"/>')
        parts.append(f'<text class="end" x="{_EDGE - 5}" y="{float(y) + 3:.1f}">{value:g}</text>')
        parts.append(f'<text class="middle" x="{x}" y="{_SIDE + 13}">{value:g}</text>')
    return "".join(parts)


def _plot(name: str, words: str, parts: Sequence[str], what: str) -> str:
    label = escape(f"{what} of {name}: {words}")
    return (
        f"<figure><figcaption><b>{escape(name)}</b><span>{words}</span></figcaption>"
        f'<svg class="square" viewBox="-6 -6 {_EDGE + _SIDE + 18} {_SIDE + 24}" role="img" aria-label="{label}">'
        f"{''.join(parts)}</svg></figure>"
    )
