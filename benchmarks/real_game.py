"""The whole loop in a real game: a scripted person plays it through X events, the product records, learns and plays it.

    uv run benchmarks/real_game.py doom record train play compare film [--minutes 10] [--work data/real_game]
    uv run benchmarks/real_game.py bubbles record train play compare --minutes 4

"doom" is crispy-doom with Freedoom, without sound and monsters, and "bubbles" frozen-bubble (apt install xvfb openbox
crispy-doom freedoom frozen-bubble), in a window under openbox, on an X server of its own. What is known of each game
beside its window serves to play it as a person would, and to compare.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests" / "helpers"))

import bubble_person
import demo_alignment
import doom_walker
from scripted_person import ScriptedPerson, screen
from toy_windows import openbox, wait_until

from BC_training.games.window.clock import Ticks
from BC_training.games.window.desktop import WindowQuery
from BC_training.games.window.platform import open_desktop
from BC_training.play.live.events import EVENTS, Events

ROOT = Path(__file__).resolve().parent.parent
GAMES = {"doom": doom_walker, "bubbles": bubble_person}
FPS = 20
TRAIN = (
    *("--config", "configs/resnet_policy.yaml", "dataset.record=null", "dataset.frame_size=null"),
    *("evaluation.rollout=null", "logging.wandb.enabled=false"),
)


class Loop:
    """What is done with one game; its files are in a folder."""

    def __init__(self, game: Any, work: Path, minutes: float, play_minutes: float, decode: list[str], shift: int):
        self._game, self._work, self._minutes, self._play_minutes = game, work.resolve(), minutes, play_minutes
        self._shift, self._policy = shift, f"policy{shift or ''}"
        self._checkpoint = self._work / "checkpoints" / self._policy
        self._decode = [part for rule in decode for part in ("--decode", rule)]
        self._work.mkdir(parents=True, exist_ok=True)
        keybinds = self._work / "keybinds.json"
        keybinds.write_text(json.dumps(game.KEYBINDS), encoding="utf-8")
        self._window = ("--game", f"window/{game.TITLE}", "--keybinds", str(keybinds), "--fps", str(FPS))

    @contextlib.contextmanager
    def _started(self) -> Iterator[tuple[ScriptedPerson, subprocess.Popen]]:
        """The game in a window, and a person before it; what the game wrote of its own is kept in ``home``."""
        with screen("800x600x24"), tempfile.TemporaryDirectory() as name, openbox(Path(name)):
            self.home = Path(name)
            for file, text in self._game.FILES.items():
                (self.home / file).write_text(text, encoding="utf-8")
            private = dict.fromkeys(("HOME", "XDG_RUNTIME_DIR", "XDG_DATA_HOME"), name) | {"SDL_AUDIODRIVER": "dummy"}
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            process = subprocess.Popen(self._game.COMMAND, cwd=name, env=os.environ | private, **quiet)
            try:
                with contextlib.closing(open_desktop()) as desktop:
                    wait_until(lambda: any(self._game.TITLE in window.title for window in desktop.windows()))
                time.sleep(5)  # the game begins
                with contextlib.closing(ScriptedPerson(None)) as person:
                    yield person, process
            finally:
                process.kill()
                process.wait()

    def record(self) -> None:
        """As many episodes of a minute."""
        out = self._work / "person.zarr"
        shutil.rmtree(out, ignore_errors=True)
        arguments = ("--player", "human", *self._window, "--size", self._game.SIZE, "--all-inputs", "--out", str(out))
        with self._started() as (person, process), contextlib.ExitStack() as stack:
            player, watched = self._game.sit_down(person, process.pid, stack)
            with product("record", *arguments):
                for _ in range(round(self._minutes)):
                    person.tap("F9")
                    player.play(60)
                    person.tap("F9")
                    player.rest()
                    time.sleep(0.5)
                person.tap("F12")
            self._keep("person", watched, person)

    def train(self) -> None:
        places = f"training.checkpoint_dir={self._checkpoint.parent}", f"logging.log_dir={self._work / 'logs'}"
        shutil.rmtree(self._checkpoint, ignore_errors=True)
        dataset, program = str(self._work / "person.zarr"), [sys.executable, "-m", "BC_training"]
        subprocess.run([*program, "validate", dataset], cwd=ROOT, check=True)
        began = time.perf_counter()
        run = f"logging.run_name={self._policy}", f"dataset.action_shift={self._shift}"
        settings = (*TRAIN, *self._game.TRAIN, *places, *run, f"dataset.path={dataset}")
        subprocess.run([*program, *settings], cwd=ROOT, check=True)
        print(f"training took {(time.perf_counter() - began) / 60:.1f} minutes")

    def play(self) -> None:
        """In a fresh game."""
        out = self._work / f"{self._policy}.zarr"
        shutil.rmtree(out, ignore_errors=True)
        kept = ("--seconds", str(60 * self._play_minutes), "--record", str(out), *self._decode)
        with self._started() as (person, process):
            watched = self._game.watch(process.pid)
            with product("play", str(self._checkpoint), *self._window, *kept):
                person.tap("F9")
            self._keep(self._policy, watched, person)

    def _keep(self, who: str, watched: Any, person: ScriptedPerson) -> None:
        np.save(self._work / f"{who}.npy", watched.stop())
        if (demo := self._game.DEMO) is not None:
            person.press("q")  # the game writes its demo
            wait_until((self.home / demo).exists)
            time.sleep(0.5)
            shutil.copy(self.home / demo, self._work / f"{who}.lmp")

    def compare(self) -> None:
        """A row for each of both, with the mean and the deviation of their minutes."""
        for who in ("person", self._policy):
            watched, found = np.load(self._work / f"{who}.npy"), []
            for folder in sorted((self._work / f"{who}.zarr").glob("episode_*")):
                events = Events.read(folder / EVENTS)
                first, last = events.frame_times[[0, -1]]
                for low in np.arange(first, last - 50, 60):
                    rows = watched[(watched[:, 0] >= low) & (watched[:, 0] < low + 60)]
                    found.append(self._game.minute(rows, events, low))
            if who == "person":
                print("| | " + " | ".join(found[0]) + " |\n|---|" + "---:|" * len(found[0]))
            cells = [f"{np.mean([f[k] for f in found]):,.2f} ± {np.std([f[k] for f in found]):,.2f}" for k in found[0]]
            print(f"| {who}, {len(found)} minutes | " + " | ".join(cells) + " |")
        if self._game.DEMO is not None:
            work = self._work
            demo_alignment.align(work / "person.zarr", work / "person.lmp", np.load(work / "person.npy"))

    def film(self, seconds: float = 12) -> None:
        """Person and policy from the same start on, side by side, as an animated picture."""
        with self._started() as (person, process), contextlib.ExitStack() as stack:
            player, _ = self._game.sit_down(person, process.pid, stack)
            left = Film(self._game.TITLE, seconds)
            player.play(seconds)
            left.join()
        with (
            self._started() as (person, _),
            product("play", str(self._checkpoint), *self._window, *self._decode, "--seconds", str(seconds + 1)),
        ):
            person.tap("F9")
            right = Film(self._game.TITLE, seconds)
            right.join()
        pictures = []
        for both in zip(left.pictures, right.pictures, strict=True):
            pictures.append(Image.new("RGB", (644, 240), "white"))
            for x, picture in zip((0, 324), both, strict=True):
                pictures[-1].paste(picture, (x, 0))
        file = self._work / "side_by_side.webp"
        pictures[0].save(file, save_all=True, append_images=pictures[1:], duration=100, loop=0, quality=35, method=4)
        print(f"{file}: {file.stat().st_size / 1e6:.2f} MB")


class Film(threading.Thread):
    """Pictures of a window, uint8 [240, 320, 3], ten a second."""

    def __init__(self, title: str, seconds: float):
        super().__init__()
        self._title, self._count, self.pictures = title, round(10 * seconds), list[Image.Image]()
        self.start()

    def run(self) -> None:
        with contextlib.closing(open_desktop()) as desktop:
            window, ticks = desktop.find(WindowQuery(title=self._title)).id, Ticks(10)
            while len(self.pictures) < self._count:
                ticks.wait()
                picture = Image.fromarray(np.ascontiguousarray(desktop.grab(window)))
                self.pictures.append(picture.resize((320, 240), Image.Resampling.BOX))


@contextlib.contextmanager
def product(*arguments: str) -> Iterator[None]:
    """The program at work in the window, from when it is ready until it ends by itself."""
    command, environment = [sys.executable, "-m", "BC_training", *arguments], os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            print(process.stdout.readline(), end="")
            time.sleep(1)
            yield
            for line in process.stdout:
                print(line, end="", flush=True)
            process.wait(60)
        finally:
            process.kill()


def main() -> None:
    stages = ("record", "train", "play", "compare", "film")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("game", choices=GAMES)
    parser.add_argument("stages", nargs="+", choices=stages)
    parser.add_argument("--minutes", type=float, default=10, help="of the person's play")
    parser.add_argument("--play-minutes", type=float, default=3, help="of the policy's")
    parser.add_argument("--work", type=Path, default=Path("data/real_game"))
    parser.add_argument("--decode", action="append", default=[], help="for play, such as temperature=1")
    parser.add_argument("--shift", type=int, default=0, help="dataset.action_shift; each has a policy of its own")
    given = parser.parse_args()
    work = given.work / given.game
    loop = Loop(GAMES[given.game], work, given.minutes, given.play_minutes, given.decode, given.shift)
    for stage in given.stages:
        getattr(loop, stage)()


if __name__ == "__main__":
    main()
