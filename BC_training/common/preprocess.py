"""Turns recorded or played frames and state into model inputs, by one path for training and playing.

``resize_frames`` runs on the host, since uint8 travels to the device; ``normalize`` runs on the device
inside the jitted step. The dataset's loader and ``Policy.act`` call these same two functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32, Shaped, UInt8
from PIL import Image

from BC_training.common.axes import AxisBins
from BC_training.common.state import StateFeatures

if TYPE_CHECKING:
    from jax import Array
else:
    Array = Any  # games resize their frames too, in processes that do not load JAX


OBSERVATION = ("frames", "previous_actions", "state", "since_change")  # the parts of a batch that a model sees


@dataclass(frozen=True)
class Window:
    """Which part of an episode a sample at frame t holds.

    Attributes:
        history: T frames, t - (T-1) * frame_skip, ..., t - frame_skip, t. The episode's first
            frame stands in for those before it.
        frame_skip: frames from one of them to the next.
        action_history: K actions, of frames t - K, ..., t - 1. Before the first frame nothing is
            pressed.
        action_shift: the target is the action of frame t + action_shift.
        action_chunk: the target is C actions from there on.
        state: whether the sample has the state of the history's frames.
        since_change: state values whose frames since their last change the sample has, too.
        every_frame: whether each frame of the history has a target and previous actions of its own.
        auxiliary: whether the sample has the state of the target's frame, for ``training.auxiliary_state``.
    """

    history: int = 1
    frame_skip: int = 1
    action_history: int = 0
    action_shift: int = 0
    action_chunk: int = 1
    state: bool = False
    since_change: tuple[str, ...] = ()
    every_frame: bool = False
    auxiliary: bool = False

    @property
    def span(self) -> int:
        """How many frames there are from the oldest to the newest of the history, both included."""
        return (self.history - 1) * self.frame_skip + 1

    @property
    def targets(self) -> int:
        """How many frames of a sample have a target of their own."""
        return self.history if self.every_frame else 1


@dataclass(frozen=True)
class InputSpec:
    """What a policy sees and presses; its checkpoint keeps it."""

    action_names: tuple[str, ...]  # the A buttons, in the order of the logits
    state_names: tuple[str, ...]  # the S values recorded with each frame
    recorded_size: tuple[int, int]  # (H, W) in pixels, in the dataset and from the game
    frame_size: tuple[int, int]  # (H, W) in pixels, as the model sees it
    fps: float | None  # frames per second; None if the dataset has no rate
    window: Window = Window()  # what it sees and predicts at once
    state: StateFeatures | None = None  # the features that it sees, fitted to its training split
    axis_names: tuple[str, ...] = ()  # the X axes, whose logits follow those of the buttons
    axis_bins: AxisBins | None = None  # the amounts that it tells apart, fitted likewise; None without axes
    auxiliary: StateFeatures | None = None  # the state that it predicts in training, fitted likewise

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """The shape (3, H, W) of the model's frame."""
        return (3, *self.frame_size)

    @property
    def action_size(self) -> int:
        """How many numbers describe a previous action: A + X."""
        return len(self.action_names) + len(self.axis_names)

    @property
    def logits(self) -> int:
        """How many logits describe an action: one a button, then for each axis one a bin."""
        return len(self.action_names) + (len(self.axis_names) * self.axis_bins.count if self.axis_bins else 0)

    @property
    def outputs(self) -> int:
        """How many numbers the model puts out: the logits, then what it predicts of the state."""
        return self.logits + (self.auxiliary.size if self.auxiliary else 0)

    def split_logits(self, logits: Any) -> tuple[Any, Any]:
        """Logits [..., L] as those of the buttons, [..., A], and of the axes, [..., X, bins]."""
        buttons, axes = len(self.action_names), len(self.axis_names)
        bins = self.axis_bins.count if self.axis_bins else 0
        return logits[..., :buttons], logits[..., buttons:].reshape(*logits.shape[:-1], axes, bins)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> InputSpec:
        return cls(
            action_names=tuple(raw["action_names"]),
            axis_names=tuple(raw["axis_names"]),
            state_names=tuple(raw["state_names"]),
            recorded_size=(raw["recorded_size"][0], raw["recorded_size"][1]),
            frame_size=(raw["frame_size"][0], raw["frame_size"][1]),
            fps=raw["fps"],
            window=Window(**(raw["window"] | {"since_change": tuple(raw["window"]["since_change"])})),
            state=StateFeatures.from_dict(raw["state"]) if raw["state"] else None,
            axis_bins=AxisBins.from_dict(raw["axis_bins"]) if raw["axis_bins"] else None,
            auxiliary=StateFeatures.from_dict(raw["auxiliary"]) if raw.get("auxiliary") else None,
        )


def resize_frames(frames: UInt8[np.ndarray, "N C H W"], size: tuple[int, int]) -> UInt8[np.ndarray, "N C h w"]:
    """Resizes frames to ``size``, (h, w) in pixels, by averaging the pixels under each output pixel.

    Where both sides shrink by whole factors, these are whole blocks (Pillow's ``reduce``);
    otherwise the pixels whose centres lie under the output pixel (``BOX``). Frames that have that
    size already are returned as they are.
    """
    height, width = size
    if frames.shape[2:] == (height, width):
        return frames
    rows, cols = frames.shape[2] / height, frames.shape[3] / width
    out = np.empty((*frames.shape[:2], height, width), np.uint8)
    for n, c in np.ndindex(*frames.shape[:2]):
        plane = Image.fromarray(frames[n, c])
        if rows.is_integer() and cols.is_integer():  # within one level of BOX, four times as fast
            plane = plane.reduce((int(cols), int(rows)))
        else:
            plane = plane.resize((width, height), Image.Resampling.BOX)
        out[n, c] = np.asarray(plane)
    return out


def normalize(
    observation: Mapping[str, Shaped[Array, "B ..."]], inputs: InputSpec, dtype: Any = np.float32
) -> dict[str, Shaped[Array, "B ..."]]:
    """Makes the observation that a model takes, on the device.

    Args:
        observation: the parts of a batch that ``OBSERVATION`` names: "frames" uint8
            [B, T, 3, H, W], and where the model uses them "previous_actions" bool [B, K, A]
            (float32 [B, K, A + X] with axes, see ``axes.squeezed_actions``),
            "state" float32 [B, T, S] as recorded and "since_change" float32 [B, T, K].
        dtype: of the results. All is computed in float32, since positions and ids need more than
            bfloat16's 8 bits.

    Returns:
        ``observation`` with "frames" in [0, 1]. With ``inputs.state``, "state" [B, T, F] holds its
        features and "ids" int32 [B, T, C] the indices of its categories, 0 for an unknown id.
    """
    given = {**observation, "frames": scale_frames(observation["frames"]).astype(dtype)}
    if inputs.state is not None:
        features, given["ids"] = inputs.state.encode(
            inputs.state_names, observation["state"], given.pop("since_change", None)
        )
        given["state"] = features.astype(dtype)
    return given


def scale_frames(frames: UInt8[Array, "*shape"] | Float32[Array, "*shape"]) -> Float32[Array, "*shape"]:
    """Scales values of 0 to 255 to [0, 1]; floats are what a gradient is taken of."""
    return frames.astype(np.float32) / 255.0
