"""Warnings: data that can be read, but may not be what was meant.

Nothing here is certain. Each threshold is set so that play recorded from a game has no finding and the
fault it is named for has one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from BC_training.common.storage.documents import finite
from BC_training.common.storage.writer import Names
from BC_training.validate.axes import find_axis_oddities
from BC_training.validate.findings import STUCK_SECONDS, WHOLE_SECONDS, WHOLE_SHARE, Checked, Finding, runs_of
from BC_training.validate.scan import COLOUR_GRID, Labels, Scanned

FROZEN_SECONDS = 1.0  # identical frames: games that draw at all change a pixel (an animation, a clock) sooner
DUPLICATE_SHARE = 0.10  # share of an episode's frames; the expert's play of Doom has 1-2 %, a doubled rate 50 %
WINDOW_DUPLICATE_SHARE = 0.4  # of a window, captured at a rate other than that at which its game draws
WINDOW_FROZEN_SECONDS = 10.0  # a game's window stands still where the player does, or in a menu
DUPLICATE_FRAMES = 5  # at least: in a short episode a few repeats are chance
IDLE_SECONDS = 5.0  # before the first and after the last sign of play
IRREGULAR = 0.25  # standard deviation of the time between frames, as a share of its mean
UNMATCHED = 3  # presses without a release, and releases without a press: at least these, and ...
UNMATCHED_A_MINUTE = 1.0  # ... more often than now and then, as when a window loses the keyboard
SWAPPED_SPREAD = 4.0  # spreads between the other episodes' colours and those of a swapped one
COLOUR_NOISE = 2.0  # the least spread, where 255 is white


@dataclass(frozen=True)
class Seen:
    """An episode whose chunks have been read."""

    checked: Checked
    same: np.ndarray  # bool [N], equal to the frame before
    still: np.ndarray  # bool [N], nearly equal to it
    digest: bytes | None  # over all frames; None if some cannot be read
    colours: np.ndarray | None  # float64 [3, 8, 8], means over the frames in a grid of cells
    labels: Labels

    @property
    def name(self) -> str:
        return self.checked.info.name

    @property
    def frames(self) -> int:
        return len(self.same)


def gather(checked: Checked, scanned: list[Scanned]) -> Seen:
    """Puts an episode's tasks together."""
    colour_frames = sum(s.colour_frames for s in scanned)
    return Seen(
        checked,
        np.concatenate([s.same for s in scanned]),
        np.concatenate([s.still for s in scanned]),
        None if any(s.faults or not s.digest for s in scanned) else b"".join(s.digest for s in scanned),
        sum((s.colours for s in scanned), np.zeros((3, COLOUR_GRID, COLOUR_GRID))) / colour_frames
        if colour_frames
        else None,
        next(s.labels for s in scanned if s.labels is not None),
    )


def find_oddities(episodes: list[Seen], names: Names) -> list[Finding]:
    """Warnings of a dataset whose buttons, axes and state values have these ``names``."""
    moved = [(e.checked, e.labels.axes) for e in episodes if e.checked.sound and e.labels.axes is not None]
    findings = [finding for e in episodes for check in (_pictures, _idle, _inputs) for finding in check(e)]
    return [
        *findings,
        *_rounded(episodes, names.attributes),
        *_copies(episodes),
        *_keys(episodes, names.keys),
        *find_axis_oddities(moved, names.axes),
        *_channels(episodes),
    ]


def _rounded(episodes: list[Seen], attributes: Sequence[str]) -> list[Finding]:
    """State columns with only whole numbers, some of which float32 cannot tell from their neighbours."""
    columns = sorted({column for episode in episodes for column in episode.labels.large})
    names = [f"'{attributes[c]}'" if c < len(attributes) else f"column {c}" for c in columns]
    message = "has whole numbers from 16,777,216 on, where float32 merges neighbours"
    return [Finding("rounded", None, f"state {name} {message}") for name in names]


def _pictures(episode: Seen) -> Iterator[Finding]:
    if episode.frames == 1:
        yield Finding("one_frame", episode.name, "it has one frame")
        return
    is_window = str(episode.checked.info.attrs.get("game")).startswith("window/")
    still, expected = (
        (WINDOW_FROZEN_SECONDS, WINDOW_DUPLICATE_SHARE) if is_window else (FROZEN_SECONDS, DUPLICATE_SHARE)
    )
    runs = [(start - 1, count + 1) for start, count in runs_of(episode.same)]  # with the frame that is repeated
    frozen = [(s, n) for s, n in runs if n >= max(2, still * episode.checked.rate)]
    if frozen:
        longest = max(n for _, n in frozen) / episode.checked.rate
        message = f"the picture stands still {len(frozen)} time{'s' * (len(frozen) > 1)}, up to {longest:.1f} s"
        yield Finding("frozen", episode.name, message, tuple((s, s + n - 1) for s, n in frozen))
    repeated = episode.same.copy()
    for start, count in frozen:
        repeated[start : start + count] = False
    share = repeated.sum() / max(1, episode.frames)
    if share >= expected and repeated.sum() >= DUPLICATE_FRAMES:
        spans = tuple((s, s + n - 1) for s, n in runs_of(repeated))
        yield Finding("duplicates", episode.name, f"{100 * share:.0f} % of its frames repeat the frame before", spans)


def _idle(episode: Seen) -> Iterator[Finding]:
    if episode.frames < 2 or not episode.labels.complete:
        return
    changes = np.flatnonzero(~episode.still[1:]) + 1
    first, last = episode.labels.pressed or (episode.frames, -1)
    start = min([first, *changes[:1]])  # frames 0 to start - 1 are idle
    end = max([last + 1, *changes[-1:]])  # and so are frames end to the last
    needed = IDLE_SECONDS * episode.checked.rate
    spans = [(0, int(start) - 1)] if start >= needed else []
    if start < episode.frames and episode.frames - end >= needed:
        spans.append((int(end), episode.frames - 1))
    if spans:
        ends = " and ".join("at the start" if s == 0 else "at the end" for s, _ in spans)
        where = "throughout" if start >= episode.frames else ends
        seconds = " and ".join(f"{(b - a + 1) / episode.checked.rate:.0f} s" for a, b in spans)
        yield Finding("idle", episode.name, f"no input and no change {where}, {seconds}", tuple(spans))


def _inputs(episode: Seen) -> Iterator[Finding]:
    """Findings from what the recorder and the converter of sessions measured."""
    attrs = episode.checked.info.attrs
    cv = finite(attrs.get("frame_interval_cv"))
    if cv is not None and cv > IRREGULAR:
        yield Finding("irregular", episode.name, f"the time between its frames varies by {100 * cv:.0f} %")
    unbound, *unmatched = (
        count if isinstance(count := attrs.get(name), int) else 0
        for name in ("unbound_presses", "unmatched_presses", "unmatched_releases")
    )
    if unbound and episode.labels.complete and episode.labels.pressed is None:
        yield Finding("unbound", episode.name, f"no action, but {unbound} presses of buttons without one")
    lost, minutes = sum(unmatched), episode.frames / episode.checked.rate / 60
    if lost >= UNMATCHED and lost > UNMATCHED_A_MINUTE * minutes:
        yield Finding("unmatched", episode.name, f"{lost} presses or releases without the other: how long is a guess")


def _copies(episodes: list[Seen]) -> Iterator[Finding]:
    first: dict[bytes, str] = {}
    for episode in episodes:
        if episode.digest is not None and episode.frames > 1:
            original = first.setdefault(episode.digest, episode.name)
            if original != episode.name:
                yield Finding("copy", episode.name, f"its frames are those of {original}")


def _keys(episodes: list[Seen], keys: Sequence[str]) -> Iterator[Finding]:
    usable = [e for e in episodes if e.checked.sound and len(e.labels.held) == len(keys)]
    if not usable:
        return
    held = np.stack([e.labels.held for e in usable])
    lengths = np.array([e.checked.length for e in usable])
    if never := [key for a, key in enumerate(keys) if not held[:, a].any()]:
        yield Finding("never", None, f"never pressed: {', '.join(never)}")
    for a, key in enumerate(keys):
        if (held[:, a] == lengths).all():
            yield Finding("always", None, f"'{key}' is held in every frame")
            continue
        # A key never pressed is in no list of long holds.
        others = (held[:, a].sum() - held[:, a]) / np.maximum(lengths.sum() - lengths, 1)
        for e, episode in enumerate(usable):
            rate, length = episode.checked.rate, int(lengths[e])
            long = [(s, n) for k, s, n in episode.labels.stuck if k == a and n >= STUCK_SECONDS * rate]
            whole = held[e, a] == length and length >= WHOLE_SECONDS * rate and others[e] < WHOLE_SHARE
            if long:
                seconds = max(n for _, n in long) / rate
                spans = tuple((s, s + n - 1) for s, n in long)
                yield Finding("stuck", episode.name, f"'{key}' is held for {seconds:.0f} s", spans)
            elif whole and len(usable) > 1:
                message = f"'{key}' is held throughout, in other episodes {100 * others[e]:.0f} % of the time"
                yield Finding("stuck", episode.name, message, ((0, length - 1),))


def _channels(episodes: list[Seen]) -> Iterator[Finding]:
    """Episodes whose red and blue look swapped beside the others'.

    Mean pictures of 8x8 cells are compared. Swapping red and blue negates an episode's difference
    R - B, so the sign of R - B along the direction in which it is largest sorts the episodes into two
    camps. An episode of the smaller camp is reported if it is far from the larger camp's mean, in
    units of that camp's spread, and near once it is swapped. Nothing is found where all episodes are
    swapped, or where they differ much in colour anyway.
    """
    coloured = [(e.name, e.colours) for e in episodes if e.colours is not None and e.frames > 1]
    if len(coloured) < 3:
        return
    pictures = np.stack([colours for _, colours in coloured])
    difference = (pictures[:, 0] - pictures[:, 2]).reshape(len(pictures), -1)
    direction = np.linalg.svd(difference, full_matrices=False)[2][0]
    camp = difference @ direction >= 0
    # Where two camps are of equal size, the one with the first episode counts as right.
    right = camp if 2 * camp.sum() + camp[0] > len(camp) else ~camp
    if right.sum() < 2:
        return
    usual = pictures[right].mean(axis=0)
    spread = np.sqrt(np.square(pictures[right] - usual).sum(axis=0).mean() / (right.sum() - 1))
    for (name, picture), usual_order in zip(coloured, right, strict=True):
        as_it_is, swapped = (float(np.sqrt(np.mean((p - usual) ** 2))) for p in (picture, picture[::-1]))
        if not usual_order and as_it_is > SWAPPED_SPREAD * max(spread, COLOUR_NOISE) and swapped < as_it_is / 2:
            yield Finding("channels", name, "red and blue look swapped beside the other episodes")
