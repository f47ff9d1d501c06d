import shutil
from io import StringIO
from types import SimpleNamespace
from unittest.mock import create_autospec

import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from rich.console import Console
from rich.progress import Progress

from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.errors import UserError
from BC_training.common.preprocess import Window, resize_frames
from BC_training.common.schema import DatasetConfig
from BC_training.data import cache, loader, tier_choice
from BC_training.data.frame_readers import DecodedFrames
from BC_training.data.loader import DeviceTier, HostTier, dispatch_size, make_tier
from BC_training.data.samples import Samples
from BC_training.data.tier_choice import choose_tier
from BC_training.runtime.sharding import one_device

LENGTHS = (5, 1, 7, 3)
SIZE = (24, 32)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory, make_dataset):
    """A dataset, and what was written into it."""
    path = tmp_path_factory.mktemp("loader") / "x.zarr"
    written = make_dataset(path, LENGTHS, numbers=[0, 2, 5, 10])
    return ZarrGameplayDataset(path), written


@pytest.fixture
def tier_of(tmp_path):
    """Makes the tier of samples by its name."""

    def make(name, samples, frame_size=SIZE, prefetch=2, **options):
        config = DatasetConfig("unused", cache=name, prefetch=prefetch, cache_dir=str(tmp_path / "cache"), **options)
        config = choose_tier(config, samples.dataset, frame_size, Console(file=StringIO()))
        with Progress(disable=True) as progress:
            tier = make_tier(config, samples, frame_size, progress, one_device())
            assert progress.tasks == []
        return tier

    return make


def arrays(batches):
    return [{name: np.asarray(x) for name, x in batch.items()} for batch in batches]


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype
        np.testing.assert_array_equal(a[name], b[name])


each_tier = pytest.mark.parametrize("name", ["none", "disk", "device"])


@pytest.mark.parametrize("frame_size", [(24, 32), (12, 16), (10, 13)])
@pytest.mark.parametrize(
    "window", [Window(), Window(history=3, frame_skip=2, action_history=2, action_shift=1, action_chunk=2, state=True)]
)
def test_each_tier_gives_what_was_recorded_resized(recorded, tier_of, frame_size, window):
    dataset, written = recorded
    samples = Samples(dataset, [3, 0, 2], window)
    ids = [samples.order(4, 0).batch(step) for step in range(6)]
    tiers = [arrays(tier_of(name, samples, frame_size).batches(iter(ids))) for name in ("none", "disk", "device")]
    resized = [resize_frames(written[e].frames, frame_size) for e in (3, 0, 2)]
    for found in tiers:
        for batch, wanted in zip(found, ids, strict=True):
            frames = np.concatenate(resized)[samples.rows(wanted)]
            assert_same(batch, {"frames": frames, **samples.labels(wanted)})


@each_tier
def test_items_of_several_steps_gather_to_their_batches(recorded, tier_of, name):
    samples = Samples(recorded[0], [0, 2], Window(history=2))
    tier = tier_of(name, samples)
    ids = np.arange(12).reshape(3, 4)
    (items,) = tier.items(iter([ids]))
    for k, batch in enumerate(arrays(tier.batches(iter(ids)))):
        assert_same(tier.gather(tier.data, jax.tree.map(lambda x, k=k: x[k], items)), batch)


@each_tier
def test_batches_keep_their_values_while_later_ones_are_read(recorded, tier_of, name):
    dataset, written = recorded
    batches = list(tier_of(name, Samples(dataset, [2], Window())).batches(iter(np.arange(70).reshape(-1, 2) % 7)))
    assert all(isinstance(x, jax.Array) for batch in batches for x in batch.values())
    frames = np.concatenate([np.asarray(batch["frames"])[:, 0] for batch in batches])
    np.testing.assert_array_equal(frames, written[2].frames[np.arange(70) % 7])


def test_bgr_recordings_are_handed_out_as_rgb_by_every_tier(tmp_path, make_dataset, tier_of):
    (written,) = make_dataset(tmp_path / "x.zarr", [4])
    samples = Samples(ZarrGameplayDataset(tmp_path / "x.zarr", channel_order="bgr"), [0], Window())
    for name in ("none", "disk", "device"):
        (batch,) = tier_of(name, samples).batches(iter([np.arange(4)]))
        np.testing.assert_array_equal(np.asarray(batch["frames"])[:, 0], written.frames[:, ::-1])


def test_the_device_tier_loads_block_by_block(recorded, monkeypatch, tier_of):
    monkeypatch.setattr(loader, "_BLOCK", 3)
    samples = Samples(recorded[0], [0, 1, 2, 3], Window())
    (batch,) = arrays(tier_of("device", samples).batches(iter([np.arange(len(samples))])))
    np.testing.assert_array_equal(batch["frames"][:, 0], np.concatenate([w.frames for w in recorded[1]]))


def test_a_frame_that_windows_share_is_decoded_once(recorded, monkeypatch):
    asked = []
    samples = Samples(recorded[0], [2], Window(history=3))
    rows = samples.rows(np.array([3, 4, 5])).reshape(-1)
    read = recorded[0].read_frames
    monkeypatch.setattr(
        recorded[0],
        "read_frames",
        lambda wanted: asked.extend((e, int(i)) for e, indices in wanted for i in indices) or read(wanted),
    )
    DecodedFrames(samples, SIZE).read(rows, np.empty((len(rows), 3, *SIZE), np.uint8))
    assert sorted(asked) == [(2, 1), (2, 2), (2, 3), (2, 4), (2, 5)]


def test_a_host_tier_stays_a_few_batches_ahead(recorded):
    """If it drew the whole order at once, it would hold an epoch in memory."""
    pulled = []

    def order():
        for i in range(50):
            pulled.append(i)
            yield np.array([i % 5])

    samples = Samples(recorded[0], [0], Window())
    tier = HostTier("none", samples, DecodedFrames(samples, SIZE), SIZE, 3, one_device(), None)
    batches = tier.batches(order())
    next(batches)
    assert len(pulled) == 4
    next(batches)
    assert len(pulled) == 5
    batches.close()


@each_tier
def test_a_damaged_chunk_is_an_error_and_not_a_frame_of_zeros(tmp_path, make_dataset, tier_of, name):
    make_dataset(tmp_path / "x.zarr", [5])
    samples = Samples(ZarrGameplayDataset(tmp_path / "x.zarr"), [0], Window())
    (tmp_path / "x.zarr" / "episode_0" / "frames" / "c" / "3" / "0" / "0" / "0").unlink()
    with pytest.raises(UserError, match=r"episode_0: cannot read 'frames'.*3"):
        list(tier_of(name, samples).batches(iter([np.array([i]) for i in range(5)])))


def test_the_cache_setting_chooses_the_tier(tmp_path, recorded, monkeypatch, tier_of):
    samples = Samples(recorded[0], [0, 2], Window())
    split, whole = 12 * 3 * 24 * 32, 16 * 3 * 24 * 32

    def name(cache, free, **options):
        monkeypatch.setattr(tier_choice, "free_memory", lambda: free)
        return tier_of(cache, samples, **options).name

    assert name("none", 10**12) == "none"
    assert name("disk", 0) == "disk"
    assert name("device", split) == "device"
    assert name("auto", 2 * whole) == "device"
    assert name("auto", 2 * whole - 1, cache_limit=(whole - 1) / 1e9) == "disk"  # built already
    shutil.rmtree(tmp_path / "cache")
    assert name("auto", 2 * whole - 1, cache_limit=(whole - 1) / 1e9) == "none"
    assert name("auto", 2 * whole - 1) == "disk"
    with pytest.raises(UserError, match=r"dataset\.cache=device needs"):
        name("device", split - 1)


def test_auto_finishes_an_unfinished_build(tmp_path, recorded, monkeypatch, tier_of):
    """The build takes space already, so less is free than the cache needs."""
    dataset, samples = recorded[0], Samples(recorded[0], [0], Window())
    tier_of("disk", samples)
    (built,) = (tmp_path / "cache").iterdir()
    built.rename(built.with_name(built.name + ".partial"))
    needed = 16 * 3 * 24 * 32
    monkeypatch.setattr(tier_choice, "free_memory", lambda: 0)
    free = SimpleNamespace(free=needed // 2)
    monkeypatch.setattr(tier_choice, "shutil", SimpleNamespace(disk_usage=lambda path: free))
    assert cache.unfinished_bytes(dataset, SIZE, tmp_path / "cache") >= needed
    assert tier_of("auto", samples).name == "disk"
    shutil.rmtree(tmp_path / "cache")
    assert tier_of("auto", samples).name == "none"


def test_a_process_needs_memory_for_its_own_part(recorded, monkeypatch):
    samples = Samples(recorded[0], [0, 2], Window())
    devices = np.array([SimpleNamespace(process_index=process) for process in (0, 0, 1, 1)])
    mesh = create_autospec(Mesh, instance=True, devices=devices, size=4)
    tier = create_autospec(DeviceTier, instance=True, mesh=mesh, data=())
    monkeypatch.setattr(loader, "DeviceTier", lambda *_: tier)
    config = DatasetConfig("unused", cache="device")
    half = 12 * 3 * 24 * 32 // 2
    monkeypatch.setattr(tier_choice, "free_memory", lambda: half)
    assert make_tier(config, samples, SIZE, Progress(disable=True), mesh) is tier
    monkeypatch.setattr(tier_choice, "free_memory", lambda: half - 1)
    with pytest.raises(UserError, match="this process's part"):
        make_tier(config, samples, SIZE, Progress(disable=True), mesh)


def test_a_tier_knows_what_is_faster_and_whether_a_dispatch_may_take_several_steps(recorded, tier_of):
    none, disk, device = (tier_of(name, Samples(recorded[0], [0], Window())) for name in ("none", "disk", "device"))
    assert "cache=disk" in none.faster
    assert "cache=device" in disk.faster
    assert device.faster is None
    assert [dispatch_size(tier, 4) for tier in (none, disk, device)] == [1, 1, 4]
    assert (dispatch_size(device, None), dispatch_size(none, 4, before=2)) == (1, 2)
