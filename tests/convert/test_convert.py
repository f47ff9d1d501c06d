"""What every converter has from ``convert``: which recordings are there, where to write, and what a failure costs."""

import json
import shutil
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import h5py
import numpy as np
import pytest
import recorded_sessions
from rich.console import Console

import BC_training.convert
from BC_training.common.errors import UserError
from BC_training.common.storage import reader
from BC_training.common.storage.metadata import EpisodeInfo
from BC_training.common.storage.store import LocalStore
from BC_training.common.storage.writer import EpisodeWriter
from BC_training.convert import Options, convert
from BC_training.convert.doom_demo import reader as doom_demo
from BC_training.convert.identity import sampled
from BC_training.convert.lerobot import reader as lerobot
from BC_training.convert.sessions import reader as sessions
from BC_training.convert.source import Recording

N = 6


def run(source, out, kind="minari", **options):
    """Converts; what was printed, and how many episodes the dataset then has."""
    console = Console(file=StringIO(), width=1000)
    convert(source, out, Options(kind, **options), 1, console)
    return console.file.getvalue(), len(LocalStore(out).episode_names())  # pyright: ignore


def minari(folder, seed=0, episodes=2):
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    with h5py.File(data / "main_data.hdf5", "w") as file:
        for i in range(episodes):
            file[f"episode_{i}/observations"] = rng.integers(0, 256, (N + 1, 8, 12, 3), np.uint8)
            file[f"episode_{i}/actions"] = rng.integers(0, 3, N)
    (data / "metadata.json").write_text(json.dumps({"fps": 10, "action_space": {"type": "Discrete", "n": 3}}))
    return folder


def test_a_source_of_the_same_last_folders_is_another_one(tmp_path):
    first, second = minari(tmp_path / "a/game/v0"), minari(tmp_path / "b/game/v0", seed=1)
    out = tmp_path / "out.zarr"
    for source, count in ((first, 2), (second, 4), (first, 4), (second, 4)):
        assert run(source, out)[1] == count
    same = minari(tmp_path / "c/game/v0")  # alike to the bit, and both exist
    assert run(same, out)[1] == 6
    assert run(same, out)[1] == 6


def test_a_source_that_moved_is_known(tmp_path):
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


def test_what_was_added_to_a_source_is_converted_and_what_changed_is_said(tmp_path):
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


def test_a_conversion_that_stopped_goes_on(tmp_path, monkeypatch):
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


def test_what_an_older_version_converted_is_known_by_its_name_and_said(tmp_path):
    source, out = minari(tmp_path / "d/v0"), tmp_path / "out.zarr"
    run(source, out)
    for file in out.glob("episode_*/zarr.json"):
        meta = json.loads(file.read_text())
        del meta["attributes"]["source_digest"], meta["attributes"]["source_path"]
        file.write_text(json.dumps(meta))
    printed, count = run(source, out)
    assert count == 2
    assert "2 of 2 recordings are there" in printed
    assert "episode_0, episode_1: converted before contents were compared" in printed


def lmp(folder, seed):
    folder.mkdir(parents=True)
    (folder / "a.lmp").write_bytes(bytes([109, seed]))


@pytest.mark.parametrize("kind", ["sessions", "doom-demo", "lerobot"])
def test_each_kind_tells_contents_apart_wherever_they_lie(tmp_path, kind):
    digests = []
    for folder, content in (("a", 1), ("b", 1), ("c", 2)):
        place = tmp_path / folder / "same"
        if kind == "sessions":
            recorded_sessions.write_session(place / "s", [0, 30_000, 60_000 + content])
            binds = recorded_sessions.write_keybinds(tmp_path / "binds.json")
            source = sessions.open_source(place, Options(kind, keybinds=binds))
            digests.append(source.digest("s"))
            (place / "s" / "metadata.json").write_text("{}")  # is corrected by hand
            assert source.digest("s") == digests[-1]
            (place / "s" / "inputs.csv").write_text("other")
            assert source.digest("s") != digests[-1]
            assert source.place("s") == place / "s"
        elif kind == "doom-demo":
            lmp(place, content)
            demos = doom_demo.DoomDemos("", {"x": (place / "a.lmp", 0, -1)}, (), (), frozenset(), False, Options(kind))
            digests.append(demos.digest("x"))
        else:
            from tests.convert.lerobot import test_reader as test_lerobot

            test_lerobot.write_v30(place, **({} if content == 1 else {"fps": 10}))
            digests.append(lerobot.open_source(place, Options(kind)).digest("same/episode_000001"))
    assert digests[0] == digests[1] != digests[2]


def test_a_long_file_is_known_by_its_size_and_pieces(tmp_path):
    file = tmp_path / "x"
    seen = set()
    for change in (None, 0, 500_000, 999_999, "longer"):
        content = bytearray(1_000_000)
        if isinstance(change, int):
            content[change] = 1
        file.write_bytes(content + b"\0" * (change == "longer"))
        pieces = list(sampled(file))
        assert sum(map(len, pieces)) < 200_000
        seen.add(tuple(pieces))
    assert len(seen) == 5


def test_an_empty_folder_is_filled_and_stays_when_nothing_can_be_converted(tmp_path):
    source, out = minari(tmp_path / "d"), tmp_path / "[final]:dog:" / "out"
    out.mkdir(parents=True)
    printed, count = run(source, out)
    assert count == 2
    assert printed.endswith(f"converted 2 recordings, 12 frames, into {out}\n")
    for name in ("there", "new"):
        failing = tmp_path / name
        if name == "there":
            failing.mkdir()
        with pytest.raises(UserError, match=r"2 of 2 recordings .* were not converted"):
            run(source, failing, fps=30)
        assert failing.exists() == (name == "there")
        assert run(source, failing)[1] == 2  # nothing of the failure is left that would be in the way


def test_a_place_that_is_no_dataset_is_called_what_it_is(tmp_path):
    source = minari(tmp_path / "d")
    with pytest.raises(UserError, match=r"/d is no dataset but a folder that holds other things \(data\)"):
        run(source, source)
    (source / "empty").mkdir()
    with pytest.raises(UserError, match="empty is an empty folder among the sessions and would count as one: remove"):
        run(source, source / "empty", "sessions")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file is a file, a dataset is a folder: choose another name"):
        run(source, tmp_path / "file")


@dataclass(frozen=True)
class Fake:
    """A source whose first recording makes a library fail."""

    keys: tuple[str, ...] = ("jump",)
    attributes: tuple[str, ...] = ()
    episodes: tuple[str, ...] = ("bad", "good", "empty")

    def digest(self, episode):
        return episode

    def place(self, episode):
        return Path(episode)

    def read(self, episode):
        def steps():
            for _ in range(0 if episode == "empty" else 3):
                yield np.ones((3, 4, 4), np.uint8), np.ones(1, bool), None
            if episode == "bad":
                raise KeyError("Unable to\nopen object")

        return Recording(10, steps())


def fake(monkeypatch, source):
    module = type("module", (), {"open_source": staticmethod(lambda path, options: source)})
    monkeypatch.setattr(BC_training.convert.importlib, "import_module", lambda name: module)


def test_what_a_library_raises_for_one_recording_costs_that_alone(tmp_path, monkeypatch):
    fake(monkeypatch, Fake())
    for _ in range(2):
        with pytest.raises(UserError) as raised:
            run(tmp_path, tmp_path / "out.zarr")
        assert "1 of" in str(raised.value)
        assert "bad: it cannot be read (KeyError: 'Unable to" in str(raised.value)
        assert "\n" not in str(raised.value)
    store = LocalStore(tmp_path / "out.zarr")
    (episode,) = reader.read_episodes(store, store.episode_names())
    assert isinstance(episode, EpisodeInfo)
    assert episode.attrs["source"].endswith("good")
    fake(monkeypatch, Fake(episodes=("good", "empty")))
    assert "empty: left out, it has no frame" in run(tmp_path, tmp_path / "out.zarr")[0]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({"keys": ("jump", "")}, "'keys' has '' in column 1, which is empty"),
        ({"keys": ("jump", "duck", "jump")}, "'keys' has 'jump' twice, in columns 0 and 2"),
        ({"attributes": ("x", " ")}, "'attributes' has ' ' in column 1, which is empty"),
        ({"attributes": ("x", "x")}, "'attributes' has 'x' twice, in columns 0 and 1"),
        ({"attributes": (None,)}, "'attributes' has None in column 0, which is not text"),
    ],
)
def test_names_are_different_and_say_something(tmp_path, monkeypatch, names, said):
    fake(monkeypatch, Fake(**names))
    with pytest.raises(UserError, match=said):
        run(tmp_path, tmp_path / "out.zarr")
    assert not (tmp_path / "out.zarr").exists()
