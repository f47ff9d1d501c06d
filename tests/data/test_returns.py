"""Which training episodes count more, against NumPy and loops."""

from collections.abc import Sequence
from io import StringIO
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from BC_training.common.axes import AxisBins
from BC_training.common.config import load_config
from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.errors import UserError
from BC_training.common.preprocess import Window
from BC_training.common.schema import OversampleConfig
from BC_training.common.settings.returns import WeightByReturnConfig
from BC_training.data.order import SampleOrder
from BC_training.data.returns import advantage_weights, weigh
from BC_training.data.samples import Samples

LENGTHS, SCORES = (9, 6, 20, 3, 12), (4, 10, -2, 10, 7.5)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory, make_dataset) -> ZarrGameplayDataset:
    path = tmp_path_factory.mktemp("returns") / "x.zarr"
    make_dataset(path, LENGTHS, axes=1)
    for number, score in enumerate(SCORES):
        zarr.open_group(path / f"episode_{number}").attrs["score"] = score
    return ZarrGameplayDataset(path)


def chosen(dataset: ZarrGameplayDataset, episodes: Sequence[int] = range(5), **options: Any):
    """What ``weigh`` chooses, and prints."""
    screen = StringIO()
    found = weigh(WeightByReturnConfig(**options), dataset, list(episodes), Console(file=screen))
    return *found[1:], screen.getvalue()


def visits_of(order: SampleOrder, epoch: int, size: int) -> np.ndarray:
    """How often each of ``size`` samples is visited in an epoch."""
    steps = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
    return np.bincount(np.concatenate([order.batch(step) for step in steps]), minlength=size)


some_scores = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=9).filter(lambda scores: np.std(scores) > 1e-3)


@given(scores=some_scores, temperature=st.floats(0.05, 100), seed=st.integers(0, 99))
def test_weights_are_exponentials_of_standardised_scores_with_a_limit_and_a_mean_of_one(scores, temperature, seed):
    frames = np.random.default_rng(seed).integers(1, 50, len(scores)).astype(np.float64)
    mean = sum(scores) / len(scores)
    deviation = (sum((score - mean) ** 2 for score in scores) / len(scores)) ** 0.5
    raw = [min(np.exp(min((score - mean) / deviation / temperature, 100)), 20.0) for score in scores]
    total = sum(w * n for w, n in zip(raw, frames, strict=True))
    expected = [w * sum(frames) / total for w in raw]
    np.testing.assert_allclose(advantage_weights(np.array(scores), temperature, frames), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("temperature", [1e-310, 1e-9, 1e300])
@pytest.mark.parametrize("largest", [1.0, 1e308])
def test_weights_are_finite_at_any_temperature_and_scale_of_scores(temperature, largest):
    weights = advantage_weights(np.array([-1.0, 0.25, 1.0]) * largest, temperature, np.array([2.0, 3.0, 5.0]))
    expected = [1, 1, 1] if temperature > 1 else [0, 1.25, 1.25]
    np.testing.assert_allclose(weights, expected)


@given(
    weights=st.lists(st.floats(0, 20), min_size=2, max_size=4).filter(lambda w: sum(w) > 0.1), seed=st.integers(0, 99)
)
def test_each_epoch_visits_a_sample_as_often_as_its_weight_and_all_epochs_exactly(recorded, weights, seed):
    samples = Samples(recorded, range(len(weights)), Window())
    per_sample = np.repeat(weights, LENGTHS[: len(weights)])
    wanted = per_sample * len(samples) / per_sample.sum()
    order, epochs = samples.order(len(samples), seed, weights=np.array(weights, np.float64)), 40
    visits = np.stack([visits_of(order, epoch, len(samples)) for epoch in range(epochs)])
    assert visits.sum() == epochs * len(samples)
    assert (np.abs(visits - wanted) < 1 + 1e-9).all()
    assert (np.abs(visits.mean(axis=0) - wanted) < 3 / epochs).all()


def test_equal_weights_are_the_order_without_weights(recorded):
    samples = Samples(recorded, range(5), Window(action_shift=2))
    plain, weighted = samples.order(7, 3), samples.order(7, 3, weights=np.full(5, 0.1))
    for step in range(40):
        np.testing.assert_array_equal(weighted.batch(step), plain.batch(step))
    np.testing.assert_allclose(samples.frequencies(weighted), samples.frequencies(plain))


@pytest.mark.parametrize("window", [Window(action_shift=2), Window(history=2, action_chunk=2, every_frame=True)])
def test_windows_chunks_and_takeovers_are_drawn_by_the_weight_of_their_episode(recorded, window):
    """The episodes are counted where the samples lie, and the frequencies of buttons over all visits."""
    dataset = ZarrGameplayDataset(recorded.path)
    dataset.episodes[2].attrs["human_frames"] = [[3, 6], [12, 15]]
    samples = Samples(dataset, [4, 2, 0], window, AxisBins((1.5,), 11, 10.0))
    order = samples.order(len(samples) // window.targets, 0, weights=np.array([2.0, 1.0, 0.25]))
    share = {"episode_4": 2.0, "episode_2": 1.0, "episode_0": 0.25}
    wanted = np.array([share[name] for name, _ in samples.locate(np.arange(len(samples)))])
    wanted /= wanted.mean()
    visits = sum(visits_of(order, epoch, len(samples)) for epoch in range(400)) / 400 * window.targets
    np.testing.assert_allclose(visits, wanted, atol=0.25 if window.every_frame else 0.01)
    np.testing.assert_allclose(samples.frequencies(order), (wanted @ samples.targets) / len(samples), rtol=1e-12)


def test_a_step_is_drawn_alike_whenever_it_is_asked_for(recorded):
    """So a resumed run goes on as if it had never stopped. The numbers are written down: they must never change."""
    first, again = (Samples(recorded, [0, 1], Window()).order(5, 7, weights=np.array([3.0, 1.0])) for _ in range(2))
    forth = [first.batch(step) for step in range(9)]
    np.testing.assert_array_equal([again.batch(step) for step in reversed(range(9))][::-1], forth)
    assert [first.batch(step).tolist() for step in range(4)] == [
        [2, 9, 0, 5, 1],
        [4, 13, 3, 4, 7],
        [1, 6, 6, 11, 8],
        [7, 10, 3, 2, 5],
    ]


@pytest.mark.parametrize(("top", "kept"), [(0.1, [1]), (0.4, [1, 3]), (0.6, [1, 3, 4]), (0.99, [0, 1, 2, 3, 4])])
def test_top_keeps_the_best_share_in_order_and_the_earlier_of_equals(recorded, top, kept):
    episodes, weights, printed = chosen(recorded, top=top)
    assert (episodes, weights) == (kept, None)
    assert f"the best {len(kept)} of 5 training episodes" in printed
    assert "all: -2.00 to 10.0" in printed
    assert chosen(recorded, episodes=[3, 2, 1], top=0.3)[0] == [3]


def test_what_the_weights_are_and_are_worth_is_said(recorded):
    episodes, weights, printed = chosen(recorded, episodes=[4, 2, 0], temperature=0.5)
    frames = np.array([12.0, 20, 9])
    np.testing.assert_array_equal(weights, advantage_weights(np.array([7.5, -2, 4]), 0.5, frames))
    worth = (frames @ weights) ** 2 / (frames @ weights**2)
    assert episodes == [4, 2, 0]
    assert f"weights {weights.min():.2g} to {weights.max():.2g}, as if {worth:.0f} of their 41 frames" in printed


def test_a_file_of_scores_goes_before_those_that_were_recorded(recorded, tmp_path):
    file = tmp_path / "scores.yaml"
    for text in ("episode_2: 99\nepisode_0: 1e2\n", '{"episode_2": 99, "episode_0": 1e2}'):
        file.write_text(text)
        assert chosen(recorded, top=0.4, scores=str(file))[0] == [0, 2]


def test_other_scores_have_another_digest(recorded, tmp_path):
    (tmp_path / "s.yaml").write_text("episode_2: -3")
    digests = []
    for file in (None, None, str(tmp_path / "s.yaml")):
        options = WeightByReturnConfig(top=0.4, scores=file)
        resolved = weigh(options, recorded, [0, 1, 2], Console(file=StringIO()))[0]
        assert resolved is not None
        digests.append(resolved.digest)
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("episode_9: 3", r"unknown episode 'episode_9'; did you mean .*x.yaml gives it a score"),
        (
            "episode_0: .nan",
            r"x.zarr/episode_0 has the score nan, which is no finite number: write a line 'episode_0: SC",
        ),
        ("episode_0: good", r"episode_0 has the score 'good', which is no finite number"),
        ("episode_0: true", r"episode_0 has the score True, which"),
        ("episode_0: 1\nepisode_0: 2", r"scores=.*x.yaml: line 1: the key 'episode_0' is there twice"),
        ("- 3", r"scores=.*x.yaml: expected lines such as 'episode_0: 12.5'"),
        ("episode_0: [", r"scores=.*x.yaml: line"),
        (None, r"scores=.*x.yaml: .*No such file"),
    ],
)
def test_a_file_that_gives_no_scores_is_an_error(recorded, tmp_path, text, complaint):
    if text is not None:
        (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError, match=complaint):
        chosen(recorded, top=0.5, scores=str(tmp_path / "x.yaml"))


@pytest.mark.parametrize("score", [None, float("inf"), "12"])
def test_a_training_episode_without_a_finite_score_is_named(recorded, score):
    dataset = ZarrGameplayDataset(recorded.path)
    dataset.episodes[3].attrs["score"] = score
    with pytest.raises(UserError, match=r"x.zarr/episode_3 has .* 'episode_3: SCORE' into a file, and name it by trai"):
        chosen(dataset, temperature=1.0)
    assert chosen(dataset, episodes=[0, 1], top=0.5)[0] == [1]


def test_equal_scores_tell_no_episode_from_another(recorded):
    with pytest.raises(UserError, match=r"the scores of all 2 training episodes of .* are 10.0, .*: set it null"):
        chosen(recorded, episodes=[1, 3], top=0.5)


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("{}", "has neither temperature nor top: write one, such as training.weight_by_return.top=0.3"),
        ("{temperature: 1, top: 0.5}", "has both temperature and top"),
        ("{temperature: 0}", "temperature=0.0 is out of range: more than 0"),
        ("{temperature: .inf}", "temperature=inf is out of range"),
        ("{temperature: .nan}", "temperature=nan is out of range"),
        ("{top: 0}", "top=0.0 is out of range: more than 0, at most 1"),
        ("{top: 1.01}", "top=1.01 is out of range"),
        ("{tops: 1}", "unknown key 'training.weight_by_return.tops'; did you mean 'top'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(setting, complaint):
    with pytest.raises(UserError, match=complaint):
        load_config("configs/pure_cnn.yaml", [f"training.weight_by_return={setting}"])


def test_weights_do_not_go_with_oversampling(recorded):
    samples = Samples(recorded, [0, 1], Window())
    with pytest.raises(UserError, match=r"dataset.oversample and training.weight_by_return.temperature both"):
        samples.order(1, 0, OversampleConfig(changes=True), np.array([1.0, 2.0]))
