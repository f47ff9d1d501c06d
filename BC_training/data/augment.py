"""Augmentation: random changes of training batches, on the device, inside the jitted step.

Each sample draws its own numbers, which all frames of its window share. They follow from the
step's key and the sample's place in the batch alone. dm-pix changes the pixels.
"""

from collections.abc import Callable, Sequence

import dm_pix as pix
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int32, Key, PRNGKeyArray, UInt8

from BC_training.common.axes import AxisBins
from BC_training.common.errors import UserError
from BC_training.common.mirror import Mirror, MirrorTable
from BC_training.common.preprocess import InputSpec, scale_frames
from BC_training.common.schema import AugmentationConfig
from BC_training.data.loader import Batch

Augment = Callable[[PRNGKeyArray, Batch], Batch]

_STREAM = 0x617567  # folded into the step's key; dropout folds in 0, 1, 2, ...
# Each change has its own key, so that switching one on does not alter what the others draw.
_DRAWS = ("temporal_jitter", "flip", "crop", "brightness", "contrast", "saturation", "hue")


def make_augment(config: AugmentationConfig | None, inputs: InputSpec, table: MirrorTable) -> Augment:
    """Makes the augmentation that ``config`` describes; None leaves batches as they are.

    The order is temporal jitter, flip, crop, brightness, contrast, saturation, hue. Colours are
    clipped to [0, 1] after contrast and rounded to uint8 last.

    Returns:
        A function, to be called inside a jitted one, from (the step's key, a batch) to a batch of
        the same shapes and dtypes.

    Raises:
        UserError: temporal jitter without a history, a crop as large as the frame, or a flip
            where the mirror image of a button, an axis, or a state value the model sees, is not known.
    """
    if config is None:
        return lambda key, batch: batch
    if config.temporal_jitter and inputs.window.history < 2:
        raise UserError(
            f"training.augmentation.temporal_jitter={config.temporal_jitter} moves frames within the history, but "
            f"dataset.history is {inputs.window.history}: set it to 2 or more, or temporal_jitter=0"
        )
    if config.crop >= min(inputs.frame_size):
        raise UserError(
            f"training.augmentation.crop={config.crop} would shift frames of {inputs.frame_size[0]}x"
            f"{inputs.frame_size[1]} out of sight: set it below {min(inputs.frame_size)}"
        )
    window, features = inputs.window, (inputs.state, inputs.auxiliary)
    state_names = inputs.state_names if window.state or window.auxiliary else ()
    used = [name for of in features if of is not None for name in of.config.names] or None
    mirror = None
    if config.flip:
        mirror = table.find(inputs.action_names, state_names, used, window.since_change, inputs.axis_names)

    def augment_sample(sample_keys: Key[jax.Array, " draws"], sample: Batch) -> Batch:
        keys: dict[str, jax.Array] = dict(zip(_DRAWS, sample_keys, strict=True))
        if config.temporal_jitter:
            sample = delayed(sample, jax.random.randint(keys["temporal_jitter"], (), 0, config.temporal_jitter + 1))
        if mirror is not None:
            flip = jax.random.bernoulli(keys["flip"], float(config.flip))
            sample = jax.tree.map(
                lambda a, b: jnp.where(flip, a, b), mirrored(sample, mirror, inputs.axis_bins), sample
            )
        frames = sample["frames"]
        if config.crop:
            height, width = (side + 2 * config.crop for side in inputs.frame_size)
            padded = pix.pad_to_size(frames, height, width, mode="edge", channel_axis=-3)
            frames = jnp.asarray(pix.random_crop(keys["crop"], padded, frames.shape))
        return sample | {"frames": _recolored(config, keys, frames)}

    def augment(key: PRNGKeyArray, batch: Batch) -> Batch:
        keys = jax.random.split(jax.random.fold_in(key, _STREAM), (batch["frames"].shape[0], len(_DRAWS)))
        return jax.vmap(augment_sample)(keys, batch)

    return augment


def delayed(sample: Batch, positions: Int32[jax.Array, ""]) -> Batch:
    """Replaces frames [T, ...] and state by those ``positions`` places earlier in the window, at most the oldest."""
    times = jnp.maximum(jnp.arange(sample["frames"].shape[0]) - positions, 0)
    return sample | {name: sample[name][times] for name in ("frames", "state", "since_change") if name in sample}


def mirrored(sample: Batch, mirror: Mirror, bins: AxisBins | None = None) -> Batch:
    """Flips the frames [..., 3, H, W] of a sample or a batch horizontally, and its labels with them."""
    changed: Batch = {"frames": jnp.asarray(pix.flip_left_right(sample["frames"], channel_axis=-3))}
    if "action" in sample:
        changed["action"] = sample["action"][..., np.array(mirror.actions, int)]
    if "known" in sample:
        changed["known"] = sample["known"][..., np.array(mirror.actions, int)]
    if bins is not None:
        from_middle = sample["axes"][..., np.array(mirror.axes)] - bins.middle
        changed["axes"] = bins.middle + _times(from_middle, mirror.axis_signs)
    if "previous_actions" in sample:
        places = np.array([*mirror.actions, *(len(mirror.actions) + i for i in mirror.axes)])
        changed["previous_actions"] = sample["previous_actions"][..., places]
        if bins is not None:
            signs = (*(1.0 for _ in mirror.actions), *mirror.axis_signs)
            changed["previous_actions"] = _times(changed["previous_actions"], signs)
    for name in ("state", "auxiliary"):
        if name in sample:
            changed[name] = _times(sample[name][..., np.array(mirror.state)], mirror.signs)
    if "since_change" in sample:
        changed["since_change"] = sample["since_change"][..., np.array(mirror.since_change)]
    return sample | changed


def _times(values: jax.Array, factors: Sequence[float]) -> jax.Array:
    """Multiplies each of the last axis's values by its own factor."""
    return values * np.array(factors, values.dtype).reshape(*(1,) * (values.ndim - 1), -1)


def _recolored(
    config: AugmentationConfig, keys: dict[str, jax.Array], frames: UInt8[jax.Array, "T 3 H W"]
) -> UInt8[jax.Array, "T 3 H W"]:
    if not (config.brightness or config.contrast or config.saturation or config.hue):
        return frames
    x = scale_frames(frames)
    if config.brightness:
        x = pix.random_brightness(keys["brightness"], x, config.brightness)
    if config.contrast:
        x = pix.random_contrast(keys["contrast"], x, 1 - config.contrast, 1 + config.contrast, channel_axis=-3)
    x = jnp.clip(x, 0, 1)  # hue and saturation are not defined outside, and their changes do not leave it
    if config.saturation or config.hue:
        factor = jax.random.uniform(keys["saturation"], (), minval=1 - config.saturation, maxval=1 + config.saturation)
        delta = jax.random.uniform(keys["hue"], (), minval=-config.hue, maxval=config.hue)
        with jax.numpy_dtype_promotion("standard"):  # dm-pix adds a bool to floats
            hue, saturation, value = jnp.moveaxis(pix.rgb_to_hsv(x, channel_axis=-3), -3, 0)
            hsv = jnp.stack(((hue + delta) % 1, jnp.clip(saturation * factor, 0, 1), value), axis=-3)
            x = jnp.asarray(pix.hsv_to_rgb(hsv, channel_axis=-3))
    return jnp.round(x * 255).astype(jnp.uint8)
