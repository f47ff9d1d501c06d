import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import pearsonr
from sklearn.metrics import mean_absolute_error

from BC_training.common.axes import AxisBins, RecordedAxes
from BC_training.common.decode import Decoding
from BC_training.common.decoder import Decoder, amounts
from BC_training.common.metrics import recorded_axes

BINS = st.builds(
    AxisBins,
    st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=2).map(tuple),
    st.integers(1, 20).map(lambda n: 2 * n + 1),
    st.floats(0.1, 500),
)
AMOUNTS = hnp.arrays(np.float32, (6, 2), elements=st.floats(-2000, 2000, width=32))


@given(bins=BINS, axes=AMOUNTS)
def test_an_amount_falls_into_the_bin_that_is_nearest_in_the_mu_law(bins, axes):
    """Against a search; left and right are alike, and only the middle bin stands for 0."""
    found, of_bins = bins.find(axes), bins.amounts
    assert found.dtype == np.int32
    np.testing.assert_array_equal(bins.find(-axes), 2 * bins.middle - found)
    np.testing.assert_array_equal(bins.find(of_bins.T.astype(np.float32)).T, np.tile(np.arange(bins.count), (2, 1)))
    assert (of_bins[:, bins.middle] == 0).all()
    assert (bins.find(np.zeros((1, 2), np.float32)) == bins.middle).all()
    centres = bins.squeeze(of_bins.T.astype(np.float32)).T
    distance = np.abs(bins.squeeze(axes)[:, :, None] - centres[None])
    nearest = np.take_along_axis(distance, found[..., None], axis=2)[..., 0]
    np.testing.assert_allclose(nearest, distance.min(axis=2), atol=1e-6)


def test_bins_reach_as_far_as_nearly_all_recorded_amounts():
    rng = np.random.default_rng(0)
    axes = np.stack([rng.normal(size=5000), np.zeros(5000), rng.integers(-3, 4, 5000)], axis=1).astype(np.float32)
    axes[0, 0] = 1e4  # one wild value does not make all others alike
    scales = AxisBins.fit(axes, 11, 10.0).scales
    assert 2.5 < scales[0] < 5
    assert scales[1:] == (1, 3)


@given(logits=hnp.arrays(np.float32, (4, 2, 7), elements=st.floats(-30, 30, width=32)))
def test_an_axis_has_the_amount_of_its_likeliest_bin_or_the_mean(logits):
    bins = AxisBins((1.0, 5.0), 7, 10.0)
    of_bins, p = bins.amounts, np.exp(logits.astype(np.float64))
    p /= p.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(amounts(logits, bins, "mean"), (p * of_bins).sum(axis=-1), rtol=1e-4, atol=1e-6)
    chosen = bins.find(amounts(logits, bins, "mode"))
    np.testing.assert_array_equal(np.take_along_axis(logits, chosen[..., None], -1)[..., 0], logits.max(axis=-1))


def test_an_axis_that_does_not_know_stays_at_rest():
    assert amounts(np.zeros((1, 2, 7)), AxisBins((1.0, 5.0), 7, 10.0), "mode").tolist() == [[0, 0]]


def test_with_a_temperature_axes_are_drawn_by_their_probabilities():
    bins = AxisBins((1.0,), 3, 10.0)
    logits = np.log(np.array([[0.2, 0.5, 0.3]], np.float32))
    decoder = Decoder(Decoding({"jump": 0.5}, temperature=0.5), bins)
    decoder.reset(7)
    drawn = []
    for _ in range(4000):
        drawn.append(float(decoder.move(logits)[0]))
        assert decoder.move(logits)[0] == drawn[-1]  # the draw of a frame
        decoder(np.array([0.5]))
    expected = np.array([0.2, 0.5, 0.3]) ** 2
    shares = [drawn.count(value) / 4000 for value in (-1.0, 0.0, 1.0)]
    np.testing.assert_allclose(shares, expected / expected.sum(), atol=0.03)


@pytest.mark.parametrize("shift", [0, 2])
def test_axes_are_scored_against_what_was_recorded(shift):
    rng, bins = np.random.default_rng(0), AxisBins((1.0, 2.0), 11, 10.0)
    true = [((rng.random((n, 2)) < 0.6) * rng.normal(size=(n, 2))).astype(np.float32) for n in (40, 3, 60)]
    axes = recorded_axes(("steer", "gas"), bins, true, shift)
    assert axes is not None
    actual = np.concatenate([a[shift:] for a in true])
    np.testing.assert_array_equal(axes.targets, actual)
    predicted = (actual + rng.normal(0, 0.3, actual.shape) * (rng.random(actual.shape) < 0.7)).astype(np.float32)
    near = np.abs(bins.find(actual) - bins.find(predicted)) <= 1
    np.testing.assert_array_equal(axes.right(predicted), near.all(axis=1))
    for i, scores in enumerate(axes.scores(predicted).values()):
        ours, theirs = predicted[:, i].astype(np.float64), actual[:, i].astype(np.float64)
        moved = theirs != 0
        assert scores == {
            "mean_absolute_error": pytest.approx(mean_absolute_error(theirs, ours)),
            "within_one_bin": near[:, i].mean(),
            "correlation": pytest.approx(pearsonr(theirs, ours)[0]),
            "direction": (np.sign(ours) == np.sign(theirs))[moved].mean(),
            "zeros": pytest.approx(1 - moved.mean()),
            "predicted_zeros": pytest.approx((ours == 0).mean()),
        }
    before = np.concatenate([np.concatenate([np.zeros((1, 2)), a])[: max(len(a) - shift, 0)] for a in true])
    np.testing.assert_array_equal(axes.previous, before)
    np.testing.assert_array_equal(axes.changes(), (np.abs(bins.find(actual) - bins.find(before)) > 1).any(axis=1))


def test_scores_without_a_value_are_none():
    still = np.zeros((4, 1), np.float32)
    axes = RecordedAxes(("x",), AxisBins((1.0,), 3, 1.0), still, still)
    scores = axes.scores(np.ones((4, 1), np.float32))["x"]
    assert (scores["correlation"], scores["direction"], scores["zeros"]) == (None, None, 1)
