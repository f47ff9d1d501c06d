"""What can be wrong with a dataset, and how it is listed."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from BC_training.common.storage.metadata import EpisodeInfo

SEVERITIES = ("error", "warning", "info")
STUCK_SECONDS = 60.0  # one key held: longer than any corridor takes
WHOLE_SECONDS = 10.0  # held from the first to the last frame of an episode at least this long ...
WHOLE_SHARE = 0.5  # ... while the other episodes hold it in less than this share of their frames
_ROWS = 200  # in the table; the JSON lists every finding
_SPANS = 2  # shown in a row

# Kind of finding: (severity, what to do). An error keeps an episode from being trained on as it is; a
# warning is for data that is sound but may not be what was meant; an info is worth knowing.
KINDS = {
    "names": ("error", "write other names with the given line of Python"),
    "metadata": ("error", "restore its metadata files from a copy, or remove the episode"),
    "access": ("error", "give this user the right to read the files"),
    "codec": ("error", "write the array again with zarr's own codecs: docs/VALIDATE.md has the lines"),
    "link": ("error", "replace the link by what it points to, or remove it"),
    "dtype": ("error", "write the array again with the expected dtype, or remove the episode"),
    "shape": ("error", "write the array again in the expected shape, or remove the episode"),
    "size": ("error", "keep episodes of one frame size in a dataset; move this one to another"),
    "columns": (
        "error",
        "make 'keys', 'axes' and 'attributes' name every column, add what is missing, or remove the episode",
    ),
    "length": ("error", "restore what is shorter, correct 'frame_count', or cut the episode with --repair"),
    "empty": ("error", "remove the episode"),
    "missing": ("error", "restore the chunks from a copy, or cut the episode with --repair"),
    "damaged": ("error", "restore the chunks from a copy, or cut the episode with --repair"),
    "state_value": ("error", "find out why the recorder wrote it, or cut the episode with --repair"),
    "axis_value": ("error", "find out why the recorder wrote it, or cut the episode with --repair"),
    "inexact": ("error", "renumber the ids from 0, or write the array without the column"),
    "key_frames": ("warning", "encode the video again with a key frame every second: reading one frame takes long"),
    "one_frame": ("warning", "remove the episode: one frame shows no play"),
    "frozen": ("warning", "look at it: pauses, menus and a stalled capture teach to do nothing; cut them"),
    "duplicates": ("warning", "record at the rate at which the game draws, not faster"),
    "copy": ("warning", "remove one of the two: a copy in another split makes a score too good"),
    "stuck": ("warning", "look at it: the release of the key may have been missed, or the stick have failed"),
    "always": ("warning", "check the recorder's key map; 'dataset.actions' or 'dataset.axes' trains without it"),
    "range": ("warning", "look at it: the device or its driver may have changed; scale the axis as in the others"),
    "rescaled": ("warning", "look at it: the unit or a sensitivity may have changed; scale the axis as in the others"),
    "idle": ("warning", "cut the wait, unless waiting is part of the play"),
    "fps": ("warning", "write the rate into the episode's attribute 'fps', in frames per second"),
    "rate": ("warning", "convert the episodes to one rate: the duration of an action differs between them"),
    "irregular": ("warning", "record on a machine that keeps up, or convert to a lower rate"),
    "unbound": ("warning", "name the buttons in the key binds as the recorder does, and convert it again"),
    "unmatched": ("warning", "'convert' prints which buttons these are; correct the recorder or their names"),
    "rounded": ("warning", "if they are ids, renumber them from 0 where they are recorded; else nothing"),
    "mirror": ("warning", "correct the attribute 'mirror', or remove it: training.augmentation.flip needs it"),
    "channels": ("warning", "look at it beside the others, and swap red and blue if they are"),
    "consolidated": ("warning", "write it again with zarr.consolidate_metadata"),
    "never": ("info", "'dataset.actions' or 'dataset.axes' trains without it; or record play that uses it"),
}

Spans = tuple[tuple[int, int], ...]  # first and last frame of each stretch


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a dataset."""

    kind: str  # one of ``KINDS``
    episode: str | None  # "episode_7"; None for the whole dataset
    message: str  # one line
    spans: Spans = ()  # empty for the whole episode

    @property
    def severity(self) -> str:
        return KINDS[self.kind][0]

    @property
    def remedy(self) -> str:
        return KINDS[self.kind][1]

    @property
    def count(self) -> int:
        """Frames."""
        return sum(last - first + 1 for first, last in self.spans)

    def to_dict(self) -> dict[str, Any]:
        return {
            "severity": self.severity,
            "kind": self.kind,
            "episode": self.episode,
            "frames": [list(span) for span in self.spans],
            "count": self.count,
            "message": self.message,
            "remedy": self.remedy,
        }


@dataclass(frozen=True)
class Report:
    """All findings in a dataset."""

    dataset: str  # path or address
    episodes: int  # how many there are
    frames: int  # how many were read
    findings: list[Finding]

    def count(self, severity: str) -> int:
        return sum(finding.severity == severity for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        return {
            "dataset": self.dataset,
            "episodes": self.episodes,
            "frames": self.frames,
            **{severity: self.count(severity) for severity in SEVERITIES},
            "findings": [finding.to_dict() for finding in self.findings],
        }


@dataclass(frozen=True)
class Checked:
    """An episode whose metadata was read."""

    info: EpisodeInfo
    rate: float  # frames per second; the dataset's median where the episode has no rate
    arrays: tuple[str, ...]  # those with the expected dtype and dimensions, which can be read
    sound: bool  # whether the metadata has no error except lengths that differ

    @property
    def length(self) -> int:
        """Frames that all arrays have."""
        return min((self.info.arrays[name].shape[0] for name in self.arrays), default=0)


def spans_of(frames: Iterable[int]) -> Spans:
    """The stretches of frames: ((10, 14), (20, 20)) for 10, 11, 12, 13, 14, 20."""
    ordered = np.unique(np.asarray(list(frames), np.int64))
    if not len(ordered):
        return ()
    runs = np.split(ordered, np.flatnonzero(np.diff(ordered) > 1) + 1)
    return tuple((int(run[0]), int(run[-1])) for run in runs)


def runs_of(mask: np.ndarray) -> list[tuple[int, int]]:
    """(start, length) of every stretch of True in ``mask``, bool [N]."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]])))
    return [(int(start), int(stop - start)) for start, stop in edges.reshape(-1, 2)]


def in_order(findings: Iterable[Finding], names: list[str]) -> list[Finding]:
    """Sorts by severity, then by episode; findings about the whole dataset come first."""
    position = {name: i for i, name in enumerate(names)}
    return sorted(findings, key=lambda f: (SEVERITIES.index(f.severity), position.get(f.episode or "", -1)))


def print_report(report: Report, seconds: float, console: Console) -> None:
    """Prints the findings, if any, and a line that counts them. ``seconds``: how long reading took."""
    if report.findings:
        _print_findings(report.findings, console)
        console.print()
    counts = {severity: report.count(severity) for severity in SEVERITIES}
    result = ", ".join(f"{n} {severity}{'s' * (n != 1 and severity != 'info')}" for severity, n in counts.items())
    console.print(
        f"{report.dataset}: {report.episodes:,} episodes, {report.frames:,} frames read in {seconds:.1f} s "
        f"({report.frames / max(seconds, 1e-9):,.0f} frames/s): {result if report.findings else 'no findings'}",
        soft_wrap=True,
        markup=False,
    )


def _print_findings(findings: list[Finding], console: Console) -> None:
    """Prints a table, and under it what to do about each kind of finding in it."""
    table = Table(box=None, pad_edge=False)
    for column in ("severity", "kind", "episode", "frames", "finding"):
        table.add_column(column, no_wrap=column in ("severity", "kind", "episode"), overflow="fold")
    colours = {"error": "red", "warning": "yellow", "info": "cyan"}
    for finding in findings[:_ROWS]:
        table.add_row(
            Text(finding.severity, colours[finding.severity]),
            finding.kind,
            Text((finding.episode or "all").removeprefix("episode_")),
            _spans_text(finding),
            Text(finding.message),
        )
    console.print(table)
    if len(findings) > _ROWS:
        console.print(f"... and {len(findings) - _ROWS:,} more; --json FILE lists them all")
    console.print("\nwhat to do:")
    remedies = Table(box=None, pad_edge=False, show_header=False)
    for kind in dict.fromkeys(finding.kind for finding in findings):
        remedies.add_row(f"  {kind}", Text(KINDS[kind][1]))
    console.print(remedies)


def _spans_text(finding: Finding) -> str:
    """The spans as "10-14, 20, ... (9)"; "" for the whole episode."""
    shown = [str(a) if a == b else f"{a}-{b}" for a, b in finding.spans[:_SPANS]]
    more = [f"... ({finding.count:,})"] if len(finding.spans) > _SPANS else []
    return ", ".join(shown + more)
