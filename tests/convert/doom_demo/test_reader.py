"""Doom demos are parsed, drawn by dsda-doom and paired with their inputs, or refused in one line."""

import contextlib
import io
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from conversions import converted, opened
from dataset_files import read_array, read_episode, user_error
from hypothesis import given, settings
from hypothesis import strategies as st

from BC_training.common.errors import UserError
from BC_training.convert.doom_demo import reader as doom_demo
from BC_training.convert.doom_demo.files import BUTTONS, LONG_TURNS, VERSIONS, parse_demo, read_wad

FREEDOOM = Path("/usr/share/games/doom/freedoom1.wad")
needs_game = pytest.mark.skipif(
    not FREEDOOM.exists() or not (shutil.which("dsda-doom") or shutil.which("dsda-doom", path=doom_demo.GAMES_FOLDER)),
    reason="dsda-doom and freedoom are not installed (apt install dsda-doom freedoom)",
)


def header(version: int = 109, level: tuple[int, int] = (1, 1), viewpoint: int = 0, players=(1, 0, 0, 0)) -> bytes:
    return bytes([version, 3, *level, 0, 0, 0, 0, viewpoint, *players])


def tics(*inputs: tuple[int, int, int, int], long: bool = False) -> bytes:
    """(forward, side, turn, buttons) each."""
    return b"".join(struct.pack("<bbhB" if long else "<bbbB", *one) for one in inputs)


def write_wad(path: Path, kind: bytes, lumps: dict[str, bytes]) -> Path:
    data, directory = b"", b""
    for name, content in lumps.items():
        directory += struct.pack("<ii8s", 12 + len(data), len(content), name.encode())
        data += content
    path.write_bytes(struct.pack("<4sii", kind, len(lumps), 12 + len(data)) + data + directory)
    return path


@pytest.fixture
def program(monkeypatch, tmp_path) -> Path:
    """The only program in PATH: a dsda-doom that fails."""
    folder = tmp_path / "bin"
    folder.mkdir()
    file = folder / "dsda-doom"
    file.write_text("#!/bin/sh\necho starting\necho 'cannot do that'\necho\nexit 3\n")
    file.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return file


moves = st.integers(-127, 127)
inputs = st.lists(st.tuples(moves, moves, moves, st.integers(0, 255)), max_size=20)


@given(inputs, st.sampled_from(VERSIONS), st.binary(max_size=9))
def test_signs_and_bits_become_actions(given_inputs, version, footer):
    demo = parse_demo(header(version, (2, 5)) + tics(*given_inputs, long=version == LONG_TURNS) + b"\x80" + footer)
    assert (demo.version, demo.skill, demo.episode, demo.map, demo.player) == (version, 4, 2, 5, 1)
    assert demo.actions.shape == (len(given_inputs), len(BUTTONS))
    for row, (forward, side, turn, buttons) in zip(demo.actions, given_inputs, strict=True):
        pressed = {
            "move_forward": forward > 0,
            "move_backward": forward < 0,
            "move_left": side < 0,
            "move_right": side > 0,
            "turn_left": turn > 0,
            "turn_right": turn < 0,
            "attack": buttons < 128 and buttons % 2 == 1,
            "use": buttons < 128 and buttons // 2 % 2 == 1,
        }
        assert dict(zip(BUTTONS, row.tolist(), strict=True)) == pressed
    circle = 65536 if version == LONG_TURNS else 256  # what a turn is a share of
    assert demo.turns.tolist() == [-360 * turn / circle for _, _, turn, _ in given_inputs]


AHEAD, BACK, ATTACK = (50, 0, 0, 0), (-50, 0, 0, 0), (0, 0, 0, 1)


@pytest.mark.parametrize(("raw", "player", "pressed"), [
    # Long turns that are smaller than one short turn count.
    (header(LONG_TURNS) + tics((0, 0, 200, 0), (0, 0, -200, 0), long=True), 1, ["turn_left", "turn_right"]),
    # The inputs are those of the player whose view is shown.
    (header(viewpoint=2, players=(1, 0, 1, 1)) + tics(AHEAD, ATTACK, BACK, BACK, AHEAD, ATTACK), 3,
     ["attack", "move_forward"]),
    # 0x80 ends a demo only where a tic begins.
    (header() + tics((-1, 0, -128, 128), (2, 0, 0, 0)), 1, ["move_backward", "move_forward"]),
])  # fmt: skip
def test_a_demo_is_parsed(raw, player, pressed):
    demo = parse_demo(raw + b"\x80")
    assert demo.player == player
    assert [BUTTONS[row.argmax()] for row in demo.actions] == pressed


@pytest.mark.parametrize(("raw", "message"), [
    *[(raw, "not a Doom demo") for raw in (b"", b"made by hand, this is text", header()[:12])],
    (header(players=(0, 0, 0, 0)) + b"\x80", "not a Doom demo"),
    (header(110) + b"\x80", "not a Doom demo"),
    (bytes([109, 5]) + header()[2:] + b"\x80", "not a Doom demo"),  # skill 6
    (header(viewpoint=1) + b"\x80", "shows player 2, who does not play"),
    (header(3) + b"\x80", "a demo of Doom 1.2 or older"),
    (header(203) + b"\x80", "a demo of version 203, of Boom"),
    (header() + tics((1, 1, 1, 0), (1, 1, 1, 0)), "cut off after 2 tics"),
    (header() + tics((1, 1, 1, 0)) + b"\x01", "cut off after 1 tics"),
])  # fmt: skip
def test_bytes_that_are_no_whole_demo_are_refused(raw, message):
    assert message in user_error(parse_demo, raw)


@settings(max_examples=20)
@given(st.dictionaries(st.text("ABCXYZ019", min_size=1, max_size=8), st.binary(max_size=20), max_size=6))
def test_the_lumps_of_a_wad_are_found(tmp_path_factory, lumps):
    path = write_wad(tmp_path_factory.mktemp("wad") / "x.wad", b"PWAD", lumps)
    wad = read_wad(path)
    raw = path.read_bytes()
    assert wad.kind == "PWAD"
    assert {name: raw[at : at + size] for name, (at, size) in wad.lumps.items()} == lumps


@pytest.mark.parametrize(("directory", "place"), [
    *[(directory, (0, 0)) for directory in ((-1, 12), (1, -1), (2**31 - 1, 12), (1, 2**31 - 1), (2, 12))],
    *[((1, 12), place) for place in ((-4, 8), (12, -1), (20, 9), (2**31 - 1, 2**31 - 1))],
])  # fmt: skip
def test_a_directory_or_a_lump_beyond_the_file_is_refused(tmp_path, directory, place):
    path = tmp_path / "x.wad"
    path.write_bytes(struct.pack("<4sii", b"IWAD", *directory) + struct.pack("<ii8s", *place, b"E1M1"))
    assert "x.wad is cut off or damaged: copy it again" in user_error(read_wad, path)


def test_meaningless_bytes_in_a_directory_are_ignored(tmp_path):
    path = tmp_path / "x.wad"
    path.write_bytes(struct.pack("<4sii", b"IWAD", 1, 12) + struct.pack("<ii8s", -7, 0, b"e1m1\0LD"))
    assert read_wad(path).lumps == {"E1M1": (-7, 0)}


@given(st.binary(max_size=60), st.sampled_from([b"", b"IWAD", b"PWAD"]), st.sampled_from(VERSIONS))
def test_any_bytes_are_parsed_or_refused(tmp_path_factory, content, start, version):
    path = tmp_path_factory.getbasetemp() / "any.wad"
    path.write_bytes(start + content)
    with contextlib.suppress(UserError):
        assert all(0 <= size <= len(content) for _, size in read_wad(path).lumps.values())
    for raw in (content, bytes([version]) + content, header(version) + content):
        with contextlib.suppress(UserError):
            assert parse_demo(raw).actions.shape[1] == len(BUTTONS)


DEMO = header() + tics((50, 0, 0, 0), (0, 0, 0, 1)) + b"\x80"


def test_demos_are_found_in_a_wad_a_folder_and_a_file(program, tmp_path):
    game = write_wad(tmp_path / "game.wad", b"IWAD", {"E1M1": b"", "DEMO2": DEMO, "DEMO1": DEMO, "DEMOX": b""})
    (tmp_path / "a").mkdir()
    for name in ("a/z.lmp", "a.LMP", "b.txt"):
        (tmp_path / name).write_bytes(DEMO)
    found = opened(game, "doom-demo")
    assert (found.episodes, found.wads) == (("game.wad/DEMO1", "game.wad/DEMO2"), (game,))
    found = opened(tmp_path, "doom-demo", iwad=game)
    assert set(found.episodes) == {f"{tmp_path.name}/{name}" for name in ("a/z.lmp", "a.LMP")}
    assert opened(tmp_path / "a.LMP", "doom-demo", iwad=game).episodes == ("a.LMP",)


def test_a_wad_that_adds_to_a_game_is_loaded_with_it(program, tmp_path):
    game = write_wad(tmp_path / "game.wad", b"IWAD", {"MAP01": b""})
    levels = write_wad(tmp_path / "levels.wad", b"PWAD", {"MAP07": b"", "DEMO1": header(level=(1, 7)) + DEMO[13:]})
    for game_wad in (None, levels):
        message = user_error(opened, levels, "doom-demo", iwad=game_wad)
        assert "levels.wad is no whole game (a PWAD): give the game's WAD" in message
    source = opened(levels, "doom-demo", iwad=game)
    assert source.wads == (game, levels)
    attrs = source.read("levels.wad/DEMO1").attrs
    assert (attrs["map"], attrs["game"], list(attrs["wads"])) == ("MAP07", "game.wad", ["game.wad", "levels.wad"])


def test_a_demo_that_cannot_be_played_is_refused(monkeypatch, program, tmp_path):
    monkeypatch.chdir(tmp_path)
    game = write_wad(Path("game.wad"), b"IWAD", {"E1M1": b"", "DEMO1": DEMO})
    write_wad(Path("other.wad"), b"IWAD", {"E1M1": b""})
    Path("a.lmp").write_bytes(DEMO)
    Path("short.lmp").write_bytes(DEMO[:-1])
    Path("other.lmp").write_bytes(header(level=(1, 7)) + DEMO[13:])
    Path("text.wad").write_text("no wad", encoding="utf-8")

    def refused(message: str, source: Path | str, **options: Any) -> None:
        assert message in user_error(converted, Path(source), Path("out.zarr"), "doom-demo", **options)

    refused("a.lmp does not hold its game: give the game's WAD", "a.lmp")
    refused("cannot read the WAD none.wad: No such file", "a.lmp", iwad=Path("none.wad"))
    refused("text.wad is not a WAD", "text.wad")
    refused("game.wad is itself a game, which its demos are played with", game, iwad=Path("other.wad"))
    refused("short.lmp: cut off after 2 tics", "short.lmp", iwad=game)
    refused("played on E1M7, which is not in game.wad", "other.lmp", iwad=game)
    refused("dsda-doom could not play it: cannot do that", game)
    program.write_text("#!/bin/sh\nexit 0\n")
    refused("the demo has 2 tics, dsda-doom drew 0 pictures", game)
    refused("unknown form of turns 'axes'; did you mean 'axis'?", game, turn="axes")
    refused("--fps 70 is above the recording's 35", game, fps=70)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(doom_demo, "GAMES_FOLDER", "")
    refused("is not installed: 'apt install dsda-doom'", game)


def test_a_demo_without_a_picture_is_an_empty_recording(program, tmp_path):
    game = write_wad(tmp_path / "game.wad", b"IWAD", {"DEMO1": header() + b"\x80"})
    assert list(opened(game, "doom-demo").read("game.wad/DEMO1").steps) == []


def test_enlarged_pictures_are_reduced_and_other_sizes_are_refused():
    picture = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    enlarged = b"12 8\n" + 2 * picture.repeat(2, 0).repeat(2, 1).tobytes()
    for one in doom_demo._pictures(io.BytesIO(enlarged), (4, 6)):
        np.testing.assert_array_equal(one, picture.transpose(2, 0, 1))
    assert len(list(doom_demo._pictures(io.BytesIO(enlarged[:-1]), (4, 6)))) == 1  # the second is cut off
    message = user_error(list, doom_demo._pictures(io.BytesIO(enlarged), (4, 5)))
    assert "dsda-doom draws 8x12, not 4x5: choose another --size" in message


@needs_game
def test_a_real_demo_is_drawn(tmp_path):
    """Draws the first tics of one of Freedoom's demos at the given size and rate."""
    offset, _ = read_wad(FREEDOOM).lumps["DEMO1"]
    raw = FREEDOOM.read_bytes()[offset : offset + 13 + 4 * 100] + b"\x80"
    (tmp_path / "a.lmp").write_bytes(raw)
    wanted: dict[str, Any] = {"size": (72, 128), "fps": 17.5, "iwad": FREEDOOM}
    converted(tmp_path / "a.lmp", tmp_path / "out.zarr", "doom-demo", **wanted)
    demo = parse_demo(raw)
    pairs = np.concatenate([demo.actions[1:], np.zeros((1, 8), bool)]).reshape(50, 2, 8).any(axis=1)
    kept = [k for k, name in enumerate(BUTTONS) if not name.startswith("turn")]
    np.testing.assert_array_equal(read_array(tmp_path / "out.zarr", "actions"), pairs[:, kept])
    # The picture before the first tic is not drawn; every other tic's turn is in one frame, exactly.
    inputs = np.frombuffer(raw[17:-1], np.int8).reshape(-1, 4)
    degrees = np.concatenate([inputs[:, 2], [0]]).reshape(50, 2).sum(axis=1) * -360 / 256
    np.testing.assert_array_equal(read_array(tmp_path / "out.zarr", "axes"), degrees[:, None])
    assert np.abs(degrees).max() > 5
    names = dict(zarr.open_group(tmp_path / "out.zarr").attrs)
    assert (names["keys"], names["axes"]) == ([BUTTONS[k] for k in kept], ["turn"])
    converted(tmp_path / "a.lmp", tmp_path / "buttons.zarr", "doom-demo", turn="buttons", **wanted)
    np.testing.assert_array_equal(read_array(tmp_path / "buttons.zarr", "actions"), pairs)
    assert zarr.open_group(tmp_path / "buttons.zarr").attrs["keys"] == list(BUTTONS)
    assert not (tmp_path / "buttons.zarr" / "episode_0" / "axes").exists()
    frames = read_array(tmp_path / "out.zarr", "frames")
    np.testing.assert_array_equal(read_array(tmp_path / "buttons.zarr", "frames"), frames)
    assert frames.shape == (50, 3, 72, 128)
    attrs = read_episode(tmp_path / "out.zarr").attrs
    assert [attrs[name] for name in ("fps", "game", "map", "skill")] == [17.5, "freedoom1.wad", "E1M4", 4]
    red, _, blue = frames[0, :, 62:70, 22:44].astype(int)  # the health, written in red
    assert red.max() > 120 > 60 > blue[red == red.max()].max()


@needs_game
def test_an_action_belongs_to_the_picture_before_its_effect(tmp_path):
    """Shows it with a player who stands still except for two turns: the view moves in the picture after each."""
    left, right, shot = 30, 40, 50
    raw = [(0, 0, 0, 0)] * 60
    raw[left], raw[right], raw[shot] = (0, 0, 10, 0), (0, 0, -10, 0), (0, 0, 0, 1)
    (tmp_path / "a.lmp").write_bytes(header(level=(1, 2)) + tics(*raw) + b"\x80")
    source = opened(tmp_path / "a.lmp", "doom-demo", size=(240, 320), iwad=FREEDOOM, turn="buttons")
    steps = list(source.read("a.lmp").steps)
    pressed = [(k, BUTTONS[column]) for k, step in enumerate(steps, start=1) for column in step[1].buttons.nonzero()[0]]
    assert (len(steps), pressed) == (59, [(left, "turn_left"), (right, "turn_right"), (shot, "attack")])
    view = np.stack([frame[:, 20:150].mean(axis=(0, 1)) for frame, _, _ in steps])  # mean of each column
    moved = np.abs(np.diff(view, axis=0)).mean(axis=1)  # [k]: from picture k to k + 1
    assert set(np.argsort(moved[20:45])[-2:] + 20) == {left - 1, right - 1}  # step k holds the input of tic k + 1

    def moved_by(before: int) -> int:
        a, b = view[before][40:-40], view[before + 1]
        return min(range(-39, 40), key=lambda shift: np.abs(a - b[40 + shift : 280 + shift]).mean())

    assert moved_by(left - 1) > 0  # when the player turns left, the view goes right
    assert moved_by(right - 1) < 0


@needs_game
def test_the_game_ends_when_the_reader_stops(monkeypatch, tmp_path):
    started, start = [], doom_demo._start

    def remembered(program, wads, folder, size, pipe):
        started.append((start(program, wads, folder, size, pipe), folder))
        return started[-1][0]

    monkeypatch.setattr(doom_demo, "_start", remembered)
    (tmp_path / "a.lmp").write_bytes(header() + tics((0, 0, 0, 0)) * 2000 + b"\x80")
    source = opened(tmp_path / "a.lmp", "doom-demo", size=(72, 128), iwad=FREEDOOM)
    steps = source.read("a.lmp").steps
    next(steps)
    ((process, folder),) = started
    assert (process.poll(), folder.exists()) == (None, True)
    del steps
    assert process.poll() is not None
    assert not folder.exists()
