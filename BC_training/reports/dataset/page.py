"""The page of a dataset's statistics."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from BC_training.reports.dataset.axes import LEVELS
from BC_training.reports.dataset.samples import Picture, spread
from BC_training.reports.page import fill, number

TABLE_ROWS = 500  # episodes in the table


def render(report: dict[str, Any], timelines: Sequence[dict[str, Any]], pictures: Sequence[Picture]) -> str:
    """The page of the numbers of ``analyze``.

    ``timelines`` are the name, length (frames), fps or None, step (frames per column), rows (``statistics.strips``)
    and axes (``axes.levels``) of the episodes to draw.
    """
    names = [a["name"] for a in report["actions"]]
    every = [episode["facts"] for episode in report["per_episode"]]
    keys = dict.fromkeys(key for facts in every for key in facts)
    varying = [key for key in keys if len({facts.get(key) for facts in every}) > 1]
    episodes = [report["per_episode"][i] for i in spread(len(every), TABLE_ROWS)]
    return fill(
        "dataset/page.html",
        "dataset/timelines.js",
        name=Path(report["dataset"]).name or report["dataset"],
        report=report,
        names=names,
        alike={key: value for key, value in every[0].items() if key not in varying},
        varying=varying,
        left_out=[f"{skipped['name']}: {skipped['reason']}" for skipped in report["skipped"]],
        episodes=episodes,
        facts=[[_fact(episode["facts"].get(key)) for key in varying] for episode in episodes],
        timelines=timelines,
        pictures=pictures,
        data={
            "names": names,
            "axes": [{"name": axis["name"], "scale": axis["scale"]} for axis in report["axes"]],
            "levels": LEVELS,
            "episodes": list(timelines),
        },
    )


def _fact(value: float | str | None) -> str:
    if value is None:
        return "–"
    return number(value, ",.1f") if isinstance(value, float) else str(value)
