import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.progress import Progress
from untrained import save_run

from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.decode import Decoding
from BC_training.common.decoder import Decoder
from BC_training.common.errors import UserError
from BC_training.common.preprocess import InputSpec, Window, normalize, resize_frames
from BC_training.common.schema import DatasetConfig
from BC_training.data.loader import make_tier
from BC_training.data.samples import Samples
from BC_training.inference import Policy
from BC_training.runtime.sharding import one_device
from BC_training.training.train_state import init_state, make_optimizer, make_predict, split_model


def area_average(frames: np.ndarray, rows: int, cols: int) -> np.ndarray:
    """float64, the mean over each block of rows x cols pixels."""
    n, c, h, w = frames.shape
    return frames.reshape(n, c, h // rows, rows, w // cols, cols).astype(np.float64).mean(axis=(3, 5))


@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    rows=st.integers(1, 6),
    cols=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_resizing_averages_over_the_area(size, rows, cols, seed):
    """By whole factors, exact but for rounding: to the nearest where the area is a power of two, else up to 2/3 off."""
    frames = np.random.default_rng(seed).integers(0, 256, (2, 3, size[0] * rows, size[1] * cols), np.uint8)
    resized = resize_frames(frames, size)
    assert (resized.dtype, resized.shape) == (np.uint8, (2, 3, *size))
    bound = 0.5 if (rows * cols).bit_count() == 1 else 2 / 3
    assert np.abs(resized - area_average(frames, rows, cols)).max() <= bound + 1e-9


def centre_average(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """float64, the mean over the pixels whose centre lies in the output pixel."""
    for axis, wanted in ((2, size[0]), (3, size[1])):
        length = frames.shape[axis]
        centres = np.arange(length) + 0.5
        edges = np.arange(wanted + 1) * length / wanted
        inside = (centres > edges[:-1, None]) & (centres <= edges[1:, None])  # [wanted, length]
        frames = np.moveaxis(np.moveaxis(frames, axis, -1) @ (inside / inside.sum(axis=1, keepdims=True)).T, -1, axis)
    return frames


@pytest.mark.parametrize("size", [(10, 13), (7, 32), (24, 31), (17, 20)])
def test_resizing_by_other_factors_averages_over_whole_pixels(size):
    frames = np.random.default_rng(0).integers(0, 256, (2, 3, 24, 32), np.uint8)
    assert np.abs(resize_frames(frames, size) - centre_average(frames, size)).max() <= 1


def test_resizing_to_the_same_size_copies_nothing():
    frames = np.zeros((2, 3, 8, 12), np.uint8)
    assert resize_frames(frames, (8, 12)) is frames


def test_views_and_no_frames_are_resized():
    frames = np.random.default_rng(0).integers(0, 256, (4, 3, 8, 12), np.uint8)
    np.testing.assert_array_equal(resize_frames(frames[::2, ::-1], (4, 6)), resize_frames(frames, (4, 6))[::2, ::-1])
    assert resize_frames(frames[:0], (4, 6)).shape == (0, 3, 4, 6)


def test_normalizing_scales_frames_to_0_to_1_in_float32(make_inputs):
    frames = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    with jax.numpy_dtype_promotion("strict"):
        observation = normalize({"frames": jnp.asarray(frames), "state": jnp.ones(3)}, make_inputs())
    normalized = observation["frames"]
    np.testing.assert_array_equal(observation["state"], np.ones(3))
    assert normalized.dtype == jnp.float32
    np.testing.assert_allclose(normalized, frames.astype(np.float64) / 255, rtol=1e-7)
    assert (float(normalized.min()), float(normalized.max())) == (0.0, 1.0)


def test_an_input_spec_comes_back_from_json():
    inputs = InputSpec(("left", "right"), ("health",), (288, 512), (72, 128), 17.08, Window(history=3, frame_skip=2))
    assert InputSpec.from_dict(json.loads(json.dumps(inputs.to_dict()))) == inputs
    assert inputs.frame_shape == (3, 72, 128)


RECORDED, SEEN = (48, 80), (24, 32)  # a whole factor in height alone, so that the general resize runs


@pytest.fixture(scope="module")
def playing(tmp_path_factory, make_dataset, make_config, make_inputs):
    """A dataset, and the Policy, looking back, of a checkpoint whose running statistics are not trivial."""
    folder = tmp_path_factory.mktemp("playing")
    make_dataset(folder / "x.zarr", [4, 6], size=RECORDED, actions=3)
    config, inputs = make_config({"conv_features": (4,), "conv_strides": (2,)}), make_inputs(3, SEEN, RECORDED)
    inputs = dataclasses.replace(inputs, window=Window(history=2, frame_skip=2))
    model = split_model(config, inputs)
    state = init_state(model, make_optimizer(config.training, 10)[0])
    rng = np.random.default_rng(0)
    batch_stats = jax.tree.map(lambda x: x * rng.uniform(0.1, 0.2, x.shape).astype(x.dtype), state.batch_stats)
    state = state._replace(batch_stats=batch_stats)
    save_run(folder / "run", config, inputs, state=state)
    predict = make_predict(model)
    dataset = ZarrGameplayDataset(folder / "x.zarr")
    return dataset, Policy.load(folder / "run"), lambda batch: predict(state.params, state.batch_stats, batch)


@pytest.mark.parametrize("cache", ["none", "disk", "device"])
def test_playing_equals_training(playing, cache, tmp_path):
    """``Policy`` on recorded frames, one after the other, and the model on the loader's batch of them."""
    dataset, policy, predict = playing
    samples = Samples(dataset, [0, 1], policy.inputs.window)
    options = DatasetConfig("unused", cache=cache, cache_dir=str(tmp_path))
    with Progress(disable=True) as progress:
        (batch,) = make_tier(options, samples, SEEN, progress, one_device()).batches(iter([np.arange(10)]))
    trained = np.asarray(jax.nn.sigmoid(predict(batch)))
    played = []
    for episode, length in enumerate((4, 6)):
        policy.reset()
        played += [policy.probabilities(frame) for frame in dataset.frames(episode, range(length))]
    assert (played[0].dtype, played[0].shape) == (np.float32, (3,))
    np.testing.assert_allclose(played, trained, rtol=1e-5, atol=1e-6)
    assert np.ptp(played, axis=0).min() > 1e-3  # the frames do matter


def test_a_new_episode_forgets_the_last(playing):
    dataset, policy, _ = playing
    first, second, third = dataset.frames(1, range(3))
    policy.reset()
    alone = policy.probabilities(third)
    policy.reset()
    policy.probabilities(first)
    policy.probabilities(second)
    assert not np.allclose(policy.probabilities(third), alone)  # the model looks two frames back
    policy.reset()
    np.testing.assert_array_equal(policy.probabilities(third), alone)


def test_a_policy_presses_at_the_threshold_or_above(playing, monkeypatch):
    dataset, policy, _ = playing
    frame = dataset.frames(0, [0])[0]
    policy.reset()
    probabilities = policy.probabilities(frame)
    middle = float(np.median(probabilities))
    monkeypatch.setattr(policy, "_decoder", Decoder(Decoding(dict.fromkeys(policy.inputs.action_names, middle))))
    pressed = policy.act(frame).buttons
    assert (pressed.dtype, pressed.sum()) == (np.bool_, 2)
    np.testing.assert_array_equal(pressed, probabilities >= middle)
    np.testing.assert_array_equal(policy.act(frame, np.ones(3, np.float32)).buttons, pressed)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((3, *SEEN), np.uint8), ((*RECORDED, 3), np.uint8), ((3, *RECORDED), np.float32), ((1, 3, *RECORDED), np.uint8)],
)
def test_a_policy_refuses_other_frames(playing, shape, dtype):
    with pytest.raises(UserError, match="the policy takes frames uint8") as caught:
        playing[1].act(np.zeros(shape, dtype))
    assert "\n" not in str(caught.value)
