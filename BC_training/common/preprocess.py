"""From recorded or played frames and state to model inputs: one path for training and for playing.

``resize_frames`` runs on the host (uint8 travels to the device), ``normalize`` on the device
inside the jitted step. The dataset's loader and ``Policy.act`` call these same two functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from BC_training.common.state import StateFeatures

if TYPE_CHECKING:
    import jax  # not at run time: games resize their frames too, in processes without JAX


OBSERVATION = ("frames", "previous_actions", "state", "since_change")  # what of a batch the model sees


@dataclass(frozen=True)
class Window:
    """What of an episode one sample at frame t holds.

    Attributes:
        history: T, the frames t - (T-1) * frame_skip, ..., t - frame_skip, t. Before the
            episode's first frame, that frame stands in.
        frame_skip: frames from one of them to the next.
        action_history: K, the actions of frames t - K, ..., t - 1; before the first frame
            nothing is pressed.
        action_shift: the target is the action of frame t + action_shift.
        action_chunk: C, how many actions from there on are the target.
        state: whether the state of the history's frames goes with them.
        since_change: K state values; how many frames ago each last changed goes with the state.
        every_frame: whether the history's other frames have their own targets, and previous
            actions, as well.
    """

    history: int = 1
    frame_skip: int = 1
    action_history: int = 0
    action_shift: int = 0
    action_chunk: int = 1
    state: bool = False
    since_change: tuple[str, ...] = ()
    every_frame: bool = False

    @property
    def span(self) -> int:
        """Frames from the oldest to the newest of the history, both counted."""
        return (self.history - 1) * self.frame_skip + 1

    @property
    def targets(self) -> int:
        """Frames of a sample that have their own target."""
        return self.history if self.every_frame else 1


@dataclass(frozen=True)
class InputSpec:
    """What a policy sees and presses; saved in its checkpoint.

    Attributes:
        action_names: the A buttons, in the order of the logits.
        state_names: the S values recorded beside the frames; empty without a state.
        recorded_size: (H, W) in pixels of the frames in the dataset and from the game.
        frame_size: (H, W) in pixels of the frames the model sees.
        fps: frames per second of the recording; None if the dataset does not say.
        window: what of an episode it sees at once, and predicts.
        state: the features of the state it sees, fitted to its training; None without any.
    """

    action_names: tuple[str, ...]
    state_names: tuple[str, ...]
    recorded_size: tuple[int, int]
    frame_size: tuple[int, int]
    fps: float | None
    window: Window = Window()
    state: StateFeatures | None = None

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """Shape (3, H, W) of the model's frame."""
        return (3, *self.frame_size)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> InputSpec:
        return cls(
            action_names=tuple(raw["action_names"]),
            state_names=tuple(raw["state_names"]),
            recorded_size=(raw["recorded_size"][0], raw["recorded_size"][1]),
            frame_size=(raw["frame_size"][0], raw["frame_size"][1]),
            fps=raw["fps"],
            window=Window(**(raw["window"] | {"since_change": tuple(raw["window"].get("since_change", ()))})),
            state=StateFeatures.from_dict(raw["state"]) if raw.get("state") else None,
        )


def resize_frames(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes by averaging the pixels under each output pixel.

    Where the sides shrink by whole factors those are whole blocks; otherwise the pixels whose
    centres lie under the output pixel (Pillow's ``reduce`` and ``BOX``).

    Args:
        frames: uint8 [N, 3, H, W].
        size: (H, W) of the result, in pixels.

    Returns:
        uint8 [N, 3, size[0], size[1]]; ``frames`` itself when it has that size already.
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


def normalize(observation: Mapping[str, jax.Array], inputs: InputSpec, dtype: Any = np.float32) -> dict[str, jax.Array]:
    """An observation as the model takes it, on the device.

    Args:
        observation: of a batch, what ``OBSERVATION`` names: "frames" uint8 [B, T, 3, H, W], and
            where the model uses them "previous_actions" bool [B, K, A], "state" float32
            [B, T, S] as recorded and "since_change" float32 [B, T, K].
        inputs: what the model sees.
        dtype: of the results; before, everything is float32, since positions and ids need more
            than bfloat16's 8 bits.

    Returns:
        "frames" in [0, 1]; with ``inputs.state``, "state" [B, T, F] is its features and "ids" int32
        [B, T, C] the indices of its categories, 0 for an unknown id; all else as it was.
    """
    given = {**observation, "frames": scale_frames(observation["frames"]).astype(dtype)}
    if inputs.state is not None:
        features, given["ids"] = inputs.state.encode(
            inputs.state_names, observation["state"], given.pop("since_change", None)
        )
        given["state"] = features.astype(dtype)
    return given


def scale_frames(frames: jax.Array) -> jax.Array:
    """float32 in [0, 1] of uint8, of any shape."""
    return frames.astype(np.float32) / 255.0
