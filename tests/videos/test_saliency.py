"""Saliency marks the pixels that are known to decide."""

import dataclasses
from io import StringIO
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rich.console import Console
from untrained import save_run
from videos import decode

from BC_training.common.axes import AxisBins
from BC_training.common.errors import UserError
from BC_training.common.preprocess import InputSpec
from BC_training.common.schema import Config, DatasetConfig
from BC_training.evaluation.predict import EpisodePredictions
from BC_training.models.resnet_policy.model import Config as ResNetConfig
from BC_training.training.train_state import init_state, make_predict, make_train_step, split_model
from BC_training.videos.saliency import (
    choose_actions,
    choose_logits,
    film_saliency,
    make_gradient,
    make_occlusion,
    overlay,
    smooth,
)

QUIET = Console(file=StringIO())
SIZE = (24, 32)
REGION = (slice(4, 10), slice(20, 28))  # rows and columns that decide


def brightness(params, batch_stats, observation):
    """Two logits: the brightness of the region in the newest frame, and in the oldest."""
    means = observation["frames"].astype(jnp.float32)[:, :, :, *REGION].mean(axis=(2, 3, 4)) / 255
    return jnp.stack([means[:, -1], means[:, 0]], axis=1)


def noise(count: int = 2, history: int = 3) -> dict[str, np.ndarray]:
    return {"frames": np.random.default_rng(0).integers(0, 256, (count, history, 3, *SIZE), np.uint8)}


def weights(action: int, count: int = 2, actions: int = 2) -> np.ndarray:
    return np.tile(np.eye(actions, dtype=np.float32)[action], (count, 1))


def test_the_gradient_is_the_derivative_at_the_newest_frame():
    def squared(params, batch_stats, observation):  # its derivative differs from frame to frame
        return brightness(params, batch_stats, observation) ** 2

    batch = noise()
    found = np.asarray(make_gradient(squared)((), (), batch, weights(0)))
    newest = batch["frames"][:, -1, :, *REGION].mean(axis=(1, 2, 3), keepdims=True)[..., 0] / 255
    expected = np.zeros((2, *SIZE))
    expected[:, *REGION] = 2 * newest * 3 / (3 * 6 * 8 * 255)  # three channels, and a mean of three times 6 x 8
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_older_frames_are_left_out():
    for make in (make_gradient, lambda predict: make_occlusion(predict, SIZE)):
        assert not np.asarray(make(brightness)((), (), noise(), weights(1))).any()


def test_occlusion_is_by_how_much_the_logit_falls():
    batch = noise(history=1)
    batch["frames"][:, :, :, *REGION] = 255
    found = np.asarray(make_occlusion(brightness, SIZE)((), (), batch, weights(0)))
    assert found.shape == (2, 12, 16)  # patches of 2 x 2
    frames = batch["frames"].astype(np.float64)
    for b in range(2):
        for row, column in ((2, 10), (4, 13), (0, 0), (11, 15)):  # within the region, and not
            covered = frames[b].copy()
            place = slice(2 * row, 2 * row + 2), slice(2 * column, 2 * column + 2)
            covered[0, :, *place] = frames[b, 0].mean(axis=(1, 2))[:, None, None]
            fall = (frames[b, 0, :, *REGION].mean() - covered[0, :, *REGION].mean()) / 255
            np.testing.assert_allclose(found[b, row, column], fall, rtol=1e-3, atol=1e-6)
    within = np.zeros((12, 16), bool)
    within[2:5, 10:14] = True
    assert found[:, within].min() > 0.005
    assert np.abs(found[:, ~within]).max() < 1e-6


def test_occlusion_covers_sides_that_no_patch_divides():
    size = (23, 37)
    frames = np.zeros((1, 1, 3, *size), np.uint8)
    frames[..., -1, -1] = 255  # the last pixel alone

    def last(params, batch_stats, observation):
        return observation["frames"][:, 0, :1, -1, -1].astype(jnp.float32)

    found = np.asarray(make_occlusion(last, size)((), (), {"frames": frames}, np.ones((1, 1), np.float32)))[0]
    assert found.shape == (12, 19)
    assert found[-1, -1] > 200
    assert np.abs(found[:-1]).max() == np.abs(found[:, :-1]).max() == 0


@pytest.mark.slow
def test_the_region_that_a_trained_policy_looks_at_is_found():
    """A network learns, from noise, that one region's brightness decides."""
    small = ResNetConfig(
        "resnet_policy", width=4, stage_blocks=(1, 1), position_features=4, dense_features=16, dropout=0.0
    )
    config, inputs = Config(DatasetConfig("unused"), small), InputSpec(("a", "b"), (), SIZE, SIZE, 17.0)
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (256, 1, 3, *SIZE), np.uint8)
    bright = rng.random(256) < 0.5
    frames[:, :, :, *REGION] //= 4
    frames[bright, :, :, *REGION] += 190
    action = np.stack([bright, ~bright], axis=1)
    model, optimizer = split_model(config, inputs), optax.adam(3e-3)
    step = make_train_step(model, optimizer, lambda _: 3e-3, np.ones(2, np.float32), config)
    state, items = init_state(model, optimizer), {"frames": frames.reshape(4, 64, 1, 3, *SIZE)}
    items["action"] = action.reshape(4, 64, 2)
    for _ in range(10):
        state, metrics = step(state, (), items)
    assert float(metrics.loss[-1]) < 0.2
    predict = make_predict(model)
    seen, of = {"frames": frames[bright][:8]}, weights(0, 8)
    gradient = np.asarray(make_gradient(predict)(state.params, state.batch_stats, seen, of))
    occlusion = np.asarray(make_occlusion(predict, SIZE)(state.params, state.batch_stats, seen, of))
    # A trained network's gradient is noisy: it tells where to look less clearly than occlusion.
    for found, cell, factor in ((np.stack([smooth(g) for g in gradient]), 1, 1.3), (occlusion, 2, 10)):
        rows, columns = (slice(s.start // cell, s.stop // cell) for s in REGION)
        inside = found[:, rows, columns].mean()
        outside = (found.sum() - found[:, rows, columns].sum()) / (found.size - found[:, rows, columns].size)
        assert inside > factor * abs(outside)
    best = np.array([np.unravel_index(f.argmax(), f.shape) for f in occlusion]) * 2
    assert all(REGION[0].start <= row < REGION[0].stop for row in best[:, 0])
    assert all(REGION[1].start <= column < REGION[1].stop for column in best[:, 1])


BINS = AxisBins((1.0, 30.0), 3, 10.0)
PROBABILITY = np.array([[0.6, 0.7, 0.1], [0.1, 0.3, 0.2]], np.float32)


def predictions_of(probability: np.ndarray, axes: Any) -> EpisodePredictions:
    held, x = probability > 0.5, np.asarray(axes, np.float32)
    bins, thresholds = BINS if x.shape[1] else None, np.full(held.shape[1], 0.5, np.float32)
    values = held, np.ones(len(x), bool), held, probability, thresholds, np.zeros(len(x)), 9.0
    return EpisodePredictions("e", tuple("abc"[: held.shape[1]]), *values, ("x", "y")[: x.shape[1]], x, x, bins)


def test_actions_are_chosen_by_place_or_by_what_is_done():
    shown = predictions_of(PROBABILITY, np.zeros((2, 0)))
    np.testing.assert_array_equal(choose_actions(shown, None), [[1, 1, 0], [0, 1, 0]])
    np.testing.assert_array_equal(choose_actions(shown, 2), [[0, 0, 1], [0, 0, 1]])
    shown = predictions_of(PROBABILITY, [[0, 0], [0, -30]])
    np.testing.assert_array_equal(choose_actions(shown, None), [[1, 1, 0, 0, 0], [0, 0, 0, 0, 1]])
    np.testing.assert_array_equal(choose_actions(shown, 3), [[0, 0, 0, 1, 0]] * 2)
    alone = predictions_of(PROBABILITY[:, :0], [[0, 0], [1, 0]])
    np.testing.assert_array_equal(choose_actions(alone, None), [[1, 1], [1, 0]])


def test_the_logit_of_an_axis_is_that_of_the_predicted_bin():
    shown = predictions_of(PROBABILITY[:, :1], [[0, 30], [-1, 0]])
    chosen = np.array([[True, False, True], [False, True, True]])
    expected = [[1, 0, 0, 0, 0, 0, 1], [0, 1, 0, 0, 0, 1, 0]]
    np.testing.assert_array_equal(choose_logits(shown, chosen), expected)


def test_heat_is_colour_where_saliency_is_and_grey_elsewhere():
    frame = np.random.default_rng(0).integers(0, 256, (3, 48, 64), np.uint8)
    heat = np.zeros((12, 16), np.float32)
    heat[3, 4], heat[9, 12] = 2.0, -5.0
    found = overlay(frame, heat).astype(int)
    spread = found.max(axis=-1) - found.min(axis=-1)
    assert spread[14, 18] > 60
    assert spread[30:, 32:].max() <= 1  # also where it is below 0
    np.testing.assert_allclose(found[40, 40], frame[:, 40, 40].astype(float).mean(), atol=1.5)


@pytest.fixture(scope="module")
def run(tmp_path_factory, make_dataset, make_config, make_inputs) -> Path:
    folder = tmp_path_factory.mktemp("saliency")
    make_dataset(folder / "x.zarr", [6], actions=3, size=(48, 64), fps=10.0)
    config = dataclasses.replace(make_config(), dataset=DatasetConfig(path=str(folder / "x.zarr")))
    return save_run(folder / "run", config, make_inputs(recorded_size=(48, 64)))


@pytest.mark.parametrize(("method", "action"), [("gradient", None), ("occlusion", "a1")])
def test_the_video_has_every_frame(run, tmp_path, method, action):
    film_saliency(run, tmp_path / "s.mp4", QUIET, method=method, action=action)
    pictures, rate = decode(tmp_path / "s.mp4")
    assert (len(pictures), rate) == (6, 10)
    assert (pictures.shape[1] > 48 * 8, pictures.shape[2]) == (True, 64 * 8)
    spread = np.ptp(pictures[:, 40 : 48 * 8].astype(int), axis=-1)
    assert (spread > 60).any(axis=(1, 2)).all()  # heat in each


def test_bad_input_is_refused_before_anything_is_written(run, tmp_path):
    for out, options, message in (
        ("s.mp4", {"action": "a9"}, "unknown action 'a9'"),
        ("s.mp4", {"method": "gradent"}, "did you mean 'gradient'"),
        ("s.mp4", {"episode": 4}, r"has no episode 4 \(it has 0\)"),
        ("no/s.mp4", {}, "cannot write"),
    ):
        with pytest.raises(UserError, match=message):
            film_saliency(run, tmp_path / out, QUIET, **options)
    assert not list(tmp_path.iterdir())
