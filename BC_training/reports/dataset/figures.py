"""The figures of one action or state value, as SVG without a script; texts of the dataset pass ``escape``."""

from html import escape
from typing import Any

from BC_training.reports.page import number


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
