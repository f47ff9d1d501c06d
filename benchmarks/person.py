"""Whether what a person does in a window is recorded frame by frame, and how well the game's rate is kept.

    uv run python benchmarks/person.py

A scripted person plays on an X server without a screen (Xvfb): keys and mouse by XTest, a pad by SDL's virtual one. The
inputs of a frame are drawn at random, come right after the frame has appeared, and are compared with what is recorded.
A frame is late by the time from its deadline to its end. The machine should be quiet.
"""

import argparse
import contextlib
import sys
import tempfile
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests/helpers"))

from scripted_person import Room, ScriptedPerson, VirtualPad, register_games, screen

from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.keybinds.play_keys import PAD_AXES, PAD_BUTTONS, PlayKeys, play_keys
from BC_training.common.schema import RecordConfig
from BC_training.games import make_game
from BC_training.play.human import clock, person
from BC_training.play.human.options import PersonOptions
from BC_training.play.record import record

RUNS = (  # the games, and by what they are played
    ("doom/basic", "keys"),
    ("doom/deadly_corridor?mouse=true", "keys and mouse"),
    ("gym/ALE/Breakout-v5?frameskip=2", "keys"),
    ("gym/CarRacing-v3", "keys"),
    ("doom/deadly_corridor?mouse=true", "pad"),
    ("gym/CarRacing-v3", "pad"),
)
X11 = {"SPACE": "space", "LSHIFT": "Shift_L", "LALT": "Alt_L", "LEFT": "Left", "RIGHT": "Right", "UP": "Up"}
X11 |= {"DOWN": "Down"}


class KeptClock(clock.FrameClock):
    """Remembers all clocks, one an episode."""

    all: list[clock.FrameClock] = []  # noqa: RUF012

    def __init__(self, fps: float):
        super().__init__(fps)
        KeptClock.all.append(self)


class RandomPlay:
    """Presses, holds and moves at random, and notes of each frame what should be recorded.

    Attributes:
        done: of each frame the buttons and the axes, float64 [A + X].
    """

    def __init__(self, keys: PlayKeys, buttons: int, by: str, frames: int):
        self._keys, self._buttons, self._by, self._frames = keys, buttons, by, frames
        self._rng, self._down, self.done, self._pad = np.random.default_rng(0), set[int](), [], None
        self._episode = 0
        device = "pad" if by == "pad" else "key"
        bound = {c: name for (kind, name), c in reversed(keys.columns.items()) if kind == device}
        # A stick moves both ways by its own axis; as a button it would press others, too.
        self._bound = {c: name for c, name in bound.items() if device == "key" or name in PAD_BUTTONS}
        self._sticks = dict.fromkeys([axis.pad for axis in keys.axes if axis.pad], 0)

    def __call__(self, who: ScriptedPerson, t: int) -> None:
        if t == self._frames:
            who.tap(self._keys.control_keys["quit"])
            return
        if t == 0 and self._by == "pad":  # it is there from the next frame on
            self._pad = VirtualPad()
            self._pad.attach()
            self.done.append([0.0] * (self._buttons + len(self._keys.axes)))
            return
        is_first, self._episode = Room.episodes != self._episode, Room.episodes
        held = set(self._down)
        for column, name in self._bound.items():
            if self._rng.random() < 0.15:
                held.add(column)
                self._press(who, name, column not in self._down)
                self._down ^= {column}
            elif self._pad is None and column not in held and self._rng.random() < 0.1:  # a tap; SDL polls pads
                held.add(column)
                self._press(who, name, True)
                self._press(who, name, False)
        moved = [self._move(who, x, held, is_first) for x in range(len(self._keys.axes))]
        self.done.append([*(float(c in held) for c in range(self._buttons)), *moved])

    def _press(self, who: ScriptedPerson, name: str, down: bool) -> None:
        if self._pad is not None:
            self._pad.press(PAD_BUTTONS.index(name), down)
        else:
            (who.press if down else who.release)(X11.get(name, name.lower()))

    def _move(self, who: ScriptedPerson, x: int, held: set[int], is_first: bool) -> float:
        axis, less = self._keys.axes[x], self._buttons + 2 * x
        amount = float((less + 1 in held) - (less in held))
        if self._pad is not None and axis.pad is not None:
            if self._rng.random() < 0.2:
                trigger = axis.pad.startswith("TRIGGER")  # at rest it stands at its lower end
                self._sticks[axis.pad] = int(self._rng.integers(0 if trigger else -1, 2))
                value = (2 * self._sticks[axis.pad] - 1 if trigger else self._sticks[axis.pad]) * 32767
                self._pad.push(PAD_AXES.index(axis.pad), value)
            amount += self._sticks[axis.pad] * axis.pad_sign
        amount = min(max(amount, -1.0), 1.0) * axis.amount
        # The window takes the mouse when the key that starts the episode comes, and not before.
        if axis.mouse is not None and self._by == "keys and mouse" and not is_first and self._rng.random() < 0.5:
            counts = int(self._rng.integers(-30, 31))
            who.move(*((counts, 0) if axis.mouse == 0 else (0, counts)))
            amount += counts / axis.counts
        return amount

    def end(self, who: ScriptedPerson) -> None:
        for column in self._down:
            self._press(who, self._bound[column], False)
        if self._pad is not None:
            self._pad.detach()


def measure(game: str, by: str, frames: int, folder: Path) -> dict[str, float]:
    """Records ``frames`` frames; returns how many there are and are right, the share of the rate, lateness in ms."""
    with contextlib.closing(make_game(game, frame_size=(72, 128))) as env:
        names: Any = env.unwrapped
        play = RandomPlay(play_keys(None, names.buttons, names.axes), len(names.buttons), by, frames)
    person.FrameClock = KeptClock
    KeptClock.all.clear()
    Room.follow(play)
    config = RecordConfig(f"scripted/game?of={game}", "human", frames, frame_size=(72, 128))
    record(folder, config, None, Console(file=StringIO()), PersonOptions(unfinished="keep"))
    play.end(Room.person)
    data = ZarrGameplayDataset(folder)
    found = [np.concatenate([data.actions(e), data.axes(e)], axis=1) for e in range(len(data.episodes))]
    recorded, done = np.concatenate(found), np.array(play.done)
    equal = recorded.shape == done.shape and np.isclose(recorded, done, atol=1e-3).all(axis=1)
    clocks = [c for c in KeptClock.all if c.lateness]
    late = np.concatenate([c.lateness for c in clocks]) * 1e3
    rate = len(late) / sum(len(c.lateness) / c.real_fps for c in clocks) / names.fps
    p50, p99 = np.percentile(late, [50, 99])
    counts = {"recorded": len(recorded), "right": int(np.sum(equal))}
    return counts | {"rate": rate, "p50": p50, "p99": p99, "max": late.max()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=600)
    frames = parser.parse_args().frames
    register_games()
    print("| game | by | injected | recorded | equal | rate | late p50 | p99 | max, ms |\n|---|---|" + 7 * "---:|")
    with screen() as name, tempfile.TemporaryDirectory() as folder:
        Room.person = ScriptedPerson(name)
        for i, (game, by) in enumerate(RUNS):
            found = measure(game, by, frames, Path(folder) / f"{i}.zarr")
            numbers = "{recorded} | {right} | {rate:.4f} | {p50:.2f} | {p99:.2f} | {max:.1f}".format(**found)
            print(f"| `{game}` | {by} | {frames} | {numbers} |", flush=True)
        Room.person.close()


if __name__ == "__main__":
    main()
