"""A person's options of the command ``record``."""

import json
import sys
from pathlib import Path

import pytest
from scripted_person import Room, VirtualPad, at

from BC_training import __main__ as command_line
from BC_training.common.dataset import ZarrGameplayDataset

GAME = ["record", "--game", "scripted/game", "--size", "24x32", "--episodes", "1"]
PERSON = [*GAME, "--player", "human"]


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Runs the command in a folder of its own; returns its exit code and what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ranni", *arguments])
        try:
            command_line.main()
        except SystemExit as end:
            said = capsys.readouterr()
            return int(end.code or 0), said.out, said.err
        raise AssertionError("a command ends with an exit code")

    return run


def keys_of(call, *changes: tuple[str, str, object]) -> dict:
    """The game's keys as --show-keys prints them, with a value of a section changed; ... removes it."""
    code, out, _ = call(*PERSON, "--show-keys")
    assert code == 0
    keys = json.loads(out)
    for section, name, value in changes:
        keys[section] = {k: v for k, v in (keys[section] | {name: value}).items() if v is not ...}
    return keys


def pressed(name: str = "x.zarr") -> dict[str, list[int]]:
    """The frames of the first episode in which each button is held."""
    data = ZarrGameplayDataset(name)
    return {b: data.actions(0)[:, i].nonzero()[0].tolist() for i, b in enumerate(data.action_names)}


def test_keys_that_are_shown_are_a_file_to_change_and_record_with(call):
    Path("keys.json").write_text(json.dumps(keys_of(call, ("actions", "attack", {"key": "K"}))), encoding="utf-8")
    code, out, _ = call(*PERSON, "--keybinds", "keys.json", "--show-keys")
    assert (code, json.loads(out)["actions"]["attack"]) == (0, {"key": "K"})
    Room.follow(at({2: lambda p: p.tap("k"), 4: lambda p: p.tap("space"), 6: lambda p: p.tap("F10")}))
    code, out, _ = call(*PERSON, "--out", "x.zarr", "--keybinds", "keys.json", "--unfinished", "keep")
    assert code == 0
    assert "episode_0: 6 frames" in out
    assert pressed()["attack"] == [2]


def test_a_person_takes_over_by_the_key_that_is_named(call):
    Room.follow(at({3: lambda p: p.press("F2"), 5: lambda p: p.release("F2")}))
    assert call(*GAME, "--out", "x.zarr", "--player", "random", "--takeover", "F2")[0] == 0
    attrs = ZarrGameplayDataset("x.zarr").episodes[0].attrs
    assert (attrs["human_frames"], attrs["player"], attrs["label"]) == ([[3, 5]], "random", "human")


@pytest.mark.parametrize(("unfinished", "lengths"), [("keep", [20, 7]), ("drop", [20])])
def test_a_window_that_is_closed_in_an_episode_keeps_it_whole_or_not_at_all(call, unfinished, lengths):
    Room.follow(at({27: lambda p: p.close_window("scripted/game")}))
    assert call(*PERSON, "--episodes", "3", "--out", "x.zarr", "--unfinished", unfinished)[0] == 0
    assert [e.length for e in ZarrGameplayDataset("x.zarr").episodes] == lengths
    assert len([*Path("x.zarr").iterdir()]) == len(lengths) + 1


def test_a_pad_that_is_unplugged_for_good_keeps_the_frames_before(call):
    pad = VirtualPad()
    leave = {8: lambda p: (pad.detach(), p.tap("F10"))}
    Room.follow(at({2: lambda p: pad.attach(), 4: lambda p: pad.press(0, True)} | leave))
    assert call(*PERSON, "--out", "x.zarr", "--unfinished", "keep")[0] == 0
    assert ZarrGameplayDataset("x.zarr").episodes[0].length == 8
    assert pressed()["attack"] == [4, 5, 6, 7]


@pytest.mark.parametrize(("changes", "message"), [
    ([("actions", "atack", {"key": "K"})], "'atack'; did you mean 'attack'"),
    ([("actions", "attack", ...)], "binds nothing to the game's button 'attack'"),
    ([("actions", "attack", {"key": "W"})], "key W is bound to both 'move_forward' and 'attack'"),
    ([("axes", "turn", ...)], "binds nothing to the game's axis 'turn'"),
    ([("controls", "pause", "SPACE")], "key SPACE is bound to both 'attack' and the window's 'pause'"),
])  # fmt: skip
def test_a_file_of_keys_that_does_not_fit_is_one_line_and_nothing_is_written(call, changes, message):
    Path("keys.json").write_text(json.dumps(keys_of(call, *changes)), encoding="utf-8")
    for options in (["--out", "x.zarr"], ["--show-keys"]):
        code, _, error = call(*PERSON, "--keybinds", "keys.json", *options)
        assert (code, error.count("\n")) == (2, 1)
        assert error.startswith("error: keys.json") or "in keys.json" in error
        assert message in error
    assert [path.name for path in Path().iterdir()] == ["keys.json"]


@pytest.mark.parametrize(("options", "message"), [
    ([*PERSON, "--keybinds", "no.json"], "no.json"),
    ([*PERSON, "--unfinished", "kep"], "did you mean 'keep'"),
    ([*PERSON, "--takeover", "F2"], "name that with --player CHECKPOINT"),
    ([*PERSON, "--noise", "0.5"], "a person has none"),
    ([*GAME, "--player", "random", "--takeover", "SPACE"], "key SPACE is bound to both 'attack' and taking over"),
    ([*GAME, "--player", "random", "--takeover", "F99"], "'F99' is no key"),
    ([*GAME, "--player", "random", "--takeover", ""], "'' is no key"),
    ([*GAME, "--player", "nowhere", "--takeover", "F2"], "unknown player 'nowhere'"),
    ([*GAME, "--player", "random", "--show-keys"], "are for a person"),
    ([*GAME, "--player", "random", "--unfinished", "keep"], "are for a person"),
])  # fmt: skip
def test_bad_input_is_one_line_and_nothing_is_written(call, options, message):
    code, _, error = call(*options, "--out", "x.zarr")
    assert (code, error.count("\n")) == (2, 1)
    assert message in error
    assert not [*Path().iterdir()]


def test_without_a_display_there_is_one_line_and_nothing_is_written(call, monkeypatch):
    monkeypatch.delenv("DISPLAY")
    code, _, error = call(*PERSON, "--out", "x.zarr")
    assert (code, "error: there is no display to open a window on" in error) == (2, True)
    assert not [*Path().iterdir()]
