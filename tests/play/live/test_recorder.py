import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import zarr
from av.error import ExternalError
from live_recording import TITLE, ScriptedDesktop, record
from rich.console import Console
from scripted_person import VirtualPad
from toy_windows import ToyWindow, wait_until
from Xlib import X

from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.errors import UserError
from BC_training.common.storage.video_writer import VideoWriter
from BC_training.play.live import episode, recorder
from BC_training.play.live.events import EVENTS, Events
from BC_training.play.live.labels import AUTO
from BC_training.play.live.pads import Pads
from BC_training.validate.validate import validate

BINDS = {
    "version": "2.0",
    "actions": {"go": {"key": "W"}, "fire": {"mouse": "LEFT", "key": "SPACE"}, "next": {"mouse": "WHEELUP"}},
    "axes": {"turn": {"mouse": "X", "counts": 4}, "look": {"mouse": "Y", "less": {"key": "LEFT"}, "pad": "LEFTX"}},
}
WHITE = 0xFFFFFF


@pytest.fixture
def window(person) -> Iterator[ToyWindow]:
    with closing(ToyWindow(TITLE, place=(0, 0), size=(400, 300))) as window:
        window.focus()
        person.move(-800, -600)
        person.move(100, 100)
        yield window


@pytest.fixture
def keybinds(tmp_path) -> Path:
    file = tmp_path / "keybinds.json"
    file.write_text(json.dumps(BINDS))
    return file


def pressed(data: ZarrGameplayDataset, episode: int = 0) -> dict[str, list[int]]:
    """The frames in which each button is held, of those that are."""
    columns = zip(data.action_names, data.actions(episode).T, strict=True)
    return {name: np.flatnonzero(column).tolist() for name, column in columns if column.any()}


def moved(data: ZarrGameplayDataset, episode: int = 0) -> dict[str, dict[int, float]]:
    columns = zip(data.axis_names, data.axes(episode).T, strict=True)
    return {name: {int(t): float(column[t]) for t in np.flatnonzero(column)} for name, column in columns}


def attrs(out: Path, episode: int = 0) -> dict:
    return dict(zarr.open_group(out / f"episode_{episode}", mode="r").attrs)


@pytest.mark.parametrize("lossless", [True, False])
def test_what_is_recorded_equals_what_was_done_frame_by_frame(
    tmp_path, monkeypatch, window, person, keybinds, lossless
):
    """And the window sees no hotkey."""
    out, pad = tmp_path / "mine.zarr", VirtualPad()
    script = {
        1: pad.attach,
        2: lambda: person.tap("F9"),
        4: lambda: person.press("w"),
        6: lambda: (person.release("w"), person.move(8, -3), person.move(-20, 0)),
        7: lambda: (person.tap("w"), person.click(1)),
        8: lambda: (person.click(4), person.tap("q")),
        9: lambda: (person.press("Left", "space"), pad.push(0, -32768)),
        10: lambda: (person.release("Left"), pad.push(0, 32767)),
        11: pad.detach,
        13: lambda: person.tap("F9"),
        14: lambda: (person.release("space"), person.tap("F12")),
    }
    said = record(monkeypatch, out, script, keybinds, lossless=lossless)
    data = ZarrGameplayDataset(out)
    assert data.episodes[0].length == 10  # the last frame, whose action no other ended, is left out
    assert pressed(data) == {"go": [1, 2, 3, 4], "fire": [4, 6, 7, 8, 9], "next": [5]}
    assert moved(data) == {"turn": {3: -3.0}, "look": {3: -3.0, 6: -1.0}}  # at 7 key and stick cancel out
    assert len([kind for kind, _ in window.seen() if kind == X.KeyPress]) == 5
    assert attrs(out)["game"] == f"window/{TITLE}?fps=50"
    assert (data.frames(0, [0])[0, :, 12, 18] == [255, 0, 0]).all() or not lossless
    assert sum("Q pressed" in line for line in said) == 1
    assert {entry.name for entry in out.iterdir()} == {"zarr.json", "episode_0"}


def test_a_pad_that_appears_while_a_policy_plays_is_not_read(display):
    """It may be the one that the policy presses."""
    for hotplug in (True, False):
        with closing(Pads(hotplug)) as pads:
            pad = VirtualPad()
            pad.attach()
            pads.events()
            pad.press(0, True)
            assert [row.name for row in pads.events() if row.kind == "press"] == ["A"] * hotplug
            pad.detach()


def test_the_frame_in_which_a_window_flashes_is_the_one_after_its_keys(tmp_path, monkeypatch, window, person, keybinds):
    def flash(key: str, colour: int) -> None:
        """The window answers when the key has reached it."""
        (person.press if colour else person.release)(key)
        wait_until(window.seen)
        window.paint(colour)

    presses = range(4, 40, 4)
    script = {2: lambda: person.tap("F9"), 45: lambda: person.tap("F12")}
    for look in presses:
        script |= {look: lambda: flash("w", WHITE), look + 1: lambda: flash("w", 0)}
    record(monkeypatch, tmp_path / "x.zarr", script, keybinds, lossless=True)
    data = ZarrGameplayDataset(tmp_path / "x.zarr")
    frames = data.frames(0, range(data.episodes[0].length))
    flashes = np.flatnonzero((frames[:, :, 12, 18] == 255).all(axis=1))
    onsets = np.flatnonzero(np.diff(data.actions(0)[:, 0], prepend=False) & data.actions(0)[:, 0])
    assert len(flashes) == len(presses)
    assert (flashes - onsets == 1).all()


def test_what_a_mouse_moves_is_recorded_to_the_count(tmp_path, monkeypatch, window, person):
    rng, looks = np.random.default_rng(0), range(4, 24)
    counts = {look: rng.integers(-3000, 3000, (30, 2)) for look in looks}
    script = {look: lambda look=look: [person.move(*map(int, xy)) for xy in counts[look]] for look in looks}
    script |= {2: lambda: person.tap("F9"), 27: lambda: person.tap("F12")}
    record(monkeypatch, tmp_path / "x.zarr", script, AUTO)
    data = ZarrGameplayDataset(tmp_path / "x.zarr")
    expected = np.zeros((data.episodes[0].length, 2))
    for look, moved_by in counts.items():
        expected[look - 3] = moved_by.sum(axis=0)
    assert data.axis_names == ("mouse_x", "mouse_y")
    np.testing.assert_array_equal(data.axes(0), expected)


def test_only_what_is_typed_into_the_window_is_recorded(tmp_path, monkeypatch, window, person, keybinds):
    """What is held when the focus goes counts as released, and what is held when it comes back as pressed."""
    with closing(ToyWindow("A letter", place=(500, 0))) as other:
        script = {
            2: lambda: person.tap("F9"),
            4: lambda: person.press("w"),
            6: other.focus,
            7: lambda: person.tap("space"),
            8: lambda: (person.release("w"), person.move(50, 50)),
            9: lambda: (person.press("space"), window.focus()),
            11: lambda: person.release("space"),
            13: lambda: person.tap("F12"),
        }
        record(monkeypatch, tmp_path / "x.zarr", script, keybinds)
    data = ZarrGameplayDataset(tmp_path / "x.zarr")
    assert pressed(data) == {"go": [1, 2], "fire": [6, 7, 8]}
    assert moved(data) == {"turn": {}, "look": {}}
    assert attrs(tmp_path / "x.zarr")["unfocused"] == [[2, 6]]
    noted = Events.read(tmp_path / "x.zarr/episode_0" / EVENTS)
    assert noted.buttons() == {("key", "W"), ("key", "SPACE")}
    assert not len(noted.of_kind("motion").table)


def test_a_click_beside_the_window_is_not_recorded(tmp_path, monkeypatch, window, person, keybinds):
    script = {
        2: lambda: (person.tap("F9"), person.move(400, 300)),
        4: lambda: (person.click(1), person.click(4), person.tap("w")),
        6: lambda: person.tap("F12"),
    }
    record(monkeypatch, tmp_path / "x.zarr", script, keybinds)
    assert pressed(ZarrGameplayDataset(tmp_path / "x.zarr")) == {"go": [1]}


def test_what_programs_press_is_left_out_unless_it_is_asked_for(tmp_path, monkeypatch, window, person, keybinds):
    script = {
        2: lambda: person.tap("F9"),
        4: lambda: (person.tap("w"), person.move(5, 0)),
        6: lambda: person.tap("F12"),
    }
    said = record(monkeypatch, tmp_path / "x.zarr", script, keybinds, all_inputs=False)
    assert pressed(ZarrGameplayDataset(tmp_path / "x.zarr")) == {}
    assert any("2 presses and motions of programs were left out: --all-inputs" in line for line in said)


def test_a_window_that_is_hidden_ends_the_episode_and_one_that_is_closed_all(
    tmp_path, monkeypatch, window, person, keybinds
):
    out = tmp_path / "x.zarr"
    script = {
        2: lambda: person.tap("F9"),
        5: lambda: window.place(width=100, height=300),
        8: window.hide,
        10: lambda: (window.show(), window.focus()),
        12: lambda: person.tap("F9"),
        15: window.destroy,
    }
    said = record(monkeypatch, out, script, keybinds, lossless=True)
    data = ZarrGameplayDataset(out)
    assert [episode.length for episode in data.episodes] == [5, 2]
    wide, narrow = data.frames(0, [0, 4])
    assert [image.any(axis=(0, 1)).sum() for image in (wide, narrow)] == [32, 8]  # of 36 columns, by 24 rows
    assert any("hidden" in line for line in said)
    assert any("was closed: the recording ends" in line for line in said)


def test_episodes_are_discarded_while_they_go_on_and_after(tmp_path, monkeypatch, window, person, keybinds):
    taps = ["F9", "F10", "F9", "F9", "F10", "F9", "F9", "F9", "F10", "F12"]
    script = {3 * i: lambda key=key: person.tap(key) for i, key in enumerate(taps, 1)}
    said = record(monkeypatch, tmp_path / "x.zarr", script, keybinds)
    assert sum("is discarded" in line for line in said) == 3
    assert [e.name for e in ZarrGameplayDataset(tmp_path / "x.zarr").episodes] == ["episode_0"]


def test_with_auto_each_key_is_a_button_and_later_sessions_keep_the_names(tmp_path, monkeypatch, window, person):
    out = tmp_path / "x.zarr"

    def session(*keys: str) -> list[str]:
        script = {
            2: lambda: person.tap("F9"),
            4: lambda: person.tap(*keys),
            6: lambda: (person.click(5), person.move(7, 0)),
            8: lambda: person.tap("F12"),
        }
        return record(monkeypatch, out, script, AUTO)

    session("w", "comma")
    data = ZarrGameplayDataset(out)
    assert (data.action_names, data.axis_names) == ((",", "W", "mouse_WHEELDOWN"), ("mouse_x",))
    assert pressed(data) == {",": [1], "W": [1], "mouse_WHEELDOWN": [3]}
    assert moved(data) == {"mouse_x": {3: 7.0}}
    said = session("w", "e")
    assert pressed(ZarrGameplayDataset(out), 1) == {"W": [1], "mouse_WHEELDOWN": [3]}
    assert any("E pressed, for which this dataset has no button" in line for line in said)


def test_a_second_recorder_of_a_dataset_is_refused(tmp_path, monkeypatch, window, person, keybinds):
    refused = []

    def second() -> None:
        script = ScriptedDesktop.script
        with pytest.raises(UserError, match="another process is recording into") as caught:
            record(monkeypatch, tmp_path / "x.zarr", {0: lambda: None}, keybinds)
        refused.append(caught)
        ScriptedDesktop.script = script

    script = {2: lambda: person.tap("F9"), 4: second, 6: lambda: person.tap("F12")}
    record(monkeypatch, tmp_path / "x.zarr", script, keybinds)
    assert refused
    assert ZarrGameplayDataset(tmp_path / "x.zarr").episodes[0].length == 3


def test_frames_that_were_missed_are_told(tmp_path, monkeypatch, window, person, keybinds):
    script = {2: lambda: person.tap("F9"), 5: lambda: time.sleep(0.13), 8: lambda: person.tap("F12")}
    record(monkeypatch, tmp_path / "x.zarr", script, keybinds)
    gaps = attrs(tmp_path / "x.zarr")["gaps"]
    assert [frame for frame, missing in gaps if missing >= 5] == [4]  # 3 is late itself


def test_a_kill_costs_the_last_seconds_and_the_next_start_finishes_the_rest(
    tmp_path, monkeypatch, window, person, keybinds
):
    processes = []
    for name, hotkeys in (("video", "F1,F2,F3"), ("lossless", "F4,F5,F6")):
        command = [sys.executable, "-m", "BC_training", "record", "--player", "human", "--all-inputs", f"--{name}"]
        command += ["--game", f"window/{TITLE}", "--fps", "50", "--size", "24x36", "--out", str(tmp_path / name)]
        command += ["--keybinds", str(keybinds), "--hotkeys", hotkeys]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    lines = [process.stdout.readline() for process in processes]
    assert all("starts and stops an episode" in line for line in lines)
    begun = time.monotonic()
    person.tap("F1", "F4")
    while time.monotonic() < begun + 6:
        person.tap("w")
        time.sleep(0.5)
    for process in processes:
        process.send_signal(signal.SIGKILL)
        process.wait()
    seconds = time.monotonic() - begun
    for process, name in zip(processes, ("video", "lossless"), strict=True):
        process.stdout.close()
        said = record(monkeypatch, tmp_path / name, {2: lambda: person.tap("F12")}, keybinds)
        assert any("episode_0 is what was left of a recording that was cut off" in line for line in said)
        data = ZarrGameplayDataset(tmp_path / name)
        assert seconds - 5.5 < data.episodes[0].length / 50 <= seconds
        assert attrs(tmp_path / name)["recovered"]
        assert len(pressed(data)["go"]) >= 2
        assert data.frames(0, range(data.episodes[0].length)).any(axis=(1, 2, 3)).all()
        assert not list((tmp_path / name).glob(".partial*"))


def test_what_a_kill_left_of_a_dataset_without_names_is_named_by_all_keys(
    tmp_path, monkeypatch, window, person, keybinds
):
    def fail() -> None:
        raise KeyboardInterrupt

    out = tmp_path / "x.zarr"
    script = {2: lambda: person.tap("F9"), 4: lambda: person.tap("w"), 7: fail}
    with monkeypatch.context() as patch:
        patch.setattr(recorder.Session, "close", lambda session: session._episode.close())  # as a kill, but for threads
        with pytest.raises(KeyboardInterrupt):
            record(patch, out, script, AUTO)
    assert list(out.glob(".partial-live*"))
    assert not (out / "episode_0").exists()
    script = {2: lambda: person.tap("F9"), 4: lambda: person.tap("e"), 7: lambda: person.tap("F12")}
    record(monkeypatch, out, script, AUTO)
    data = ZarrGameplayDataset(out)
    assert [pressed(data, episode) for episode in (0, 1)] == [{"W": [1]}, {"E": [1]}]
    with pytest.raises(UserError, match="holds other actions"):
        record(monkeypatch, out, script, keybinds)


def test_an_interruption_keeps_the_episode_as_far_as_it_was_recorded(tmp_path, monkeypatch, window, person, keybinds):
    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    script = {2: lambda: person.tap("F9"), 6: interrupt}
    with pytest.raises(SystemExit):
        record(monkeypatch, tmp_path / "x.zarr", script, keybinds)
    assert ZarrGameplayDataset(tmp_path / "x.zarr").episodes[0].length == 3


def test_a_full_disk_keeps_what_was_recorded_for_the_next_start(tmp_path, monkeypatch, window, person, keybinds):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("may not mount a small disk here")
    try:

        def fill() -> None:
            with contextlib.suppress(OSError):
                (disk / "full").write_bytes(bytes(1 << 21))

        monkeypatch.setattr(episode, "_LIVE_SECONDS", 0.2)
        script = {2: lambda: person.tap("F9"), 60: fill, 300: lambda: person.tap("F12")}
        with pytest.raises(UserError, match=r"disk that holds .* is full"):
            record(monkeypatch, disk / "x.zarr", script, keybinds, lossless=True)
        (disk / "full").unlink()
        record(monkeypatch, disk / "x.zarr", {2: lambda: person.tap("F12")}, keybinds)
        assert ZarrGameplayDataset(disk / "x.zarr").episodes[0].length > 45
    finally:
        subprocess.run(["umount", disk], check=True)


def test_an_encoder_that_fails_ends_the_recording_with_what_there_is(tmp_path, monkeypatch, window, person, keybinds):
    append = VideoWriter.append

    def failing(writer: VideoWriter, frame: np.ndarray) -> None:
        if writer.frame_count == 20:
            raise ExternalError(1, "Generic error")
        append(writer, frame)

    monkeypatch.setattr(VideoWriter, "append", failing)
    script = {2: lambda: person.tap("F9"), 15: lambda: person.tap("w"), 300: lambda: person.tap("F12")}
    with pytest.raises(UserError, match=r"cannot be written any more .*Generic error.*: what came before is kept"):
        record(monkeypatch, tmp_path / "x.zarr", script, keybinds)
    data = ZarrGameplayDataset(tmp_path / "x.zarr")
    assert data.episodes[0].length == 20
    assert pressed(data) == {"go": [12]}


def test_the_end_of_the_desktop_is_said_in_one_line_and_keeps_what_was_recorded(
    tmp_path, monkeypatch, window, person, keybinds
):
    script = {2: lambda: person.tap("F9"), 5: lambda: person.tap("w"), 9: ScriptedDesktop.lose}
    with pytest.raises(UserError, match="the desktop has ended, and the game with it"):
        record(monkeypatch, tmp_path / "x.zarr", script, keybinds)
    data = ZarrGameplayDataset(tmp_path / "x.zarr")
    assert data.episodes[0].length == 6
    assert pressed(data) == {"go": [2]}


def test_the_system_s_clock_may_be_set_while_a_recording_goes_on(tmp_path, monkeypatch, window, person, keybinds):
    """Nothing but the date of the recording depends on it."""
    now = itertools.cycle((2e9, 1e9, 0.0))
    monkeypatch.setattr(time, "time", lambda: next(now))
    monkeypatch.setattr(time, "time_ns", lambda: int(1e9 * next(now)))
    with closing(ToyWindow("A letter", place=(500, 0))) as other:
        window.focus()
        script = {2: lambda: person.tap("F9"), 5: lambda: person.tap("w"), 7: other.focus, 9: window.focus}
        record(monkeypatch, tmp_path / "x.zarr", script | {12: lambda: person.tap("F12")}, keybinds)
    data = ZarrGameplayDataset(tmp_path / "x.zarr")
    assert data.episodes[0].length == 9
    assert pressed(data) == {"go": [2]}
    assert attrs(tmp_path / "x.zarr")["unfocused"] == [[3, 6]]
    assert Events.read(tmp_path / "x.zarr/episode_0" / EVENTS).frame_times[0] < 1e9


def test_hotkeys_that_cannot_be_used_are_refused_before_anything_is_written(
    tmp_path, monkeypatch, window, person, keybinds
):
    for hotkeys, message in ((("F9", "F10"), "name three keys"), (("F9", "W", "F12"), "hotkey W is bound in the game")):
        with pytest.raises(UserError, match=message):
            record(monkeypatch, tmp_path / "x.zarr", {0: lambda: None}, keybinds, hotkeys=hotkeys)
    assert not (tmp_path / "x.zarr").exists()


def test_a_recording_passes_validation(tmp_path, monkeypatch, window, person, keybinds):
    script = {2: lambda: person.tap("F9"), 40: lambda: person.tap("F12")}
    for look in range(4, 40, 2):
        script[look] = lambda look=look: (person.tap("w"), window.paint(look * 0x050301))
    record(monkeypatch, tmp_path / "x.zarr", script, keybinds)
    findings = validate(tmp_path / "x.zarr", Console(quiet=True))
    assert not [finding for finding in findings if finding.severity == "error"]
