"""What looking at a game's window and playing in it cost: capture, injection and CPU.

    uv run benchmarks/window.py [--game window/TITLE] [--rates 20 60] [--seconds 20] [--size 72x128]

Without ``--game`` it starts dsda-doom at 1280x720 (apt install xvfb dsda-doom freedoom) on an X server of its own.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from BC_training.common.action import Action
from BC_training.common.errors import UserError
from BC_training.games import GameSpec
from BC_training.games.window.desktop import Desktop, WindowQuery
from BC_training.games.window.game import WindowGame, letterboxed
from BC_training.games.window.platform import open_desktop

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests" / "helpers"))

DOOM = (
    *("/usr/games/dsda-doom", "-iwad", "/usr/share/games/doom/freedoom1.wad", "-vidmode", "software"),
    *("-window", "-geometry", "1280x720", "-nosound", "-nomusic", "-warp", "1", "1", "-skill", "1", "-nomonsters"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--game", help="a window that is open, window/TITLE")
    parser.add_argument("--rates", type=float, nargs="+", default=[20, 60], help="frames per second")
    parser.add_argument("--seconds", type=float, default=20, help="of each rate")
    parser.add_argument("--size", default="72x128", help="HxW of the frames")
    options = parser.parse_args()
    height, width = map(int, options.size.split("x"))
    with doom() if options.game is None else contextlib.nullcontext(options.game) as spec:
        name = GameSpec.parse(spec).name
        with contextlib.closing(open_desktop()) as desktop:
            window = desktop.find(WindowQuery.parse(name)).id
            place = desktop.geometry(window)
            print(f"{name}, {place.width}x{place.height} -> {options.size}, load {os.getloadavg()[0]:.1f}")
            report("capture", lambda: desktop.grab(window))
            picture = desktop.grab(window)
            report("scaling", lambda: letterboxed(picture, (height, width)))
            report("focus", lambda: desktop.has_focus(window))
            report("injection", lambda: inject(desktop))
            report("reading what was injected", desktop.events, before=lambda: inject(desktop))
        for fps in options.rates:
            with contextlib.closing(WindowGame(name, frame_size=(height, width), fps=fps)) as game:
                look(game, fps, options.seconds)


def inject(desktop: Desktop) -> None:
    """A key that no game uses and a motion there and back."""
    desktop.press(("key", "SCROLLLOCK"))
    desktop.release(("key", "SCROLLLOCK"))
    desktop.move(1, 0)
    desktop.move(-1, 0)


def report(what: str, do: Callable[[], object], times: int = 300, before: Callable[[], object] = lambda: None) -> None:
    took = []
    for _ in range(times):
        before()
        start = time.perf_counter()
        do()
        took.append(time.perf_counter() - start)
    print(f"{what}: {quantiles(took)}")


def quantiles(seconds: list[float]) -> str:
    return "p50 {:.2f}, p99 {:.2f} ms".format(*np.percentile(np.array(seconds) * 1000, [50, 99]))


def look(game: WindowGame, fps: float, seconds: float) -> None:
    """Steps at a rate, without an action."""
    late, missed, rest = [], 0, Action.of()
    game.reset()
    began, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - began < seconds:
        _, _, _, _, info = game.step(rest)
        late.append(info["late"])
        missed += info["missed"]
    share = (time.process_time() - cpu) / (time.perf_counter() - began)
    print(f"{fps:g} fps: {len(late)} frames, {missed} missed, late {quantiles(late)}, {share:.1%} of a core")


@contextlib.contextmanager
def doom() -> Iterator[str]:
    """Doom in a window of its own, on a screen that nobody sees."""
    from scripted_person import screen

    with screen("1600x900x24"), tempfile.TemporaryDirectory() as home:
        environment = os.environ | {"HOME": home, "XDG_RUNTIME_DIR": home, "SDL_AUDIODRIVER": "dummy"}
        process = subprocess.Popen(DOOM, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            with contextlib.closing(open_desktop()) as desktop:
                while not any("doom" in window.title for window in desktop.windows()):
                    time.sleep(0.1)
            time.sleep(2)
            yield "window/doom"
        finally:
            process.kill()  # it asks whether to quit
            process.wait()


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
