"""Saliency: the pixels of the newest frame on which a policy's logits depend."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from jax.typing import ArrayLike
from PIL import Image
from rich.console import Console
from rich.progress import Progress
from scipy import ndimage

from BC_training.common.action import Action
from BC_training.common.errors import unknown
from BC_training.common.files import disk_full_is_user_error
from BC_training.common.preprocess import OBSERVATION
from BC_training.data.loader import make_tier
from BC_training.data.samples import Samples
from BC_training.evaluation.predict import EpisodePredictions, frames_of, open_episode, predict_episode
from BC_training.play.say import say
from BC_training.play.video import UNKNOWN_FPS, VideoWriter, require_video
from BC_training.play.video_text import drawable, substitutions
from BC_training.runtime.sharding import one_device
from BC_training.training import checkpoint as checkpoints
from BC_training.training.train_state import make_predict

Predict = Callable[[Any, Any, Mapping[str, ArrayLike]], jax.Array]
Saliency = Callable[[Any, Any, Mapping[str, ArrayLike], ArrayLike], jax.Array]

METHODS = ("gradient", "occlusion")
_BLUR = 0.02  # standard deviation of a gradient's smoothing, of the frame's width
_PATCHES = 16  # along the frame's width
_AT_ONCE = 16  # patches in one forward pass: bounds memory


def film_saliency(
    checkpoint: str | Path,
    out: Path,
    console: Console,
    *,
    data: str | Path | None = None,
    episode: int = 0,
    action: str | None = None,
    method: str = "gradient",
) -> None:
    """Writes a video of a recorded episode with the saliency of a policy's logits as heat over the frames.

    Args:
        data: a dataset; None for the one the policy was trained on.
        episode: the number in the name of the episode's folder.
        action: the button, or the axis, whose logit is shown; None for those of ``choose_logits``.
        method: one of ``METHODS``.

    Raises:
        UserError: that of ``predict.open_episode``, or for an unknown action or method or a file that cannot be written
            (before any work).
    """
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    require_video(out)
    policy, dataset, position = open_episode(checkpoint, data, episode)
    saved = checkpoints.read(checkpoint)
    inputs = saved.inputs
    names = inputs.action_names + inputs.axis_names
    if action is not None and action not in names:
        raise unknown("action", action, names)
    shown = predict_episode(policy, dataset, position, console)
    if note := substitutions(names, "actions"):
        say(console, note, style="yellow")
    chosen = choose_actions(shown, None if action is None else names.index(action))
    weights = choose_logits(shown, chosen)
    model, size = checkpoints.read_model(saved), saved.inputs.frame_size
    predict = make_predict(model)
    saliency = make_gradient(predict) if method == "gradient" else make_occlusion(predict, size)
    # Every frame counts, also one whose target was not recorded.
    window = dataclasses.replace(saved.inputs.window, action_shift=0)
    samples = Samples(dataset, [position], window, saved.inputs.axis_bins, unlabelled=True)
    with Progress(console=console, transient=True) as progress:
        options = dataclasses.replace(saved.config.dataset, cache="none")
        tier = make_tier(options, samples, size, progress, one_device())
        batches = tier.batches(np.array([t]) for t in range(len(shown)))
        bar = progress.add_task(f"{method} saliency", total=len(shown))
        values = np.concatenate([shown.probability, shown.predicted_axes], axis=1)
        style = shown.fps or UNKNOWN_FPS, inputs.action_names, inputs.axis_names
        with disk_full_is_user_error(out), VideoWriter(out, *style) as writer:
            for t, (frame, batch) in enumerate(zip(frames_of(dataset, position), batches, strict=True)):
                seen = {name: batch[name] for name in OBSERVATION if name in batch}
                found = np.asarray(saliency(model.params, model.batch_stats, seen, weights[t : t + 1])[0])
                heat = smooth(found) if method == "gradient" else found
                of = [f"{name} {values[t, i]:.2f}" for i, name in enumerate(drawable(names)) if chosen[t, i]]
                done = Action(shown.predicted[t], shown.predicted_axes[t])
                writer.add(overlay(frame, heat), done, f"frame {t}   {method} of {', '.join(of)}")
                progress.advance(bar)
    say(console, f"{shown.episode} of {dataset.path}: {len(shown):,} frames written to {out}", highlight=False)


def make_gradient(predict: Predict) -> Saliency:
    """The gradient of the chosen logits at the newest frame.

    Simonyan, Vedaldi and Zisserman, Deep inside convolutional networks, 2014, take the largest of the channels; this is
    their sum.

    Args:
        predict: of ``train_state.make_predict``.

    Returns:
        A jitted function of (params, batch_stats, batch, weights float32 [B, L]) to float32 [B, H, W]: for each pixel
        the sum over its channels of \\|d (weights . logits) / d pixel\\|, with pixels from 0 to 255. ``batch`` is an
        observation as ``predict`` takes it.
    """

    def saliency(params: Any, batch_stats: Any, batch: Mapping[str, jax.Array], weights: jax.Array) -> jax.Array:
        frames = batch["frames"].astype(jnp.float32)

        def chosen(newest: jax.Array) -> jax.Array:  # a sum over samples, which do not depend on each other
            seen = {**batch, "frames": jnp.concatenate([frames[:, :-1], newest], axis=1)}
            return (predict(params, batch_stats, seen) * weights).sum()

        return jnp.abs(jax.grad(chosen)(frames[:, -1:])).sum(axis=(1, 2))

    return jax.jit(saliency)


def make_occlusion(predict: Predict, frame_size: tuple[int, int]) -> Saliency:
    """By how much the chosen logits fall when a patch of the newest frame is covered.

    Zeiler and Fergus, Visualizing and understanding convolutional networks, 2014. A patch is a square of a sixteenth of
    the width, covered with the frame's mean colour.

    Args:
        predict: of ``train_state.make_predict``.
        frame_size: (H, W) in pixels that the model sees.

    Returns:
        A function like ``make_gradient``'s to float32 [B, h, w], a value per patch; negative where the logits rise.
    """
    height, width = frame_size
    side = max(1, width // _PATCHES)
    rows, columns = -(-height // side), -(-width // side)
    of_pixel = (np.arange(height) // side)[:, None] * columns + np.arange(width) // side  # int [H, W]

    def of_sample(params: Any, batch_stats: Any, sample: Mapping[str, jax.Array], weights: jax.Array) -> jax.Array:
        frames = sample["frames"].astype(jnp.float32)
        mean = jnp.broadcast_to(frames[-1].mean(axis=(1, 2), keepdims=True), frames[-1].shape)

        def chosen(patch: jax.Array) -> jax.Array:  # -1 covers nothing
            newest = jnp.where(jnp.broadcast_to(of_pixel == patch, mean.shape), mean, frames[-1])
            seen = {**sample, "frames": jnp.concatenate([frames[:-1], newest[None]])}
            return predict(params, batch_stats, jax.tree.map(lambda x: x[None], seen))[0] @ weights

        values = jax.lax.map(chosen, jnp.arange(-1, rows * columns), batch_size=_AT_ONCE)
        return (values[0] - values[1:]).reshape(rows, columns)

    def saliency(params: Any, batch_stats: Any, batch: Mapping[str, jax.Array], weights: jax.Array) -> jax.Array:
        def one(sample_and_weights: tuple[Mapping[str, jax.Array], jax.Array]) -> jax.Array:
            return of_sample(params, batch_stats, *sample_and_weights)

        return jax.lax.map(one, (dict(batch), weights))

    return jax.jit(saliency)


def smooth(gradient: np.ndarray) -> np.ndarray:
    """A gradient's magnitude, float32 [H, W], blurred: single pixels say little."""
    return ndimage.gaussian_filter(gradient, _BLUR * gradient.shape[1])


def choose_actions(shown: EpisodePredictions, action: int | None) -> np.ndarray:
    """The buttons and axes whose saliency each frame shows, bool [N, A + X].

    These are ``action``; or the buttons predicted as held and the axes predicted to be off the bin of 0; or, where
    there are none, the likeliest button, and all axes of a policy without buttons.
    """
    held, (count, buttons) = shown.predicted, shown.predicted.shape
    moved = np.zeros((count, 0), bool)
    if shown.axis_bins is not None:
        moved = np.not_equal(shown.axis_bins.find(shown.predicted_axes), shown.axis_bins.middle)
    done = np.concatenate([held, moved], axis=1)
    if action is not None:
        return np.tile(np.arange(done.shape[1]) == action, (count, 1))
    otherwise = np.full_like(done, not buttons)
    if buttons:
        otherwise[np.arange(count), shown.probability.argmax(axis=1)] = True
    return np.where(done.any(axis=1, keepdims=True), done, otherwise)


def choose_logits(shown: EpisodePredictions, chosen: np.ndarray) -> np.ndarray:
    """The logits of ``chosen`` bool [N, A + X], as float32 [N, L] of 0 and 1: of an axis that of the predicted bin."""
    (count, buttons), bins = shown.predicted.shape, shown.axis_bins
    if bins is None:
        return chosen.astype(np.float32)
    of_bins = np.arange(bins.count) == bins.find(shown.predicted_axes)[..., None]
    of_axes = (of_bins & chosen[:, buttons:, None]).reshape(count, -1)
    return np.concatenate([chosen[:, :buttons], of_axes], axis=1).astype(np.float32)


def overlay(frame: np.ndarray, saliency: np.ndarray) -> np.ndarray:
    """A frame uint8 [3, H, W] RGB with its saliency float [h, w] as heat, uint8 [H, W, 3].

    The largest value is the brightest; values below 0 are shown as 0.
    """
    heat = np.maximum(saliency, 0).astype(np.float32)
    heat /= max(float(heat.max()), 1e-12)
    size = frame.shape[2], frame.shape[1]
    heat = np.clip(np.asarray(Image.fromarray(heat).resize(size, Image.Resampling.BICUBIC)), 0, 1)[..., None]
    grey = frame.astype(np.float32).mean(axis=0)[..., None] * np.ones(3, np.float32)  # so that colour is heat alone
    colour = matplotlib.colormaps["inferno"](0.3 + 0.55 * heat[..., 0])[..., :3].astype(np.float32) * 255
    share = 0.65 * heat  # what is under the brightest heat can still be made out
    return np.clip(grey * (1 - share) + colour * share, 0, 255).astype(np.uint8)
