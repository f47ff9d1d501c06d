"""A scripted person plays before a real window; what is recorded is what they did."""

import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from dataset_files import user_error
from rich.console import Console
from scripted_person import Room, ScriptedPerson, VirtualPad, at

from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.schema import RecordConfig
from BC_training.play.human.options import PersonOptions
from BC_training.play.record import record

CONFIG = RecordConfig("scripted/game", "human", episodes=1, frame_size=(24, 32))


def played(
    out: Path, script, config: RecordConfig = CONFIG, starts: dict[int, str] | None = None, **options
) -> tuple[ZarrGameplayDataset | None, str]:
    """What is recorded of a person who plays by ``script``, and what is printed."""
    Room.follow(script, starts)
    console = Console(file=StringIO(), width=200)
    record(out, config, None, console, PersonOptions(**options))
    return ZarrGameplayDataset(out) if out.exists() else None, console.file.getvalue()


def held(data: ZarrGameplayDataset) -> dict[str, list[int]]:
    """In which frames of the first episode each button is held."""
    frames = {n: np.flatnonzero(data.actions(0)[:, i]).tolist() for i, n in enumerate(data.action_names)}
    return {name: where for name, where in frames.items() if where}


def moved(data: ZarrGameplayDataset) -> dict[str, dict[int, float]]:
    """The amounts of each axis in the frames where there are any."""
    amounts = {name: data.axes(0)[:, i].tolist() for i, name in enumerate(data.axis_names)}
    return {name: {t: v for t, v in enumerate(values) if v} for name, values in amounts.items() if any(values)}


def test_what_is_recorded_equals_what_was_done_frame_by_frame(tmp_path):
    """Keys held and tapped, mouse buttons and counts; frame 0 is what is held when the game starts."""
    done = {
        1: lambda p: p.press("w"),
        3: lambda p: p.tap("space"),
        5: lambda p: (p.release("w"), p.press("Up")),
        6: lambda p: p.move(24, -3),
        7: lambda p: (p.move(-8, 0), p.move(-8, 0), p.release("Up")),
        9: lambda p: p.click(1),
        11: lambda p: p.press("d"),
        12: lambda p: p.press("a"),
        13: lambda p: p.release("a", "d"),
        14: lambda p: p.tap("1"),
    }
    data, _ = played(tmp_path / "x.zarr", at(done))
    assert data.episodes[0].length == Room.length
    assert held(data) == {"move_forward": [1, 2, 3, 4, 5, 6, 7], "attack": [3, 9], "turn_left": [14]}
    assert moved(data) == {"turn": {6: 3.0, 7: -2.0}, "steering": {11: 1.0}}
    np.testing.assert_array_equal(data.frames(0, range(Room.length))[:, 0, 0, 0], range(Room.length))
    assert data.episodes[0].attrs["player"] == data.episodes[0].attrs["label"] == "human"
    assert data.fps == 100


def test_an_episode_is_discarded_and_recorded_again_as_the_person_wishes(tmp_path):
    """Two are asked for. The first is discarded while it is paused, played, discarded when it is over, played again."""
    script, before = at({5: lambda p: p.tap("Escape", "BackSpace")}), {2: "BackSpace"}
    data, said = played(tmp_path / "x.zarr", script, replace(CONFIG, episodes=2), before)
    assert [(e.name, e.attrs["seed"], e.length) for e in data.episodes] == [
        ("episode_0", 10_000, Room.length),
        ("episode_1", 10_001, Room.length),
    ]
    assert said.count("episode_0: 20 frames") == 2, said
    assert sorted(p.name for p in (tmp_path / "x.zarr").iterdir()) == ["episode_0", "episode_1", "zarr.json"]


def test_a_pause_adds_no_frame_and_what_is_pressed_meanwhile_is_not_recorded(tmp_path):
    data, _ = played(tmp_path / "x.zarr", at({4: lambda p: [p.tap(k) for k in ("Escape", "w", "space", "Return")]}))
    assert data.episodes[0].length == Room.length
    assert held(data) == {}


@pytest.mark.parametrize(("unfinished", "answer", "kept"), [
    ("keep", (), [4]), ("drop", (), []), ("ask", ("Return",), [4]), ("ask", ("BackSpace",), []), ("ask", None, [4]),
])  # fmt: skip
@pytest.mark.parametrize("way", ["quit", "close"])
def test_an_episode_that_the_person_quits_is_kept_or_dropped_as_asked(tmp_path, unfinished, answer, kept, way):
    def leave(person):
        person.tap("F10") if way == "quit" else person.close_window("scripted/game")
        person.close_window("scripted/game") if answer is None else person.tap(*answer)

    data, said = played(tmp_path / "x.zarr", at({4: leave}), unfinished=unfinished)
    assert [e.length for e in data.episodes] == kept if kept else data is None
    assert "no episode was recorded" in said or data.episodes[0].attrs["unfinished"] is True


def test_who_quits_between_two_episodes_keeps_those_before(tmp_path):
    data, _ = played(tmp_path / "x.zarr", at({}), replace(CONFIG, episodes=3), {1: "F10"}, unfinished="keep")
    assert [e.length for e in data.episodes] == [Room.length]


def test_a_game_of_turns_waits_for_a_press_and_takes_each_once(tmp_path):
    """A key that stays down is one press."""
    turns = {t: lambda p, t=t: p.tap("space") if t % 3 else p.press("w") for t in range(Room.length)}
    turns |= {t: lambda p: (p.release("w"), p.tap("1")) for t in range(1, Room.length, 3)}
    data, _ = played(tmp_path / "x.zarr", at(turns), replace(CONFIG, game="scripted/game?turns=true"))
    t = range(Room.length)
    expected = {"move_forward": t[::3], "attack": t[2::3], "turn_left": t[1::3]}
    assert held(data) == {name: list(frames) for name, frames in expected.items()}


def test_a_pad_is_recorded_and_without_it_the_game_stands_still_and_loses_nothing(tmp_path):
    pad = VirtualPad()

    def unplug(person: ScriptedPerson) -> None:
        pad.detach()
        pad.attach()
        person.tap("Return")

    done = {
        2: lambda p: pad.attach(),
        5: lambda p: pad.press(0, True),  # A
        6: lambda p: pad.press(0, False),
        8: lambda p: pad.push(2, 18_842),  # the right stick, half way between the dead zone's end and its own
        10: lambda p: pad.push(2, 3_000),  # within the dead zone
        12: lambda p: pad.push(2, -32_768),
        13: unplug,
        14: unplug,  # the second time it is another to SDL
        15: lambda p: pad.press(0, True),
    }
    data, _ = played(tmp_path / "x.zarr", at(done))
    assert data.episodes[0].length == Room.length
    assert held(data) == {"attack": [5, 6, *range(15, 20)]}
    assert moved(data)["turn"] == pytest.approx({8: 2.5, 9: 2.5, 12: -5.0}, rel=1e-3)


def test_who_takes_over_from_a_player_labels_the_frames_in_which_they_do(tmp_path):
    """The random player acts in the others; its frames carry its own actions."""
    config = replace(CONFIG, player="random", label="human")
    script = at(
        {
            4: lambda p: p.press("Tab"),
            5: lambda p: p.tap("w"),
            8: lambda p: p.release("Tab"),
            12: lambda p: p.tap("Tab"),
        }
    )
    data, _ = played(tmp_path / "x.zarr", script, config)
    assert data.episodes[0].attrs["human_frames"] == [[4, 8], [12, 12]]
    mine = data.actions(0)[[4, 5, 6, 7, 8, 12]]
    np.testing.assert_array_equal(mine, [[t == 5, False, False] for t in (4, 5, 6, 7, 8, 12)])
    assert data.actions(0)[[0, 1, 2, 3, 9, 10, 11]].any()
    assert (data.episodes[0].attrs["player"], data.episodes[0].attrs["label"]) == ("random", "human")


def test_without_a_display_or_the_package_one_line_says_so(tmp_path, monkeypatch):
    monkeypatch.delenv("DISPLAY")
    assert "no display" in user_error(record, tmp_path / "x.zarr", CONFIG, None, Console(file=StringIO()))
    monkeypatch.setitem(sys.modules, "pygame", None)
    assert "uv sync --extra window" in user_error(record, tmp_path / "x.zarr", CONFIG, None, Console(file=StringIO()))
    assert not (tmp_path / "x.zarr").exists()
