import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from conversions import converted

from BC_training.common.action import Action
from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.errors import UserError
from BC_training.common.storage.writer import EpisodeWriter, Names, recording
from BC_training.convert.source import Options
from BC_training.convert.window_events.reader import open_source
from BC_training.play.live.events import EVENTS, Event, Events

FPS = 20.0
COUNT = 12


def write(path: Path, rows: list[Event], missing: int | None = None) -> None:
    """An episode of frames 0, 1, ..., of which one may be missing, and another without events."""
    shown = [t for t in range(COUNT + 1) if t != missing]
    frames = [Event(100 + t / FPS, "frame") for t in shown]
    with recording(path, Names(("W",), (), ("number",))):
        for number in range(2):
            writer = EpisodeWriter(path, number)
            for t in shown[:-1]:
                writer.append(np.full((3, 8, 12), t, np.uint8), Action.of([False], []), np.float32([t]))
            episode = writer.commit({"fps": FPS, "player": "human", "late_frames": 2})
            if number == 0:
                Events.of([*frames, *rows]).write(episode / EVENTS)


def at(frame: float, kind: str, device: str = "", name: str = "", x: float = 0.0) -> Event:
    return Event(100 + frame / FPS, kind, device, name, x)


ROWS = [
    *(at(2.5, "press", "key", "W"), at(4.2, "release", "key", "W"), at(9.6, "press", "key", "E")),
    *(at(t + 0.5, "motion", x=t) for t in range(COUNT)),
]


@pytest.fixture
def keybinds(tmp_path) -> Path:
    file = tmp_path / "keys.json"
    binds = {"go": {"key": "W"}, "use": {"key": "E"}}
    file.write_text(json.dumps({"version": "2.0", "actions": binds, "axes": {"turn": {"mouse": "X"}}}))
    return file


def labels(out: Path) -> tuple[list[int], list[list[int]], list[float]]:
    """Of episode 0 the frames, which still have their state, where each button is held, and the axis."""
    data = ZarrGameplayDataset(out)
    frames = data.frames(0, range(data.episodes[0].length))[:, 0, 0, 0].tolist()
    assert data.state_names == ("number",)
    assert data.state(0)[:, 0].tolist() == frames
    return frames, [np.flatnonzero(column).tolist() for column in data.actions(0).T], data.axes(0)[:, 0].tolist()


def test_a_source_that_was_read_goes_into_other_processes(tmp_path, keybinds):
    write(tmp_path / "a.zarr", ROWS)
    source = open_source(tmp_path / "a.zarr", Options("events", keybinds=keybinds))
    first = next(iter(source.read("episode_0").steps))
    again = next(iter(pickle.loads(pickle.dumps(source)).read("episode_0").steps))
    assert (first[0] == again[0]).all()
    assert first[1].buttons.tolist() == again[1].buttons.tolist()


def test_labels_are_made_again_with_other_keybinds(tmp_path, keybinds):
    write(tmp_path / "a.zarr", ROWS)
    said = converted(tmp_path / "a.zarr", tmp_path / "b.zarr", "events", keybinds=keybinds)
    frames = list(range(COUNT))
    assert labels(tmp_path / "b.zarr") == (frames, [[2, 3, 4], [9, 10, 11]], frames)
    assert "1 episodes without events.parquet are left out" in said
    kept = ZarrGameplayDataset(tmp_path / "b.zarr").episodes[0].attrs
    assert kept["player"] == "human"
    assert "late_frames" not in kept


def test_at_a_lower_rate_buttons_are_those_of_all_frames_and_motion_is_their_sum(tmp_path, keybinds):
    write(tmp_path / "a.zarr", ROWS)
    converted(tmp_path / "a.zarr", tmp_path / "b.zarr", "events", keybinds=keybinds, fps=10.0)
    frames = list(range(0, COUNT, 2))
    assert labels(tmp_path / "b.zarr") == (frames, [[1, 2], [4, 5]], [2 * t + 1 for t in frames])
    assert ZarrGameplayDataset(tmp_path / "b.zarr").fps == 10.0


def test_a_shift_moves_labels_by_frames_of_the_new_rate(tmp_path, keybinds):
    write(tmp_path / "a.zarr", ROWS)
    converted(tmp_path / "a.zarr", tmp_path / "b.zarr", "events", keybinds=keybinds, fps=10.0, shift=1.0)
    frames = list(range(0, COUNT - 2, 2))  # what is done after the last frame is not known
    assert labels(tmp_path / "b.zarr") == (frames, [[0, 1], [3, 4]], [2 * t + 5 for t in frames])


def test_a_gap_stays_as_long_as_it_was_at_a_lower_rate(tmp_path, keybinds):
    write(tmp_path / "a.zarr", ROWS, missing=4)
    converted(tmp_path / "a.zarr", tmp_path / "b.zarr", "events", keybinds=keybinds, fps=10.0)
    assert labels(tmp_path / "b.zarr")[0] == [0, 2, 5, 6, 8, 10]


def test_what_cannot_be_labelled_is_one_line(tmp_path, keybinds, make_dataset):
    write(tmp_path / "a.zarr", ROWS)
    make_dataset(tmp_path / "other.zarr", [3])
    for source, options, message in (
        ("a.zarr", {}, "needs --keybinds FILE"),
        ("a.zarr", {"keybinds": keybinds, "shift": -1.0}, "--shift -1 is no number of frames"),
        ("a.zarr", {"keybinds": keybinds, "fps": 40.0}, "--fps 40 is above the recording's 20"),
        ("other.zarr", {"keybinds": keybinds}, "has no episode with events.parquet"),
    ):
        with pytest.raises(UserError, match=message):
            converted(tmp_path / source, tmp_path / "b.zarr", "events", **options)
    (tmp_path / "a.zarr/episode_0" / EVENTS).write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match=r"cannot read .*events.parquet"):
        converted(tmp_path / "a.zarr", tmp_path / "b.zarr", "events", keybinds=keybinds)
