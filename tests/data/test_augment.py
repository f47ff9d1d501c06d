"""Augmentation is compared with NumPy and with Matplotlib's colours."""

import dataclasses
import os
import subprocess
import sys
from functools import lru_cache

import jax
import numpy as np
import pytest
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv

from BC_training.common.axes import AxisBins, squeezed_actions
from BC_training.common.errors import UserError
from BC_training.common.mirror import MirrorTable
from BC_training.common.preprocess import InputSpec, Window
from BC_training.common.schema import AugmentationConfig
from BC_training.common.settings.state import StateConfig
from BC_training.common.state import StateFeatures
from BC_training.data.augment import make_augment

BATCH, T, SIZE, CHUNK, K = 24, 3, (10, 14), 2, 2
ACTIONS = ("turn_left", "attack", "turn_right")
STATE = ("health", "angle", "wall_left", "wall_right")
TABLE = MirrorTable({"angle": "-angle"}, ACTIONS, STATE, "x.zarr")
INPUTS = InputSpec(ACTIONS, STATE, SIZE, SIZE, 17.0, Window(T, 1, K, 0, CHUNK, True, auxiliary=True))
EVERYTHING = AugmentationConfig(2, 0.2, 0.3, 0.4, 0.1, 0.5, 2)
MIRRORED_ACTIONS, MIRRORED_STATE, SIGNS = [2, 1, 0], [0, 1, 3, 2], np.array([1, -1, 1, 1], np.float32)


def a_batch(low: int = 0, high: int = 256) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "frames": rng.integers(low, high, (BATCH, T, 3, *SIZE), dtype=np.uint8),
        "action": rng.random((BATCH, CHUNK, 3)) < 0.5,
        "mask": rng.random((BATCH, CHUNK)) < 0.5,
        "previous_actions": rng.random((BATCH, K, 3)) < 0.5,
        "state": rng.normal(size=(BATCH, T, 4)).astype(np.float32),
        "auxiliary": rng.normal(size=(BATCH, 4)).astype(np.float32),
    }


@lru_cache
def compiled(config: AugmentationConfig | None):
    return jax.jit(make_augment(config, INPUTS, TABLE))


def augmented(config: AugmentationConfig | None, batch: dict[str, np.ndarray], step: int = 0) -> dict[str, np.ndarray]:
    out = compiled(config)(jax.random.fold_in(jax.random.key(0), step), batch)
    assert {n: (x.shape, x.dtype) for n, x in out.items()} == {n: (x.shape, x.dtype) for n, x in batch.items()}
    return {name: np.asarray(x) for name, x in out.items()}


def assert_same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert set(a) == set(b)
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def by_hand(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {
        "frames": batch["frames"][..., ::-1],
        "action": batch["action"][..., MIRRORED_ACTIONS],
        "mask": batch["mask"],
        "previous_actions": batch["previous_actions"][..., MIRRORED_ACTIONS],
        "state": batch["state"][..., MIRRORED_STATE] * SIGNS,
        "auxiliary": batch["auxiliary"][..., MIRRORED_STATE] * SIGNS,
    }


@pytest.mark.parametrize("config", [None, AugmentationConfig()])
def test_no_augmentation_changes_nothing(config):
    assert_same(augmented(config, a_batch()), a_batch())


def test_a_flip_mirrors_frames_and_labels():
    batch = a_batch()
    once = augmented(AugmentationConfig(flip=1), batch)
    assert_same(once, by_hand(batch))
    assert_same(augmented(AugmentationConfig(flip=1), once), batch)


def test_samples_are_flipped_whole_or_not_at_all():
    batch = a_batch()
    out, other = augmented(AugmentationConfig(flip=0.5), batch), by_hand(batch)
    flipped = [bool((out["frames"][i] == other["frames"][i]).all()) for i in range(BATCH)]
    assert 0.2 < np.mean(flipped) < 0.8
    for i, flip in enumerate(flipped):
        source = other if flip else batch
        assert_same({n: x[i] for n, x in out.items()}, {n: x[i] for n, x in source.items()})


def test_a_batch_without_chunks_state_or_previous_actions_flips():
    inputs = InputSpec(ACTIONS, STATE, SIZE, SIZE, 17.0)  # has state values, but the model does not see them
    augment = make_augment(AugmentationConfig(flip=1), inputs, MirrorTable(None, ACTIONS, STATE, "x.zarr"))
    frames, action = a_batch()["frames"][:, :1], a_batch()["action"][:, 0]
    out = jax.jit(augment)(jax.random.key(0), {"frames": frames, "action": action})
    np.testing.assert_array_equal(out["frames"], frames[..., ::-1])
    np.testing.assert_array_equal(out["action"], action[:, MIRRORED_ACTIONS])


def test_a_flip_turns_the_axes_that_lie_across_the_screen():
    names, bins = ("steer", "gas", "left_stick_x"), AxisBins((1.0, 1.0, 2.0), 11, 10.0)
    table = MirrorTable(None, ACTIONS, (), "x.zarr", names)
    inputs = InputSpec(ACTIONS, (), SIZE, SIZE, 17.0, Window(action_history=K), None, names, bins)
    rng, batch = np.random.default_rng(1), a_batch()
    axes, before = rng.normal(size=(BATCH, 3)), rng.normal(size=(BATCH, K, 3))
    signs = np.array([-1, 1, -1])

    def labels(sign: np.ndarray, buttons: list[int]) -> dict[str, np.ndarray]:
        previous = squeezed_actions(batch["previous_actions"][..., buttons], before * sign, bins)
        action = batch["action"][:, 0][..., buttons]
        return {"action": action, "axes": bins.find(axes * sign), "previous_actions": previous}

    augment = jax.jit(make_augment(AugmentationConfig(flip=1), inputs, table))
    out = augment(jax.random.key(0), {"frames": batch["frames"][:, :1], **labels(np.ones(3), [0, 1, 2])})
    for name, expected in labels(signs, MIRRORED_ACTIONS).items():
        np.testing.assert_array_equal(out[name], expected, err_msg=name)
        assert out[name].dtype == expected.dtype


def test_a_crop_is_one_window_of_the_padded_frames():
    size, batch = 2, a_batch()
    out = augmented(AugmentationConfig(crop=size), batch)
    padded = np.pad(batch["frames"], [(0, 0)] * 3 + [(size, size)] * 2, mode="edge")
    height, width = SIZE
    shifts = []
    for i in range(BATCH):
        places = [
            (y, x)
            for y in range(2 * size + 1)
            for x in range(2 * size + 1)
            if (padded[i, :, :, y : y + height, x : x + width] == out["frames"][i]).all()
        ]
        assert len(places) == 1, i
        shifts += places
    for axis in range(2):
        assert {shift[axis] for shift in shifts} == set(range(2 * size + 1))
    assert len(set(shifts)) > BATCH / 3
    assert_same(out | {"frames": 0}, batch | {"frames": 0})


def test_temporal_jitter_shows_older_frames_and_their_state():
    batch = a_batch()
    out = augmented(AugmentationConfig(temporal_jitter=4), batch)
    ages = []
    for i in range(BATCH):
        fits = []
        for age in range(T):
            rows = np.maximum(np.arange(T) - age, 0)
            if (out["frames"][i] == batch["frames"][i, rows]).all():
                np.testing.assert_array_equal(out["state"][i], batch["state"][i, rows])
                fits.append(age)
        assert len(fits) == 1
        ages += fits
    counts = np.bincount(ages, minlength=T)
    assert counts[2] > counts[0] > 0 < counts[1]  # 2, 3 and 4 positions look the same
    kept = ("action", "mask", "previous_actions", "auxiliary")
    assert_same({n: out[n] for n in kept}, {n: batch[n] for n in kept})


def test_brightness_adds_one_number():
    batch = a_batch(64, 192)
    difference = augmented(AugmentationConfig(brightness=0.2), batch)["frames"].astype(int) - batch["frames"]
    shifts = difference[:, 0, 0, 0, 0]
    assert (difference == shifts[:, None, None, None, None]).all()
    assert np.abs(shifts).max() <= 51
    assert shifts.min() < -20
    assert shifts.max() > 20
    assert len(set(shifts.tolist())) > BATCH / 2


def test_colours_are_clipped_at_black_and_white():
    frames = np.repeat(np.array([5, 250], np.uint8), SIZE[1] // 2) * np.ones((BATCH, T, 3, *SIZE), np.uint8)
    out = augmented(AugmentationConfig(brightness=1, contrast=1), a_batch() | {"frames": frames})["frames"]
    dark, bright = out[..., : SIZE[1] // 2], out[..., SIZE[1] // 2 :]
    assert (dark.astype(int) <= bright).all()
    assert {0, 255} <= set(np.unique(out).tolist())


def test_hue_is_changed_after_brightness_and_contrast():
    first = augmented(AugmentationConfig(brightness=1, contrast=1), a_batch())
    both = augmented(AugmentationConfig(brightness=1, contrast=1, hue=0.1), a_batch())
    second = augmented(AugmentationConfig(hue=0.1), first)
    np.testing.assert_allclose(both["frames"].astype(int), second["frames"], atol=2)  # rounded once, and twice
    assert (both["frames"] != first["frames"]).mean() > 0.2


def test_contrast_stretches_each_frame_about_its_mean():
    batch = a_batch(96, 160)
    out = augmented(AugmentationConfig(contrast=0.5), batch)["frames"].astype(float)
    frames = batch["frames"].astype(float)
    means = frames.mean(axis=(-2, -1), keepdims=True)
    factors = []
    for x, y, mean in zip(frames, out, means, strict=True):
        factor = ((x - mean) * (y - mean)).sum() / ((x - mean) ** 2).sum()  # least squares
        np.testing.assert_allclose(y, factor * (x - mean) + mean, atol=0.6)
        factors.append(factor)
    assert 0.499 <= min(factors) < 0.75
    assert 1.25 < max(factors) <= 1.501


def to_rgb(*hsv: np.ndarray) -> np.ndarray:
    """float [B, T, 3, H, W] in [0, 255] from hue, saturation and value [B, T, H, W]."""
    return 255 * np.moveaxis(hsv_to_rgb(np.stack(hsv, axis=-1)), -1, 2)


def test_saturation_and_hue_are_those_of_hsv():
    batch = a_batch()
    batch["frames"][:, :, :, 0, 0] = np.array([200, 100, 100], np.uint8)  # the draw can be computed from it
    hue, saturation, value = np.moveaxis(rgb_to_hsv(np.moveaxis(batch["frames"], 2, -1) / 255), -1, 0)

    out = augmented(AugmentationConfig(saturation=0.5), batch)["frames"]
    factors = (200 - out[:, :1, 1, :1, :1].astype(float)) / 100
    expected = to_rgb(hue, np.minimum(saturation * factors, 1), value)
    np.testing.assert_allclose(out, expected, atol=3.5)  # the factor is known to half a level of 100
    assert 0.5 <= factors.min() < 0.8
    assert 1.2 < factors.max() <= 1.5

    out = augmented(AugmentationConfig(hue=0.1), batch)["frames"].astype(float)
    turns = (out[:, :1, 1] - out[:, :1, 2])[..., :1, :1] / 600  # in [-1/6, 1/6], since the colour is reddish
    expected = to_rgb((hue + turns) % 1, saturation, value)
    np.testing.assert_allclose(out, expected, atol=3.5)
    assert -0.1 <= turns.min() < -0.05
    assert 0.05 < turns.max() <= 0.1


def test_frames_of_a_window_share_their_colours():
    batch = a_batch()
    batch["frames"][:] = batch["frames"][:, :1]
    out = augmented(EVERYTHING, batch)["frames"]
    assert (out == out[:, :1]).all()
    assert not (out == batch["frames"]).all(axis=(1, 2, 3, 4)).any()


def test_draws_follow_from_the_step():
    batch = a_batch()
    batch["frames"][:] = batch["frames"][:1]
    first = augmented(EVERYTHING, batch)
    assert_same(first, augmented(EVERYTHING, batch))
    assert len(np.unique(first["frames"].reshape(BATCH, -1), axis=0)) == BATCH
    other = augmented(EVERYTHING, batch, step=1)["frames"]
    assert not (first["frames"] == other).all(axis=(1, 2, 3, 4)).any()


def test_switching_one_change_on_leaves_the_draws_of_the_others():
    flipped = augmented(AugmentationConfig(flip=0.5), a_batch())
    np.testing.assert_array_equal(augmented(EVERYTHING, a_batch())["action"], flipped["action"])


def test_dtypes_are_never_promoted_silently():
    with jax.numpy_dtype_promotion("strict"):
        jax.eval_shape(make_augment(EVERYTHING, INPUTS, TABLE), jax.random.key(0), a_batch())


SHARDED = """
import sys
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tests.data.test_augment import EVERYTHING, a_batch, compiled

assert jax.device_count() == 4
mesh = Mesh(np.array(jax.devices()), ("data",))
split, whole = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
key = jax.device_put(jax.random.fold_in(jax.random.key(0), 0), whole)
batch = jax.device_put(a_batch(), split)
augment = compiled(EVERYTHING).lower(key, batch).compile()
collectives = ("all-gather", "all-to-all", "all-reduce", "collective-permute")
assert not [name for name in collectives if name in augment.as_text()]
out = augment(key, batch)
assert all(x.sharding.is_equivalent_to(split, x.ndim) for x in out.values())
np.savez(sys.argv[1], **out)
"""


@pytest.mark.slow
def test_devices_that_share_a_batch_draw_as_one_does_and_exchange_nothing(request, tmp_path):
    # With the flags of this process, since another optimization may round a colour the other way.
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=4"
    env = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(request.config.rootpath)}
    command = [sys.executable, "-c", SHARDED, str(tmp_path / "out.npz")]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert_same(dict(np.load(tmp_path / "out.npz")), augmented(EVERYTHING, a_batch()))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"temporal_jitter": 1}, r"dataset\.history is 1"),
        ({"crop": 10}, "set it below 10"),
        ({"flip": 0.5}, r"no mirror image is known for action 'key_3'.*attrs\['mirror'\]"),
    ],
)
def test_an_augmentation_that_the_inputs_do_not_allow_is_refused(setting, message):
    inputs = InputSpec(("attack", "key_3"), STATE, SIZE, SIZE, 17.0)
    with pytest.raises(UserError, match=message):
        make_augment(AugmentationConfig(**setting), inputs, MirrorTable(None, inputs.action_names, STATE, "x.zarr"))


def test_a_state_value_without_a_mirror_image_is_refused_where_the_model_sees_or_predicts_it():
    unknown = MirrorTable(None, ACTIONS, STATE, "x.zarr")
    fitted = StateFeatures(StateConfig(standardized=("angle",)), (), (0.0,), (1.0,))
    predicting = dataclasses.replace(INPUTS, window=Window(T, auxiliary=True), auxiliary=fitted)
    for inputs in (INPUTS, predicting):
        with pytest.raises(UserError, match="state value 'angle'"):
            make_augment(AugmentationConfig(flip=0.5), inputs, unknown)
    sees_other = StateFeatures(StateConfig(standardized=("health",)), (), (0.0,), (1.0,))
    make_augment(AugmentationConfig(flip=0.5), dataclasses.replace(predicting, auxiliary=sees_other), unknown)
    blind = dataclasses.replace(INPUTS, window=Window(T))
    make_augment(AugmentationConfig(flip=0.5), blind, unknown)
    make_augment(dataclasses.replace(EVERYTHING, flip=0), INPUTS, unknown)


@pytest.mark.parametrize(
    "setting",
    ["crop=-1", "brightness=1.1", "contrast=-.1", "saturation=2", "hue=.6", "hue=nan", "flip=2", "temporal_jitter=-1"],
)
def test_strengths_out_of_range_are_refused(setting):
    name, value = setting.split("=")
    with pytest.raises(UserError, match=f"training.augmentation.{name}=.* is out of range"):
        AugmentationConfig(**{name: float(value)})
