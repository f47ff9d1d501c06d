from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from BC_training.common.axes import AxisBins
from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.errors import UserError
from BC_training.common.preprocess import Window
from BC_training.common.schema import OversampleConfig
from BC_training.data import order as order_module
from BC_training.data.order import SampleOrder, permute
from BC_training.data.samples import Samples
from BC_training.training.resume import fingerprint


@st.composite
def orders(draw) -> SampleOrder:
    num_samples = draw(st.integers(1, 200))
    return SampleOrder(num_samples, draw(st.integers(1, num_samples)), draw(st.integers(0, 2**31 - 1)))


def epoch_of(order: SampleOrder, epoch: int) -> np.ndarray:
    first = epoch * order.steps_per_epoch
    return np.concatenate([order.batch(step) for step in range(first, first + order.steps_per_epoch)])


@given(order=orders(), epoch=st.integers(0, 5))
def test_an_epoch_visits_every_sample_once_but_for_the_dropped_remainder(order, epoch):
    seen = epoch_of(order, epoch)
    assert len(np.unique(seen)) == len(seen) == order.num_samples - order.num_samples % order.batch_size
    assert seen.min() >= 0
    assert seen.max() < order.num_samples


@given(size=st.integers(1, 3000), seed=st.integers(0, 2**31 - 1), epoch=st.integers(0, 1000))
def test_permute_is_a_permutation(size, seed, epoch):
    assert np.array_equal(np.sort(permute(np.arange(size), size, seed, epoch)), np.arange(size))


def test_permute_looks_random():
    """Against what uniformly random permutations give: mean rank, neighbours kept, and correlation."""
    size, trials = 1000, 200
    shuffled = np.stack([permute(np.arange(size), size, seed, 0) for seed in range(trials)])
    spread = size / np.sqrt(12 * trials)  # standard deviation of a place's mean over the trials
    assert np.abs(shuffled.mean(axis=0) - (size - 1) / 2).max() < 5 * spread
    neighbours = (np.abs(np.diff(shuffled, axis=1)) == 1).mean()
    assert abs(neighbours - 2 / size) < 5 * np.sqrt(2 / size / (size * trials))
    for lag in (1, 2, 3, 16, 64):
        correlation = np.corrcoef(shuffled[:, :-lag].ravel(), shuffled[:, lag:].ravel())[0, 1]
        assert abs(correlation + 1 / size) < 5 / np.sqrt(size * trials)
    counts = Counter(map(tuple, (permute(np.arange(4), 4, seed, 0).tolist() for seed in range(1200))))
    assert len(counts) == 24
    assert max(abs(count - 50) for count in counts.values()) < 6 * np.sqrt(50)


def test_ten_million_samples_need_no_table():
    order = SampleOrder(10_000_000, 64, 0)
    seen = np.concatenate([order.batch(step) for step in range(0, order.steps_per_epoch, 5000)])
    assert seen.min() >= 0
    assert seen.max() < 10_000_000
    assert len(np.unique(seen)) == len(seen)


@given(order=orders(), steps=st.lists(st.integers(0, 2000), min_size=1, max_size=8))
def test_random_access_equals_a_sequential_pass(order, steps):
    """So a resumed run goes on as if it had never stopped."""
    sequential = {step: order.batch(step).copy() for step in sorted(steps)}
    for step in steps:
        order_module._constants.cache_clear()
        again = SampleOrder(order.num_samples, order.batch_size, order.seed)
        np.testing.assert_array_equal(again.batch(step), sequential[step])


def test_the_order_never_changes():
    """Another order would make a resumed run repeat samples, and old runs irreproducible."""
    order = SampleOrder(10, 4, 7)
    assert [order.batch(step).tolist() for step in range(4)] == [[3, 9, 0, 7], [2, 5, 8, 4], [9, 2, 5, 3], [8, 6, 0, 1]]


@given(order=orders(), size=st.integers(1, 20), epoch=st.integers(0, 3), taken=st.integers(0, 200))
def test_dispatches_are_the_steps_that_an_epoch_has_left(order, size, epoch, taken):
    """Each step comes once, in order. A range begins at the same step as in an epoch that was not interrupted."""
    first, last = epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch
    start = min(first + taken, last)
    whole, left = order.dispatches(epoch, size), order.dispatches(epoch, size, start)
    assert order.dispatches(epoch, size, 0) == whole
    assert [step for steps in whole for step in steps] == list(range(first, last))
    assert [step for steps in left for step in steps] == list(range(start, last))
    assert {len(steps) for steps in whole + left} <= {size, 1}
    assert [steps for steps in left if len(steps) > 1] == [s for s in whole if len(s) > 1 and s.start >= start]
    assert size == 1 or sum(len(steps) > 1 for steps in whole) == order.steps_per_epoch // size


def test_a_batch_larger_than_the_set_is_an_error():
    with pytest.raises(UserError, match=r"training.batch_size=11 is larger than the training set \(10 frames\)"):
        SampleOrder(10, 11, 0)
    assert SampleOrder(10, 10, 0).steps_per_epoch == 1


@given(num_samples=st.integers(2, 60), rare=st.integers(1, 20), extra=st.integers(1, 200), seed=st.integers(0, 1000))
def test_oversampling_visits_all_samples_and_the_rare_ones_evenly(num_samples, rare, extra, seed):
    ids = np.random.default_rng(seed).permutation(num_samples)[: min(rare, num_samples)]
    order = SampleOrder(num_samples, 1, seed, ids, extra)
    epochs = 3
    visits = np.bincount(np.concatenate([epoch_of(order, e) for e in range(epochs)]), minlength=num_samples)
    common = np.setdiff1d(np.arange(num_samples), ids)
    assert (visits[common] == epochs).all()
    extras = visits[ids] - epochs
    assert extras.sum() == epochs * extra
    assert extras.max() - extras.min() <= 1


LENGTHS = (5, 1, 7, 3)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory, make_dataset):
    path = tmp_path_factory.mktemp("samples") / "x.zarr"
    written = make_dataset(path, LENGTHS, numbers=[0, 2, 5, 10], actions=3, state=2, axes=2)
    return ZarrGameplayDataset(path), written


BINS = AxisBins((1.5, 0.5), 11, 10.0)


windows = st.builds(
    Window,
    history=st.integers(1, 4),
    frame_skip=st.integers(1, 3),
    action_history=st.integers(0, 3),
    action_shift=st.integers(0, 4),
    action_chunk=st.integers(1, 3),
    state=st.booleans(),
    auxiliary=st.booleans(),
)


@given(
    episodes=st.permutations(range(4)).flatmap(lambda p: st.integers(1, 4).map(lambda n: p[:n])),
    window=windows,
    bins=st.sampled_from([None, BINS]),
    data=st.data(),
)
def test_a_sample_holds_the_frames_and_labels_of_its_window_and_never_crosses_episodes(
    recorded, episodes, window, bins, data
):
    """Against a loop over episodes and frames."""
    dataset, written = recorded
    expected = [(e, t) for e in episodes for t in range(LENGTHS[e] - window.action_shift)]
    if not expected:
        with pytest.raises(UserError, match="action_shift"):
            Samples(dataset, episodes, window, bins)
        return
    samples = Samples(dataset, episodes, window, bins)
    assert len(samples) == len(expected)
    ids = np.array(data.draw(st.lists(st.integers(0, len(expected) - 1), min_size=1, max_size=6)))
    labels = samples.labels(ids)
    names = ("episode_0", "episode_2", "episode_5", "episode_10")
    assert samples.locate(ids) == [(names[expected[i][0]], expected[i][1]) for i in ids]
    for row, i in enumerate(ids):
        e, t = expected[i]
        seen = [max(t - k * window.frame_skip, 0) for k in reversed(range(window.history))]
        which, frames = samples.locate_rows(samples.rows(ids)[row])
        assert [(episodes[w], f) for w, f in zip(which, frames, strict=True)] == [(e, f) for f in seen]
        ahead = [t + window.action_shift + c for c in range(window.action_chunk)]
        action = written[e].actions[[min(a, LENGTHS[e] - 1) for a in ahead]]
        np.testing.assert_array_equal(labels["action"][row], action if window.action_chunk > 1 else action[0])
        np.testing.assert_array_equal(samples.targets[i], action[0])
        if bins is not None:
            moved = bins.find(written[e].axes[[min(a, LENGTHS[e] - 1) for a in ahead]])
            np.testing.assert_array_equal(labels["axes"][row], moved if window.action_chunk > 1 else moved[0])
            np.testing.assert_array_equal(samples.axis_targets[i], moved[0])
        if window.action_chunk > 1:
            assert labels["mask"][row].tolist() == [a < LENGTHS[e] for a in ahead]
        if window.action_history:
            done = written[e].actions
            if bins is not None:
                done = np.concatenate([done, bins.squeeze(written[e].axes)], axis=1)
            before = [done[k] if k >= 0 else np.zeros_like(done[0]) for k in range(t - window.action_history, t)]
            np.testing.assert_array_equal(labels["previous_actions"][row], before)
        if window.state:
            np.testing.assert_array_equal(labels["state"][row], written[e].state[seen])
        if window.auxiliary:
            np.testing.assert_array_equal(labels["auxiliary"][row], written[e].state[t])
    parts = {"mask": window.action_chunk > 1, "previous_actions": window.action_history > 0, "state": window.state}
    parts |= {"axes": bins is not None, "auxiliary": window.auxiliary}
    assert labels.keys() == {"action", *(name for name, has in parts.items() if has)}


@given(window=windows)
def test_each_frame_of_a_history_has_the_labels_of_its_own_sample(recorded, window):
    """Frames before the episode are masked."""
    dataset, _ = recorded
    plain, every = (Samples(dataset, [2, 0], replace(window, every_frame=e), BINS) for e in (False, True))
    ids = np.arange(len(every))
    labels = every.labels(ids)
    for i in ids:
        ((_, t),) = plain.locate(ids[i : i + 1])
        for place, back in enumerate(reversed(range(0, window.history * window.frame_skip, window.frame_skip))):
            if back > t:
                assert not labels["mask"][i, place].any()
                if window.action_history:
                    assert not labels["previous_actions"][i, place].any()
                continue
            own = plain.labels(np.array([i - back]))
            for name in {"action", "axes", "previous_actions", "auxiliary"} & own.keys():
                np.testing.assert_array_equal(labels[name][i, place], own[name][0])
            np.testing.assert_array_equal(labels["mask"][i, place], own.get("mask", [True])[0])
    if window.state:
        np.testing.assert_array_equal(labels["state"], plain.labels(ids)["state"])


@given(window=windows, every_frame=st.booleans())
def test_of_a_takeover_only_the_persons_frames_are_targets_and_all_are_seen(recorded, window, every_frame):
    """Against the samples of the same episodes without the attribute."""
    window = replace(window, every_frame=every_frame)
    dataset, plain = ZarrGameplayDataset(recorded[0].path), Samples(recorded[0], [2, 0], window, BINS)
    for e, stretches in ((2, [[1, 2], [4, 4], [6, 9]]), (0, [[3, 3]])):
        dataset.episodes[e].attrs["human_frames"] = stretches
    targets = {"episode_5": [1, 2, 4, 6], "episode_0": [3]}
    shift, places = window.action_shift, plain.locate(np.arange(len(plain)))
    wanted = np.flatnonzero([t + shift in targets[name] for name, t in places])
    if not len(wanted):
        return
    samples = Samples(dataset, [2, 0], window, BINS)
    ids = np.arange(len(samples))
    labels, expected = samples.labels(ids), plain.labels(wanted)
    assert samples.locate(ids) == plain.locate(wanted)
    np.testing.assert_array_equal(samples.rows(ids), plain.rows(wanted))
    np.testing.assert_array_equal(samples.targets, plain.targets[wanted])
    np.testing.assert_array_equal(samples.axis_targets, plain.axis_targets[wanted])
    for name in expected.keys() - {"mask"}:
        np.testing.assert_array_equal(labels[name], expected[name])
    if "mask" in labels:
        for i, (name, t) in enumerate(samples.locate(ids)):
            seen = [t - k * window.frame_skip for k in reversed(range(window.history))] if every_frame else [t]
            ahead = np.add.outer(seen, window.action_shift + np.arange(window.action_chunk))
            kept = np.isin(ahead, targets[name]) & (np.array(seen) >= 0)[:, None]
            np.testing.assert_array_equal(labels["mask"][i], kept.reshape(labels["mask"][i].shape))
        assert labels["mask"].reshape(len(samples), -1).any(axis=1).all()
    actions, axes = (np.concatenate([values[shift:] for values in recorded]) for recorded in samples.recorded)
    np.testing.assert_array_equal(actions, samples.targets)
    np.testing.assert_array_equal(BINS.find(axes), samples.axis_targets)
    assert len(Samples(dataset, [2, 0], window, BINS, unlabelled=True)) == len(plain)


def test_episodes_in_which_nobody_took_over_teach_nothing(recorded):
    dataset = ZarrGameplayDataset(recorded[0].path)
    dataset.episodes[2].attrs["human_frames"] = dataset.episodes[0].attrs["human_frames"] = []
    assert len(Samples(dataset, [2, 3], Window())) == LENGTHS[3]
    with pytest.raises(UserError, match="nobody took over in episode_5 to episode_0 of "):
        Samples(dataset, [2, 0], Window())


@pytest.mark.parametrize(
    "stretches", ["all", 3, [3], [[1]], [[2, 1]], [[0, 2], [2, 3]], [[-1, 2]], [[0, 1.5]], [["0", "1"]]]
)
def test_an_attribute_that_names_no_frames_is_refused(tmp_path, make_dataset, stretches):
    make_dataset(tmp_path / "x.zarr", [9, 9])
    zarr.open_group(tmp_path / "x.zarr/episode_1").attrs["human_frames"] = stretches
    with pytest.raises(UserError, match=r"episode_1: its attribute human_frames has .* in rising order"):
        ZarrGameplayDataset(tmp_path / "x.zarr")


def test_which_frames_are_labelled_belongs_to_a_datasets_fingerprint(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [9, 9])
    found = []
    for stretches in (None, [[0, 3]], [[0, 4]]):
        if stretches:
            zarr.open_group(tmp_path / "x.zarr/episode_1").attrs["human_frames"] = stretches
        found.append(fingerprint(ZarrGameplayDataset(tmp_path / "x.zarr")))
    assert len({*found}) == 3


@given(order=orders(), targets=st.integers(1, 8))
def test_an_epoch_of_samples_with_several_targets_is_the_start_of_a_whole_epoch(order, targets):
    if order.batch_size * targets > order.num_samples:
        with pytest.raises(UserError, match=f"windows of {targets} frames"):
            replace(order, targets_per_sample=targets)
        return
    part = replace(order, targets_per_sample=targets)
    assert part.steps_per_epoch == order.num_samples // targets // order.batch_size
    seen = epoch_of(part, 3)
    np.testing.assert_array_equal(seen, epoch_of(order, 3)[: len(seen)])


def test_an_epoch_has_fewer_visits_where_each_frame_of_a_history_is_a_target(recorded):
    for every_frame, targets in ((False, 1), (True, 2)):
        order = Samples(recorded[0], [0, 2], Window(history=2, every_frame=every_frame)).order(3, 0)
        assert order.targets_per_sample == targets


def test_labels_take_the_shape_of_the_samples(recorded):
    samples = Samples(recorded[0], [0, 2], Window(history=2, action_history=3, action_chunk=2, state=True))
    labels = samples.labels(np.arange(12).reshape(3, 4))
    assert {name: array.shape for name, array in labels.items()} == {
        "action": (3, 4, 2, 3),
        "mask": (3, 4, 2),
        "previous_actions": (3, 4, 3, 3),
        "state": (3, 4, 2, 2),
    }
    assert samples.rows(np.arange(12).reshape(3, 4)).shape == (3, 4, 2)


def pressing(tmp_path, make_dataset) -> Samples:
    """20 frames, of which every tenth presses the second action."""
    rows = [np.stack([np.ones(10), np.arange(10) == e, np.zeros(10)], axis=1) for e in range(2)]
    make_dataset(tmp_path / "x.zarr", [10, 10], actions=3, rows=rows)
    return Samples(ZarrGameplayDataset(tmp_path / "x.zarr"), [0, 1], Window())


@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.5, 0.9])
def test_oversampled_buttons_reach_the_wanted_share(tmp_path, make_dataset, ratio):
    samples = pressing(tmp_path, make_dataset)
    order = samples.order(1, 0, OversampleConfig(("a1",), ratio))
    pressed = samples.targets[epoch_of(order, 0)].mean(axis=0)
    assert pressed[1] == pytest.approx(ratio, abs=0.5 / len(samples))
    np.testing.assert_allclose(samples.frequencies(order), pressed)


@pytest.mark.parametrize("chunk", [1, 2])
def test_frequencies_of_windows_count_all_their_frames(tmp_path, make_dataset, chunk):
    samples = pressing(tmp_path, make_dataset)
    samples = Samples(samples.dataset, [0, 1], Window(history=4, action_chunk=chunk, every_frame=True))
    order = samples.order(1, 0, OversampleConfig(("a1",), 0.5))
    visited = np.concatenate([np.arange(len(samples)), np.resize(order.rare, order.extra)])
    shares = []
    for sample in visited:  # each of its frames that lies in the episode
        episode, t = divmod(int(sample), 10)
        shares.append(np.mean([frame == episode for frame in range(max(t - 3, 0), t + 1)]))
    found = samples.frequencies(order)
    assert found[0] == 1
    assert found[1] == pytest.approx(np.mean(shares), rel=0.2)
    assert found[1] < 0.4


def test_buttons_above_the_wanted_share_get_no_extra_visits(tmp_path, make_dataset):
    samples = pressing(tmp_path, make_dataset)
    assert samples.order(1, 0, OversampleConfig(("a1",), 0.05)).extra == 0
    assert samples.order(1, 0, OversampleConfig(("a0",), 0.5)).extra == 0
    np.testing.assert_allclose(samples.frequencies(samples.order(1, 0)), [1, 0.1, 0])


@pytest.mark.parametrize(("shift", "changes"), [(0, [0, 1, 10, 11, 12]), (1, [0, 1, 9, 11])])
def test_oversampled_changes_reach_the_wanted_share(tmp_path, make_dataset, shift, changes):
    samples = Samples(pressing(tmp_path, make_dataset).dataset, [0, 1], Window(action_shift=shift))
    order = samples.order(1, 0, OversampleConfig(changes=True, ratio=0.6))
    np.testing.assert_array_equal(order.rare, changes)
    assert np.isin(epoch_of(order, 0), changes).mean() == pytest.approx(0.6, abs=0.5 / len(samples))


def test_oversampled_changes_are_also_those_of_axes(tmp_path, make_dataset):
    written = make_dataset(tmp_path / "x.zarr", [40], actions=0, axes=1)
    bins = AxisBins.fit(written[0].axes, 7, 1.0)
    found = bins.find(written[0].axes)[:, 0].tolist()
    samples = Samples(ZarrGameplayDataset(tmp_path / "x.zarr"), [0], Window(), bins)
    rare = samples.order(1, 0, OversampleConfig(changes=True)).rare
    steps = [abs(now - before) for before, now in zip([3, *found], found, strict=False)]
    assert rare.tolist() == [t for t, step in enumerate(steps) if step > 1]
    assert 0 < len(rare) < sum(step > 0 for step in steps)


def test_oversampling_an_unknown_or_unused_button_is_an_error(tmp_path, make_dataset):
    samples = pressing(tmp_path, make_dataset)
    with pytest.raises(UserError, match="did you mean 'a1'"):
        samples.order(1, 0, OversampleConfig(("a11",), 0.5))
    for changes in (False, True):
        with pytest.raises(UserError, match=r"a2.*pressed"):
            samples.order(1, 0, OversampleConfig(("a2",), 0.5, changes))
    make_dataset(tmp_path / "still.zarr", [5], actions=1, rows=[np.zeros((5, 1))])
    still = Samples(ZarrGameplayDataset(tmp_path / "still.zarr"), [0], Window())
    with pytest.raises(UserError, match=r"oversample.changes: no action"):
        still.order(1, 0, OversampleConfig(changes=True))
