"""The whole loop in a real game: a scripted person plays it through X events, the product records, learns and plays it.

    uv run benchmarks/real_game.py record train play compare [--minutes 10] [--work data/real_game]

The game is crispy-doom with Freedoom (apt install xvfb openbox crispy-doom freedoom), in a window under openbox, on an
X server of its own, without sound and monsters. ``record`` and ``play`` also have the game itself write a demo of its
inputs, and note 200 times a second where its player is: both are read by ``compare``, which says how far person and
policy came, and how well the recording's labels agree with the game's own.
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

import numpy as np
from PIL import Image

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests" / "helpers"))

from demo_alignment import align
from doom_walker import COUNTS, Level, Track, Walker, walked
from scripted_person import ScriptedPerson, screen
from toy_windows import openbox, wait_until

from BC_training.games.window.clock import Ticks
from BC_training.games.window.desktop import WindowQuery
from BC_training.games.window.platform import open_desktop
from BC_training.play.live.events import EVENTS, Events

ROOT = Path(__file__).resolve().parent.parent
WAD, LEVEL, TITLE, SIZE, FPS = Path("/usr/share/games/doom/freedoom1.wad"), "E1M1", "Crispy", "90x120", 20
GAME = (
    *("/usr/games/crispy-doom", "-iwad", str(WAD), "-warp", "1", "1", "-skill", "1", "-nomonsters", "-nosound"),
    *("-window", "-nogui", "-config", "default.cfg", "-extraconfig", "extra.cfg", "-longtics", "-record", "demo"),
)
SETTINGS = {  # keys by their scan codes: W, S, A, D, E
    "default.cfg": "key_up 17\nkey_down 31\nkey_strafeleft 30\nkey_straferight 32\nkey_use 18\nmouse_sensitivity 20\n",
    "extra.cfg": "window_width 640\nwindow_height 480\nfullscreen 0\ncrispy_widescreen 0\n"
    "mouse_acceleration 1.0\nmouse_threshold 0\nnovert 1\ndclick_use 0\n",
}
KEYBINDS = {
    "version": "2.0",
    "actions": {"forward": {"key": "W"}, "use": {"key": "E"}, "fire": {"mouse": "LEFT"}},
    "axes": {"turn": {"mouse": "X", "counts": COUNTS}},  # in degrees
}
TRAIN = (
    *(
        "dataset.record=null",
        "dataset.frame_size=null",
        "dataset.history=3",
        "evaluation.rollout=null",
        "evaluation.axes=mean",
    ),
    *("training.num_epochs=8", "logging.wandb.enabled=false", "logging.run_name=real_game"),
)


@contextlib.contextmanager
def game() -> Iterator[tuple[ScriptedPerson, Track, Path]]:
    """The game in a window, with a person before it; its demo is in the folder when it has ended."""
    with screen("800x600x24"), tempfile.TemporaryDirectory() as name, openbox(Path(name)):
        home = Path(name)
        for file, text in SETTINGS.items():
            (home / file).write_text(text)
        environment = os.environ | dict.fromkeys(("HOME", "XDG_RUNTIME_DIR", "XDG_DATA_HOME"), name)
        process = subprocess.Popen(GAME, cwd=home, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
        try:
            with contextlib.closing(open_desktop()) as desktop:
                wait_until(lambda: any(TITLE in window.title for window in desktop.windows()))
            time.sleep(2)  # the level appears
            with contextlib.closing(ScriptedPerson(None)) as person:
                track = Track(process.pid, Level(WAD, LEVEL).start)
                yield person, track, home
        finally:
            process.kill()
            process.wait()


@contextlib.contextmanager
def product(*arguments: str) -> Iterator[subprocess.Popen]:
    """The program at work in the window, until it ends by itself."""
    command = [sys.executable, "-m", "BC_training", *arguments]
    with subprocess.Popen(
        command, cwd=ROOT, env=os.environ | {"PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            print(process.stdout.readline(), end="")  # it is ready
            yield process
            for line in process.stdout:
                print(line, end="", flush=True)
            process.wait(60)
        finally:
            process.kill()


def record(work: Path, minutes: float) -> None:
    """As many episodes of a minute."""
    out, level = work / "person.zarr", Level(WAD, LEVEL)
    shutil.rmtree(out, ignore_errors=True)
    window = ("--game", f"window/{TITLE}", "--keybinds", str(work / "keybinds.json"), "--fps", str(FPS))
    with game() as (person, track, home):
        with product("record", "--player", "human", *window, "--size", SIZE, "--all-inputs", "--out", str(out)):
            walker = Walker(person, level, track, seed=0)
            for _ in range(round(minutes)):
                person.tap("F9")
                walker.play(60)
                person.tap("F9")
                walker.rest()
                time.sleep(0.5)
            person.tap("F12")
        keep(work, "person", track, home)


def keep(work: Path, who: str, track: Track, home: Path) -> None:
    """Keeps where the player was; the demo when the game has written it."""
    np.save(work / f"{who}.npy", track.stop())
    with contextlib.closing(ScriptedPerson(None)) as person:
        person.press("q")
        wait_until(lambda: (home / "demo.lmp").exists())
        time.sleep(0.2)
    shutil.copy(home / "demo.lmp", work / f"{who}.lmp")


def train(work: Path) -> None:
    out = f"training.checkpoint_dir={work / 'checkpoints'}", f"logging.log_dir={work / 'logs'}"
    shutil.rmtree(work / "checkpoints", ignore_errors=True)
    subprocess.run([sys.executable, "-m", "BC_training", "validate", str(work / "person.zarr")], cwd=ROOT, check=True)
    command = [sys.executable, "-m", "BC_training", "--config", "configs/resnet_policy.yaml", *TRAIN, *out]
    began = time.perf_counter()
    subprocess.run([*command, f"dataset.path={work / 'person.zarr'}"], cwd=ROOT, check=True)
    print(f"training took {(time.perf_counter() - began) / 60:.1f} minutes")


def play(work: Path, minutes: float) -> None:
    out, checkpoint = work / "policy.zarr", work / "checkpoints" / "real_game"
    shutil.rmtree(out, ignore_errors=True)
    window = ("--game", f"window/{TITLE}", "--keybinds", str(work / "keybinds.json"), "--fps", str(FPS))
    kept = ("--seconds", str(60 * minutes), "--record", str(out), "--json", str(work / "played.json"))
    with game() as (person, track, home):
        with product("play", str(checkpoint), *window, *kept):
            track.rows.clear()
            person.tap("F9")
        keep(work, "policy", track, home)


class Film(threading.Thread):
    """Pictures of the window, uint8 [240, 320, 3], ten a second."""

    def __init__(self, seconds: float):
        super().__init__()
        self._count, self.pictures = round(10 * seconds), list[Image.Image]()
        self.start()

    def run(self) -> None:
        with contextlib.closing(open_desktop()) as desktop:
            window, ticks = desktop.find(WindowQuery(title=TITLE)).id, Ticks(10)
            while len(self.pictures) < self._count:
                ticks.wait()
                picture = Image.fromarray(np.ascontiguousarray(desktop.grab(window)))
                self.pictures.append(picture.resize((320, 240), Image.Resampling.BOX))


def film(work: Path, seconds: float) -> None:
    """Person and policy from the same start on, side by side, as an animated picture."""
    with game() as (person, track, _):
        walker, shown = Walker(person, Level(WAD, LEVEL), track, seed=1), Film(seconds)
        walker.play(seconds)
        shown.join()
    window = ("--game", f"window/{TITLE}", "--keybinds", str(work / "keybinds.json"), "--fps", str(FPS))
    with (
        game() as (person, _, _),
        product("play", str(work / "checkpoints" / "real_game"), *window, "--seconds", str(seconds)),
    ):
        person.tap("F9")
        played = Film(seconds)
        played.join()
    pictures = []
    for left, right in zip(shown.pictures, played.pictures, strict=True):
        both = Image.new("RGB", (644, 240), "white")
        both.paste(left, (0, 0))
        both.paste(right, (324, 0))
        pictures.append(both)
    file = work / "side_by_side.webp"
    pictures[0].save(file, save_all=True, append_images=pictures[1:], duration=100, loop=0, quality=35, method=4)
    print(f"{file}: {file.stat().st_size / 1e6:.2f} MB")


def recorded_spans(dataset: Path) -> list[tuple[float, float]]:
    """When each episode began and ended."""
    times = [Events.read(folder / EVENTS).frame_times for folder in sorted(dataset.glob("episode_*"), key=number)]
    return [(float(t[0]), float(t[-1])) for t in times]


def number(folder: Path) -> int:
    return int(folder.name.split("_")[1])


def compare(work: Path) -> None:
    """How far person and policy came."""
    print(
        "| | units a minute | degrees a minute | places of 128 units in a minute | at rest |\n|---|---:|---:|---:|---:|"
    )
    for who in ("person", "policy"):
        track = np.load(work / f"{who}.npy")
        spans = recorded_spans(work / f"{who}.zarr")
        minutes = [(low, low + 60) for first, last in spans for low in np.arange(first, last - 50, 60)]
        found = [walked(track[(track[:, 0] >= low) & (track[:, 0] < high)]) for low, high in minutes]
        cells = [f"{np.mean([f[k] for f in found]):,.2f} ± {np.std([f[k] for f in found]):,.2f}" for k in found[0]]
        print(f"| {who}, {len(found)} minutes | " + " | ".join(cells) + " |")
    align(work / "person.zarr", work / "person.lmp", np.load(work / "person.npy"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="+", choices=["record", "train", "play", "compare", "film"])
    parser.add_argument("--minutes", type=float, default=10, help="of the person's play")
    parser.add_argument("--play-minutes", type=float, default=3, help="of the policy's")
    parser.add_argument("--work", type=Path, default=Path("data/real_game"))
    given = parser.parse_args()
    given.work = given.work.resolve()
    given.work.mkdir(parents=True, exist_ok=True)
    (given.work / "keybinds.json").write_text(json.dumps(KEYBINDS))
    for stage in given.stages:
        match stage:
            case "record":
                record(given.work, given.minutes)
            case "train":
                train(given.work)
            case "play":
                play(given.work, given.play_minutes)
            case "compare":
                compare(given.work)
            case _:
                film(given.work, seconds=15)


if __name__ == "__main__":
    main()
