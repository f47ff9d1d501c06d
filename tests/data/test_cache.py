import os
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from io import StringIO

import numpy as np
import pytest
from filmed_datasets import film
from rich.console import Console
from rich.progress import Progress

from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.errors import UserError
from BC_training.common.preprocess import resize_frames
from BC_training.common.storage import video
from BC_training.data import cache
from BC_training.data.cache import clear_caches, find_caches, open_packed, packed_bytes, remove

SIZE = (12, 16)
NO_LIMIT = 10**12


def pack(dataset, folder, size=SIZE, limit=NO_LIMIT):
    with Progress(disable=True) as progress:
        return open_packed(dataset, size, folder, limit, progress)


def read(packed, frames, size=SIZE) -> np.ndarray:
    out = np.empty((len(frames), 3, *size), np.uint8)
    packed.read(np.asarray(frames), out)
    return out


@pytest.fixture(scope="module")
def source(tmp_path_factory, make_dataset):
    """The path of a dataset, and its frames, resized."""
    path = tmp_path_factory.mktemp("source") / "x.zarr"
    written = make_dataset(path, [5, 130, 7])
    return path, np.concatenate([resize_frames(w.frames, SIZE) for w in written])


@pytest.fixture
def recorded(source):
    return ZarrGameplayDataset(source[0]), source[1]


def decodes_of(dataset, monkeypatch) -> list[str]:
    """A list that grows by the name of each episode that is decoded from now on."""
    names, read = [], dataset.read_frames
    monkeypatch.setattr(
        dataset, "read_frames", lambda wanted: names.extend(dataset.episodes[e].name for e, _ in wanted) or read(wanted)
    )
    return names


def test_every_frame_is_there_resized(tmp_path, recorded):
    dataset, frames = recorded
    packed = pack(dataset, tmp_path / "cache")
    np.testing.assert_array_equal(read(packed, np.arange(len(frames))), frames)
    shuffled = np.random.default_rng(0).permutation(len(frames))
    np.testing.assert_array_equal(read(packed, shuffled), frames[shuffled])
    runs = [3, 4, 5, 5, 6, 2, 1, 2, 3, 141]  # frames that follow each other, repeated ones, and neither
    np.testing.assert_array_equal(read(packed, runs), frames[runs])
    assert packed.first_frames == {"episode_0": 0, "episode_1": 5, "episode_2": 135}


def test_a_cache_is_built_once_and_its_chunks_are_listed_once(tmp_path, recorded, monkeypatch):
    """There may be millions of chunks, and each tier asks for its cache."""
    dataset, _ = recorded
    decoded, listed, stamps = decodes_of(dataset, monkeypatch), [], dataset.store.stamps
    monkeypatch.setattr(dataset.store, "stamps", lambda folder: listed.append(folder) or stamps(folder))
    assert not cache.is_built(dataset, SIZE, tmp_path / "cache")
    pack(dataset, tmp_path / "cache")
    assert set(decoded) == {"episode_0", "episode_1", "episode_2"}
    decoded.clear()
    pack(dataset, tmp_path / "cache")
    assert decoded == []
    assert listed == [f"{episode.name}/frames" for episode in dataset.episodes]
    pack(ZarrGameplayDataset(dataset.path), tmp_path / "cache")
    (found,) = find_caches(tmp_path / "cache")
    assert (found.dataset, found.frame_size, found.frames) == (dataset.path, SIZE, len(dataset))
    assert found.bytes >= packed_bytes(dataset, SIZE)


def test_what_changes_the_frames_changes_the_cache(tmp_path, source):
    path = shutil.copytree(source[0], tmp_path / "x.zarr")
    for count, (order, size) in enumerate([("rgb", SIZE), ("rgb", (6, 8)), ("bgr", SIZE)], 1):
        pack(ZarrGameplayDataset(path, channel_order=order), tmp_path / "cache", size)
        assert len(find_caches(tmp_path / "cache")) == count
    chunks = path / "episode_1/frames/c"
    shutil.copy(chunks / "4/0/0/0", chunks / "3/0/0/0")  # a frame replaced by another of its episode
    again = pack(ZarrGameplayDataset(path), tmp_path / "cache")
    assert len(find_caches(tmp_path / "cache")) == 4
    third, fourth = read(again, [5 + 3, 5 + 4])
    np.testing.assert_array_equal(third, fourth)


BUILD = """
    import sys, time
    from pathlib import Path
    from rich.progress import Progress
    from BC_training.data import cache
    from BC_training.common.dataset import ZarrGameplayDataset

    dataset = ZarrGameplayDataset({path!r})
    read = dataset.read_frames
    def slowly(wanted):
        if wanted[0][0] == 1:
            print("second\\n", end="", flush=True)
            time.sleep(60)
        return read(wanted)
    dataset.read_frames = slowly
    with Progress(disable=True) as progress:
        cache.open_packed(dataset, (12, 16), Path({folder!r}), 10**12, progress)
"""


def test_a_killed_build_continues_where_it_stopped(tmp_path, recorded, monkeypatch):
    dataset, frames = recorded
    program = BUILD.format(path=dataset.path, folder=str(tmp_path / "cache"))
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "second\n"  # the first episode is packed
        (unfinished,) = find_caches(tmp_path / "cache")
        assert not remove(unfinished)  # while it is being built
        process.kill()
    assert find_caches(tmp_path / "cache") == [unfinished]
    assert not unfinished.complete
    decoded = decodes_of(dataset, monkeypatch)
    packed = pack(dataset, tmp_path / "cache")
    assert set(decoded) == {"episode_1", "episode_2"}
    np.testing.assert_array_equal(read(packed, np.arange(len(frames))), frames)
    (finished,) = find_caches(tmp_path / "cache")
    assert finished.complete
    assert sorted(p.name for p in finished.path.iterdir()) == ["frames.bin", "meta.json"]


def test_a_second_build_waits_for_the_first(tmp_path, recorded, monkeypatch):
    first, second, begun = recorded[0], ZarrGameplayDataset(recorded[0].path), threading.Event()
    read, decoded = first.read_frames, decodes_of(second, monkeypatch)
    monkeypatch.setattr(first, "read_frames", lambda wanted: begun.set() or time.sleep(0.1) or read(wanted))
    with ThreadPoolExecutor() as pool:
        build = pool.submit(pack, first, tmp_path / "cache")
        begun.wait()
        pack(second, tmp_path / "cache")
        build.result()
    assert decoded == []
    assert [c.complete for c in find_caches(tmp_path / "cache")] == [True]


def test_a_frame_that_cannot_be_read_leaves_no_finished_cache(tmp_path, source):
    path = shutil.copytree(source[0], tmp_path / "x.zarr")
    (path / "episode_2/frames/c/6/0/0/0").unlink()
    with pytest.raises(UserError, match="episode_2"):
        pack(ZarrGameplayDataset(path), tmp_path / "cache")
    assert [c.complete for c in find_caches(tmp_path / "cache")] == [False]


def test_the_least_recently_used_make_room(tmp_path, make_dataset):
    datasets = []
    for name in "abc":
        make_dataset(tmp_path / f"{name}.zarr", [100], size=(64, 64))
        datasets.append(ZarrGameplayDataset(tmp_path / f"{name}.zarr"))
    one = packed_bytes(datasets[0], (64, 64))
    pack(datasets[0], tmp_path / "cache", (64, 64))
    pack(datasets[1], tmp_path / "cache", (64, 64))
    used = {c.dataset: c for c in find_caches(tmp_path / "cache")}
    os.utime(used[datasets[1].path].path / "meta.json", (time.time() - 100,) * 2)
    pack(datasets[2], tmp_path / "cache", (64, 64), limit=int(2.5 * one))
    assert {c.dataset for c in find_caches(tmp_path / "cache")} == {datasets[0].path, datasets[2].path}


def test_a_cache_above_the_limit_is_an_error_and_removes_nothing(tmp_path, recorded):
    dataset, _ = recorded
    pack(dataset, tmp_path / "cache", (6, 8))
    with pytest.raises(UserError, match="cache_limit"):
        pack(dataset, tmp_path / "cache", SIZE, limit=packed_bytes(dataset, SIZE) - 1)
    assert [c.frame_size for c in find_caches(tmp_path / "cache") if c.complete] == [(6, 8)]


def test_a_full_disk_is_an_error_before_anything_is_decoded(tmp_path, recorded, monkeypatch):
    dataset, _ = recorded

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.os, "posix_fallocate", full)
    decoded = decodes_of(dataset, monkeypatch)
    with pytest.raises(UserError, match="full"):
        pack(dataset, tmp_path / "cache")
    assert decoded == []


def test_a_read_that_the_system_cuts_short_is_continued(tmp_path, recorded, monkeypatch):
    """One call reads 2 GiB at most."""
    dataset, frames = recorded
    packed, whole = pack(dataset, tmp_path / "cache"), os.preadv
    monkeypatch.setattr(cache.os, "preadv", lambda file, views, offset: whole(file, [views[0][:1000]], offset))
    np.testing.assert_array_equal(read(packed, np.arange(3, 60)), frames[3:60])


def test_a_damaged_cache_is_an_error_until_it_is_cleared(tmp_path, recorded, monkeypatch):
    packed = pack(recorded[0], tmp_path / "cache")

    def fail(*_):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(cache.os, "preadv", fail)
        with pytest.raises(UserError, match=r"cannot read .*frames.bin \(Input/output error\): .*'cache --clear'"):
            read(packed, [0])
    (found,) = find_caches(tmp_path / "cache")
    os.truncate(found.path / "frames.bin", found.bytes // 2)
    with pytest.raises(UserError, match="truncated"):
        read(packed, [len(recorded[0]) - 1])
    (found.path / "frames.bin").unlink()
    with pytest.raises(UserError, match=r"cannot read .*frames.bin"):
        pack(recorded[0], tmp_path / "cache")
    clear_caches(tmp_path / "cache", Console(file=StringIO()))  # as the message says
    assert len(read(pack(recorded[0], tmp_path / "cache"), [0])) == 1


@pytest.mark.parametrize("complete", [True, False])
def test_a_killed_removal_leaves_no_cache_that_counts_as_built(tmp_path, recorded, monkeypatch, complete):
    dataset, frames = recorded
    pack(dataset, tmp_path / "cache")
    (found,) = find_caches(tmp_path / "cache")
    if not complete:  # all but published
        (found.path / "done").write_text("".join(f"{episode.name}\n" for episode in dataset.episodes))
        found.path.rename(found.path.with_name(found.path.name + ".partial"))
        (found,) = find_caches(tmp_path / "cache")

    def killed(path, *_, **__):
        (path / "frames.bin").unlink(missing_ok=True)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            remove(found)
    assert not cache.is_built(dataset, SIZE, tmp_path / "cache")
    np.testing.assert_array_equal(read(pack(dataset, tmp_path / "cache"), np.arange(len(frames))), frames)
    clear_caches(tmp_path / "cache", Console(file=StringIO()))
    assert list((tmp_path / "cache").iterdir()) == []
    assert find_caches(tmp_path / "none") == []


def test_a_video_is_decoded_once_in_order_and_one_that_changed_again(tmp_path, monkeypatch):
    path = film(tmp_path / "x.zarr", [70, 30])
    monkeypatch.setattr(cache, "_BLOCK", 16)
    dataset, decoded, decode = ZarrGameplayDataset(path), [], video._Decoder._decode
    monkeypatch.setattr(video._Decoder, "_decode", lambda self, row: decoded.append(row) or decode(self, row))
    packed = pack(dataset, tmp_path / "cache")
    assert decoded == [*range(70), *range(30)]
    for episode, (first, length) in enumerate(((0, 70), (70, 30))):
        expected = resize_frames(dataset.frames(episode, range(length)), SIZE)
        np.testing.assert_array_equal(read(packed, np.arange(first, first + length)), expected)
    pack(ZarrGameplayDataset(path), tmp_path / "cache")
    assert len(find_caches(tmp_path / "cache")) == 1
    os.utime(path / "episode_0" / "frames.mp4", (1, 1))
    pack(ZarrGameplayDataset(path), tmp_path / "cache")
    assert len(find_caches(tmp_path / "cache")) == 2
