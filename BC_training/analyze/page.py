"""The page of a dataset's statistics: one HTML file, drawn from the numbers alone.

Every text that comes from the dataset passes ``escape``, and the page's own policy lets no
script run but the template's.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from BC_training.analyze.samples import Picture, spread

TABLE_ROWS = 500  # episodes in the table
_TEMPLATE = Path(__file__).with_name("page.html")
Report = dict[str, Any]


def render(report: Report, timelines: Sequence[dict[str, Any]], pictures: Sequence[Picture]) -> str:
    """The page.

    Args:
        report: the numbers of ``analyze``.
        timelines: name, length (frames), fps or None, step (frames a column) and rows
            (``statistics.strips``) of the episodes to draw.
        pictures: the frames to show.
    """
    template = _TEMPLATE.read_text(encoding="utf-8")
    script = template[template.index("<script>") + len("<script>") : template.rindex("</script>")]
    data = {"names": [a["name"] for a in report["actions"]], "episodes": list(timelines)}
    parts = {
        "title": escape(Path(report["dataset"]).name or report["dataset"]),
        "dataset": escape(report["dataset"]),
        # The one script that may run, by its digest.
        "script_digest": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "tiles": _tiles(report),
        "facts": _facts(report),
        "left_out": _left_out(report),
        "baselines": _baselines(report),
        "combinations": _combinations(report),
        "actions": _actions(report),
        "rate_definition": _rate_definition(report),
        "durations": "".join(_duration(a) for a in report["actions"]),
        "maximum": f"{report['max_class_weight']:g}",
        "weights": _weights(report),
        "both": _heat_map(report, "both", "Share of frames with both actions held"),
        "conditional": _heat_map(report, "conditional", "Share of the row's frames with the column held"),
        "options": "".join(f"<option>{escape(a['name'])}</option>" for a in report["actions"]),
        "timelines": "".join(_timeline(t, i) for i, t in enumerate(timelines)),
        "timelines_shown": _shown(len(timelines), report["episodes"]),
        "episodes": _episodes(report),
        "episodes_shown": _shown(min(report["episodes"], TABLE_ROWS), report["episodes"]),
        "state": _state(report),
        "spread": _pictures([p for p in pictures if p.action is None]),
        "onsets": _pictures([p for p in pictures if p.action is not None]),
        # "<" could end the script element.
        "data": json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
    }
    # In one pass: a dataset's text that looks like a placeholder stays text.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


def _percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{value:.{digits}%}"


def _number(value: float | None, form: str = ",.2f") -> str:
    return "–" if value is None else format(value, form)


def _table(headings: Iterable[str], rows: Iterable[str], caption: str, kind: str = "") -> str:
    """A table of ready-made cells; ``headings`` are HTML."""
    head = "".join(f'<th scope="col">{heading}</th>' for heading in headings)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table class="{kind}">'
        f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _row(heading: str, cells: Iterable[str]) -> str:
    return f'<tr><th scope="row">{escape(heading)}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def _tiles(report: Report) -> str:
    fps = report["fps"]
    rate = "–" if fps is None else f"{fps['mean']:.4g}"
    note = "" if fps is None or fps["min"] == fps["max"] else f"{fps['min']:.4g} to {fps['max']:.4g}"
    length = "" if report["seconds"] is None else f"{report['seconds'] / report['episodes']:,.1f} s on average"
    height, width = report["frame_size"]
    tiles = (
        ("Episodes", f"{report['episodes']:,}", length),
        ("Frames", f"{report['frames']:,}", f"{height} × {width} pixels"),
        ("Hours", _number(report["hours"]), "" if report["hours"] is None else f"{report['seconds'] / 60:,.1f} minutes"),
        ("Frames per second", rate, note),
        ("Actions", str(len(report["actions"])), f"{report['distinct_combinations']:,} combinations occur"),
        ("State values", str(len(report["state"])) if report["state"] else "–", ""),
    )
    return "".join(
        f'<div class="tile"><dt>{name}</dt><dd>{value}<small>{note}</small></dd></div>' for name, value, note in tiles
    )


def _facts(report: Report) -> str:
    """What all episodes say alike of their recording."""
    alike = []
    for key in _fact_keys(report):
        values = {episode["facts"].get(key) for episode in report["per_episode"]}
        if len(values) == 1 and report["episodes"] > 1:
            alike.append(f"<b>{escape(key)}</b> {escape(str(values.pop()))}")
    return f"<p>All episodes: {', '.join(alike)}.</p>" if alike else ""


def _fact_keys(report: Report) -> list[str]:
    return list(dict.fromkeys(key for episode in report["per_episode"] for key in episode["facts"]))


def _left_out(report: Report) -> str:
    faults = [f"<b>{escape(s['name'])}</b> {escape(s['reason'])}" for s in report["skipped"]]
    count = len(faults)
    faults = faults[:50] + ([f"and {count - 50} more"] if count > 50 else [])
    html = ""
    if faults:
        items = "".join(f"<li>{fault}</li>" for fault in faults)
        html = f'<div class="warning"><p>{count} episodes are left out:</p><ul>{items}</ul></div>'
    if report["unreadable_frames"]:
        items = "".join(f"<li>{escape(fault)}</li>" for fault in report["unreadable_frames"])
        html += f'<div class="warning"><p>Sample frames that cannot be read:</p><ul>{items}</ul></div>'
    return html


def _baselines(report: Report) -> str:
    base = report["baselines"]
    common = " + ".join(report["combinations"][0]["actions"]) or "nothing held"
    tiles = (
        ("Repeating the frame before", base["repeat_previous"], "exactly right, every action"),
        ("The commonest combination", base["majority"], common),
        ("Nothing held", base["nothing_held"], "share of frames"),
    )
    return "".join(
        f'<div class="tile"><dt>{name}</dt><dd>{_percent(value)}<small>{escape(note)}</small></dd></div>'
        for name, value, note in tiles
    )


def _bar(share: float | None) -> str:
    return "" if share is None else f'<span class="bar" style="--v:{share:.4f}"></span>'


def _combinations(report: Report) -> str:
    rows = (
        _row(" + ".join(c["actions"]) or "nothing held", (_percent(c["share"]), _bar(c["share"])))
        for c in report["combinations"]
    )
    return _table(("combination", "frames", ""), rows, "The commonest combinations of actions", "bars")


def _actions(report: Report) -> str:
    timed = report["fps"] is not None
    key, heading = ("presses_per_minute", "per minute") if timed else ("presses_per_1000_frames", "per 1,000 frames")
    rows = (
        _row(
            a["name"],
            (_percent(a["frequency"]), _bar(a["frequency"]), f"{a['presses']:,}", _number(a[key], ",.1f")),
        )
        for a in report["actions"]
    )
    return _table(("action", "held", "", "presses", heading), rows, "How often each action is held and pressed", "bars")


def _rate_definition(report: Report) -> str:
    if report["fps"] is None:
        return "The dataset does not say its frame rate, so rates are per 1,000 frames and durations in frames."
    return "Times follow each episode’s frame rate; an episode that has none is taken at the mean of the others."


def _duration(action: dict[str, Any]) -> str:
    """A histogram as SVG, with its numbers in words under it."""
    spent = action["duration"]
    edges, counts, total = spent["histogram_edges"], spent["histogram"], sum(spent["histogram"])
    unit = "s" if spent["unit"] == "s" else "frames"
    width, bars, ticks = 240 / len(edges), [], []
    for i, (low, n) in enumerate(zip(edges, counts, strict=True)):
        height = 70 * n / max(max(counts), 1)
        until = f"{low:g} to under {edges[i + 1]:g}" if i + 1 < len(edges) else f"{low:g} or more"
        bars.append(
            f'<rect x="{i * width + 1:.1f}" y="{76 - height:.1f}" width="{width - 2:.1f}" height="{height:.1f}" rx="1.5">'
            f"<title>{until} {unit}: {n:,} presses</title></rect>"
        )
        ticks.append(f'<text x="{i * width:.1f}" y="90">{low:g}</text>')
    long = (_number(spent[q], ".2f" if unit == "s" else "g") for q in ("median", "p90", "longest"))
    words = "never pressed" if not total else "median {} · p90 {} · longest {} {}".format(*long, unit)
    label = escape(f"Durations of {action['name']}: {words}")
    return (
        f'<figure class="small"><figcaption><b>{escape(action["name"])}</b><span>{words}</span></figcaption>'
        f'<svg viewBox="0 0 240 94" role="img" aria-label="{label}"><line x1="0" x2="240" y1="76" y2="76"/>'
        f"{''.join(bars)}{''.join(ticks)}</svg></figure>"
    )


def _weights(report: Report) -> str:
    rows = (
        _row(a["name"], (_percent(a["frequency"]), *(_number(w) for w in a["class_weight"].values())))
        for a in report["actions"]
    )
    return _table(("action", "held", "none", "sqrt", "balanced"), rows, "Class weights")


def _heat_map(report: Report, kind: str, caption: str) -> str:
    names = [a["name"] for a in report["actions"]]
    values = report["cooccurrence"][kind]
    largest = max((v for row in values for v in row if v is not None), default=0) or 1
    rows = []
    for a, row in enumerate(values):
        cells = []
        for b, v in enumerate(row):
            words = escape(f"{names[a]}, {names[b]}: {_percent(v, 2)}")
            # The square root lets small shares show.
            heat = 0 if v is None else (v / largest) ** 0.5
            text = "–" if v is None else f"{100 * v:.0f}" if v == 0 or v >= 0.095 else f"{100 * v:.1f}"
            cells.append(f'<td style="--v:{heat:.3f}" class="{"own" * (a == b)}" title="{words}">{text}</td>')
        rows.append(f'<tr><th scope="row">{escape(names[a])}</th>{"".join(cells)}</tr>')
    headings = ("", *(f"<span>{escape(name)}</span>" for name in names))
    return _table(headings, rows, f"{caption}, in percent", "heat")


def _shown(count: int, total: int) -> str:
    return "" if count == total else f"{count:,} of {total:,} episodes are shown, evenly spread over the dataset."


def _timeline(timeline: dict[str, Any], index: int) -> str:
    name, length, fps = timeline["name"], timeline["length"], timeline["fps"]
    seconds = f" · {length / fps:,.1f} s" if fps else ""
    frames = f"{length:,} frame{'s' * (length != 1)}{seconds}"
    return (
        f"<details{' open' * (index < 3)}><summary><b>{escape(name)}</b> <span>{frames}</span></summary>"
        f'<canvas data-episode="{index}" role="img" aria-label="{escape(name)}: the time each action is held; '
        'its shares are in the table of episodes"></canvas></details>'
    )


def _episodes(report: Report) -> str:
    episodes = report["per_episode"]
    keys = _fact_keys(report)
    headings = ["episode", "frames", "seconds", *keys, *(a["name"] for a in report["actions"])]
    rows = []
    for i in spread(len(episodes), TABLE_ROWS):
        episode = episodes[i]
        facts = (
            _number(fact, ",.6g") if isinstance(fact, float) else "–" if fact is None else escape(str(fact))
            for fact in map(episode["facts"].get, keys)
        )
        shares = (_percent(f) for f in episode["frequencies"])
        rows.append(
            _row(episode["name"], (f"{episode['frames']:,}", _number(episode["seconds"], ",.1f"), *facts, *shares))
        )
    buttons = (f'<button type="button">{escape(heading)}</button>' for heading in headings)
    return _table(buttons, rows, "Episodes, and the share of their frames with each action held", "sortable")


def _state(report: Report) -> str:
    if not report["state"]:
        return '<p class="empty">The dataset has no state.</p>'
    rows = (
        _row(
            s["name"],
            (
                *(_number(s[key], ",.4g") for key in ("min", "max", "mean", "std")),
                _percent(s["undefined"]),
                _percent(s["constant"], 0),
                _sparkline(s),
            ),
        )
        for s in report["state"]
    )
    headings = ("state value", "min", "max", "mean", "std", "undefined", "constant", "distribution")
    return _table(headings, rows, "Ranges of the state values")


def _sparkline(state: dict[str, Any]) -> str:
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


def _pictures(pictures: Sequence[Picture]) -> str:
    figures = []
    for p in pictures:
        held = ", ".join(p.held) or "nothing held"
        place = f"{p.episode} · frame {p.frame:,}" + ("" if p.seconds is None else f" · {p.seconds:,.1f} s")
        source = base64.b64encode(p.jpeg).decode()
        title = f"<b>{escape(p.action)}</b>" if p.action is not None else ""
        figures.append(
            f'<figure><img src="data:image/jpeg;base64,{source}" alt="{escape(f"{place}: {held}")}">'
            f"<figcaption>{title}<span>{escape(place)}</span><span>{escape(held)}</span></figcaption></figure>"
        )
    return "".join(figures) or '<p class="empty">None.</p>'
