"""Conversions of any kind recognise their recordings, and a failure costs one recording."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import h5py
import hdf5_recordings
import numpy as np
import pytest
import recorded_sessions
from conversions import converted, opened
from dataset_files import read_episode, user_error
from lerobot_datasets import write_v30
from rich.console import Console

import BC_training.convert
from BC_training.common.action import Action
from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.storage.store import LocalStore
from BC_training.common.storage.writer import EpisodeWriter
from BC_training.convert.doom_demo import reader as doom_demo
from BC_training.convert.identity import sampled
from BC_training.convert.lerobot.export import export
from BC_training.convert.source import Options, Recording, every_nth

N = 6


def run(source, out, kind="minari", **options):
    """The printed text, and the dataset's number of episodes afterwards."""
    return converted(source, out, kind, **options), len(LocalStore(out).episode_names())


def minari(folder, seed=0, episodes=2):
    rng = np.random.default_rng(seed)
    folder = hdf5_recordings.minari(folder, None, None, {"type": "Discrete", "n": 3}, episodes, fps=10)
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        for i in range(episodes):
            file[f"episode_{i}/observations"] = rng.integers(0, 256, (N + 1, 8, 12, 3), np.uint8)
            file[f"episode_{i}/actions"] = rng.integers(0, 3, N)
    return folder


def test_sources_with_the_same_name_are_distinguished(tmp_path):
    first, second = minari(tmp_path / "a/game/v0"), minari(tmp_path / "b/game/v0", seed=1)
    out = tmp_path / "out.zarr"
    for source, count in ((first, 2), (second, 4), (first, 4), (second, 4)):
        assert run(source, out)[1] == count
    same = minari(tmp_path / "c/game/v0")  # alike to the bit, and both exist
    for _ in range(2):
        assert run(same, out)[1] == 6


def test_a_moved_source_is_recognised(tmp_path):
    source, out = minari(tmp_path / "a/game/v0", episodes=3), tmp_path / "out.zarr"
    with h5py.File(source / "data" / "main_data.hdf5", "a") as file:
        file["episode_3"] = file["episode_0"]  # two recordings that are alike are two
    assert run(source, out)[1] == 4
    moved = shutil.move(source, tmp_path / "elsewhere")
    assert run(Path(moved), out) == (f"{out}: 4 of 4 recordings are there\n", 4)
    together = tmp_path / "backup"
    together.mkdir()
    for folder in (out, Path(moved)):
        shutil.move(folder, together)
    assert run(together / "elsewhere", together / "out.zarr")[1] == 4


def test_added_recordings_are_converted_and_changed_ones_are_noted(tmp_path):
    source, out = minari(tmp_path / "d"), tmp_path / "out.zarr"
    run(source, out)
    with h5py.File(source / "data" / "main_data.hdf5", "a") as file:
        file.copy("episode_1", "episode_2")
        file["episode_2/actions"][0] = (file["episode_2/actions"][0] + 1) % 3
    assert run(source, out)[1] == 3
    with h5py.File(source / "data" / "main_data.hdf5", "a") as file:
        file["episode_0/actions"][0] = (file["episode_0/actions"][0] + 1) % 3
    printed, count = run(source, out)
    assert count == 4
    assert "episode_0: not what was converted from there before, so added" in printed


def test_a_stopped_conversion_continues(tmp_path, monkeypatch):
    source, out = minari(tmp_path / "d", episodes=4), tmp_path / "out.zarr"
    commit = EpisodeWriter.commit

    def stopping(writer, attrs):
        if attrs["source"].endswith("episode_2"):
            raise KeyboardInterrupt
        return commit(writer, attrs)

    with monkeypatch.context() as patched:
        patched.setattr(EpisodeWriter, "commit", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(source, out)
    assert run(source, out)[1] == 4


def digest_of_a_session(place, content):
    recorded_sessions.write_session(place / "s", [0, 30_000, 60_000 + content])
    source = opened(place, "sessions", keybinds=recorded_sessions.write_keybinds(place.parent / "binds.json"))
    digest = source.digest("s")
    (place / "s" / "metadata.json").write_text("{}")  # people correct this file
    assert source.digest("s") == digest
    (place / "s" / "inputs.csv").write_text("other")
    assert source.digest("s") != digest
    assert source.place("s") == place / "s"
    return digest


def digest_of_a_demo(place, content):
    place.mkdir(parents=True)
    (place / "a.lmp").write_bytes(bytes([109, content]))
    found = {"x": (place / "a.lmp", 0, -1)}
    return doom_demo.DoomDemos("", found, (), (), frozenset(), False, Options("doom-demo")).digest("x")


def digest_of_lerobot(place, content):
    write_v30(place, fps=10 * content, camera="image")
    return opened(place, "lerobot").digest("same/episode_000001")


@pytest.mark.parametrize("digest", [digest_of_a_session, digest_of_a_demo, digest_of_lerobot])
def test_a_digest_depends_on_the_content_and_not_on_the_place(tmp_path, digest):
    first, copy, other = (digest(tmp_path / folder / "same", n) for folder, n in (("a", 1), ("b", 1), ("c", 2)))
    assert first == copy != other


def test_a_long_file_is_recognised_by_its_size_and_pieces(tmp_path):
    file, seen = tmp_path / "x", set()
    for length, changed in ((1_000_000, 1), (1_000_001, 1), *((1_000_000, at) for at in (0, 500_000, 999_999))):
        content = bytearray(length)
        content[changed] = 1
        file.write_bytes(content)
        seen.add(tuple(sampled(file)))
    assert len(seen) == 5
    assert all(sum(map(len, pieces)) < 200_000 for pieces in seen)


def test_an_empty_folder_is_filled_and_stays_when_nothing_can_be_converted(tmp_path):
    source, out = minari(tmp_path / "d"), tmp_path / "[final]:dog:" / "out"
    out.mkdir(parents=True)
    printed, count = run(source, out)
    assert count == 2
    assert printed.endswith(f"converted 2 recordings, 12 frames, into {out}\n")
    (tmp_path / "there").mkdir()
    for name in ("there", "new"):
        failing = tmp_path / name
        assert re.search(r"2 of 2 recordings .* were not converted", user_error(run, source, failing, fps=30))
        assert failing.exists() == (name == "there")
        assert run(source, failing)[1] == 2  # nothing of the failure is left that would be in the way


def test_a_place_without_recordings_or_of_another_kind_is_refused(tmp_path):
    assert "/none: check the path" in user_error(run, tmp_path / "none", tmp_path / "out.zarr")
    message = user_error(run, tmp_path, tmp_path / "out.zarr", "minar")
    assert "unknown kind of recording 'minar'; did you mean 'minari'" in message
    binds = recorded_sessions.write_keybinds(tmp_path / "binds.json")
    message = user_error(run, tmp_path, tmp_path / "out.zarr", "sessions", keybinds=binds)
    assert "holds no recordings of the kind 'sessions'" in message
    source = minari(tmp_path / "d")
    assert "/d is no dataset but a folder that holds other things (data)" in user_error(run, source, source)
    (source / "empty").mkdir()
    message = user_error(run, source, source / "empty", "sessions")
    assert "empty is an empty folder among the sessions and would count as one: remove" in message
    (tmp_path / "file").write_text("")
    assert "file is a file, a dataset is a folder: choose another name" in user_error(run, source, tmp_path / "file")


@dataclass(frozen=True)
class Fake:
    """A source whose first recording makes a library fail."""

    button_names: tuple[str, ...] = ("jump",)
    axis_names: tuple[str, ...] = ("turn",)
    attributes: tuple[str, ...] = ()
    episodes: tuple[str, ...] = ("bad", "good", "empty")

    def digest(self, episode):
        return episode

    def place(self, episode):
        return Path(episode)

    def read(self, episode):
        def steps():
            for _ in range(0 if episode == "empty" else 3):
                yield np.ones((3, 4, 4), np.uint8), Action.of([True], [0.5]), None
            if episode == "bad":
                raise KeyError("Unable to\nopen object")

        return Recording(10, steps())


def test_steps_are_thinned_to_their_own_axes_or_to_the_sums():
    steps = [(np.full((3, 1, 1), i, np.uint8), Action.of([i == 1], [0.5 * i, -i]), None) for i in range(5)]
    for sums, expected in ((False, [[0, 0], [1, -2], [2, -4]]), (True, [[0.5, -1], [2.5, -5], [2, -4]])):
        kept = list(every_nth(iter(steps), 20, 10, sums))
        assert [int(frame[0, 0, 0]) for frame, _, _ in kept] == [0, 2, 4]
        assert [action.buttons.tolist() for _, action, _ in kept] == [[True], [False], [False]]
        np.testing.assert_array_equal([action.axes for _, action, _ in kept], expected)


def test_what_was_never_used_is_noted(tmp_path, monkeypatch):
    fake(monkeypatch, Fake(episodes=("good",)))
    assert "never " not in run(tmp_path, tmp_path / "a.zarr")[0]
    still = Recording(10, iter([(np.ones((3, 4, 4), np.uint8), Action.of([False, True], [0, 0.5, 0]), None)] * 2))
    monkeypatch.setattr(Fake, "read", lambda self, episode: still)
    fake(monkeypatch, Fake(("a", "b"), ("x", "y", "z"), episodes=("still",)))
    printed, _ = run(tmp_path, tmp_path / "b.zarr", size=(4, 4))
    assert "never pressed in what was converted: a\nnever moved in what was converted: x, z\n" in printed


def fake(monkeypatch, source):
    module = type("module", (), {"open_source": staticmethod(lambda path, options: source)})
    monkeypatch.setattr(BC_training.convert.importlib, "import_module", lambda name: module)


def test_an_exception_of_a_library_costs_one_recording(tmp_path, monkeypatch):
    fake(monkeypatch, Fake())
    for _ in range(2):
        message = user_error(run, tmp_path, tmp_path / "out.zarr")
        assert "1 of" in message
        assert "bad: it cannot be read (KeyError: 'Unable to" in message
    assert LocalStore(tmp_path / "out.zarr").episode_names() == ["episode_1"]
    assert read_episode(tmp_path / "out.zarr", 1).attrs["source"].endswith("good")
    fake(monkeypatch, Fake(episodes=("good", "empty")))
    assert "empty: left out, it has no frame" in run(tmp_path, tmp_path / "out.zarr")[0]


@pytest.mark.parametrize(("names", "message"), [
    ({"button_names": ("jump", "")}, "'keys' has '' in column 1, which is empty"),
    ({"button_names": ("jump", "duck", "jump")}, "'keys' has 'jump' twice, in columns 0 and 2"),
    ({"axis_names": ("turn", "turn")}, "'axes' has 'turn' twice, in columns 0 and 1"),
    ({"axis_names": ("jump",)}, "'keys' and 'axes' both have 'jump'"),
    ({"attributes": ("x", " ")}, "'attributes' has ' ' in column 1, which is empty"),
    ({"attributes": ("x", "x")}, "'attributes' has 'x' twice, in columns 0 and 1"),
    ({"attributes": (None,)}, "'attributes' has None in column 0, which is not text"),
])  # fmt: skip
def test_empty_and_repeated_names_are_refused(tmp_path, monkeypatch, names, message):
    fake(monkeypatch, Fake(**names))
    assert message in user_error(run, tmp_path, tmp_path / "out.zarr")
    assert not (tmp_path / "out.zarr").exists()


def test_frames_may_be_converted_into_a_video_and_exported_from_it(tmp_path):
    source = write_v30(tmp_path / "source", camera="image")
    run(source, tmp_path / "kept.zarr", "lerobot")
    run(source, tmp_path / "out.zarr", "lerobot", video=True)
    kept, out = ZarrGameplayDataset(tmp_path / "kept.zarr"), ZarrGameplayDataset(tmp_path / "out.zarr")
    assert all((tmp_path / "out.zarr" / e.name / "frames.mp4").is_file() for e in out.episodes)
    assert [e.length for e in out.episodes] == [e.length for e in kept.episodes]
    export(tmp_path / "out.zarr", tmp_path / "again", None, None, 1, Console(quiet=True))
    run(tmp_path / "again", tmp_path / "back.zarr", "lerobot")
    for dataset in (out, ZarrGameplayDataset(tmp_path / "back.zarr")):
        for i, episode in enumerate(kept.episodes):
            frames = kept.frames(i, range(episode.length)).astype(float)
            assert np.square(dataset.frames(i, range(episode.length)) - frames).mean() < 60  # of 255^2
            np.testing.assert_array_equal(dataset.actions(i), kept.actions(i))
