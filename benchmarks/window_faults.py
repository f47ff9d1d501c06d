"""What becomes of a recording in a window, and of play there, when something goes wrong; and whether labels fit frames.

    uv run python benchmarks/window_faults.py [--only kills record play alignment] [--kills 20] [--presses 200]

The commands are the user's, on an X server of their own with a window manager (apt install xvfb openbox); the person is
a script, and the policy an untrained one that always holds a key and a button of the mouse. A small disk is mounted
where that is allowed.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from rich.console import Console

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests/helpers"))

from scripted_person import ScriptedPerson, screen
from toy_windows import ToyWindow, openbox, wait_until
from Xlib import X

from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.decode import Decoding
from BC_training.games.window.platform import open_desktop
from BC_training.play.live.events import EVENTS, Events
from BC_training.validate.validate import validate

TITLE, FPS, SIZE = "A game", 20, (24, 36)
BINDS = {"version": "2.0", "actions": {"go": {"key": "W"}, "fire": {"mouse": "LEFT"}}}
MOUSE = {"axes": {"turn": {"mouse": "X"}, "look": {"mouse": "Y"}}}
MAIN = "from BC_training.__main__ import main\nmain()\n"
ENCODER_FAILS = """
from av.error import ExternalError
from BC_training.common.storage.video_writer import VideoWriter
append = VideoWriter.append
def failing(self, frame):
    if self.frame_count == 45:
        raise ExternalError(-542398533, "Generic error in an external library")
    append(self, frame)
VideoWriter.append = failing
"""
CLOCK_STEPS = """
import itertools, time
right, steps = time.time, itertools.cycle((0, 7200, -7200, 1e6))
time.time = lambda: right() + next(steps)
time.time_ns = lambda: int(1e9 * time.time())
"""


class Command:
    """One of the user's commands, from the moment at which it waits for its hotkeys."""

    def __init__(self, *arguments: object, before: str = ""):
        environment = os.environ | {"PYTHONUNBUFFERED": "1", "COLUMNS": "1000"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", before + MAIN, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            text=True,
        )
        self.said: list[str] = []
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line.strip())
            if "F9 " in line:
                break

    def end(self) -> str:
        """Waits; returns the exit code and the last line."""
        assert self.process.stdout is not None
        self.said += [line.strip() for line in self.process.stdout if line.strip()]
        return f"exit code {self.process.wait(60)}, '{self.said[-1]}'"

    def kill(self) -> None:
        self.process.kill()
        self.end()


class Desk:
    """The window of a game, and a person who sits before it."""

    def __init__(self, folder: Path):
        self.folder, self.person = folder, ScriptedPerson(None)
        self.keybinds = folder / "keybinds.json"
        self.keybinds.write_text(json.dumps(BINDS | MOUSE), encoding="utf-8")
        self._numbers = iter(range(1000))

    def window(self, title: str = TITLE, **more: Any) -> ToyWindow:
        window = ToyWindow(title, **({"size": (400, 300), "place": (60, 60)} | more))
        window.focus()
        wait_until(lambda: any(title in found.title for found in self.desktop_windows()))
        self.person.point_at(*window.corner(100, 100))
        return window

    def desktop_windows(self) -> list[Any]:
        with contextlib.closing(open_desktop()) as desktop:
            return desktop.windows()

    def new(self) -> Path:
        return self.folder / f"{next(self._numbers)}.zarr"

    def record(self, out: Path, *more: object, before: str = "") -> Command:
        game = ("--game", f"window/{TITLE}", "--player", "human", "--all-inputs", "--fps", FPS, "--size", "24x36")
        return Command("record", *game, "--keybinds", self.keybinds, "--out", out, *more, before=before)


def length(out: Path) -> int:
    """The frames of all episodes; fails where the dataset is not valid."""
    findings = validate(out, Console(quiet=True))
    assert not [finding for finding in findings if finding.severity == "error"], findings
    return sum(episode.length for episode in ZarrGameplayDataset(out).episodes)


def kills(desk: Desk, count: int) -> Iterator[tuple[str, str]]:
    """Kills the recorder at random moments, also while it finishes what a kill before has left."""
    rng = random.Random(0)
    for kind in ("--video", "--lossless"):
        out, lost, again = desk.new(), [], 0
        with contextlib.closing(desk.window()) as window:
            for _ in range(count // 2):
                before = length(out) if (out / "episode_0").exists() else 0
                recorder = desk.record(out, kind)
                begun = time.monotonic()
                desk.person.tap("F9")
                while time.monotonic() < begun + 0.3:  # so that there is something to label
                    desk.person.tap("w")
                until = begun + rng.uniform(0.3, 15)
                while time.monotonic() < until:
                    window.paint(rng.randrange(1 << 24))
                    time.sleep(0.03)
                recorder.kill()
                seconds = time.monotonic() - begun
                if rng.random() < 0.4:  # while it finishes, or before, or just after
                    finishing = subprocess.Popen([*recorder.process.args], stdout=-3, stderr=-3)  # type: ignore
                    time.sleep(rng.uniform(1.0, 4.0))
                    finishing.kill()
                    finishing.wait()
                    again += 1
                recorder = desk.record(out, kind)
                desk.person.tap("F12")
                recorder.end()
                lost.append(seconds - (length(out) - before) / FPS)
        what = f"{count // 2} kills -9 at random moments, {again} of them followed by one while the rest is finished"
        yield f"{what}, {kind[2:]}", f"lost {np.mean(lost):.1f} s, at most {max(lost):.1f}; valid each time"


def record_faults(desk: Desk) -> Iterator[tuple[str, str]]:
    def run(do: Callable[[ToyWindow], object], *more: object, before: str = "", out: Path | None = None):
        """Records for 2 s, does something, and goes on for 2 s."""
        out = out or desk.new()
        with contextlib.closing(desk.window(colour=0xFF0000)) as window:
            recorder = desk.record(out, *more, before=before)
            desk.person.tap("F9")
            time.sleep(1)
            desk.person.tap("w")
            time.sleep(1)
            do(window)
            time.sleep(2)
            if recorder.process.poll() is None:
                desk.person.tap("F12")
            return out, recorder.end(), recorder.said

    def seen(out: Path) -> str:
        data = ZarrGameplayDataset(out)
        frames = data.frames(0, range(data.episodes[0].length))
        right = (abs(frames[:, :, 12, 18].astype(int) - [255, 0, 0]) < 40).all(axis=1)
        return f"{right.sum()} of {len(frames)} frames show it"

    with contextlib.ExitStack() as others:

        def cover(window: ToyWindow) -> None:
            place = window.corner()
            others.enter_context(contextlib.closing(ToyWindow("Other", (700, 500), (0, 0), colour=0x00FF00))).cover()
            window.focus()
            assert place == window.corner()

        out, end, _ = run(cover)
        yield "covered while it is recorded", f"{seen(out)}; {end}"
    out, end, _ = run(lambda window: window.place(x=-200, y=400))
    yield "moved partly off the screen", f"{seen(out)}; {end}"
    out, end, _ = run(lambda window: window.place(width=200, height=200))
    yield "resized", f"{seen(out)}; {end}"
    for what, do in (("minimised", ToyWindow.minimise), ("closed", ToyWindow.destroy)):
        out, end, said = run(do)
        yield what, f"{length(out)} frames kept, '{said[-3] if what == 'closed' else said[1]}'; {end}"

    def lose_focus(window: ToyWindow) -> None:
        desk.person.press("w")
        time.sleep(0.3)
        with contextlib.closing(ToyWindow("A letter", place=(500, 0))) as letter:
            letter.focus()
            time.sleep(0.3)
            desk.person.tap("e")
            time.sleep(0.2)
            desk.person.release("w")
            window.focus()

    out, end, _ = run(lose_focus)
    noted, data = Events.read(out / "episode_0" / EVENTS), ZarrGameplayDataset(out)
    attrs = dict(zarr.open_group(out / "episode_0", mode="r").attrs)
    held = int(data.actions(0)[:, 0].sum())
    yield "focus lost with a key held", f"it counts in {held} frames, then not; keys noted: {noted.buttons()}"
    yield "", f"without focus: frames {attrs['unfocused']}; {end}"
    out, end, _ = run(lambda _: None, before=ENCODER_FAILS)
    yield "the encoder fails at frame 45", f"{length(out)} frames kept; {end}"
    out, end, _ = run(lambda _: None, before=CLOCK_STEPS)
    attrs = dict(zarr.open_group(out / "episode_0", mode="r").attrs)
    yield "the clock steps by hours at each look", f"{length(out)} frames, gaps {attrs['gaps']}; {end}"
    ends: list[str] = []
    out = desk.new()
    run(lambda _: ends.append(desk.record(out, "--hotkeys", "F1,F2,F3").end()), out=out)
    yield "a second recorder of the dataset", f"{ends[0]}; the first: {length(out)} frames"
    for kind in ("--video", "--lossless"):
        yield f"the disk is full, {kind[2:]}", full_disk(desk, kind, run)


def full_disk(desk: Desk, kind: str, run: Callable[..., Any]) -> str:
    disk = desk.folder / "disk"
    disk.mkdir(exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], capture_output=True).returncode:
        return "may not mount a small disk here"
    try:

        def fill(_: ToyWindow) -> None:
            with contextlib.suppress(OSError):
                (disk / "full").write_bytes(bytes(1 << 21))
            time.sleep(6)  # the frames reach the disk every few seconds

        out, end, _ = run(fill, kind, out=disk / "x.zarr")
        (disk / "full").unlink()
        with contextlib.closing(desk.window()):
            recorder = desk.record(out, kind)
            desk.person.tap("F12")
            recorder.end()
        return f"{end}; the next start makes {length(out) if (out / 'episode_0').exists() else 0} frames of it"
    finally:
        subprocess.run(["umount", disk], check=True)


def policy(folder: Path) -> Path:
    """One that always holds all."""
    from untrained import CONFIG, INPUTS, save_run

    names = tuple(BINDS["actions"])
    inputs = dataclasses.replace(INPUTS, action_names=names, recorded_size=SIZE, frame_size=SIZE)
    return save_run(folder / "policy", CONFIG, inputs, decoding=Decoding(dict.fromkeys(names, 1e-9)))


def play_faults(desk: Desk) -> Iterator[tuple[str, str]]:
    checkpoint = policy(desk.folder)
    binds = desk.folder / "play.json"
    binds.write_text(json.dumps(BINDS), encoding="utf-8")

    def run(do: Callable[[Command, ToyWindow], object], plays_on: bool = False) -> str:
        """Plays, does something, and says what is held then."""
        with contextlib.closing(desk.window()) as window, contextlib.closing(open_desktop()) as desktop:
            player = Command("play", checkpoint, "--game", f"window/{TITLE}", "--keybinds", binds, "--fps", FPS)
            desk.person.tap("F9")
            wait_until(lambda: len(desktop.held()) == 2, 60)
            begun = time.monotonic()
            do(player, window)
            found = f"held: {sorted(desktop.held())}"
            if not plays_on:
                with contextlib.suppress(AssertionError):
                    wait_until(lambda: not desktop.held(), 5)
                    found = f"all is released within {1000 * (time.monotonic() - begun):.0f} ms"
            time.sleep(1)
            found += f", and a second later {len(desktop.held())} are held"
            if player.process.poll() is None:
                desk.person.tap("F12")
            return f"{found}; {player.end()}; then {len(desktop.held())} are held"

    yield "play: killed with -9", run(lambda player, _: player.process.kill())
    yield "play: killed with SIGTERM", run(lambda player, _: player.process.terminate())
    yield "play: the window is closed", run(lambda _, window: window.destroy())
    yield "play: the window is minimised", run(lambda _, window: window.minimise())
    with contextlib.closing(ToyWindow("A letter", place=(500, 0))) as letter:
        found = run(lambda *_: (letter.focus(), letter.seen()))
        typed = sum(kind == X.KeyPress for kind, _ in letter.seen())
        yield "play: another window gets the focus", f"{typed} keys went there; {found}"
    yield "play: the window is resized", run(lambda _, window: window.place(width=200, height=200), plays_on=True)
    yield "play: the window is moved", run(lambda _, window: window.place(x=10, y=10), plays_on=True)


def alignment(desk: Desk, presses: int) -> Iterator[tuple[str, str]]:
    """The window is white while W is held; how many frames lie between a press and its flash?"""
    rng, out, is_over, injected = random.Random(0), desk.new(), threading.Event(), np.zeros(2, int)
    with contextlib.closing(desk.window(colour=0)) as window:
        painted: list[float] = []

        def flash() -> None:
            while not is_over.wait(0.001):
                for kind, _ in window.seen():
                    window.paint(0xFFFFFF if kind == X.KeyPress else 0)
                    painted.extend([time.perf_counter()] * (kind == X.KeyPress))

        game = threading.Thread(target=flash)
        game.start()
        recorder = desk.record(out)
        desk.person.tap("F9")
        time.sleep(1)
        moves = 0
        for _ in range(presses):
            for do in (desk.person.press, desk.person.release):
                do("w")
                ends = time.monotonic() + rng.uniform(0.12, 0.3)
                while time.monotonic() < ends:
                    counts = [int(rng.choice((1, -1)) * 2 ** rng.uniform(0, 12)) for _ in range(2)]
                    desk.person.move(*counts)
                    injected += counts
                    moves += 1
                    time.sleep(rng.uniform(0, 0.02))
        time.sleep(1)
        desk.person.tap("F12")
        end = recorder.end()
        is_over.set()
        game.join()
    data = ZarrGameplayDataset(out)
    white = data.frames(0, range(data.episodes[0].length))[:, :, 12, 18].mean(axis=1) > 128
    held = data.actions(0)[:, data.action_names.index("go")]
    flashes, labels = (np.flatnonzero(np.diff(row.astype(int), prepend=0) == 1) for row in (white, held))
    events = Events.read(out / "episode_0" / EVENTS)
    frames = f"{len(labels)} labels and {len(flashes)} flashes of {presses} presses"
    if len(labels) == len(flashes) == len(painted):
        # The window itself answers late on a busy machine: then the flash is later, too.
        paints = np.searchsorted(events.frame_times, painted, "right") - 1
        frames += f"; the flash is later than the label by {counted(flashes - labels)}"
        frames += f", than the frame in which the window turned white by {counted(flashes - paints)}"
    yield f"{presses} presses at random times, {FPS} frames/s", f"{frames}; {end}"
    recorded, noted = data.axes(0).astype(float).sum(axis=0), events.of_kind("motion")
    in_events = [float(noted.column(c).sum()) for c in "xy"]
    what = f"{moves:,} motions of 1 to 4,096 counts"
    yield what, f"injected {injected.tolist()}, in labels {recorded.tolist()}, in events {in_events}"


def counted(frames: np.ndarray) -> str:
    return ", ".join(f"{n} ({c} times)" for n, c in zip(*np.unique(frames, return_counts=True), strict=True))


def main() -> None:
    parts = {"kills": kills, "record": record_faults, "play": play_faults, "alignment": alignment}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--presses", type=int, default=200)
    options = parser.parse_args()
    more = {"kills": (options.kills,), "alignment": (options.presses,)}
    print("| what | what became of it |\n|---|---|")
    with tempfile.TemporaryDirectory() as folder, screen(), openbox(Path(folder)):
        desk = Desk(Path(folder))
        for name in options.only:
            for what, found in parts[name](desk, *more.get(name, ())):
                print(f"| {what} | {found} |", flush=True)
        desk.person.close()


if __name__ == "__main__":
    main()
