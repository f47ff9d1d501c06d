"""The page of a dataset's statistics: one HTML file, drawn from the numbers alone.

Every text that comes from the dataset passes ``escape``.
"""

import base64
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from BC_training.reports.dataset.figures import duration, sparkline
from BC_training.reports.dataset.samples import Picture, spread
from BC_training.reports.page import as_tiles, bar, fill, heat_map, number, percent, row, table, warning

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
    names = [a["name"] for a in report["actions"]]
    data = {"names": names, "episodes": list(timelines)}
    parts = {
        "title": escape(Path(report["dataset"]).name or report["dataset"]),
        "dataset": escape(report["dataset"]),
        "tiles": _tiles(report),
        "facts": _facts(report),
        "left_out": _left_out(report),
        "baselines": _baselines(report),
        "combinations": _combinations(report),
        "actions": _actions(report),
        "rate_definition": _rate_definition(report),
        "durations": "".join(duration(a) for a in report["actions"]),
        "maximum": f"{report['max_class_weight']:g}",
        "weights": _weights(report),
        "pair_width": str(150 + 48 * len(names)),  # where they do not fit, one is under the other
        "both": heat_map(names, report["cooccurrence"]["both"], "Share of frames with both actions held"),
        "conditional": heat_map(
            names, report["cooccurrence"]["conditional"], "Share of the row's frames with the column held"
        ),
        "options": "".join(f"<option>{escape(name)}</option>" for name in names),
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
    return fill(_TEMPLATE, parts)


def _tiles(report: Report) -> str:
    fps = report["fps"]
    rate = "–" if fps is None else f"{fps['mean']:.4g}"
    note = "" if fps is None or fps["min"] == fps["max"] else f"{fps['min']:.4g} to {fps['max']:.4g}"
    seconds = report["seconds"]
    length = "" if seconds is None else f"{seconds / report['episodes']:,.1f} s on average"
    height, width = report["frame_size"]
    tiles = (
        ("Episodes", f"{report['episodes']:,}", length),
        ("Frames", f"{report['frames']:,}", f"{height} × {width} pixels"),
        (
            "Hours",
            number(report["hours"]),
            "" if seconds is None else f"{seconds / 60:,.1f} minutes",
        ),
        ("Frames per second", rate, note),
        ("Actions", str(len(report["actions"])), f"{report['distinct_combinations']:,} combinations occur"),
        ("State values", str(len(report["state"])) if report["state"] else "–", ""),
    )
    return as_tiles(tiles)


def _facts(report: Report) -> str:
    """What all episodes say alike of their recording."""
    facts = report["per_episode"][0]["facts"]
    alike = [f"<b>{escape(key)}</b> {escape(str(facts[key]))}" for key in facts if key not in _varying(report)]
    return f"<p>{' · '.join(alike)}</p>" if alike else ""


def _varying(report: Report) -> list[str]:
    """The attributes in which the episodes differ."""
    every = [episode["facts"] for episode in report["per_episode"]]
    keys = dict.fromkeys(key for facts in every for key in facts)
    return [key for key in keys if len({facts.get(key) for facts in every}) > 1]


def _left_out(report: Report) -> str:
    faults = [f"{s['name']}: {s['reason']}" for s in report["skipped"]]
    return warning(f"Left out, {len(faults):,} of {len(faults) + report['episodes']:,} episodes:", faults) + warning(
        "Sample frames that cannot be read:", report["unreadable_frames"]
    )


def _baselines(report: Report) -> str:
    base = report["baselines"]
    common = " + ".join(report["combinations"][0]["actions"]) or "nothing held"
    tiles = (
        ("Repeating the frame before", base["repeat_previous"], "exactly right, every action"),
        ("The commonest combination", base["majority"], common),
        ("Nothing held", base["nothing_held"], "share of frames"),
    )
    return as_tiles((name, percent(value), note) for name, value, note in tiles)


def _combinations(report: Report) -> str:
    rows = (
        row(" + ".join(c["actions"]) or "nothing held", (percent(c["share"]), bar(c["share"])))
        for c in report["combinations"]
    )
    return table(("combination", "frames", ""), rows, "The commonest combinations of actions", "bars")


def _actions(report: Report) -> str:
    timed = report["fps"] is not None
    key, heading = ("presses_per_minute", "per minute") if timed else ("presses_per_1000_frames", "per 1,000 frames")
    rows = (
        row(
            a["name"],
            (percent(a["frequency"]), bar(a["frequency"]), f"{a['presses']:,}", number(a[key], ",.1f")),
        )
        for a in report["actions"]
    )
    return table(("action", "held", "", "presses", heading), rows, "How often each action is held and pressed", "bars")


def _rate_definition(report: Report) -> str:
    if report["fps"] is None:
        return "The dataset does not say its frame rate, so rates are per 1,000 frames and durations in frames."
    return "Times follow each episode’s frame rate; an episode that has none is taken at the mean of the others."


def _weights(report: Report) -> str:
    rows = (
        row(a["name"], (percent(a["frequency"]), *(number(w) for w in a["class_weight"].values())))
        for a in report["actions"]
    )
    return table(("action", "held", "none", "sqrt", "balanced"), rows, "Class weights")


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
    keys = _varying(report)
    headings = ["episode", "frames", "seconds", *keys, *(a["name"] for a in report["actions"])]
    rows = []
    for i in spread(len(episodes), TABLE_ROWS):
        episode = episodes[i]
        facts = (
            number(fact, ",.1f") if isinstance(fact, float) else "–" if fact is None else escape(str(fact))
            for fact in map(episode["facts"].get, keys)
        )
        shares = (percent(f) for f in episode["frequencies"])
        rows.append(
            row(episode["name"], (f"{episode['frames']:,}", number(episode["seconds"], ",.1f"), *facts, *shares))
        )
    buttons = (f'<button type="button">{escape(heading)}</button>' for heading in headings)
    return table(buttons, rows, "Episodes, and the share of their frames with each action held", "sortable")


def _state(report: Report) -> str:
    if not report["state"]:
        return '<p class="empty">The dataset has no state.</p>'
    rows = (
        row(
            s["name"],
            (
                *(number(s[key], ",.4g") for key in ("min", "max", "mean", "std")),
                percent(s["undefined"]),
                percent(s["constant"], 0),
                sparkline(s),
            ),
        )
        for s in report["state"]
    )
    headings = ("state value", "min", "max", "mean", "std", "undefined", "constant", "distribution")
    return table(headings, rows, "Ranges of the state values")


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
