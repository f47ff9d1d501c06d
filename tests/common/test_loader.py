import itertools

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.progress import Progress

from BC_training.common import loader
from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.errors import UserError
from BC_training.common.loader import DecodeTier, DeviceTier, SampleOrder, Samples, make_tier
from BC_training.common.preprocess import resize_frames

# --- order ---------------------------------------------------------------------------------


@st.composite
def orders(draw) -> SampleOrder:
    num_samples = draw(st.integers(1, 200))
    return SampleOrder(num_samples, draw(st.integers(1, num_samples)), draw(st.integers(0, 2**31 - 1)))


def forget_permutations() -> None:
    """Empties the cache of shuffled epochs, as in a process that has just started."""
    loader._permutation.cache_clear()


@given(order=orders(), epoch=st.integers(0, 5))
def test_every_sample_once_an_epoch_up_to_the_dropped_remainder(order, epoch):
    first = epoch * order.steps_per_epoch
    batches = [order.batch(step) for step in range(first, first + order.steps_per_epoch)]
    assert all(len(batch) == order.batch_size for batch in batches)
    seen = np.concatenate(batches)
    assert len(np.unique(seen)) == len(seen)
    assert len(seen) == order.num_samples - order.num_samples % order.batch_size
    assert seen.min() >= 0
    assert seen.max() < order.num_samples


@given(order=orders(), steps=st.lists(st.integers(0, 2000), min_size=1, max_size=8))
def test_random_access_equals_a_sequential_pass(order, steps):
    """The batch of a step does not depend on what was asked before: a resumed run goes on as if never stopped."""
    sequential = {step: order.batch(step).copy() for step in sorted(steps)}
    for step in steps:
        forget_permutations()
        again = SampleOrder(order.num_samples, order.batch_size, order.seed)
        np.testing.assert_array_equal(again.batch(step), sequential[step])


def test_the_order_never_changes():
    """Golden: another order would make a resumed run repeat samples, and old runs irreproducible.

    From ``np.random.default_rng([seed, epoch]).permutation(num_samples)``.
    """
    order = SampleOrder(10, 4, 7)
    assert [order.batch(step).tolist() for step in range(4)] == [[8, 0, 7, 1], [3, 6, 2, 4], [9, 0, 8, 6], [7, 1, 3, 4]]


def test_epochs_and_seeds_differ():
    order = SampleOrder(100, 100, 0)
    rows = [order.batch(0), order.batch(1), order.batch(2), SampleOrder(100, 100, 1).batch(0), np.arange(100)]
    for a, b in itertools.combinations(rows, 2):
        assert not np.array_equal(a, b)


def test_a_batch_larger_than_the_set_is_an_error():
    with pytest.raises(
        UserError, match=r"training.batch_size=11 is larger than the training set \(10 frames\)"
    ) as caught:
        SampleOrder(10, 11, 0)
    assert "\n" not in str(caught.value)
    assert SampleOrder(10, 10, 0).steps_per_epoch == 1


# --- samples -------------------------------------------------------------------------------

LENGTHS = (5, 1, 7, 3)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory, make_dataset):
    """A dataset, and what was written into it."""
    path = tmp_path_factory.mktemp("loader") / "x.zarr"
    written = make_dataset(path, LENGTHS, numbers=[0, 2, 5, 10])
    return ZarrGameplayDataset(path), written


@given(
    episodes=st.permutations(range(4)).flatmap(lambda p: st.integers(1, 4).map(lambda n: p[:n])),
    data=st.data(),
)
def test_sample_is_one_frame_and_its_buttons_of_one_episode(recorded, episodes, data):
    dataset, written = recorded
    samples = Samples(dataset, episodes, (24, 32))
    expected = [(e, t) for e in episodes for t in range(LENGTHS[e])]  # sample i is frame t of episode e
    assert len(samples) == len(expected)
    ids = np.array(data.draw(st.lists(st.integers(0, len(expected) - 1), min_size=1, max_size=10)))
    frames = samples.frames(ids)
    assert (frames.dtype, frames.shape) == (np.uint8, (len(ids), 3, 24, 32))
    names = ("episode_0", "episode_2", "episode_5", "episode_10")
    assert samples.locate(ids) == [(names[expected[i][0]], expected[i][1]) for i in ids]
    for row, i in enumerate(ids):
        e, t = expected[i]
        np.testing.assert_array_equal(frames[row], written[e].frames[t])
        np.testing.assert_array_equal(samples.actions[i], written[e].actions[t])


def test_frames_are_resized(recorded):
    dataset, written = recorded
    samples = Samples(dataset, [2, 0], (12, 16))
    assert samples.frame_bytes == 3 * 12 * 16
    np.testing.assert_array_equal(
        samples.frames(np.array([6, 0, 7])),
        resize_frames(np.stack([written[2].frames[6], written[2].frames[0], written[0].frames[0]]), (12, 16)),
    )


# --- tiers ---------------------------------------------------------------------------------


def batches_of(tier, ids):
    return [{name: np.asarray(x) for name, x in batch.items()} for batch in tier.batches(iter(ids))]


@pytest.mark.parametrize("frame_size", [(24, 32), (12, 16), (10, 13)])
@pytest.mark.parametrize("prefetch", [1, 3])
def test_tiers_give_identical_bytes(recorded, frame_size, prefetch):
    dataset, written = recorded
    samples = Samples(dataset, [3, 0, 2], frame_size)
    order = SampleOrder(len(samples), 4, 0)
    ids = [order.batch(step) for step in range(2 * order.steps_per_epoch)]
    with Progress(disable=True) as progress:
        decoded = batches_of(DecodeTier(samples, prefetch), ids)
        gathered = batches_of(DeviceTier(samples, progress, "loading"), ids)
    actions = np.concatenate([written[e].actions for e in (3, 0, 2)])
    assert len(decoded) == len(gathered) == len(ids)
    for batch, other, wanted in zip(decoded, gathered, ids, strict=True):
        assert set(batch) == set(other) == {"frame", "action"}
        assert (batch["frame"].dtype, batch["action"].dtype) == (np.uint8, np.bool_)
        np.testing.assert_array_equal(batch["frame"], samples.frames(wanted))
        np.testing.assert_array_equal(batch["action"], actions[wanted])
        for name in batch:
            assert batch[name].dtype == other[name].dtype
            np.testing.assert_array_equal(batch[name], other[name])


def test_device_tier_loads_in_several_pieces(recorded, monkeypatch):
    monkeypatch.setattr(loader, "_DECODE_FRAMES", 4)
    samples = Samples(recorded[0], [0, 1, 2, 3], (24, 32))
    with Progress(disable=True) as progress:
        tier = DeviceTier(samples, progress, "loading")
        assert progress.tasks == []
    (batch,) = batches_of(tier, [np.arange(len(samples))])
    np.testing.assert_array_equal(batch["frame"], samples.frames(np.arange(len(samples))))


def test_batches_are_on_the_device_as_uint8(recorded):
    samples = Samples(recorded[0], [0], (24, 32))
    with Progress(disable=True) as progress:
        for tier in (DecodeTier(samples, 2), DeviceTier(samples, progress, "loading")):
            (batch,) = tier.batches(iter([np.array([0, 1])]))
            assert isinstance(batch["frame"], jax.Array)
            assert isinstance(batch["action"], jax.Array)
            assert batch["frame"].dtype == np.uint8


def test_decode_tier_stays_a_few_batches_ahead(recorded):
    """It may not pull the whole order at once: that would hold a whole epoch in memory."""
    pulled = []

    def order():
        for i in range(50):
            pulled.append(i)
            yield np.array([i % 5])

    batches = DecodeTier(Samples(recorded[0], [0], (24, 32)), prefetch=3).batches(order())
    next(batches)
    assert len(pulled) == 4
    next(batches)
    assert len(pulled) == 5
    batches.close()


def test_damage_met_while_decoding_reaches_the_caller(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [5])
    samples = Samples(ZarrGameplayDataset(tmp_path / "x.zarr"), [0], (24, 32))
    (tmp_path / "x.zarr" / "episode_0" / "frames" / "c" / "3" / "0" / "0" / "0").unlink()
    batches = DecodeTier(samples, 2).batches(iter([np.array([i]) for i in range(5)]))
    for _ in range(3):
        next(batches)
    with pytest.raises(UserError, match="episode_0: cannot read 'frames'"):
        next(batches)


def test_cache_setting_chooses_the_tier(recorded, monkeypatch):
    samples = Samples(recorded[0], [0, 2], (24, 32))
    needed = 12 * 3 * 24 * 32

    def name(cache, free):
        monkeypatch.setattr(loader, "_free_memory", lambda: free)
        with Progress(disable=True) as progress:
            return make_tier(cache, samples, 2, progress, "loading").name

    assert name("none", 10**12) == "none"
    assert name("device", needed) == "device"
    assert name("auto", 2 * needed) == "device"
    assert name("auto", 2 * needed - 1) == "none"
    with pytest.raises(UserError, match=r"dataset\.cache=device needs"):
        name("device", needed - 1)


def test_free_memory_is_plausible():
    assert 2**24 < loader._free_memory() < 2**50
