"""A scripted person for frozen-bubble, who sees the window's picture alone.

It aims at bubbles of the colour that is loaded, at two that touch if there are, with nothing before them, and fires;
where there are none, at the highest it can reach. Where nothing has come of it for four seconds, it fires anyway: that
begins the next game, too.
"""

import contextlib
import threading
import time

import numpy as np

from BC_training.games.window.desktop import WindowQuery
from BC_training.games.window.platform import open_desktop
from BC_training.play.live.events import Events

TITLE, SIZE, DEMO, FILES = "Frozen-Bubble", "120x160", None, dict[str, str]()
COMMAND = ("/usr/games/frozen-bubble", "--solo", "--no-sound", "--no-fullscreen")
KEYBINDS = {"version": "2.0", "actions": {"left": {"key": "LEFT"}, "right": {"key": "RIGHT"}, "fire": {"key": "UP"}}}

TRAIN = ("dataset.history=3", "dataset.frame_size=[90,120]", "training.num_epochs=6")

SPEED = 1.5  # radians a second that the launcher turns
LIMIT = 0.1  # radians between the launcher's last position and the floor
REACTION = 0.12  # seconds
TOLERANCE = 0.04  # radians
RATE = 30  # looks a second
_LAUNCHER = np.array([318.0, 406.0])  # its bubble's centre in the picture of 640x480 pixels
_LEFT, _RIGHT, _TOP, _ROW = 190, 446, 44, 28  # of the board
_RING = np.stack([np.cos(np.arange(0, 2 * np.pi, np.pi / 8)), np.sin(np.arange(0, 2 * np.pi, np.pi / 8))], axis=1)
_PART = np.s_[352:430, 266:370]  # where the launcher turns


def bubbles(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres [N, 2] and colours [N, 3] of the bubbles on the board; each has a dark ring."""
    rows = np.arange(_TOP + 16, 390, _ROW / 2)
    grid = np.stack(np.meshgrid(np.arange(_LEFT + 16, _RIGHT, 16), rows), axis=-1).reshape(-1, 2)
    at = (grid[:, None] + 15 * _RING).round().astype(int)
    ring = picture[at[..., 1], at[..., 0]].max(axis=-1)
    found = np.median(ring, axis=1) < 85
    return grid[found], _colours(picture, grid[found])


def _colours(picture: np.ndarray, centres: np.ndarray) -> np.ndarray:
    offsets = np.stack(np.meshgrid(np.arange(-8, 9, 2), np.arange(-2, 9, 2)), axis=-1).reshape(-1, 2)
    at = (centres[:, None] + offsets).round().astype(int)
    return picture[at[..., 1], at[..., 0]].mean(axis=1)


class Aimer:
    """Plays by X events.

    Args:
        person: a ``ScriptedPerson``.
        look: gives the window's picture, uint8 [480, 640, 3].
    """

    def __init__(self, person, look):
        self._person, self._look = person, look
        self._held: set[str] = set()
        self._calibrate()
        self._fired, self._answers = 0.0, []

    def _calibrate(self) -> None:
        """Learns what the launcher looks like at each angle, from one end to the other."""
        self._hold({"Left"})
        time.sleep(2.5)
        self._hold({"Right"})
        began, seen = time.perf_counter(), []
        while (now := time.perf_counter()) < began + 2.6:
            seen.append((now - began, self._launcher()))
            time.sleep(0.01)
        self._hold(set())
        times, parts = np.array([t for t, _ in seen]), np.stack([part for _, part in seen])
        moved = np.abs(np.diff(parts, axis=0)).mean(axis=(1, 2)) > 0.3
        first, last = times[np.flatnonzero(moved)[0]], times[np.flatnonzero(moved[times[1:] < 2.3])[-1]]
        self._angles = np.interp(times, [first, last], [np.pi - LIMIT, LIMIT])
        self._parts = parts

    def _launcher(self) -> np.ndarray:
        """The part of the picture where the launcher turns, without the bubble in it; float32 [.., 3]."""
        y, x = np.mgrid[_PART]
        outside = np.hypot(x - _LAUNCHER[0], y - _LAUNCHER[1]) > 18
        return self._look()[_PART][outside].astype(np.float32)

    def angle(self) -> float:
        """Where the launcher points, in radians, 0 is to the right."""
        return float(self._angles[np.argmin(np.abs(self._parts - self._launcher()).mean(axis=(1, 2)))])

    def play(self, seconds: float) -> None:
        end = moment = time.perf_counter()
        end += seconds
        while moment < end:
            now = time.perf_counter()
            self._answers.append((now + REACTION, self._decide(now)))
            while self._answers and self._answers[0][0] <= now:
                self._hold(self._answers.pop(0)[1])
            moment = max(moment + 1 / RATE, now)
            time.sleep(max(moment - time.perf_counter(), 0))

    def rest(self) -> None:
        self._answers.clear()
        self._hold(set())

    def _decide(self, now: float) -> set[str]:
        if now < self._fired + 0.15:
            return {"Up"}
        if now < self._fired + 0.8:  # the bubble flies
            return set()
        if now > self._fired + 4:
            self._fired = now
            return {"Up"}
        # Where it will point once all that was decided is done.
        turns = [("Left" in keys) - ("Right" in keys) for _, keys in self._answers]
        angle = self.angle() + SPEED / RATE * sum(turns)
        off = self._target(self._look()) - angle
        if abs(off) < TOLERANCE:
            if not any(turns):
                self._fired = now
                return {"Up"}
            return set()
        return {"Left"} if off > 0 else {"Right"}

    @staticmethod
    def _target(picture: np.ndarray) -> float:
        centres, colours = bubbles(picture)
        if not len(centres):
            return np.pi / 2
        ways = centres - _LAUNCHER
        far = np.hypot(*ways.T)
        is_free = np.ones(len(centres), bool)
        for i, way in enumerate(ways):
            along = ways @ way / far[i]
            aside = np.abs(ways[:, 0] * way[1] - ways[:, 1] * way[0]) / far[i]
            is_free[i] = not np.any((along < far[i] - 20) & (aside < 26))
        loaded = (_colours(picture, _LAUNCHER[None])[0] - 120) / 0.516  # it lies behind glass
        same = np.abs(colours - loaded).max(axis=1) < 40
        if not is_free.any():
            return np.pi / 2
        # Three that touch fall; where there are none alike it goes where there is most room below.
        near = np.hypot(*(centres[:, None] - centres[None]).transpose(2, 0, 1)) < 40
        alike = np.where(is_free & same, (near & same).sum(axis=1), 0)
        worth = 1000 * np.minimum(alike, 2) + np.where(alike > 0, 1, -1) * centres[:, 1]
        x, y = ways[int(np.argmax(np.where(is_free, worth, -np.inf)))]
        return float(np.clip(np.arctan2(-y, x), LIMIT, np.pi - LIMIT))

    def _hold(self, keys: set[str]) -> None:
        self._person.release(*(self._held - keys))
        self._person.press(*(keys - self._held))
        self._held = keys


class Board(threading.Thread):
    """Counts the board's bubbles five times a second.

    Attributes:
        rows: (seconds of ``time.perf_counter()``, bubbles).
    """

    def __init__(self):
        super().__init__(daemon=True)
        self._is_over = False
        self.rows: list[tuple[float, int]] = []
        self.start()

    def run(self) -> None:
        with contextlib.closing(open_desktop()) as desktop:  # a desktop belongs to one thread
            window = desktop.find(WindowQuery(title=TITLE)).id
            while not self._is_over:
                self.rows.append((time.perf_counter(), len(bubbles(desktop.grab(window))[0])))
                time.sleep(0.2)

    def stop(self) -> np.ndarray:
        """float64 [R, 2]."""
        self._is_over = True
        self.join()
        return np.array(self.rows)


def sit_down(person, pid: int, stack: contextlib.ExitStack) -> tuple[Aimer, Board]:
    """A person who plays, and how many bubbles there are."""
    desktop = stack.enter_context(contextlib.closing(open_desktop()))
    window = desktop.find(WindowQuery(title=TITLE)).id
    return Aimer(person, lambda: desktop.grab(window)), watch(pid)


def watch(pid: int) -> Board:
    return Board()


def minute(rows: np.ndarray, events: Events, start: float) -> dict[str, float]:
    """What a minute of a board and of the keys tells."""
    presses = [e.time for e in events.of_kind("press").rows if e.name == "UP" and start <= e.time < start + 60]
    shots, last = 0, -np.inf
    for moment in presses:
        if moment - last > 0.6:  # a bubble flies for so long, and no other can be fired
            shots, last = shots + 1, moment
    count = rows[:, 1]
    # A lost game freezes its bubbles one after another, over two seconds; what is cleared is gone at once.
    losing = np.flatnonzero(count[:-8] - count[8:] >= 14)
    games = int((np.diff(losing, prepend=-99) > 10).sum())
    fallen = -np.diff(count)
    for start_of in losing:
        fallen[max(start_of - 2, 0) : start_of + 20] = 0
    return {
        "shots": shots,
        "bubbles cleared": float(fallen[(fallen >= 2) & (fallen < 10)].sum()),
        "games lost": games,
    } | {f"share of {name}": held(events, name.upper(), start) for name in ("left", "right")}


def held(events: Events, key: str, start: float) -> float:
    """The share of a minute in which a key is down."""
    down, total = None, 0.0
    for event in events.of_kind("press", "release").rows:
        if event.name == key and event.kind == "press":
            down = event.time
        elif event.name == key and down is not None:
            total += max(min(event.time, start + 60) - max(down, start), 0)
            down = None
    return total / 60
