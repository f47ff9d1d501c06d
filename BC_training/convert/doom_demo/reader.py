"""Doom demos, a player's exact inputs, drawn by dsda-doom (https://github.com/kraflab/dsda-doom).

The source is a ``.lmp`` file, a folder of them, or a WAD whose lumps DEMO1, DEMO2, ... are the recordings;
``files.py`` describes their content and the versions that are read.

The actions are those of the player whose view is shown: the ``BUTTONS`` but for turning, and as an axis the degrees
turned to the right until the next frame. Where turns are to be buttons, these are all ``BUTTONS``, which leave out how
far the player turns. How fast the player walks, and weapon changes (bits 2 to 5 of the buttons), are left out. A tic
whose buttons have bit 7 set pauses or saves the game; it has no attack and no use.

dsda-doom draws one picture per tic, after the tic was played. The player therefore saw picture k - 1 when giving
tic k's input, and a demo of N tics makes N - 1 steps: no picture comes before the first tic. (A test shows it
with a player who stands still except for one turn.)

dsda-doom chooses the compatibility level from the demo's version and the game: Doom 1.666 below version 107,
otherwise Doom 1.9, Ultimate Doom or Final Doom. It matters: as Doom 1.9 the player of Freedoom 1's DEMO4 dies at
tic 5700 and the inputs go on; as Ultimate Doom he dies where they end. A demo that is played with other WADs or
another level than it was recorded with goes astray without a sign: the number of pictures stays right.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from BC_training.common.action import Action
from BC_training.common.errors import UserError, unknown
from BC_training.convert.doom_demo.files import BUTTONS, Demo, parse_demo, read_wad
from BC_training.convert.identity import content_digest
from BC_training.convert.source import Options, Recording, Step, every_nth
from BC_training.convert.state_values import kept_columns

FPS = 35.0  # the engine's clock
DEFAULT_SIZE = (480, 640)
TURNS = ("axis", "buttons")
SMALLEST = (200, 320)  # (H, W) in pixels that dsda-doom draws
GAMES_FOLDER = "/usr/games"  # Debian's, which is not on everyone's PATH

# The wipe is on but not captured: without it the first picture of a level is black.
_SETTINGS = """videomode "Software"
uncapped_framerate 0
render_wipescreen 1
cap_wipescreen 0
cap_fps 35
cap_videocommand "{{ echo %w %h; exec cat; }} > /dev/fd/{pipe}"
cap_soundcommand "exec cat > /dev/null"
cap_muxcommand "true"
hudadd_demoprogressbar 0
hudadd_secretarea 0
"""
_PRIVATE = ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME")


@dataclass(frozen=True)
class DoomDemos:
    """The demos at a path; see ``source.Source``."""

    program: str  # dsda-doom's path
    # From a recording's name to (file, offset, size in bytes; -1 means the whole file).
    found: dict[str, tuple[Path, int, int]]
    wads: tuple[Path, ...]  # the game's WAD, then the ones that add to it
    checksums: tuple[str, ...]  # the WADs' SHA-256 in hexadecimal
    maps: frozenset[str]  # the lumps of all WADs
    numbered: bool  # whether the game's maps are MAP01, MAP02, ... rather than E1M1, ...
    options: Options
    attributes: tuple[str, ...] = ()

    @property
    def axis_names(self) -> tuple[str, ...]:
        return ("turn",) if self.options.turn == "axis" else ()

    @property
    def button_names(self) -> tuple[str, ...]:
        return tuple(name for name in BUTTONS if not (self.axis_names and name.startswith("turn")))

    @property
    def episodes(self) -> tuple[str, ...]:
        return tuple(self.found)

    def digest(self, episode: str) -> str:
        return content_digest([self._raw(episode)])

    def place(self, episode: str) -> Path:
        return self.found[episode][0]

    def read(self, episode: str) -> Recording:
        raw = self._raw(episode)
        demo = parse_demo(raw)
        fps = self.options.fps or FPS
        if len(demo.actions) < 2:  # no picture comes before the first tic
            return Recording(fps, iter(()))
        level = f"MAP{demo.map:02}" if self.numbered else f"E{demo.episode}M{demo.map}"
        if level not in self.maps:  # dsda-doom would start another level
            games = " + ".join(wad.name for wad in self.wads)
            raise UserError(f"it is played on {level}, which is not in {games}: give its game with --iwad or --pwad")
        attrs = {
            "game": self.wads[0].name,
            "wads": {wad.name: f"sha256:{sum_}" for wad, sum_ in zip(self.wads, self.checksums, strict=True)},
            "demo": episode,
            "demo_version": demo.version,
            "skill": demo.skill,
            "episode": demo.episode,
            "map": level,
            "player": f"player {demo.player}",
        }
        return Recording(fps, every_nth(self._steps(raw, self._actions(demo)), FPS, fps, sums=True), attrs)

    def _actions(self, demo: Demo) -> list[Action]:
        """The action of each tic."""
        columns = [BUTTONS.index(name) for name in self.button_names]
        turns = demo.turns[:, None] if self.axis_names else demo.turns[:, None][:, :0]
        return [Action(*both) for both in zip(demo.actions[:, columns], turns, strict=True)]

    def _raw(self, episode: str) -> bytes:
        path, offset, size = self.found[episode]
        try:
            with open(path, "rb") as file:
                file.seek(offset)
                return file.read(size)
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from error

    def _steps(self, raw: bytes, actions: Sequence[Action]) -> Iterator[Step]:
        count, seen = 0, None
        with closing(render(self.program, self.wads, raw, self.options.size or DEFAULT_SIZE)) as pictures:
            for picture in pictures:
                if seen is not None and count < len(actions):
                    yield seen, actions[count], None
                seen, count = picture, count + 1
        if count != len(actions):
            reason = "it was recorded with another game or version; check --iwad and --pwad"
            raise UserError(f"the demo has {len(actions)} tics, dsda-doom drew {count} pictures: {reason}")


def open_source(path: Path, options: Options) -> DoomDemos:
    """Finds the demos at ``path`` and what is needed to play them.

    Raises a UserError if dsda-doom or the game's WAD is missing, or a WAD is damaged.
    """
    if sys.platform == "win32":
        raise UserError(
            "dsda-doom sends its pictures through a pipe that Windows lacks: convert demos on Linux or in WSL"
        )
    program = shutil.which("dsda-doom") or shutil.which("dsda-doom", path=GAMES_FOLDER)
    if program is None:
        raise UserError(
            "dsda-doom, which draws the demos, is not installed: 'apt install dsda-doom' on Debian and Ubuntu, "
            "elsewhere a download of kraflab/dsda-doom on GitHub"
        )
    kept_columns((), options.leave_out)
    if options.turn not in TURNS:
        raise unknown("form of turns", options.turn, TURNS, "with --turn")
    found: dict[str, tuple[Path, int, int]] = {}
    wads = [] if options.iwad is None else [options.iwad, *options.pwads]
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.suffix.lower() == ".lmp")
        found = {f"{path.resolve().name}/{p.relative_to(path).as_posix()}": (p, 0, -1) for p in files}
    elif path.suffix.lower() == ".lmp":
        found = {path.name: (path, 0, -1)}
    else:
        opened = read_wad(path)
        demos = sorted(name for name in opened.lumps if name.startswith("DEMO") and name[4:].isdigit())
        found = {f"{path.name}/{name}": (path, *opened.lumps[name]) for name in demos}
        if not wads and opened.kind == "IWAD":
            wads = [path, *options.pwads]
        elif all(wad.resolve() != path.resolve() for wad in wads):
            if opened.kind == "IWAD":
                raise UserError(f"{path} is itself a game, which its demos are played with: leave out --iwad")
            wads.append(path)
    if not wads or (opened_game := read_wad(wads[0])).kind != "IWAD":
        what = f"{wads[0]} is no whole game (a PWAD)" if wads else f"{path} does not hold its game"
        raise UserError(f"{what}: give the game's WAD, such as --iwad freedoom2.wad")
    added = [read_wad(wad) for wad in wads[1:]]
    return DoomDemos(
        program=program,
        found=found,
        wads=tuple(wads),
        checksums=tuple(_sha256(wad) for wad in wads),
        maps=frozenset().union(*(wad.lumps for wad in (opened_game, *added))),
        numbered="MAP01" in opened_game.lumps,
        options=options,
    )


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def render(program: str, wads: tuple[Path, ...], demo: bytes, size: tuple[int, int]) -> Generator[np.ndarray]:
    """Plays a demo with dsda-doom, which ends when the generator is closed.

    It yields one picture uint8 [3, H, W] RGB of ``size`` per tic, drawn at the smallest whole multiple of ``size``
    that dsda-doom supports. A view wider than 4:3 shows more at the sides, as the engine's own wide screen does.
    If dsda-doom fails, a UserError has its last line.
    """
    multiple = max(-(-low // side) for low, side in zip(SMALLEST, size, strict=True))
    height, width = multiple * size[0], multiple * size[1]
    with tempfile.TemporaryDirectory(prefix="doom-demo-", ignore_cleanup_errors=True) as name:
        folder = Path(name)  # everything that dsda-doom writes goes here
        reading, writing = os.pipe()
        with open(reading, "rb") as stream:
            try:
                (folder / "demo.lmp").write_bytes(demo)
                (folder / "settings.cfg").write_text(_SETTINGS.format(pipe=writing), encoding="utf-8")
                process = _start(program, wads, folder, (height, width), writing)
            finally:
                os.close(writing)  # then the stream ends with the process
            try:
                yield from _pictures(stream, (height, width))
                if process.wait() != 0:
                    lines = (folder / "log").read_text(encoding="utf-8", errors="replace").split("\n")
                    printed = [line.strip() for line in lines if line.strip()]
                    raise UserError(f"dsda-doom could not play it: {printed[-1] if printed else 'it printed nothing'}")
            finally:
                process.kill()
                process.wait()


def _start(program: str, wads: tuple[Path, ...], folder: Path, size: tuple[int, int], pipe: int) -> subprocess.Popen:
    command = [program, "-iwad", str(wads[0].resolve())]
    if len(wads) > 1:
        command += ["-file", *(str(wad.resolve()) for wad in wads[1:])]
    command += ["-config", "settings.cfg", "-height", str(size[0]), "-width", str(size[1]), "-window"]
    command += ["-nosound", "-nojoy", "-nomouse", "-noautoload", "-viddump", "none", "-timedemo", "demo.lmp"]
    private = dict.fromkeys(_PRIVATE, str(folder)) | {"SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy"}
    with open(folder / "log", "wb") as log:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | private,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=(pipe,),
            start_new_session=True,  # Ctrl-C reaches only this process, which then ends it
        )


def _pictures(stream: BinaryIO, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Reads "W H", then pictures uint8 [H, W, 3], a whole multiple of ``size``; yields uint8 [3, *size]."""
    header = stream.readline().split()
    if not header:
        return  # dsda-doom ended before it drew anything
    width, height = int(header[0]), int(header[1])
    step = height // size[0]  # dsda-doom enlarges a small picture, each pixel to a square; undo that
    if (height, width) != (step * size[0], step * size[1]):
        raise UserError(f"dsda-doom draws {height}x{width}, not {size[0]}x{size[1]}: choose another --size")
    while len(picture := stream.read(3 * height * width)) == 3 * height * width:
        pixels = np.frombuffer(picture, np.uint8).reshape(height, width, 3)
        yield np.ascontiguousarray(np.moveaxis(pixels[::step, ::step], -1, 0))
