"""Parses Doom's files: demos (``.lmp``, or the DEMO lumps of a WAD) and WADs.

A demo of Doom 1.4 to 1.9 (version byte 104 to 109; 111 is 1.9 with finer turns) has a header of 13 bytes:
version, skill (from 0), episode, map, deathmatch, respawn, fast, nomonsters, viewpoint, and one flag for
each of four players. Then follow 4 bytes per player and tic (1/35 s): forward and side (int8), turn (int8,
positive is left; 111: int16, little-endian), buttons. The byte 0x80 ends it.
(https://doomwiki.org/wiki/Demo, and ``G_ReadDemoTiccmd`` of dsda-doom's g_game.c.)
"""

import os
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from BC_training.common.errors import UserError

BUTTONS = ("move_forward", "move_backward", "move_left", "move_right", "turn_left", "turn_right", "attack", "use")
LONG_TURNS = 111  # the version with turns of 16 bits
VERSIONS = (*range(104, 110), LONG_TURNS)

_HEADER, _END = 13, 0x80
_ATTACK, _USE, _SPECIAL = 1, 2, 128


@dataclass(frozen=True)
class Demo:
    """A demo's inputs."""

    version: int  # the header's first byte
    skill: int  # 1 to 5
    episode: int
    map: int
    player: int  # whose view and inputs these are, 1 to 4
    actions: np.ndarray  # bool [N, 8], the ``BUTTONS`` of each tic
    turns: np.ndarray  # float32 [N], the degrees that each tic turns to the right


def parse_demo(raw: bytes) -> Demo:
    """Reads a demo and ignores what follows its end (some programs add a footer).

    Raises a UserError if the bytes are no demo, a demo of another version, or cut off.
    """
    version = raw[0] if raw else None
    if version is not None and (version < 5 or version >= 200):
        name = "Doom 1.2 or older" if version < 5 else f"version {version}, of Boom or a later engine"
        raise UserError(f"a demo of {name}, or none at all: versions 104 to 109 and 111 (Doom 1.4 to 1.9) are read")
    players = raw[9:_HEADER]
    if version not in VERSIONS or len(players) < 4 or raw[1] > 4 or max(players) > 1 or not any(players):
        raise UserError("not a Doom demo: it has no header of version 104 to 109 or 111 (Doom 1.4 to 1.9)")
    viewpoint = raw[8]
    if viewpoint > 3 or not players[viewpoint]:
        raise UserError(f"its header shows player {viewpoint + 1}, who does not play")
    width = 5 if version == LONG_TURNS else 4
    tic = width * sum(map(bool, players))
    end = next((at for at in range(_HEADER, len(raw), tic) if raw[at] == _END), None)
    if end is None:
        raise UserError(f"cut off after {(len(raw) - _HEADER) // tic} tics: the end mark (0x80) is missing")
    inputs = np.frombuffer(raw[_HEADER:end], np.uint8).reshape(-1, tic // width, width)
    column = sum(map(bool, players[:viewpoint]))
    return Demo(version, raw[1] + 1, raw[2], raw[3], viewpoint + 1, *_inputs(inputs[:, column]))


def _inputs(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The actions, bool [N, 8], and turns, float32 [N], in one player's bytes, uint8 [N, 4 or 5]."""
    forward, side = inputs[:, 0].view(np.int8), inputs[:, 1].view(np.int8)
    is_long = inputs.shape[1] == 5
    turn = np.ascontiguousarray(inputs[:, 2:-1]).view("<i2" if is_long else np.int8)[:, 0]
    buttons = np.where(inputs[:, -1] & _SPECIAL, 0, inputs[:, -1])
    actions = np.stack(
        [forward > 0, forward < 0, side < 0, side > 0, turn > 0, turn < 0, buttons & _ATTACK != 0, buttons & _USE != 0],
        axis=1,
    )
    # Of 65,536 directions, or 256: any sum of a few turns is exact in float32.
    return actions, turn * np.float32(-360 / (65536 if is_long else 256))


@dataclass(frozen=True)
class Wad:
    """A WAD's directory."""

    kind: str  # "IWAD", a whole game, or "PWAD", additions to one
    # From name to (offset, size) in bytes; the last of several with one name counts, as in the game.
    lumps: dict[str, tuple[int, int]]


def read_wad(path: Path) -> Wad:
    """Reads the directory (https://doomwiki.org/wiki/WAD).

    Raises a UserError if the file is missing, no WAD, or cut off.
    """
    try:
        with open(path, "rb") as file:
            kind, count, start = struct.unpack("<4sii", file.read(12).ljust(12, b"\0"))
            if kind not in (b"IWAD", b"PWAD"):
                raise UserError(f"{path} is not a WAD: it starts with neither IWAD nor PWAD")
            size = file.seek(0, os.SEEK_END)
            whole = count >= 0 and start >= 0 and start + 16 * count <= size
            file.seek(start if whole else 0)
            directory = file.read(16 * count if whole else 0)
    except OSError as error:
        raise UserError(f"cannot read the WAD {path}: {error.strerror}; check the path") from error
    entries = list(struct.iter_unpack("<ii8s", directory))
    # The offset of an empty lump is meaningless.
    if not whole or any(length < 0 or (length and not 0 <= offset <= size - length) for offset, length, _ in entries):
        raise UserError(f"the WAD {path} is cut off or damaged: copy it again")
    # The bytes after a name's end are left over from another name.
    lumps = {name.split(b"\0")[0].decode("latin-1").upper(): (offset, length) for offset, length, name in entries}
    return Wad(kind.decode(), lumps)
