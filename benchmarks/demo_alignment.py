"""Whether the labels of a recorded window are what the game itself noted: Doom's own demo, tic by tic.

A tic's moment is when the player's heading in the game's memory became that of the demo. The demo is then cut at the
recording's frames, later by an offset, and compared with the labels.
"""

from pathlib import Path

import numpy as np

from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.convert.doom_demo.files import BUTTONS, Demo, parse_demo
from BC_training.play.live.events import EVENTS, Events

TIC = 1 / 35
OFFSETS = np.arange(-0.1, 0.2, 0.0025)  # seconds
LAGS = range(-4, 5)  # frames
NAMES = {"forward": "move_forward", "use": "use", "fire": "attack"}


def align(dataset: Path, demo_file: Path, track: np.ndarray) -> None:
    """Prints by how much the game is later than the labels, and how well they agree.

    Args:
        track: float64 [R, 4], as ``Track`` notes it, of the same game.
    """
    demo, data = parse_demo(demo_file.read_bytes()), ZarrGameplayDataset(dataset)
    moments = tic_moments(demo, track)
    seconds = (moments[-1] - moments[0]) / (len(moments) - 1)
    print(f"{len(moments):,} tics, {1 / seconds:.3f} a second")
    edges = [edges_of(dataset / episode.name, episode.length) for episode in data.episodes]
    frames = sum(len(e) - 1 for e in edges)
    labels = np.concatenate([data.actions(i) for i in range(len(edges))])
    turn = np.concatenate([data.axes(i)[:, 0] for i in range(len(edges))])
    columns = [data.action_names.index(name) for name in NAMES]
    held = demo.actions[:, [BUTTONS.index(name) for name in NAMES.values()]]

    def equal(offset: float) -> np.ndarray:
        """bool [frames, buttons]."""
        return np.concatenate([cut(held, moments - offset, e) for e in edges]) == labels[:, columns]

    scores = [equal(offset).all(axis=1).mean() for offset in OFFSETS]
    offset = float(OFFSETS[int(np.argmax(scores))])
    best = equal(offset)
    print(
        f"keys: the game is {1000 * offset:.1f} ms after the labels; {best.all(axis=1).mean():.4f} of {frames:,} frames"
    )
    for name, column in zip(NAMES, best.T, strict=True):
        pressed = labels[:, data.action_names.index(name)]
        print(f"  {name}: {column.mean():.4f} equal, held in {pressed.mean():.3f} of the frames")
    near = apart(best, held, moments - offset, np.concatenate([e[:-1] for e in edges]), edges)
    print(f"  of the frames that differ {near:.3f} are within a tic of a change at a frame's edge")
    correlations = {o: np.corrcoef(turn, summed(demo.turns, moments - o, edges))[0, 1] for o in OFFSETS}
    at = max(correlations, key=lambda o: correlations[o])
    print(f"turns: correlation {correlations[at]:.4f} at {1000 * at:.1f} ms")
    degrees = summed(demo.turns, moments - at, edges)
    tens = [values[: len(turn) // 10 * 10].reshape(-1, 10).sum(axis=1) for values in (turn, degrees)]
    off, much = np.abs(tens[0] - tens[1]).mean(), np.abs(tens[0]).mean()
    print(f"  of ten frames: correlation {np.corrcoef(tens)[0, 1]:.4f}, apart by {off:.2f} degrees of {much:.2f}")
    n = len(turn)
    by_lag = {
        lag: np.corrcoef(turn[max(-lag, 0) : n - max(lag, 0)], degrees[max(lag, 0) : n - max(-lag, 0)])[0, 1]
        for lag in LAGS
    }
    print("  by frames: " + ", ".join(f"{lag}: {value:.3f}" for lag, value in by_lag.items()))
    print(f"  in all {turn.sum():,.2f} degrees labelled, {degrees.sum():,.2f} turned")


def edges_of(episode: Path, length: int) -> np.ndarray:
    """When its frames were taken, and when the last ended: float64 [N + 1]."""
    return Events.read(episode / EVENTS).frame_times[: length + 1]


def tic_moments(demo: Demo, track: np.ndarray) -> np.ndarray:
    """When the game played each of N tics, float64 [N]."""
    bam = np.round(track[:, 3] * 65536 / 360).astype(int) % 65536
    turned = np.round(demo.turns * 65536 / 360).astype(int)
    headings = (bam[0] - np.cumsum(turned)) % 65536
    changes = np.flatnonzero(np.diff(bam)) + 1
    turning, found, at = np.flatnonzero(turned), [], 0
    for change in changes:
        for skipped in range(at, min(at + 12, len(turning))):
            if headings[turning[skipped]] == bam[change]:
                found.append((turning[skipped], track[change, 0]))
                at = skipped + 1
                break
    tics, times = np.array(found).T
    print(f"{len(found):,} of {len(turning):,} tics with a turn were seen in the game's memory")
    every = np.arange(len(turned))
    moments = np.interp(every, tics, times)
    outside = (every < tics[0]) | (every > tics[-1])
    moments[outside] += TIC * (every - np.clip(every, tics[0], tics[-1]))[outside]
    return moments


def cut(held: np.ndarray, moments: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Whether each button was held in any tic of each frame, and where a frame has none in the tic before."""
    first, last = np.searchsorted(moments, edges[:-1]), np.searchsorted(moments, edges[1:])
    sums = np.concatenate([np.zeros((1, held.shape[1]), int), np.cumsum(held, axis=0)])
    last = np.maximum(last, first + 1)
    return sums[np.minimum(last, len(held))] > sums[np.minimum(first, len(held) - 1)]


def summed(turns: np.ndarray, moments: np.ndarray, edges: list[np.ndarray]) -> np.ndarray:
    """Degrees turned in each frame of all episodes."""
    sums = np.concatenate([[0.0], np.cumsum(turns, dtype=np.float64)])
    return np.concatenate([np.diff(sums[np.searchsorted(moments, e)]) for e in edges])


def apart(
    equal: np.ndarray, held: np.ndarray, moments: np.ndarray, starts: np.ndarray, edges: list[np.ndarray]
) -> float:
    """The share of the frames that differ at whose beginning or end a button changed within a tic."""
    changes = moments[1:][np.any(held[1:] != held[:-1], axis=1)]
    ends = np.concatenate([e[1:] for e in edges])
    differ = ~equal.all(axis=1)

    def nearest(times: np.ndarray) -> np.ndarray:
        i = np.clip(np.searchsorted(changes, times), 1, len(changes) - 1)
        return np.minimum(np.abs(changes[i] - times), np.abs(changes[i - 1] - times))

    return float((np.minimum(nearest(starts), nearest(ends)) < 1.5 * TIC)[differ].mean()) if differ.any() else 1.0
