"""A scripted person for Doom: what it knows of the map and of where it is, and how it walks.

It walks where there is room, turns by the mouse to where there is more, opens doors, and fires now and then, as a
person would who is bored; all of it a reaction time late.
"""

import contextlib
import struct
import threading
import time
from collections import deque
from pathlib import Path

import numpy as np

from BC_training.play.live.events import Events

WAD, LEVEL = Path("/usr/share/games/doom/freedoom1.wad"), "E1M1"
TITLE, SIZE, DEMO = "Crispy", "90x120", "demo.lmp"
COMMAND = (
    *("/usr/games/crispy-doom", "-iwad", str(WAD), "-warp", "1", "1", "-skill", "1", "-nomonsters", "-nosound"),
    *("-window", "-nogui", "-config", "default.cfg", "-extraconfig", "extra.cfg", "-longtics", "-record", "demo"),
)
FILES = {  # keys by their scan codes: W, S, A, D, E
    "default.cfg": "key_up 17\nkey_down 31\nkey_strafeleft 30\nkey_straferight 32\nkey_use 18\nmouse_sensitivity 15\n",
    "extra.cfg": "window_width 640\nwindow_height 480\nfullscreen 0\ncrispy_widescreen 0\n"
    "mouse_acceleration 1.0\nmouse_threshold 0\nnovert 1\ndclick_use 0\n",
}
COUNTS = 65536 / 360 / 16  # of the mouse to a degree, with this sensitivity
KEYBINDS = {
    "version": "2.0",
    "actions": {"forward": {"key": "W"}, "use": {"key": "E"}, "fire": {"mouse": "LEFT"}},
    "axes": {"turn": {"mouse": "X", "counts": COUNTS}},  # in degrees
}
TRAIN = ("dataset.history=3", "training.num_epochs=8", "evaluation.axes=mean")

UNIT = 65536  # of the game's fixed point numbers
REACTION = 0.12  # seconds from a picture to the answer
RATE = 35  # looks a second
FASTEST = 5.0  # degrees in a look
RADIUS = 18.0  # of the player, and two more
FAR = 900.0  # how far it looks

_STEP, _HEIGHT = 24, 56  # what the player climbs, and needs above
_DOORS, _EXITS, _HURTS = (1, 31, 117, 118), (11, 51, 52, 124), (4, 5, 7, 11, 16)
_SOLID = {2035, 2028, *range(25, 34), *range(35, 38), *range(41, 49), *range(54, 58), 70, 85, 86}


class Level:
    """The lines of a level of a WAD: where a player can go, who neither jumps down nor wades through acid."""

    def __init__(self, wad: Path, name: str):
        raw = wad.read_bytes()
        directory = _directory(raw)
        at = next(i for i, entry in enumerate(directory) if entry[0] == name)

        def lump(offset: int, layout: str) -> list[tuple]:
            _, start, size = directory[at + offset]
            return list(struct.iter_unpack(layout, raw[start : start + size]))

        things, lines, sides = lump(1, "<5h"), lump(2, "<7h"), lump(3, "<28xh")
        corners = np.array(lump(4, "<2h"), float)
        sectors = [(*sector, i) for i, sector in enumerate(lump(8, "<2h18xh2x"))]  # floor, ceiling, kind, number
        self.start = next(thing[:2] for thing in things if thing[3] == 1)
        self._opening = {sectors[sides[left][0]] for *_, special, _, _, left in lines if special in _DOORS}
        ends, fronts, backs, doors, walls = [], [], [], [], []
        for v1, v2, flags, special, _, right, left in lines:
            front, back = (sectors[sides[s][0]] if s >= 0 else None for s in (right, left))
            shut = front is None or back is None or bool(flags & 1) or special in _EXITS
            ends.append((*corners[v1], *corners[v2]))
            fronts.append(shut or self._blocks(front, back))
            backs.append(shut or self._blocks(back, front))
            walls.append(shut)
            doors.append(special in _DOORS and not shut)
        for x, y, _, kind, flags in things:
            if kind in _SOLID and flags & 1:
                box = [(x - 12, y), (x, y + 12), (x + 12, y), (x, y - 12)]
                ends += [(*a, *b) for a, b in zip(box, [*box[1:], box[0]], strict=True)]
                fronts, backs, walls, doors = (
                    known + [side] * 4 for known, side in ((fronts, True), (backs, True), (walls, True), (doors, False))
                )
        self._from, to = np.array(ends)[:, :2], np.array(ends)[:, 2:]
        self._way = to - self._from
        self._doors, self._walls = np.array(doors), np.array(walls)
        self._blocks_front, self._blocks_back = np.array(fronts) & ~self._doors, np.array(backs) & ~self._doors

    def _blocks(self, here: tuple, there: tuple) -> bool:
        """Whether the way from one sector to another is shut; a door counts as open."""
        if here in self._opening or there in self._opening:
            return False
        (floor, *_), (other, ceiling, special, _) = here, there
        return abs(other - floor) > _STEP or ceiling - max(floor, other) < _HEIGHT or special in _HURTS

    def room(self, x: float, y: float, headings: np.ndarray, careful: bool = True) -> tuple[np.ndarray, float]:
        """How far a player can walk in each of H directions, in radians; and how far a door is in the first of them.

        Who is not careful stops only at walls.
        """
        here, ways = np.array([x, y]), np.stack([np.cos(headings), np.sin(headings)], axis=1)
        aside = np.stack([-ways[:, 1], ways[:, 0]], axis=1)
        walls = np.where(self._is_right_of(x, y), self._blocks_front, self._blocks_back) if careful else self._walls
        shoulders = [
            here + side * np.minimum(self._hits(here, side * aside, walls) - 1, RADIUS)[:, None] * aside
            for side in (-1, 1)
        ]
        reach = np.min([self._hits(origins, ways, walls) for origins in (here, *shoulders)], axis=0)
        door = self._hits(here, ways[:1], self._doors)[0]
        return reach, float(door)

    def _is_right_of(self, x: float, y: float) -> np.ndarray:
        off = np.array([x, y]) - self._from
        return self._way[:, 0] * off[:, 1] - self._way[:, 1] * off[:, 0] < 0

    def _hits(self, origins: np.ndarray, ways: np.ndarray, which: np.ndarray) -> np.ndarray:
        """Distances to the nearest of some lines, float64 [H], of rays from ``origins`` [H, 2] or [2]."""
        way, start = self._way[which], self._from[which]
        off = start - np.broadcast_to(origins, ways.shape)[:, None]
        cross = ways[:, None, 0] * way[:, 1] - ways[:, None, 1] * way[:, 0]
        with np.errstate(divide="ignore", invalid="ignore"):
            far = (off[..., 0] * way[:, 1] - off[..., 1] * way[:, 0]) / cross
            along = (off[..., 0] * ways[:, None, 1] - off[..., 1] * ways[:, None, 0]) / cross
        far = np.where((far > 0) & (along >= 0) & (along <= 1), far, FAR)
        return far.min(axis=-1, initial=FAR)


def _directory(raw: bytes) -> list[tuple[str, int, int]]:
    _, count, start = struct.unpack_from("<4sii", raw)
    entries = struct.iter_unpack("<ii8s", raw[start : start + 16 * count])
    return [(name.rstrip(b"\0").decode("latin-1"), offset, size) for offset, size, name in entries]


class Track(threading.Thread):
    """Reads from the game's memory where its player is, 200 times a second.

    Attributes:
        rows: (seconds of ``time.perf_counter()``, x, y in units, degrees to the left).
    """

    def __init__(self, pid: int, start: tuple[int, int]):
        super().__init__(daemon=True)
        self._memory = open(f"/proc/{pid}/mem", "rb", buffering=0)  # noqa: SIM115
        self._place = self._find(pid, struct.pack("<ii", start[0] * UNIT, start[1] * UNIT))
        self._is_over = False
        self.rows = [self._read()]
        self.start()

    def _find(self, pid: int, player: bytes) -> int:
        """The player is where the level begins; the first that is found is the object, others are copies."""
        for line in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines():
            span, rights = line.split()[:2]
            if rights.startswith("rw"):
                low, high = (int(end, 16) for end in span.split("-"))
                self._memory.seek(low)
                if (at := self._memory.read(high - low).find(player)) >= 0:
                    return low + at
        raise RuntimeError("the game's memory holds no player")

    def _read(self) -> tuple[float, float, float, float]:
        self._memory.seek(self._place)
        x, y, angle = struct.unpack("<ii24xI", self._memory.read(36))
        return time.perf_counter(), x / UNIT, y / UNIT, angle * 360 / 2**32

    def run(self) -> None:
        while not self._is_over:
            try:
                self.rows.append(self._read())
            except (OSError, struct.error):  # the game has ended
                return
            time.sleep(0.005)

    def stop(self) -> np.ndarray:
        """float64 [R, 4]."""
        self._is_over = True
        self.join()
        return np.array(self.rows)


class Walker:
    """Plays by X events until it is stopped.

    Args:
        person: a ``ScriptedPerson``.
    """

    _SIGHT = np.radians(np.array([0, *(side * a for a in range(6, 49, 6) for side in (1, -1))], float))

    def __init__(self, person, level: Level, track: Track, seed: int):
        self._person, self._level, self._track = person, level, track
        self._rng, self._answers = np.random.default_rng(seed), deque[tuple[float, float, bool, bool, bool]]()
        self._held: dict[str, bool] = {}
        self._turn, self._owed, self._whim = 0.0, 0.0, (0, 0.0)
        self._use_until = self._fire_until = self._tried = 0.0
        self._free = time.perf_counter()  # when it last saw a way

    def play(self, seconds: float) -> None:
        moment = time.perf_counter()
        end = moment + seconds
        while moment < end:
            now = time.perf_counter()
            self._answers.append((now + REACTION, *self._decide(now)))
            while self._answers and self._answers[0][0] <= now:
                self._do(*self._answers.popleft()[1:])
            moment = max(moment + 1 / RATE, now)
            time.sleep(max(moment - time.perf_counter(), 0))

    def rest(self) -> None:
        self._answers.clear()
        self._do(0.0, False, False, False)

    def _decide(self, now: float) -> tuple[float, bool, bool, bool]:
        """Degrees to turn to the right, and whether it walks, opens and fires."""
        _, x, y, angle = self._track.rows[-1]
        room, door = self._level.room(x, y, np.radians(angle) + self._SIGHT, now < self._free + 1.5)
        degrees = np.degrees(self._SIGHT)
        # It goes by what it sees: half of a view of 90 degrees to each side.
        worth = np.minimum(room, 500) - 3 * np.abs(degrees)
        best = float(degrees[np.argmax(worth)])
        if room.max() >= 110:
            self._free = now
        else:  # a dead end: round, and on to the same side until there is a way
            best = 90.0 * (np.sign(self._turn) or np.sign(room[1::2].sum() - room[2::2].sum()) or 1.0)
        self._turn = best
        left, rate = self._whim
        if left > 0:
            self._whim = left - 1, rate
        elif self._rng.random() < 1 / (7 * RATE):
            self._whim = 16, float(self._rng.choice([-1, 1]) * self._rng.uniform(1.5, 5))
        turn = rate if left > 0 else -float(np.clip(0.12 * best, -FASTEST, FASTEST))
        walks = bool(room[0] > 40 and abs(best) < 60)
        if walks and self._is_still() and now > self._tried + 1 and left <= 0:
            self._whim = 20, float(self._rng.choice([-1, 1]) * FASTEST)  # something is in its way
        if door < 70 and self._is_still() and now > self._tried + 1.5:
            self._tried, self._use_until = now, now + 0.15
        if self._rng.random() < 1 / (6 * RATE):
            self._fire_until = now + 0.15
        return turn, walks, now < self._use_until, now < self._fire_until

    def _is_still(self) -> bool:
        """Whether it has not come forward for a quarter of a second."""
        rows = self._track.rows
        before = rows[max(len(rows) - 50, 0)]
        return self._held.get("w", False) and np.hypot(rows[-1][1] - before[1], rows[-1][2] - before[2]) < 4

    def _do(self, turn: float, walks: bool, uses: bool, fires: bool) -> None:
        for key, down in (("w", walks), ("e", uses)):
            if self._held.get(key, False) != down:
                (self._person.press if down else self._person.release)(key)
                self._held[key] = down
        if self._held.get("mouse", False) != fires:
            self._person.button(1, fires)
            self._held["mouse"] = fires
        self._owed += turn * COUNTS
        if counts := round(self._owed):
            self._person.move(counts, 0)
            self._owed -= counts


def sit_down(person, pid: int, stack: contextlib.ExitStack) -> tuple[Walker, Track]:
    """A person who plays, and where the player is."""
    track = watch(pid)
    return Walker(person, Level(WAD, LEVEL), track, seed=0), track


def watch(pid: int) -> Track:
    return Track(pid, Level(WAD, LEVEL).start)


def minute(rows: np.ndarray, events: Events, start: float) -> dict[str, float]:
    """What a minute of a track tells."""
    times = np.arange(rows[0, 0], rows[-1, 0], 0.2)
    x, y, angle = (np.interp(times, rows[:, 0], c) for c in (rows[:, 1], rows[:, 2], np.unwrap(rows[:, 3], period=360)))
    far, turned = np.hypot(np.diff(x), np.diff(y)), np.abs(np.diff(angle))
    return {
        "units walked": float(far.sum()),
        "degrees turned": float(turned.sum()),
        "squares of 128 units": len(set(zip((x // 128).tolist(), (y // 128).tolist(), strict=True))),
        "share of time at rest": float((far < 6).mean()),  # a tenth of a walk
    }
