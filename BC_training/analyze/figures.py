"""The parts a page is drawn with: tables, heat maps, histograms, numbers as text.

All of it is HTML and SVG without a script; texts of the dataset pass ``escape``.
"""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any


def percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{value:.{digits}%}"


def number(value: float | None, form: str = ",.2f") -> str:
    return "–" if value is None else format(value, form)


def table(headings: Iterable[str], rows: Iterable[str], caption: str, kind: str = "") -> str:
    """A table of ready-made cells; ``headings`` are HTML."""
    head = "".join(f'<th scope="col">{heading}</th>' for heading in headings)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table class="{kind}">'
        f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def row(heading: str, cells: Iterable[str]) -> str:
    return f'<tr><th scope="row">{escape(heading)}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def bar(share: float | None) -> str:
    return "" if share is None else f'<span class="bar" style="--v:{share:.4f}"></span>'


def duration(action: dict[str, Any]) -> str:
    """A histogram as SVG, with its numbers in words under it."""
    spent = action["duration"]
    edges, counts, unit, timed = spent["histogram_edges"], spent["histogram"], spent["unit"], spent["unit"] == "s"
    width, bars, ticks = 240 / len(edges), [], []
    for i, (low, n) in enumerate(zip(edges, counts, strict=True)):
        height = 70 * n / max(max(counts), 1)
        until = f"{low:g} to under {edges[i + 1]:g}" if i + 1 < len(edges) else f"{low:g} or more"
        bars.append(
            f'<rect x="{i * width + 1:.1f}" y="{76 - height:.1f}" width="{width - 2:.1f}" height="{height:.1f}" rx="1">'
            f"<title>{until} {unit}: {n:,} presses</title></rect>"
        )
        ticks.append(f'<text x="{i * width:.1f}" y="90">{low:g}</text>')
    name = escape(action["name"])
    if not any(counts):
        return f"<figure><figcaption><b>{name}</b><span>never pressed</span></figcaption></figure>"
    words = " · ".join(f"{q} {number(spent[q], '.2f' if timed else 'g')} {unit}" for q in ("median", "p90"))
    return (
        f"<figure><figcaption><b>{name}</b><span>{words}</span></figcaption>"
        f'<svg viewBox="0 0 240 94" role="img" aria-label="Durations of {name}: {words}">'
        f'<line x1="0" x2="240" y1="76" y2="76"/>{"".join(bars)}{"".join(ticks)}</svg></figure>'
    )


def heat_map(names: Sequence[str], values: Sequence[Sequence[float | None]], caption: str) -> str:
    """A table of shares, coloured by them; None is a dash."""
    largest = max((v for row in values for v in row if v is not None), default=0) or 1
    rows = []
    for a, row in enumerate(values):
        cells = []
        for b, v in enumerate(row):
            words = escape(f"{names[a]}, {names[b]}: {percent(v, 2)}")
            # The square root lets small shares show.
            heat = 0 if v is None else (v / largest) ** 0.5
            text = "–" if v is None else f"{100 * v:.0f}" if v == 0 or v >= 0.095 else f"{100 * v:.1f}"
            cells.append(f'<td style="--v:{heat:.3f}" class="{"own" * (a == b)}" title="{words}">{text}</td>')
        rows.append(f'<tr><th scope="row">{escape(names[a])}</th>{"".join(cells)}</tr>')
    headings = ("", *(f"<span>{escape(name)}</span>" for name in names))
    return table(headings, rows, f"{caption}, in percent", "heat")


def sparkline(state: dict[str, Any]) -> str:
    counts = state["histogram"]
    if counts is None:
        return "–"
    if len(counts) == 1:
        return "one value"
    width, largest = 144 / len(counts), max(*counts, 1)
    # A bin with few frames stays visible.
    heights = [max(26 * n / largest, 1.5 if n else 0) for n in counts]
    bars = "".join(
        f'<rect x="{i * width:.1f}" y="{28 - h:.1f}" width="{width - 1:.1f}" height="{h:.1f}"/>'
        for i, h in enumerate(heights)
    )
    label = escape(f"{state['name']} from {state['min']:.4g} to {state['max']:.4g}")
    return f'<svg class="spark" viewBox="0 0 144 28" role="img" aria-label="Histogram of {label}">{bars}</svg>'
